from __future__ import annotations

import json

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _block_devices as block
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB, MIB

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


@pytest.fixture
def devices():
    found = block.parse_lsblk(json.dumps({"blockdevices": filled(LSBLK["blockdevices"])}))
    for device in found.values():
        device.update(signatures=[], partitions=[], links=[], open_by=[], busy=False, unreadable="")
    block.add_mounts(found, block.parse_mountinfo(MOUNTINFO), [])
    return found


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


def plan(devices, *declared, hidden=None, fstab=None):
    return block.plan_disks(devices, list(declared), hidden or {}, fstab or {})


def holds(devices, path, kind, label="", uuid="u1"):
    devices[path]["signatures"] = [{"type": kind, "label": label, "uuid": uuid}]


def test_a_device_with_two_parents_is_one_device(devices):
    assert devices["/dev/md0"]["parents"] == ["/dev/sdb", "/dev/sdc"]
    assert block.roots(devices, "/dev/md0") == {"/dev/sdb", "/dev/sdc"}


def test_mounts_are_found_by_number_and_btrfs_by_its_source(devices):
    assert devices["/dev/mapper/vg-root"]["mountpoints"] == ["/"]
    assert devices["/dev/md0"]["mountpoints"] == ["/with space"]


def test_wipefs_counts_the_protective_mbr_as_gpt_and_each_signature_once():
    text = json.dumps({"signatures": [{"type": kind, "uuid": None, "label": None} for kind in ("gpt", "gpt", "PMBR")]})
    assert [one["type"] for one in block.parse_wipefs(text)] == ["gpt"]
    assert block.parse_wipefs("") == []


def test_partx():
    assert block.parse_partx('NR="1" START="2048" SECTORS="407552" NAME="my data"\n') == [
        {"number": 1, "start": MIB, "size": 407552 * 512, "name": "my data"}
    ]


@pytest.mark.parametrize(
    ("text", "size"), [("60%", 600), ("1.5KiB", 1536), ("2 TB", 2 * 10**12), ("500GiB", 500 * GIB), ("1MB", 10**6)]
)
def test_sizes(text, size):
    assert block.parse_size(text, 1000) == size


@pytest.mark.parametrize("text", ["", "12", "5XB", "-3GiB", "ten", "60 percent"])
def test_sizes_that_are_none(text):
    with pytest.raises(block.DeclarationError, match="60%, 500GiB, 2TB"):
        block.parse_size(text, 1000)


@pytest.mark.parametrize(
    ("disk_path", "path"),
    [
        ("/dev/sda", "/dev/sda2"),
        ("/dev/nvme1n1", "/dev/nvme1n1p2"),
        ("/dev/loop0", "/dev/loop0p2"),
        ("/dev/md0", "/dev/md0p2"),
    ],
)
def test_partition_paths(disk_path, path):
    assert block.partition_path(disk_path, 2) == path


def test_an_empty_disk_is_formatted_and_mounted(devices):
    (one,) = plan(devices, disk(None, serial="BIG", label="data", mount_options=["noatime"]))
    assert one["refusals"] == [] and one["pending"] and one["wipe"] == [] and not one["create_table"]
    assert one["filesystems"] == [
        {"path": "/dev/nvme1n1", "filesystem": "xfs", "label": "data", "mkfs_options": "-L data"}
    ]
    assert one["mounts"][0]["options"] == "noatime,nofail,x-systemd.device-timeout=30s"


def test_an_empty_disk_is_left_alone_without_the_opt_in(devices):
    (one,) = plan(devices, disk("/dev/nvme1n1", format=False))
    assert one["refusals"] == ["/dev/nvme1n1 holds no filesystem; `format: true` for this disk would make one"]
    assert not one["pending"] and one["filesystems"] == []


@pytest.mark.parametrize(
    "kind",
    [
        "ext4",
        "LVM2_member",
        "linux_raid_member",
        "zfs_member",
        "crypto_LUKS",
        "bcache",
        "swap",
        "gpt",
        "dos",
        "unknown",
        "drbd",
    ],
)
def test_anything_on_a_disk_is_refused_until_it_is_named(devices, kind):
    holds(devices, "/dev/nvme1n1", kind)
    (refused,) = plan(devices, disk("/dev/nvme1n1"))
    assert "erase: [%s]" % kind in refused["refusals"][0] and refused["wipe"] == [] and refused["filesystems"] == []
    (named,) = plan(devices, disk("/dev/nvme1n1", erase=[kind]))
    assert named["refusals"] == [] and named["wipe"] == ["/dev/nvme1n1"]
    (only_named,) = plan(devices, disk("/dev/nvme1n1", erase=[kind], format=False, filesystem="xfs"))
    assert "`format: true` and `erase: [" in only_named["refusals"][0] and only_named["wipe"] == []


def test_everything_below_has_to_be_named_and_goes_before_its_disk(devices):
    holds(devices, "/dev/sda", "gpt")
    holds(devices, "/dev/sda1", "ntfs", label="photos")
    (refused,) = plan(devices, disk("/dev/sda", erase=["gpt"]))
    assert "/dev/sda1 holds a ntfs filesystem (label photos" in refused["refusals"][0]
    (named,) = plan(devices, disk("/dev/sda", erase=["gpt", "ntfs"]))
    assert named["wipe"] == ["/dev/sda1", "/dev/sda"]


EVERYTHING = ["gpt", "ext4", "LVM2_member", "linux_raid_member", "swap", "xfs"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/dev/nvme0n1", "running system"),
        ("/dev/nvme0n1p1", "running system"),
        ("/dev/nvme0n1p2", "running system"),
        ("/dev/mapper/vg-root", "running system"),
        ("/dev/sdb", "/dev/md0 is mounted at /with space"),
        ("/dev/md0", "it is mounted at /with space"),
    ],
)
def test_what_is_in_use_is_refused_whatever_the_operator_allows(devices, path, reason):
    holds(devices, path, "ext4")
    (one,) = plan(devices, disk(path, erase=EVERYTHING, on_system_disk=True))
    assert any(reason in text for text in one["refusals"])
    assert not any("erase" in text for text in one["refusals"])
    assert one["wipe"] == [] and one["filesystems"] == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"swap": True}, "active swap"),
        ({"open_by": ["qemu (process 7)"]}, "open in qemu (process 7)"),
        ({"busy": True}, "the kernel holds it exclusively"),
        ({"read_only": True}, "read-only"),
        ({"unreadable": "Input/output error"}, "cannot be read (Input/output error)"),
    ],
)
def test_a_disk_that_is_used_or_unknown_is_refused(devices, change, reason):
    devices["/dev/nvme1n1"].update(change)
    (one,) = plan(devices, disk("/dev/nvme1n1", erase=EVERYTHING))
    assert reason in one["refusals"][0] and one["filesystems"] == []
    assert not block.describe(devices, "/dev/nvme1n1")["formattable"]


@pytest.mark.parametrize("path", ["/dev/nvme0n1p3", "/dev/mapper/vg-free"])
def test_spare_room_on_the_system_disk_needs_a_word_of_its_own(devices, path):
    assert "`on_system_disk: true`" in plan(devices, disk(path))[0]["refusals"][0]
    assert plan(devices, disk(path, on_system_disk=True))[0]["refusals"] == []


def test_what_is_as_declared_is_kept_even_when_it_might_be_erased(devices):
    holds(devices, "/dev/nvme1n1", "xfs", label="data", uuid="u9")
    (one,) = plan(devices, disk("/dev/nvme1n1", label="data", erase=["xfs", "ext4"]))
    assert one["wipe"] == [] and one["filesystems"] == [] and one["mounts"][0]["uuid"] == "u9"


def test_a_mounted_disk_needs_nothing(devices):
    holds(devices, "/dev/nvme1n1", "xfs", uuid="u9")
    devices["/dev/nvme1n1"].update(mountpoints=["/data"], busy=True)
    options = "nofail,x-systemd.device-timeout=30s"
    fstab = block.parse_fstab("# comment\nUUID=u9 /data xfs %s 0 0\n" % options)
    (one,) = plan(devices, disk("/dev/nvme1n1"), fstab=fstab)
    assert not one["pending"] and one["text"] == ["/dev/nvme1n1 (4 TiB, serial BIG): nothing to do, mounted at /data"]
    (changed,) = plan(devices, disk("/dev/nvme1n1", passno=2), fstab=fstab)
    assert changed["pending"]


@pytest.mark.parametrize(
    ("declared", "remedy"),
    [({"filesystem": "ext4"}, "`filesystem: xfs` would keep it"), ({"label": "new"}, "`label: 'old'` would keep it")],
)
def test_another_filesystem_than_declared_is_refused_with_the_way_to_keep_it(devices, declared, remedy):
    holds(devices, "/dev/nvme1n1", "xfs", label="old")
    (one,) = plan(devices, disk("/dev/nvme1n1", **declared))
    assert remedy in one["refusals"][0]
    assert plan(devices, disk("/dev/nvme1n1", erase=["xfs"], **declared))[0]["wipe"] == ["/dev/nvme1n1"]


def test_only_mounting_takes_the_filesystem_that_is_there(devices):
    holds(devices, "/dev/sda1", "ext4")
    (one,) = plan(devices, disk("/dev/sda1", format=False))
    assert one["refusals"] == [] and one["mounts"][0]["filesystem"] == "ext4" and one["filesystems"] == []


def test_partitions_are_aligned_and_the_last_takes_the_rest(devices):
    (one,) = plan(
        devices, disk("/dev/nvme1n1", None, partitions=[partition("/data", "60%"), partition("/srv/x", label="x")])
    )
    first, second = one["partitions"]
    assert one["create_table"] and one["refusals"] == []
    assert (first["path"], first["name"], first["start"]) == ("/dev/nvme1n1p1", "data", "1MiB")
    assert (second["name"], second["start"], second["end"]) == ("x", first["end"], "%dMiB" % (4096 * 1024 - 1))
    assert [made["path"] for made in one["filesystems"]] == ["/dev/nvme1n1p1", "/dev/nvme1n1p2"]


def with_table(devices, *partitions):
    """sda with a gpt table; each partition is (name, start MiB, size MiB)."""
    holds(devices, "/dev/sda", "gpt")
    devices["/dev/sda"]["partitions"] = [
        {"number": number, "name": name, "start": start * MIB, "size": size * MIB}
        for number, (name, start, size) in enumerate(partitions, start=1)
    ]


def test_a_table_that_was_made_before_is_completed_and_never_made_again(devices):
    with_table(devices, ("data", 1, 1000))
    holds(devices, "/dev/sda1", "xfs", uuid="kept")
    devices["/dev/sda1"]["mountpoints"] = ["/data"]
    (one,) = plan(devices, disk("/dev/sda", None, partitions=[partition("/data", "1000MiB"), partition("/more")]))
    assert one["refusals"] == [] and not one["create_table"] and one["wipe"] == []
    assert [(made["path"], made["start"]) for made in one["partitions"]] == [("/dev/sda2", "1001MiB")]
    assert [mount["uuid"] for mount in one["mounts"]] == ["kept", ""]


def test_an_empty_table_left_by_a_killed_run_is_filled(devices):
    with_table(devices)
    devices["/dev/sda"]["children"] = []
    (one,) = plan(devices, disk("/dev/sda", None, partitions=[partition("/data")]))
    assert one["refusals"] == [] and len(one["partitions"]) == 1


def test_a_table_with_other_names_is_somebody_elses(devices):
    with_table(devices, ("EFI system partition", 1, 500))
    (one,) = plan(devices, disk("/dev/sda", None, partitions=[partition("/data")]))
    assert "/dev/sda holds a gpt partition table" in one["refusals"][0] and one["partitions"] == []


@pytest.mark.parametrize(
    ("partitions", "message"),
    [
        ([partition("/a", "80%"), partition("/b", "30%")], "partition b of 1.2 TiB does not fit: 819"),
        ([partition("/a"), partition("/b")], "only the last partition may leave out its `size`; a does too"),
        ([partition("/a", "100MiB")], "100 MiB, and xfs needs 300 MiB: make it larger or use `filesystem: ext4`"),
    ],
)
def test_partitions_that_cannot_be(devices, partitions, message):
    (one,) = plan(devices, disk("/dev/nvme1n1", None, partitions=partitions))
    assert message in one["refusals"][0]


def test_a_filesystem_that_is_mounted_elsewhere_stays_there(devices):
    holds(devices, "/dev/sda1", "xfs")
    devices["/dev/sda1"]["mountpoints"] = ["/elsewhere"]
    (one,) = plan(devices, disk("/dev/sda1", format=False))
    assert one["refusals"] == ["/dev/sda1 is mounted at /elsewhere, and /data is asked for: unmount it first"]


def test_mount_points_are_not_taken_from_others(devices):
    (one,) = plan(devices, disk("/dev/nvme1n1", "/with space"))
    assert "/with space is the mount point of /dev/md0" in one["refusals"][0]
    (one,) = plan(devices, disk("/dev/nvme1n1"), hidden={"/data": ["models"]})
    assert "/data is not empty (models)" in one["refusals"][0]
    holds(devices, "/dev/sda1", "xfs", uuid="u7")
    (one,) = plan(devices, disk("/dev/nvme1n1"), fstab=block.parse_fstab("UUID=u7 /data xfs defaults 0 0\n"))
    assert "/etc/fstab mounts UUID=u7 (/dev/sda1) at /data" in one["refusals"][0]


def test_a_line_of_fstab_for_a_disk_that_is_gone_is_replaced(devices):
    (one,) = plan(devices, disk("/dev/nvme1n1"), fstab=block.parse_fstab("UUID=gone /data xfs defaults\n"))
    assert one["refusals"] == []


def test_one_device_or_mount_point_twice_is_refused_twice(devices):
    holds(devices, "/dev/sda1", "ext4")
    plans = plan(devices, disk("/dev/nvme1n1"), disk(None, "/x", serial="BIG"), disk("/dev/sda1", format=False))
    assert ["declared twice" in text for one in plans for text in one["refusals"]] == [True] * 4


def test_unknown_devices_are_named_with_those_that_are_there(devices):
    assert (
        "no disk with serial X; present: /dev/nvme0n1 (500 GiB, serial SYS)"
        in plan(devices, disk(None, serial="X"))[0]["refusals"][0]
    )
    assert "there is no block device /dev/sdx" in plan(devices, disk("/dev/sdx"))[0]["refusals"][0]


def test_findmnt_problems_by_mount_point():
    text = (
        "/data\n   [E] unreachable on boot required source: UUID=1\n   [W] warning\n/srv\n   [W] x\n\n0 parse errors\n"
    )
    assert block.parse_fstab_problems(text) == {"/data": ["unreachable on boot required source: UUID=1"]}
