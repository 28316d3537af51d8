from __future__ import annotations

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _container_state as state


def frame(text, stream=1):
    data = text.encode()
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def test_frames_of_both_streams_become_one_text():
    assert state.demultiplexed(frame("one\n") + frame("two\n", 2)) == "one\ntwo\n"


def test_a_log_without_frames_is_text_already():
    assert state.demultiplexed(b"plain text of a terminal\n") == "plain text of a terminal\n"


def test_progress_bars_are_seen_in_their_last_state():
    log = "\x1b[32mone\x1b[0m\n\rLoading safetensors:   0%\rLoading safetensors: 100%\n\n"
    assert state.lines_of(log) == ["one", "Loading safetensors: 100%"]


@pytest.mark.parametrize(
    ("container", "alive"),
    [
        ({"State": {"Running": True}, "RestartCount": 0}, True),
        ({"State": {"Running": False}, "RestartCount": 0}, False),
        ({"State": {"Running": True, "Restarting": True}, "RestartCount": 0}, False),
        ({"State": {"Running": True}, "RestartCount": 1}, False),
    ],
)
def test_a_container_that_was_restarted_has_died(container, alive):
    assert state.is_alive(container) is alive


def test_restarts_before_the_wait_do_not_count():
    assert state.is_alive({"State": {"Running": True}, "RestartCount": 3}, restarts=3)


def test_a_container_described():
    inspection = {
        "Id": "abc",
        "Name": "/chat",
        "Image": "sha256:1",
        "RestartCount": 2,
        "Config": {"Image": "vllm:1", "Labels": {"io.github.inferops.service": "chat", "maintainer": "x"}},
        "State": {"Running": True, "Status": "running", "StartedAt": "2026-11-21T08:15:57.123456789Z", "ExitCode": 0},
        "HostConfig": {"DeviceRequests": [{"DeviceIDs": ["nvidia.com/gpu=GPU-1", "GPU-2"]}]},
    }
    seen = state.described(inspection, now=1795248967)
    assert seen == {
        "name": "chat",
        "ours": False,  # nothing says under which name it was made
        "id": "abc",
        "image": "vllm:1",
        "image_id": "sha256:1",
        "labels": {"service": "chat"},
        "running": True,
        "status": "running",
        "seconds": 10,
        "restarts": 2,
        "exit_code": None,
        "gpus": ["GPU-1", "GPU-2"],
    }
    inspection["State"].update(Running=False, ExitCode=137)
    assert (state.described(inspection)["seconds"], state.described(inspection)["exit_code"]) == (0, 137)


@pytest.mark.parametrize(
    ("name", "labels", "ours"),
    [
        ("chat", {"service": "chat", "container": "chat"}, True),
        ("chat.previous", {"service": "chat", "container": "chat"}, True),
        ("chat.candidate", {"service": "chat", "container": "chat"}, True),
        ("chat.failed", {"service": "chat", "container": "chat"}, True),
        ("chat-1", {"service": "chat", "container": "chat-1"}, True),
        # what was made of an image that was committed from ours carries the same labels
        ("experiment", {"service": "chat", "container": "chat"}, False),
        ("chat-1", {"service": "chat", "container": "chat"}, False),
        ("chat.previous.1", {"service": "chat", "container": "chat"}, False),
        ("chat", {"service": "chat"}, False),
        ("chat", {"service": "", "container": ""}, False),  # docker commit as container_commit does it
        ("", {}, False),
    ],
)
def test_ours_is_what_has_the_name_that_it_was_made_with(name, labels, ours):
    assert state.is_ours(name, labels) is ours
