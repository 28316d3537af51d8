#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_preflight
short_description: Says what would keep planned services from running on a GPU host, and what to do about it
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Looks at the driver, its version against the CUDA of the images, compute capability against dtype and quantization,
    persistence mode, MIG, memory errors, the fabric manager, and what slows traffic between GPUs.
  - Reports findings and never fails because of one. Each has a severity and a remedy. Those that may hurt are warnings.
options:
  services:
    description:
      - The services placed on this host. Without any, only the host itself is looked at.
      - When all of them have C(accelerator=cpu), nothing is looked at.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The name of the service.
        type: str
        required: true
      accelerator:
        description: What it runs on. Only services on V(cuda) are looked at.
        type: str
        default: cuda
      image:
        description: Its image; the tag of C(vllm/vllm-openai) tells the CUDA version.
        type: str
      image_cuda:
        description: The CUDA version in the image, where the tag does not tell it.
        type: str
      engine_version:
        description: The version of the engine, where O(services[].image) does not tell it.
        type: str
      dtype:
        description: The data type it was planned with.
        type: str
      quantization:
        description: How its weights are quantized, V(fp8), V(awq), V(gptq), V(nvfp4), V(mxfp4) and so on.
        type: str
      gpus:
        description: The UUIDs of its GPUs. Empty means any.
        type: list
        elements: str
        default: []
extends_documentation_fragment:
  - inferops.gpu_host.attributes
  - inferops.gpu_host.attributes.info_module
seealso:
  - module: inferops.gpu_host.gpu_info
"""

EXAMPLES = r"""
- name: Look for what would go wrong
  inferops.gpu_host.gpu_preflight:
    services:
      - name: qwen2.5-7b-instruct
        image: vllm/vllm-openai:v0.33.0
        dtype: bfloat16
  register: preflight

- name: Nothing would
  ansible.builtin.assert:
    that: preflight.errors | length == 0
    fail_msg: "{{ preflight.errors | join('\n') }}"
"""

RETURN = r"""
findings:
  description: What was found, the worst first.
  type: list
  elements: dict
  returned: always
  contains:
    severity:
      description: V(error) keeps a service from running, V(warning) may, V(hint) only slows.
      type: str
    check:
      description: What was looked at, such as V(driver), V(cuda), V(dtype), V(mig), V(ecc), V(fabric_manager).
      type: str
    subject:
      description: V(host), a GPU or a service.
      type: str
    found:
      description: What is the matter.
      type: str
    remedy:
      description: What to do about it.
      type: str
    text:
      description: All of it as one line.
      type: str
errors:
  description: The findings with severity V(error), each as one line.
  type: list
  elements: str
  returned: always
  sample:
    - "error: qwen: bfloat16 needs compute capability 8; it is placed on Tesla T4 (compute capability 7.5).
      Remedy: set dtype: float16 for it."
warnings_found:
  description: The findings with severity V(warning), each as one line.
  type: list
  elements: str
  returned: always
hints:
  description: The findings with severity V(hint), each as one line.
  type: list
  elements: str
  returned: always
"""

import os

from ansible_collections.inferops.gpu_host.plugins.module_utils import _bounded_command, _gpu_preflight, _nvidia_smi
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule

SECONDS = 60
NVIDIA = "0x10de"
PCI_DEVICES = "/sys/bus/pci/devices"
# PCI classes: display controllers, and bridges of the kind that NVSwitches are.
GPU_CLASSES = ("0x0300", "0x0302")
NVSWITCH_CLASS = "0x0680"


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def nvidia_pci_classes():
    try:
        devices = [os.path.join(PCI_DEVICES, name) for name in os.listdir(PCI_DEVICES)]
    except OSError:
        return []
    return [read(path + "/class")[:6] for path in devices if read(path + "/vendor") == NVIDIA]


def output_of(module, name, *arguments):
    """(rc, stdout, stderr) of a command; rc is None when it is not installed."""
    path = module.get_bin_path(name)
    return _bounded_command.run([path, *arguments], SECONDS)[:3] if path else (None, "", "")


def observe(module):
    program = module.get_bin_path("nvidia-smi")
    query = _nvidia_smi.ask(program, _nvidia_smi.QUERY, SECONDS) if program else None
    rc, smi, smi_error = query[:3] if query else (None, "", "")
    fault = _nvidia_smi.fault_of(query, SECONDS) if query else None
    classes = nvidia_pci_classes()
    manager_version = output_of(module, "nv-fabricmanager", "--version")[1]
    return {
        "smi_rc": rc if rc is not None or not fault else -1,
        "smi_fault": fault,
        "smi": smi,
        "smi_error": smi_error,
        "compute_capabilities": output_of(module, "nvidia-smi", *_nvidia_smi.COMPUTE_CAPABILITY)[1]
        if not fault
        else "",
        "kernel_module": read("/proc/driver/nvidia/version"),
        "nvidia_pci_devices": [name for name in classes if name in GPU_CLASSES],
        "nvswitches": classes.count(NVSWITCH_CLASS),
        "fabric_manager": {
            "state": output_of(module, "systemctl", "is-active", "nvidia-fabricmanager")[1].strip(),
            "version": manager_version.strip().rpartition(" ")[2],
        },
        "kernel_command_line": read("/proc/cmdline"),
        "iommu": bool(os.path.isdir("/sys/class/iommu") and os.listdir("/sys/class/iommu")),
        "acs_bridges": _gpu_preflight.acs_bridges(output_of(module, "lspci", "-vv")[1]),
    }


def main():
    service = {
        "name": {"type": "str", "required": True},
        "accelerator": {"type": "str", "default": "cuda"},
        "image": {"type": "str"},
        "image_cuda": {"type": "str"},
        "engine_version": {"type": "str"},
        "dtype": {"type": "str"},
        "quantization": {"type": "str"},
        "gpus": {"type": "list", "elements": "str", "default": []},
    }
    module = RedactingModule(
        argument_spec={"services": {"type": "list", "elements": "dict", "default": [], "options": service}},
        supports_check_mode=True,
    )
    found = _gpu_preflight.findings(observe(module), module.params["services"])

    def lines(severity):
        return [_gpu_preflight.describe(item) for item in found if item["severity"] == severity]

    for line in lines(_gpu_preflight.WARNING):
        module.warn(line)
    module.exit_json(
        changed=False,
        findings=[dict(item, text=_gpu_preflight.describe(item)) for item in found],
        errors=lines(_gpu_preflight.ERROR),
        warnings_found=lines(_gpu_preflight.WARNING),
        hints=lines(_gpu_preflight.HINT),
    )


if __name__ == "__main__":
    main()
