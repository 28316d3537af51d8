"""The module as Ansible runs it: it listens in a process of its own, and really connects."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "plugins/modules/peer_check.py"


def call(**params):
    done = subprocess.run(
        [sys.executable, str(MODULE)],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": params}),
        env={**os.environ, "PYTHONPATH": str(ROOT / "collections")},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return json.loads(done.stdout)


@pytest.fixture
def listening():
    result = call(state="listening", address="127.0.0.1", ports=[0, 0], lifetime=30)
    yield result
    call(state="closed", listener=result["listener"])


def connect(*ports, **more):
    targets = [{"host": "gpu2", "address": "127.0.0.1", "port": port} for port in ports]
    return call(state="connected", address="127.0.0.1", targets=targets, **more)["failed_targets"]


def test_what_listens_is_reached_until_it_is_closed(listening):
    ports = listening["listening"]
    assert connect(*ports) == []
    call(state="closed", listener=listening["listener"])
    assert [(target["host"], target["reason"]) for target in connect(*ports)] == [("gpu2", "refused")] * 2


def test_a_closed_port_can_be_used_at_once(listening):
    port = listening["listening"][0]
    assert connect(port, port, port) == []
    call(state="closed", listener=listening["listener"])
    with socket.socket() as service:  # without SO_REUSEADDR: a connection left behind would be in the way
        service.bind(("127.0.0.1", port))


def test_a_port_that_another_program_has_is_told():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = call(state="listening", address="127.0.0.1", ports=[port], lifetime=5)
        assert result["taken"] == [port] and result["listening"] == [] and result["listener"] == ""
        assert connect(port) == []  # it is reached all the same


def test_no_answer_is_a_timeout():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        # The kernel drops what does not fit into the queue, as a firewall does.
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        (failed,) = connect(full.getsockname()[1], timeout=1)
        for filler in fillers:
            filler.close()
    assert failed["reason"] == "timeout"


def test_closing_knows_its_own_process_from_one_that_has_its_number_now():
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    call(state="closed", listener=f"{stranger.pid}/1")
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
