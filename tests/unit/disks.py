"""A server with disks of many kinds, and declarations for them."""

from __future__ import annotations

import json

from ansible_collections.inferops.gpu_host.plugins.module_utils import _block_devices as block
from ansible_collections.inferops.gpu_host.plugins.module_utils import _fstab as tables
from ansible_collections.inferops.gpu_host.plugins.module_utils._disk_plan import plan_disks
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB

# util-linux 2.38 on a server whose system is on LVM on one NVMe disk, with a spare partition there
LSBLK = {
    "blockdevices": [
        {
            "name": "/dev/nvme0n1",
            "type": "disk",
            "size": 500 * GIB,
            "maj:min": "259:0",
            "serial": "SYS",
            "children": [
                {"name": "/dev/nvme0n1p1", "type": "part", "size": GIB, "maj:min": "259:1"},
                {
                    "name": "/dev/nvme0n1p2",
                    "type": "part",
                    "size": 300 * GIB,
                    "maj:min": "259:2",
                    "children": [
                        {"name": "/dev/mapper/vg-root", "type": "lvm", "size": 50 * GIB, "maj:min": "254:0"},
                        {"name": "/dev/mapper/vg-free", "type": "lvm", "size": 50 * GIB, "maj:min": "254:1"},
                    ],
                },
                {"name": "/dev/nvme0n1p3", "type": "part", "size": 100 * GIB, "maj:min": "259:3"},
            ],
        },
        {"name": "/dev/nvme1n1", "type": "disk", "size": 4096 * GIB, "maj:min": "259:4", "serial": "BIG"},
        {
            "name": "/dev/sda",
            "type": "disk",
            "size": 100 * GIB,
            "maj:min": "8:0",
            "serial": "OLD",
            "children": [{"name": "/dev/sda1", "type": "part", "size": 99 * GIB, "maj:min": "8:1"}],
        },
        {
            "name": "/dev/sdb",
            "type": "disk",
            "size": 100 * GIB,
            "maj:min": "8:16",
            "children": [{"name": "/dev/md0", "type": "raid1", "size": 100 * GIB, "maj:min": "9:0"}],
        },
        {
            "name": "/dev/sdc",
            "type": "disk",
            "size": 100 * GIB,
            "maj:min": "8:32",
            "children": [{"name": "/dev/md0", "type": "raid1", "size": 100 * GIB, "maj:min": "9:0"}],
        },
    ]
}
MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/mapper/vg-root rw
23 22 259:1 / /boot rw - ext4 /dev/nvme0n1p1 rw
24 22 0:40 /@ /with\\040space rw - btrfs /dev/md0 rw
"""


def filled(nodes):
    return [
        {
            "kname": node["name"],
            "ro": False,
            "serial": None,
            "model": None,
            **node,
            "children": filled(node.get("children", [])),
        }
        for node in nodes
    ]


def server():
    found = block.parse_lsblk(json.dumps({"blockdevices": filled(LSBLK["blockdevices"])}))
    for device in found.values():
        device.update(signatures=[], partitions=[], links=[], open_by=[], busy=False, unreadable="")
        device["links"] = [by_id(device["path"])]
    block.add_mounts(found, block.parse_mountinfo(MOUNTINFO), [])
    return found


def by_id(path):
    return "/dev/disk/by-id/test-" + path.rsplit("/", 1)[-1]


FILESYSTEM = {
    "filesystem": None,
    "label": None,
    "mkfs_options": "",
    "mount_options": [],
    "nofail": True,
    "device_timeout": "30s",
    "dump": 0,
    "passno": 0,
    "grow": False,
    "owner": None,
    "group": None,
    "mode": None,
}


def disk(device, mountpoint="/data", **more):
    base = {"device": device, "serial": None, "format": True, "erase": [], "on_system_disk": False, "partitions": None}
    return {**FILESYSTEM, **base, "mountpoint": mountpoint, **more}


def partition(mountpoint, size=None, **more):
    return {**FILESYSTEM, "name": None, "size": size, "mountpoint": mountpoint, **more}


ZEROS = b"\0" * 1024 * 1024


class Bytes:
    """What devices hold, without holding it: {path: {offset: bytes}}, zeros elsewhere; a path in `broken` cannot be read."""

    def __init__(self, held=None, broken=()):
        self.held, self.broken, self.read = held or {}, broken, 0

    def __call__(self, path, offset, length):
        if path in self.broken:
            raise OSError(5, "Input/output error")
        self.read += length
        pieces = self.held.get(path, {}).items()
        if not any(start < offset + length and offset < start + len(piece) for start, piece in pieces):
            return ZEROS if length == len(ZEROS) else ZEROS[:length]
        content = bytearray(length)
        for start, piece in pieces:
            begin, end = max(start, offset), min(start + len(piece), offset + length)
            if begin < end:
                content[begin - offset : end - offset] = piece[begin - start : end - start]
        return bytes(content)


def plan(devices, *declared, mountpoints=None, fstab="", lines=(), mounts=None, read=None):
    """`mounts`: {path of a device: where it is mounted}, beside those of the system."""
    more = [
        "30 22 %s / %s rw - xfs %s rw\n" % (devices[path]["number"], at, path) for path, at in (mounts or {}).items()
    ]
    found = block.parse_mountinfo(MOUNTINFO + "".join(more))
    block.add_mounts(devices, found, [one["path"] for one in devices.values() if one["swap"]])
    for device in devices.values():
        device.pop("data", None)
    host = {
        "fstab": tables.parse_fstab(fstab),
        "lines": list(lines),
        "mounts": found,
        "mountpoints": mountpoints or {},
        "read": read or Bytes(),
    }
    return plan_disks(devices, list(declared), host)


def refusals(devices, *declared, **more):
    return [text for one in plan(devices, *declared, **more) for text in one["refusals"]]


def holds(devices, path, kind, label="", uuid="u1"):
    devices[path]["signatures"] = [{"type": kind, "label": label, "uuid": uuid}]
