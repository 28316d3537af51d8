"""inventories/single_host: every kind of model on one host, planned and rendered without touching one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from ansible_collections.inferops.gpu_host.plugins.module_utils import _placements, _vllm_container
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.plan import plan
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import normalize_services

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ("gpu1", "gpu2")


@pytest.fixture(scope="module")
def declared():
    services = yaml.safe_load((ROOT / "inventories/single_host/group_vars/all.yml").read_text())["inference_services"]
    # No vault is open here, and so the one key that comes from there is made on the host as those of the others.
    return [{key: value for key, value in service.items() if key != "api_key"} for service in services]


@pytest.fixture(scope="module")
def planned(declared):
    published = json.loads((ROOT / "playbooks/files/model_configs.json").read_text())
    gpus = yaml.safe_load((ROOT / "inventories/single_host/group_vars/gpu_hosts.yml").read_text())["inference_gpus"]
    models = {service["name"]: {"config": published[service["model"]]} for service in declared}
    return plan(declared, [{"name": host, "gpus": gpus} for host in HOSTS], models)


def test_every_service_has_its_place(planned):
    assert planned["problems"] == []
    assert all(entry["placements"] for entry in planned["services"])


def test_no_two_on_one_port_and_no_gpu_is_promised_twice(planned):
    ports, shares = Counter(), Counter()
    for entry in planned["services"]:
        for placement in entry["placements"]:
            (node,) = placement["nodes"]
            ports[node["host"], placement["port"]] += 1
            for gpu in node["gpus"]:
                shares[node["host"], gpu["index"]] += entry["estimate"]["gpu_memory_utilization"]
    assert max(ports.values()) == 1
    assert max(shares.values()) <= 1
    assert sum(1 for share in shares.values() if share > 0) == 16


def test_named_gpus_are_the_ones_used(planned, declared):
    for service, entry in zip(declared, planned["services"]):
        used = [gpu["index"] for node in entry["placements"][0]["nodes"] for gpu in node["gpus"]]
        assert used == service.get("gpus", used), service["name"]
        assert len(used) == service.get("tensor_parallel_size", 1)


def test_types_are_found_out(planned):
    assert {entry["name"]: entry["type"] for entry in planned["services"]} == {
        "qwen2.5-7b-instruct": "chat",
        "qwen2.5-14b-instruct": "chat",
        "qwen2.5-32b-instruct": "chat",
        "bge-large-zh-v1.5": "embedding",
        "bge-m3": "embedding",
        "bge-reranker-large": "rerank",
        "bge-reranker-large-tei": "rerank",
        "qwen2.5-vl-72b-instruct": "vision",
        "qwq-32b": "chat",
    }


def test_each_vllm_service_renders(planned, declared):
    services = normalize_services(declared)
    rendered = {}
    for host in HOSTS:
        for item in _placements.on_host(planned, services, host):
            service, placement = item["service"], item["placement"]
            if service["engine"] != "vllm":
                continue
            config = _vllm_container.config_file(
                service, item["plan"], placement, service["engine_version"] or "0.33.0"
            )
            _vllm_container.container_args(placement, service, host, item["image"], "/m", "/c", "/x", config)
            rendered[service["name"]] = config["config"]
    assert len(rendered) == 8
    assert rendered["qwq-32b"]["max-num-seqs"] == 64
    assert rendered["bge-m3"]["runner"] == "pooling"
    assert rendered["qwen2.5-vl-72b-instruct"]["limit-mm-per-prompt"] == "image=5,video=5"
    assert rendered["qwen2.5-vl-72b-instruct"]["host"] == "0.0.0.0"
