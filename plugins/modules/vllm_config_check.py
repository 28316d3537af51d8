#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_config_check
short_description: Have vLLM's own parser read a configuration, inside the image that is to serve it
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Starts a container of the image without a GPU and without a network, in which C(vllm serve) parses and validates its
    options and reads the model's configuration, and then ends.
  - It does not fail. RV(ok) is V(false) only for what would surely keep the service from starting.
  - Without the image on the host, nothing is checked and RV(note) says so.
extends_documentation_fragment:
  - inferops.gpu_host.attributes
  - inferops.gpu_host.attributes.info_module
options:
  image:
    description: The image.
    type: str
    required: true
  command:
    description: What would follow C(vllm serve).
    type: list
    elements: str
    required: true
  volumes:
    description: The volumes that the service would have; all are mounted read-only.
    type: list
    elements: str
    default: []
  env:
    description: The environment that the service would have.
    type: dict
    default: {}
  timeout:
    description: Seconds after which it is given up.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Have the new image read the new options
  inferops.gpu_host.vllm_config_check:
    image: vllm/vllm-openai:v0.33.0
    command: [/data/models/Qwen/QwQ-32B, --config, /etc/vllm/config.yaml]
    volumes:
      - /data/models/Qwen/QwQ-32B:/data/models/Qwen/QwQ-32B
      - /etc/inferops/vllm/qwq-32b/new.yaml:/etc/vllm/config.yaml
  register: judged
  failed_when: not judged.ok
"""

RETURN = r"""
ok:
  description: Whether nothing was found that would keep the service from starting.
  returned: always
  type: bool
checked:
  description: What was checked, C(options) and C(model).
  returned: always
  type: list
  elements: str
problem:
  description: What is wrong, in vLLM's words where it has any.
  returned: always
  type: str
  sample: "the engine refuses an option: unrecognized arguments: --max-modl-len 12"
advice:
  description: What to change.
  returned: always
  type: str
note:
  description: Why something could not be checked.
  returned: always
  type: str
"""

import json
from urllib.parse import quote

from ansible_collections.inferops.gpu_host.plugins.module_utils import _container_state, _vllm_config_check
from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_host import DockerHost
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule

# What it is known by that a play which was killed left behind.
LABEL = _container_state.LABEL + "check"


def run(docker, params):
    """(exit code, output) of the script inside the image, as `docker run --rm --pull never` would tell it."""
    body = {
        "Image": params["image"],
        "Entrypoint": ["python3"],
        "Cmd": ["-c", _vllm_config_check.SCRIPT, str(params["timeout"]), "serve", *params["command"]],
        # The service's own home is mounted read-only here.
        "Env": ["%s=%s" % pair for pair in {**params["env"], "HOME": "/tmp"}.items()],
        "Labels": {LABEL: "true"},
        "HostConfig": _vllm_config_check.host_config(params["volumes"]),
    }
    status, answer = docker.call("POST", "/containers/create", body, timeout=60)
    if status != 201:
        return 125, answer.decode("utf-8", "replace")
    container = "/containers/%s" % json.loads(answer)["Id"]
    try:
        status, answer = docker.call("POST", container + "/start", timeout=60)
        if status != 204:
            return 125, answer.decode("utf-8", "replace")
        status, answer = docker.call("POST", container + "/wait", timeout=params["timeout"] + 60)
        rc = json.loads(answer)["StatusCode"] if status == 200 else 125
        log = docker.get_bytes(container + "/logs?stdout=1&stderr=1", timeout=60) or b""
        return rc, _container_state.demultiplexed(log)
    finally:
        docker.call("DELETE", container + "?force=1&v=1", timeout=60)


def clear(docker):
    """Removes what plays that were killed left behind."""
    wanted = quote(json.dumps({"label": [LABEL], "status": ["exited", "created"]}))
    for container in docker.get("/containers/json?all=1&filters=" + wanted) or []:
        docker.call("DELETE", "/containers/%s?v=1" % container["Id"], timeout=60)


def main():
    module = RedactingModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "command": {"type": "list", "elements": "str", "required": True},
            "volumes": {"type": "list", "elements": "str", "default": []},
            "env": {"type": "dict", "default": {}},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    params = module.params
    docker = DockerHost(module)
    clear(docker)
    rc, output = run(docker, params)
    module.exit_json(changed=False, **_vllm_config_check.judged(rc, output))


if __name__ == "__main__":
    main()
