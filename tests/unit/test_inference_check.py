from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _inference_check

sys.path.insert(0, str(Path(__file__).parents[1] / "stand_ins"))
from openai_server import StandIn

KEY = "sk-very-secret"


def run(stand_in, api_key=None, **wanted):
    wanted.setdefault("exposed", False)
    return _inference_check.check(_inference_check.Endpoint(stand_in.url, api_key=api_key, timeout=5), **wanted)


def named(result, name):
    return next(check for check in result["checks"] if check["name"] == name)


@pytest.mark.parametrize("type", _inference_check.TYPES)
def test_good_endpoint_passes(type):
    with StandIn() as stand_in:
        result = run(stand_in, type=type)
    assert result["ok"], result["checks"]
    assert result["doubts"] == []
    assert result["unasked"] == []
    assert result["model"] == "demo"
    assert result["endpoint"] == stand_in.url + "/v1"
    assert result["figures"]["max_model_len"] == 4096


@pytest.mark.parametrize(
    ("type", "fault", "check"),
    [
        ("chat", "engine_dead", "chat"),
        ("chat", "empty_text", "chat"),
        ("chat", "empty_text", "completion"),
        ("chat", "one_chunk", "chat_stream"),
        ("chat", "no_done", "chat_stream"),
        ("chat", "stream_error", "chat_stream"),
        ("completion", "engine_dead", "completion"),
        ("embedding", "nan_embeddings", "embeddings"),
        ("embedding", "null_embeddings", "embeddings"),
        ("embedding", "short_embeddings", "embeddings"),
        ("embedding", "reversed_order", "embedding_closeness"),
        ("rerank", "engine_dead", "rerank"),
        ("rerank", "reversed_order", "rerank_order"),
        ("vision", "blind", "vision"),
    ],
)
def test_lying_endpoint_is_found_out(type, fault, check):
    with StandIn(faults=[fault]) as stand_in:
        result = run(stand_in, type=type)
    assert not result["ok"]
    assert check in result["errors"]


def test_limits_ignored_are_doubts():
    with StandIn(faults=["ignores_limits"]) as stand_in:
        result = run(stand_in)
    assert result["ok"]
    assert {"finish_length", "finish_stop"} <= set(result["doubts"])


@pytest.mark.parametrize("type", ["chat", "embedding", "rerank", "vision"])
def test_random_weights_need_no_meaning(type):
    with StandIn(faults=["reversed_order", "blind", "empty_text"]) as stand_in:
        result = run(stand_in, type=type, semantic=False)
    assert result["ok"], result["checks"]


def test_key_is_wanted_and_kept_secret():
    with StandIn(api_key=KEY) as stand_in:
        result = run(stand_in, api_key=KEY)
    assert result["ok"], result["checks"]
    assert named(result, "no_key_refused")["detail"] == "5 routes refuse it"
    assert result["doubts"] == []
    assert "by /rerank; /scale_elastic_ep changes the engine" in named(result, "unguarded_routes")["detail"]
    assert "none but this host reaches them" in named(result, "unguarded_routes")["detail"]
    assert KEY not in json.dumps(result)


def test_key_that_opens_nothing_in_particular():
    with StandIn(api_key=KEY, faults=["auth_open"]) as stand_in:
        result = run(stand_in, api_key=KEY)
    assert result["errors"] == ["no_key_refused", "wrong_key_refused"]
    assert "/v1/chat/completions" in named(result, "wrong_key_refused")["detail"]


@pytest.mark.parametrize(("key", "words"), [(None, "none was given"), ("other", "was refused")])
def test_missing_or_wrong_key_of_the_operator_ends_it_at_once(key, words):
    with StandIn(api_key=KEY) as stand_in:
        result = run(stand_in, api_key=key)
        assert len(stand_in.requests) == 1
    assert result["errors"] == ["models"]
    assert words in named(result, "models")["detail"]


def test_other_model_is_named():
    with StandIn(model="bge-m3") as stand_in:
        result = run(stand_in, model="bge-large")
    assert named(result, "models")["detail"] == "bge-large is not served here; served: bge-m3"


def test_nobody_listens():
    with StandIn() as stand_in:
        pass
    result = run(stand_in)
    assert result["errors"] == ["models"]
    assert "refused" in named(result, "models")["detail"]


def test_wrong_dimension():
    with StandIn() as stand_in:
        result = run(stand_in, type="embedding", dimension=1024)
    assert named(result, "embeddings")["detail"] == "vectors of 8 numbers, expected 1024"


def test_url_with_v1_and_slash_means_the_same():
    for url in ("http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"):
        assert _inference_check.Endpoint(url).root == "http://h:1"


def test_summary_is_readable():
    with StandIn(api_key=KEY, faults=["empty_text"]) as stand_in:
        lines = _inference_check.summary(run(stand_in, api_key=KEY))
    assert lines[0] == f"demo (chat) at {stand_in.url}/v1"
    assert any(line.startswith("  FAIL  chat ") and "empty" in line for line in lines)
    assert any(line.startswith("  note  unguarded_routes") for line in lines)


def test_redirect_is_not_followed():
    with StandIn(faults=["redirects"]) as stand_in:
        result = run(stand_in, api_key=KEY)
    assert "HTTP 307" in named(result, "models")["detail"]


def test_module_fails_with_the_checks_and_without_the_key(tmp_path):
    module = Path(__file__).parents[2] / "plugins" / "modules" / "inference_check.py"
    with StandIn(api_key=KEY, faults=["empty_text"]) as stand_in:
        args = tmp_path / "args.json"
        args.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": {"endpoint": stand_in.url, "api_key": KEY}}))
        run_it = "import conftest, runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
        command = [sys.executable, "-c", run_it, str(module), str(args)]
        done = subprocess.run(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, check=False)
    result = json.loads(done.stdout)
    assert result["failed"]
    assert "chat: the answer is empty" in result["msg"]
    assert "chat" in result["errors"]
    assert KEY not in done.stdout.decode()


@pytest.mark.parametrize("type", _inference_check.TYPES)
def test_briefly_only_the_work_itself_is_proven(type):
    with StandIn() as stand_in:
        result = run(stand_in, type=type, brief=True)
        asked = [path for _method, path, _body in stand_in.requests]
    assert result["ok"] and 2 <= len(asked) <= 4
    with StandIn(faults=["engine_dead"]) as stand_in:
        assert not run(stand_in, type=type, brief=True)["ok"]


@pytest.mark.parametrize("type", ["embedding", "rerank"])
def test_text_embeddings_inference(type):
    with StandIn(faults=["tei"], open_routes=(), api_key="k") as stand_in:
        result = run(stand_in, type=type, api_key="k")
        assert result["ok"], result["checks"]
        assert result["figures"]["max_model_len"] == 512
        assert result["figures"]["engine_version"] == "text-embeddings-inference 1.9.0"
        assert run(stand_in, type=type, model="whatever a client says", api_key="k")["ok"]
