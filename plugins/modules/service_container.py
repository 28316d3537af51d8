#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_container
short_description: Let one container take the place of another without losing what has answered
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Takes one step of a replacement. A play that ends before, in or after it can be gone on from.
  - Nothing is removed before what comes after it has answered, and only containers of this collection are touched.
  - Talks to the engine's own API; needs neither the docker command nor a Python library on the host.
extends_documentation_fragment:
  - inferops.gpu_host.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: There is nothing to show beyond whether it acts.
options:
  name:
    description: Name of the container.
    type: str
    required: true
  directory:
    description: Where the options of the service lie, and the record of what has answered.
    type: path
    required: true
  state:
    description:
      - V(proven) keeps on the host that this very container has answered.
      - V(aside) stops it and calls it C(NAME.previous).
      - V(recovered) gives C(NAME.previous) its name back; a successor that had it is kept as C(NAME.failed).
      - V(settled) removes C(NAME.previous), C(NAME.failed) and their options; the container must be proven.
    type: str
    choices: [proven, aside, recovered, settled]
    required: true
  answered:
    description: With O(state=aside), whether it has answered just now, which counts as a proof.
    type: bool
    default: false
  start:
    description: With O(state=recovered), whether it is started, too.
    type: bool
    default: false
  options:
    description: With O(state=settled), the files with options that the container uses.
    type: list
    elements: path
"""

EXAMPLES = r"""
- name: Keep it until its successor has answered
  inferops.gpu_host.service_container:
    name: qwen2.5-7b-instruct
    directory: /etc/inferops/vllm/qwen2.5-7b-instruct
    state: aside
"""

RETURN = r"""# """

from ansible_collections.inferops.gpu_host.plugins.module_utils._container_swap import Swap, SwapError
from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_host import DockerHost
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule


def main():
    module = RedactingModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "directory": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["proven", "aside", "recovered", "settled"], "required": True},
            "answered": {"type": "bool", "default": False},
            "start": {"type": "bool", "default": False},
            "options": {"type": "list", "elements": "path"},
        },
        required_if=[("state", "settled", ["options"])],
        supports_check_mode=True,
    )
    params = module.params
    swap = Swap(DockerHost(module), params["name"], params["directory"], module.check_mode)
    steps = {
        "proven": swap.proven,
        "aside": lambda: swap.aside(params["answered"]),
        "recovered": lambda: swap.recovered(params["start"]),
        "settled": lambda: swap.settled(params["options"]),
    }
    try:
        module.exit_json(changed=steps[params["state"]]())
    except SwapError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
