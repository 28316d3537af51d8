"""Bad input ends before anything is changed, with a message that names the variable."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
GOOD = {"name": "demo", "hub": "generated", "accelerator": "cpu", "port": 18777, "bind_address": "127.0.0.1"}

pytestmark = pytest.mark.slow


def preflight(tmp_path, services, captured=None, role="preflight", prefix=(), **variables):
    """What `plan.yml` and a role say to these services on this machine.

    captured: a directory with what nvidia-smi said once; the stand-in says it again.
    prefix: a command that runs the playbook in other circumstances.
    """
    stand_in = {}
    if captured:
        path = f"{ROOT / 'tests/stand_ins/nvidia-smi'}:{os.environ['PATH']}"
        stand_in = {
            "PATH": path,
            "NVIDIA_SMI_CAPTURED_DIR": str(captured.parent),
            "NVIDIA_SMI_CAPTURE": captured.name,
        }
    play = tmp_path / "preflight.yml"
    play.write_text(
        json.dumps(
            [
                {"ansible.builtin.import_playbook": str(ROOT / "playbooks/plan.yml")},
                {"hosts": "all", "gather_facts": False, "roles": ["inferops.gpu_host." + role]},
            ]
        )
    )
    inventory = tmp_path / "hosts.yml"
    host = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "inference_services": services,
        "inference_state_dir": str(tmp_path),
        **variables,
    }
    inventory.write_text(json.dumps({"all": {"hosts": {"localhost": host}}}))
    done = subprocess.run(
        [*prefix, str(PLAYBOOK), "-i", str(inventory), str(play)],
        cwd=ROOT,
        env={**os.environ, **stand_in, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_a_good_service_passes(tmp_path):
    code, output = preflight(tmp_path, [GOOD], preflight_engine_free_gib={"cpu": 0})
    assert code == 0, output
    assert "changed=0" in output


@pytest.mark.parametrize(
    ("services", "words"),
    [
        ([{**GOOD, "prot": 8000}], ["'prot'", "port"]),
        ([GOOD, {**GOOD, "port": 18778}], ["demo", "name"]),
        ([GOOD, {**GOOD, "name": "other"}], ["18777", "demo", "other"]),
        ([{**GOOD, "port": 99999}], ["port is 99999"]),
    ],
    ids=["unknown key", "same name", "same port", "impossible port"],
)
def test_services_that_cannot_be_are_refused_by_name(tmp_path, services, words):
    code, output = preflight(tmp_path, services)
    assert code != 0
    for word in words:
        assert word in output


def test_a_user_who_is_not_root_is_refused(tmp_path):
    # In a user namespace of its own the play may read what it could, and is nobody.
    code, output = preflight(tmp_path, [GOOD], prefix=["unshare", "--user"])
    assert code != 0
    assert "The play acts as nobody on localhost, wanted root." in output
    assert "ansible_become" in output


def test_an_engine_that_does_not_answer_is_named(tmp_path):
    prefix = ["env", f"DOCKER_HOST=unix://{tmp_path}/none.sock"]
    code, output = preflight(tmp_path, [GOOD], role="container_image", prefix=prefix)
    assert code != 0
    assert "No container engine answers on localhost" in output
    assert "playbooks/host.yml" in output


def test_a_port_that_another_program_has_is_refused(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, output = preflight(tmp_path, [{**GOOD, "port": port}], preflight_engine_free_gib={"cpu": 0})
    assert code != 0
    assert f"Port {port}" in output
    assert "inference_services" in output


def test_a_service_whose_open_routes_others_would_reach_is_refused_before_anything_is_done(tmp_path):
    wide = {**GOOD, "bind_address": "0.0.0.0"}
    code, output = preflight(tmp_path, [wide])
    assert code != 0
    # The plan has said so already, and the refusal names both cures.
    assert "Access: WARNING: site.yml will refuse it" in output
    assert output.count("bind_address: 127.0.0.1") >= 2 and output.count("inference_open_routes: accept") >= 2
    space = {"preflight_engine_free_gib": {"cpu": 0}}
    code, output = preflight(tmp_path, [wide], inference_open_routes="accept", **space)
    assert code == 0 and "WARNING: site.yml will refuse" not in output, output
    code, output = preflight(tmp_path, [{**wide, "api_key": "none"}], **space)
    assert code == 0 and "demo is OPEN on 0.0.0.0: whoever reaches its port can use it without a key" in output, output
    code, output = preflight(tmp_path, [wide], inference_open_routes="yes")
    assert code != 0 and "refuse, accept" in output


def test_an_unsupported_system_is_refused_and_can_be_allowed(tmp_path):
    code, output = preflight(tmp_path, [GOOD], preflight_supported_systems={"Plan9": ["4"]})
    assert code != 0
    assert "preflight_allow_unsupported_system" in output


def test_a_full_disk_is_refused_with_the_figures(tmp_path):
    wanted = {"preflight_engine_free_gib": {"cpu": 10**6}, "preflight_engine_dir": str(tmp_path / "not/there/yet")}
    code, output = preflight(tmp_path, [GOOD], **wanted)
    assert code != 0
    assert "wanted 1000000 GiB" in output
    assert "preflight_engine_free_gib" in output


CONFIGS = json.loads((ROOT / "playbooks/files/model_configs.json").read_text())
CAPTURED = ROOT / "tests/captured/nvidia-smi"
NO_SPACE_WANTED = {"preflight_engine_free_gib": {"cuda": 0}, "preflight_allow_root_filesystem": True}


def gpu_service(model):
    return {"name": "demo", "model": model, "config": CONFIGS[model], "port": 18777, "bind_address": "127.0.0.1"}


SMALL = gpu_service("Qwen/Qwen2.5-7B-Instruct")


def h200(tmp_path, **replaced):
    """A host with an H200 of which nvidia-smi says something else than it did."""
    captured = tmp_path / "captured/h200"
    shutil.copytree(CAPTURED / "h200-1", captured)
    query = captured / "query.xml"
    for tag, value in replaced.items():
        text, count = re.subn(f"<{tag}>[^<]*</{tag}>", f"<{tag}>{value}</{tag}>", query.read_text())
        assert count
        query.write_text(text)
    return captured


def test_what_is_wrong_with_the_gpus_stops_the_play_unless_it_is_waived_by_name(tmp_path):
    captured = h200(tmp_path, driver_version="550.54.15", cuda_version="12.4", persistence_mode="Disabled")
    settings = {**NO_SPACE_WANTED, "preflight_models_dir": str(tmp_path)}
    code, output = preflight(tmp_path, [SMALL], captured, **settings)
    assert code != 0
    assert "demo: its image has CUDA 13.0, which needs driver 580.65.06; the driver is 550.54.15" in output
    assert "Remedy: upgrade the driver" in output
    assert "preflight_gpu_waive: [cuda]" in output
    assert "[WARNING]: warning: NVIDIA H200" in output
    assert "persistence mode is off" in output

    code, output = preflight(tmp_path, [SMALL], captured, **settings, preflight_gpu_waive=["cuda"])
    assert code == 0, output
    assert "needs driver 580.65.06" in output
    assert "changed=0" in output


def test_models_on_the_root_filesystem_are_refused_with_the_figures(tmp_path):
    wanted = {**NO_SPACE_WANTED, "inference_data_dir": "/nowhere", "preflight_allow_root_filesystem": False}
    code, output = preflight(tmp_path, [SMALL], CAPTURED / "h200-1", **wanted)
    assert code != 0
    assert "/nowhere/models/Qwen/Qwen2.5-7B-Instruct (weights of Qwen/Qwen2.5-7B-Instruct, 14.19 GiB)" in output
    assert "would lie on the root filesystem" in output
    assert "model_weights_allow_root_filesystem: true" in output

    disks = [{"serial": "one", "format": True, "mountpoint": "/nowhere"}]
    code, output = preflight(tmp_path, [SMALL], CAPTURED / "h200-1", **wanted, storage_disks=disks)
    assert code == 0, output


def test_models_that_do_not_fit_are_refused_with_the_figures(tmp_path):
    big = gpu_service("deepseek-ai/DeepSeek-R1")
    code, output = preflight(tmp_path, [{**big, "accelerator": "cpu"}], **NO_SPACE_WANTED, inference_memory=10**13)
    assert code != 0
    assert re.search(
        r"has [\d.]+ \w+ free of .*, and 6\d\d.\d GiB more are needed: weights of deepseek-ai/DeepSeek-R1", output
    )
