"""The steps of a replacement, against the stand-in of the engine: whichever call is the last one, nothing is lost."""

from __future__ import annotations

import json

import pytest
from role_plays import docker_engine

from ansible_collections.inferops.gpu_host.plugins.module_utils import _container_swap
from ansible_collections.inferops.gpu_host.plugins.module_utils._container_state import LABEL
from ansible_collections.inferops.gpu_host.plugins.module_utils._container_swap import Swap, SwapError, proven_in
from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_host import DockerHost

OURS = {LABEL + "service": "demo", LABEL + "container": "demo"}
IMAGE = "vllm/vllm-openai:v0.33.0"


class Killed(BaseException):
    """The play is gone: no handler of ours sees this."""


class MortalHost(DockerHost):
    """Dies with its n-th call that changes something, which the engine still carries out."""

    def __init__(self, lives=None):
        super().__init__(None)
        self.lives = lives

    def call(self, method, path, body=None, timeout=10):
        answer = super().call(method, path, body, timeout)
        if method != "GET" and self.lives is not None:
            self.lives -= 1
            if self.lives == 0:
                raise Killed
        return answer


@pytest.fixture
def engine(tmp_path, monkeypatch):
    with docker_engine.DockerEngine(tmp_path / "docker.sock") as running:
        monkeypatch.setenv("DOCKER_HOST", running.url)
        running.add_image(IMAGE)
        yield running


def swap(tmp_path, lives=None):
    return Swap(MortalHost(lives), "demo", str(tmp_path))


def add(engine, name="demo", **more):
    return engine.add_container(name, IMAGE, OURS, **more).id


def options(tmp_path, digest, name="demo"):
    path = tmp_path / f"{name}.{digest * 16}.yaml"
    path.write_text("{}")
    return str(path)


def test_a_whole_replacement(engine, tmp_path):
    old = add(engine)
    files = [options(tmp_path, "a"), options(tmp_path, "b"), options(tmp_path, "c", "demo.candidate")]
    (tmp_path / "demo.key").write_text("not one of these")
    add(engine, "demo.failed", running=False)
    change = swap(tmp_path)
    assert change.proven() and not change.proven()
    assert change.aside() and engine.containers["demo.previous"]["Id"] == old
    new = add(engine)
    with pytest.raises(SwapError, match="demo has not answered yet"):
        change.settled([files[1]])
    assert change.proven() and proven_in(str(tmp_path)) == {"demo": new}
    assert change.settled([files[1]])
    assert {name: entry["Id"] for name, entry in engine.containers.items()} == {"demo": new}
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix in (".yaml", ".key")) == [
        f"demo.{'b' * 16}.yaml",
        "demo.key",
    ]
    assert not change.settled([files[1]])


def test_what_has_answered_is_proven_before_it_is_stopped(engine, tmp_path):
    old = add(engine)
    with pytest.raises(Killed):
        swap(tmp_path, lives=1).aside(answered=True)
    assert engine.running() == [] and proven_in(str(tmp_path)) == {"demo": old}


@pytest.mark.parametrize("lives", [1, 2, 3, 4, 5, None])
def test_the_proven_one_outlives_every_call_of_putting_aside_and_coming_back(engine, tmp_path, lives):
    old = add(engine)
    swap(tmp_path).proven()
    failed = None
    try:
        swap(tmp_path, lives and lives).aside()
        failed = add(engine)
        swap(tmp_path, lives and lives - 2).recovered(start=True)
    except Killed:
        pass
    assert old in engine.by_id
    # What the next play does with what it finds, whether or not it was killed.
    swap(tmp_path).recovered(start=True)
    assert engine.containers["demo"]["Id"] == old and engine.running() == ["demo"]
    assert failed is None or engine.containers["demo.failed"]["Id"] == failed


@pytest.mark.parametrize("lives", range(1, 5))
def test_the_new_one_outlives_every_call_of_settling(engine, tmp_path, lives):
    add(engine, "demo.previous", running=False)
    add(engine, "demo.failed", running=True)
    new = add(engine)
    swap(tmp_path).proven()
    keep = options(tmp_path, "b")
    options(tmp_path, "a")
    try:
        swap(tmp_path, lives).settled([keep])
    except Killed:
        # Until the last call something tells the next play that this is not finished.
        assert "demo.previous" in engine.containers or lives == 3
    swap(tmp_path).settled([keep])
    assert {name: entry["Id"] for name, entry in engine.containers.items()} == {"demo": new}
    assert [path.name for path in tmp_path.glob("*.yaml")] == [f"demo.{'b' * 16}.yaml"]


def test_a_proven_successor_makes_room_for_the_next(engine, tmp_path):
    add(engine, "demo.previous", running=False)
    new = add(engine)
    with pytest.raises(SwapError, match="has not answered yet"):
        swap(tmp_path).aside()
    assert engine.running() == ["demo"]
    swap(tmp_path).proven()
    swap(tmp_path).aside()
    assert {name: entry["Id"] for name, entry in engine.containers.items()} == {"demo.previous": new}


@pytest.mark.parametrize("name", ["demo", "demo.previous", "demo.failed"])
@pytest.mark.parametrize("labels", [{}, {LABEL + "service": "demo", LABEL + "container": "other"}])
def test_containers_of_others_are_never_touched(engine, tmp_path, name, labels):
    for ours in {"demo", "demo.previous", "demo.failed"} - {name}:
        add(engine, ours)
    foreign = engine.add_container(name, IMAGE, labels).id
    (tmp_path / "demo.proven").write_text(json.dumps({"id": engine.containers["demo"]["Id"]}))
    for step in ("aside", "recovered", "settled"):
        try:
            getattr(swap(tmp_path), step)(*([[]] if step == "settled" else []))
        except SwapError as error:
            assert "was not made by this collection" in str(error)
    assert engine.by_id[foreign].name == name and engine.by_id[foreign].state["Running"]


def test_only_looking_changes_nothing(engine, tmp_path):
    add(engine)
    dry = Swap(DockerHost(None), "demo", str(tmp_path), dry=True)
    assert dry.proven() and dry.aside(answered=True)
    assert engine.acted() == [] and not list(tmp_path.glob("*.proven"))


def test_an_engine_that_does_not_say_is_not_taken_for_one_without_containers(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(SwapError, match="the engine does not say what demo is: no answer"):
        swap(tmp_path).aside()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"id": 7}' * 1000, b"\xff\xfe", b"null"])
def test_a_marker_that_says_nothing_proves_nothing(tmp_path, content):
    (tmp_path / "demo.proven").write_bytes(content)
    assert proven_in(str(tmp_path)) == {}
    assert proven_in(str(tmp_path / "not there")) == {}


def test_leftovers_are_options_of_this_container_alone(tmp_path):
    mine = options(tmp_path, "a", "demo")
    secrets = tmp_path / f"demo.candidate.{'a' * 16}.{'b' * 16}.env"
    secrets.write_text("A=b")
    for name in ("demo-1", "demo.x", "odemo"):
        options(tmp_path, "a", name)
    (tmp_path / "demo.notes.yaml").write_text("the operator's")
    assert _container_swap.leftovers(str(tmp_path), "demo", []) == [mine, str(secrets)]
