# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Multi-head latent attention (DeepSeek, Kimi), with the indexer of its sparse form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from ansible_collections.inferops.gpu_host.plugins.module_utils._config_keys import ConfigError
from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.attention import HEADS, AttentionSpec
from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.part import CachedLayer
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import ceil_div

WORDS = {}  # such a model says so by its keys
SPARSE_BLOCK_SIZE = 64  # the only block of the sparse kernels and of their indexer
SPARSE_FP8_BYTES = 656  # per token: 512 FP8, their 4 scales, 64 rotated elements of 16 bits
INDEXER_SCALE_GROUP = 128  # the indexer's keys are FP8 with one float32 scale per 128
WORKSPACE_TOKENS = 64 * 1024  # most context that a chunk of prefill projects up


@dataclass(frozen=True)
class LatentAttentionSpec(AttentionSpec):
    """The cache holds kv_lora_rank + qk_rope_head_dim elements per token and layer, whole on every tensor-parallel
    rank: one latent for all heads, so to the cache this is attention with one KV head."""

    q_lora_rank: Optional[int] = None  # None: the query is projected directly
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    index_heads: Optional[int] = None  # sparse attention (DeepSeek V3.2): heads and width of the indexer
    index_head_dim: Optional[int] = None
    index_topk: Optional[int] = None

    MODULES = (
        "o_proj",
        "q_proj",
        "kv_a_proj_with_mqa",
        "fused_qkv_a_proj",
        "q_b_proj",
        "kv_b_proj",
        "indexer.wq_b",
    )

    @property
    def cache_width(self):
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def default_block(self):
        return SPARSE_BLOCK_SIZE if self.index_topk else AttentionSpec.default_block

    @property
    def own_rotary_table(self):
        return bool(self.index_heads)  # the indexer's

    @property
    def rotary_dim(self):
        return self.qk_rope_head_dim

    def tensors(self, rank):
        hidden, heads = rank.spec.hidden_size, rank.share(self.heads)
        bias = rank.traits["qkv_bias"]
        query = heads * (self.qk_nope_head_dim + self.qk_rope_head_dim)
        if self.q_lora_rank:
            outputs = (self.q_lora_rank, self.cache_width)
            rank.linear("attention", "fused_qkv_a_proj", hidden, outputs, bias)
            rank.add("norm", "q_a_layernorm", self.q_lora_rank)
            rank.linear("attention", "q_b_proj", self.q_lora_rank, (query,))
        else:
            rank.linear("attention", "kv_a_proj_with_mqa", hidden, (self.cache_width,), bias)
            rank.linear("attention", "q_proj", hidden, (query,))
        rank.add("norm", "kv_a_layernorm", self.kv_lora_rank)
        up = heads * (self.qk_nope_head_dim + self.v_head_dim)
        rank.linear("attention", "kv_b_proj", self.kv_lora_rank, (up,))
        if rank.capability is not None and rank.quantization is not None and "kv_b_proj" not in rank.unquantized:
            # Decoding multiplies with 16-bit copies of a quantized kv_b_proj's two halves.
            rank.add("attention", "W_UK", heads * self.qk_nope_head_dim * self.kv_lora_rank, parameters=0)
            rank.add("attention", "W_UV", heads * self.v_head_dim * self.kv_lora_rank, parameters=0)
        rank.linear("attention", "o_proj", heads * self.v_head_dim, (hidden,), rank.traits["o_bias"])
        if self.index_heads:
            self._indexer(rank)

    def _indexer(self, rank):
        """Chooses the tokens that sparse attention looks at (DeepSeek V3.2); replicated."""
        hidden = rank.spec.hidden_size
        rank.linear("attention", "indexer.wq_b", self.q_lora_rank, (self.index_heads * self.index_head_dim,))
        # The key and the heads' weights are one matrix, never quantized; the norm is kept in float32.
        rank.add("attention", "indexer.wk_weights_proj", hidden * (self.index_head_dim + self.index_heads))
        rank.add("norm", "indexer.k_norm", 2 * self.index_head_dim, 4)

    def token_bytes(self, tp, element):
        return self.cache_width * element

    def cache(self, tp, element, block):
        width = SPARSE_FP8_BYTES if self.index_topk and element == 1 else self.token_bytes(tp, element)
        yield CachedLayer("mla", width, block, None, width * block)
        if self.index_topk:
            dim = self.index_head_dim
            indexer = dim + 4 * ceil_div(dim, INDEXER_SCALE_GROUP)
            yield CachedLayer("indexer", indexer, block, None, indexer * block)

    def refusals(self, tp, ep=False):
        return []

    def sharded_linears(self, hidden, tp):
        return ()

    def graph_columns(self, tp):
        return ceil_div(self.heads, tp) * self.kv_lora_rank

    def profiled_bytes(self, moments):
        batch, heads = moments.batch, self.heads // moments.tp
        # vLLM reserves what projecting up a chunk of context would take.
        context = max(8 * batch.max_model_len, 4 * batch.sequences * batch.block_size)
        context = max(min(context, WORKSPACE_TOKENS), batch.sequences * batch.block_size)
        reserved = context * heads * (self.qk_nope_head_dim + self.v_head_dim) * batch.itemsize
        query = heads * (self.qk_nope_head_dim + self.qk_rope_head_dim)
        latent = self.kv_lora_rank + (0 if batch.compiled else self.cache_width)
        if self.q_lora_rank:
            latent += 2 * self.q_lora_rank
        columns = query + heads * self.v_head_dim + latent
        workspace = 0 if batch.compiled else moments.cublas_workspace
        return reserved + moments.token * columns + 2 * moments.hidden + workspace


def applies(keys):
    """Whether the layers of this model that attend do it this way."""
    return bool(keys.get("kv_lora_rank"))


def read(keys, kind):
    nope, rope = keys.count("qk_nope_head_dim"), keys.count("qk_rope_head_dim")
    spec = LatentAttentionSpec(
        kind="mla",
        heads=keys.count(*HEADS),
        kv_heads=1,
        head_dim=nope + rope,
        v_head_dim=keys.count("v_head_dim"),
        q_lora_rank=keys.optional_count("q_lora_rank") or None,
        kv_lora_rank=keys.count("kv_lora_rank"),
        qk_nope_head_dim=nope,
        qk_rope_head_dim=rope,
        index_heads=keys.optional_count("index_n_heads"),
        index_head_dim=keys.optional_count("index_head_dim"),
        index_topk=keys.optional_count("index_topk"),
    )
    if spec.index_heads and not (spec.index_head_dim and spec.q_lora_rank):
        raise ConfigError("index_head_dim", spec.index_head_dim, "an integer of at least 1, and q_lora_rank too")
    return spec
