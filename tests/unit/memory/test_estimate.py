"""Estimates of single layouts: the parts add up, and refusals carry their numbers."""

from __future__ import annotations

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.estimate import (
    Engine,
    Layout,
    estimate,
    naive_bytes,
    naive_estimate,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.config import parse_model_config
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GB, GIB

H200 = int(139.80 * GIB)
QWEN_7B = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "torch_dtype": "bfloat16",
}


@pytest.fixture(scope="module")
def qwen():
    return parse_model_config(QWEN_7B)


def test_parts_add_up_to_the_budget(qwen):
    rank = estimate(qwen, Layout(), Engine(), H200).ranks[0]
    assert rank.weights + rank.activation + rank.cuda_graphs + rank.non_torch + rank.kv_cache == rank.total
    assert rank.total == rank.budget


def test_a_card_too_small_is_refused_with_numbers(qwen):
    found = estimate(qwen, Layout(), Engine(), 16 * GIB)
    assert not found.fits
    assert "GiB" in found.reason


def test_a_busy_gpu_is_refused_as_vllm_does(qwen):
    found = estimate(qwen, Layout(), Engine(), H200, gpu_free_bytes=100 * GIB)
    assert "less than the requested" in found.reason


def test_more_requests_need_more_budget(qwen):
    found = estimate(qwen, Layout(), Engine(), H200)
    assert found.minimum_for(1) == found.minimum
    assert found.minimum_for(9) - found.minimum == 8 * found.ranks[0].kv_cache_per_request


def test_naive_rule_of_671b_fp8_is_805_gb():
    assert round(naive_bytes(671e9, 1) / GB) == 805
    assert naive_estimate(671e9, 1, 80 * GIB, gpus=8).fits is False
