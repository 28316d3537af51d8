"""How vLLM lays out the cache: groups, blocks, and what one request takes of them."""

from __future__ import annotations

import json

import pytest
from conftest import ROOT

from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.estimate import Engine, Layout, estimate
from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.kv_cache import (
    KvCacheError,
    layout_kv_cache,
    stage_of_layer,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.config import parse_model_config
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB

H200 = int(139.80 * GIB)
RUNS = {
    run["id"]: run
    for name in ("vllm-0.26.0-h200.json", "vllm-0.26.0-h200-own.json")
    for run in json.loads((ROOT / "tests/ground_truth" / name).read_text(encoding="utf-8"))["runs"]
}


def spec(run_id, **changes):
    return parse_model_config(dict(RUNS[run_id]["config"], **changes))


@pytest.mark.parametrize(("tp", "tokens"), [(2, 544), (4, 272)])
def test_a_state_raises_the_block_of_attention(tp, tokens):
    # Qwen3-Next, as vLLM reported it at both sizes.
    assert layout_kv_cache(spec("q3next-tp4"), tensor_parallel_size=tp).block_size == tokens


def test_latent_attention_is_whole_on_every_rank():
    one, eight = (layout_kv_cache(spec("v2lite"), tensor_parallel_size=tp) for tp in (1, 8))
    assert one.block_bytes == eight.block_bytes == (27 * 576 * 2 * 16,)


def test_fp8_halves_the_block():
    full, fp8 = (layout_kv_cache(spec("q7-eager"), kv_cache_dtype=name) for name in ("auto", "fp8"))
    assert full.block_bytes[0] == 2 * fp8.block_bytes[0]


def test_an_unknown_cache_dtype_names_the_known_ones():
    with pytest.raises(KvCacheError, match="fp8_e4m3"):
        layout_kv_cache(spec("q7-eager"), kv_cache_dtype="int3")


def test_more_ranks_than_kv_heads_replicate_them():
    four, eight = (layout_kv_cache(spec("q7-eager"), tensor_parallel_size=tp) for tp in (4, 8))
    assert four.block_bytes == eight.block_bytes


def test_sliding_layers_save_only_beyond_what_is_in_flight():
    layout = layout_kv_cache(spec("gpto20"))
    assert [(g.kind, len(g.layers)) for g in layout.groups] == [("sliding", 12), ("full", 12)]
    in_flight = 2 * 8192
    short, long = (layout.blocks_per_request(n, in_flight) for n in (8192, 131072))
    assert short == 2 * 512 + 1  # both groups hold every token
    assert long == 8192 + 1033  # 127 + 16384 tokens in the sliding group, and one block


def test_groups_have_the_size_of_the_rarer_kind():
    # Gemma 3 27B: 10 full layers among 62; six sliding groups.
    layout = layout_kv_cache(spec("gem3-e", num_hidden_layers=62))
    assert sorted(len(g.layers) for g in layout.groups if g.kind == "full") == [10]
    assert len(layout.groups) == 7


def test_the_remainder_of_layers_goes_before_the_last_stage():
    assert [stage_of_layer(61, 4).count(s) for s in range(4)] == [15, 15, 16, 15]
    layout = layout_kv_cache(spec("q7-eager"), pipeline_parallel_size=3)
    assert layout.block_bytes[1] > layout.block_bytes[0] == layout.block_bytes[2]


def test_encoders_cache_nothing():
    assert layout_kv_cache(spec("bgem3")) is None


def test_longest_context_is_what_vllm_would_suggest():
    # tests/captured/vllm-0.26.0/kv-cache-too-small.log: 11.86 GiB available, 16.0 needed, a shorter length suggested.
    found = estimate(spec("l8-s1024"), Layout(), Engine(gpu_memory_utilization=0.2, enforce_eager=True), H200)
    assert not found.fits and "16.00 GiB" in found.reason
    assert found.ranks[0].kv_cache / GIB == pytest.approx(11.86, abs=0.01)
    assert found.longest_context == pytest.approx(SUGGESTED, abs=64)


SUGGESTED = int(
    (ROOT / "tests/captured/vllm-0.26.0/kv-cache-too-small.log")
    .read_text(encoding="utf-8")
    .split("estimated maximum model length is ")[1]
    .split(".")[0]
)
