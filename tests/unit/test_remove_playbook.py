"""remove.yml takes away what was asked for, and what we made."""

from __future__ import annotations

import json

import pytest
from role_plays import plan, service

from ansible_collections.inferops.gpu_host.plugins.module_utils._plan_in_force import carried_out, text_of

pytestmark = pytest.mark.slow
MANIFEST = {".model-manifest.json": "{}"}


@pytest.fixture
def host(stage):
    """A host with two services of ours, each with a model, cards and caches, and with things of others everywhere."""
    declared = [service("one", model="org/one"), service("two", model="org/two")]
    host = stage.host(inference_services=declared, container_image_images=[])
    for mine in declared:
        host.serves(mine, plan(mine))
        host.model(mine["model"], **MANIFEST)
        (host.directory / "cache/vllm" / mine["name"]).mkdir(parents=True)
        for card in ("{}.md", "{}.json", "{}.memory.json"):
            path = host.directory / "cards" / card.format(mine["name"])
            path.parent.mkdir(exist_ok=True)
            path.write_text("")
    force = carried_out({"serial": 0, "hosts": {}}, plan(*declared), ["gpu1"], ["gpu1"], ["one", "two"])
    (host.directory / "etc/plan.json").write_text(text_of(force))
    for foreign in (
        "etc/theirs",
        "etc/vllm/theirs",
        "etc/vllm/one/theirs",
        "cards/theirs.md",
        "data/models/org/theirs/file",
    ):
        path = host.directory / foreign
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("precious")
    # Made of an image that was committed from ours: our labels, another name.
    labels = host.engine.containers["one"]["Config"]["Labels"]
    host.engine.add_container("experiment", host.engine.containers["one"]["Config"]["Image"], labels, running=False)
    return stage, host, declared


def theirs(host):
    return [file for file in host.files() if file.endswith(("theirs", "theirs.md", "theirs/file"))]


def test_one_service_means_one_service(host):
    stage, host, _declared = host
    before = theirs(host)
    played = stage.play(stage.playbook("remove"), arguments=["-e", "service=one", "-e", "remove_everything=true"])
    assert played.ok, played.output
    assert sorted(host.engine.containers) == ["experiment", "two"] and host.engine.running() == ["two"]
    assert theirs(host) == before
    files = host.files()
    assert [file for file in files if "/one" in file] == ["etc/vllm/one/theirs"]
    assert {"cards/two.md", "cards/two.json", "cards/two.memory.json", "etc/vllm/two/two.proven"} <= set(files)
    assert [file for file in files if file.startswith("data/models/org/two")]
    assert list(host.engine.images), "the image is the other service's, too"
    kept = json.loads((host.directory / "etc/plan.json").read_text())
    assert [entry["name"] for entry in kept["hosts"]["gpu1"]["services"]] == ["two"]


def test_a_name_that_leads_elsewhere_is_refused(host):
    stage, host, declared = host
    (host.directory / "outside").mkdir()
    (host.directory / "outside/.model-manifest.json").write_text("{}")
    elsewhere = [{**declared[0], "model": "../../outside"}]
    played = stage.play(stage.playbook("remove"), arguments=["-e", "remove_models=true"], inference_services=elsewhere)
    assert not played.ok and (host.directory / "outside/.model-manifest.json").exists(), played.output
    models = [{"name": "x", "directory": f"{host.directory}/outside"}]
    variables = {"model_weights_state": "absent", "model_weights_models": models}
    played = stage.play(stage.role("model_weights"), **variables)
    assert not played.ok and (host.directory / "outside/.model-manifest.json").exists(), played.output
    assert "does not lie below" in played.words, played.output
    models[0]["directory"] = f"{host.directory}/data/models/org/theirs"
    played = stage.play(stage.role("model_weights"), **variables)
    assert played.ok and played.changed() == 0, played.output
    assert "holds no manifest of this collection" in played.words and theirs(host)
