"""host.yml goes host by host where it may restart an engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"

pytestmark = pytest.mark.slow


def batches(tmp_path, tags, *arguments, **first):
    """How often the play that prepares engines begins for three hosts, of which the first has variables of its own."""
    inventory = tmp_path / "hosts.yml"
    hosts = {"one": first, "two": {}, "three": {}}
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory.write_text(json.dumps({"all": {"hosts": hosts, "vars": local}}))
    done = subprocess.run(
        [str(PLAYBOOK), "-i", str(inventory), "playbooks/host.yml", "--check", "--tags", tags, *arguments],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.count("PLAY [Prepare the container engines]")


@pytest.mark.parametrize(("serial", "expected"), [(None, 3), ("2", 2), ("100%", 1)])
def test_engines_are_prepared_one_host_at_a_time_unless_told_otherwise(tmp_path, serial, expected):
    assert batches(tmp_path, "nothing", *(["-e", f"inference_serial={serial}"] if serial else [])) == expected


def test_no_further_host_is_touched_when_one_fails(tmp_path):
    assert batches(tmp_path, "docker_nothing", docker_provider="nonsense") == 1
