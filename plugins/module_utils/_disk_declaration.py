# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be wrong with a declared disk whatever the host looks like."""

from __future__ import annotations

import re

# Where the system keeps what it needs: nothing may be mounted there, or anywhere below the first ones.
SYSTEM_TREES = (
    *(
        "/proc",
        "/sys",
        "/dev",
        "/run",
        "/tmp",
        "/etc",
        "/boot",
        "/efi",
        "/usr",
        "/bin",
        "/sbin",
        "/lib",
        "/lib32",
        "/lib64",
    ),
    *(
        "/libx32",
        "/lost+found",
        "/var/run",
        "/var/lock",
        "/var/tmp",
        "/var/lib/dpkg",
        "/var/lib/rpm",
        "/var/lib/systemd",
    ),
)
SYSTEM_DIRECTORIES = ("/", "/var", "/var/lib", "/var/log", "/var/cache", "/var/spool", "/root")
LABEL_BYTES = {"xfs": 12, "ext4": 16}
NAME_UNITS = 36  # of UTF-16, in a gpt
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]*\Z")  # survives every tool's quoting, in every locale
TIME_SPAN = re.compile(r"(infinity|(\d+(\.\d+)?(us|ms|s|sec|m|min|h|hr|d)?)+)\Z")
MOUNT_OPTION = re.compile(r"[A-Za-z0-9][^\s\\#\"'\x00-\x1f\x7f]*\Z")
NO_MOUNT = ("bind", "rbind", "move", "remount", "loop", "noauto")  # options that make something else of a mount at boot
# Letters that may stand together, and those that force, rehearse, or set what the role sets or makes unique.
FLAGS = {"xfs": re.compile(r"-[qKV]*[fNL]"), "ext4": re.compile(r"-[cvqDjkV]*[FnSLtU]")}


class DeclarationError(ValueError):
    """A declared disk that makes no sense whatever the host looks like."""


def partition_path(disk, number):
    """A name that ends in a digit gets a `p` before the number: nvme0n1p1, loop0p1, but sda1."""
    return "%s%s%d" % (disk, "p" if disk[-1].isdigit() else "", number)


def parse_size(text, whole):
    """`60%` of `whole`, or a size with a unit: GiB is 1024³ bytes, GB is 1000³."""
    found = re.match(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*(%|[KMGT]i?B)\s*\Z", str(text))
    if not found or not float(found.group(1)):
        raise DeclarationError(
            "`size` is a percentage or a number with a unit (60%%, 500GiB, 2TB), not %s" % shown(text)
        )
    number, unit = float(found.group(1)), found.group(2)
    if unit == "%":
        return int(whole * number / 100)
    return int(number * (1024 if "i" in unit else 1000) ** ("KMGT".index(unit[0]) + 1))


def shown(text):
    """A text of somebody else's, fit to print: short, and without anything that a terminal would obey."""
    text = str(text)
    plain = "".join(one if one.isprintable() else "\\x%02x" % ord(one) for one in text[:80])
    return "'%s'%s" % (plain, " …" if len(text) > 80 else "")


def partition_name(partition):
    """The name in the partition table, by which a partition is known again: nothing else would survive a rename."""
    return (
        partition.get("name")
        or partition.get("label")
        or partition["mountpoint"].strip("/").replace("/", "-")
        or "root"
    )


def normal_mountpoint(path):
    """A path without the slashes that mean nothing."""
    return "/" + "/".join(part for part in path.split("/") if part)


def with_normal_mountpoints(declared):
    """`/data/` is `/data`."""
    parts = [with_normal_mountpoints(one) for one in declared.get("partitions") or []]
    changed = {"partitions": parts} if parts else {}
    if (declared.get("mountpoint") or "").startswith("/"):
        changed["mountpoint"] = normal_mountpoint(declared["mountpoint"])
    return dict(declared, **changed)


def mountpoint_problem(path):
    """What is wrong with a mount point, or nothing."""
    here = "`mountpoint: %s`" % shown(path)
    if not path.startswith("/"):
        return "%s is not an absolute path" % here
    if any(one.isspace() or not one.isprintable() or one in "\\\"'" for one in path):
        return "%s has a space, a quote, a backslash or a character that does not print" % here
    if any(part in (".", "..") for part in path.split("/")):
        return "%s goes through `.` or `..`: write the path itself" % here
    if len(path.encode()) > 1024 or any(len(part.encode()) > 255 for part in path.split("/")):
        return "%s is too long" % here
    path = normal_mountpoint(path)
    if path in SYSTEM_DIRECTORIES:
        return "%s is a directory of the system, which the mount would hide" % here
    for tree in SYSTEM_TREES:
        if path == tree or path.startswith(tree + "/"):
            return "%s lies in %s, which belongs to the system" % (here, tree)
    return None


def label_problem(label, filesystem):
    most = LABEL_BYTES[filesystem]
    if len(label.encode()) > most:
        return "`label: %s` has %d bytes, and %s takes %d" % (shown(label), len(label.encode()), filesystem, most)
    if not PLAIN.match(label):
        return "`label: %s` may have letters, digits and . _ : + -, and none of the signs first" % shown(label)
    return None


def filesystem_problems(wanted, makes):
    """What is wrong with one declared filesystem. `makes`: whether one may have to be made."""
    problems = [mountpoint_problem(wanted["mountpoint"])]
    kind = wanted["filesystem"] or "xfs"
    if wanted["label"] and makes:
        problems.append(label_problem(wanted["label"], kind))
    for one in wanted["mkfs_options"].split():
        if not one.isprintable() or any(sign in one for sign in "\"'\\`$;|&"):
            problems.append("`mkfs_options` has %s, which no mkfs takes" % shown(one))
        elif FLAGS[kind].match(one) or re.match(r"--|/|.*(/dev/|dev=|device=|uuid=)", one):
            problems.append(
                "`mkfs_options` may not have %s, which forces, rehearses, names a device, or sets label, kind or UUID"
                % shown(one)
            )
    for text in wanted["mount_options"]:
        for option in text.split(","):
            if not MOUNT_OPTION.match(option):
                problems.append("`mount_options` has %s, which is no option of a mount" % shown(text))
            elif option in NO_MOUNT:
                problems.append("`mount_options` has %s, and this is a disk that is mounted at boot" % shown(option))
            elif option in ("nofail", "fail") or option.startswith("x-systemd.device-timeout"):
                problems.append("`mount_options` has %s: use `nofail` and `device_timeout`" % shown(option))
    if not TIME_SPAN.match(wanted["device_timeout"]):
        problems.append("`device_timeout: %s` is no time (30s, 5min, infinity)" % shown(wanted["device_timeout"]))
    for name in ("dump", "passno"):
        if not 0 <= wanted[name] <= 9:
            problems.append("`%s: %d` is not between 0 and 9" % (name, wanted[name]))
    return [one for one in problems if one]


def partition_problems(partitions):
    """What is wrong with the names of the declared partitions."""
    names = [partition_name(one) for one in partitions]
    problems = []
    for name in names:
        units = len(name.encode("utf-16-le", "replace")) // 2
        if units > NAME_UNITS:
            problems.append("partition name %s has %d characters; a gpt takes %d" % (shown(name), units, NAME_UNITS))
        elif not PLAIN.match(name):
            problems.append("partition name %s may have letters, digits and . _ : + -" % shown(name))
        elif names.count(name) > 1:
            problems.append("two partitions have the name %s" % shown(name))
    problems = [text + "; set `name` of the partition" for text in problems]
    paths = [normal_mountpoint(one["mountpoint"]) for one in partitions]
    return problems + ["`mountpoint: %s` is declared twice" % shown(path) for path in paths if paths.count(path) > 1]


def problems(declared):
    """Everything that is wrong with a declared disk, each with the variable to change."""
    found = []
    for name in ("device", "serial"):
        value = declared.get(name) or ""
        if any(not one.isprintable() for one in value):
            found.append("`%s: %s` has a character that does not print" % (name, shown(value)))
    if declared.get("device") and not declared["device"].startswith("/dev/"):
        found.append("`device: %s` is not a path below /dev" % shown(declared["device"]))
    for one in declared.get("partitions") or [declared]:
        found += filesystem_problems(one, makes=declared["format"])
    found += partition_problems(declared.get("partitions") or [])
    return list(dict.fromkeys(found))
