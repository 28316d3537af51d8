# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a starting container is about, read from what the Docker engine says of it."""

from __future__ import annotations

import re

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# (EngineCore pid=26) INFO 11-21 08:15:57 [loader.py:12] Loading weights took 0.1 seconds
_VLLM_LINE = re.compile(r"^(?:\([^)]*\) )*(?:INFO|WARNING) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] (?P<text>.+)$")


def demultiplexed(stream):
    """The text in a log as the engine's API frames it: 8 bytes of stream number and length before each piece."""
    pieces, position = [], 0
    while position + 8 <= len(stream):
        if stream[position] > 2 or stream[position + 1 : position + 4] != b"\0\0\0":
            return stream.decode("utf-8", "replace")  # a container with a terminal has no frames
        size = int.from_bytes(stream[position + 4 : position + 8], "big")
        pieces.append(stream[position + 8 : position + 8 + size])
        position += 8 + size
    return b"".join(pieces).decode("utf-8", "replace")


def lines_of(log):
    """The lines of a log, without colours, progress bars' redrawings and empty lines."""
    lines = (_COLOUR.sub("", line.rsplit("\r", 1)[-1]).rstrip() for line in log.split("\n"))
    return [line for line in lines if line]


def latest_news(log):
    """The engine's last message in words, or '' when there is none."""
    for line in reversed(lines_of(log)):
        match = _VLLM_LINE.match(line)
        if match:
            return match.group("text").strip()[:160]
    return ""


def is_alive(container, restarts=0):
    """Whether the container of an inspection runs and has not died since it had been restarted `restarts` times."""
    state = container.get("State") or {}
    return bool(state.get("Running")) and not state.get("Restarting") and container.get("RestartCount", 0) <= restarts
