#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: peer_check
short_description: Prove by real connections that hosts reach each other's ports
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - With O(state=listening), listens on ports that nobody listens on yet. Run it on all hosts first.
  - With O(state=connected), opens connections, all at once, and says which failed and how. Run it on all hosts then.
  - With O(state=closed), ends the listening of this host.
  - Sends no data. A listener ends by itself after O(lifetime), whatever becomes of the play.
attributes:
  check_mode:
    description: Nothing stays behind, so it runs in check mode as well.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  state:
    description: What to do.
    type: str
    choices: [listening, connected, closed]
    required: true
  address:
    description: The address of this host, to listen on and to connect from.
    type: str
  ports:
    description: Ports to listen on. V(0) is one that the kernel chooses.
    type: list
    elements: int
    default: []
  lifetime:
    description: Seconds after which a listener ends by itself.
    type: int
    default: 120
  targets:
    description: What to connect to, each with C(address), C(port) and whatever else shall be returned with the result.
    type: list
    elements: dict
    default: []
  timeout:
    description: Seconds that a connection may take.
    type: int
    default: 3
  listener:
    description: What RV(listener) was, for O(state=closed).
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Listen
  inferops.gpu_host.peer_check:
    state: listening
    address: 192.0.2.11
    ports: [29501, 0]
  register: listening

- name: Connect
  inferops.gpu_host.peer_check:
    state: connected
    address: 192.0.2.11
    targets:
      - {host: gpu2, address: 192.0.2.12, port: 29501}
  register: connected

- name: Close
  inferops.gpu_host.peer_check:
    state: closed
    listener: "{{ listening.listener }}"
"""

RETURN = r"""
listener:
  description: Names the listening process, for O(state=closed).
  returned: when O(state=listening)
  type: str
listening:
  description: The ports that are listened on now, in the order of O(ports); one that the kernel chose by its number.
  returned: when O(state=listening)
  type: list
  elements: int
taken:
  description: Ports of O(ports) that another program has.
  returned: when O(state=listening)
  type: list
  elements: int
failed_targets:
  description: Those of O(targets) that were not reached. C(reason) is V(timeout), V(refused), V(unreachable) or other.
  returned: when O(state=connected)
  type: list
  elements: dict
"""

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_host import DockerHost
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule

_REASONS = {
    errno.ECONNREFUSED: "refused",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTDOWN: "unreachable",
    errno.ETIMEDOUT: "timeout",
}


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listen(address, ports):
    """(sockets, taken): what could be listened on, and the ports that another program has."""
    sockets, taken = [], []
    for port in ports:
        listener = socket.socket(family_of(address), socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
            listener.listen(64)
            sockets.append(listener)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise
            taken.append(port)
    return sockets, taken


def serve(sockets, lifetime):
    """Accept until the time is over; the other side closes, so that no port is left in TIME_WAIT here."""
    ends, open_sockets = time.monotonic() + lifetime, list(sockets)
    while time.monotonic() < ends:
        for ready in select.select(open_sockets, [], [], 1)[0]:
            with contextlib.suppress(OSError):
                if ready in sockets:
                    open_sockets.append(ready.accept()[0])
                elif not ready.recv(64):
                    open_sockets.remove(ready)
                    ready.close()
                continue
            if ready not in sockets:
                open_sockets.remove(ready)  # reset by the other side
                ready.close()


def detached(sockets, lifetime):
    """The id of a process of its own that serves."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        kept = {listener.fileno() for listener in sockets}
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) not in kept:
                with contextlib.suppress(OSError):
                    os.close(int(name))
        serve(sockets, lifetime)
    finally:
        os._exit(0)


def reached(address, target, timeout):
    """None, or why the target was not reached."""
    with socket.socket(family_of(target["address"]), socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            if address:
                connection.bind((address, 0))
            connection.connect((target["address"], int(target["port"])))
            # Closed by a reset: no side keeps the port for a minute.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except socket.timeout:
            return "timeout"
        except OSError as error:
            return _REASONS.get(error.errno) or error.strerror or str(error)
    return None


def close(listener):
    """End the process named PID/START; it may have ended, and its number may be another's by now."""
    pid, _slash, start = listener.partition("/")
    if not pid.isdigit() or not start or DockerHost.process_start(int(pid)) != start:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(pid), signal.SIGKILL)
    deadline = time.monotonic() + 5
    while DockerHost.process_start(int(pid)) == start and time.monotonic() < deadline:
        time.sleep(0.02)


def main():
    module = RedactingModule(
        argument_spec={
            "state": {"type": "str", "choices": ["listening", "connected", "closed"], "required": True},
            "address": {"type": "str"},
            "ports": {"type": "list", "elements": "int", "default": []},
            "lifetime": {"type": "int", "default": 120},
            "targets": {"type": "list", "elements": "dict", "default": []},
            "timeout": {"type": "int", "default": 3},
            "listener": {"type": "str", "default": ""},
        },
        required_if=[("state", "listening", ["address"])],
        supports_check_mode=True,
    )
    params = module.params
    if params["state"] == "listening":
        try:
            sockets, taken = listen(params["address"], params["ports"])
        except OSError as error:
            module.fail_json(msg="cannot listen on %s: %s" % (params["address"], error))
        listening = [listener.getsockname()[1] for listener in sockets]
        pid = detached(sockets, params["lifetime"]) if sockets else 0
        module.exit_json(
            changed=False,
            listener="%d/%s" % (pid, DockerHost.process_start(pid)) if pid else "",
            listening=listening,
            taken=taken,
        )
    if params["state"] == "closed":
        close(params["listener"])
        module.exit_json(changed=False)
    with ThreadPoolExecutor(max_workers=32) as pool:
        reasons = list(pool.map(lambda t: reached(params["address"], t, params["timeout"]), params["targets"]))
    module.exit_json(
        changed=False,
        failed_targets=[dict(target, reason=why) for target, why in zip(params["targets"], reasons) if why],
    )


if __name__ == "__main__":
    main()
