#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
version_added: "0.1.0"
author: The inferops.gpu_host maintainers (@inferops)
short_description: List the NVIDIA GPUs of a host
description:
  - Asks C(nvidia-smi) for the GPUs of the host, their memory, how they are linked and what runs on them.
  - A host without a GPU, or whose driver does not answer, is no error. The list is then empty and RV(reason) says why.
  - A GPU that the driver cannot read, or whose memory is not known, is not in the list but in RV(excluded).
extends_documentation_fragment:
  - inferops.gpu_host.attributes
  - inferops.gpu_host.attributes.info_module
options:
  nvidia_smi:
    description: The program to ask, a name on the path or an absolute path.
    type: str
    default: nvidia-smi
  timeout:
    description: >-
      Seconds to wait for each answer. A driver with a GPU that fell off the bus can hang instead of failing.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Look at the GPUs
  inferops.gpu_host.gpu_info:
  register: found

- name: Show how much memory is free
  ansible.builtin.debug:
    msg: "{{ found.gpus | map(attribute='memory_free') }}"
"""

RETURN = r"""
gpus:
  description: The GPUs, in the order of their PCI bus ids, which is the order of C(nvidia-smi).
  returned: always
  type: list
  elements: dict
  contains:
    index: {description: "Position in the order of C(nvidia-smi).", type: int}
    uuid: {description: The identity of the GPU; stays when the index changes., type: str}
    pci_bus_id: {description: "For example V(00000000:1B:00.0).", type: str}
    name: {description: The name the driver prints., type: str}
    model: {description: "The name in the catalogue of the planner, or V(null).", type: str}
    memory_total: {description: Bytes., type: int}
    memory_used: {description: Bytes., type: int}
    memory_free: {description: Bytes., type: int}
    compute_capability: {description: "For example 9.0.", type: float}
    mig_enabled: {description: Whether the GPU is cut into instances., type: bool}
    mig_devices:
      description: "The instances: C(uuid), C(index), C(memory_total), C(memory_free) and their ids."
      type: list
      elements: dict
    nvlink_active: {description: "NVLinks that are up, where the driver lists them.", type: int}
    processes:
      description: "What runs on it: C(pid), C(name), C(type), C(memory_used)."
      type: list
      elements: dict
excluded:
  description:
    - GPUs that nothing may be planned on. The driver cannot read them, or tells no size of their memory.
    - Each has C(index), C(uuid), C(pci_bus_id) and C(name) as far as they are known, and C(reason) and C(hint).
  returned: always
  type: list
  elements: dict
driver_version:
  description: Version of the driver.
  returned: always
  type: str
  sample: "580.159.03"
cuda_version:
  description: The newest CUDA that the driver supports.
  returned: always
  type: str
  sample: "13.0"
links:
  description: "How each pair of GPUs is joined, by index: V(NV18), V(PIX), V(PXB), V(PHB), V(NODE) or V(SYS)."
  returned: always
  type: dict
  sample: {"0": {"1": "NV18"}, "1": {"0": "NV18"}}
host_memory_total:
  description: The host's own memory in bytes, which models are served from where there is no GPU.
  returned: always
  type: int
reason:
  description: Why RV(gpus) is empty, or lacks GPUs that the host has.
  returned: always
  type: str
hint:
  description: What to do about it.
  returned: always
  type: str
"""

import os

from ansible_collections.inferops.gpu_host.plugins.module_utils import _nvidia_smi
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule


def gpu_info(module):
    program, seconds = module.get_bin_path(module.params["nvidia_smi"]), module.params["timeout"]
    if program is None:
        return _nvidia_smi.empty(
            f"{module.params['nvidia_smi']} is not installed",
            "install the NVIDIA driver where the host has a GPU",
        )
    query = _nvidia_smi.ask(program, _nvidia_smi.QUERY, seconds)
    fault = _nvidia_smi.fault_of(query, seconds)
    if fault:
        return fault
    commands = (_nvidia_smi.COMPUTE_CAPABILITY, _nvidia_smi.LIST, _nvidia_smi.TOPOLOGY)
    answers = [_nvidia_smi.ask(program, command, seconds).out for command in commands]
    return _nvidia_smi.parse(query.out, *answers, said=query.err)


def main():
    module = RedactingModule(
        argument_spec={
            "nvidia_smi": {"type": "str", "default": "nvidia-smi"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = gpu_info(module)
    for gpu in found["excluded"]:
        module.warn(f"left out: {_nvidia_smi.describe(gpu)}. {gpu['hint']}.")
    module.exit_json(changed=False, host_memory_total=memory, **found)


if __name__ == "__main__":
    main()
