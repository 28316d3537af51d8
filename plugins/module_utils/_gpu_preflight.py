# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a GPU host says of itself, and what is planned for it → findings, each with its remedy. No I/O."""

from __future__ import annotations

import re

from ansible_collections.inferops.gpu_host.plugins.module_utils import _nvidia_smi
from ansible_collections.inferops.gpu_host.plugins.module_utils._gpu_health import (
    ERROR,
    HINT,
    WARNING,
    finding,
    health,
    judge,
    judge_fabric,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import printable
from ansible_collections.inferops.gpu_host.plugins.module_utils._versions import engine_version_of, version_tuple

_RANK = {ERROR: 0, WARNING: 1, HINT: 2}

# The CUDA in vllm/vllm-openai images, from the first version that has it (the images' own labels).
_VLLM_IMAGE_CUDA = (
    ((0, 28), "13.0"),
    ((0, 20), "13.0"),
    ((0, 11, 2), "12.9"),
    ((0, 9, 2), "12.8"),
    ((0, 8, 5), "12.4"),
)
# The oldest driver that runs any CUDA of a major version (NVIDIA's "Minor version compatibility": 450, 525, 580; the
# builds are from the release notes of each toolkit).
_DRIVER_FOR_CUDA = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
# get_min_capability() of vLLM 0.32, by method; the second figure is where the hardware has units of its own for it.
_QUANTIZATION_CAPABILITY = {
    "awq": (7.5, 7.5),
    "bitsandbytes": (7.0, 7.0),
    "fp8": (7.5, 8.9),
    "gptq": (6.0, 7.5),
    "int8": (7.5, 7.5),
    "mxfp4": (8.0, 10.0),
    "mxfp8": (7.5, 10.0),
    "nvfp4": (7.5, 10.0),
}
_QUANTIZATION_SPELLINGS = {
    "awq_marlin": "awq",
    "experts_int8": "int8",
    "gpt_oss_mxfp4": "mxfp4",
    "gptq_marlin": "gptq",
    "modelopt": "fp8",
    "modelopt_fp4": "nvfp4",
}
_BFLOAT16_CAPABILITY = 8.0
# All others are data-centre GPUs, which can run a newer CUDA through the compatibility libraries in the image.
_CONSUMER = re.compile(r"\b(GeForce|Quadro|RTX|TITAN)\b")


# --- reading --------------------------------------------------------------------------------------------------------


def image_cuda(service):
    """The CUDA version in the service's image, as far as it is declared or known; empty otherwise."""
    if service.get("image_cuda"):
        return str(service["image_cuda"])
    image = service.get("image") or ""
    if image and "vllm/vllm-openai" not in image:
        return ""
    version = version_tuple(engine_version_of(service, image))
    for first, cuda in _VLLM_IMAGE_CUDA:
        if version >= first:
            return cuda
    return ""


def kernel_module_version(text):
    """/proc/driver/nvidia/version → '580.159.04'."""
    match = re.search(r"Kernel Module(?: for \S+)?\s+(\d+\.\d+(?:\.\d+)?)", text or "")
    return match.group(1) if match else ""


def acs_bridges(lspci):
    """The PCI bridges in the output of `lspci -vv` that send peer traffic up to the root (ACS redirection)."""
    bridges, address = [], ""
    for line in (lspci or "").splitlines():
        if re.match(r"[0-9a-f]{2,4}[:.]", line):
            address = line.split()[0]
        elif "ACSCtl:" in line and re.search(r"(SrcValid|ReqRedir|CmpltRedir)\+", line):
            bridges.append(address)
    return bridges


# --- judging --------------------------------------------------------------------------------------------------------


def _driver(observed):
    """Findings that leave nothing else to look at."""
    if observed.get("smi_rc") is None:
        if not observed.get("nvidia_pci_devices"):
            yield finding(
                ERROR,
                "gpu",
                "host",
                "no NVIDIA device is on the PCI bus",
                "place the service elsewhere, pass a GPU through to this machine, or set accelerator: cpu",
            )
        else:
            yield finding(
                ERROR,
                "driver",
                "host",
                "%d NVIDIA devices, but no driver (no nvidia-smi)" % len(observed["nvidia_pci_devices"]),
                "install the driver, 580 or newer for images with CUDA 13, and reboot",
            )
    elif observed.get("smi_fault"):
        yield _of_failure(observed["smi_fault"])
    elif observed["smi_rc"] not in (0, _nvidia_smi.INFOROM_CORRUPTED):
        yield _of_failure(
            _nvidia_smi.explain_failure(observed["smi_rc"], observed.get("smi", ""), observed.get("smi_error", ""))
        )


def _of_failure(failure):
    return finding(ERROR, "driver", "host", failure["reason"], failure["hint"] or "run nvidia-smi and read dmesg")


def _left_out(facts):
    for gpu in facts["excluded"]:
        yield finding(ERROR, "gpu", "host", _nvidia_smi.describe(gpu), gpu["hint"])


_INFOROM = re.compile(r"infoROM is corrupted at gpu ([0-9A-Fa-f:.]{4,20})", re.IGNORECASE)


def _inforom(observed):
    """A damaged infoROM: ECC counters and retired pages are not kept any more, all else works."""
    said = [text[:20_000] + text[-20_000:] for text in (observed.get("smi_error") or "", observed.get("smi") or "")]
    buses = sorted({bus.upper().rstrip(".:") for text in said for bus in _INFOROM.findall(text)})
    if buses or observed.get("smi_rc") == _nvidia_smi.INFOROM_CORRUPTED:
        yield finding(
            WARNING,
            "inforom",
            ", ".join(buses) or "host",
            "the infoROM of a GPU is corrupted: the driver keeps no count of its memory errors",
            "power the host off and on; when it stays, have the vendor look at the GPU",
        )


def _planned(service, facts):
    """GPUs of the plan that are not here any more, or not fit for use."""
    there = {gpu["uuid"] for gpu in facts["gpus"]}
    there |= {device["uuid"] for gpu in facts["gpus"] for device in gpu["mig_devices"]}
    missing = [gpu for gpu in service.get("gpus") or [] if gpu not in there]
    if missing:
        yield finding(
            ERROR,
            "gpu",
            service["name"],
            "it is planned on %s, which nvidia-smi does not show as fit for use" % ", ".join(map(printable, missing)),
            "bring the GPU back, or plan again without it (playbooks/plan.yml)",
        )


def _versions(facts, observed):
    loaded = kernel_module_version(observed.get("kernel_module"))
    if loaded and facts["driver_version"] and loaded != facts["driver_version"]:
        yield finding(
            ERROR,
            "driver",
            "host",
            "the loaded kernel module is %s, the installed libraries are %s" % (loaded, facts["driver_version"]),
            "reboot the host",
        )


def _peer_traffic(states, observed):
    bridges = observed.get("acs_bridges") or []
    if len(states) > 1 and bridges:
        yield finding(
            HINT,
            "acs",
            "host",
            "PCI access control (ACS) sends traffic between GPUs through the CPU on %d bridges" % len(bridges),
            "outside of virtual machines, switch ACS off in the firmware, or with setpci ECAP_ACS+0x6.w=0000",
        )
    command_line = observed.get("kernel_command_line") or ""
    if len(states) > 1 and observed.get("iommu") and not re.search(r"\biommu=pt\b", command_line):
        yield finding(
            HINT,
            "iommu",
            "host",
            "the IOMMU translates every transfer between GPUs, which is slow and has made NCCL hang",
            "add iommu=pt to the kernel's command line, or switch the IOMMU off in the firmware",
        )


def _cuda(service, gpus, facts):
    wanted = image_cuda(service)
    driver = version_tuple(facts["driver_version"])
    if not wanted or not driver:
        return
    major = version_tuple(wanted)[0]
    needed = _DRIVER_FOR_CUDA.get(major)
    newest = facts["cuda_version"] or ""
    if needed and driver < version_tuple(needed):
        data_centre = not any(_CONSUMER.search(gpu["name"] or "") for gpu in gpus)
        can_translate = data_centre and major == 13 and driver[0] in (535, 570)
        yield finding(
            WARNING if can_translate else ERROR,
            "cuda",
            service["name"],
            "its image has CUDA %s, which needs driver %s; the driver is %s (CUDA %s)"
            % (wanted, needed, facts["driver_version"], newest),
            "set VLLM_ENABLE_CUDA_COMPATIBILITY: 1 in env of the service, or better upgrade the driver"
            if can_translate
            else "upgrade the driver, or choose an image with CUDA %s or older" % newest,
        )
    elif newest and version_tuple(wanted) > version_tuple(newest):
        yield finding(
            WARNING,
            "cuda",
            service["name"],
            "its image has CUDA %s, the driver %s knows up to %s" % (wanted, facts["driver_version"], newest),
            "upgrade the driver if the start fails with 'PTX was compiled with an unsupported toolchain'"
            " or 'unsatisfied condition: cuda'",
        )


def _capability(service, gpus):
    dtype = service.get("dtype") or ""
    method = (service.get("quantization") or "").lower().replace("-", "_")
    method = _QUANTIZATION_SPELLINGS.get(method, method)
    for name, capability in sorted(
        {(gpu["name"], gpu["compute_capability"]) for gpu in gpus if gpu["compute_capability"]}
    ):
        on = "%s (compute capability %g)" % (name, capability)
        if dtype == "bfloat16" and capability < _BFLOAT16_CAPABILITY:
            yield finding(
                ERROR,
                "dtype",
                service["name"],
                "bfloat16 needs compute capability %g; it is placed on %s" % (_BFLOAT16_CAPABILITY, on),
                "set dtype: float16 for it",
            )
        needed, native = _QUANTIZATION_CAPABILITY.get(method, (0, 0))
        if capability < needed:
            yield finding(
                ERROR,
                "quantization",
                service["name"],
                "%s needs compute capability %g; it is placed on %s" % (method, needed, on),
                "choose a checkpoint in another format (AWQ and GPTQ run from 7.5), or other GPUs",
            )
        elif capability < native:
            yield finding(
                HINT,
                "quantization",
                service["name"],
                "%s has no units of its own for %s: weights stay small, arithmetic is done in 16 bits" % (on, method),
                "none is needed; it is slower than on compute capability %g" % native,
            )


def findings(observed, services=()):
    """All findings of one host, the worst first.

    observed: what the module gpu_preflight gathers, see there. services: those placed on this host, each with `name`
    and as far as known `accelerator`, `image`, `image_cuda`, `engine_version`, `dtype`, `quantization`, and `gpus`
    (UUIDs; empty means all). Services with `accelerator: cpu` are passed over, and where all are, so is the host.
    """
    wanting = [service for service in services if (service.get("accelerator") or "cuda") == "cuda"]
    if services and not wanting:
        return []
    found = list(_driver(observed))
    if not found:
        facts = _nvidia_smi.parse(
            observed["smi"], observed.get("compute_capabilities", ""), said=observed.get("smi_error") or ""
        )
        found += _left_out(facts)
        if not facts["gpus"]:
            found = found or [finding(ERROR, "driver", "host", facts["reason"], facts["hint"] or "read dmesg")]
        else:
            good = {gpu["uuid"] for gpu in facts["gpus"]}
            states = [state for state in health(observed["smi"]) if state["uuid"] in good]
            found += _inforom(observed)
            observed = dict(observed, driver_version=facts["driver_version"])
            found += _versions(facts, observed)
            found += judge(states)
            found += judge_fabric(states, observed)
            found += _peer_traffic(states, observed)
            for service in wanting:
                chosen = service.get("gpus") or []
                gpus = [gpu for gpu in facts["gpus"] if not chosen or gpu["uuid"] in chosen]
                found += _planned(service, facts)
                found += _cuda(service, gpus, facts)
                found += _capability(service, gpus)
    return sorted(found, key=lambda item: _RANK[item["severity"]])


def describe(finding):
    """A finding as one line."""
    return "%(severity)s: %(subject)s: %(found)s. Remedy: %(remedy)s." % finding
