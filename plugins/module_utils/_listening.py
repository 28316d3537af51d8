# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which TCP ports are listened on, as the kernel tells it in /proc/net/tcp and /proc/net/tcp6, and by whom."""

from __future__ import annotations

import glob
import os

from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import printable

_LISTEN = "0A"
_HEXADECIMAL = set("0123456789ABCDEFabcdef")


def listening_sockets(table):
    """{port: inode} of the listening sockets in the text of /proc/net/tcp or /proc/net/tcp6."""
    sockets = {}
    for line in table.splitlines()[1:]:
        fields = line.split()
        port = fields[1].rpartition(":")[2] if len(fields) > 9 and fields[3] == _LISTEN else ""
        if len(port) == 4 and not set(port) - _HEXADECIMAL:
            sockets[int(port, 16)] = fields[9]
    return sockets


def listeners():
    """{port: {process, pid}} of this host, None where they cannot be seen."""
    sockets = {}
    for table in ("/proc/net/tcp6", "/proc/net/tcp"):
        try:
            with open(table, encoding="ascii") as handle:
                sockets.update(listening_sockets(handle.read()))
        except OSError:
            continue  # no IPv6 here
    owners = processes_by_inode()
    nobody = (None, None)
    return {port: dict(zip(("process", "pid"), owners.get(inode, nobody))) for port, inode in sorted(sockets.items())}


def processes_by_inode():
    """{socket inode: (process name, pid)} of all processes that may be looked at."""
    owners = {}
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            target = os.readlink(link)
            if target.startswith("socket:["):
                pid = link.split("/")[2]
                if target[8:-1] not in owners:
                    # Every process chooses its own name, of any bytes.
                    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as handle:
                        owners[target[8:-1]] = (printable(handle.read().strip(), 40), int(pid))
        except OSError:
            continue  # the process ended, or it is another user's
    return owners
