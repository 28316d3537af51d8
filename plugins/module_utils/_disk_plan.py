# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a declared disk needs, step by step, or why it is refused. Nothing here touches a host."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils._block_devices import (
    MOUNTABLE,
    contents,
    data_on,
    find_device,
    moving_name,
    on_system_disk,
    other_ways,
    stable_name,
    users,
    walk,
    words,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._disk_declaration import (
    DeclarationError,
    label_problem,
    partition_name,
    problems,
    with_normal_mountpoints,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._disk_report import in_words
from ansible_collections.inferops.gpu_host.plugins.module_utils._fstab import naming, quoted
from ansible_collections.inferops.gpu_host.plugins.module_utils._mount_points import look_at_mount
from ansible_collections.inferops.gpu_host.plugins.module_utils._partition_layout import lay_out
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB, format_bytes

SMALLEST_XFS = 300 * MIB  # what mkfs.xfs accepts since xfsprogs 5.19
MAKEABLE = ("xfs", "ext4")
ENGINES = ("docker.service", "containerd.service")  # they write where a disk is to be, when they start before it


def mount_options(declared):
    """The operator's own options, then those that let a host boot without the disk, yet no engine before it."""
    options = list(declared["mount_options"])
    if declared["nofail"]:
        options += ["nofail", "x-systemd.device-timeout=%s" % declared["device_timeout"]]
        options += ["x-systemd.before=%s" % unit for unit in ENGINES]
    return ",".join(options) or "defaults"


class DiskPlan:
    """One declared disk on one host: what is there, what will be done, or why it is refused."""

    def __init__(self, devices, declared, host):
        self.devices, self.declared, self.host = devices, with_normal_mountpoints(declared), host
        self.refusals, self.wipe, self.clear, self.partitions = [], [], [], []
        self.filesystems, self.mounts, self.found_empty, self.given_up = [], [], [], []
        self.create_table = False
        self.device = None
        for text in problems(declared):
            self.refuse(text)
        if self.refusals:
            return
        try:
            self.device = find_device(devices, declared)
            self.is_meant()
            if self.refusals:
                return
            if declared.get("partitions"):
                self.plan_partitions()
            else:
                self.plan_filesystem(self.device, self.declared)
        except DeclarationError as problem:
            self.refuse(str(problem))

    def refuse(self, text):
        if text not in self.refusals:
            self.refusals.append(text)

    def is_meant(self):
        """Refuses a device that may be another one than the operator thinks."""
        reason = other_ways(self.devices, self.device["path"])
        if reason:
            self.refuse(reason)
        if self.declared["erase"] and moving_name(self.device, self.declared):
            name = self.declared["device"]
            self.refuse(
                "`erase` for `device: %s`, %s: %s"
                % (
                    name,
                    "a name that erasing takes away"
                    if name.startswith("/dev/disk/")
                    else "a name that may be another disk's after a reboot",
                    self.steady_name("use `%s`", "it has no other, so empty it by hand and leave `erase` out"),
                )
            )

    def steady_name(self, text, without):
        name = stable_name(self.devices, self.device)
        return text % name if name else without

    # Whether it may be written to

    def free(self, path):
        """Whether nobody uses the device or counts on it; otherwise refuses with the reason. Nothing overrides it."""
        reasons = users(self.devices, path)
        for one in [path, *walk(self.devices, path, "children")]:
            for line in naming(self.devices[one], self.host["fstab"] + self.host["lines"]):
                reasons.append(
                    "%s names %s: take that line out first, or the host may not boot without what it names"
                    % (quoted(line), "it" if one == path else one)
                )
        for reason in reasons:
            self.refuse(reason if path == self.device["path"] else "%s: %s" % (path, reason))
        return self.off_the_system_disk(path, reasons) and not reasons

    def off_the_system_disk(self, path, reasons=()):
        system = on_system_disk(self.devices, path)
        if system and not reasons and not self.declared["on_system_disk"]:
            self.refuse(
                "it is on the disk of the running system (%s); `on_system_disk: true` for this disk would allow it"
                % ", ".join(system)
            )
            return False
        return True

    def held(self, path):
        """What lies on a device. That of one which shows no sign of anything has been looked for."""
        found = contents(self.devices, path, self.host["read"])
        unseen = len(self.devices[path].get("partitions") or []) - len(self.devices[path]["children"])
        if unseen > 0:
            self.refuse(
                "%d partitions of %s are in its table but the kernel does not show them, so nobody knows what they "
                "hold: run partprobe, or reboot" % (unseen, path)
            )
        if not found:
            self.found_empty.append(path)
        return found

    def given_up_by_operator(self, found, keep="", wipe=True):
        """Whether the operator has named everything that is there; otherwise refuses, naming it."""
        kinds = sorted({signature["type"] for _path, signature in found})
        if not self.declared["format"] or not set(kinds) <= set(self.declared["erase"]):
            advice = "" if self.declared["format"] else "`format: true` and "
            advice += "`erase: [%s]`" % ", ".join(kinds)
            if moving_name(self.device, self.declared):
                advice = self.steady_name("`%s` and " + advice.replace("%", "%%"), "")
            self.refuse(
                "%s; %s%s"
                % (
                    "; ".join("%s holds %s" % (path, words(signature)) for path, signature in found),
                    keep,
                    advice + " for this disk would give it up"
                    if advice
                    else "to give it up, empty it by hand, since no name of this disk stays the same",
                )
            )
            return False
        self.given_up += found
        if wipe:
            # What lies on the device first, the device itself last.
            order = [self.device["path"], *walk(self.devices, self.device["path"], "children")]
            paths = self.wipe + [path for path, _signature in found]
            self.wipe = [path for path in reversed(order) if path in paths]
        return True

    # One filesystem

    def plan_filesystem(self, device, wanted):
        """The device as a filesystem at `wanted["mountpoint"]`: kept when it is the declared one, else made."""
        path = device["path"]
        found = self.held(path)
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
            keep = "`filesystem: %s`" % found["type"]
            if found["type"] not in MAKEABLE:
                keep = "leaving out `format`, `erase`, `filesystem` and `label`"
            return "%s is asked for; %s would keep it, " % (kind, keep)
        if wanted["label"] and wanted["label"] != found["label"]:
            keep = "leaving out `label`"
            if found["label"] and kind in MAKEABLE and not label_problem(found["label"], kind):
                keep = "`label: '%s'`" % found["label"]
            return "label %s is asked for; %s would keep it, " % (wanted["label"], keep)
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
        refused, mounted, line = look_at_mount(self.devices, self.host, device, mountpoint, filesystem)
        for text in refused:
            self.refuse(text)
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
                "in_fstab": bool(line) and {key: line[key] for key in entry} == entry,
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
        if device["kname"].startswith(("dm-", "/dev/dm-")):
            raise DeclarationError(
                "%s is a device of the device mapper, whose partitions have names that differ between systems: "
                "declare no `partitions`, or make them by hand and declare each as `device`" % device["path"]
            )
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
            self.start_anew(device)
            there = {}
        elif len(there) < len(wanted):
            self.may_add(device, len(there), len(wanted))
        if self.refusals:
            return []
        layout = lay_out(device, wanted, names, there)
        new = [(one["start"], one["size"]) for one in layout if not one["exists"]]
        if new and ours:
            # A partition that was here once may have left something. What a killed run has marked does not count.
            found = []
            for room in new:
                found += [
                    (device["path"], one) for one in data_on(self.devices, device["path"], [room], self.host["read"])
                ]
            if device.get("unreadable"):
                self.refuse("%s cannot be read (%s)" % (device["path"], device["unreadable"]))
            elif found:
                self.given_up_by_operator(found[:1], wipe=False)
        return layout

    def start_anew(self, device):
        """A partition table on a disk that has none of ours."""
        path = device["path"]
        found = self.held(path)
        if not self.free(path):
            return
        if found and not self.given_up_by_operator(found):
            return
        elif not self.declared["format"]:
            self.refuse("%s holds no partition table; `format: true` for this disk would make one" % path)
        self.create_table = True

    def may_add(self, device, there, wanted):
        if device["read_only"]:
            self.refuse("it is read-only")
        if not self.declared["format"]:
            self.refuse(
                "%s has %d of %d partitions; `format: true` for this disk would add the others"
                % (device["path"], there, wanted)
            )
        self.off_the_system_disk(device["path"])

    # The plan as data and as text

    @property
    def pending(self):
        to_mount = any(not (one["mounted"] and one["in_fstab"]) for one in self.mounts)
        return bool(self.create_table or self.partitions or self.filesystems or to_mount)

    def whole_devices(self):
        """The devices that are taken over as they are; the coming partitions lie on the last one."""
        return self.wipe + ([self.device["path"]] if self.create_table and self.device["path"] not in self.wipe else [])

    def rooms_to_clear(self):
        """The rooms that this run takes over, each cleared where superblocks lie before anything is made in it."""
        whole = [{"device": path, "start": 0, "size": self.devices[path]["size"]} for path in self.whole_devices()]
        parts = [{"device": self.device["path"], "start": one["start"], "size": one["size"]} for one in self.partitions]
        return whole + parts

    def as_dict(self):
        return {
            "device": self.device["path"] if self.device else "",
            "stable_name": stable_name(self.devices, self.device) if self.device else "",
            "pending": self.pending and not self.refusals,
            "refusals": self.refusals,
            "given_up": ["%s: %s" % (path, words(signature)) for path, signature in self.given_up],
            "wipe": self.wipe,
            "clear": self.rooms_to_clear(),
            "stale": [path for path in self.whole_devices() if self.devices[path]["children"]],
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
            "text": in_words(self),
        }


def plan_disks(devices, declared, host):
    """A plan for every declared disk; those that mean the same device or mount point are refused together.

    `host` is what else was found: `fstab` and `lines`, as _fstab reads them; `mounts`; of each of `mountpoints` what
    is `hidden` there, the `real` path, and the component that is `no_directory`; and `read(path, offset, length)`.
    """
    plans = [DiskPlan(devices, one, host) for one in declared]
    for number, plan in enumerate(plans):
        for other in plans[:number]:
            for text in clashes(devices, plan, other):
                plan.refuse(text)
                other.refuse(text)
    return [plan.as_dict() for plan in plans]


def clashes(devices, one, other):
    """Why two declared disks cannot both be meant."""
    found = []
    if one.device and other.device:
        mine, theirs = one.device["path"], other.device["path"]
        if mine == theirs:
            found.append("%s is declared twice in storage_disks" % mine)
        elif mine in walk(devices, theirs, "parents") or theirs in walk(devices, mine, "parents"):
            found.append("%s and %s, declared in storage_disks, are the same disk" % (mine, theirs))
    theirs = mountpoints_of(other)
    found += ["%s is declared twice in storage_disks" % path for path in mountpoints_of(one) if path in theirs]
    return found


def mountpoints_of(plan):
    return [one["mountpoint"] for one in plan.declared.get("partitions") or [plan.declared]]
