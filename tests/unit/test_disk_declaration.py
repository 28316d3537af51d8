"""Declared disks that make no sense are refused before anything is looked at, with the variable to change."""

from __future__ import annotations

import pytest
from disks import disk, partition

from ansible_collections.inferops.gpu_host.plugins.module_utils import _disk_declaration as declaration


def text(**declared):
    mountpoint = declared.pop("mountpoint", "/data")
    return "\n".join(declaration.problems(disk(declared.pop("device", "/dev/sdb"), mountpoint, **declared)))


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/proc",
            "/proc/x",
            "/proc/",
            "//proc",
            "/dev",
            "/dev/shm",
            "/sys",
            "/run",
            "/run/media/x",
            "/",
            "//",
            "/boot",
        ),
        *(
            "/boot/efi",
            "/etc",
            "/etc/x",
            "/usr",
            "/usr/local/x",
            "/bin",
            "/lib64",
            "/var",
            "/var/lib",
            "/var/run/x",
            "/tmp",
        ),
        *("relative", "./x", "", "~x", "/a/../b", "/a/./b", "/..", "/data/..", "/a b", "/a\nb", "/a\tb", "/a\x00b"),
        *("/a\x1b[2J", "/a\\040b", '/a"b', "/a\u2028b", "/" + "x" * 256, "/x" * 600),
    ],
)
def test_mount_points_that_cannot_be(path):
    assert "`mountpoint: '" in text(mountpoint=path)


@pytest.mark.parametrize(
    "path",
    ["/data", "/data/", "/srv/images", "/var/lib/docker", "/var/lib/containerd", "/home", "/mnt/x", "/data/größe"],
)
def test_mount_points_that_can(path):
    assert text(mountpoint=path) == ""


@pytest.mark.parametrize(
    ("label", "filesystem", "good"),
    [
        ("twelve-bytes", None, True),
        ("thirteen-byte", None, False),
        ("thirteen-byte", "xfs", False),
        ("thirteen-byte", "ext4", True),
        ("sixteen-letters-", "ext4", True),
        ("seventeen-letters", "ext4", False),
        ("größe", "ext4", False),
        ("-f", "xfs", False),
        ("a -f", "xfs", False),
        ("a\nb", "ext4", False),
        ("a'b", "ext4", False),
    ],
)
def test_labels(label, filesystem, good):
    assert ("`label: '" not in text(label=label, filesystem=filesystem)) == good
    assert (
        "`label: '" not in text(mountpoint=None, partitions=[partition("/x", label=label, filesystem=filesystem)])
    ) or not good


@pytest.mark.parametrize(
    ("partitions", "words"),
    [
        ([partition("/x", name="n" * 37)], "has 37 characters; a gpt takes 36; set `name`"),
        ([partition("/" + "long/" * 10)], "has 49 characters"),
        ([partition("/x", name="\U0001f600" * 19)], "has 38 characters"),
        ([partition("/größe")], "may have letters, digits"),
        ([partition("/x", name='a"b')], "may have letters, digits"),
        ([partition("/x", "1GiB", name="a"), partition("/y", name="a")], "two partitions have the name 'a'"),
        ([partition("/x", "1GiB"), partition("/x/", name="a")], "`mountpoint: '/x'` is declared twice"),
        ([partition("/proc/x")], "lies in /proc"),
    ],
)
def test_partitions(partitions, words):
    assert words in text(mountpoint=None, partitions=partitions)


@pytest.mark.parametrize(
    ("options", "good"),
    [
        (["noatime"], True),
        (["noatime,discard", "logbsize=256k", "context=system_u:object_r:x_t:s0"], True),
        (["x-systemd.requires=a.service"], True),
        ([""], False),
        (["no atime"], False),
        (["noatime\n/dev/x / ext4"], False),
        (["noatime,"], False),
        (["a#b"], False),
        (["bind"], False),
        (["ro,remount"], False),
        (["noauto"], False),
        (["nofail"], False),
        (["x-systemd.device-timeout=5"], False),
    ],
)
def test_mount_options(options, good):
    assert ("`mount_options`" not in text(mount_options=options)) == good


@pytest.mark.parametrize(
    ("filesystem", "options", "good"),
    [
        ("xfs", "-m reflink=0 -K", True),
        ("xfs", "-n size=8192", True),
        ("ext4", "-m 0 -E lazy_itable_init=0", True),
        ("ext4", "-N 1000", True),
        ("xfs", "-f", False),
        ("xfs", "-Kf", False),
        ("xfs", "-N", False),
        ("xfs", "-l logdev=/dev/sda", False),
        ("xfs", "-m uuid=1", False),
        ("xfs", "-L x", False),
        ("ext4", "-F", False),
        ("ext4", "-qF", False),
        ("ext4", "-n", False),
        ("ext4", "-J device=LABEL=x", False),
        ("ext4", "-U 1", False),
        ("ext4", "/dev/sda", False),
        ("ext4", "-m 0; rm", False),
    ],
)
def test_mkfs_options(filesystem, options, good):
    assert ("`mkfs_options`" not in text(filesystem=filesystem, mkfs_options=options)) == good


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"device_timeout": "soon"}, "`device_timeout: 'soon'`"),
        ({"device_timeout": "30s,user"}, "`device_timeout:"),
        ({"dump": -1}, "`dump: -1`"),
        ({"passno": 99}, "`passno: 99`"),
        ({"device": "sdb"}, "`device: 'sdb'`"),
        ({"device": "/etc/passwd"}, "`device: '/etc/passwd'`"),
        ({"device": "/dev/a\x00b"}, "`device:"),
        ({"device": None, "serial": "a\nb"}, "`serial:"),
    ],
)
def test_everything_else(declared, words):
    found = text(**declared)
    assert words in found
    assert all(line.isprintable() for line in found.split("\n"))


@pytest.mark.parametrize("time", ["30s", "5min", "1h30m", "infinity", "0", "1.5h", "90"])
def test_times(time):
    assert text(device_timeout=time) == ""
