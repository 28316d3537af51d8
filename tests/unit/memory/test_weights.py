# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.weights import (
    allocated_bytes,
    loaded_dtype,
    parameter_counts,
    rank_weights,
    stage_layers,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.config import parse_model_config

MIB = 1024**2
MODELS = json.loads((Path(__file__).resolve().parents[2] / "oracle" / "model_configs.json").read_text())["models"]


def spec_of(name):
    config = MODELS[name]["config"]
    return parse_model_config(config, config.get("hf_quant_config"))


@pytest.mark.parametrize(
    ("model", "total", "active"),
    [
        # As the publishers and safetensors indexes state them.
        ("Qwen/Qwen2.5-7B", 7615616512, 7615616512),
        ("meta-llama/Meta-Llama-3.1-8B", 8030261248, 8030261248),
        ("Qwen/Qwen3-0.6B", 596049920, 596049920),
        ("Qwen/Qwen3-30B-A3B", 30532122624, 3353032704),
        ("Qwen/Qwen3-235B-A22B", 235093634560, None),
        ("deepseek-ai/DeepSeek-V2-Lite", 15706484224, None),
        ("mistralai/Mixtral-8x7B-v0.1", 46702792704, 12879925248),
    ],
)
def test_parameter_counts(model, total, active):
    found = parameter_counts(spec_of(model))
    assert found[0] == total
    assert active is None or found[1] == active


def test_stages_give_the_remainder_to_the_middle():
    assert stage_layers(32, 4) == (8, 8, 8, 8)
    assert stage_layers(61, 4) == (15, 15, 16, 15)
    assert stage_layers(62, 4) == (15, 16, 16, 15)


@pytest.mark.parametrize(
    ("size", "engine", "expected"),
    [
        (1, (0, 26), 512),
        (9 * MIB, (0, 26), 9 * MIB),
        (int(24.5 * MIB), (0, 26), 26 * MIB),
        (int(12.25 * MIB), (0, 26), int(12.25 * MIB)),
        (int(24.5 * MIB), (0, 19), int(24.5 * MIB)),
        (259 * MIB, (0, 19), 260 * MIB),
    ],
)
def test_the_allocator_rounds_large_blocks(size, engine, expected):
    assert allocated_bytes(size, engine) == expected


def test_float32_encoders_load_at_half():
    spec = spec_of("BAAI/bge-base-en-v1.5")
    assert spec.dtype == "float32" and loaded_dtype(spec) == "float16"
    assert rank_weights(spec, dtype="float32").exact == 2 * rank_weights(spec).exact


def test_kv_heads_are_replicated_when_there_are_more_ranks():
    spec = spec_of("Qwen/Qwen2.5-7B")  # 4 KV heads
    assert 8 * rank_weights(spec, 4).by_part["attention"] / 2 < 8 * rank_weights(spec, 7).by_part["attention"]


def test_expert_parallel_deals_out_whole_experts():
    spec = spec_of("Qwen/Qwen3-30B-A3B")
    sharded, dealt = rank_weights(spec, 4), rank_weights(spec, 4, expert_parallel=True)
    assert sharded.by_part["experts"] == dealt.by_part["experts"]
    assert (
        rank_weights(spec, 4, expert_parallel=True, data_parallel_size=2).by_part["experts"] * 2
        == dealt.by_part["experts"]
    )


def test_a_replicated_vision_tower_costs_every_rank_the_whole():
    spec = spec_of("Qwen/Qwen2.5-VL-7B-Instruct")
    alone = rank_weights(spec).by_part["vision"]
    assert rank_weights(spec, 2, mm_encoder_tp_mode="data").by_part["vision"] == alone
    assert rank_weights(spec, 2).by_part["vision"] < 0.6 * alone


def test_an_embedding_service_loads_no_head():
    spec = spec_of("Qwen/Qwen3-Embedding-8B")
    assert "lm_head" in rank_weights(spec).by_part
    assert "lm_head" not in rank_weights(spec, kind="embedding").by_part


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_can_be_weighed(name):
    spec = spec_of(name)
    assert spec.basis == "config" or spec.architecture in GENERIC
    whole, half = rank_weights(spec), rank_weights(spec, 2, compute_capability=9.0)
    assert 0.3 * whole.exact < half.exact < whole.exact


GENERIC = ("MiMoV2FlashForCausalLM", "BloomForCausalLM")  # estimated as a decoder of Llama's shape


def test_models_that_differ_in_a_key_of_their_architecture_alone_are_not_confused():
    plain = dict(MODELS["Qwen/Qwen3-8B"]["config"], attention_bias=False)
    biased = dict(plain, attention_bias=True)
    once = [rank_weights(parse_model_config(config)).exact for config in (plain, biased)]
    again = [rank_weights(parse_model_config(config)).exact for config in (biased, plain)]
    assert once[1] > once[0]
    assert again == once[::-1]
