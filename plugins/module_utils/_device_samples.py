# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where to look on a device that shows no signature, so that data of an unknown kind is found in constant time.

Read are the first and the last 16 MiB and 1,024 places between them. The room between is divided into 1,024 equal parts
and one place in each is read, always the same one on a device of this size. So whatever covers two neighbouring parts
(0.2 % of the device) in one piece is always found, and data that lies scattered at least as often as `detection` says:
for one fraction of the whole, unequal parts only raise the chance.
"""

from __future__ import annotations

import random

from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB

EDGE = 16 * MIB
SAMPLES = 1024
SAMPLE = 4096
ZEROS = b"\0" * MIB
START = MIB  # where partition tables and most superblocks lie

# Copies of the superblock of btrfs. At the very end lie mdraid, ZFS, the second GPT, DRBD, firmware RAID.
FURTHER_SUPERBLOCKS = ((64 * MIB, SAMPLE), (256 * 1024 * MIB, SAMPLE))


def places(size):
    """[(offset, length)] to read of a room of `size` bytes, in ascending order and the same ones each time."""
    middle = size - 2 * EDGE
    if middle <= SAMPLES * SAMPLE:
        return _chunks(0, size)
    seed = random.Random(size)  # known in advance on purpose: two runs have to judge alike
    part = middle // SAMPLES
    spread = [
        (EDGE + number * part + seed.randrange(max(1, (part - SAMPLE) // SAMPLE + 1)) * SAMPLE, SAMPLE)
        for number in range(SAMPLES)
    ]
    return _chunks(0, EDGE) + spread + _chunks(size - EDGE, EDGE)


def _chunks(start, length):
    return [(start + done, min(MIB, length - done)) for done in range(0, length, MIB)]


def detection(fraction, samples=SAMPLES):
    """How likely a sample meets data which fills this fraction of the device, scattered at random."""
    return 1 - (1 - fraction) ** samples


def first_data(read, extents):
    """The offset of the first byte that is not zero at the places of these extents [(start, size)] together; or None.

    `read(offset, length)` reads the device. An error of its is the caller's: what cannot be read is not empty.
    """
    for offset, length in places(sum(size for _start, size in extents)):
        for start, size in extents:
            if offset >= size:
                offset -= size
                continue
            step = min(length, size - offset)
            content = read(start + offset, step)
            if len(content) < step:
                raise OSError(5, "it ends before its size says")
            if content != ZEROS[:step]:
                return start + offset + len(content) - len(content.lstrip(b"\0"))
            length -= step
            offset = 0
            if not length:
                break
    return None


def given_up(size):
    """The first MiB of a device or of a coming partition whose content the role may lose: a mark, then zeros.

    Every partition table and every filesystem overwrites the mark. Until then the next run knows by it, should this one
    be killed, that what still lies behind it was judged and given up. It counts only on a device of exactly this size.
    """
    mark = b"inferops.gpu_host storage: what these %d bytes held was given up\n" % size
    return mark.ljust(min(START, size), b"\0")


def is_given_up(read, start, size):
    content = given_up(size)
    return read(start, len(content)) == content


def to_clear(size):
    """[(offset, length)] of a room of `size` bytes where superblocks lie, but for its start, which `given_up` fills."""
    beyond = [(offset, length) for offset, length in FURTHER_SUPERBLOCKS if offset >= START and offset + length <= size]
    last = max(START, size - START)
    return [one for one in beyond if one[0] < last] + ([(last, size - last)] if size > last else [])
