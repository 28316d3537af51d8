# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner against vLLM's own answers, as recorded by record.py: bytes of one rank, layouts accepted and refused.

pytest tests/oracle                                # replays recorded.json, needs no vLLM
PYTHON_WITH_VLLM=python pytest tests/oracle -m slow  # asks vLLM again for a few models and compares with the record
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from functools import lru_cache
from pathlib import Path

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.rules import refusals
from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.weights import rank_weights
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.config import parse_model_config

HERE = Path(__file__).resolve().parent
MODELS = json.loads((HERE / "model_configs.json").read_text())["models"]
RECORD = json.loads((HERE / "recorded.json").read_text())
EXPLAINED = json.loads((HERE / "explained.json").read_text())

# vLLM's reasons against a layout, as opposed to what the recording machine could not do.
REFUSED = re.compile(
    r"must be divisible|is not divisible|not divisible by|must divide|Pipeline parallelism is not supported"
    r"|^AssertionError: ?$|greater than the number of experts"
)


@lru_cache(maxsize=None)
def spec_of(name):
    config = MODELS[name]["config"]
    return parse_model_config(config, config.get("hf_quant_config"))


def layout_of(key):
    sizes, _slash, option = key.partition("/")
    tp, pp = (int(n) for n in sizes.split("x"))
    return tp, pp, option


def answers(kind):
    """(model, layout, answer) of the record: accepted ones are lists of bytes, refused ones the reason."""
    for name, model in RECORD["models"].items():
        for key, answer in model["layouts"].items():
            refused = isinstance(answer, str)
            if kind == "bytes" and not refused:
                yield name, key, answer
            elif kind == "layouts" and (not refused or REFUSED.search(answer)):
                yield name, key, None if not refused else answer


def predicted_bytes(name, key):
    tp, pp, option = layout_of(key)
    weights = rank_weights(
        spec_of(name),
        tp,
        pp,
        int(option) if option.isdigit() else 0,
        expert_parallel=option == "ep",
        mm_encoder_tp_mode="data" if option == "data" else "weights",
        kind="embedding" if MODELS[name].get("runner") == "pooling" else None,
        engine_version=RECORD["vllm"].partition("+")[0],
    )
    return [weights.exact, weights.rotary]


def test_the_record_is_large_enough():
    accepted = {name for name, _key, _answer in answers("bytes")}
    classes = {RECORD["models"][name]["class"] for name in accepted}
    assert len(accepted) >= 40 and len(classes) >= 40


@pytest.mark.parametrize("name", sorted({name for name, _key, _answer in answers("bytes")}))
def test_bytes_of_a_rank(name):
    wanted = {key: answer for key, answer in RECORD["models"][name]["layouts"].items() if not isinstance(answer, str)}
    found = {key: predicted_bytes(name, key) for key in wanted}
    different = {key: [a - b for a, b in zip(found[key], wanted[key])] for key in wanted if found[key] != wanted[key]}
    if name in EXPLAINED["bytes"]:
        assert different, f"{name} is equal now: take it out of explained.json"
        off = max(abs(sum(difference)) / sum(wanted[key]) for key, difference in different.items())
        assert off <= EXPLAINED["bytes"][name]["within"], different
    else:
        assert not different


@pytest.mark.parametrize("name", sorted({name for name, _key, _answer in answers("layouts")}))
def test_layouts_accepted_and_refused(name):
    spec, wrong = spec_of(name), {}
    for n, key, answer in answers("layouts"):
        tp, pp, option = layout_of(key)
        if n != name or option.isdigit():
            continue
        found = refusals(
            spec,
            tp,
            pp,
            option == "ep",
            engine_version=RECORD["vllm"].partition("+")[0],
            mm_encoder_tp_mode="data" if option == "data" else "weights",
        )
        if bool(found) != bool(answer):
            wrong[key] = {"planner": [r.reason for r in found], "vllm": answer or "accepted"}
    if name in EXPLAINED["layouts"]:
        assert sorted(wrong) == sorted(EXPLAINED["layouts"][name]["layouts"]), wrong
    else:
        assert not wrong


@pytest.mark.slow
@pytest.mark.skipif("PYTHON_WITH_VLLM" not in os.environ, reason="PYTHON_WITH_VLLM names no Python that has vLLM")
@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", "openai/gpt-oss-20b", "BAAI/bge-base-en-v1.5"])
def test_the_record_is_still_what_vllm_says(name, tmp_path):
    output = tmp_path / "recorded.json"
    command = [os.environ["PYTHON_WITH_VLLM"], str(HERE / "record.py"), "--models", name, "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True, timeout=900)
    again = json.loads(output.read_text())
    assert again["models"][name] == RECORD["models"][name]
