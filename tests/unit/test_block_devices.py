from __future__ import annotations

import json

import disks
import pytest
from disks import by_id, disk, holds, partition, plan, refusals

from ansible_collections.inferops.gpu_host.plugins.module_utils import _block_devices as block
from ansible_collections.inferops.gpu_host.plugins.module_utils import _disk_declaration as declaration
from ansible_collections.inferops.gpu_host.plugins.module_utils import _fstab as tables
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB, MIB

BEFORE = "x-systemd.before=docker.service,x-systemd.before=containerd.service"


@pytest.fixture
def devices():
    return disks.server()


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
    assert block.parse_partx('NR="1" START="2048" SECTORS="407552" NAME="my data" UUID="ab-1"\n') == [
        {"number": 1, "start": MIB, "size": 407552 * 512, "name": "my data", "uuid": "ab-1"}
    ]


@pytest.mark.parametrize(
    ("text", "size"), [("60%", 600), ("1.5KiB", 1536), ("2 TB", 2 * 10**12), ("500GiB", 500 * GIB), ("1MB", 10**6)]
)
def test_sizes(text, size):
    assert declaration.parse_size(text, 1000) == size


@pytest.mark.parametrize("text", ["", "12", "5XB", "-3GiB", "ten", "60 percent"])
def test_sizes_that_are_none(text):
    with pytest.raises(declaration.DeclarationError, match="60%, 500GiB, 2TB"):
        declaration.parse_size(text, 1000)


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
    assert declaration.partition_path(disk_path, 2) == path


def test_an_empty_disk_is_formatted_and_mounted(devices):
    (one,) = plan(devices, disk(None, serial="BIG", label="data", mount_options=["noatime"]))
    assert one["refusals"] == [] and one["pending"] and one["wipe"] == [] and not one["create_table"]
    assert one["filesystems"] == [
        {"path": "/dev/nvme1n1", "filesystem": "xfs", "label": "data", "mkfs_options": "-L data"}
    ]
    assert one["mounts"][0]["options"] == "noatime,nofail,x-systemd.device-timeout=30s," + BEFORE


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
        "data",
        "drbd",
    ],
)
def test_anything_on_a_disk_is_refused_until_it_is_named(devices, kind):
    holds(devices, "/dev/nvme1n1", kind)
    (refused,) = plan(devices, disk("/dev/nvme1n1"))
    assert "erase: [%s]" % kind in refused["refusals"][0] and refused["wipe"] == [] and refused["filesystems"] == []
    (named,) = plan(devices, disk(by_id("/dev/nvme1n1"), erase=[kind]))
    assert named["refusals"] == [] and named["wipe"] == ["/dev/nvme1n1"]
    (only_named,) = plan(devices, disk(by_id("/dev/nvme1n1"), erase=[kind], format=False, filesystem="xfs"))
    assert "`format: true` and `erase: [" in only_named["refusals"][0] and only_named["wipe"] == []


def test_everything_below_has_to_be_named_and_goes_before_its_disk(devices):
    holds(devices, "/dev/sda", "gpt")
    holds(devices, "/dev/sda1", "ntfs", label="photos")
    (refused,) = plan(devices, disk(by_id("/dev/sda"), erase=["gpt"]))
    assert "/dev/sda1 holds a ntfs filesystem (label photos" in refused["refusals"][0]
    (named,) = plan(devices, disk(by_id("/dev/sda"), erase=["gpt", "ntfs"]))
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
    (one,) = plan(devices, disk(by_id(path), erase=EVERYTHING, on_system_disk=True))
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
    (one,) = plan(devices, disk(by_id("/dev/nvme1n1"), erase=EVERYTHING))
    assert reason in one["refusals"][0] and one["filesystems"] == []
    assert not block.describe(devices, "/dev/nvme1n1", disks.Bytes())["formattable"]


@pytest.mark.parametrize("path", ["/dev/nvme0n1p3", "/dev/mapper/vg-free"])
def test_spare_room_on_the_system_disk_needs_a_word_of_its_own(devices, path):
    assert "`on_system_disk: true`" in plan(devices, disk(path))[0]["refusals"][0]
    assert plan(devices, disk(path, on_system_disk=True))[0]["refusals"] == []


def test_what_is_as_declared_is_kept_even_when_it_might_be_erased(devices):
    holds(devices, "/dev/nvme1n1", "xfs", label="data", uuid="u9")
    (one,) = plan(devices, disk(by_id("/dev/nvme1n1"), label="data", erase=["xfs", "ext4"]))
    assert one["wipe"] == [] and one["filesystems"] == [] and one["mounts"][0]["uuid"] == "u9"


def test_a_mounted_disk_needs_nothing(devices):
    holds(devices, "/dev/nvme1n1", "xfs", uuid="u9")
    devices["/dev/nvme1n1"].update(busy=True)
    mounts = {"/dev/nvme1n1": "/data"}
    options = "nofail,x-systemd.device-timeout=30s," + BEFORE
    fstab = "# comment\nUUID=u9 /data xfs %s 0 0\n" % options
    (one,) = plan(devices, disk("/dev/nvme1n1"), fstab=fstab, mounts=mounts)
    assert not one["pending"] and one["text"] == ["/dev/nvme1n1 (4 TiB, serial BIG): nothing to do, mounted at /data"]
    (changed,) = plan(devices, disk("/dev/nvme1n1", passno=2), fstab=fstab, mounts=mounts)
    assert changed["pending"]


@pytest.mark.parametrize(
    ("declared", "remedy"),
    [({"filesystem": "ext4"}, "`filesystem: xfs` would keep it"), ({"label": "new"}, "`label: 'old'` would keep it")],
)
def test_another_filesystem_than_declared_is_refused_with_the_way_to_keep_it(devices, declared, remedy):
    holds(devices, "/dev/nvme1n1", "xfs", label="old")
    (one,) = plan(devices, disk("/dev/nvme1n1", **declared))
    assert remedy in one["refusals"][0]
    assert plan(devices, disk(by_id("/dev/nvme1n1"), erase=["xfs"], **declared))[0]["wipe"] == ["/dev/nvme1n1"]


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
    declared = disk("/dev/sda", None, partitions=[partition("/data", "1000MiB"), partition("/more")])
    (one,) = plan(devices, declared, mounts={"/dev/sda1": "/data"})
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
    (one,) = plan(devices, disk("/dev/sda1", format=False), mounts={"/dev/sda1": "/elsewhere"})
    assert one["refusals"] == ["/dev/sda1 is mounted at /elsewhere, and /data is asked for: unmount it first"]


def test_mount_points_are_not_taken_from_others(devices):
    (text,) = refusals(devices, disk("/dev/nvme1n1"), mounts={"/dev/sdb": "/data"})
    assert (
        "/data is the mount point of /dev/sdb, not of /dev/nvme1n1" in text
        and "`device: %s`" % by_id("/dev/sdb") in text
    )
    (text,) = refusals(devices, disk("/dev/nvme1n1"), mountpoints={"/data": {"hidden": ["models"]}})
    assert "/data is not empty (models)" in text


def test_one_device_or_mount_point_twice_is_refused_twice(devices):
    holds(devices, "/dev/sda1", "ext4")
    plans = plan(devices, disk("/dev/nvme1n1"), disk(None, "/x", serial="BIG"), disk("/dev/sda1", format=False))
    assert ["declared twice" in text for one in plans for text in one["refusals"]] == [True] * 4


def test_unknown_devices_are_named_with_those_that_are_there(devices):
    assert (
        "no disk with `serial: X`; present: /dev/nvme0n1 (500 GiB, serial SYS)"
        in plan(devices, disk(None, serial="X"))[0]["refusals"][0]
    )
    assert "there is no block device /dev/sdx" in plan(devices, disk("/dev/sdx"))[0]["refusals"][0]


def test_findmnt_problems_by_mount_point():
    text = (
        "/data\n   [E] unreachable on boot required source: UUID=1\n   [W] warning\n/srv\n   [W] x\n\n0 parse errors\n"
    )
    assert tables.parse_problems(text) == {"/data": ["unreachable on boot required source: UUID=1"]}
