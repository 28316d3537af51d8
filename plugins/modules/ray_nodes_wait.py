#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ray_nodes_wait
short_description: Wait until a Ray cluster has the expected nodes and GPUs
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Asks the cluster, from inside the container of one of its nodes, until exactly the expected addresses have joined
    and offer the expected GPUs.
  - Fails after O(timeout) and names what is missing, what differs, and what joined without being asked.
extends_documentation_fragment:
  - inferops.gpu_host.attributes
  - inferops.gpu_host.attributes.info_module
options:
  container:
    description: A container on this host with a node of the cluster.
    type: str
    required: true
  address:
    description: The address of the cluster's head, with its port.
    type: str
    required: true
  nodes:
    description: How many GPUs each address shall offer.
    type: dict
    required: true
  strangers:
    description: Whether other nodes may be there as well, as in a cluster that was there before.
    type: bool
    default: false
  timeout:
    description: Seconds to wait at most.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Wait until both hosts have joined with their GPUs
  inferops.gpu_host.ray_nodes_wait:
    container: ray
    address: 192.0.2.11:6379
    nodes: {192.0.2.11: 8, 192.0.2.12: 8}
"""

RETURN = r"""
nodes:
  description: The GPUs of each address that has joined.
  returned: always
  type: dict
  sample: {"192.0.2.11": 8, "192.0.2.12": 8}
seconds:
  description: How long it took.
  returned: success
  type: int
"""

import time

from ansible_collections.inferops.gpu_host.plugins.module_utils import _ray
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule

PAUSE = 2  # seconds between two questions; each takes about as long


def main():
    module = RedactingModule(
        argument_spec={
            "container": {"type": "str", "required": True},
            "address": {"type": "str", "required": True},
            "nodes": {"type": "dict", "required": True},
            "strangers": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    params = module.params
    expected = {address: int(gpus) for address, gpus in params["nodes"].items()}
    docker = module.get_bin_path("docker", required=True)
    question = [docker, "exec", params["container"], "timeout", "60", "python3", "-c", _ray.NODES_SCRIPT]
    begin = time.monotonic()
    while True:
        _rc, out, error = module.run_command([*question, params["address"]])
        nodes = _ray.parse_nodes(out)
        problems = _ray.differences(nodes, expected, params["strangers"])
        seconds = int(time.monotonic() - begin)
        if not problems:
            module.exit_json(changed=False, nodes=nodes, seconds=seconds)
        if seconds >= params["timeout"]:
            break
        time.sleep(PAUSE)
    module.fail_json(
        msg="The Ray cluster at %s is not as expected after %d s: %s. Look at `docker logs %s` on the hosts named."
        % (params["address"], seconds, "; ".join(problems), params["container"]),
        nodes=nodes or {},
        answer=(error or out)[-1000:],
    )


if __name__ == "__main__":
    main()
