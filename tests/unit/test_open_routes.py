"""Which routes of an engine want the key: what is asked, what is only judged, and what is never touched."""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import (
    _authorization,
    _inference_check,
    _open_routes,
    _vllm_route_table,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import normalize_services

sys.path.insert(0, str(Path(__file__).parents[1] / "stand_ins"))
from openai_server import StandIn

KEY = "sk-very-secret-and-long-enough-for-this"


def check(stand_in, **wanted):
    endpoint = _inference_check.Endpoint(stand_in.url, api_key=KEY, timeout=5)
    result = _inference_check.check(endpoint, **wanted)
    return next(item for item in result["checks"] if item["name"] == "unguarded_routes"), result


def documented(**paths):
    return {"paths": {path.replace("__", "/"): item for path, item in paths.items()}}


# The list of vLLM's routes


def test_every_route_of_every_version_is_judged():
    paths = {name.split(" ")[1] for name in _vllm_route_table.ROUTES}
    judged = _open_routes.WORK | _open_routes.CHANGES | _open_routes.TELLS
    assert paths <= judged, sorted(paths - judged)
    assert not _open_routes.WORK & _open_routes.CHANGES


@pytest.mark.parametrize(
    ("version", "there", "guarded"),
    [
        (
            "0.33.0",
            {"/generative_scoring", "/scale_elastic_ep", "/invocations"},
            ("/v1", "/v2", "/inference", "/cohere"),
        ),
        ("0.20.2", {"/generative_scoring", "/v2/embed"}, ("/v1",)),  # between two that are recorded
        ("0.6.3", {"/tokenize", "/pooling"}, ("/v1",)),
        ("0.99.0", {"/generative_scoring", "/scale_elastic_ep"}, ("/v1", "/v2", "/inference", "/cohere")),
        (None, {"/sleep", "/v1/decisions"}, ("/v1",)),  # nobody knows: the most routes, the fewest guards
        ("a lie", {"/sleep"}, ("/v1",)),
    ],
)
def test_a_version_has_its_routes_and_guards(version, there, guarded):
    routes, prefixes = _open_routes.recorded(version)
    assert there <= set(routes)
    assert prefixes == guarded or set(prefixes) == set(guarded)


def test_what_changes_the_engine_is_never_asked():
    for version in [*_vllm_route_table.VERSIONS, None]:
        every = {path: {"post": {"requestBody": {"required": True}}} for path in _open_routes.CHANGES}
        for document in (None, {"paths": every}):
            what = _open_routes.questions(document, version)
            assert not set(what["probe"]) & _open_routes.CHANGES
            # A path with a parameter, or one below a prefix that is guarded, is none that stands open.
            assert set(what["judged"]) <= _open_routes.CHANGES
    assert {"/sleep", "/collective_rpc", "/scale_elastic_ep"} <= set(what["judged"])


def test_an_unknown_route_is_asked_only_where_its_body_is_read_first():
    document = {
        "paths": {
            "/new_work": {"post": {"requestBody": {"required": True}}},
            "/new_switch": {"post": {}},
            "/new_deletion/{name}": {"delete": {"requestBody": {"required": True}}},
            "/new_page": {"get": {}},
            "/v1/new": {"post": {}},
        }
    }
    what = _open_routes.questions(document, "0.33.0")
    assert "/new_work" in what["probe"]
    assert {path for path in what["judged"] if "new" in path} == {"/new_switch", "/new_deletion/{name}"}


@pytest.mark.parametrize(
    "document",
    [
        [],
        "paths",
        {"paths": []},
        {"paths": {"/a": None, 'x"\n': {"post": {}}, "/b b": {"post": {}}, "//e\x1b[2J": {"post": {}}}},
        {"paths": {"/a": {"post": None, "get": [], "x" * 10000: {}}}},
        {"paths": {f"/{at}": {"post": {}} for at in range(10**5)}},
    ],
)
def test_a_document_that_anyone_may_have_written(document):
    started = time.monotonic()
    what = _open_routes.questions(document, "0.33.0")
    said = _open_routes.verdict([], what["judged"])
    assert time.monotonic() - started < 1
    assert len(said) < 2000 and "\n" not in said and "\x1b" not in said


# An endpoint


def test_an_open_route_in_reach_of_others_is_a_failure_with_the_cure():
    with StandIn(api_key=KEY, open_routes=("/rerank", "/invocations", "/tokenize")) as stand_in:
        stand_in.more_routes = ("/invocations", "/tokenize", "/scale_elastic_ep", "/sleep", "/generative_scoring")
        found, result = check(stand_in)
        asked = [path for _method, path, _body in stand_in.requests]
        accepted, also = check(stand_in, open_routes="accept")
        local, too = check(stand_in, exposed=False)
    assert not result["ok"] and "unguarded_routes" in result["errors"]
    assert "work is done without a key by /invocations, /rerank, /tokenize" in found["detail"]
    assert "/scale_elastic_ep changes the engine without one" in found["detail"]
    assert "bind_address: 127.0.0.1" in found["detail"] and "inference_open_routes: accept" in found["detail"]
    assert "/scale_elastic_ep" not in asked and "/sleep" not in asked
    assert also["ok"] and too["ok"] and accepted["severity"] == local["severity"] == "info"
    assert "accepted" in accepted["detail"] and "none but this host" in local["detail"]


def test_every_route_that_works_is_asked_with_what_nobody_can_read():
    with StandIn(api_key=KEY, open_routes=()) as stand_in:
        stand_in.document = documented(__health={"get": {}})
        found, result = check(stand_in)
        bodies = {path: body for method, path, body in stand_in.requests if method == "POST" and body is None}
    assert found["ok"] and result["ok"], result["checks"]
    assert {"/invocations", "/generative_scoring", "/v2/embed", "/cohere/v2/chat"} <= set(bodies)


def test_routes_that_only_a_document_names_count_too():
    with StandIn(api_key=KEY, open_routes=("/brand_new",)) as stand_in:
        stand_in.more_routes = ("/brand_new",)
        stand_in.document = documented(
            __brand_new={"post": {"requestBody": {"required": True}}}, __sleep={"post": {}}, __wake_me={"post": {}}
        )
        found, _result = check(stand_in)
    assert "by /brand_new" in found["detail"]
    assert "/sleep changes the engine" in found["detail"]
    assert "/wake_me is known of no version, and takes POST" in found["detail"]


def test_without_a_document_the_version_tells():
    with StandIn(api_key=KEY, open_routes=()) as stand_in:
        stand_in.document, stand_in.version = None, "0.33.0"
        found, result = check(stand_in)
    assert "/scale_elastic_ep changes the engine" in found["detail"]
    assert any("no OpenAPI document" in item["reason"] for item in result["unasked"])


def test_a_server_that_is_in_no_hurry_ends(monkeypatch):
    """Each question has its time, and all of them have one."""

    class Slow(BaseHTTPRequestHandler):
        def do_POST(self):
            time.sleep(0.3)
            self.send_response(401)
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_args):
            pass

    monkeypatch.setattr(_authorization, "PATIENCE_FOR_ALL", 0.5)
    monkeypatch.setattr(_authorization, "PATIENCE", 0.5)
    server = HTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    endpoint = _inference_check.Endpoint("http://127.0.0.1:%d" % server.server_address[1], api_key=KEY, timeout=5)
    run = _inference_check._Run(endpoint, "m", False, 1, None)
    started = time.monotonic()
    _authorization.check(run)
    assert time.monotonic() - started < 3
    assert any("gave no answer in time" in item["reason"] for item in run.unasked)
    server.shutdown()


# Before anything is started


def warned(**declared):
    services = normalize_services([{"name": "m", "model": "a/b", **declared}])
    return _open_routes.warnings(services)


def test_the_danger_is_known_before_anything_is_started():
    line = warned()["m"]
    assert "0.0.0.0" in line and "bind_address: 127.0.0.1" in line and "inference_open_routes: accept" in line
    assert "\n" not in line
    assert warned(api_key=KEY) and warned(bind_address="10.0.0.1") and warned(container={"network_mode": "host"})


@pytest.mark.parametrize(
    "declared",
    [
        {"bind_address": "127.0.0.1"},
        {"bind_address": "::1"},
        {"api_key": "none"},
        {"state": "absent"},
        {"engine": "text_embeddings_inference"},
    ],
)
def test_nothing_is_said_where_nothing_is_open_against_ones_will(declared):
    assert warned(**declared) == {}
    assert json.dumps(warned(**declared)) == "{}"
