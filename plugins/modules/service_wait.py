#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_wait
short_description: Wait until a service in a container answers, as long as it lives
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Waits until O(url) answers with status 200, until the container dies, or until O(timeout) has passed.
  - Does not fail. RV(state) says how it stands, so that a play can tell the progress and wait again.
extends_documentation_fragment:
  - inferops.gpu_host.attributes
  - inferops.gpu_host.attributes.info_module
options:
  container:
    description: Name of the container.
    type: str
    required: true
  url:
    description: What must answer with status 200, for example V(http://127.0.0.1:8000/health).
    type: str
    required: true
  restarts:
    description: How often the container had been restarted before it was waited for.
    type: int
    default: 0
  timeout:
    description: Seconds to wait at most.
    type: int
    default: 20
  log_lines:
    description: How many of the log's last lines to return when the container is dead.
    type: int
    default: 40
"""

EXAMPLES = r"""
- name: Wait for the service
  inferops.gpu_host.service_wait:
    container: qwen2.5-7b-instruct
    url: http://127.0.0.1:8000/health
  register: service

- name: Tell how far it is
  ansible.builtin.debug:
    msg: "{{ service.seconds }} s: {{ service.news }}"
  when: service.state == 'starting'
"""

RETURN = r"""
state:
  description:
    - V(ready) when it answers, V(starting) while it lives, V(dead) when its process ended,
      V(missing) without a container.
  returned: always
  type: str
seconds:
  description: How long this container has been running.
  returned: always
  type: int
news:
  description: How far the start has come, for a person.
  returned: always
  type: str
restarted:
  description: Whether the container died and was started again in the meantime.
  returned: when state is V(dead)
  type: bool
exit_code:
  description: The exit code of a dead container; nothing when it was restarted already.
  returned: when state is V(dead)
  type: int
log:
  description: The log's last lines.
  returned: when state is V(dead)
  type: list
  elements: str
"""

import time

from ansible_collections.inferops.gpu_host.plugins.module_utils import _container_state, _engine_log
from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_host import DockerHost
from ansible_collections.inferops.gpu_host.plugins.module_utils._inference_check import ALIVE, Endpoint
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule

PAUSE = 1  # seconds between two looks
LOG_OF_A_START = 2000  # lines


def answers(url):
    # The host asks itself: no proxy may answer in its place, and its own certificate is good enough.
    root, slash, path = url.partition("://")[2].partition("/")
    scheme = url.partition("://")[0]
    return Endpoint(f"{scheme}://{root}", timeout=5, validate_certs=False).get(slash + path).status in ALIVE


def main():
    module = RedactingModule(
        argument_spec={
            "container": {"type": "str", "required": True},
            "url": {"type": "str", "required": True},
            "restarts": {"type": "int", "default": 0},
            "timeout": {"type": "int", "default": 20},
            "log_lines": {"type": "int", "default": 40},
        },
        supports_check_mode=True,
    )
    params = module.params
    docker = DockerHost(module)
    path = "/containers/%s/" % params["container"]
    deadline = time.monotonic() + params["timeout"]
    while True:
        container = docker.get(path + "json")
        if container is None:
            state = "missing"
        elif not _container_state.is_alive(container, params["restarts"]):
            state = "dead"
        else:
            state = "ready" if answers(params["url"]) else "starting"
        if state != "starting" or time.monotonic() >= deadline:
            break
        time.sleep(PAUSE)
    log = _container_state.demultiplexed(
        docker.get_bytes(path + "logs?stdout=1&stderr=1&tail=%d" % LOG_OF_A_START) or b""
    )
    exit_code = container["State"].get("ExitCode") if state == "dead" else None
    read = _engine_log.parse(log, exit_code)
    result = {
        "state": state,
        "seconds": _container_state.seconds_since(container["State"].get("StartedAt")) if container else 0,
        "news": read["progress"]["text"],
    }
    if state == "dead":
        restarted = container.get("RestartCount", 0) > params["restarts"]
        # The engine has started it again already, and what it says of the exit is of that new life.
        result.update(
            restarted=restarted,
            exit_code=None if restarted else exit_code,
            log=_container_state.lines_of(log)[-params["log_lines"] :],
        )
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
