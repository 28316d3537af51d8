from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.inferops.gpu_host.plugins.module_utils import _nvidia_smi
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB
from ansible_collections.inferops.gpu_host.plugins.modules import gpu_info

ROOT = Path(__file__).resolve().parents[2]
CAPTURED = ROOT / "tests/captured/nvidia-smi"


def captured(case):
    texts = ("query.xml", "compute_cap.csv", "list.txt", "topology.txt")
    return _nvidia_smi.parse(*[(CAPTURED / case / text).read_text() for text in texts])


def test_eight_h20_on_nvlink():
    found = captured("h20-8-nvlink")
    assert [gpu["index"] for gpu in found["gpus"]] == list(range(8))
    first = found["gpus"][0]
    assert first["model"] == "H20-96GB"
    assert first["uuid"].startswith("GPU-")
    assert first["pci_bus_id"] == "00000000:0F:00.0"
    assert (first["memory_total"], first["memory_free"]) == (97871 * MIB, 97293 * MIB)
    assert first["compute_capability"] == 9.0
    assert (found["driver_version"], found["cuda_version"]) == ("580.95.05", "13.0")
    assert set(found["links"]["3"].values()) == {"NV18"} and len(found["links"]["3"]) == 7
    assert found["reason"] is None


def test_four_t4_on_pcie():
    found = captured("t4-4-pcie")
    assert {gpu["compute_capability"] for gpu in found["gpus"]} == {7.5}
    assert found["links"]["0"] == {"1": "NODE", "2": "SYS", "3": "SYS"}


def test_mixed_gpus_keep_their_own_figures():
    found = captured("mixed")
    assert [gpu["model"] for gpu in found["gpus"]] == ["A100-80GB", "RTX-4090", "RTX-4090"]
    busy = found["gpus"][1]
    assert busy["processes"] == [
        {
            "pid": 41233,
            "type": "C",
            "name": "/usr/bin/python3",
            "memory_used": 18190 * MIB,
            "gpu_instance_id": None,
        }
    ]
    assert busy["memory_free"] == 5899 * MIB


def test_mig_instances_have_their_own_uuid_and_memory():
    cut, whole = captured("mig")["gpus"]
    assert (cut["mig_enabled"], whole["mig_enabled"]) == (True, False)
    assert [device["memory_total"] // MIB for device in cut["mig_devices"]] == [40192, 19968, 9728]
    assert cut["mig_devices"][2]["uuid"] == "MIG-9a3d3e60-11f0-5c09-b9e7-1b6de34be303"
    assert whole["mig_devices"] == []


@pytest.mark.parametrize(
    ("case", "reason", "hint"),
    [
        ("no-driver", "not loaded", "modprobe"),
        ("library-mismatch", "driver was upgraded", "reboot"),
        ("no-devices", "finds no GPU", "lspci"),
    ],
)
def test_why_there_is_no_gpu(case, reason, hint):
    rc = int((CAPTURED / case / "rc").read_text())
    found = _nvidia_smi.explain_failure(rc, (CAPTURED / case / "stdout.txt").read_text(), "")
    assert found["gpus"] == []
    assert reason in found["reason"] and hint in found["hint"]


def test_an_unknown_failure_is_passed_on():
    assert _nvidia_smi.explain_failure(3, "", "boom\nmore")["reason"] == "nvidia-smi ended with 3: boom"


def test_output_that_is_no_xml():
    assert "printed no XML" in _nvidia_smi.parse("Segmentation fault")["reason"]


def test_a_driver_too_old_to_know_compute_cap_is_helped_by_the_catalogue():
    query = (CAPTURED / "t4-4-pcie/query.xml").read_text()
    found = _nvidia_smi.parse(query, 'Field "compute_cap" is not a valid field to query.\n')
    assert found["gpus"][0]["compute_capability"] == 7.5
    assert found["links"] == {}


@pytest.mark.parametrize(("case", "count"), [("h20-8-nvlink", 8), ("mig", 2), ("library-mismatch", 0), (None, 0)])
def test_the_module_answers_like_the_parser(case, count, tmp_path, monkeypatch, capsys):
    program = str(ROOT / "tests/stand_ins/nvidia-smi/nvidia-smi") if case else str(tmp_path / "nvidia-smi")
    monkeypatch.setenv("NVIDIA_SMI_CAPTURE", str(case))
    with patch_module_args({"nvidia_smi": program}), pytest.raises(SystemExit):
        gpu_info.main()
    found = json.loads(capsys.readouterr().out)
    assert len(found["gpus"]) == count
    assert found["changed"] is False
    assert bool(found["reason"]) == (count == 0)
