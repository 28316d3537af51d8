# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a disk in words."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils._block_devices import title, words
from ansible_collections.inferops.gpu_host.plugins.module_utils._device_samples import EDGE, SAMPLES
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import format_bytes


def steps(plan):
    steps = ["give up %s on %s (%s)" % (signature["type"], path, words(signature)) for path, signature in plan.given_up]
    if plan.filesystems or plan.create_table:
        for path in plan.found_empty:
            steps.append(
                "nothing was found on %s: its first and last %s and %d places between were read"
                % (path, format_bytes(EDGE), SAMPLES)
            )
    if plan.create_table:
        steps.append("make a gpt partition table on %s" % plan.device["path"])
    for one in plan.partitions:
        steps.append(
            "add partition %d, %s, of %s: %s" % (one["number"], one["name"], format_bytes(one["size"]), one["path"])
        )
    for one in plan.filesystems:
        labelled = " labelled %s" % one["label"] if one["label"] else ""
        steps.append("make an %s filesystem%s on %s" % (one["filesystem"], labelled, one["path"]))
    for one in plan.mounts:
        if not one["mounted"]:
            kept = "" if not one["uuid"] else ", keeping what it holds"
            steps.append("mount %s at %s%s" % (one["path"], one["mountpoint"], kept))
        if not one["in_fstab"]:
            steps.append("mount it at boot by UUID at %s, with %s" % (one["mountpoint"], one["options"]))
    return steps


def in_words(plan):
    """The plan as its operator reads it."""
    if plan.device is None:
        name = plan.declared.get("device") or "serial %s" % plan.declared.get("serial")
    else:
        name = title(plan.device)
    if plan.refusals:
        return ["%s: REFUSED" % name] + ["  - %s" % text for text in plan.refusals]
    if not plan.pending:
        return ["%s: nothing to do, mounted at %s" % (name, ", ".join(one["mountpoint"] for one in plan.mounts))]
    return ["%s:" % name] + ["  - %s" % text for text in steps(plan)]
