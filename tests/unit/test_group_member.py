"""The program that ties the containers of a group together, as it runs in them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "roles/peers/files/group_member.py"
SERVES = [sys.executable, "-c", "import time; print('serving', flush=True); time.sleep(60)"]


class Member:
    def __init__(self, port, rank, command=SERVES, members=2, token="t"):
        addresses = ",".join(["127.0.0.1"] * members)
        options = ["--name", "demo", "--rank", str(rank), "--members", addresses, "--port", str(port)]
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *options, "--", *command],
            env={**os.environ, "INFEROPS_GROUP_TOKEN": token},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.log = ""

    def until(self, words, seconds=20):
        """Reads the log until the words come."""
        deadline = time.monotonic() + seconds
        while words not in self.log:
            line = self.process.stdout.readline()
            assert line and time.monotonic() < deadline, f"{words!r} is not in {self.log!r}"
            self.log += line

    def ended(self, seconds=20):
        code = self.process.wait(seconds)
        self.log += self.process.stdout.read()
        return code


@pytest.fixture
def start():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    members = []

    def one(rank, **more):
        members.append(Member(port, rank, **more))
        return members[-1]

    yield one
    for member in members:
        member.process.kill()
        member.process.wait()


@pytest.fixture
def pair(start):
    head, worker = start(0), start(1)
    head.until("serving")
    worker.until("serving")
    return head, worker


def test_nobody_starts_before_all_are_there(start):
    head, first = start(0, members=3), start(1, members=3)
    head.until("waits for")
    first.until("waits for")
    assert "serving" not in head.log + first.log
    last = start(2, members=3)
    for member in (head, first, last):
        member.until("serving")


@pytest.mark.parametrize("lost", [0, 1])
def test_one_that_vanishes_takes_all_along(pair, lost):
    pair[lost].process.kill()
    survivor = pair[1 - lost]
    assert survivor.ended() != 0
    assert "the whole group starts anew" in survivor.log


def test_one_whose_command_fails_takes_all_along(start):
    head = start(0)
    worker = start(1, command=[sys.executable, "-c", "raise SystemExit(3)"])
    assert worker.ended() == 3
    assert head.ended() != 0
    assert "rank 1 at 127.0.0.1 is gone" in head.log


def test_one_that_starts_anew_is_not_overlooked(pair, start):
    """The old connection may hang for half a minute after a host lost its power."""
    start(1)
    assert pair[0].ended() != 0
    assert "has started anew" in pair[0].log


def test_other_options_do_not_join(start):
    head, stranger = start(0), start(1, token="other")
    stranger.until("other options")
    head.until("other options")
    assert "serving" not in head.log + stranger.log


def test_strangers_do_not_disturb(pair):
    port = int(pair[0].process.args[pair[0].process.args.index("--port") + 1])
    with socket.create_connection(("127.0.0.1", port)) as scanner:
        scanner.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert scanner.recv(100) == b""
    assert pair[0].process.poll() is None and pair[1].process.poll() is None


@pytest.mark.parametrize(
    "words", [b"demo t \xc2\xb2\n", b"demo t 99\n", b"demo t 0\n", b"demo t -1\n", b"demo \xff 1\n", b"\n"]
)
def test_a_rank_that_does_not_exist_does_not_disturb(pair, words):
    port = int(pair[0].process.args[pair[0].process.args.index("--port") + 1])
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(words)
        with contextlib.suppress(ConnectionResetError):
            while stranger.recv(100):
                pass
    assert pair[0].process.poll() is None and pair[1].process.poll() is None


def test_asked_to_stop_it_lets_the_command_end(start):
    says = "import signal, time; signal.signal(15, lambda *_: exit(0)); print('serving', flush=True); time.sleep(60)"
    head, worker = start(0, command=[sys.executable, "-c", says]), start(1)
    head.until("serving")
    head.process.send_signal(signal.SIGTERM)
    assert head.ended() == 0
    assert worker.ended() != 0


def test_a_member_that_waits_can_be_stopped(start):
    head = start(0)
    head.until("waits for")
    head.process.send_signal(signal.SIGTERM)
    assert head.ended() == 128 + signal.SIGTERM


def test_the_token_is_in_no_argument_and_not_passed_on(start):
    shows = [sys.executable, "-c", "import os; print('it is', os.environ.get('INFEROPS_GROUP_TOKEN'), flush=True)"]
    head = start(0, command=shows)
    head.until("waits for")
    with open(f"/proc/{head.process.pid}/cmdline", "rb") as handle:
        assert b"token" not in handle.read()
    start(1)
    head.until("it is None")


def test_without_a_token_nothing_is_started(start):
    member = start(0, token="")
    assert member.ended() == 2
