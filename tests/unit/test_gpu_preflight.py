from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.inferops.gpu_host.plugins.module_utils import _gpu_preflight as preflight
from ansible_collections.inferops.gpu_host.plugins.modules import gpu_preflight

CAPTURED = Path(__file__).resolve().parents[1] / "captured/nvidia-smi"
UUID = "GPU-00000000-0000-4000-8000-000000000001"  # of the H200


def observed(capture, **others):
    """A healthy host whose nvidia-smi answers as captured."""
    directory = CAPTURED / capture
    failed = (directory / "rc").exists()
    seen = {
        "smi_rc": int((directory / "rc").read_text()) if failed else 0,
        "smi": (directory / ("stdout.txt" if failed else "query.xml")).read_text(),
        "compute_capabilities": "" if failed else (directory / "compute_cap.csv").read_text(),
        "nvidia_pci_devices": ["0x0302"],
        "fabric_manager": {"state": "active", "version": ""},
    }
    return dict(seen, **others)


def changed(capture, *replacements, **others):
    """The same after one thing has changed in what nvidia-smi says."""
    seen = observed(capture, **others)
    for old, new in replacements:
        assert old in seen["smi"]
        seen["smi"] = seen["smi"].replace(old, new)
    return seen


def brief(found):
    return [(item["severity"], item["check"], item["subject"]) for item in found]


def one(found):
    assert len(found) == 1, found
    assert found[0]["remedy"]
    return found[0]


def test_a_healthy_host_has_nothing_to_say():
    service = {"name": "s", "image": "vllm/vllm-openai:v0.33.0", "dtype": "bfloat16", "quantization": "fp8"}
    assert preflight.findings(observed("h200-1"), [service]) == []


def test_cpu_services_need_no_gpu():
    assert preflight.findings({"smi_rc": None}, [{"name": "s", "accelerator": "cpu"}]) == []


@pytest.mark.parametrize(
    ("seen", "check", "words"),
    [
        ({"smi_rc": None, "nvidia_pci_devices": []}, "gpu", "no NVIDIA device is on the PCI bus"),
        ({"smi_rc": None, "nvidia_pci_devices": ["0x0302"] * 8}, "driver", "8 NVIDIA devices, but no driver"),
        (observed("library-mismatch"), "driver", "driver/library version mismatch"),
        (observed("no-driver"), "driver", "installed but not loaded"),
        (observed("no-devices"), "driver", "finds no GPU"),
    ],
)
def test_without_a_working_driver_that_is_all_there_is_to_say(seen, check, words):
    finding = one(preflight.findings(seen, [{"name": "s", "dtype": "bfloat16"}]))
    assert (finding["severity"], finding["check"]) == ("error", check)
    assert words in finding["found"]


# Both texts as the drivers print them.
OPEN_MODULE = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build\nGCC"
CLOSED_MODULE = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC"


def test_the_version_of_the_loaded_kernel_module():
    assert preflight.kernel_module_version(OPEN_MODULE) == "580.159.04"
    assert preflight.kernel_module_version(CLOSED_MODULE) == "535.183.01"
    assert preflight.findings(observed("h200-1", kernel_module=OPEN_MODULE)) == []
    finding = one(preflight.findings(observed("h200-1", kernel_module=CLOSED_MODULE)))
    assert "535.183.01" in finding["found"] and finding["remedy"] == "reboot the host"


@pytest.mark.parametrize(
    ("service", "cuda"),
    [
        ({"image": "vllm/vllm-openai:v0.33.0"}, "13.0"),
        ({"image": "registry.lan/vllm/vllm-openai:v0.19.1-x86_64"}, "12.9"),
        ({"image": "vllm/vllm-openai:v0.11.0"}, "12.8"),
        ({"image": "vllm/vllm-openai:v0.6.4.post1"}, ""),
        ({"image": "vllm/vllm-openai:latest"}, ""),
        ({"image": "vllm/vllm-openai:latest", "engine_version": "0.8.5"}, "12.4"),
        ({"image": "own/image:1", "engine_version": "0.33.0"}, ""),
        ({"image": "own/image:1", "image_cuda": "12.1"}, "12.1"),
        ({"engine_version": "0.26.0"}, "13.0"),
        ({}, ""),
    ],
)
def test_the_cuda_of_an_image(service, cuda):
    assert preflight.image_cuda(service) == cuda


@pytest.mark.parametrize(
    ("capture", "driver", "newest", "image_cuda", "severity", "remedy"),
    [
        ("h200-1", "580.159.04", "13.0", "13.0", None, ""),
        ("h200-1", "570.124.06", "12.8", "12.9", "warning", "PTX was compiled"),
        ("h200-1", "570.124.06", "12.8", "13.0", "warning", "VLLM_ENABLE_CUDA_COMPATIBILITY"),
        ("h200-1", "550.54.15", "12.4", "13.0", "error", "CUDA 12.4 or older"),
        ("mixed", "570.124.06", "12.8", "13.0", "error", "upgrade the driver"),  # GeForce cards cannot translate
        ("h200-1", "525.60.13", "12.0", "12.9", "warning", "upgrade the driver"),
        ("h200-1", "470.256.02", "11.4", "12.1", "error", "upgrade the driver"),
    ],
)
def test_driver_against_the_cuda_of_the_image(capture, driver, newest, image_cuda, severity, remedy):
    seen = observed(capture)
    for tag, value in (("driver_version", driver), ("cuda_version", newest)):
        head, _, rest = seen["smi"].partition(f"<{tag}>")
        seen["smi"] = head + f"<{tag}>{value}" + rest[rest.index(f"</{tag}>") :]
    found = [
        item for item in preflight.findings(seen, [{"name": "s", "image_cuda": image_cuda}]) if item["check"] == "cuda"
    ]
    if severity is None:
        assert found == []
    else:
        assert one(found)["severity"] == severity
        assert remedy in found[0]["remedy"]


@pytest.mark.parametrize(
    ("capture", "service", "expected"),
    [
        ("t4-4-pcie", {"dtype": "bfloat16"}, ("error", "dtype")),
        ("t4-4-pcie", {"dtype": "float16"}, None),
        ("t4-4-pcie", {"quantization": "awq_marlin"}, None),
        ("t4-4-pcie", {"quantization": "mxfp4"}, ("error", "quantization")),
        ("t4-4-pcie", {"quantization": "fp8"}, ("hint", "quantization")),
        ("h200-1", {"quantization": "fp8"}, None),
        ("h200-1", {"quantization": "modelopt_fp4"}, ("hint", "quantization")),
        ("h200-1", {"quantization": "something-new"}, None),
    ],
)
def test_dtype_and_quantization_against_compute_capability(capture, service, expected):
    found = [
        item for item in preflight.findings(observed(capture), [dict(service, name="s")]) if item["subject"] == "s"
    ]
    if expected is None:
        assert found == []
    else:
        assert (one(found)["severity"], found[0]["check"]) == expected


def test_only_the_gpus_of_the_service_count():
    listing = preflight.health((CAPTURED / "mixed/query.xml").read_text())
    geforce = [gpu["uuid"] for gpu in listing if "4090" in gpu["name"]]
    a100 = [gpu["uuid"] for gpu in listing if "A100" in gpu["name"]]
    for gpus, hints in ((geforce, 0), (a100, 1)):
        found = preflight.findings(observed("mixed"), [{"name": "s", "quantization": "fp8", "gpus": gpus}])
        assert len([item for item in found if item["check"] == "quantization"]) == hints


@pytest.mark.parametrize(
    ("replacement", "severity", "check", "words"),
    [
        (("<persistence_mode>Enabled", "<persistence_mode>Disabled"), "warning", "persistence", "off"),
        (("<pending_mig>Disabled", "<pending_mig>Enabled"), "error", "mig", "disabled now and enabled after"),
        (("<pending_ecc>Enabled", "<pending_ecc>Disabled"), "warning", "ecc", "enabled now and disabled after"),
        (("<remapped_row_pending>No", "<remapped_row_pending>Yes"), "error", "ecc", "taken out of use"),
        (("<remapped_row_failure>No", "<remapped_row_failure>Yes"), "error", "ecc", "could not be remapped"),
        (("<pending_retirement>N/A", "<pending_retirement>Yes"), "error", "ecc", "taken out of use"),
        (("<dram_uncorrectable>0", "<dram_uncorrectable>3"), "warning", "ecc", "3 uncorrectable"),
        (("<gpu_recovery_action>None", "<gpu_recovery_action>Reset"), "error", "recovery", "reset"),
        (("<compute_mode>Default", "<compute_mode>Prohibited"), "error", "compute_mode", "Prohibited"),
    ],
)
def test_what_is_wrong_with_a_gpu(replacement, severity, check, words):
    finding = one(preflight.findings(changed("h200-1", replacement)))
    assert (finding["severity"], finding["check"]) == (severity, check)
    assert words in finding["found"]
    assert UUID in finding["subject"]


def test_mig_that_is_in_use_is_only_mentioned():
    found = [item for item in preflight.findings(observed("mig")) if item["check"] == "mig"]
    assert {item["severity"] for item in found} == {"hint"}


@pytest.mark.parametrize(
    ("manager", "state", "words"),
    [
        ({"state": "active", "version": "580.159.04"}, "Completed", None),
        ({"state": "", "version": ""}, "Completed", "not installed"),
        ({"state": "failed", "version": "580.159.04"}, "In Progress", "failed"),
        ({"state": "active", "version": "570.124.06"}, "Completed", "570.124.06 and the driver 580.159.04"),
        ({"state": "active", "version": "580.159.04"}, "In Progress", "not joined"),
    ],
)
def test_the_fabric_manager(manager, state, words):
    replacement = ("<fabric>\n\t\t\t<state>N/A", "<fabric>\n\t\t\t<state>" + state)
    seen = changed("h200-1", replacement, fabric_manager=manager, nvswitches=4)
    found = preflight.findings(seen)
    if words is None:
        assert found == []
    else:
        assert one(found)["check"] == "fabric_manager"
        assert words in found[0]["found"]


LSPCI = """\
3a:00.0 PCI bridge: Broadcom / LSI PEX880xx PCIe Gen 4 Switch (rev b0) (prog-if 00 [Normal decode])
\tCapabilities: [f24 v1] Access Control Services
\t\tACSCap:\tSrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl+ DirectTrans+
\t\tACSCtl:\tSrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-
3b:00.0 PCI bridge: Broadcom / LSI PEX880xx PCIe Gen 4 Switch (rev b0) (prog-if 00 [Normal decode])
\tCapabilities: [f24 v1] Access Control Services
\t\tACSCap:\tSrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl+ DirectTrans+
\t\tACSCtl:\tSrcValid- TransBlk- ReqRedir- CmpltRedir- UpstreamFwd- EgressCtrl- DirectTrans-
"""


def test_what_slows_traffic_between_gpus():
    assert preflight.acs_bridges(LSPCI) == ["3a:00.0"]
    slow = {"acs_bridges": ["3a:00.0"], "iommu": True, "kernel_command_line": "quiet"}
    hints = [item["check"] for item in preflight.findings(observed("t4-4-pcie", **slow)) if item["severity"] == "hint"]
    assert hints == ["acs", "iommu"]
    passed_through = dict(slow, acs_bridges=[], kernel_command_line="quiet intel_iommu=on iommu=pt")
    assert not [
        item for item in preflight.findings(observed("t4-4-pcie", **passed_through)) if item["check"] == "iommu"
    ]
    # One GPU has nobody to talk to.
    assert preflight.findings(observed("h200-1", **slow)) == []


def test_the_worst_comes_first_and_reads_as_a_line():
    seen = changed("h200-1", ("<persistence_mode>Enabled", "<persistence_mode>Disabled"))
    found = preflight.findings(
        seen, [{"name": "s", "image_cuda": "14.0", "dtype": "bfloat16"}, {"name": "t", "image_cuda": "13.0"}]
    )
    assert [item["severity"] for item in found] == sorted((item["severity"] for item in found), key=preflight._RANK.get)
    assert preflight.describe(found[-1]).startswith("warning: ")
    assert ". Remedy: " in preflight.describe(found[-1])


# Machines as they are


def told(capture, services=(), **others):
    """(severity, check, what was found) of a captured host, whether its nvidia-smi fails or not."""
    seen = dict(observed(capture, **others))
    return [(item["severity"], item["check"], item["found"]) for item in preflight.findings(seen, services)]


@pytest.mark.parametrize("capture", ["gb200-4", "gh200-1"])
def test_a_fabric_that_is_managed_elsewhere_wants_no_manager_here(capture):
    for manager in ({"state": "", "version": ""}, {"state": "inactive", "version": "580.159.04"}):
        assert told(capture, fabric_manager=manager) == []
    seen = changed(capture, ("<state>Completed", "<state>In Progress"), fabric_manager={"state": ""})
    assert "switch trays" in one(preflight.findings(seen))["remedy"]


def test_a_guest_whose_hypervisor_joined_the_gpus_wants_no_manager():
    seen = changed("h200-1", ("<fabric>\n\t\t\t<state>N/A", "<fabric>\n\t\t\t<state>Completed"), fabric_manager={})
    assert preflight.findings(seen) == []


def test_a_gpu_that_the_fabric_had_no_room_for():
    finding = one(preflight.findings(observed("fabric-resources", nvswitches=4)))
    assert (finding["severity"], finding["check"]) == ("error", "fabric_manager")
    assert "Insufficient Resources" in finding["found"]
    assert "GPU-00000000-0000-4000-8000-000000000002" in finding["subject"]


@pytest.mark.parametrize("health", [("Unhealthy", "error"), ("Limited Capacity", "warning")])
def test_a_fabric_that_says_it_is_ill(health):
    seen = observed("fabric-resources", nvswitches=4)
    seen["smi"] = (
        seen["smi"].replace("Insufficient Resources", "Success").replace("<summary>N/A", "<summary>" + health[0])
    )
    assert {item["severity"] for item in preflight.findings(seen)} == {health[1]}


@pytest.mark.parametrize(
    ("capture", "check", "words"),
    [
        ("lost-beside-good", "gpu", "GPU-00000000-0000-4000-8000-000000000002, 00000000:2A:00.0): the driver cannot"),
        ("handle-beside-good", "gpu", "GPU (0000:2A:00.0): the driver has no handle"),
        ("handle-only", "driver", "GPU (0000:3B:00.0): the driver has no handle"),
        ("gb10", "gpu", "NVIDIA GB10"),
        ("vgpu-unlicensed", "vgpu_license", "Unlicensed (Restricted)"),
    ],
)
def test_what_keeps_services_from_a_gpu_is_an_error_that_names_it(capture, check, words):
    severity, found_check, found = one_of(told(capture))
    assert (severity, found_check) == ("error", check) and words in found


def one_of(found):
    assert len(found) == 1, found
    return found[0]


def test_a_planned_gpu_that_is_not_fit_any_more():
    lost = "GPU-00000000-0000-4000-8000-000000000002"
    found = told("lost-beside-good", [{"name": "chat", "gpus": [lost]}])
    assert ("error", "gpu", f"it is planned on {lost}, which nvidia-smi does not show as fit for use") in found
    assert len(told("lost-beside-good", [{"name": "chat", "gpus": [UUID]}])) == 1


def test_a_corrupted_inforom_is_a_warning_and_the_rest_is_read():
    severity, check, _found = one_of(told("inforom-corrupted"))
    assert (severity, check) == ("warning", "inforom")
    both = told("inforom-corrupted", [{"name": "s", "image_cuda": "14.0"}])
    assert [check for _severity, check, _found in both] == ["inforom", "cuda"]


def test_a_driver_that_prints_broken_xml_is_judged_like_any_other():
    finding = one(preflight.findings(observed("driver-470"), [{"name": "s", "image_cuda": "12.8"}]))
    assert finding["check"] == "cuda" and "470.256.02" in finding["found"]


def test_memory_that_waits_for_a_repair_and_what_the_driver_asks_for():
    found = preflight.findings(observed("memory-to-repair"))
    assert (
        sorted((item["severity"], item["check"]) for item in found)
        == [("error", "ecc")] * 3 + [("error", "recovery")] * 2
    )
    remedies = " ".join(item["remedy"] for item in found)
    assert "spans several GPUs" in remedies and "exchanged" in remedies and "--gpu-reset" in remedies


@pytest.mark.parametrize(
    ("replacement", "severity", "check"),
    [
        (("<channel_repair_pending>No", "<channel_repair_pending>Yes"), "error", "ecc"),
        (("<tpc_repair_pending>No", "<tpc_repair_pending>Yes"), "error", "ecc"),
        (("<unrepairable_memory>No", "<unrepairable_memory>Yes"), "error", "ecc"),
        (("<sram_threshold_exceeded>No", "<sram_threshold_exceeded>Yes"), "error", "ecc"),
        (("<gpu_recovery_action>None", "<gpu_recovery_action>Reboot"), "error", "recovery"),
        (("<gpu_recovery_action>None", "<gpu_recovery_action>Drain and Reset"), "error", "recovery"),
    ],
)
def test_what_newer_drivers_say_of_memory(replacement, severity, check):
    finding = one(preflight.findings(changed("h200-1", replacement)))
    assert (finding["severity"], finding["check"]) == (severity, check)


@pytest.mark.parametrize(("script", "words"), [("sleep 60", "did not answer"), ("yes", "more than anybody can read")])
def test_the_module_does_not_wait_for_an_nvidia_smi_that_hangs(script, words, tmp_path, monkeypatch, capsys):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nexec {script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(gpu_preflight, "SECONDS", 0.5 if script != "yes" else 20)
    with patch_module_args({}), pytest.raises(SystemExit):
        gpu_preflight.main()
    assert words in json.loads(capsys.readouterr().out)["errors"][0]
