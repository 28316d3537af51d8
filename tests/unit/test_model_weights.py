from __future__ import annotations

import pytest

from ansible_collections.inferops.gpu_host.plugins.filter.model_weights import FilterModule
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


def test_a_service_that_names_no_hub_has_that_of_the_inventory():
    services = [{"name": "a", "model": "Qwen/Q"}, {"name": "b", "model": "org/own", "hub": "modelscope"}]
    models = FilterModule().filters()["models_of_services"](services, "/m", hub="huggingface")
    assert {model["model"]: model["source"] for model in models} == {"Qwen/Q": "huggingface", "org/own": "modelscope"}


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


def spread(models, hosts, **options):
    complete = weights.complete_models(models, "/m")
    return [(m["fetchers"], m["receivers"]) for m in weights.distribute(complete, hosts, **options)]


def test_one_host_fetches_and_the_others_copy():
    hosts = ["a", "b", "c"]
    assert spread([{"model": "x/y"}], hosts, fan_out=True) == [(["a"], ["b", "c"])]
    assert spread([{"model": "x/y"}], hosts, fan_out=True, seed="b") == [(["b"], ["a", "c"])]
    assert spread([{"model": "x/y", "hosts": ["c", "b"]}], hosts, fan_out=True) == [(["b"], ["c"])]
    assert spread([{"model": "x/y"}], hosts, fan_out=False) == [(hosts, [])]
    # a seed may fetch what it does not need itself
    assert spread([{"model": "x/y", "hosts": ["c"]}], hosts, fan_out=True, seed="a") == [(["a"], ["c"])]


def test_what_every_host_has_for_itself_is_not_passed_on_unless_a_seed_is_named():
    local = {"model": "x/y", "source": "local", "path": "/mnt"}
    assert spread([local], ["a", "b"], fan_out=True, seed="a") == [(["a", "b"], [])]
    assert spread([{**local, "seed": "b"}], ["a", "b"], fan_out=True) == [(["b"], ["a"])]


def test_a_seed_outside_the_play():
    with pytest.raises(weights.ModelError, match="seed of x/y is z, which is neither among the hosts"):
        spread([{"model": "x/y"}], ["a"], fan_out=True, seed="z")


def test_the_controller_as_seed():
    complete = weights.complete_models([{"model": "x/y"}], "/m")
    (model,) = weights.distribute(complete, ["a", "b"], True, "localhost", "/home/me/models")
    assert (model["fetchers"], model["receivers"]) == (["localhost"], ["a", "b"])
    assert model["controller_directory"] == "/home/me/models/m/x/y"
    # as a host of the play it is a host like the others
    (model,) = weights.distribute(complete, ["a", "localhost"], True, "localhost", "/home/me/models")
    assert (model["receivers"], model["controller_directory"]) == (["a"], None)


def has(digest="d", directory="/m/x/y"):
    return [{"complete": True, "directory": directory, "manifest": {"content_digest": digest}}]


LACKS = [{"complete": False, "directory": "/m/x/y", "manifest": None}]


def shared(seed=None, hosts=("a", "b", "c"), fan_out=True, **given):
    complete = weights.complete_models([{"model": "x/y", **given}], "/m")
    return weights.distribute(complete, list(hosts), fan_out, seed, "/ctl")


@pytest.mark.parametrize(
    ("results", "given", "fetching"),
    [
        ({"a": LACKS, "b": LACKS, "c": LACKS}, {}, ["a"]),
        ({"a": LACKS, "b": has(), "c": LACKS}, {}, []),  # a neighbour has it
        ({"a": LACKS, "b": has(directory="/m/other"), "c": LACKS}, {}, ["a"]),
        ({"a": LACKS, "b": has(), "c": LACKS}, {"fan_out": False}, ["a", "c"]),
        ({"a": has(), "b": has(), "c": has()}, {"update": True}, ["a"]),
        ({"a": LACKS, "b": LACKS, "c": LACKS}, {"seed": "localhost"}, ["localhost"]),
        ({"a": LACKS, "b": has(), "c": LACKS}, {"seed": "localhost"}, []),
        ({}, {}, ["a"]),
    ],
)
def test_the_source_is_asked_only_when_nobody_has_it(results, given, fetching):
    models = shared(**given)
    assert [h for h in ("localhost", "a", "b", "c") if weights.models_to_fetch(models, h, results)] == fetching


@pytest.mark.parametrize(
    ("results", "rounds"),
    [
        ({"a": has(), "b": LACKS, "c": LACKS}, [{"b": "a"}, {"c": "a"}]),
        ({"a": LACKS, "b": has(), "c": LACKS}, [{"a": "b"}, {"c": "b"}]),
        ({"a": has("new"), "b": has("old"), "c": has("new")}, [{"b": "a"}]),
        ({"a": has(), "c": LACKS}, [{"c": "a"}]),  # b is out of the play
        ({"a": has(), "b": has(), "c": has()}, []),
    ],
)
def test_those_that_lack_it_get_what_the_first_holder_has(results, rounds):
    plan = weights.fan_out_plan(shared()[0], results)
    assert plan["rounds"] == rounds
    assert plan["manifest"] in [r[0]["manifest"] for r in results.values()]


def test_the_controller_gives_and_keeps_its_place():
    (model,) = shared("localhost")
    results = {"localhost": has(directory="/ctl/m/x/y"), "a": LACKS, "b": LACKS, "c": LACKS}
    assert weights.fan_out_plan(model, results)["rounds"] == [{"a": "localhost"}, {"b": "localhost", "c": "a"}]
    plan = weights.fan_out_plan(model, {**results, "localhost": [], "b": has()})
    assert plan["rounds"] == [{"a": "b"}, {"c": "b"}]


def test_nobody_has_it():
    assert weights.fan_out_plan(shared()[0], {"b": LACKS, "c": LACKS}) == {"manifest": None, "rounds": []}


@pytest.mark.parametrize(("hosts", "rounds"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4), (64, 6)])
def test_fan_out_takes_log2_rounds_and_nobody_gives_what_he_has_not(hosts, rounds):
    names = [f"h{i}" for i in range(hosts)]
    plan = weights.fan_out_rounds(names[:1], names[1:])
    assert len(plan) == rounds
    have = {"h0"}
    for step in plan:
        assert set(step.values()) <= have
        assert len(set(step.values())) == len(step)
        have |= set(step)
    assert have == set(names)


def test_more_holders_make_fewer_rounds():
    assert weights.fan_out_rounds(["a", "b"], ["c", "d"]) == [{"c": "a", "d": "b"}]
    assert weights.fan_out_rounds(["a"], []) == []


def test_progress_for_people():
    figures = {"state": "downloading", "bytes": 3 * 2**30, "total": 12 * 2**30, "percent": 25.0, "rate": 2**20}
    line = weights.progress_line("org/name", {**figures, "eta_seconds": 9216, "message": ""})
    assert line == "org/name: downloading 25.0 %, 3 GiB of 12 GiB, 1 MiB/s, 2 h 33 min left"
    line = weights.progress_line("m", {**figures, "rate": 0, "eta_seconds": None, "message": "HTTP 429"})
    assert line == "m: downloading 25.0 %, 3 GiB of 12 GiB (HTTP 429)"
