# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container is about, read from what the Docker engine says of it."""

from __future__ import annotations

import calendar
import re
import time

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
LABEL = "io.github.inferops."
# What a container of ours can be called besides the name that it was made with; see _service_work.py.
PREVIOUS, CANDIDATE, FAILED = SUFFIXES = (".previous", ".candidate", ".failed")


def is_ours(name, labels):
    """Whether this collection made the container. labels: as `described` returns them.

    Labels alone prove nothing: an image that is committed from a container of ours hands them on to strangers. So the
    name that the container was made with is recorded in it, and ours is what still has that name, or one of its own.
    """
    made_as = labels.get("container")
    return bool(labels.get("service") and made_as) and name in (made_as, *(made_as + suffix for suffix in SUFFIXES))


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


def is_alive(container, restarts=0):
    """Whether the container of an inspection runs and has not died since it had been restarted `restarts` times."""
    state = container.get("State") or {}
    return bool(state.get("Running")) and not state.get("Restarting") and container.get("RestartCount", 0) <= restarts


def seconds_since(timestamp, now=None):
    """Seconds since a moment as the engine writes it, 2026-11-21T08:15:57.123456789Z."""
    try:
        then = calendar.timegm(time.strptime(timestamp[:19], "%Y-%m-%dT%H:%M:%S"))
    except (TypeError, ValueError):
        return 0
    return max(0, int((time.time() if now is None else now) - then))


def described(container, now=None):
    """The parts of an inspection that say what the container is and how it is."""
    state, config = container.get("State") or {}, container.get("Config") or {}
    labels = config.get("Labels") or {}
    host = container.get("HostConfig") or {}
    running = bool(state.get("Running")) and not state.get("Restarting")
    name = container.get("Name", "").lstrip("/")
    ours = {key[len(LABEL) :]: value for key, value in labels.items() if key.startswith(LABEL)}
    return {
        "name": name,
        "ours": is_ours(name, ours),
        "id": container.get("Id"),
        "image": config.get("Image"),
        "image_id": container.get("Image"),
        "labels": ours,
        "running": running,
        "status": state.get("Status"),
        "seconds": seconds_since(state.get("StartedAt"), now) if running else 0,
        "restarts": container.get("RestartCount", 0),
        "exit_code": None if running else state.get("ExitCode"),
        "gpus": [
            device.rpartition("=")[2]
            for request in host.get("DeviceRequests") or []
            for device in request.get("DeviceIDs") or []
        ],
    }
