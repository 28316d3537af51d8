# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files of the system count on a device: a line that names one which is gone may stop the host at its next boot.

Each file becomes lines `{file, line, text, spec, target, …}`; `spec` is how it names the device. Nothing here reads.
"""

from __future__ import annotations

import re

from ansible_collections.inferops.gpu_host.plugins.module_utils._disk_declaration import normal_mountpoint

FIELDS = ("spec", "target", "filesystem", "options", "dump", "passno")
LINKS = {"by-uuid": "UUID", "by-label": "LABEL", "by-partuuid": "PARTUUID", "by-partlabel": "PARTLABEL", "by-id": "ID"}
UNIT_DEVICE = re.compile(r"^[ \t]*What[ \t]*=(.+)$", re.M)
KERNEL_DEVICE = re.compile(r"(?:^|\s)(?:root|resume|usr|rootflags=device|rd\.luks\.uuid|rd\.md\.uuid)=(\S+)")


def _line(file, number, text, spec, target="", **more):
    return dict({"file": file, "line": number, "text": text.strip(), "spec": spec, "target": target}, **more)


def unescape(text):
    r"""fstab and the kernel write a space as `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8) & 0xFF), text)


def parse_fstab(text, file="/etc/fstab"):
    """Its lines. A mount point is as it is written there, so that one with a slash too much can be told."""
    lines = []
    for number, text_of_line in enumerate(text.splitlines(), start=1):
        fields = text_of_line.split()
        if len(fields) >= 2 and not fields[0].startswith("#"):
            values = dict(zip(FIELDS, [*fields, *["auto", "defaults", "0", "0"][max(0, len(fields) - 2) :]]))
            values.update(spec=unescape(values["spec"]), target=unescape(values["target"]))
            lines.append(_line(file, number, text_of_line, **values))
    return lines


def parse_crypttab(text, file="/etc/crypttab"):
    rows = [(number, one, one.split()) for number, one in enumerate(text.splitlines(), start=1)]
    return [
        _line(file, number, one, unescape(fields[1]))
        for number, one, fields in rows
        if len(fields) >= 2 and not fields[0].startswith("#")
    ]


def parse_unit(text, file):
    """A .mount or .swap unit that somebody wrote."""
    return [_line(file, 0, found.group(0), found.group(1).strip()) for found in UNIT_DEVICE.finditer(text)]


def parse_mdadm(text, file):
    """ARRAY lines of mdadm.conf: the array by its UUID, or its members by name."""
    lines = []
    for number, one in enumerate(text.splitlines(), start=1):
        if one.upper().startswith("ARRAY"):
            for key, value in re.findall(r"(?i)\b(uuid|devices)=(\S+)", one):
                lines += [
                    _line(file, number, one, "UUID=" + value if key.lower() == "uuid" else name)
                    for name in value.split(",")
                ]
    return lines


def parse_lvm_devices(text, file):
    """LVM's list of the devices that it may use."""
    found = [
        (number, one, re.search(r"\bDEVNAME=(/\S+)", one)) for number, one in enumerate(text.splitlines(), start=1)
    ]
    return [_line(file, number, one, match.group(1)) for number, one, match in found if match]


def parse_command_line(text, file="/proc/cmdline"):
    """What the kernel was told to boot from and to resume from."""
    names = [found.group(1).strip('"') for found in KERNEL_DEVICE.finditer(text)]
    tagged = [name if "=" in name or name.startswith("/") else "UUID=" + re.sub("^luks-", "", name) for name in names]
    return [_line(file, 1, text, name) for name in tagged]


def parse_resume(text, file):
    """initramfs-tools: where the system sleeps."""
    found = [(number, one, re.match(r"\s*RESUME=(\S+)", one)) for number, one in enumerate(text.splitlines(), start=1)]
    return [_line(file, number, one, match.group(1).strip("\"'")) for number, one, match in found if match]


def parse_problems(text):
    """`findmnt --verify` → its errors per mount point; those of the file as a whole under the file's name."""
    problems, target = {}, ""
    for line in text.splitlines():
        if line.startswith(("/", "none", "swap")):
            target = line.strip()
        elif line.strip().startswith("[E]"):
            problems.setdefault(target, []).append(line.strip()[3:].strip())
        elif "parse error at line" in line:
            problems.setdefault("/etc/fstab", []).append(line.split(": ", 1)[-1].strip())
    return problems


def new_problems(problems, known, declared):
    """Those that were not known, and all of the declared mount points."""
    found = {}
    for target, texts in problems.items():
        new = [text for text in texts if target in declared or text not in known.get(target, [])]
        if new:
            found[target] = new
    return found


# Which device a line means


def canonical(spec):
    """(tag, value) of a name: the tags of fstab, their links in /dev/disk, or a path."""
    found = re.match(r"([A-Z]+)=(.*)\Z", spec, re.S)
    if found:
        tag, value = found.group(1), found.group(2)
        value = value[1:-1] if re.match(r"(['\"]).*\1\Z", value, re.S) else value
    else:
        link = re.match(r"/+dev/+disk/+(by-\w+)/+(.+)\Z", spec)
        if not link or link.group(1) not in LINKS:
            return "PATH", normal_mountpoint(spec) if spec.startswith("/") else spec
        tag, value = LINKS[link.group(1)], link.group(2)
        value = re.sub(r"\\x([0-9a-f]{2})", lambda one: chr(int(one.group(1), 16)), value)
    return tag, re.sub("[-:]", "", value).lower() if tag in ("UUID", "PARTUUID") else value


def names(device):
    """Everything that a file may call this device."""
    found = {canonical(one) for one in [device["path"], device["kname"], *device.get("links", [])]}
    for tag, values in (
        ("UUID", [one["uuid"] for one in device.get("signatures") or []]),
        ("LABEL", [one["label"] for one in device.get("signatures") or []]),
        ("PARTUUID", [device.get("partuuid")]),
        ("PARTLABEL", [device.get("partlabel")]),
    ):
        found |= {canonical("%s=%s" % (tag, value)) for value in values if value}
    return found


def naming(device, lines):
    """The lines that name this device, or a volume on it whose group is not active now.

    `real`, when the reader has put it there, is what a path leads to.
    """
    mine = names(device)
    group = device.get("volume_group")
    volumes = ("/dev/%s/" % group, "/dev/mapper/%s-" % group.replace("-", "--")) if group else ()
    return [
        one
        for one in lines
        if canonical(one["spec"]) in mine
        or one.get("real") in (device["path"], device["kname"])
        or (volumes and one["spec"].startswith(volumes))
    ]


def volume_group(start):
    """The volume group that the start of an LVM physical volume speaks of."""
    found = re.findall(rb'(?:^|[\n\0])([A-Za-z0-9+_.-]{1,127}) \{\n\s*id = "[^"\n]{0,99}"\n\s*seqno = ', start)
    return found[-1].decode() if found else ""


def quoted(line):
    """A line as messages show it."""
    text = "".join(one if one.isprintable() or one == "\t" else "?" for one in line["text"][:300])
    where = "%s line %d" % (line["file"], line["line"]) if line["line"] else line["file"]
    return "%s (`%s`)" % (where, " ".join(text.split()))
