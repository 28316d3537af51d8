"""The promised accuracy, on the measured runs."""

from __future__ import annotations

import json
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests/accuracy"))

import accuracy

MEASURED = ROOT / "tests/ground_truth"
# term → (mean, worst) absolute error allowed: percent, of activations GiB
BARS = {
    "weights": (0.3, 1.0),
    "kv_cache_bytes": (0.5, 2.0),
    "kv_cache_tokens": (0.7, 3.0),
    "max_concurrency": (1.0, 4.0),
    "activation": (0.15, 0.5),
}


def evaluated(name):
    return accuracy.evaluate(json.loads((MEASURED / name).read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def h200():
    return evaluated("vllm-0.26.0-h200.json")


@pytest.mark.parametrize("term", BARS)
def test_error_on_vllm_0_26(h200, term):
    found = h200["terms"][term]
    mean, worst = BARS[term]
    unit = "gib" if term == "activation" else "pct"
    assert found["mean_abs_" + unit] <= mean
    assert found["worst_" + unit] <= worst, found["worst_id"]


def test_error_on_our_own_runs():
    # Other models, TP 2, PP 2, expert parallel, compiled and eager; nothing was fitted to their cache figures.
    terms = evaluated("vllm-0.26.0-h200-own.json")["terms"]
    assert terms["activation"]["mean_abs_gib"] <= 0.02 and terms["activation"]["worst_gib"] <= 0.1
    assert terms["kv_cache_tokens"]["worst_pct"] <= 0.1
    assert terms["weights"]["mean_abs_pct"] <= 0.3


def test_smallest_card_is_right_for_every_run(h200):
    assert h200["smallest_card"]["wrong"] == []
    assert h200["smallest_card"]["cases"] >= 17


def test_a_run_with_next_to_nothing_measured_is_still_read():
    run = {"id": "bare", "config": evaluated_config(), "weights_gib_per_rank": [14.29]}
    answer = accuracy.evaluate({"runs": [run]})
    assert list(answer["terms"]) == ["weights"]
    assert "bare" in accuracy.table(answer)


def evaluated_config():
    document = json.loads((MEASURED / "vllm-0.26.0-h200.json").read_text(encoding="utf-8"))
    return next(r["config"] for r in document["runs"] if r["id"] == "q7-eager")


def test_published_runs_of_vllm_0_19():
    terms = evaluated("vllm-0.19.0-h100.json")["terms"]
    assert terms["weights"]["mean_abs_pct"] <= 0.3
    assert terms["activation"]["mean_abs_gib"] <= 0.15
