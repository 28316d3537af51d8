# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what has to be stored fits, and whether it lies where it should: not on the root filesystem."""

from __future__ import annotations

import os

from ansible_collections.inferops.gpu_host.plugins.module_utils._units import format_bytes

REQUIREMENT_SPEC = {
    "path": {"type": "path", "required": True},
    "bytes": {"type": "int", "required": True},
    "purpose": {"type": "str", "default": "data"},
    "allow_root_filesystem": {"type": "bool", "default": False},
    "allowed_by": {"type": "str", "default": "allow_root_filesystem: true for it in storage_requirements"},
    "counted": {"type": "list", "elements": "path", "default": []},
}
# What a model's files take is known to a percent: that little does not make one that is there incomplete.
TOLERANCE = 0.01


def bytes_below(path):
    """What lies below a directory; nothing when there is none."""
    found = 0
    for directory, _names, files in os.walk(path):
        for name in files:
            try:
                found += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except FileNotFoundError:
                continue  # a download has just moved it
    return found


def filesystem_of(requirement):
    """The filesystem that a requirement's path is or will be on, and what of it is there already."""
    there = requirement["path"]
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    status, mountpoint = os.statvfs(there), os.path.realpath(there)
    while not os.path.ismount(mountpoint):
        mountpoint = os.path.dirname(mountpoint)
    return {
        "mountpoint": mountpoint,
        "size": status.f_blocks * status.f_frsize,
        "available": status.f_bavail * status.f_frsize,
        "present": sum(bytes_below(path) for path in [requirement["path"], *requirement["counted"]]),
    }


def _missing(requirement, present):
    missing = max(0, requirement["bytes"] - present)
    return missing if missing > requirement["bytes"] * TOLERANCE else 0


def _below(path, directory):
    return (path + "/").startswith(directory.rstrip("/") + "/")


def space_refusals(requirements, filesystems, planned=()):
    """Why the required bytes do not fit, with the figures.

    `filesystems` has for each path the filesystem it is on now, as filesystem_of() says; `planned` has the mounts that
    a run is about to make, which in check mode are not there yet.
    """
    refusals, groups = [], {}
    for one in requirements:
        now = filesystems[one["path"]]
        coming = [mount for mount in planned if not mount["mounted"] and _below(one["path"], mount["mountpoint"])]
        if coming:
            last = max(coming, key=lambda mount: len(mount["mountpoint"]))
            now = {"mountpoint": last["mountpoint"], "size": last["size"], "available": last["size"], "present": 0}
        groups.setdefault(now["mountpoint"], (now, []))[1].append((one, now["present"]))
        if now["mountpoint"] == "/" and not one["allow_root_filesystem"] and _missing(one, now["present"]):
            refusals.append(
                "%s (%s, %s) would lie on the root filesystem (%s, %s free): mount a disk there with storage_disks,"
                " or allow it (%s)"
                % (
                    one["path"],
                    one["purpose"],
                    format_bytes(one["bytes"]),
                    format_bytes(now["size"]),
                    format_bytes(now["available"]),
                    one["allowed_by"],
                )
            )
    for mountpoint, (now, wanted) in sorted(groups.items()):
        missing = sum(_missing(one, present) for one, present in wanted)
        if missing > now["available"]:
            refusals.append(
                "%s has %s free of %s, and %s more are needed: %s"
                % (
                    mountpoint,
                    format_bytes(now["available"]),
                    format_bytes(now["size"]),
                    format_bytes(missing),
                    ", ".join(
                        "%s %s (%s there)" % (one["purpose"], format_bytes(one["bytes"]), format_bytes(present))
                        for one, present in wanted
                    ),
                )
            )
    return refusals
