from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils._placements import (
    gpu_services,
    groups,
    images_on_host,
    on_host,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import normalize_services
from ansible_collections.inferops.gpu_host.plugins.module_utils._versions import DEFAULT_IMAGES

SERVICES = normalize_services(
    [
        {"name": "chat", "model": "a/chat"},
        {"name": "small", "model": "a/small", "accelerator": "cpu", "image": "registry.example/own:1"},
        {"name": "gone", "model": "a/gone", "state": "absent"},
    ]
)
PLAN = {
    "services": [
        {
            "name": "chat",
            "engine": {"max-model-len": 4096},
            "placements": [
                {"replica": 0, "port": 8000, "nodes": [{"host": "gpu1"}]},
                {"replica": 1, "port": 8000, "nodes": [{"host": "gpu2"}, {"host": "gpu3"}]},
            ],
        },
        {"name": "small", "placements": [{"replica": 0, "port": 8001, "nodes": [{"host": "gpu1"}]}]},
        {"name": "gone", "placements": [{"replica": 0, "port": 8002, "nodes": [{"host": "gpu1"}]}]},
        {"name": "no longer declared", "placements": [{"replica": 0, "port": 8003, "nodes": [{"host": "gpu1"}]}]},
    ]
}


def test_a_host_works_on_its_own_replicas_only():
    assert [item["placement"]["replica"] for item in on_host(PLAN, SERVICES, "gpu3")] == [1]
    assert [item["service"]["name"] for item in on_host(PLAN, SERVICES, "gpu1")] == ["chat", "small"]
    assert on_host(PLAN, SERVICES, "elsewhere") == []


def test_a_replica_has_one_round_on_all_of_its_hosts():
    def entry(name, *placements):
        nodes = [[{"host": host} for host in hosts] for hosts in placements]
        return {"name": name, "placements": [{"port": 8000, "nodes": hosts} for hosts in nodes]}

    services = normalize_services([{"name": name, "model": "a/b"} for name in ("alone", "wide", "last")])
    plan = {"services": [entry("alone", ["gpu1"], ["gpu3"]), entry("wide", ["gpu1", "gpu2"]), entry("last", ["gpu2"])]}
    rounds = {
        host: [(item["service"]["name"], item["round"]) for item in on_host(plan, services, host)]
        for host in ("gpu1", "gpu2", "gpu3")
    }
    assert rounds == {
        "gpu1": [("alone", 0), ("wide", 1)],
        "gpu2": [("wide", 1), ("last", 2)],
        "gpu3": [("alone", 0)],
    }


def test_the_plan_beats_the_options_of_the_accelerator():
    defaults = {"cuda": {"max-model-len": 1, "enforce-eager": True}}
    chat = on_host(PLAN, SERVICES, "gpu1", options=defaults)[0]
    assert chat["plan"]["engine"] == {"max-model-len": 4096, "enforce-eager": True}


def test_an_image_is_the_services_own_or_the_accelerators():
    assert images_on_host(PLAN, SERVICES, "gpu1") == [
        {"name": DEFAULT_IMAGES["cuda"]},
        {"name": "registry.example/own:1"},
    ]
    assert images_on_host(PLAN, SERVICES, "gpu2", {"cuda": "mirror.example/vllm:1"}) == [
        {"name": "mirror.example/vllm:1"}
    ]


def test_the_accelerator_of_all_services_comes_with_the_plan():
    plan = {"services": [dict(PLAN["services"][0], accelerator="cpu")]}
    (item,) = on_host(plan, SERVICES, "gpu1")
    assert item["service"]["accelerator"] == "cpu"
    assert item["image"] == DEFAULT_IMAGES["cpu"]
    assert gpu_services([item], "gpu1") == []
    assert groups(plan, SERVICES)[0]["accelerator"] == "cpu"


def test_without_a_plan_there_is_no_work():
    assert on_host({}, SERVICES, "gpu1") == []


def test_the_gpus_of_a_host_are_asked_about_once_for_each_started_service_on_them():
    def node(host, *uuids):
        return {"host": host, "gpus": [{"uuid": uuid, "index": 0} for uuid in uuids]}

    plan = {
        "services": [
            {
                "name": "chat",
                "quantization": "fp8",
                "engine": {"dtype": "bfloat16"},
                "placements": [
                    {"nodes": [node("gpu1", "GPU-a"), node("gpu2", "GPU-c")]},
                    {"nodes": [node("gpu1", "GPU-b")]},
                ],
            },
            {"name": "small", "placements": [{"nodes": [node("gpu1")]}]},
            {"name": "resting", "placements": [{"nodes": [node("gpu1", "GPU-d")]}]},
        ]
    }
    services = [*SERVICES, *normalize_services([{"name": "resting", "model": "a/resting", "state": "stopped"}])]
    assert gpu_services(on_host(plan, services, "gpu1"), "gpu1") == [
        {
            "name": "chat",
            "image": DEFAULT_IMAGES["cuda"],
            "engine_version": None,
            "dtype": "bfloat16",
            "quantization": "fp8",
            "gpus": ["GPU-a", "GPU-b"],
        }
    ]


def test_declared_gpus_have_no_uuid_yet_which_means_any():
    plan = {
        "services": [
            {"name": "chat", "placements": [{"nodes": [{"host": "gpu1", "gpus": [{"uuid": None, "index": 0}]}]}]}
        ]
    }
    assert gpu_services(on_host(plan, SERVICES, "gpu1"), "gpu1")[0]["gpus"] == []
