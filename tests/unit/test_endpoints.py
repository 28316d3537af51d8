from __future__ import annotations

import ast
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _endpoints
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import normalize_services

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "stand_ins"))
from openai_server import StandIn

KEY = "sk-very-secret"


def found(declared, replicas=1, hosts=("gpu1",), host="gpu1", address="10.0.0.1", default_key=None):
    services = normalize_services([{"name": "m", "model": "a/b", "port": 8000, **declared}])
    placements = [{"replica": at, "port": 8000 + at, "nodes": [{"host": hosts[0]}]} for at in range(replicas)]
    placements[0]["nodes"] = [{"host": name} for name in hosts]
    plan = {"services": [{"name": "m", "type": "chat", "layout": {"replicas": replicas}, "placements": placements}]}
    return _endpoints.on_host(plan, services, host, address, default_key)


def card(kind="chat", **endpoint):
    (base,) = _endpoints.given([{"endpoint": "http://gpu1:8000/v1", "model": "m", "type": kind, "api_key": KEY}])
    return _endpoints.card({**base, **endpoint}, {"model": "m", "figures": {"max_model_len": 4096}})


def test_clients_and_the_host_itself_use_different_addresses():
    (endpoint,) = found({})
    assert (endpoint["url"], endpoint["probe"]) == ("http://10.0.0.1:8000", "http://127.0.0.1:8000")
    (endpoint,) = found({"bind_address": "192.168.7.7"})
    assert endpoint["url"] == endpoint["probe"] == "http://192.168.7.7:8000"
    (endpoint,) = found({}, address="fd00::1")
    assert endpoint["url"] == "http://[fd00::1]:8000"


def test_loopback_is_said_to_be_local():
    (endpoint,) = found({"bind_address": "127.0.0.1"})
    assert _endpoints.card(endpoint, {"model": "m"})["reachable_from"] == "gpu1 only"
    (endpoint,) = found({})
    assert _endpoints.card(endpoint, {"model": "m"})["reachable_from"] == "the network"


def test_replicas_are_endpoints_of_their_own():
    assert [(item["name"], item["url"][-4:]) for item in found({}, replicas=2)] == [("m-0", "8000"), ("m-1", "8001")]


def test_only_the_head_of_several_hosts_has_the_endpoint():
    assert len(found({}, hosts=("gpu1", "gpu2"))) == 1
    assert found({}, hosts=("gpu1", "gpu2"), host="gpu2") == []


@pytest.mark.parametrize("state", ["stopped", "absent"])
def test_only_what_runs_is_asked(state):
    assert found({"state": state}) == []


def test_random_weights_are_not_asked_for_meaning():
    (endpoint,) = found({"model": None, "hub": "generated"})
    assert endpoint["semantic"] is False


@pytest.mark.parametrize(
    ("declared", "default", "variable"),
    [
        ({"api_key": KEY}, "other", "api_key of m in inference_services"),
        ({}, KEY, "inference_api_key"),
        ({"api_key": "none"}, KEY, None),
        ({}, "none", None),
    ],
)
def test_card_names_the_variable_and_never_the_key(declared, default, variable):
    (endpoint,) = found(declared, default_key=default)
    made = _endpoints.card(endpoint, {"model": "m"})
    assert made["key_variable"] == variable
    assert KEY not in json.dumps([endpoint, made])
    assert ("Authorization" in made["curl"]) == bool(variable)


def test_card_names_the_file_of_a_key_that_was_made():
    (endpoint,) = found({})
    made = _endpoints.card(endpoint, {"model": "m"})
    assert (made["key_variable"], made["key_file"]) == (None, "gpu1:/etc/inferops/keys/m")
    assert made["dify"]["API Key"] == "what is in /etc/inferops/keys/m on gpu1"
    assert "Authorization" in made["curl"]


def test_the_key_of_an_endpoint_is_the_operators_or_the_one_that_was_made():
    services = normalize_services(
        [
            {"name": "own", "model": "a/b", "api_key": "sk-own"},
            {"name": "made", "model": "a/b"},
            {"name": "open", "model": "a/b", "api_key": "none"},
        ]
    )
    assert _endpoints.keys(services, None, {"made": "m" * 64}) == {"own": "sk-own", "made": "m" * 64}
    assert _endpoints.keys(services, "sk-all", {"made": "m" * 64}) == {"own": "sk-own", "made": "sk-all"}


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("chat", "/v1/chat/completions"),
        ("vision", "/v1/chat/completions"),
        ("completion", "/v1/completions"),
        ("embedding", "/v1/embeddings"),
        ("rerank", "/v1/rerank"),
    ],
)
def test_snippets_are_whole(kind, path):
    made = card(kind)
    words = shlex.split(made["curl"].replace("\\\n", " "))
    assert words[:2] == ["curl", "http://gpu1:8000" + path]
    assert json.loads(words[words.index("-d") + 1])["model"] == "m"
    ast.parse(made["python"])


@pytest.mark.parametrize("kind", ["chat", "completion", "embedding", "rerank", "vision"])
def test_what_a_server_calls_its_model_runs_nowhere(kind):
    """Whoever pastes the snippets runs them, and the name in them was the server's to choose."""
    evil = "m'; touch /tmp/owned; '\n`id` | \" + exit() + \""
    made = _endpoints.card(
        {**_endpoints.given([{"endpoint": "http://gpu1:8000", "type": kind}])[0]},
        {"model": evil, "figures": {"engine_version": "1\n| x |"}},
    )
    words = shlex.split(made["curl"].replace("\\\n", " "))
    assert len(words) == 6 and words[0] == "curl"
    assert "\n" not in json.loads(words[-1])["model"]
    calls = [node for node in ast.walk(ast.parse(made["python"])) if isinstance(node, ast.Call)]
    assert "exit" not in [ast.unparse(call.func) for call in calls]
    assert not set("\n`|") & set(made["model"] + made["engine_version"])


def test_dify_fields():
    assert card()["dify"] == {
        "Model Type": "LLM",
        "Model Name": "m",
        "API Key": "the value of OPENAI_API_KEY",
        "API endpoint URL": "http://gpu1:8000/v1",
        "Completion mode": "Chat",
        "Model context size": 4096,
    }
    assert card("embedding")["dify"]["Model Type"] == "Text Embedding"
    assert card("rerank")["dify"]["Model Type"] == "Rerank"
    assert card("vision")["dify"]["Vision Support"] == "Support"
    assert '"url": "data:image/png;base64,' in card("vision")["curl"]  # no address is allowed unless it was said


def playbook(started_in, *more, key=KEY):
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "playbooks/verify.yml", *more]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(started_in) + "-home", "OPENAI_API_KEY": key, "LC_ALL": "C.UTF-8"}
    env["PWD"] = str(started_in)  # as a shell says it; the configuration is that of the checkout
    return subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)


@pytest.mark.slow
def test_playbook_alone_against_any_endpoint(tmp_path):
    cards = tmp_path / "connection-cards"
    with StandIn(api_key=KEY) as stand_in:
        asked = ["-e", f"endpoint={stand_in.url}", "-e", "model=demo", "-vvv"]
        dry = playbook(tmp_path, *asked, "--check")
        assert dry.returncode == 0 and not cards.exists(), dry.stdout.decode()
        first = playbook(tmp_path, *asked)
        again = playbook(tmp_path, *asked)
    assert first.returncode == 0, first.stdout.decode()
    assert b"changed=2 " in first.stdout
    assert b"changed=0 " in again.stdout
    assert b"note  unguarded_routes" in first.stdout
    written = "".join(path.read_text() for path in cards.iterdir())
    assert "OPENAI_API_KEY" in written
    assert KEY not in written + first.stdout.decode() + again.stdout.decode()


@pytest.mark.slow
def test_playbook_fails_with_the_reason(tmp_path):
    with StandIn(faults=["engine_dead"]) as stand_in:
        done = playbook(tmp_path, "-e", f"endpoint={stand_in.url}", key="")
    assert done.returncode == 2
    assert b"chat: HTTP 500: EngineCore encountered an issue." in done.stdout
    assert not list(tmp_path.rglob("*.md"))
