# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which TCP ports are listened on, as the kernel tells it in /proc/net/tcp and /proc/net/tcp6."""

from __future__ import annotations

_LISTEN = "0A"


def listening_sockets(table):
    """{port: inode} of the listening sockets in the text of /proc/net/tcp or /proc/net/tcp6."""
    sockets = {}
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTEN:
            sockets[int(fields[1].rpartition(":")[2], 16)] = fields[9]
    return sockets
