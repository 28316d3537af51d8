# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attention with keys and values per head: multi-head, grouped, multi-query; full, in a window, in chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Optional

from ansible_collections.inferops.gpu_host.plugins.module_utils._config_keys import ConfigError, whole_number
from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.part import CachedLayer, LayerPart, Refusal
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import ceil_div

WORDS = {
    "full_attention": "full",
    "attention": "full",
    "global_attention": "full",
    "deepseek_sparse_attention": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "chunked",
}
KERNEL_BLOCK_SIZE = 16  # smallest block of the FlashAttention and Triton backends
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")


@dataclass(frozen=True)
class AttentionSpec(LayerPart):
    """The attention of one layer.

    kind: full | sliding | chunked | mla | encoder (bidirectional, nothing cached)
    window: tokens a sliding layer sees, or the chunk of a chunked one
    head_dim is that of queries and keys, v_head_dim that of values.
    """

    kind: str
    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int
    window: Optional[int] = None
    kv_source_layer: Optional[int] = None  # reads the cache of that earlier layer and has none of its own

    MODULES = ("qkv_proj", "o_proj")
    default_block = 16  # tokens
    own_rotary_table = False
    rotary_dim = None  # elements of a head that rotate, where the kind fixes them

    def tensors(self, rank):
        traits, hidden = rank.traits, rank.spec.hidden_size
        heads, kv_heads = rank.share(self.heads), max(1, self.kv_heads // rank.tp)
        outputs = (
            heads * self.head_dim * (2 if traits["output_gate"] else 1),
            kv_heads * self.head_dim,
            kv_heads * self.v_head_dim,
        )
        rank.linear("attention", "qkv_proj", hidden, outputs, traits["qkv_bias"])
        rank.linear("attention", "o_proj", heads * self.v_head_dim, (hidden,), traits["o_bias"])
        form = traits["qk_norm"]
        if form == "head":  # one weight per element of a head, shared by all heads
            rank.add("norm", "q_norm", self.head_dim)
            rank.add("norm", "k_norm", self.head_dim)
        elif form == "heads":  # each head its own
            rank.add("norm", "q_norm", heads * self.head_dim)
            rank.add("norm", "k_norm", kv_heads * self.head_dim)
        elif form == "replicated":  # over all heads together, whole on each rank
            rank.add("norm", "q_norm", self.heads * self.head_dim)
            rank.add("norm", "k_norm", self.kv_heads * self.head_dim)
        if traits["sinks"]:
            rank.add("attention", "sinks", heads)

    def token_bytes(self, tp, element):
        """Bytes of one cached token on one rank. element: bytes of a cached number."""
        return max(1, self.kv_heads // tp) * (self.head_dim + self.v_head_dim) * element

    def cache(self, tp, element, block):
        """What is cached, as CachedLayers. block: tokens per block that were asked for, or are the default."""
        if self.kind == "encoder" or self.kv_source_layer is not None:
            return
        width = self.token_bytes(tp, element)
        if self.kind == "sliding":
            # A sliding layer starts from the kernel's smallest block, whatever --block-size says.
            block = KERNEL_BLOCK_SIZE
        yield CachedLayer(self.kind, width, block, self.window, width * block)

    def refusals(self, tp, ep=False):
        if self.kind == "encoder" or self.kv_heads % tp == 0 or tp % self.kv_heads == 0:
            return []
        reason = (
            f"Total number of key/value heads ({self.kv_heads}) must divide or be divisible by "
            f"tensor parallel size ({tp})"
        )
        return [Refusal("kv_heads", reason, {"size": self.kv_heads, "tp": tp})]

    def sharded_linears(self, hidden, tp):
        if self.kind == "encoder":
            return
        kv = max(1, self.kv_heads // tp)
        outputs = (self.heads // tp * self.head_dim, kv * self.head_dim, kv * self.v_head_dim)
        yield "self_attn.qkv_proj", hidden, hidden, outputs
        yield "self_attn.o_proj", self.heads * self.v_head_dim, self.heads // tp * self.v_head_dim, (hidden,)

    def columns(self, tp):
        """Width of its output on one rank."""
        return ceil_div(self.heads, tp) * self.head_dim

    def graph_columns(self, tp):
        """Width of what a captured graph keeps per split of the context."""
        return self.columns(tp)

    def profiled_bytes(self, moments):
        """Bytes alive at its moment of the profiling run, beside the experts' workspace."""
        kv_heads = max(1, self.kv_heads // moments.tp)
        out = self.columns(moments.tp)
        qkv = out + kv_heads * (self.head_dim + self.v_head_dim)
        return moments.token * (qkv + out) + (3 - moments.received) * moments.hidden + moments.cublas_workspace


def read(keys, kind):
    """The attention of a layer of this kind."""
    heads = keys.count(*HEADS)
    sliding = kind == "sliding"
    if sliding and keys.get("swa_num_attention_heads"):
        heads = keys.count("swa_num_attention_heads")
    kv_heads = _kv_heads(keys, heads, kind)
    head_dim = None
    if sliding:
        head_dim = keys.optional_count("swa_head_dim")
    elif keys.get("global_head_dim"):
        head_dim = keys.count("global_head_dim")
    head_dim = head_dim or keys.optional_count("head_dim", "kv_channels", "attention_head_dim", minimum=1)
    if head_dim is None:
        hidden = keys.count("hidden_size", "n_embd", "d_model", "dim")
        if hidden % heads:
            raise ConfigError("head_dim", None, f"a value: hidden_size {hidden} is no multiple of {heads} heads")
        head_dim = hidden // heads
    window = None
    if sliding:
        window = keys.count("sliding_window", "sliding_window_size")
    elif kind == "chunked":
        window = keys.count("attention_chunk_size")
    v_head_dim = (keys.optional_count("swa_v_head_dim") if sliding else None) or keys.optional_count("v_head_dim")
    return AttentionSpec(
        kind=kind, heads=heads, kv_heads=kv_heads, head_dim=head_dim, v_head_dim=v_head_dim or head_dim, window=window
    )


def _kv_heads(keys, heads, kind):
    """KV heads; a model without grouped queries has as many as heads."""
    if keys.get("multi_query") is True and not keys.get("new_decoder_architecture"):
        return 1
    nested = keys.get("attn_config")
    if isinstance(nested, Mapping) and nested.get("kv_n_heads"):
        return whole_number("attn_config.kv_n_heads", nested["kv_n_heads"], 1)
    if kind == "sliding" and keys.get("swa_num_key_value_heads"):
        return keys.count("swa_num_key_value_heads")
    if kind == "full" and keys.get("num_global_key_value_heads"):
        return keys.count("num_global_key_value_heads")
    names = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups")
    kv_heads = keys.optional_count(*names, minimum=1)
    return heads if kv_heads is None else kv_heads
