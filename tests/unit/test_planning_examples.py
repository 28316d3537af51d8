"""The worked examples of docs/planning.md, and that the page shows what the planner says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from planning import indexes, shape

from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GB

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import planning_examples


def example(name):
    planned, _text = planning_examples.output(name)
    assert planned["problems"] == []
    return planned["services"]


def alternative(entry, tp, pp, hosts=1):
    for item in entry["rejected"]:
        layout = item["layout"]
        if (layout["tensor_parallel_size"], layout["pipeline_parallel_size"], item["hosts"]) == (tp, pp, hosts):
            return item
    raise AssertionError(f"no TP {tp} PP {pp} on {hosts} hosts")


def test_deepseek_r1_wants_two_h20_hosts_for_its_context():
    entry = example("r1-two-hosts")[0]
    assert round(entry["naive"]["bytes"] / GB) == 805 and entry["naive"]["hosts"] == 2
    assert shape(entry) == (8, 2, 1) and entry["engine"]["max_model_len"] == 163840
    # What one host really holds: the weights, and less than half of one full request.
    one = alternative(entry, 8, 1)["numbers"]
    assert 20_000 < one["longest_context"] < 120_000
    assert entry["estimate"]["kv_cache_tokens"] > 10 * one["kv_cache_tokens"]
    assert "tokens of context fit" in alternative(entry, 8, 1)["reason"]
    single = example("r1-one-host")[0]
    assert shape(single) == (8, 1, 1) and 20_000 < single["engine"]["max_model_len"] < 120_000


def test_distill_llama_70b_on_four_hosts_of_four_t4():
    entry = example("t4")[0]
    assert shape(entry) == (4, 4, 1) and entry["layout"]["dtype"] == "float16"
    assert [len(gpus) for _host, gpus in indexes(entry)[0]] == [4, 4, 4, 4]


@pytest.mark.parametrize(
    ("name", "least", "replicas"),
    [("7b-24gb", 1, 4), ("14b-24gb", 2, 2), ("32b-24gb", 4, 1), ("7b-80gb", 1, 4), ("14b-80gb", 1, 4)],
)
def test_qwen_on_four_cards(name, least, replicas):
    tp, pp, count = shape(example(name)[0])
    assert (tp * pp, count) == (least, replicas)


def test_qwen_32b_on_one_80_gb_card_holds_its_full_context():
    entry = example("32b-80gb")[0]
    assert entry["estimate"]["longest_context"] == 32768


def test_qwen_vl_72b_at_73480_tokens_on_eight_gpus():
    entry = example("vision")[0]
    assert entry["type"] == "vision" and entry["estimate"]["max_concurrency"] > 5
    assert entry["engine"]["gpu_memory_utilization"] == 0.9 and entry["placements"][0]["port"] == 8001


def test_three_services_on_one_24_gb_card():
    services = example("shared-card")
    assert [indexes(entry) for entry in services] == [[[("h0", [0])]]] * 3
    assert sum(entry["engine"]["gpu_memory_utilization"] for entry in services) <= 1
    assert services[2]["estimate"]["max_concurrency"] >= 1


def test_the_page_shows_what_the_planner_says():
    page = planning_examples.PAGE.read_text(encoding="utf-8")
    assert page == planning_examples.rendered(page), "run python tests/tools/planning_examples.py --write"
    for name in planning_examples.EXAMPLES:
        assert f"<!-- example: {name}" in page
