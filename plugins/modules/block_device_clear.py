#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: block_device_clear
short_description: Clears where superblocks lie on a device or in a coming partition, and keeps a copy
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Copies the places that it clears to O(backup_dir), then clears those at the end, then those at the start.
  - Marks the start, so that M(inferops.gpu_host.block_device_info) knows in a later run that what lies behind was given
    up, should this one be killed before anything is made there. A partition table and a filesystem overwrite the mark.
  - Decides nothing. What may be cleared is what M(inferops.gpu_host.block_device_info) returns as C(clear).
  - Refuses a device that is in use, and a room that overlaps a partition.
options:
  device:
    description: The device.
    type: path
    required: true
  start:
    description: Where the room begins, in bytes; V(0) for the device itself, otherwise the start of a coming partition.
    type: int
    default: 0
  size:
    description: Its size in bytes.
    type: int
    required: true
  backup_dir:
    description: An existing directory for the copies. A file is named after its device, the time, and its offset.
    type: path
    required: true
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
extends_documentation_fragment:
  - inferops.gpu_host.attributes
"""

EXAMPLES = r"""
- name: Clear the start of a partition that is about to be made
  inferops.gpu_host.block_device_clear:
    device: /dev/nvme1n1
    start: 1048576
    size: 107374182400
    backup_dir: /var/backups/inferops-storage
"""

RETURN = r"""
copies:
  description: The files with what was there. What held only zeros is not kept.
  type: list
  elements: str
  returned: always
"""

import errno
import glob
import os
import time

from ansible_collections.inferops.gpu_host.plugins.module_utils._device_samples import given_up, is_given_up, to_clear
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule


def partitions_of(device):
    """[(name, start, size)] of the partitions that the kernel shows on a device."""
    found = []
    for directory in glob.glob("/sys/class/block/%s/*/partition" % os.path.basename(os.path.realpath(device))):
        directory = os.path.dirname(directory)
        numbers = []
        for name in ("start", "size"):
            with open(os.path.join(directory, name), encoding="ascii") as file:
                numbers.append(int(file.read()) * 512)
        found.append((os.path.basename(directory), numbers[0], numbers[1]))
    return found


def holders_of(device):
    """What the kernel has built on a device itself, such as multipath or an array."""
    return os.listdir("/sys/class/block/%s/holders" % os.path.basename(os.path.realpath(device)))


def open_device(module, device, start, size):
    """Opens it for writing as nobody else has it; beside partitions in use only where none of them is touched."""
    partitions = partitions_of(device)
    for name, begin, length in partitions if start else []:
        if begin < start + size and start < begin + length:
            module.fail_json(msg="%s lies where %s is to be cleared" % (name, device))
    try:
        return os.open(device, os.O_RDWR | os.O_EXCL)
    except OSError as problem:
        if problem.errno != errno.EBUSY or not start or not partitions or holders_of(device):
            module.fail_json(msg="%s is not cleared: %s" % (device, problem.strerror))
    return os.open(device, os.O_RDWR)


def keep(directory, device, offset, content):
    path = "%s/%s-%s-at-%d.bak" % (
        directory,
        os.path.basename(device),
        time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        offset,
    )
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(handle)
    return path


def main():
    module = RedactingModule(
        argument_spec={
            "device": {"type": "path", "required": True},
            "start": {"type": "int", "default": 0},
            "size": {"type": "int", "required": True},
            "backup_dir": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    device, start, size = module.params["device"], module.params["start"], module.params["size"]
    handle = open_device(module, device, start, size)
    try:
        end = os.lseek(handle, 0, os.SEEK_END)
        if start < 0 or size <= 0 or start + size > end:
            module.fail_json(msg="%s has %d bytes: there is no room of %d at %d" % (device, end, size, start))
        if is_given_up(lambda offset, length: os.pread(handle, length, offset), start, size):
            module.exit_json(changed=False, copies=[])
        mark = given_up(size)
        # The start comes last: until then the next run finds what was there, and afterwards the mark.
        work = [(start + offset, b"\0" * length) for offset, length in reversed(to_clear(size))] + [(start, mark)]
        copies = []
        if not module.check_mode:
            held = [(offset, os.pread(handle, len(new), offset)) for offset, new in work]
            copies = [keep(module.params["backup_dir"], device, *one) for one in held if one[1].strip(b"\0")]
            for offset, new in work:
                if os.pwrite(handle, new, offset) != len(new):
                    module.fail_json(msg="%s could not be written at %d" % (device, offset))
                os.fsync(handle)
    except OSError as problem:
        module.fail_json(msg="%s is not cleared: %s" % (device, problem.strerror))
    finally:
        os.close(handle)
    module.exit_json(changed=True, copies=copies)


if __name__ == "__main__":
    main()
