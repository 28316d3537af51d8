#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_plan
version_added: "0.1.0"
author: The inferops.gpu_host maintainers (@inferops)
short_description: Decide which service runs on which GPUs, in which layout
description:
  - Estimates for each service and each layout what vLLM would allocate on each GPU, drops what vLLM refuses and what
    does not fit, and places the best of the rest on the GPUs of the fleet.
  - Computes only. It talks to no host and changes nothing, so it runs on the controller as well as anywhere else.
  - The same input gives the same plan.
extends_documentation_fragment:
  - inferops.gpu_host.attributes
  - inferops.gpu_host.attributes.info_module
options:
  services:
    description: The services, as in C(inference_services). See C(docs/services.md) for their keys.
    type: list
    elements: raw
    required: true
  hosts:
    description: The fleet.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The inventory name of the host.
        type: str
        required: true
      gpus:
        description:
          - What M(inferops.gpu_host.gpu_info) found, or what is declared for a machine that does not exist yet.
          - Declared is a name such as V(H20-96GB), a mapping of C(model) and C(count), a mapping with C(memory) and
            C(compute_capability) for a card that the catalogue does not know, or a list of these.
        type: raw
      links:
        description: What M(inferops.gpu_host.gpu_info) says about the links between the GPUs.
        type: dict
      memory:
        description: The host's own memory in bytes or as text such as V(512 GiB), for services on the CPU.
        type: raw
      reason:
        description: Why there are no GPUs, as M(inferops.gpu_host.gpu_info) said it.
        type: str
  models:
    description: For each service by its name, what M(inferops.gpu_host.model_info) returned as RV(ignore:model).
    type: dict
    default: {}
  defaults:
    description: Values for keys that services leave out, such as C(accelerator), C(hub) or C(objective).
    type: dict
    default: {}
  engine_version:
    description:
      - The version of vLLM to plan for, where a service does not say it.
      - By default the one in the tag of the service's image.
    type: str
  images:
    description: The images of services that name none, by accelerator (C(cuda), C(cpu)); their tags say the version.
    type: dict
    default: {}
  current:
    description: RV(plan.services) of the plan in force. What is still valid stays where it is.
    type: list
    elements: dict
    default: []
  inventory:
    description:
      - Every host that there is, also those that cannot be reached now. The owner of a key stays one as long as it is
        among them.
      - With it, the plan also tells how each service can be reached, and with which key.
    type: list
    elements: str
  open_routes:
    description: Whether routes that the engine leaves without a key may be in reach of others.
    type: str
    choices: [refuse, accept]
    default: refuse
  strict:
    description: Fail on a model architecture that is not known, instead of estimating it as a Llama-like decoder.
    type: bool
    default: false
  allow_unplaced:
    description: Return a plan with RV(plan.problems) instead of failing when a service cannot be placed.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: What would one H20 host hold
  inferops.gpu_host.vllm_plan:
    services:
      - name: deepseek-r1
        model: deepseek-ai/DeepSeek-R1
        max_model_len: auto
    models:
      deepseek-r1: "{{ model.model }}"
    hosts:
      - name: planned1
        gpus: {model: H20-96GB, count: 8}
  register: planned
  delegate_to: localhost

- name: Show it
  ansible.builtin.debug:
    msg: "{{ planned.report }}"
"""

RETURN = r"""
plan:
  description: The plan. Sizes are bytes. C(docs/architecture.md) describes every key.
  returned: when the input could be understood
  type: dict
  contains:
    services:
      description: >-
        For each service its layout, placements, the options for the engine, the estimate, the reason, the rule of
        thumb's figure, and every rejected layout with its reason and numbers.
      type: list
      elements: dict
    problems:
      description: Services that could not be placed, and why.
      type: list
      elements: str
    gpus:
      description: Which services use which GPU.
      type: list
      elements: dict
report:
  description: The plan as lines of text for people.
  returned: when the input could be understood
  type: list
  elements: str
"""

from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.fleet import FleetError
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.plan import PlanError, plan
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.report import report
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import ServiceError


def main():
    module = RedactingModule(
        argument_spec={
            # The keys of a service are checked by normalize_services, with better messages.
            "services": {"type": "list", "elements": "raw", "required": True},
            "hosts": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "gpus": {"type": "raw"},
                    "links": {"type": "dict"},
                    "memory": {"type": "raw"},
                    "reason": {"type": "str"},
                },
            },
            "models": {"type": "dict", "default": {}},
            "defaults": {"type": "dict", "default": {}},
            "engine_version": {"type": "str"},
            "images": {"type": "dict", "default": {}},
            "current": {"type": "list", "elements": "dict", "default": []},
            "inventory": {"type": "list", "elements": "str"},
            "open_routes": {"type": "str", "choices": ["refuse", "accept"], "default": "refuse"},
            "strict": {"type": "bool", "default": False},
            "allow_unplaced": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        planned = plan(
            params["services"],
            params["hosts"],
            models=params["models"],
            defaults=params["defaults"],
            engine_version=params["engine_version"],
            images=params["images"],
            current=params["current"],
            strict=params["strict"],
            inventory=params["inventory"],
            open_routes=params["open_routes"],
        )
    except (ServiceError, FleetError, PlanError) as error:
        module.fail_json(msg=str(error))
    answer = {"plan": planned, "report": report(planned)}
    if planned["problems"] and not params["allow_unplaced"]:
        module.fail_json(msg="; ".join(planned["problems"]), **answer)
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
