# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the partitions of a disk are or will be."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils._block_devices import title
from ansible_collections.inferops.gpu_host.plugins.module_utils._disk_declaration import (
    DeclarationError,
    parse_size,
    partition_path,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB, format_bytes


def lay_out(device, wanted, names, there):
    """Aligned to whole MiB, the first and the last MiB left to the partition table."""
    end_of_disk = (device["size"] // MIB - 1) * MIB
    usable, cursor, layout = end_of_disk - MIB, MIB, []
    for number, (one, name) in enumerate(zip(wanted, names), start=1):
        path = partition_path(device["path"], number)
        if number in there:
            start, size = there[number]["start"], there[number]["size"]
            layout.append({"path": path, "number": number, "name": name, "start": start, "size": size, "exists": True})
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
            layout.append({"path": path, "number": number, "name": name, "start": start, "size": size, "exists": False})
        cursor = start + size
    return layout
