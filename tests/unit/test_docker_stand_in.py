"""The role vllm, for real, against the stand-in of the engine that other tests build on."""

from __future__ import annotations

import pytest
from role_plays import plan, service

pytestmark = pytest.mark.slow


def test_a_service_is_started_and_the_next_run_changes_nothing(stage):
    host = stage.host()
    host.model()
    services = [service()]
    wanted = {"inference_services": services, "inference_plan": plan(*services)}
    played = stage.play(stage.role("vllm"), **wanted)
    assert played.ok, played.output
    assert host.engine.running() == ["demo"]
    assert host.engine.acted() == [("create", "demo"), ("start", "demo")]

    again = stage.play(stage.role("vllm"), **wanted)
    assert again.ok and again.changed() == 0, again.output
