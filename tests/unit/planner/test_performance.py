from __future__ import annotations

import pytest
from planning import PUBLISHED, QWEN_7B, QWEN_32B

from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.estimate import Engine, Layout, estimate
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.config import parse_model_config
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner import performance
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.fleet import build_fleet


def speed(model, gpu, tp, pp, requests=256, hosts=1):
    spec = parse_model_config(PUBLISHED[model])
    kind = build_fleet([{"name": "a", "gpus": gpu}])[0].devices[0].kind
    found = estimate(spec, Layout(tp, pp), Engine(max_model_len=8192, max_num_seqs=requests), kind.total)
    return performance.speed(spec, performance.count_parameters(spec), found, kind, tp, pp, hosts)


@pytest.mark.parametrize(
    ("model", "pp", "requests", "measured"),
    [(QWEN_7B, 1, 256, 12281), (QWEN_7B, 2, 512, 21857), (QWEN_32B, 1, 256, 2793)],
)
def test_measured_runs_on_h200(model, pp, requests, measured):
    assert speed(model, "H200", 1, pp, requests).tokens_per_second == pytest.approx(measured, rel=0.05)


def test_replicas_beat_width_for_throughput_and_width_wins_for_latency():
    one, four = speed(QWEN_7B, "H100", 1, 1), speed(QWEN_7B, "H100", 4, 1)
    assert 4 * one.tokens_per_second > four.tokens_per_second > one.tokens_per_second
    assert four.time_per_token < one.time_per_token


def test_width_costs_more_without_nvlink():
    with_links = speed(QWEN_32B, "A100-80GB", 4, 1).tokens_per_second
    without = speed(QWEN_32B, "A100-PCIE-80GB", 4, 1).tokens_per_second
    assert without < 0.8 * with_links


def test_a_mixture_of_experts_answers_one_request_by_its_active_part():
    dense, sparse = speed("Qwen/Qwen3-32B", "H200", 1, 1), speed("Qwen/Qwen3-30B-A3B", "H200", 1, 1)
    assert sparse.time_per_token < dense.time_per_token / 4
