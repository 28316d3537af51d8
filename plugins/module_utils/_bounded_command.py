# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that may hang, or print without end: a driver with a lost GPU, the log of somebody's container."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from typing import NamedTuple, Optional

from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB

MOST_OUTPUT = 16 * MIB
_FAREWELL = 2  # seconds that a killed process gets to go; one that waits inside the kernel never does


class Answer(NamedTuple):
    """What a command said. `fault` is None, "missing", "too slow" or "too long"; `rc` is None unless it ended."""

    rc: Optional[int]
    out: str
    err: str
    fault: Optional[str] = None


def run(argv, seconds=60, limit=MOST_OUTPUT, environment=None):
    """The Answer of a command that gets at most so many seconds and prints at most so many bytes to either stream.

    It runs in the C locale and in a process group of its own, which is killed when a bound is passed. A process that
    cannot be killed (it waits inside the kernel) is left behind and not waited for.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C", "LANGUAGE": "C", **(environment or {})},
            start_new_session=True,
        )
    except OSError as error:
        return Answer(None, "", str(error), "missing")
    texts = {process.stdout: bytearray(), process.stderr: bytearray()}
    fault = _read(texts, time.monotonic() + seconds, limit)
    if fault is None:
        fault = _wait(process, seconds)
    if fault:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        _wait(process, _FAREWELL)
    for pipe in texts:
        pipe.close()
    out, err = (bytes(text).decode("utf-8", "replace") for text in texts.values())
    return Answer(None if fault else process.returncode, out, err, fault)


def _read(texts, deadline, limit):
    with selectors.DefaultSelector() as selector:
        for pipe in texts:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return "too slow"
            for key, _events in selector.select(left):
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                text = texts[key.fileobj]
                text += data[: limit - len(text)]
                if len(text) >= limit and data:
                    return "too long"
    return None


def _wait(process, seconds):
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return "too slow"
    return None
