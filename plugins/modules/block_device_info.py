#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: block_device_info
short_description: Says what block devices are and hold, and what declared disks need or why they are refused
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Describes block devices with everything that is on them and everybody who uses them.
  - Plans O(disks), in the form of C(storage_disks) of the role P(inferops.gpu_host.storage#role), device by device.
  - Never plans to write to a device that is mounted, swapped to, open in a process, held by the kernel (LVM, mdraid,
    device mapper, bcache, multipath, ZFS), read-only, unreadable, named by a file such as C(/etc/fstab), or part of the
    running system.
  - Plans to erase a device that holds anything only when O(disks[].erase) names everything that was found there.
  - Where a device, or what lies between the partitions of one, shows no signature, its first and last 16 MiB and 1,024
    places between are read. What is not zero there is V(data).
options:
  devices:
    description:
      - The devices to describe, by path, by a link such as C(/dev/disk/by-id/…), or by serial number; all by default.
    type: list
    elements: str
    default: []
  disks:
    description: The disks to plan.
    type: list
    elements: dict
    default: []
    suboptions:
      device:
        description: Its path, or better a link in C(/dev/disk/by-id), which stays when the kernel numbers disks anew.
        type: path
      serial:
        description: Its serial number, in place of O(disks[].device).
        type: str
      format:
        description: Whether a partition table and filesystems may be made on it. Otherwise it is only mounted.
        type: bool
        default: false
      erase:
        description:
          - What may be given up on it, as C(wipefs) names it, for example V(gpt), V(ext4), V(LVM2_member); and V(data).
          - Anything that is found and not listed is a refusal. What already is as declared is kept, listed or not.
          - Needs a name that stays, O(disks[].serial) or a link in C(/dev/disk/by-id) or C(/dev/disk/by-path).
        type: list
        elements: str
        default: []
      on_system_disk:
        description: Whether it may be a spare partition of the disk that the running system is on.
        type: bool
        default: false
      mountpoint:
        description: Where it is mounted, when the filesystem is on the device itself.
        type: path
      <<: &filesystem  # what a whole device and a partition have in common
        filesystem:
          description: The filesystem; V(xfs) when one is made.
          type: str
          choices: [xfs, ext4]
        label:
          description: The filesystem's label.
          type: str
        mkfs_options:
          description: Further options for mkfs.
          type: str
          default: ""
        mount_options:
          description: Options of the mount.
          type: list
          elements: str
          default: []
        nofail:
          description: Whether the host boots without it.
          type: bool
          default: true
        device_timeout:
          description: How long the boot waits for it.
          type: str
          default: 30s
        dump:
          description: The fifth field of the line in C(/etc/fstab).
          type: int
          default: 0
        passno:
          description: The sixth field of the line in C(/etc/fstab).
          type: int
          default: 0
        grow:
          description: Whether the filesystem is grown to its device.
          type: bool
          default: false
        owner:
          description: The owner of the mounted directory.
          type: str
        group:
          description: The group of the mounted directory.
          type: str
        mode:
          description: The mode of the mounted directory.
          type: raw
      partitions:
        description: The partitions to make; without any, the filesystem is on the device itself.
        type: list
        elements: dict
        suboptions:
          size:
            description: V(60%) of the disk, V(500GiB), V(2TB); the last partition takes the rest by default.
            type: str
          name:
            description: Its name in the table, by which it is known again; by default the label, or the mount point.
            type: str
          mountpoint:
            description: Where it is mounted.
            type: path
            required: true
          <<: *filesystem
  known_fstab_problems:
    description: What RV(fstab_problems) said before. It is left out, unless it concerns a mount point of O(disks).
    type: dict
    default: {}
extends_documentation_fragment:
  - inferops.gpu_host.attributes
  - inferops.gpu_host.attributes.info_module
  - inferops.gpu_host.requirements
"""

EXAMPLES = r"""
- name: What is on the second NVMe disk, and may it be formatted?
  inferops.gpu_host.block_device_info:
    devices: [/dev/nvme1n1]
  register: found

- name: What would be done with it
  inferops.gpu_host.block_device_info:
    disks:
      - device: /dev/disk/by-id/nvme-SAMSUNG_MZQL23T8HCLS_S64HNE0T500123
        format: true
        mountpoint: /data
  register: planned
"""

RETURN = r"""
devices:
  description: The devices asked for; where O(disks) are planned, only those that are asked for in O(devices).
  type: list
  elements: dict
  returned: always
  contains:
    path:
      description: Its path.
      type: str
    links:
      description: Its other names under C(/dev/disk).
      type: list
      elements: str
    type:
      description: What it is, as C(lsblk) names it.
      type: str
    size:
      description: Its size in bytes.
      type: int
    serial:
      description: Its serial number.
      type: str
    mountpoints:
      description: Where it is mounted.
      type: list
      elements: str
    signatures:
      description: What it holds, each with its type, label and uuid.
      type: list
      elements: dict
    filesystem:
      description: The one filesystem on it, or nothing.
      type: dict
    formattable:
      description: Whether it is empty and unused.
      type: bool
    reasons:
      description: Why it is not formattable.
      type: list
      elements: str
plan:
  description: For each of O(disks) what will be done with it, and its refusals.
  type: list
  elements: dict
  returned: always
space_refusals:
  description: Why O(requirements) do not fit.
  type: list
  elements: str
  returned: always
fstab_problems:
  description: The errors that C(findmnt --verify) finds in the whole of C(/etc/fstab), by mount point.
  type: dict
  returned: always
"""

import errno
import glob
import os
import stat

from ansible_collections.inferops.gpu_host.plugins.module_utils import _block_devices as block
from ansible_collections.inferops.gpu_host.plugins.module_utils import _disk_declaration as declaration
from ansible_collections.inferops.gpu_host.plugins.module_utils import _fstab as tables
from ansible_collections.inferops.gpu_host.plugins.module_utils._disk_plan import plan_disks
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule
from ansible_collections.inferops.gpu_host.plugins.module_utils._space import (
    REQUIREMENT_SPEC,
    filesystem_of,
    space_refusals,
)

LSBLK = ["--json", "--bytes", "--paths", "--output", "NAME,KNAME,TYPE,SIZE,RO,MAJ:MIN,SERIAL,MODEL,WWN"]
PARTX = ["--pairs", "--bytes", "--output", "NR,START,SECTORS,NAME,UUID"]
BOUND = 1024 * 1024  # of a file of the system

# Every file whose lines name devices that the host needs, beside fstab itself, with its parser.
DEVICE_FILES = (
    ("/etc/crypttab", tables.parse_crypttab),
    ("/etc/systemd/system/*.mount", tables.parse_unit),
    ("/etc/systemd/system/*.swap", tables.parse_unit),
    ("/usr/local/lib/systemd/system/*.mount", tables.parse_unit),
    ("/usr/local/lib/systemd/system/*.swap", tables.parse_unit),
    ("/etc/mdadm.conf", tables.parse_mdadm),
    ("/etc/mdadm/mdadm.conf", tables.parse_mdadm),
    ("/etc/lvm/devices/system.devices", tables.parse_lvm_devices),
    ("/etc/initramfs-tools/conf.d/resume", tables.parse_resume),
    ("/proc/cmdline", tables.parse_command_line),
)

FILESYSTEM_SPEC = {
    "mountpoint": {"type": "path"},
    "filesystem": {"type": "str", "choices": ["xfs", "ext4"]},
    "label": {"type": "str"},
    "mkfs_options": {"type": "str", "default": ""},
    "mount_options": {"type": "list", "elements": "str", "default": []},
    "nofail": {"type": "bool", "default": True},
    "device_timeout": {"type": "str", "default": "30s"},
    "dump": {"type": "int", "default": 0},
    "passno": {"type": "int", "default": 0, "no_log": False},
    "grow": {"type": "bool", "default": False},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "mode": {"type": "raw"},
}
PARTITION_SPEC = dict(
    FILESYSTEM_SPEC, size={"type": "str"}, name={"type": "str"}, mountpoint={"type": "path", "required": True}
)
DISK_SPEC = dict(
    FILESYSTEM_SPEC,
    device={"type": "path"},
    serial={"type": "str"},
    format={"type": "bool", "default": False},
    erase={"type": "list", "elements": "str", "default": [], "no_log": False},
    on_system_disk={"type": "bool", "default": False},
    partitions={"type": "list", "elements": "dict", "options": PARTITION_SPEC},
)


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


class Host:
    """Reads from the running system what the pure functions need to know."""

    def __init__(self, module):
        self.module, self.read, self.mounts = module, Reader(), []

    def output(self, tool, *arguments):
        return self.module.run_command([self.module.get_bin_path(tool, required=True), *arguments], check_rc=True)[1]

    def devices(self, names):
        devices = block.parse_lsblk(self.output("lsblk", *LSBLK))
        links = {}
        for link in sorted(glob.glob("/dev/disk/by-*/*")) + [name for name in names if name.isprintable()]:
            links.setdefault(os.path.realpath(link), []).append(link)
        open_by = self.open_devices()
        for device in devices.values():
            device["links"] = [link for link in links.get(device["kname"], []) if link != device["path"]]
            device["open_by"] = open_by.get(device["number"], [])
            self.probe(device)
        self.mounts = block.parse_mountinfo(read("/proc/self/mountinfo"))
        block.add_mounts(devices, self.mounts, block.parse_swaps(read("/proc/swaps")))
        block.add_partition_names(devices)
        return devices

    def probe(self, device):
        """What the device holds, and whether the kernel would let anybody have it."""
        path = device["path"]
        device.update(signatures=[], partitions=[], busy=False, unreadable="")
        if device["type"] == "rom" or device["size"] == 0:
            device["unreadable"] = "no medium"
            return
        try:
            self.read(path, 0, 512)
            os.close(os.open(path, os.O_RDONLY | os.O_EXCL))
        except OSError as problem:
            if problem.errno != errno.EBUSY:
                device["unreadable"] = problem.strerror
                return
            device["busy"] = True
        rc, out, err = self.module.run_command(
            [self.module.get_bin_path("wipefs", required=True), "--no-act", "--json", path]
        )
        if rc != 0:
            device["unreadable"] = err.strip()
            return
        device["signatures"] = block.parse_wipefs(out)
        if any(signature["type"] == "LVM2_member" for signature in device["signatures"]):
            device["volume_group"] = tables.volume_group(self.read(path, 0, min(block.MIB, device["size"])))
        if any(signature["type"] in block.TABLES for signature in device["signatures"]):
            out = self.module.run_command([self.module.get_bin_path("partx", required=True), *PARTX, path])[1]
            device["partitions"] = block.parse_partx(out)

    def verified(self):
        """What is wrong with fstab, in the words of findmnt."""
        _rc, out, err = self.module.run_command([self.module.get_bin_path("findmnt", required=True), "--verify"])
        return tables.parse_problems(out + err)

    @staticmethod
    def open_devices():
        """The processes that have block devices open, by device number."""
        found = {}
        for link in glob.glob("/proc/[0-9]*/fd/*"):
            try:
                target = os.readlink(link)
                status = os.stat(link) if target.startswith("/dev/") else None
            except OSError:
                continue
            if status and stat.S_ISBLK(status.st_mode):
                process = link.split("/")[2]
                number = "%d:%d" % (os.major(status.st_rdev), os.minor(status.st_rdev))
                text = "%s (process %s)" % (read("/proc/%s/comm" % process).strip(), process)
                if process != str(os.getpid()) and text not in found.setdefault(number, []):
                    found[number].append(text)
        return found


class Reader:
    """Reads devices as they are now, not as the page cache remembers them."""

    def __init__(self):
        self.open = {}

    def __call__(self, path, offset, length):
        if path not in self.open:
            self.open[path] = os.open(path, os.O_RDONLY)
        os.posix_fadvise(self.open[path], offset, length, os.POSIX_FADV_DONTNEED)
        content = b""
        while len(content) < length:
            more = os.pread(self.open[path], length - len(content), offset + len(content))
            if not more:
                break
            content += more
        return content


def read_table(module, path):
    """A file of the system, all of it: what cannot be read might name a device."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                module.fail_json(msg="%s is no regular file, so nobody knows which devices it names" % path)
            text = file.read(BOUND + 1)
    except FileNotFoundError:
        return ""
    except OSError as problem:
        module.fail_json(msg="%s cannot be read: %s" % (path, problem.strerror))
    if len(text) > BOUND:
        module.fail_json(msg="%s has more than %d characters" % (path, BOUND))
    return text


def device_lines(module):
    """(lines of fstab, lines of all other files that name devices), each with what a path in it leads to."""
    fstab = tables.parse_fstab(read_table(module, "/etc/fstab"))
    others = [
        line
        for pattern, parse in DEVICE_FILES
        for path in sorted(glob.glob(pattern))
        if os.path.realpath(path) != "/dev/null"  # a unit that is switched off
        for line in parse(read_table(module, path), path)
    ]
    for line in fstab + others:
        if line["spec"].startswith("/dev/") and "\0" not in line["spec"]:
            line["real"] = os.path.realpath(line["spec"])
    return fstab, others


def look_at_mountpoint(path):
    """Where it really is, what a mount would hide there, and which part of it is no directory."""
    found = {"real": os.path.realpath(path), "hidden": [], "no_directory": ""}
    if os.path.isdir(path):
        if not os.path.ismount(path):
            found["hidden"] = [
                declaration.shown(name)[1:-1] for name in sorted(os.listdir(path)) if name != "lost+found"
            ][:5]
        return found
    part = path
    while part != "/" and not os.path.lexists(part):
        part = os.path.dirname(part)
    if not os.path.isdir(part):
        found["no_directory"] = part
    return found


def main():
    module = RedactingModule(
        argument_spec={
            "devices": {"type": "list", "elements": "str", "default": []},
            "disks": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": DISK_SPEC,
                "required_one_of": [("device", "serial"), ("mountpoint", "partitions")],
                "mutually_exclusive": [("device", "serial"), ("mountpoint", "partitions")],
            },
            "requirements": {"type": "list", "elements": "dict", "default": [], "options": REQUIREMENT_SPEC},
            "known_fstab_problems": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C"}
    host, params = Host(module), module.params
    asked = params["devices"]
    try:
        devices = host.devices([disk["device"] for disk in params["disks"] if disk["device"]] + asked)
        described = [
            block.find_device(devices, {"device": name} if name.startswith("/") else {"serial": name}) for name in asked
        ]
    except (block.DeclarationError, block.OutputError) as problem:
        module.fail_json(msg=str(problem))
    fstab, lines = device_lines(module)
    mountpoints = [one["mountpoint"] for disk in params["disks"] for one in disk["partitions"] or [disk]]
    mountpoints = [
        declaration.normal_mountpoint(path) for path in mountpoints if not declaration.mountpoint_problem(path)
    ]
    found = {
        "fstab": fstab,
        "lines": lines,
        "mounts": host.mounts,
        "mountpoints": {path: look_at_mountpoint(path) for path in mountpoints},
        "read": host.read,
    }
    plan = plan_disks(devices, params["disks"], found)
    if not asked and not params["disks"]:
        described = devices.values()
    module.exit_json(
        changed=False,
        devices=[block.describe(devices, one["path"], host.read) for one in described],
        plan=plan,
        space_refusals=space_refusals(
            params["requirements"],
            {one["path"]: filesystem_of(one) for one in params["requirements"]},
            [mount for one in plan for mount in one["mounts"]],
        ),
        fstab_problems=tables.new_problems(host.verified(), params["known_fstab_problems"], mountpoints),
    )


if __name__ == "__main__":
    main()
