"""playbooks/plan.yml as an operator runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def run(*arguments, **environment):
    return subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "playbooks/plan.yml", *arguments],
        cwd=ROOT,
        env=dict(os.environ, ANSIBLE_NOCOLOR="1", **environment),
        capture_output=True,
        text=True,
        check=False,
    )


def test_with_no_host_at_all(tmp_path):
    written = tmp_path / "plan.json"
    ran = run(
        *("-e", "model=deepseek-ai/DeepSeek-R1", "-e", "gpu=H20-96GB", "-e", "gpus_per_host=8", "-e", "hosts=2"),
        *("-e", f"plan_json={written}", "-e", f"plan_text={tmp_path / 'plan.txt'}"),
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Recommendation: 1 × TP 8 × PP 2 on 2 hosts of H20-96GB" in ran.stdout
    assert "805 GB" in (tmp_path / "plan.txt").read_text()
    entry = json.loads(written.read_text())["services"][0]
    assert [node["host"] for node in entry["placements"][0]["nodes"]] == ["planned1", "planned2"]


def test_from_hosts_that_exist(tmp_path):
    """The driver's answers are captured ones; the configuration lies in the models' directory."""
    directory = tmp_path / "models/own/model"
    directory.mkdir(parents=True)
    config = json.loads((ROOT / "playbooks/files/model_configs.json").read_text())["Qwen/Qwen2.5-7B-Instruct"]
    (directory / "config.json").write_text(json.dumps(config))
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "inference_models_dir": str(tmp_path / "models"),
        "inference_state_dir": str(tmp_path),
        "inference_services": [{"name": "own", "model": "own/model", "objective": "fewest_gpus"}],
    }
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"all": {"hosts": {"real": variables}}}))
    path = f"{ROOT / 'tests/stand_ins/nvidia-smi'}:{os.environ['PATH']}"
    written = tmp_path / "written.json"

    def planned():
        ran = run("-i", str(inventory), "-e", f"plan_json={written}", PATH=path, NVIDIA_SMI_CAPTURE="mixed")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return json.loads(written.read_text())["services"][0]

    # The first 4090 is in use by a stranger; the other one is enough.
    entry = planned()
    gpu = entry["placements"][0]["nodes"][0]["gpus"][0]
    assert (entry["gpu"], gpu["index"], gpu["uuid"][:4]) == ("RTX-4090", 2, "GPU-")
    # When it is the service itself that uses the first one, it stays there.
    entry["placements"][0]["nodes"][0]["gpus"] = [{"index": 1, "uuid": None}]
    (tmp_path / "plan.json").write_text(json.dumps([entry]))
    entry = planned()
    assert entry["kept"] and entry["placements"][0]["nodes"][0]["gpus"][0]["index"] == 1


def test_a_model_whose_files_are_broken_says_so(tmp_path):
    """No hub can be reached either; what the host said of its own directory must not be lost behind that."""
    directory = tmp_path / "own/model"
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors.index.json").write_text('{"weight_map": {"a": "lost.safetensors"}}')
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "inference_models_dir": str(tmp_path),
        "inference_hub_endpoint": "http://127.0.0.1:9",
        "inference_services": [{"name": "own", "model": "own/model"}],
    }
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"all": {"hosts": {"real": variables}}}))
    ran = run("-i", str(inventory))
    assert ran.returncode != 0
    assert "names 1 files that are not there: lost.safetensors" in ran.stdout
    assert "modelscope cannot be reached for own/model" in ran.stdout


def test_a_plan_that_cannot_be_shows_its_table_and_fails():
    ran = run("-e", "model=Qwen/Qwen2.5-72B-Instruct", "-e", "gpu=T4", "-e", "gpus_per_host=2")
    assert ran.returncode != 0
    assert "NOT PLACED" in ran.stdout and "no layout fits" in ran.stdout


@pytest.mark.parametrize("name", ["multi_host_ray", "single_host", "t4_cluster"])
def test_example_inventories(name):
    ran = run("-i", f"inventories/{name}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Recommendation: 1 × TP" in ran.stdout
