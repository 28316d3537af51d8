from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from planning import PUBLISHED

from ansible_collections.inferops.gpu_host.plugins.module_utils import _bounded_command, _nvidia_smi
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.plan import plan
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


# Machines as they are


def answered(case):
    """What the module makes of a host whose nvidia-smi answers as captured, good or bad."""
    directory = CAPTURED / case
    if not (directory / "rc").exists():
        return captured(case)
    answer = _bounded_command.Answer(int((directory / "rc").read_text()), (directory / "stdout.txt").read_text(), "")
    return _nvidia_smi.fault_of(answer, 60) or _nvidia_smi.parse(answer.out)


@pytest.mark.parametrize(
    ("case", "good", "left_out"),
    [
        ("gb200-4", 4, []),
        ("gh200-1", 1, []),
        ("inforom-corrupted", 1, []),
        ("driver-470", 4, []),
        ("vgpu-unlicensed", 1, []),
        ("lost-beside-good", 1, ["GPU 1 (NVIDIA H200, GPU-00000000-0000-4000-8000-000000000002, 00000000:2A:00.0)"]),
        ("handle-beside-good", 1, ["GPU (0000:2A:00.0): the driver has no handle of it (GPU is lost."]),
        ("handle-only", 0, ["GPU (0000:3B:00.0): the driver has no handle of it (Unknown Error)"]),
        ("gb10", 0, ["GPU 0 (NVIDIA GB10, GPU-00000000-0000-4000-8000-000000000001"]),
    ],
)
def test_only_gpus_that_the_driver_can_read_are_planned_on(case, good, left_out):
    found = answered(case)
    assert len(found["gpus"]) == good
    assert all(gpu["memory_total"] and gpu["memory_free"] and gpu["uuid"] for gpu in found["gpus"])
    told = [_nvidia_smi.describe(gpu) for gpu in found["excluded"]]
    assert len(told) == len(left_out) and all(text.startswith(start) for text, start in zip(told, left_out)), told
    assert all(gpu["hint"] for gpu in found["excluded"])
    assert bool(found["reason"]) == bool(left_out)


GOOD = (CAPTURED / "h200-1/query.xml").read_text()


@pytest.mark.parametrize("words", ["ERR!", "Unknown Error", "[Unknown Error]", "GPU is lost", "[GPU is lost]"])
@pytest.mark.parametrize(
    "field", ["product_name", "uuid", "total", "free", "gpu_temp", "persistence_mode", "current_ecc", "compute_mode"]
)
def test_an_error_in_any_field_leaves_the_gpu_out(field, words):
    value = GOOD.partition(f"<{field}>")[2].partition("<")[0]
    found = _nvidia_smi.parse(GOOD.replace(f"<{field}>{value}<", f"<{field}>{words}<", 1))
    assert found["gpus"] == [] and len(found["excluded"]) == 1
    assert "driver cannot read it" in found["reason"] and "00000000:00:06.0" in found["reason"]


@pytest.mark.parametrize(
    "words", ["N/A", "[N/A]", "", "Insufficient Permissions", "-5 MiB", "9" * 5000 + " MiB", "1 GB"]
)
@pytest.mark.parametrize("field", ["total", "free"])
def test_a_gpu_of_unknown_memory_is_left_out(field, words):
    head, _, rest = GOOD.partition("<fb_memory_usage>")
    value = rest.partition(f"<{field}>")[2].partition("<")[0]
    found = _nvidia_smi.parse(
        head + "<fb_memory_usage>" + rest.replace(f">{value}</{field}>", f">{words}</{field}>", 1)
    )
    assert found["gpus"] == [] and "no size of its memory" in found["reason"]
    assert "inference_gpus" in found["hint"]


def test_what_a_process_calls_itself_spoils_no_gpu():
    processes = "<processes><process_info><pid>1</pid><process_name>ERR!</process_name></process_info></processes>"
    assert len(_nvidia_smi.parse(GOOD.replace("<processes>", processes + "<processes>", 1))["gpus"]) == 1
    for name in ("a & b", "</process_info>", "\x01\x02", "<<<"):
        broken = f"<processes><process_info><process_name>{name}</process_name></process_info></processes>"
        assert len(_nvidia_smi.parse(GOOD.replace("<processes>", broken + "<processes>", 1))["gpus"]) == 1, name


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("sleep 60", "did not answer in 1 s"),
        ("yes | head -c 20000000", "more than anybody can read"),
        ("echo '<nvidia_smi_log>'", "printed no XML"),
        ("echo 'NVIDIA-SMI has failed'; exit 9", "ended with 9"),
    ],
)
def test_an_nvidia_smi_that_hangs_or_never_stops(script, reason, tmp_path, capsys):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/bash\n" + script + "\n")
    program.chmod(0o755)
    with patch_module_args({"nvidia_smi": str(program), "timeout": 1}), pytest.raises(SystemExit):
        gpu_info.main()
    found = json.loads(capsys.readouterr().out)
    assert found["gpus"] == [] and re.search(reason, found["reason"]), found["reason"]


def test_the_module_warns_of_each_gpu_that_it_leaves_out(monkeypatch, capsys):
    warnings = []
    monkeypatch.setattr(gpu_info.RedactingModule, "warn", lambda _module, text: warnings.append(text))
    monkeypatch.setenv("NVIDIA_SMI_CAPTURE", "lost-beside-good")
    program = str(ROOT / "tests/stand_ins/nvidia-smi/nvidia-smi")
    with patch_module_args({"nvidia_smi": program}), pytest.raises(SystemExit):
        gpu_info.main()
    found = json.loads(capsys.readouterr().out)
    assert len(found["gpus"]) == len(found["excluded"]) == 1
    assert len(warnings) == 1 and warnings[0].startswith("left out: GPU 1 (NVIDIA H200")


def test_the_plan_names_the_host_and_the_gpu_that_is_missing():
    found = answered("lost-beside-good")
    host = {"name": "gpu7", "gpus": found["gpus"], "links": found["links"], "reason": found["reason"]}
    service = {"name": "s", "model": "m", "config": PUBLISHED["Qwen/Qwen2.5-7B-Instruct"]}
    for wish in ({"tensor_parallel_size": 2}, {"gpus": [1]}):
        problem = "; ".join(plan([dict(service, **wish)], [host])["problems"])
        assert "gpu7" in problem and "GPU-00000000-0000-4000-8000-000000000002" in problem, problem
