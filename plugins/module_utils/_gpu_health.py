# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The health of GPUs and of the fabric between them, as nvidia-smi tells it → findings, each with its remedy."""

from __future__ import annotations

import re

from ansible_collections.inferops.gpu_host.plugins.module_utils import _nvidia_smi
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import printable, whole_number

ERROR, WARNING, HINT = "error", "warning", "hint"


def finding(severity, check, subject, found, remedy):
    return {"severity": severity, "check": check, "subject": subject, "found": found, "remedy": remedy}


def _text(node, path):
    value = (node.findtext(path) or "").strip()
    nothing = (
        "N/A",
        "[N/A]",
        "None",
        "Not Supported",
        "[Not Supported]",
        "Requested functionality has been deprecated",
    )
    return "" if value in nothing else printable(value, 100)


def _count(node, path):
    return whole_number(_text(node, path)) or 0


def _any_yes(node, *paths):
    return any(_text(node, path) == "Yes" for path in paths)


# Since Ampere by kind of memory, before by number of bits.
_UNCORRECTABLE = (
    "dram_uncorrectable",
    "sram_uncorrectable",
    "sram_uncorrectable_parity",
    "sram_uncorrectable_secded",
    "double_bit/total",
)


def health(query):
    """The state of each GPU in `nvidia-smi -q -x`, as far as it can hurt; ValueError where that is no XML."""
    root, _around = _nvidia_smi.document(query)
    return [_health_of(node) for node in root.findall("gpu")[: _nvidia_smi.MOST_GPUS]]


def _health_of(node):
    return {
        "uuid": _text(node, "uuid"),
        "name": _text(node, "product_name"),
        "persistence": _text(node, "persistence_mode") != "Disabled",
        "mig": _text(node, "mig_mode/current_mig"),
        "mig_pending": _text(node, "mig_mode/pending_mig"),
        "ecc": _text(node, "ecc_mode/current_ecc"),
        "ecc_pending": _text(node, "ecc_mode/pending_ecc"),
        "uncorrectable": sum(_count(node, "ecc_errors/volatile/" + name) for name in _UNCORRECTABLE),
        "repair_pending": _any_yes(
            node,
            "retired_pages/pending_retirement",
            "retired_pages/pending_blacklist",
            "remapped_rows/remapped_row_pending",
            "ecc_errors/channel_repair_pending",
            "ecc_errors/tpc_repair_pending",
        ),
        "repair_failed": _any_yes(node, "remapped_rows/remapped_row_failure", "ecc_errors/unrepairable_memory"),
        "worn_out": _any_yes(node, "ecc_errors/aggregate/sram_threshold_exceeded"),
        "recovery": _text(node, "gpu_recovery_action"),
        "fabric": _text(node, "fabric/state"),
        "fabric_status": _text(node, "fabric/status"),
        "fabric_health": _text(node, "fabric/health/summary"),
        "compute_mode": _text(node, "compute_mode"),
        "license": _text(node, "vgpu_software_licensed_product/license_status")
        or _text(node, "grid_licensed_product/license_status"),
    }


_RECOVERY = {
    "reset": "stop what uses the GPU, then nvidia-smi --gpu-reset",
    "reboot": "reboot the host",
    "drain p2p": "let what spans several GPUs end, then nvidia-smi --gpu-reset",
    "drain and reset": "let what runs on the GPU end, then nvidia-smi --gpu-reset",
}


def judge(states):
    for gpu in states:
        name = "%s %s" % (gpu["name"], gpu["uuid"])
        if not gpu["persistence"]:
            yield finding(
                WARNING,
                "persistence",
                name,
                "persistence mode is off: the driver unloads when idle, and each start pays for that",
                "systemctl enable --now nvidia-persistenced, or nvidia-smi -pm 1",
            )
        if gpu["mig_pending"] and gpu["mig_pending"] != gpu["mig"]:
            yield finding(
                ERROR,
                "mig",
                name,
                "MIG is %s now and %s after the next reset" % (gpu["mig"].lower(), gpu["mig_pending"].lower()),
                "stop what uses the GPU and run nvidia-smi --gpu-reset, or reboot",
            )
        elif gpu["mig"] == "Enabled":
            yield finding(
                HINT,
                "mig",
                name,
                "MIG is enabled: only its instances can be used, and each service gets one",
                "nvidia-smi -mig 0 gives the whole GPU back",
            )
        if gpu["ecc_pending"] and gpu["ecc_pending"] != gpu["ecc"]:
            yield finding(
                WARNING,
                "ecc",
                name,
                "ECC is %s now and %s after the next reset, which changes the memory there is"
                % (gpu["ecc"].lower(), gpu["ecc_pending"].lower()),
                "reboot before planning",
            )
        if gpu["repair_failed"]:
            yield finding(
                ERROR,
                "ecc",
                name,
                "memory rows could not be remapped",
                "the GPU has to be exchanged (nvidia-smi -q -d ROW_REMAPPER)",
            )
        elif gpu["repair_pending"]:
            yield finding(
                ERROR,
                "ecc",
                name,
                "bad memory waits to be taken out of use",
                "reset the GPU (nvidia-smi --gpu-reset) or reboot",
            )
        elif gpu["uncorrectable"]:
            yield finding(
                WARNING,
                "ecc",
                name,
                "%d uncorrectable memory errors since the last reset" % gpu["uncorrectable"],
                "reset the GPU (nvidia-smi --gpu-reset); when they return, run dcgmi diag -r 3",
            )
        if gpu["worn_out"]:
            yield finding(
                ERROR,
                "ecc",
                name,
                "its on-chip memory has had more uncorrectable errors than the vendor allows",
                "the GPU has to be exchanged",
            )
        if gpu["license"].startswith("Unlicensed"):
            yield finding(
                WARNING if "Unrestricted" in gpu["license"] else ERROR,
                "vgpu_license",
                name,
                "it is a virtual GPU without a licence (%s): CUDA is slowed down, then refused" % gpu["license"],
                "give the machine a client configuration token, and look at nvidia-gridd",
            )
        if gpu["recovery"]:
            yield finding(
                ERROR,
                "recovery",
                name,
                "the driver asks for: " + gpu["recovery"].lower(),
                _RECOVERY.get(gpu["recovery"].lower(), "do so before anything starts on it"),
            )
        if gpu["compute_mode"] in ("Prohibited", "Exclusive_Process"):
            yield finding(
                ERROR if gpu["compute_mode"] == "Prohibited" else WARNING,
                "compute_mode",
                name,
                "compute mode is " + gpu["compute_mode"],
                "nvidia-smi -c DEFAULT",
            )


# NVSwitches of these are in other trays: what joins their GPUs to the fabric runs there.
_FABRIC_ELSEWHERE = re.compile(r"\b(GB200|GB300|GH200)\b")
_FINE = ("", "Success")


def judge_fabric(states, observed):
    manager = observed.get("fabric_manager") or {}
    version, driver = manager.get("version"), observed.get("driver_version")
    joined = [gpu for gpu in states if gpu["fabric"]]
    unready = [gpu["uuid"] for gpu in joined if gpu["fabric"] != "Completed"]
    elsewhere = any(_FABRIC_ELSEWHERE.search(gpu["name"]) for gpu in states)
    local = bool(observed.get("nvswitches")) and not elsewhere
    inactive = manager.get("state") != "active"
    # Without switches of its own, a host's GPUs are joined by somebody else (a hypervisor, a tray of switches): whether
    # they are is what counts.
    if inactive and (local or (unready and not elsewhere)):
        yield finding(
            ERROR,
            "fabric_manager",
            "host",
            "NVSwitches join the GPUs, and nvidia-fabricmanager is %s: CUDA would fail with error 802"
            % (manager.get("state") or "not installed"),
            "install nvidia-fabricmanager in the driver's version, systemctl enable --now nvidia-fabricmanager",
        )
    elif not inactive and version and driver and version != driver and (local or joined):
        yield finding(
            ERROR,
            "fabric_manager",
            "host",
            "nvidia-fabricmanager is %s and the driver %s" % (version, driver),
            "install both in the same version and reboot",
        )
    elif unready:
        yield finding(
            ERROR,
            "fabric_manager",
            ", ".join(unready),
            "the GPU has not joined the NVLink fabric",
            "look at the fabric's controller in the switch trays, and at nvidia-imex here"
            if elsewhere
            else "systemctl restart nvidia-fabricmanager, then read its log",
        )
    for gpu in joined:
        if gpu["fabric"] == "Completed" and gpu["fabric_status"] not in _FINE:
            yield finding(
                ERROR,
                "fabric_manager",
                "%s %s" % (gpu["name"], gpu["uuid"]),
                "it was to join the NVLink fabric, which ended with: " + gpu["fabric_status"],
                "read the log of the fabric's manager, here or in the switch trays: a link or a switch is missing",
            )
        elif gpu["fabric_health"] in ("Unhealthy", "Limited Capacity"):
            yield finding(
                ERROR if gpu["fabric_health"] == "Unhealthy" else WARNING,
                "fabric_manager",
                "%s %s" % (gpu["name"], gpu["uuid"]),
                "its NVLink fabric is " + gpu["fabric_health"].lower(),
                "read the log of the fabric's manager, and nvidia-smi nvlink --status",
            )
