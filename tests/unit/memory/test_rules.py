# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.rules import refusals
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.config import parse_model_config

MODELS = json.loads((Path(__file__).resolve().parents[2] / "oracle" / "model_configs.json").read_text())["models"]


def codes(name, **layout):
    config = MODELS[name]["config"]
    return [r.code for r in refusals(parse_model_config(config, config.get("hf_quant_config")), **layout)]


@pytest.mark.parametrize(
    ("model", "layout", "expected"),
    [
        ("Qwen/Qwen2.5-7B", {"tp": 4}, []),
        ("Qwen/Qwen2.5-7B", {"tp": 8}, ["heads"]),  # 28 heads
        ("Qwen/Qwen2.5-14B", {"tp": 5}, ["kv_heads", "vocabulary", "intermediate_size"]),  # 40 heads do divide
        ("tiiuae/falcon-7b", {"tp": 2}, ["heads"]),
        ("BAAI/bge-base-en-v1.5", {"pp": 2}, ["pipeline"]),
        ("Qwen/Qwen3-0.6B", {"pp": 29}, ["pipeline_layers"]),
        ("Qwen/Qwen3-30B-A3B-FP8", {"tp": 2}, []),
        ("Qwen/Qwen3-30B-A3B-FP8", {"tp": 4}, ["fp8_block"]),  # experts 768 wide: 192 per rank
        ("Qwen/Qwen3-30B-A3B-FP8", {"tp": 4, "ep": True}, []),
        ("Qwen/Qwen3-30B-A3B-FP8", {"tp": 4, "engine_version": "0.32.0"}, []),  # blocks refined
        ("Qwen/Qwen2.5-7B", {"tp": 2, "ep": True}, ["no_experts"]),
        ("Qwen/Qwen2.5-7B", {"dtype": "bfloat16", "compute_capability": 7.5}, ["bfloat16"]),
        ("Qwen/Qwen2.5-7B", {"compute_capability": 7.5}, []),  # auto falls back to float16
        ("google/gemma-2-9b-it", {"dtype": "float16"}, ["float16"]),
        ("Qwen/Qwen2.5-32B-Instruct-AWQ", {"compute_capability": 7.0}, ["capability"]),
        ("Qwen/Qwen2.5-32B-Instruct-AWQ", {"compute_capability": 7.5}, []),
        ("openai/gpt-oss-20b", {"compute_capability": 7.5}, ["capability"]),
        ("RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", {"compute_capability": 8.0}, []),  # weight-only
        ("nvidia/Llama-3.1-70B-Instruct-FP8", {"compute_capability": 8.0}, ["capability"]),
    ],
)
def test_refusals(model, layout, expected):
    assert codes(model, **layout) == expected


def test_a_reason_has_its_numbers():
    config = MODELS["Qwen/Qwen2.5-7B"]["config"]
    (refusal,) = refusals(parse_model_config(config), tp=8)
    assert "28" in refusal.reason and "8" in refusal.reason
    assert refusal.numbers == {"size": 28, "tp": 8}
