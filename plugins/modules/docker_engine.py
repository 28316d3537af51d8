#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_engine
short_description: Starts, restarts or stops the Docker engine and waits until it answers or is gone
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Starts or restarts dockerd through systemd where systemd runs, and directly where it does not.
  - Returns when the engine's API answers.
  - When the engine does not come up the module fails with the reason that the engine's log gives.
  - A restart counts as a fresh start for systemd's start limit, so that a repaired configuration gets its chance.
  - It does not look at the containers that a restart stops; the role C(docker) does that first.
options:
  state:
    description:
      - V(started) starts the engine when it does not answer.
      - V(restarted) stops and starts it in any case.
        Where there is no systemd it starts again with the command line it ran with.
      - V(stopped) stops it, and with systemd the socket that would start it again.
    type: str
    choices: [started, restarted, stopped]
    default: started
  user:
    description: The user whose rootless engine is meant, in place of the engine of the system.
    type: str
  timeout:
    description: How many seconds the engine has to stop, and to answer after its start.
    type: int
    default: 60
  log_file:
    description: Where an engine that is started without systemd writes its log.
    type: path
    default: /var/log/dockerd.log
extends_documentation_fragment:
  - inferops.gpu_host.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: There is nothing to show beyond whether it acts.
notes:
  - Without systemd nothing starts the engine after a reboot; run the play again, or use the init system that is there.
"""

EXAMPLES = r"""
- name: The engine answers
  inferops.gpu_host.docker_engine:

- name: Read the changed configuration
  inferops.gpu_host.docker_engine:
    state: restarted
"""

RETURN = r"""
version:
  description: The version of the engine that answered; empty when none runs.
  type: str
  returned: success
  sample: "28.5.1"
manager:
  description: Who runs the engine.
  type: str
  returned: always
  sample: systemd
reason:
  description: The line of the log that says why the engine did not start.
  type: str
  returned: when the engine did not start
log_lines:
  description: The end of the engine's log, without what is only information.
  type: list
  elements: str
  returned: when the engine did not start
"""

import os
import signal
import subprocess
import time

from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_engine import failure_reason
from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_host import DockerHost
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule

POLL_INTERVAL = 0.2
LOG_TAIL = 20


class Engine:
    """One way to run dockerd: act(state) asks for it, gave_up() says that waiting is in vain, log() what it wrote."""

    def __init__(self, module, host):
        self.module = module
        self.host = host
        self.timeout = module.params["timeout"]

    def wait_until(self, condition):
        deadline = time.monotonic() + self.timeout
        while not condition():
            if time.monotonic() > deadline or self.gave_up():
                return False
            time.sleep(POLL_INTERVAL)
        return True

    def answers(self):
        return self.host.get("/version", timeout=3) is not None


class SystemdEngine(Engine):
    name = "systemd"

    def __init__(self, module, host):
        super().__init__(module, host)
        self.since = int(time.time())

    def act(self, state):
        # Forgets earlier failures: after three quick ones systemd would refuse the start that repairs them.
        self.host.run([*self.host.systemctl, "reset-failed", "docker.service"])
        if state == "stopped":
            self.host.run([*self.host.systemctl, "stop", "docker.socket"])  # not every system has one
            return self.host.run([*self.host.systemctl, "stop", "docker.service"])[0] == 0
        verb = "restart" if state == "restarted" else "start"
        return self.host.run([*self.host.systemctl, verb, "docker.service"])[0] == 0

    def gave_up(self):
        return self.host.run([*self.host.systemctl, "is-failed", "--quiet", "docker.service"])[0] == 0

    def log(self):
        unit = "_SYSTEMD_USER_UNIT=docker.service" if self.host.user else "_SYSTEMD_UNIT=docker.service"
        argv = ["journalctl", unit, "--since", "@%d" % self.since, "--no-pager", "--output", "cat", "--lines", "200"]
        return self.host.run(argv)[1]


class DirectEngine(Engine):
    name = "direct"

    def __init__(self, module, host):
        super().__init__(module, host)
        self.log_file = module.params["log_file"]
        self.log_start = os.path.getsize(self.log_file) if os.path.exists(self.log_file) else 0
        self.process = None
        self.start_of = host.command_line()

    def act(self, state):
        if state != "started" and not self.stop():
            return False
        if state == "stopped":
            return True
        argv = list(self.start_of["argv"])
        argv[0] = self.module.get_bin_path(argv[0]) or self.module.get_bin_path("dockerd", required=True)
        with open(os.devnull, "rb") as nothing, open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(  # outlives this module on purpose
                argv,
                stdin=nothing,
                stdout=log,
                stderr=log,
                cwd="/",
                env=dict(os.environ, **self.start_of["environment"]),
                start_new_session=True,
            )
        return True

    def stop(self):
        pid = self.host.pid()
        if not pid:
            return True
        os.kill(pid, signal.SIGTERM)
        return self.wait_until(lambda: not self.host.process_start(pid))

    def gave_up(self):
        return self.process is not None and self.process.poll() is not None

    def log(self):
        try:
            with open(self.log_file, encoding="utf-8", errors="replace") as stream:
                stream.seek(self.log_start)
                return stream.read()
        except OSError:
            return ""


def main():
    module = RedactingModule(
        argument_spec={
            "state": {"type": "str", "choices": ["started", "restarted", "stopped"], "default": "started"},
            "user": {"type": "str"},
            "timeout": {"type": "int", "default": 60},
            "log_file": {"type": "path", "default": "/var/log/dockerd.log"},
        },
        supports_check_mode=True,
    )
    state = module.params["state"]
    host = DockerHost(module, module.params["user"])
    engine = (SystemdEngine if host.has_systemd else DirectEngine)(module, host)
    if module.params["user"] and not host.has_systemd:
        module.fail_json(msg="a rootless engine is run by the user's systemd, and this host has no systemd")

    if state == "stopped":
        changed = engine.answers()
        if changed and not module.check_mode and not (engine.act(state) and engine.wait_until(lambda: not host.pid())):
            module.fail_json(msg="the Docker engine still runs %d s after it was told to stop" % engine.timeout)
        module.exit_json(changed=changed, manager=engine.name, version="")

    result = {"changed": state == "restarted" or not engine.answers(), "manager": engine.name}
    if result["changed"] and not module.check_mode and not (engine.act(state) and engine.wait_until(engine.answers)):
        log = engine.log()
        reason = failure_reason(log)
        module.fail_json(
            msg="the Docker engine was %s and does not answer on %s: %s."
            % (state, host.socket, reason or "its log is empty after %d s" % engine.timeout),
            reason=reason,
            log_lines=[line for line in log.splitlines() if "level=info" not in line][-LOG_TAIL:],
            **result,
        )
    module.exit_json(version=(host.get("/version") or {}).get("Version", ""), **result)


if __name__ == "__main__":
    main()
