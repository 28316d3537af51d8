"""Which lines of the system's files name a device."""

from __future__ import annotations

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _fstab as tables

DEVICE = {
    "path": "/dev/sdb1",
    "kname": "/dev/sdb1",
    "links": ["/dev/disk/by-id/ata-X-part1", "/dev/disk/by-path/pci-0-part1", "/dev/disk/by-uuid/1f2E-aa"],
    "signatures": [{"type": "ext4", "uuid": "1F2e-aa", "label": "my data"}],
    "partuuid": "ab12-01",
    "partlabel": "big disk",
}


@pytest.mark.parametrize(
    "spec",
    [
        *("UUID=1F2E-AA", 'UUID="1f2e-aa"', "UUID='1f2e-aa'", "LABEL=my\\040data", 'LABEL="my\\040data"'),
        *("PARTUUID=AB12-01", "PARTLABEL=big\\040disk", "/dev/sdb1", "//dev//sdb1", "/dev/disk/by-id/ata-X-part1"),
        *("/dev/disk/by-path/pci-0-part1", "/dev/disk/by-uuid/1F2E-aa", "/dev/disk/by-label/my\\x20data"),
        *("/dev/disk/by-partuuid/ab12-01", "/dev/disk/by-partlabel/big\\x20disk", "ID=ata-X-part1"),
    ],
)
@pytest.mark.parametrize("target", ["/data", "/data/", "none"])
def test_a_line_names_a_device_in_every_way(spec, target):
    (line,) = tables.parse_fstab("# comment\n\n%s\t%s  ext4 defaults\n" % (spec, target))
    assert tables.naming(DEVICE, [line]) == [line]
    assert line["line"] == 3 and line["target"] == target and line["passno"] == "0"


@pytest.mark.parametrize(
    "spec", ["UUID=other", "LABEL=my", "/dev/sdb", "/dev/sdb10", "server:/data", "tmpfs", "LABEL=1f2e-aa", "UUID=", "="]
)
def test_a_line_for_something_else_does_not(spec):
    assert tables.naming(DEVICE, tables.parse_fstab("%s /data ext4\n" % spec)) == []


def test_what_a_path_leads_to_counts():
    (line,) = tables.parse_fstab("/dev/vg/data /data xfs\n")
    assert tables.naming(DEVICE, [dict(line, real="/dev/sdb1")])


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (tables.parse_crypttab, "# x\nsecret UUID=1f2e-aa none luks\n"),
        (tables.parse_unit, "[Mount]\nWhat = /dev/disk/by-label/my\\x20data\nWhere=/data\n"),
        (tables.parse_unit, "[Swap]\nWhat=/dev/sdb1\n"),
        (tables.parse_mdadm, "ARRAY /dev/md0 metadata=1.2 UUID=1f:2e:aa\n"),
        (tables.parse_mdadm, "ARRAY /dev/md0 devices=/dev/sda1,/dev/sdb1\n"),
        (tables.parse_lvm_devices, "VERSION=1.1.2\nIDTYPE=sys_serial IDNAME=X DEVNAME=/dev/sdb1 PVID=x PART=1\n"),
        (tables.parse_command_line, "quiet root=UUID=other resume=UUID=1f2e-aa rw"),
        (tables.parse_command_line, "rd.luks.uuid=luks-1f2e-aa"),
        (tables.parse_resume, "RESUME=/dev/sdb1\n"),
    ],
)
def test_other_files_name_devices_too(parse, text):
    assert tables.naming(DEVICE, parse(text, "/etc/x")), parse(text, "/etc/x")
    assert not tables.naming({**DEVICE, "path": "/dev/c", "kname": "c", "links": [], "signatures": []}, parse("", "x"))


def test_a_line_is_quoted_without_what_a_terminal_would_obey():
    (line,) = tables.parse_fstab("/dev/sdb1\t/da\x1b[2Jta ext4 defaults 0 0 " + "x" * 1000)
    text = tables.quoted(line)
    assert text.startswith("/etc/fstab line 1 (`/dev/sdb1 /da?[2Jta ext4") and len(text) < 400


VERIFIED = "none\n   [W] x\n/old\n   [E] unreachable: UUID=1\n   [E] second\n\n/data\n   [E] bad\n"


def test_findmnt_problems_by_mount_point_and_of_the_file():
    text = VERIFIED + "findmnt: /etc/fstab: parse error at line 7 -- ignored\n"
    found = tables.parse_problems(text)
    assert found["/old"] == ["unreachable: UUID=1", "second"] and found["/data"] == ["bad"]
    assert found["/etc/fstab"] == ["/etc/fstab: parse error at line 7 -- ignored"]


def test_only_new_problems_are_told_and_all_of_the_declared():
    now = tables.parse_problems(VERIFIED)
    assert tables.new_problems(now, {"/old": ["unreachable: UUID=1", "second"]}, ["/data"]) == {"/data": ["bad"]}
    assert tables.new_problems(now, {"/old": ["second"], "/data": ["bad"]}, []) == {"/old": ["unreachable: UUID=1"]}
    assert tables.new_problems(now, now, ["/data"]) == {"/data": ["bad"]}


METADATA = b"\0" * 9 + b'my-vg {\nid = "abc"\nseqno = 1\n\nphysical_volumes {\n\npv0 {\nid = "x"\n}\n}\n' + b"\0" * 20


@pytest.mark.parametrize(
    ("spec", "named"), [("/dev/my-vg/data", 1), ("/dev/mapper/my--vg-data", 1), ("/dev/mapper/my-x", 0)]
)
def test_a_volume_of_a_group_that_is_not_active_counts(spec, named):
    assert tables.volume_group(b"nothing") == ""
    device = {**DEVICE, "volume_group": tables.volume_group(METADATA)}
    assert len(tables.naming(device, tables.parse_fstab(spec + " /data xfs\n"))) == named
