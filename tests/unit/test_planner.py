from __future__ import annotations

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils._demo_model import demo_config
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner import PlanError, plan

QWEN_7B = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "sliding_window": 131072,
}


def service(name="qwen", **keys):
    return dict({"name": name, "model": "Qwen/Qwen2.5-7B-Instruct", "config": QWEN_7B}, **keys)


def host(name="gpu1", gpu="H100-80GB", count=4, **keys):
    return dict({"name": name, "gpus": {"model": gpu, "count": count}}, **keys)


def indexes(entry):
    return [
        [(node["host"], [gpu["index"] for gpu in node["gpus"]]) for node in p["nodes"]] for p in entry["placements"]
    ]


def test_a_small_model_gets_replicas_and_a_port_for_each():
    entry = plan([service()], [host()])["services"][0]
    assert entry["layout"]["tensor_parallel_size"] == 1
    assert indexes(entry) == [[("gpu1", [index])] for index in range(4)]
    assert [placement["port"] for placement in entry["placements"]] == [8000, 8001, 8002, 8003]
    assert entry["engine"]["max_model_len"] == 32768


def test_the_cpu_needs_no_gpu():
    entry = plan(
        [{"name": "demo", "hub": "generated", "config": demo_config(), "accelerator": "cpu"}],
        [{"name": "box", "memory": "24 GiB"}],
    )["services"][0]
    assert entry["placements"] == [{"replica": 0, "port": 8000, "nodes": [{"host": "box", "node_rank": 0, "gpus": []}]}]
    assert "gpu_memory_utilization" not in entry["engine"]


def test_a_model_of_which_nothing_is_known():
    with pytest.raises(PlanError, match="nothing is known of model"):
        plan([{"name": "x", "model": "o/m"}], [host()])
