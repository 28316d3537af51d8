# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a block device is, holds and is used for; and from that, what a declared disk needs or why it is refused.

Nothing here touches a host. A device that could not be read is never taken for an empty one.
"""

from __future__ import annotations

import json
import re

from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB, format_bytes

MOUNTABLE = ("xfs", "ext2", "ext3", "ext4", "btrfs", "f2fs")
FILESYSTEMS = (*MOUNTABLE, "vfat", "exfat", "ntfs", "iso9660", "udf", "jfs", "reiserfs", "bcachefs", "ocfs2", "gfs2")
SYSTEM_MOUNTPOINTS = ("/", "/boot", "/boot/efi", "/efi", "/usr", "/var")
SMALLEST_XFS = 300 * MIB  # what mkfs.xfs accepts since xfsprogs 5.19
UNKNOWN = "unknown"  # data without a signature that anybody knows

WORDS = {
    "LVM2_member": "an LVM physical volume",
    "linux_raid_member": "a member of an mdraid array",
    "zfs_member": "a member of a ZFS pool",
    "crypto_LUKS": "a LUKS container",
    "bcache": "a bcache device",
    "swap": "swap space",
    "gpt": "a gpt partition table",
    "dos": "a dos (MBR) partition table",
    UNKNOWN: "data of an unknown kind (its first MiB is not empty)",
}


class DeclarationError(ValueError):
    """A declared disk that makes no sense whatever the host looks like."""


# Parsers of what the system's own tools say


def parse_lsblk(text):
    """`lsblk --json --bytes --paths` → devices by path, each with the paths above and below it."""
    devices = {}

    def visit(node, parent):
        path = node["name"]
        device = devices.setdefault(
            path,
            {
                "path": path,
                "kname": node["kname"],
                "type": node["type"],
                "size": int(node["size"] or 0),
                "read_only": str(node["ro"]).lower() in ("1", "true"),
                "number": node["maj:min"].strip(),
                "serial": (node.get("serial") or "").strip(),
                "model": (node.get("model") or "").strip(),
                "parents": [],
                "children": [],
            },
        )
        if parent and parent not in device["parents"]:
            device["parents"].append(parent)
            devices[parent]["children"].append(path)
        for child in node.get("children", []):
            visit(child, path)

    for node in json.loads(text)["blockdevices"]:
        visit(node, None)
    return devices


def parse_wipefs(text):
    """`wipefs --no-act --json` → the distinct signatures. The protective MBR is part of its gpt."""
    signatures = []
    for found in json.loads(text)["signatures"] if text.strip() else []:
        kind = "gpt" if found["type"] == "PMBR" else found["type"]
        signature = {"type": kind, "label": found["label"] or "", "uuid": found["uuid"] or ""}
        if signature not in signatures:
            signatures.append(signature)
    return signatures


def parse_partx(text):
    """`partx --pairs --bytes --output NR,START,SECTORS,NAME` → the partitions the table on the disk describes."""
    partitions = []
    for line in text.splitlines():
        fields = dict(re.findall(r'(\w+)="([^"]*)"', line))
        partitions.append(
            {
                "number": int(fields["NR"]),
                "start": int(fields["START"]) * 512,
                "size": int(fields["SECTORS"]) * 512,
                "name": fields.get("NAME", ""),
            }
        )
    return partitions


def parse_mountinfo(text):
    """`/proc/self/mountinfo` → number (major:minor), source and target of each mount."""
    mounts = []
    for line in text.splitlines():
        fields, _separator, rest = line.partition(" - ")
        fields, rest = fields.split(), rest.split()
        target, source = (
            re.sub(r"\\(\d{3})", lambda o: chr(int(o.group(1), 8)), text) for text in (fields[4], rest[1])
        )
        mounts.append({"number": fields[2], "target": target, "source": source, "filesystem": rest[0]})
    return mounts


def parse_swaps(text):
    """`/proc/swaps` → the devices and files swapped to."""
    return [line.split()[0] for line in text.splitlines()[1:] if line.strip()]


def parse_fstab(text):
    """`/etc/fstab` → what it says of each mount point."""
    entries = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 4 and not fields[0].startswith("#"):
            names = ("spec", "target", "filesystem", "options", "dump", "passno")
            entries[fields[1]] = dict(zip(names, [*fields, "0", "0"]))
    return entries


def parse_fstab_problems(text):
    """`findmnt --verify` → the errors it has per mount point."""
    problems, target = {}, ""
    for line in text.splitlines():
        if line.startswith("/") or line.startswith("none"):
            target = line.strip()
        elif line.strip().startswith("[E]"):
            problems.setdefault(target, []).append(line.strip()[3:].strip())
    return problems


# Sizes and names


def partition_path(disk, number):
    """A name that ends in a digit gets a `p` before the number: nvme0n1p1, loop0p1, but sda1."""
    return "%s%s%d" % (disk, "p" if disk[-1].isdigit() else "", number)


def parse_size(text, whole):
    """`60%` of `whole`, or a size with a unit: GiB is 1024³ bytes, GB is 1000³."""
    found = re.match(r"^\s*(\d+(?:\.\d+)?)\s*(%|[KMGT]i?B)\s*$", str(text))
    if not found:
        raise DeclarationError("a size is a percentage or a number with a unit (60%%, 500GiB, 2TB), not %r" % text)
    number, unit = float(found.group(1)), found.group(2)
    if unit == "%":
        return int(whole * number / 100)
    return int(number * (1024 if "i" in unit else 1000) ** ("KMGT".index(unit[0]) + 1))


def partition_name(partition):
    """The name in the partition table, by which a partition is known again: nothing else would survive a rename."""
    return (
        partition.get("name")
        or partition.get("label")
        or partition["mountpoint"].strip("/").replace("/", "-")
        or "root"
    )


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
    """Puts `mountpoints` and `swap` into every device."""
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
        if device and mount["target"] not in device["mountpoints"]:
            device["mountpoints"].append(mount["target"])
    for swap in swaps:
        if swap in numbers:
            numbers[swap]["swap"] = True


def words(signature):
    """A signature as a person would call it."""
    kind = signature["type"]
    sort = "filesystem" if kind in FILESYSTEMS else "signature"
    text = WORDS.get(kind) or "%s %s %s" % ("an" if kind[:1] in "aeiouxAEIOUX" else "a", kind, sort)
    details = [name for name in (signature["label"] and "label %s" % signature["label"], signature["uuid"]) if name]
    return text + (" (%s)" % ", ".join(details) if details else "")


def title(device):
    """How messages call a device: everything that tells it from its neighbour."""
    details = [format_bytes(device["size"]), device["model"], device["serial"] and "serial " + device["serial"]]
    return "%s (%s)" % (device["path"], ", ".join(text for text in details if text))


def contents(devices, path):
    """Every signature on the device and on what lies on it: [(path, signature)]."""
    paths = [path, *walk(devices, path, "children")]
    return [(one, signature) for one in paths for signature in devices[one].get("signatures") or []]


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


def describe(devices, path):
    """What a device is and holds, and whether it may be formatted without anybody giving something up."""
    device = devices[path]
    reasons = users(devices, path)
    reasons += ["%s holds %s" % (one, words(signature)) for one, signature in contents(devices, path)]
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


# What a declared disk needs


def find_device(devices, declared):
    """The device that `device` (a path or a link) or `serial` means."""
    present = "; present: %s" % ", ".join(title(one) for one in devices.values() if not one["parents"])
    if declared.get("serial"):
        found = [one for one in devices.values() if one["serial"] == declared["serial"] and one["type"] != "part"]
        found = [one for one in found if not any(devices[parent] in found for parent in one["parents"])]
        if len(found) != 1:
            number = "no disk" if not found else "%d disks" % len(found)
            raise DeclarationError("%s with serial %s%s" % (number, declared["serial"], present))
        return found[0]
    for one in devices.values():
        if declared["device"] in (one["path"], one["kname"]) or declared["device"] in one.get("links", []):
            return one
    raise DeclarationError("there is no block device %s%s" % (declared["device"], present))


def stable_name(device):
    """The link to declare a device by: it stays when the kernel numbers devices anew."""
    by_id = sorted(link for link in device.get("links", []) if link.startswith("/dev/disk/by-id/"))
    return by_id[0] if by_id else device["path"]


def device_of(devices, spec):
    """The path of the device that an fstab line means, when it is on this host."""
    tag, _equals, value = spec.partition("=")
    for path, device in devices.items():
        if spec in (path, device["kname"]) or spec in device.get("links", []):
            return path
        for signature in device.get("signatures") or []:
            if value and {"UUID": signature["uuid"], "LABEL": signature["label"]}.get(tag) == value.strip('"'):
                return path
    return None


def mount_options(declared):
    """The operator's own options, then those that let a host boot without the disk."""
    options = list(declared["mount_options"])
    if declared["nofail"]:
        options += ["nofail", "x-systemd.device-timeout=%s" % declared["device_timeout"]]
    return ",".join(options) or "defaults"


class DiskPlan:
    """One declared disk on one host: what is there, what will be done, or why it is refused."""

    def __init__(self, devices, declared, hidden_files, fstab):
        self.devices, self.declared, self.hidden_files, self.fstab = devices, declared, hidden_files, fstab
        self.refusals, self.wipe, self.partitions, self.filesystems, self.mounts = [], [], [], [], []
        self.create_table = False
        self.given_up = []
        self.device = None
        try:
            self.device = find_device(devices, declared)
            if declared.get("partitions"):
                self.plan_partitions()
            else:
                self.plan_filesystem(self.device, declared)
        except DeclarationError as problem:
            self.refuse(str(problem))

    def refuse(self, text):
        if text not in self.refusals:
            self.refusals.append(text)

    # Whether it may be written to

    def free(self, path):
        """Whether nobody uses the device; otherwise refuses with the reason, which no variable overrides."""
        reasons = users(self.devices, path)
        for reason in reasons:
            self.refuse(reason if path == self.device["path"] else "%s: %s" % (path, reason))
        system = on_system_disk(self.devices, path)
        if system and not reasons and not self.declared["on_system_disk"]:
            reasons.append("system")
            self.refuse(
                "it is on the disk of the running system (%s); `on_system_disk: true` for this disk would allow it"
                % ", ".join(system)
            )
        return not reasons

    def given_up_by_operator(self, found, keep=""):
        """Whether the operator has named everything that is there; otherwise refuses, naming it."""
        kinds = sorted({signature["type"] for _path, signature in found})
        if not self.declared["format"] or not set(kinds) <= set(self.declared["erase"]):
            self.refuse(
                "%s; %s%s`erase: [%s]` for this disk would give it up"
                % (
                    "; ".join("%s holds %s" % (path, words(signature)) for path, signature in found),
                    keep,
                    "" if self.declared["format"] else "`format: true` and ",
                    ", ".join(kinds),
                )
            )
            return False
        self.given_up += found
        # What lies on the device first, the device itself last.
        order = [self.device["path"], *walk(self.devices, self.device["path"], "children")]
        paths = self.wipe + [path for path, _signature in found]
        self.wipe = [path for path in reversed(order) if path in paths]
        return True

    # One filesystem

    def plan_filesystem(self, device, wanted):
        """The device as a filesystem at `wanted["mountpoint"]`: kept when it is the declared one, else made."""
        path = device["path"]
        found = contents(self.devices, path)
        if len(found) == 1 and found[0][0] == path and found[0][1]["type"] in MOUNTABLE:
            keep = self.difference(found[0][1], wanted)
            if not keep:
                self.plan_mount(device, wanted, found[0][1])
                return
        else:
            keep = ""
        if not self.free(path):
            return
        if found and not self.given_up_by_operator(found, keep):
            return
        if not self.declared["format"]:
            self.refuse("%s holds no filesystem; `format: true` for this disk would make one" % path)
            return
        self.plan_mkfs(device, wanted)

    def difference(self, found, wanted):
        """What tells the filesystem that is there from the declared one, and how to keep it; empty if nothing does."""
        kind = wanted["filesystem"] or ("xfs" if self.declared["format"] else found["type"])
        if found["type"] != kind:
            return "%s is asked for; `filesystem: %s` would keep it, " % (kind, found["type"])
        if wanted["label"] and wanted["label"] != found["label"]:
            return "label %s is asked for; `label: '%s'` would keep it, " % (wanted["label"], found["label"])
        return ""

    def plan_mkfs(self, device, wanted):
        path, kind, label = device["path"], wanted["filesystem"] or "xfs", wanted["label"] or ""
        if kind == "xfs" and device["size"] < SMALLEST_XFS:
            self.refuse(
                "%s has %s, and xfs needs %s: make it larger or use `filesystem: ext4`"
                % (path, format_bytes(device["size"]), format_bytes(SMALLEST_XFS))
            )
        options = " ".join(text for text in ("-L " + label if label else "", wanted["mkfs_options"]) if text)
        self.filesystems.append({"path": path, "filesystem": kind, "label": label, "mkfs_options": options})
        self.plan_mount(device, wanted, {"type": kind, "uuid": "", "label": label})

    def plan_mount(self, device, wanted, filesystem):
        path, mountpoint = device["path"], wanted["mountpoint"]
        others = [target for target in device["mountpoints"] if target != mountpoint]
        mounted = mountpoint in device["mountpoints"]
        if others and not mounted:
            self.refuse(
                "%s is mounted at %s, and %s is asked for: unmount it first" % (path, ", ".join(others), mountpoint)
            )
        for one in self.devices.values():
            if mountpoint in one["mountpoints"] and one["path"] != path:
                self.refuse(
                    "%s is the mount point of %s, not of %s. If the kernel has renamed the disk, declare it as %s"
                    % (mountpoint, one["path"], path, stable_name(one))
                )
        if not mounted and self.hidden_files.get(mountpoint):
            self.refuse(
                "the directory %s is not empty (%s), and the mount would hide that: move it away or change `mountpoint`"
                % (mountpoint, ", ".join(self.hidden_files[mountpoint]))
            )
        line = self.fstab.get(mountpoint)
        other = line and device_of(self.devices, line["spec"])
        if other and other != path:
            self.refuse("/etc/fstab mounts %s (%s) at %s: remove that line first" % (line["spec"], other, mountpoint))
        entry = {
            "spec": "UUID=" + filesystem["uuid"],
            "target": mountpoint,
            "filesystem": filesystem["type"],
            "options": mount_options(wanted),
            "dump": str(wanted["dump"]),
            "passno": str(wanted["passno"]),
        }
        self.mounts.append(
            {
                "path": path,
                "mountpoint": mountpoint,
                "filesystem": filesystem["type"],
                "uuid": filesystem["uuid"],
                "size": device["size"],
                "options": entry["options"],
                "dump": entry["dump"],
                "passno": entry["passno"],
                "in_fstab": line == entry,
                "grow": wanted["grow"],
                "mounted": mounted,
                "owner": wanted["owner"],
                "group": wanted["group"],
                "mode": wanted["mode"],
            }
        )

    # Partitions

    def plan_partitions(self):
        device, wanted = self.device, self.declared["partitions"]
        if device["type"] == "part":
            raise DeclarationError("%s is a partition itself: declare its disk, or no `partitions`" % device["path"])
        layout = self.match_partitions(wanted)
        if self.refusals:
            return
        for one, there in zip(wanted, layout):
            path = there["path"]
            if there["exists"]:
                if path not in self.devices:
                    self.refuse(
                        "%s is in the partition table but the kernel does not show it: run partprobe, or reboot" % path
                    )
                    return
                self.plan_filesystem(self.devices[path], one)
            else:
                self.partitions.append(there)
                self.plan_mkfs({"path": path, "size": there["size"], "mountpoints": []}, one)

    def match_partitions(self, wanted):
        """Where each declared partition is or will be. Those that are there are known by number and name."""
        device = self.device
        own = device.get("signatures") or []
        there = {one["number"]: one for one in device.get("partitions") or []}
        names = [partition_name(one) for one in wanted]
        ours = (
            bool(own)
            and all(one["type"] == "gpt" for one in own)
            and all(
                number in there and there[number]["name"] == names[number - 1]
                for number in range(1, min(len(there), len(wanted)) + 1)
            )
        )
        if not ours:
            there = {}
            found = contents(self.devices, device["path"])
            if not self.free(device["path"]) or (found and not self.given_up_by_operator(found)):
                return []
            if not self.declared["format"]:
                self.refuse("%s holds no partition table; `format: true` for this disk would make one" % device["path"])
                return []
            self.create_table = True
        if ours and len(there) < len(wanted) and device["read_only"]:
            self.refuse("it is read-only")
        if ours and len(there) < len(wanted) and not self.declared["format"]:
            self.refuse(
                "%s has %d of %d partitions; `format: true` for this disk would add the others"
                % (device["path"], len(there), len(wanted))
            )
            return []
        return self.lay_out(wanted, names, there)

    def lay_out(self, wanted, names, there):
        """Aligned to whole MiB, the first and the last MiB left to the partition table."""
        device = self.device
        end_of_disk = (device["size"] // MIB - 1) * MIB
        usable, cursor, layout = end_of_disk - MIB, MIB, []
        for number, (one, name) in enumerate(zip(wanted, names), start=1):
            path = partition_path(device["path"], number)
            if number in there:
                start, size = there[number]["start"], there[number]["size"]
                layout.append(
                    {"path": path, "number": number, "name": name, "start": start, "size": size, "exists": True}
                )
            else:
                start = -(-cursor // MIB) * MIB
                if one.get("size"):
                    size = parse_size(one["size"], usable) // MIB * MIB
                elif number == len(wanted):
                    size = end_of_disk - start
                else:
                    raise DeclarationError("only the last partition may leave out its `size`; %s does too" % name)
                if size < MIB or start + size > end_of_disk:
                    raise DeclarationError(
                        "partition %s of %s does not fit: %s are left on %s"
                        % (name, format_bytes(size), format_bytes(max(0, end_of_disk - start)), title(device))
                    )
                layout.append(
                    {"path": path, "number": number, "name": name, "start": start, "size": size, "exists": False}
                )
            cursor = start + size
        return layout

    # The plan as data and as text

    @property
    def pending(self):
        to_mount = any(not (one["mounted"] and one["in_fstab"]) for one in self.mounts)
        return bool(self.create_table or self.partitions or self.filesystems or to_mount)

    def steps(self):
        steps = [
            "give up %s on %s (%s)" % (signature["type"], path, words(signature)) for path, signature in self.given_up
        ]
        if self.create_table:
            steps.append("make a gpt partition table on %s" % self.device["path"])
        for one in self.partitions:
            steps.append(
                "add partition %d, %s, of %s: %s" % (one["number"], one["name"], format_bytes(one["size"]), one["path"])
            )
        for one in self.filesystems:
            labelled = " labelled %s" % one["label"] if one["label"] else ""
            steps.append("make an %s filesystem%s on %s" % (one["filesystem"], labelled, one["path"]))
        for one in self.mounts:
            if not one["mounted"]:
                kept = "" if not one["uuid"] else ", keeping what it holds"
                steps.append("mount %s at %s%s" % (one["path"], one["mountpoint"], kept))
            if not one["in_fstab"]:
                steps.append("mount it at boot by UUID at %s, with %s" % (one["mountpoint"], one["options"]))
        return steps

    def text(self):
        if self.device is None:
            name = self.declared.get("device") or "serial %s" % self.declared.get("serial")
        else:
            name = title(self.device)
        if self.refusals:
            return ["%s: REFUSED" % name] + ["  - %s" % text for text in self.refusals]
        if not self.pending:
            return ["%s: nothing to do, mounted at %s" % (name, ", ".join(one["mountpoint"] for one in self.mounts))]
        return ["%s:" % name] + ["  - %s" % text for text in self.steps()]

    def as_dict(self):
        return {
            "device": self.device["path"] if self.device else "",
            "stable_name": stable_name(self.device) if self.device else "",
            "pending": self.pending and not self.refusals,
            "refusals": self.refusals,
            "wipe": self.wipe,
            "create_table": self.create_table,
            "partitions": [
                {
                    "disk": self.device["path"],
                    "number": one["number"],
                    "name": one["name"],
                    "path": one["path"],
                    "start": "%dMiB" % (one["start"] // MIB),
                    "end": "%dMiB" % ((one["start"] + one["size"]) // MIB),
                }
                for one in self.partitions
            ],
            "filesystems": self.filesystems,
            "mounts": self.mounts,
            "text": self.text(),
        }


def plan_disks(devices, declared, hidden_files, fstab):
    """A plan for every declared disk; two that mean the same device or mount point are refused together."""
    plans = [DiskPlan(devices, one, hidden_files, fstab) for one in declared]
    seen = {}
    for plan in plans:
        keys = [plan.device["path"]] if plan.device else []
        for key in keys + [mount["mountpoint"] for mount in plan.mounts]:
            for other in seen.setdefault(key, []):
                for one in (plan, other):
                    one.refuse("%s is declared twice in storage_disks" % key)
            seen[key].append(plan)
    return [plan.as_dict() for plan in plans]
