"""What a declared disk needs, or why it is refused: data without a signature, files that name it, names that move."""

from __future__ import annotations

import disks
import pytest
from disks import Bytes, by_id, disk, holds, partition, plan, refusals

from ansible_collections.inferops.gpu_host.plugins.module_utils import _block_devices as block
from ansible_collections.inferops.gpu_host.plugins.module_utils import _disk_declaration as declaration
from ansible_collections.inferops.gpu_host.plugins.module_utils import _fstab as tables
from ansible_collections.inferops.gpu_host.plugins.module_utils._device_samples import given_up
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB, MIB

BIG = "/dev/nvme1n1"
PAGES = b"\xff" * MIB


@pytest.fixture
def devices():
    return disks.server()


# Data that has no signature


@pytest.mark.parametrize(
    ("path", "held"),
    [
        ("/dev/sda1", {0: PAGES}),
        (BIG, {MIB: PAGES}),
        (BIG, {4096 * GIB - 10 * MIB: PAGES}),
        (BIG, {1000 * GIB: b"x" * 4096 * 4}),
    ],
    ids=["a partition", "behind the first MiB", "at the end", "too little in the middle"],
)
def test_data_of_an_unknown_kind_is_refused_until_it_is_named(devices, path, held, request):
    read = Bytes({path: held})
    if "too little" in request.node.name:  # docs/storage.md says so
        assert plan(devices, disk(by_id(path)), read=read)[0]["filesystems"]
        return
    (refused,) = plan(devices, disk(by_id(path)), read=read)
    assert "%s holds data of an unknown kind (the first of it at byte " % path in refused["refusals"][0]
    assert "`erase: [data]` for this disk would give it up" in refused["refusals"][0]
    assert not refused["filesystems"] and not refused["clear"] and not refused["wipe"]
    (named,) = plan(devices, disk(by_id(path), erase=["data"]), read=read)
    assert named["refusals"] == [] and named["wipe"] == [path]
    assert named["clear"] == [{"device": path, "start": 0, "size": devices[path]["size"]}]
    assert refusals(devices, disk(by_id(path), erase=["unknown", "ext4"]), read=read)


def test_a_disk_of_partitions_with_such_data_is_refused_as_a_whole(devices):
    holds(devices, "/dev/sda", "gpt")
    devices["/dev/sda"]["partitions"] = [{"number": 1, "name": "x", "start": MIB, "size": 99 * GIB, "uuid": ""}]
    declared = disk(by_id("/dev/sda"), None, erase=["gpt"], partitions=[partition("/data")])
    assert plan(devices, declared)[0]["refusals"] == []
    (text,) = refusals(devices, declared, read=Bytes({"/dev/sda1": {99 * GIB - 3 * MIB: PAGES}}))
    assert "/dev/sda1 holds data of an unknown kind" in text and "`erase: [data, gpt]`" in text
    (text,) = refusals(devices, declared, read=Bytes({"/dev/sda": {99 * GIB + 20 * MIB: PAGES}}))
    assert "/dev/sda holds data of an unknown kind" in text and "between" not in text


def test_partitions_that_the_kernel_does_not_show_are_not_given_up_unseen(devices):
    holds(devices, BIG, "gpt")
    devices[BIG]["partitions"] = [{"number": 1, "name": "x", "start": MIB, "size": GIB, "uuid": ""}]
    for declared in (
        disk(by_id(BIG), erase=["gpt"]),
        disk(by_id(BIG), None, erase=["gpt"], partitions=[partition("/d")]),
    ):
        assert any("the kernel does not show them" in text for text in refusals(devices, declared))


def test_the_plan_says_how_much_was_read_and_reads_the_same_little_of_any_size(devices):
    read = Bytes()
    (one,) = plan(devices, disk(BIG), read=read)
    assert any("first and last 16 MiB and 1024 places between were read" in text for text in one["text"])
    assert read.read <= 40 * MIB
    holds(devices, BIG, "xfs")
    read = Bytes()
    plan(devices, disk(BIG), read=read)
    assert read.read == 0  # what has a signature needs no samples


@pytest.mark.parametrize("path", [BIG, "/dev/sda1"])
def test_a_device_that_cannot_be_read_is_never_empty(devices, path):
    (one,) = plan(devices, disk(by_id(path), erase=["data"]), read=Bytes(broken=[path]))
    assert "cannot be read (Input/output error)" in one["refusals"][0] and not one["filesystems"]
    devices = disks.server()
    assert not block.describe(devices, path, Bytes(broken=[path]))["formattable"]
    assert not block.describe(disks.server(), path, Bytes({path: {5: b"x"}}))["formattable"]
    assert block.describe(disks.server(), path, Bytes())["formattable"]


# Partitions that this run makes


def test_every_room_that_is_taken_over_is_cleared_the_disk_first(devices):
    wanted = [partition("/data", "60%"), partition("/more")]
    (one,) = plan(devices, disk(BIG, None, partitions=wanted))
    starts = [(room["start"], room["size"]) for room in one["clear"]]
    assert starts[0] == (0, 4096 * GIB)
    assert [start for start, _size in starts[1:]] == [MIB, int(one["partitions"][1]["start"][:-3]) * MIB]
    assert one["wipe"] == []


def table(devices, *names):
    holds(devices, BIG, "gpt")
    devices[BIG]["partitions"] = [
        {"number": number, "name": name, "start": (1 + (number - 1) * 1024) * MIB, "size": GIB, "uuid": ""}
        for number, name in enumerate(names, start=1)
    ]
    for number, _name in enumerate(names, start=1):
        path = "%sp%d" % (BIG, number)
        devices[path] = dict(
            devices["/dev/sda1"],
            path=path,
            kname=path,
            size=GIB,
            parents=[BIG],
            number="259:%d" % (40 + number),
            links=[],
        )
        devices[BIG]["children"].append(path)


THREE = [partition("/a", "1GiB"), partition("/b", "1GiB"), partition("/c", "1GiB")]


def test_partitions_of_an_earlier_run_are_not_cleared(devices):
    table(devices, "a", "b")
    holds(devices, BIG + "p1", "xfs", uuid="kept")
    holds(devices, BIG + "p2", "xfs", uuid="kept too")
    (one,) = plan(devices, disk(BIG, None, partitions=THREE))
    assert one["refusals"] == [] and not one["create_table"]
    assert [room["start"] for room in one["clear"]] == [2049 * MIB]
    assert [made["path"] for made in one["filesystems"]] == [BIG + "p3"]


def test_what_a_lost_partition_has_left_is_refused_where_one_is_added(devices):
    table(devices, "a", "b")
    for number in (1, 2):
        holds(devices, "%sp%d" % (BIG, number), "xfs", uuid=str(number))
    read = Bytes({BIG: {2049 * MIB + 100 * MIB: PAGES * 5}})
    (text,) = refusals(devices, disk(by_id(BIG), None, partitions=THREE), read=read)
    assert "holds data of an unknown kind" in text and "`erase: [data]`" in text
    (one,) = plan(devices, disk(by_id(BIG), None, erase=["data"], partitions=THREE), read=read)
    assert one["refusals"] == [] and one["wipe"] == [] and len(one["clear"]) == 1


@pytest.mark.parametrize("made", [0, 1, 3])
def test_a_run_that_was_killed_is_finished_without_another_word(devices, made):
    """The rooms were marked before the table was written; behind the marks lies what was given up."""
    rest = {MIB + 200 * MIB: PAGES * 3}
    held = {BIG: {**rest, **{(1 + number * 1024) * MIB: given_up(GIB) for number in range(3)}}}
    held.update({"%sp%d" % (BIG, number): {0: given_up(GIB), 2 * MIB: PAGES} for number in (1, 2, 3)})
    table(devices, *"abc"[:made])
    (one,) = plan(devices, disk(BIG, None, partitions=THREE), read=Bytes(held))
    assert one["refusals"] == [] and len(one["filesystems"]) == 3 and not one["create_table"]
    (before_the_table,) = plan(
        disks.server(), disk(BIG, None, partitions=THREE), read=Bytes({BIG: {0: given_up(4096 * GIB), GIB: PAGES}})
    )
    assert before_the_table["refusals"] == [] and before_the_table["create_table"]


# Files that name it


@pytest.mark.parametrize("target", ["/old", "/old/", "/data", "none"])
@pytest.mark.parametrize("spec", ["UUID=u1", "/dev/sda1", "/dev/disk/by-id/test-sda1", "LABEL=l"])
def test_a_device_that_fstab_names_is_not_written_to(devices, spec, target):
    holds(devices, "/dev/sda1", "ext4", label="l")
    devices["/dev/sda"]["signatures"] = [{"type": "dos", "label": "", "uuid": "t"}]
    line = "%s %s ext4 defaults 0 2" % (spec, target)
    for declared in (
        disk(by_id("/dev/sda1"), erase=["ext4"]),
        disk(by_id("/dev/sda"), erase=["ext4", "dos"]),
        disk(by_id("/dev/sda"), None, erase=["ext4", "dos"], partitions=[partition("/data")]),
    ):
        (one,) = plan(devices, declared, fstab="# first\n" + line + "\n")
        assert any("/etc/fstab line 2 (`%s`) names" % line in text for text in one["refusals"])
        assert not one["clear"] and not one["filesystems"]


def test_other_files_count_too(devices):
    lines = tables.parse_crypttab("secret UUID=u1 none luks\n")
    holds(devices, BIG, "crypto_LUKS")
    (text,) = refusals(devices, disk(by_id(BIG), erase=["crypto_LUKS"]), lines=lines)
    assert text.startswith("/etc/crypttab line 1 (`secret UUID=u1 none luks`) names it: take that line out first")


@pytest.mark.parametrize(
    ("fstab", "words"),
    [
        ("UUID=u7 /data xfs defaults", "mounts /dev/sda1 at /data: take that line out first"),
        ("UUID=u7 /data/ xfs defaults", "mounts /dev/sda1 at /data: take that line out first"),
        ("UUID=u9 /data/ xfs defaults", "write the mount point as /data there"),
        ("UUID=u9 /old xfs defaults", "names %s, and /data is asked for" % BIG),
        ("UUID=gone /data xfs defaults", "mounts a device that is not here at /data"),
        ("UUID=u9 /data xfs defaults\nLABEL=x /data xfs ro", "has two lines for /data"),
    ],
)
def test_lines_of_others_are_not_written_anew(devices, fstab, words):
    holds(devices, BIG, "xfs", uuid="u9")
    holds(devices, "/dev/sda1", "xfs", uuid="u7")
    assert any(words in text for text in refusals(devices, disk(BIG), fstab=fstab + "\n"))


@pytest.mark.parametrize("spec", ["UUID=u9", BIG, "PARTUUID=x"])
def test_the_line_of_the_declared_disk_is_written_anew(devices, spec):
    holds(devices, BIG, "xfs", uuid="u9")
    devices[BIG]["partuuid"] = "x"
    (one,) = plan(devices, disk(BIG), fstab=spec + " /data xfs ro 0 0\n")
    assert one["refusals"] == [] and not one["mounts"][0]["in_fstab"]


# Names


@pytest.mark.parametrize(
    "name",
    [
        *(
            BIG,
            "/dev/disk/by-uuid/1",
            "/dev/disk/by-label/x",
            "/dev/disk/by-diskseq/9",
            "/dev/block/259:4",
            "/dev/mine",
        ),
        *("/dev//nvme1n1", "/dev/./nvme1n1", "/dev/disk/by-id/../../nvme1n1", "/dev/mapper/../nvme1n1"),
    ],
)
def test_nothing_is_erased_by_a_name_that_moves(devices, name):
    devices[BIG]["links"] += [name] if name != BIG else []  # as everything that leads to the device
    holds(devices, BIG, "ext4")
    (text,) = refusals(devices, disk(name, erase=["ext4"]))
    assert "`erase` for `device: %s`" % name in text and "use `device: %s`" % by_id(BIG) in text
    assert refusals(devices, disk(None, serial="BIG", erase=["ext4"])) == []


@pytest.mark.parametrize(
    ("links", "advice"),
    [
        (["/dev/disk/by-id/lvm-pv-uuid-x", "/dev/disk/by-path/pci-1"], "use `device: /dev/disk/by-path/pci-1`"),
        ([], "use `serial: BIG`"),
    ],
)
def test_the_name_that_is_advised_is_taken(devices, links, advice):
    devices[BIG]["links"] = links
    assert advice in refusals(devices, disk(BIG, erase=["data"]))[0]
    kind, name = advice.strip("`").split("`")[1].split(": ")
    assert (
        refusals(
            devices, disk(name if kind == "device" else None, serial=name if kind == "serial" else None, erase=["x"])
        )
        == []
    )


def test_a_disk_without_any_name_that_stays_has_to_be_emptied_by_hand(devices):
    devices["/dev/sda"]["serial"], devices["/dev/sda"]["links"] = "", []
    holds(devices, "/dev/sda", "dos")
    assert "empty it by hand" in refusals(devices, disk("/dev/sda"))[0]
    assert "empty it by hand" in refusals(devices, disk("/dev/sda", erase=["dos"]))[0]


def multipath(devices, joined):
    for path in ("/dev/sdb", "/dev/sdc"):
        devices[path].update(wwn="0x5000", serial="SAN", children=[])
    del devices["/dev/md0"]
    if joined:
        device = dict(devices["/dev/sdb"], type="mpath", path="/dev/mapper/mpatha", kname="/dev/dm-7", number="254:7")
        devices["/dev/mapper/mpatha"] = dict(device, parents=["/dev/sdb", "/dev/sdc"], children=[], links=[], serial="")
        for path in ("/dev/sdb", "/dev/sdc"):
            devices[path].update(children=["/dev/mapper/mpatha"], busy=True)


@pytest.mark.parametrize(
    "declared", [{"device": "/dev/sdb"}, {"device": by_id("/dev/sdb"), "erase": ["ext4"]}, {"serial": "SAN"}]
)
@pytest.mark.parametrize("joined", [True, False])
def test_a_path_of_a_multipath_device_is_not_a_disk(devices, declared, joined):
    multipath(devices, joined)
    found = refusals(devices, disk(declared.pop("device", None), **declared))
    assert found and all("`device`" in text or "`device: " in text for text in found)


def test_a_multipath_device_is_a_disk_without_partitions(devices):
    multipath(devices, joined=True)
    (one,) = plan(devices, disk("/dev/mapper/mpatha"))
    assert one["refusals"] == [] and one["filesystems"][0]["path"] == "/dev/mapper/mpatha"
    (text,) = refusals(devices, disk("/dev/mapper/mpatha", None, partitions=[partition("/data")]))
    assert "`partitions`" in text and "device mapper" in text


def test_namespaces_of_one_nvme_disk_are_two_disks(devices):
    devices["/dev/sdc"].update(serial="SAME", wwn="eui.1", children=[])
    devices["/dev/sdb"].update(serial="SAME", wwn="eui.2", children=[])
    del devices["/dev/md0"]
    assert refusals(devices, disk("/dev/sdb"), disk("/dev/sdc", "/more")) == []


def test_a_copied_disk_is_not_mounted_by_its_uuid(devices):
    holds(devices, BIG, "xfs", uuid="same")
    holds(devices, "/dev/sda1", "xfs", uuid="same")
    (text,) = refusals(devices, disk(BIG))
    assert "%s has the same UUID as /dev/sda1 (same)" % BIG in text and "xfs_admin -U generate" in text


def test_a_disk_and_its_partition_are_not_declared_together(devices):
    declared = disk(by_id("/dev/sda"), "/a"), disk("/dev/sda1", "/b")
    assert [one for one in refusals(devices, *declared) if "are the same disk" in one] != []


# Mount points


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"real": "/mnt/x"}, "`mountpoint: /data` goes through a symbolic link: it is /mnt/x, so write that"),
        ({"no_directory": "/data"}, "`mountpoint: /data` cannot be: /data is no directory"),
        ({"hidden": ["a", "b"]}, "/data is not empty (a, b)"),
    ],
)
def test_mount_points_as_they_are(devices, found, words):
    assert words in refusals(devices, disk(BIG), mountpoints={"/data": found})[0]


def test_a_slash_too_much_means_nothing(devices):
    assert plan(devices, disk(BIG, "/data/"))[0]["mounts"][0]["mountpoint"] == "/data"
    twice = refusals(devices, disk(BIG, "/data/"), disk("/dev/sda1", "/data"))
    assert ["/data is declared twice" in text for text in twice] == [True, True]


def test_a_mount_of_others_is_not_hidden(devices, monkeypatch):
    monkeypatch.setattr(disks, "MOUNTINFO", disks.MOUNTINFO + "31 22 0:99 / /data rw - nfs4 server:/x rw\n")
    assert "/data is the mount point of server:/x (nfs4)" in refusals(devices, disk(BIG))[0]


# Advice


def accepted(text):
    """Declarations that a refusal advises, as far as they are in backticks."""
    for key, value in [one.split(": ", 1) for one in text.split("`")[1::2] if ": " in one]:
        if key in ("filesystem", "label"):
            yield {key: value.strip("'")}


@pytest.mark.parametrize(
    ("kind", "label"),
    [("btrfs", ""), ("ext3", "old"), ("xfs", "good"), ("ext4", "Größe"), ("xfs", "a'b"), ("f2fs", "x"), ("ext4", "")],
)
@pytest.mark.parametrize("wanted", [{"filesystem": "ext4"}, {"filesystem": "xfs"}, {"label": "new"}])
def test_advice_never_names_a_value_that_is_refused(devices, kind, label, wanted):
    holds(devices, BIG, kind, label=label)
    for text in refusals(devices, disk(BIG, **wanted)):
        for advised in accepted(text):
            assert advised.get("filesystem", "xfs") in ("xfs", "ext4"), text
            declared = disk(BIG, **{**wanted, **advised})
            assert declaration.problems(declared) == [], text
        if "leaving out `label`" in text:
            assert not any("label" in one for one in refusals(devices, disk(BIG, **{**wanted, "label": None})))


def test_a_label_of_somebody_else_is_no_command_to_a_terminal(devices):
    holds(devices, BIG, "ext4", label="\x1b[2J\n" + "x" * 500)
    (text,) = refusals(devices, disk(BIG))
    assert text.isprintable() and len(text) < 400
