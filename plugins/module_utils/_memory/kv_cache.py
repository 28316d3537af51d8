# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The KV cache as vLLM lays it out: groups of layers that share blocks, and how many blocks one request needs.

vLLM cuts the pool of a rank into blocks of equal size. Layers of the same kind form groups; every group takes its
blocks from the same pool. All groups have the same page (bytes of one block in one layer): the tokens per block are
raised where a layer's tokens are smaller, and the state of a linear-attention layer is padded to a page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.attention import (
    KERNEL_BLOCK_SIZE,
    AttentionSpec,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.part import CachedLayer
from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.weights import stage_layers
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import ceil_div, round_up

DEFAULT_BLOCK_SIZE = AttentionSpec.default_block

DTYPE_BYTES = {
    "float32": 4,
    "float": 4,
    "bfloat16": 2,
    "float16": 2,
    "half": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "fp8_inc": 1,
    "fp8_ds_mla": 1,
}


class KvCacheError(ValueError):
    """A cache that vLLM cannot lay out."""


@dataclass(frozen=True)
class CacheGroup:
    """Layers that share one block table."""

    kind: str
    block_size: int
    window: Optional[int]
    layers: Tuple[int, ...]  # model layer indices (a layer can be in two groups)

    def blocks_per_request(self, max_model_len, in_flight_tokens, state_blocks=1):
        """Blocks that one request of `max_model_len` tokens holds at most in this group."""
        if self.kind == "state":
            return state_blocks
        if self.kind == "sliding":
            # One more block than the tokens need: the window may begin inside a block.
            return ceil_div(min(self.window - 1 + in_flight_tokens, max_model_len), self.block_size) + 1
        if self.kind == "chunked":
            return ceil_div(min(self.window + in_flight_tokens, max_model_len), self.block_size)
        return ceil_div(max_model_len, self.block_size)


@dataclass(frozen=True)
class KvCacheLayout:
    """The cache of a whole model in one layout. `block_bytes[s]`: bytes of one block on a rank of stage s."""

    groups: Tuple[CacheGroup, ...]
    block_bytes: Tuple[int, ...]
    block_size: int  # tokens per block of the attention layers, as vLLM reports it

    def blocks_per_request(self, max_model_len, in_flight_tokens, state_blocks=1):
        return sum(g.blocks_per_request(max_model_len, in_flight_tokens, state_blocks) for g in self.groups)

    def request_bytes(self, max_model_len, in_flight_tokens, state_blocks=1):
        """Bytes of pool that one request of `max_model_len` tokens needs, per stage."""
        blocks = self.blocks_per_request(max_model_len, in_flight_tokens, state_blocks)
        return tuple(b * blocks for b in self.block_bytes)

    def blocks(self, pool_bytes):
        """Blocks of the whole deployment: the fewest of any stage. `pool_bytes`: one figure per stage."""
        return min((max(int(p // b), 0) for p, b in zip(pool_bytes, self.block_bytes) if b), default=0)

    def longest_context(self, blocks, in_flight_tokens, at_most, state_blocks=1):
        """The longest request that `blocks` hold, at most `at_most` tokens; 0 when not even one token fits."""
        if self.blocks_per_request(1, in_flight_tokens, state_blocks) > blocks:
            return 0
        if self.blocks_per_request(at_most, in_flight_tokens, state_blocks) <= blocks:
            return at_most
        low, high = 1, at_most
        while high - low > 1:
            middle = (low + high) // 2
            if self.blocks_per_request(middle, in_flight_tokens, state_blocks) <= blocks:
                low = middle
            else:
                high = middle
        return low


def stage_of_layer(num_layers, pipeline_parallel_size):
    """For each layer the stage that holds it."""
    return tuple(s for s, n in enumerate(stage_layers(num_layers, pipeline_parallel_size)) for _i in range(n))


def cache_dtype_bytes(spec, kv_cache_dtype="auto", dtype="bfloat16"):
    """Bytes of one cached element. "auto": what the checkpoint brings scales for, else the dtype the model runs in."""
    name = kv_cache_dtype
    if name in (None, "auto"):
        name = (spec.quantization.kv_cache_dtype if spec.quantization else None) or dtype
    try:
        return DTYPE_BYTES[name]
    except KeyError:
        raise KvCacheError(
            f"kv_cache_dtype is {name!r}; this estimator knows {', '.join(sorted(DTYPE_BYTES))} and auto"
        ) from None


def layout_kv_cache(
    spec, tensor_parallel_size=1, pipeline_parallel_size=1, kv_cache_dtype="auto", dtype="bfloat16", block_size=None
):
    """The KvCacheLayout of a model, or None when nothing is cached (encoders).

    dtype: what the model runs in (not what the file stores). block_size: tokens per block, None for vLLM's default.
    """
    layers = _cached_layers(spec, tensor_parallel_size, kv_cache_dtype, dtype, block_size)
    if not layers:
        return None
    stages = stage_of_layer(spec.num_layers, pipeline_parallel_size)
    sizes = {layer.page_bytes for _i, layer in layers}
    if all(layer.attends_to_all for _i, layer in layers) and len({layer.block_size for _i, layer in layers}) == 1:
        # Every layer holds every token: one group, whatever the layers' widths.
        group = CacheGroup("full", layers[0][1].block_size, None, tuple(i for i, _layer in layers))
        per_stage = [0] * pipeline_parallel_size
        for i, layer in layers:
            per_stage[stages[i]] += layer.page_bytes
        return KvCacheLayout((group,), tuple(per_stage), group.block_size)
    page = max(sizes)
    groups = _split_into_groups(_same_pages(layers, page))
    per_stage = tuple(
        page * max(sum(1 for i in group.layers if stages[i] == stage) for group in groups)
        for stage in range(pipeline_parallel_size)
    )
    attention_block = max((g.block_size for g in groups if g.kind != "state"), default=0)
    return KvCacheLayout(groups, per_stage, attention_block)


def _cached_layers(spec, tp, kv_cache_dtype, dtype, block_size):
    """(layer index, CachedLayer) of everything that is cached, with vLLM's first choice of block sizes."""
    element = cache_dtype_bytes(spec, kv_cache_dtype, dtype)
    block = block_size or max((a.default_block for a in spec.attentions), default=DEFAULT_BLOCK_SIZE)
    states = [state.state_bytes(tp, dtype, DTYPE_BYTES) for _i, state in spec.state_layers]
    if states and spec.attention_layers:
        block = _hybrid_block_size(spec, tp, element, max(states), block)
    found = []
    for index, layer in enumerate(spec.layers):
        if layer.attention:
            found.extend((index, cached) for cached in layer.attention.cache(tp, element, block))
        if layer.state:
            found.extend((index, cached) for cached in layer.state.cache(tp, dtype, DTYPE_BYTES))
    return found


def _hybrid_block_size(spec, tp, element, state, block):
    """Tokens per block so that a page of attention is at least as large as a state."""
    token = max(attention.token_bytes(tp, element) for attention in spec.attentions)
    step = max(KERNEL_BLOCK_SIZE, block)
    return max(block, round_up(ceil_div(state, token), step))


def _same_pages(layers, page):
    """The layers with equal pages: more tokens per block where that comes out even, else padding."""
    for index, layer in layers:
        block = layer.block_size
        if layer.kind != "state" and layer.page_bytes != page and page % layer.page_bytes == 0:
            block *= page // layer.page_bytes
        yield index, CachedLayer(layer.kind, layer.token_bytes, block, layer.window, page)


def _split_into_groups(layers):
    """Groups of about equally many layers, each of one kind."""
    kinds = {}
    for index, layer in layers:
        kinds.setdefault(layer, []).append(index)
    fewest, most = min(map(len, kinds.values())), max(map(len, kinds.values()))
    size = most if most < fewest * 1.5 else fewest
    groups = []
    for layer, indices in kinds.items():
        count = ceil_div(len(indices), size)
        for i in range(count):
            groups.append(CacheGroup(layer.kind, layer.block_size, layer.window, tuple(indices[i::count])))
    return tuple(groups)
