from __future__ import annotations

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils._service import normalize_services
from ansible_collections.inferops.gpu_host.plugins.module_utils._service_status import status

SERVICES = normalize_services(
    [
        {"name": "chat", "model": "a/chat", "port": 8000},
        {"name": "rest", "model": "a/rest", "state": "stopped"},
        {"name": "lost", "model": "a/lost"},
        {"name": "gone", "model": "a/gone", "state": "absent"},
    ]
)


def container(name="chat", service="chat", **more):
    return {
        "name": name,
        "ours": True,
        "labels": {"service": service, "url": "http://127.0.0.1:8000", "gpus": "0,1"},
        "running": True,
        "healthy": True,
        "status": "running",
        "exit_code": None,
        "seconds": 90061,
        "image": "vllm:1",
        "restarts": 0,
        "metrics": {"running": 3, "waiting": 0, "kv_cache_use": 0.25},
        **more,
    }


def seen(*containers):
    return status({"gpu1": {"containers": {item["name"]: item for item in containers}}}, SERVICES)


def test_the_table():
    lines = seen(container(), container("own", ours=False))["table"]
    assert lines[0].split() == [
        "service",
        "host",
        "GPUs",
        "port",
        "health",
        "uptime",
        "KV",
        "use",
        "running",
        "waiting",
    ]
    assert " ".join(lines[2].split()) == "chat gpu1 0,1 8000 ready 1 d 1 h 25% 3 0"
    assert [" ".join(line.split()) for line in lines[3:]] == ["rest stopped", "lost not there"]


STOPPED = {"running": False, "healthy": False, "status": "exited", "seconds": 0, "metrics": {}}


@pytest.mark.parametrize(
    ("more", "health"),
    [
        ({"healthy": False}, "no answer yet"),
        (dict(STOPPED, exit_code=143), "stopped"),
        (dict(STOPPED, exit_code=1), "failed, exit code 1"),
        (dict(STOPPED, status="restarting"), "restarting"),
        ({"name": "chat.previous"}, "kept until its successor answers"),
        ({"name": "chat.failed", **STOPPED}, "failed, kept for its log"),
        ({"labels": {"service": "chat"}, "healthy": False}, "running"),
        ({"service": "other"}, "ready, not declared"),
    ],
)
def test_health(more, health):
    assert seen(container(**more))["services"][0]["health"] == health


@pytest.mark.parametrize(("seconds", "words"), [(59, "59 s"), (61, "1 min"), (3720, "1 h 2 min")])
def test_uptime(seconds, words):
    assert f" {words} " in " ".join(seen(container(seconds=seconds))["table"][2].split())
