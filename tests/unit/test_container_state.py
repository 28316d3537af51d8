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


def test_news_is_the_last_message_and_not_a_route_or_a_progress_bar():
    log = (
        "(EngineCore pid=26) INFO 11-21 08:15:50 [default_loader.py:12] Loading weights took 0.10 seconds\n"
        "\rLoading safetensors:   0%\rLoading safetensors: 100%\n"
        "INFO:     Waiting for application startup.\n"
    )
    assert state.latest_news(log) == "Loading weights took 0.10 seconds"
    assert state.lines_of(log)[1] == "Loading safetensors: 100%"


def test_no_news_from_a_silent_container():
    assert state.latest_news("") == ""


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
