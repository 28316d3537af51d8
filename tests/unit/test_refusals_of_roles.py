"""Bad input ends before anything is changed, with a message that names the variable."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
GOOD = {"name": "demo", "hub": "generated", "accelerator": "cpu", "port": 18777}

pytestmark = pytest.mark.slow


def preflight(tmp_path, services, **variables):
    """What `plan.yml` and the role preflight say to these services on this machine."""
    play = tmp_path / "preflight.yml"
    play.write_text(
        json.dumps(
            [
                {"ansible.builtin.import_playbook": str(ROOT / "playbooks/plan.yml")},
                {"hosts": "all", "gather_facts": False, "roles": ["inferops.gpu_host.preflight"]},
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
        [str(PLAYBOOK), "-i", str(inventory), str(play)],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
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


def test_a_port_that_another_program_has_is_refused(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, output = preflight(tmp_path, [{**GOOD, "port": port}], preflight_engine_free_gib={"cpu": 0})
    assert code != 0
    assert f"Port {port}" in output
    assert "inference_services" in output


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
