from __future__ import annotations

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_weights as weights


def service(name, model, **changes):
    given = {"name": name, "model": model, "hub": "modelscope", "revision": None, "path": None, "state": "started"}
    return {**given, "hosts": [], **changes}


def test_two_services_of_one_model_need_it_once_where_either_runs():
    services = [
        service("a", "Qwen/Q", hosts=["gpu1"]),
        service("b", "Qwen/Q", hosts=["gpu2"]),
        service("gone", "Old/M", state="absent"),
    ]
    (model,) = weights.models_of_services(services, "/data/models")
    assert model["directory"] == "/data/models/Qwen/Q"
    assert model["hosts"] == ["gpu1", "gpu2"]


@pytest.mark.parametrize("first", [[], ["gpu1"]])
def test_a_service_on_every_host_needs_its_model_on_every_host(first):
    second = ["gpu1"] if not first else []
    services = [service("a", "Qwen/Q", hosts=first), service("b", "Qwen/Q", hosts=second)]
    assert weights.models_of_services(services, "/m")[0]["hosts"] == []


def test_the_plan_says_where():
    plan = {
        "services": [
            {
                "name": "a",
                "placements": [{"nodes": [{"host": "gpu2"}, {"host": "gpu1"}]}, {"nodes": [{"host": "gpu2"}]}],
            }
        ]
    }
    assert weights.models_of_services([service("a", "Qwen/Q")], "/m", plan)[0]["hosts"] == ["gpu1", "gpu2"]


def test_a_local_model_is_adopted_where_it_lies():
    (model,) = weights.models_of_services([service("a", "mine", hub="local", path="/srv/mine")], "/m")
    assert (model["source"], model["path"], model["directory"]) == ("local", "/srv/mine", "/srv/mine")


def test_defaults_are_filled():
    (model,) = weights.complete_models([{"model": "Qwen/Q", "exclude": ["*.bin"]}], "/data/models")
    assert model["directory"] == "/data/models/Qwen/Q"
    assert model["name"] == "Qwen/Q"
    assert set(model) == set(weights.MODEL_DEFAULTS)


def test_all_problems_are_told_at_once():
    models = [
        {"model": "a/b", "revison": "x"},
        {"source": "generated"},
        {"model": "c/d", "source": "local"},
        {"model": "e/f", "directory": "/m/a/b"},
    ]
    with pytest.raises(weights.ModelError) as error:
        weights.complete_models(models, "/m")
    for text in ("revison", "model is missing", "path must name", "is also the directory of 'a/b'"):
        assert text in str(error.value)
