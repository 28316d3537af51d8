#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_engine_info
short_description: Says which Docker engine a host has, how it is set up and which containers a restart would hurt
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Reads the engine's own API over its socket; needs neither the docker command nor a Python library on the host.
  - Lists the running containers that use GPUs, by device requests (legacy and CDI), device nodes or the nvidia runtime.
options:
  user:
    description: The user whose rootless engine is meant, in place of the engine of the system.
    type: str
  guard_labels:
    description: Running containers that carry one of these labels are listed in RV(guarded_containers) too.
    type: list
    elements: str
    default: []
  record:
    description: The file in which the role C(docker) keeps what it installed and stopped, to be returned as RV(record).
    type: path
extends_documentation_fragment:
  - inferops.gpu_host.attributes
  - inferops.gpu_host.attributes.info_module
"""

EXAMPLES = r"""
- name: Look at the engine
  inferops.gpu_host.docker_engine_info:
  register: engine

- name: Nothing that matters would be stopped
  ansible.builtin.assert:
    that: engine.guarded_containers | length == 0
"""

RETURN = r"""
installed:
  description: Whether a dockerd is installed, running or not.
  type: bool
  returned: always
running:
  description: Whether the engine answers.
  type: bool
  returned: always
version:
  description: The version of the running engine, or else of the installed one; empty when there is none.
  type: str
  returned: always
  sample: "28.5.1"
manager:
  description: Who runs the engine, V(systemd) or V(direct).
  type: str
  returned: always
enabled:
  description: Whether the engine starts with the system; always false without systemd.
  type: bool
  returned: always
has_requests:
  description: Whether the Python that runs modules here has C(requests), which Ansible's Docker modules need.
  type: bool
  returned: always
environment_proxies:
  description: The variables of C(/etc/default/docker) that set a proxy, by name.
  type: list
  elements: str
  returned: always
  sample: [HTTPS_PROXY]
info:
  description: What the engine says of itself (C(docker info)), as its API returns it; empty when it does not run.
  type: dict
  returned: always
runtimes:
  description: The names of the registered runtimes.
  type: list
  elements: str
  returned: always
live_restore:
  description: Whether the running engine leaves containers running while it restarts.
  type: bool
  returned: always
socket:
  description: The path of the engine's socket.
  type: str
  returned: always
  sample: /run/docker.sock
record:
  description: What O(record) holds; empty when there is no such file.
  type: dict
  returned: always
holdings:
  description: How many containers, images and volumes lie below its data root, running or not; of each at most 1000.
  type: dict
  returned: always
  sample: {containers: 1, images: 3, volumes: 0}
swarm:
  description: Whether the engine belongs to a swarm, running or not.
  type: bool
  returned: always
impostor:
  description:
    - What is installed or answers in place of an engine of this host's own (a snap, Docker Desktop, podman, an engine
      of a user), and the way out; empty when it is a real one or none.
  type: str
  returned: always
guarded_containers:
  description: Those of RV(running_containers) that use GPUs or carry one of O(guard_labels).
  type: list
  elements: dict
  returned: always
running_containers:
  description: All running containers.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: The container's name.
      type: str
    id:
      description: The container's short ID.
      type: str
    image:
      description: The image it was created from.
      type: str
    reason:
      description: Why it is guarded; empty when it is not.
      type: str
    started_at:
      description: When it was started, in the engine's words.
      type: str
    auto_remove:
      description: Whether it is gone once it stops (C(docker run --rm)).
      type: bool
"""

import importlib.util
import json
import re

from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_engine import (
    data_root,
    impostor,
    running_containers,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_host import (
    DockerHost,
    UnreadableFileError,
    read_text,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule


def installed_version(module):
    dockerd = module.get_bin_path("dockerd")
    if not dockerd:
        return ""
    found = re.search(r"version (\S+?),", module.run_command([dockerd, "--version"])[1])
    return found.group(1) if found else "0"


def recorded(module):
    """What the record holds; empty without one."""
    path = module.params["record"]
    if not path:
        return {}
    try:
        record = json.loads(read_text(path))
    except FileNotFoundError:
        return {}
    except (OSError, UnreadableFileError, ValueError, RecursionError) as error:
        module.fail_json(msg="the record %s cannot be read: %s" % (path, error))
    if not isinstance(record, dict):
        module.fail_json(msg="the record %s holds no object; move it away" % path)
    return record


def main():
    module = RedactingModule(
        argument_spec={
            "user": {"type": "str"},
            "guard_labels": {"type": "list", "elements": "str", "default": []},
            "record": {"type": "path"},
        },
        supports_check_mode=True,
    )
    host = DockerHost(module, module.params["user"])
    on_disk = installed_version(module)
    info, version, traces = host.get("/info") or {}, host.get("/version") or {}, host.traces()
    said = "" if module.params["user"] else impostor(info, version, traces)
    if said.startswith("podman"):  # it has containers of its own, and is no engine that could be kept
        info = {}
    containers = []
    for entry in (host.get("/containers/json") or []) if info else []:
        container = host.get("/containers/%s/json" % entry["Id"])
        if container:  # it may have ended between the two questions
            containers.append(container)
    running = running_containers(containers, module.params["guard_labels"])
    root = info.get("DockerRootDir") or data_root({}, host.command_line()["argv"], host.default_data_root)
    module.exit_json(
        changed=False,
        record=recorded(module),
        holdings=host.holdings(root),
        swarm=host.is_swarm_member(info, root),
        impostor=said,
        installed=bool(on_disk or info),
        running=bool(info),
        version=info.get("ServerVersion") or on_disk,
        manager="systemd" if host.has_systemd else "direct",
        enabled=host.has_systemd and host.run([*host.systemctl, "is-enabled", "--quiet", "docker.service"])[0] == 0,
        has_requests=importlib.util.find_spec("requests") is not None,
        environment_proxies=sorted(name for name in host.environment_file() if name.lower().endswith("_proxy")),
        info=info,
        runtimes=sorted(info.get("Runtimes") or {}),
        live_restore=bool(info.get("LiveRestoreEnabled")),
        socket=host.socket,
        running_containers=running,
        guarded_containers=[container for container in running if container["reason"]],
    )


if __name__ == "__main__":
    main()
