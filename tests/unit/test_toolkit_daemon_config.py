"""What the toolkit's role asks of Docker, on engines of every age: CDI, and the protection from GPUs that vanish."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
ROLE = ROOT / "roles/nvidia_container_toolkit"

pytestmark = pytest.mark.slow

CGROUPFS = ["native.cgroupdriver=cgroupfs"]
NEW, OLD, ANCIENT = "28.5.1", "27.5.1", "20.10.24"


def engine(version, cgroups="2", manager="systemd"):
    return {"installed": True, "version": version, "manager": manager, "info": {"CgroupVersion": cgroups}}


# (the engine, what the operator set) → (features, exec-opts)
CASES = [
    ((engine(NEW), {}), (None, None)),
    ((engine(OLD), {}), (None, CGROUPFS)),
    ((engine(ANCIENT), {}), (None, CGROUPFS)),
    ((engine(OLD, cgroups="1"), {}), (None, None)),
    ((engine(OLD, manager="direct"), {}), (None, None)),
    ((engine(OLD), {"reload_protection": "none"}), (None, None)),
    ((engine(NEW), {"reload_protection": "cgroupfs"}), (None, CGROUPFS)),
    ((engine(OLD), {"cdi": "enabled"}), ({"cdi": True}, None)),
    ((engine(NEW), {"cdi": "disabled"}), ({"cdi": False}, CGROUPFS)),
    # What is not installed yet will be new; check mode knows no more.
    (({"installed": False, "version": "", "manager": "systemd", "info": {}}, {}), (None, None)),
]


@pytest.fixture(scope="module")
def daemon_configs(tmp_path_factory):
    """The rendered settings of all cases, by one run of Ansible."""
    directory = tmp_path_factory.mktemp("toolkit")
    tasks = []
    for (found, chosen), _expected in CASES:
        variables = {f"nvidia_container_toolkit_{name}": value for name, value in chosen.items()}
        both = "[__nvidia_container_toolkit_daemon_config, __nvidia_container_toolkit_rootless_config]"
        tasks.append(
            {
                "ansible.builtin.set_fact": {"seen": "{{ seen | default([]) + [%s] }}" % both},
                "vars": dict(variables, __nvidia_container_toolkit_engine=found),
            }
        )
    tasks.append({"ansible.builtin.copy": {"dest": str(directory / "seen"), "content": "{{ seen | to_json }}"}})
    files = [str(ROLE / "defaults/main.yml"), str(ROLE / "vars/main.yml")]
    play = {"hosts": "localhost", "gather_facts": False, "vars_files": files, "tasks": tasks}
    (directory / "play.yml").write_text(json.dumps([play]))
    subprocess.run(
        [str(PLAYBOOK), "-i", "localhost,", "-c", "local", str(directory / "play.yml")],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_PYTHON_INTERPRETER": sys.executable},
        check=True,
        capture_output=True,
    )
    seen = json.loads((directory / "seen").read_text())
    return lambda number, kind: seen[number][["daemon", "rootless"].index(kind)]


@pytest.mark.parametrize(("number", "expected"), [(n, case[1]) for n, case in enumerate(CASES)])
def test_cdi_and_the_protection_fit_the_engine(daemon_configs, number, expected):
    config = daemon_configs(number, "daemon")
    assert (config.get("features"), config.get("exec-opts")) == expected
    assert config["runtimes"]["nvidia"]["path"] == "nvidia-container-runtime"


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_rootless_engine_has_the_runtime_alone(daemon_configs, number):
    config = daemon_configs(number, "rootless")
    assert config["runtimes"]["nvidia"]["path"] == "nvidia-container-runtime"
    assert not {"exec-opts", "features", "cdi-spec-dirs"} & set(config)
