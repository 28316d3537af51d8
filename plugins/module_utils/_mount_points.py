# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a filesystem can be mounted where it is declared: who is there, now and in fstab."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils._block_devices import stable_name, twins
from ansible_collections.inferops.gpu_host.plugins.module_utils._disk_declaration import normal_mountpoint
from ansible_collections.inferops.gpu_host.plugins.module_utils._fstab import naming, quoted


def look_at_mount(devices, host, device, mountpoint, filesystem):
    """(why not, whether it is mounted there already, its line of fstab)."""
    path, made = device["path"], bool(filesystem["uuid"])
    on_top = ([one for one in host["mounts"] if one["target"] == mountpoint] or [None])[-1]
    mounted = bool(on_top) and on_top["device"] == path
    others = [target for target in device["mountpoints"] if target != mountpoint]
    refused = []
    if others and not mounted:
        refused.append(
            "%s is mounted at %s, and %s is asked for: unmount it first" % (path, ", ".join(others), mountpoint)
        )
    if on_top and not mounted:
        refused.append(_taken(devices, path, on_top))
    if mounted and on_top["root"] != "/" and filesystem["type"] != "btrfs":
        refused.append("only %s of %s is mounted at %s: unmount that first" % (on_top["root"], path, mountpoint))
    refused += _directory(host["mountpoints"].get(mountpoint, {}), mountpoint, mounted)
    if made:
        refused += _one_of_two(devices, path, filesystem)
    lines, problems = _lines_of(devices, host["fstab"], path if made else "", mountpoint)
    return refused + problems, mounted, lines[0] if lines else None


def _taken(devices, path, mount):
    name = mount["device"] and stable_name(devices, devices[mount["device"]])
    if name:
        advice = ". If the kernel has renamed the disk, declare it as `%s`" % name
    else:
        advice = ": change `mountpoint`, or unmount that first"
    what = mount["device"] or "%s (%s)" % (mount["source"], mount["filesystem"])
    return "%s is the mount point of %s, not of %s%s" % (mount["target"], what, path, advice)


def _directory(found, mountpoint, mounted):
    """A mount point has to be an empty directory of its own, or not there yet."""
    refused = []
    if found.get("real", mountpoint) != mountpoint:
        refused.append(
            "`mountpoint: %s` goes through a symbolic link: it is %s, so write that" % (mountpoint, found["real"])
        )
    if found.get("no_directory"):
        refused.append("`mountpoint: %s` cannot be: %s is no directory" % (mountpoint, found["no_directory"]))
    if not mounted and found.get("hidden"):
        refused.append(
            "the directory %s is not empty (%s), and the mount would hide that: move it away or change `mountpoint`"
            % (mountpoint, ", ".join(found["hidden"]))
        )
    return refused


def _one_of_two(devices, path, filesystem):
    others = twins(devices, path, filesystem["uuid"]) if filesystem["type"] != "btrfs" else []  # which has many disks
    if not others:
        return []
    return [
        "%s has the same UUID as %s (%s), and a mount by UUID may take either, whatever `device` says: give one "
        "of them a new UUID (xfs_admin -U generate, tune2fs -U random) or unplug the copy"
        % (path, ", ".join(others), filesystem["uuid"])
    ]


def _lines_of(devices, fstab, path, mountpoint):
    """(the lines of fstab for this mount point, why they or those that name the device may not be written anew)."""
    lines = [one for one in fstab if normal_mountpoint(one["target"]) == mountpoint]
    mine = naming(devices[path], fstab) if path else []
    problems = []
    if len(lines) > 1:
        problems.append("%s has two lines for %s: %s" % (lines[0]["file"], mountpoint, "; ".join(map(quoted, lines))))
    for line in lines:
        owner = [one for one, it in devices.items() if naming(it, [line])]
        if line not in mine:
            what = owner[0] if owner else "a device that is not here"
            problems.append("%s mounts %s at %s: take that line out first" % (quoted(line), what, mountpoint))
        elif line["target"] != mountpoint:
            problems.append("%s: write the mount point as %s there, or take the line out" % (quoted(line), mountpoint))
    for line in mine:
        if normal_mountpoint(line["target"]) != mountpoint:
            problems.append(
                "%s names %s, and %s is asked for: take that line out first" % (quoted(line), path, mountpoint)
            )
    return lines, problems
