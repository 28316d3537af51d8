# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a block device is, holds and is used for.

Nothing here touches a host: what a device holds is read by `read(path, offset, length)`, which the caller brings.
One that could not be read is never taken for an empty one.
"""

from __future__ import annotations

import re

from ansible_collections.inferops.gpu_host.plugins.module_utils._device_samples import first_data, is_given_up
from ansible_collections.inferops.gpu_host.plugins.module_utils._disk_declaration import (
    DeclarationError,
    partition_path,
    shown,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._fstab import unescape
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB, format_bytes
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import bounded_json, printable, whole_number

MOUNTABLE = ("xfs", "ext2", "ext3", "ext4", "btrfs", "f2fs")
FILESYSTEMS = (*MOUNTABLE, "vfat", "exfat", "ntfs", "iso9660", "udf", "jfs", "reiserfs", "bcachefs", "ocfs2", "gfs2")
SYSTEM_MOUNTPOINTS = ("/", "/boot", "/boot/efi", "/efi", "/usr", "/var")
TABLES = ("gpt", "dos")
DATA = "data"  # what has no signature that anybody knows

WORDS = {
    "LVM2_member": "an LVM physical volume",
    "linux_raid_member": "a member of an mdraid array",
    "zfs_member": "a member of a ZFS pool",
    "crypto_LUKS": "a LUKS container",
    "bcache": "a bcache device",
    "swap": "swap space",
    "gpt": "a gpt partition table",
    "dos": "a dos (MBR) partition table",
    DATA: "data of an unknown kind",
}


# Parsers of what the system's own tools say


class OutputError(ValueError):
    """A tool of the system said something that cannot be read: nothing is known of the disks then."""


def _told(tool, node, *keys):
    """The node, when it is an object that has these keys."""
    if not isinstance(node, dict) or any(key not in node for key in keys):
        raise OutputError("%s does not tell %s of a device" % (tool, ", ".join(keys)))
    return node


def _text(node, key):
    return str(node.get(key) or "").strip()


def _number(tool, text):
    number = whole_number(str(text), 1 << 63)
    if number is None:
        raise OutputError("%s says %s where a number belongs" % (tool, printable(repr(text), 80)))
    return number


def parse_lsblk(text):
    """`lsblk --json --bytes --paths` → devices by path, each with the paths above and below it."""
    devices = {}

    def visit(node, parent):
        path = _text(_told("lsblk", node, "name", "kname", "type", "size", "ro", "maj:min"), "name")
        if not path.startswith("/"):
            raise OutputError("lsblk names a device %s" % printable(repr(path), 80))
        device = devices.setdefault(
            path,
            {
                "path": path,
                "kname": _text(node, "kname"),
                "type": _text(node, "type"),
                "size": _number("lsblk", node["size"] or 0),
                "read_only": str(node["ro"]).lower() in ("1", "true"),
                "number": _text(node, "maj:min"),
                "serial": _text(node, "serial"),
                "model": _text(node, "model"),
                "wwn": _text(node, "wwn"),
                "parents": [],
                "children": [],
            },
        )
        if parent and parent not in device["parents"]:
            device["parents"].append(parent)
            devices[parent]["children"].append(path)
        for child in _list("lsblk", node.get("children") or []):
            visit(child, path)

    told = bounded_json(text, "the output of lsblk", OutputError)
    for node in _list("lsblk", _told("lsblk", told, "blockdevices")["blockdevices"]):
        visit(node, None)
    return devices


def _list(tool, value):
    if not isinstance(value, list):
        raise OutputError("%s says %s where a list belongs" % (tool, printable(repr(value), 80)))
    return value


def parse_wipefs(text):
    """`wipefs --no-act --json` → the distinct signatures. The protective MBR is part of its gpt."""
    signatures = []
    told = bounded_json(text, "the output of wipefs", OutputError) if text.strip() else {"signatures": []}
    for found in _list("wipefs", _told("wipefs", told, "signatures")["signatures"]):
        kind = _text(_told("wipefs", found, "type"), "type")
        kind = "gpt" if kind == "PMBR" else kind or DATA
        signature = {"type": kind, "label": str(found.get("label") or ""), "uuid": str(found.get("uuid") or "")}
        if signature not in signatures:
            signatures.append(signature)
    return signatures


def parse_partx(text):
    """`partx --pairs --bytes --output NR,START,SECTORS,NAME,UUID` → the partitions the table on the disk describes."""
    partitions = []
    for line in text.splitlines():
        fields = _told("partx", dict(re.findall(r'(\w{1,40})="([^"]*)"', line)), "NR", "START", "SECTORS")
        partitions.append(
            {
                "number": _number("partx", fields["NR"]),
                "start": _number("partx", fields["START"]) * 512,
                "size": _number("partx", fields["SECTORS"]) * 512,
                "name": fields.get("NAME", ""),
                "uuid": fields.get("UUID", ""),
            }
        )
    return partitions


def parse_mountinfo(text):
    """`/proc/self/mountinfo` → number (major:minor), source, target and root of each mount; the last on top."""
    mounts = []
    for line in text.splitlines():
        fields, _separator, rest = line.partition(" - ")
        fields, rest = fields.split(), rest.split()
        if len(fields) < 5 or len(rest) < 2:
            raise OutputError("/proc/self/mountinfo has the line %s" % printable(repr(line), 120))
        target, source = unescape(fields[4]), unescape(rest[1])
        mounts.append(
            {"number": fields[2], "root": fields[3], "target": target, "source": source, "filesystem": rest[0]}
        )
    return mounts


def parse_swaps(text):
    """`/proc/swaps` → the devices and files swapped to."""
    return [line.split()[0] for line in text.splitlines()[1:] if line.strip()]


# What a device is


def walk(devices, path, direction):
    """All paths above (`parents`) or below (`children`) a device, without itself."""
    found, todo = [], list(devices[path][direction])
    while todo:
        current = todo.pop(0)
        if current not in found:
            found.append(current)
            todo.extend(devices[current][direction])
    return found


def roots(devices, path):
    """The physical disks below everything that this device is built on."""
    above = [path, *walk(devices, path, "parents")]
    return {one for one in above if not devices[one]["parents"]}


def add_mounts(devices, mounts, swaps):
    """Puts `mountpoints` and `swap` into every device, and `device` into every mount."""
    numbers = {}
    for device in devices.values():
        device.update(mountpoints=[], swap=False)
        numbers[device["number"]] = device
        numbers[device["path"]] = device
        numbers[device["kname"]] = device
        for link in device.get("links", []):
            numbers[link] = device
    for mount in mounts:
        # btrfs shows a number of its own: it is known by its source.
        device = numbers.get(mount["number"]) or numbers.get(mount["source"])
        mount["device"] = device["path"] if device else ""
        if device and mount["target"] not in device["mountpoints"]:
            device["mountpoints"].append(mount["target"])
    for swap in swaps:
        if swap in numbers:
            numbers[swap]["swap"] = True


def add_partition_names(devices):
    """Puts what the table says of a partition into the partition's device."""
    for path, device in devices.items():
        for one in device.get("partitions") or []:
            child = devices.get(partition_path(path, one["number"]))
            if child:
                child.update(partuuid=one["uuid"], partlabel=one["name"])


def words(signature):
    """A signature as a person would call it."""
    kind = signature["type"]
    sort = "filesystem" if kind in FILESYSTEMS else "signature"
    text = WORDS.get(kind) or "%s %s %s" % ("an" if kind[:1] in "aeiouxAEIOUX" else "a", kind, sort)
    details = [signature["label"] and "label %s" % shown(signature["label"])[1:-1], signature["uuid"]]
    if "offset" in signature:
        details.append("the first of it at byte %d" % signature["offset"])
    details = [one for one in details if one]
    return text + (" (%s)" % ", ".join(details) if details else "")


def title(device):
    """How messages call a device: everything that tells it from its neighbour."""
    details = [format_bytes(device["size"]), device["model"], device["serial"] and "serial " + device["serial"]]
    return "%s (%s)" % (device["path"], ", ".join(text for text in details if text))


def silent_rooms(devices, path):
    """[(start, size)] on a device that no signature speaks for: all of it, or what no partition of its table covers."""
    device = devices[path]
    if not device.get("signatures"):
        return [(0, device["size"])]
    if any(one["type"] not in TABLES for one in device["signatures"]):
        return []
    rooms, cursor, end = [], MIB, device["size"] - MIB  # the table itself, with what a boot loader puts behind it
    for one in sorted(device["partitions"], key=lambda one: one["start"]):
        if one["start"] > cursor:
            rooms.append((cursor, one["start"] - cursor))
        cursor = max(cursor, one["start"] + one["size"])
    return rooms + ([(cursor, end - cursor)] if end > cursor else [])


def data_on(devices, path, rooms, read):
    """[signature] of data without a signature in these rooms of a device. One that cannot be read is marked so."""

    def reader(offset, length):
        return read(path, offset, length)

    try:
        rooms = [(start, size) for start, size in rooms if size and not is_given_up(reader, start, size)]
        offset = first_data(reader, rooms) if rooms else None
    except OSError as problem:
        devices[path]["unreadable"] = problem.strerror or str(problem)
        return []
    return [] if offset is None else [{"type": DATA, "label": "", "uuid": "", "offset": offset}]


def contents(devices, path, read):
    """Everything on the device and on what lies on it, with or without a signature: [(path, signature)]."""
    found = []
    for one in [path, *walk(devices, path, "children")]:
        device = devices[one]
        found += [(one, signature) for signature in device.get("signatures") or []]
        if "data" not in device:
            device["data"] = [] if device.get("unreadable") else data_on(devices, one, silent_rooms(devices, one), read)
        found += [(one, signature) for signature in device["data"]]
    return found


def users(devices, path):
    """Why nothing may be written to the device now, whatever the operator allows: [reason]."""
    device, reasons = devices[path], []
    for one in [path, *walk(devices, path, "children")]:
        it = devices[one]
        where = "it" if one == path else one
        system = [target for target in it["mountpoints"] if target in SYSTEM_MOUNTPOINTS]
        if system:
            reasons.append("%s holds the running system (%s)" % (where, ", ".join(system)))
        elif it["mountpoints"]:
            reasons.append("%s is mounted at %s: unmount it first" % (where, ", ".join(it["mountpoints"])))
        if it["swap"]:
            reasons.append("%s is active swap space: swapoff first" % where)
        if it["type"] not in ("part", "disk", "loop") and one != path:
            reasons.append("it is part of the %s device %s: deactivate that first" % (it["type"], one))
        if it.get("open_by"):
            reasons.append("%s is open in %s: stop that first" % (where, ", ".join(it["open_by"])))
        if it.get("unreadable"):
            reasons.append("%s cannot be read (%s), so nobody knows what it holds" % (where, it["unreadable"]))
    for one in walk(devices, path, "parents"):
        if devices[one]["mountpoints"] or devices[one]["swap"]:
            reasons.append("%s, which it is a part of, is in use itself" % one)
    if not reasons and device.get("busy"):
        reasons.append("the kernel holds it exclusively (a mount in another namespace, multipath, a ZFS pool)")
    if device["read_only"]:
        reasons.append("it is read-only")
    return reasons


def on_system_disk(devices, path):
    """The system's mount points on the disk that this device is part of."""
    mine = roots(devices, path)
    return sorted(
        target
        for one, device in devices.items()
        for target in device["mountpoints"]
        if target in SYSTEM_MOUNTPOINTS and roots(devices, one) & mine
    )


def describe(devices, path, read):
    """What a device is and holds, and whether it may be formatted without anybody giving something up."""
    device = devices[path]
    held = ["%s holds %s" % (one, words(signature)) for one, signature in contents(devices, path, read)]
    reasons = users(devices, path) + held
    system = on_system_disk(devices, path)
    if system and not any("running system" in reason for reason in reasons):
        reasons.append("it is on the disk of the running system (%s)" % ", ".join(system))
    filesystems = [signature for signature in device.get("signatures") or [] if signature["type"] in MOUNTABLE]
    return {
        "path": path,
        "links": device.get("links", []),
        "type": device["type"],
        "size": device["size"],
        "model": device["model"],
        "serial": device["serial"],
        "read_only": device["read_only"],
        "mountpoints": device["mountpoints"],
        "parents": device["parents"],
        "children": device["children"],
        "signatures": device.get("signatures") or [],
        "partitions": device.get("partitions") or [],
        "filesystem": filesystems[0] if len(filesystems) == 1 else None,
        "formattable": not reasons,
        "reasons": reasons,
    }


# Which device is meant


def find_device(devices, declared):
    """The device that `device` (a path or a link) or `serial` means."""
    present = "; present: %s" % ", ".join(title(one) for one in devices.values() if not one["parents"])
    if declared.get("serial"):
        found = [one for one in devices.values() if one["serial"] == declared["serial"] and one["type"] != "part"]
        found = [one for one in found if not any(devices[parent] in found for parent in one["parents"])]
        if len(found) > 1:
            raise DeclarationError(
                "`serial: %s` is that of %s: use `device`"
                % (declared["serial"], ", ".join(one["path"] for one in found))
            )
        if not found:
            raise DeclarationError("no disk with `serial: %s`%s" % (declared["serial"], present))
        return found[0]
    for one in devices.values():
        if declared["device"] in (one["path"], one["kname"]) or declared["device"] in one.get("links", []):
            return one
    raise DeclarationError("there is no block device %s, which `device` names%s" % (declared["device"], present))


def stable_name(devices, device):
    """How to declare a device so that it stays the same one when the kernel numbers devices anew; or nothing."""
    links = sorted(device.get("links", []))
    for start in ("/dev/disk/by-id/", "/dev/disk/by-path/"):
        for link in links:
            if link.startswith(start) and not moving_name(device, {"device": link}):
                return "device: " + link
    same = [one for one in devices.values() if one["serial"] == device["serial"] and one["type"] != "part"]
    if device["serial"] and device["type"] != "part" and len(same) == 1:
        return "serial: " + device["serial"]
    return ""


STEADY = ("by-id/", "by-path/", "by-partuuid/", "by-partlabel/")


def moving_name(device, declared):
    """Whether a disk is declared by a name that may mean another one after a reboot, or none once it is erased."""
    name = declared.get("device") or ""
    if not name:
        return False
    if any(part in ("", ".", "..") for part in name.split("/")[1:]) or "/lvm-pv-uuid-" in name:
        return True  # a detour is a way to a name of the kernel
    if name.startswith("/dev/disk/"):
        return not name.startswith(tuple("/dev/disk/" + one for one in STEADY))
    if device["type"] == "lvm":
        return name == device["kname"]
    return not name.startswith(("/dev/mapper/", "/dev/md/"))


def is_multipath(devices, path):
    return any(devices[one]["type"] == "mpath" for one in [path, *walk(devices, path, "parents")])


def other_ways(devices, path):
    """Why a device is only one way to a disk, or one of two disks that cannot be told apart: reason, or nothing."""
    if is_multipath(devices, path):
        return ""
    for root in sorted(roots(devices, path)):
        for one in walk(devices, root, "children"):
            if devices[one]["type"] == "mpath":
                return "%s is one path to the multipath device %s: set `device: %s`" % (root, one, one)
        for other in devices.values():
            if other["path"] != root and other["type"] == devices[root]["type"] and _same_disk(devices[root], other):
                return (
                    "%s and %s have the same size and serial number %s, so they may be two paths to one disk: let "
                    "multipathd join them and set `device` to the multipath device"
                    % (root, other["path"], devices[root]["serial"] or devices[root]["wwn"])
                )
    return ""


def _same_disk(one, other):
    # The namespaces of an NVMe disk share its serial number and differ by their world wide names.
    if one["parents"] or other["parents"] or one["size"] != other["size"]:
        return False
    if one["wwn"] and other["wwn"]:
        return one["wwn"] == other["wwn"]
    return bool(one["serial"]) and one["serial"] == other["serial"]


def twins(devices, path, uuid):
    """Other devices with a filesystem of the same UUID: a mount by UUID takes any of them."""
    mine = {path, *walk(devices, path, "parents"), *walk(devices, path, "children")}
    ways = roots(devices, path) if is_multipath(devices, path) else set()
    return [
        one
        for one, device in devices.items()
        if one not in mine
        and any(uuid and uuid == signature["uuid"] for signature in device.get("signatures") or [])
        and not roots(devices, one) <= ways
    ]
