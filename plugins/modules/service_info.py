#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_info
short_description: See which services run on a host, and what they would need
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Looks at every container that this collection made, at the engine, and at what O(images), O(files) and
    O(containers) name, all at once.
extends_documentation_fragment:
  - inferops.gpu_host.attributes
  - inferops.gpu_host.attributes.info_module
options:
  containers:
    description: Names of containers to look at too, whoever made them.
    type: list
    elements: str
    default: []
  images:
    description: Images whose presence matters.
    type: list
    elements: str
    default: []
  files:
    description: Files whose presence matters.
    type: list
    elements: path
    default: []
  directories:
    description: Where the options of services lie, with the records of which containers have answered.
    type: list
    elements: path
    default: []
  models:
    description: Directories of models, in which programs are looked for.
    type: list
    elements: path
    default: []
  metrics:
    description: Whether to read the figures that each running service publishes.
    type: bool
    default: false
  timeout:
    description: Seconds that a service has to say how it is.
    type: int
    default: 5
"""

EXAMPLES = r"""
- name: See what runs here
  inferops.gpu_host.service_info:
    metrics: true
  register: found

- name: Name those that do not answer
  ansible.builtin.debug:
    msg: "{{ found.containers | dict2items | rejectattr('value.healthy') | map(attribute='key') }}"
"""

RETURN = r"""
engine:
  description: The version of the container engine, or nothing where none answers.
  returned: always
  type: str
  sample: 26.1.5
selinux:
  description: Whether the container engine confines containers with SELinux, so that what they mount needs a label.
  returned: always
  type: bool
containers:
  description:
    - By name, with C(id), C(image), C(image_id), C(labels) (those of this collection, without their common beginning),
      C(running), C(status), C(seconds) (since its start), C(restarts), C(exit_code), C(gpus), C(ours), C(healthy)
      and, with O(metrics), C(metrics).
  returned: always
  type: dict
images:
  description: The ids of O(images), or nothing for those that are not here.
  returned: always
  type: dict
files:
  description: Which of O(files) are there.
  returned: always
  type: dict
code:
  description:
    - For each directory of O(models) what in it is a program.
    - C(code) names the files that C(trust_remote_code) can run, and C(digest) is theirs; C(problem) is why they could
      not be read.
    - C(pickles) names weights that can run code when they are read, C(spare_pickles) such ones beside safetensors,
      which no engine reads.
    - V(none) for a directory that is not there.
  returned: always
  type: dict
proven:
  description: The ids of the containers that were the last to answer, by name, as O(directories) know them.
  returned: always
  type: dict
listening:
  description:
    - The TCP ports that something listens on, as strings, each with C(process), C(pid) and C(container) where they can
      be seen.
  returned: always
  type: dict
  sample: {"8000": {process: docker-proxy, pid: 4711, container: qwen2.5-7b-instruct}}
"""

import json
import os
from urllib.parse import quote

from ansible_collections.inferops.gpu_host.plugins.module_utils import _container_state, _metrics
from ansible_collections.inferops.gpu_host.plugins.module_utils._container_swap import proven_in
from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_host import LONGEST_ANSWER, DockerHost
from ansible_collections.inferops.gpu_host.plugins.module_utils._inference_check import ALIVE, Endpoint
from ansible_collections.inferops.gpu_host.plugins.module_utils._listening import listeners
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_code import code_of
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import bounded_json


def look_at(docker, name, params):
    """What a container is; None where there is none. What the engine does not say is not taken for absence."""
    status, answer = docker.call("GET", "/containers/%s/json" % quote(name))
    if status == 404:
        return None
    if status != 200:
        docker.module.fail_json(msg="The engine does not say what container %s is (HTTP %d)." % (name, status))
    inspection = bounded_json(answer, "what the engine says of container %s" % name, limit=LONGEST_ANSWER)
    container = _container_state.described(inspection)
    container["healthy"] = False
    if container["running"] and "url" in container["labels"]:
        endpoint = Endpoint(container["labels"]["url"], timeout=params["timeout"], validate_certs=False)
        container["healthy"] = endpoint.get("/health").status in ALIVE
        if params["metrics"]:
            container["metrics"] = _metrics.figures(endpoint.get("/metrics").text)
    return container


def listening(docker):
    """Who listens on which port; a published port is its container's, not that of the proxy in front of it."""
    found = {str(port): dict(owner, container=None) for port, owner in listeners().items()}
    for container in docker.get("/containers/json") or []:
        for port in container.get("Ports") or []:
            owner = found.setdefault(str(port.get("PublicPort")), {"process": None, "pid": None})
            owner["container"] = container["Names"][0].lstrip("/")
    found.pop("None", None)  # ports that are exposed and not published
    return found


def main():
    module = RedactingModule(
        argument_spec={
            "containers": {"type": "list", "elements": "str", "default": []},
            "images": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "list", "elements": "path", "default": []},
            "models": {"type": "list", "elements": "path", "default": []},
            "directories": {"type": "list", "elements": "path", "default": []},
            "metrics": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    params = module.params
    docker = DockerHost(module)
    ours = quote(json.dumps({"label": [_container_state.LABEL + "service"]}))
    engine = (docker.get("/version") or {}).get("Version")
    listed = docker.get("/containers/json?all=1&filters=" + ours)
    if engine and listed is None:
        module.fail_json(msg="The engine answers, but does not list its containers; see its log.")
    ids = dict.fromkeys([item["Id"] for item in listed or []] + params["containers"])
    found = [look_at(docker, name, params) for name in ids] if engine else []
    module.exit_json(
        changed=False,
        engine=engine,
        selinux="name=selinux" in ((docker.get("/info") or {}).get("SecurityOptions") or []),
        proven={name: id for path in params["directories"] for name, id in proven_in(path).items()},
        containers={container["name"]: container for container in found if container},
        images={name: (docker.get("/images/%s/json" % name) or {}).get("Id") for name in params["images"]},
        files={path: os.path.exists(path) for path in params["files"]},
        code={path: code_of(path) for path in params["models"]},
        listening=listening(docker),
    )


if __name__ == "__main__":
    main()
