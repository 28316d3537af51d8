# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layers of a model from its config.json: which is of which kind, and what each kind reads of it."""

from __future__ import annotations

from typing import Mapping

from ansible_collections.inferops.gpu_host.plugins.module_utils._model.keys import (
    MOST_LAYERS,
    Keys,
    mapping_or_empty,
    positive_number,
    whole_number,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.spec import (
    AttentionSpec,
    ConfigError,
    LayerSpec,
    MlaSpec,
    MoeSpec,
    StateSpec,
)

_KIND_NAMES = {
    "full_attention": "full",
    "attention": "full",
    "global_attention": "full",
    "deepseek_sparse_attention": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "chunked",
    "linear_attention": "linear",
    "mamba": "mamba",
    "mamba2": "mamba",
    "conv": "conv",
    "moe": "moe",
    "mlp": "mlp",
    "hybrid": "hybrid",
}
_PATTERN_LETTERS = {"M": "mamba", "*": "full", "-": "mlp", "E": "moe"}


def read_layers(keys, traits):
    blocks = keys.get("block_configs")
    if isinstance(blocks, (list, tuple)) and blocks and "attention" in mapping_or_empty(blocks[0]):
        return _nas_layers(keys, [mapping_or_empty(b) for b in blocks])
    pattern = keys.get("hybrid_override_pattern")
    if pattern is not None and not isinstance(pattern, str):
        raise ConfigError("hybrid_override_pattern", pattern, f"letters of {' '.join(_PATTERN_LETTERS)}")
    count = keys.optional_count("num_hidden_layers", "n_layer", "n_layers", "num_layers", minimum=1)
    if count is None and pattern:
        count = len(pattern)
    if count is None and isinstance(keys.get("layers_block_type"), (list, tuple)):
        count = len(keys.get("layers_block_type"))
    if count is None:
        count = keys.count("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    if count > MOST_LAYERS:
        raise ConfigError(
            keys.name_of("num_hidden_layers", "n_layer", "n_layers", "num_layers"), count, f"at most {MOST_LAYERS}"
        )
    kinds = _layer_kinds(keys, count, traits)
    cache = {}  # equal layers are the same object: cheap to build, to compare and to count
    layers = []
    for i in range(count):
        layer = _layer(keys, kinds[i], i, traits)
        layers.append(cache.setdefault(layer, layer))
    return tuple(layers)


def _layer_kinds(keys, count, traits):
    """One word per layer: full, sliding, chunked, encoder, linear, mamba, conv, hybrid, moe or mlp."""
    if traits["encoder"]:
        return ["encoder"] * count
    pattern = keys.get("hybrid_override_pattern")
    if pattern is not None:
        if len(pattern) != count or set(pattern) - set(_PATTERN_LETTERS):
            raise ConfigError("hybrid_override_pattern", pattern, f"{count} letters of {' '.join(_PATTERN_LETTERS)}")
        return [_PATTERN_LETTERS[c] for c in pattern]
    types = keys.get("layer_types", "layers_block_type")
    if types is not None:
        if not isinstance(types, (list, tuple)) or len(types) < count:
            found = len(types) if isinstance(types, (list, tuple)) else types
            raise ConfigError("layer_types", found, f"{count} entries")
        unknown = [t for t in types if not isinstance(t, str) or t not in _KIND_NAMES]
        if unknown:
            raise ConfigError("layer_types", unknown[0], "one of " + ", ".join(_KIND_NAMES))
        return [_KIND_NAMES[t] for t in types[:count]]
    linear = keys.get("linear_attn_config")
    if isinstance(linear, Mapping) and linear.get("full_attn_layers"):
        return ["full" if i + 1 in linear["full_attn_layers"] else "linear" for i in range(count)]
    interval = keys.optional_count("full_attention_interval")
    if interval:
        return ["full" if (i + 1) % interval == 0 else "linear" for i in range(count)]
    period = keys.optional_count("attn_layer_period")
    if period:
        offset = keys.optional_count("attn_layer_offset") or 0
        return ["full" if i % period == offset else "mamba" for i in range(count)]
    attention_layers = keys.get("full_attn_idxs")
    if attention_layers:
        return ["full" if i in attention_layers else "conv" for i in range(count)]
    if traits["layers"]:
        return [traits["layers"]] * count
    return _window_kinds(keys, count)


def _window_kinds(keys, count):
    """full or sliding (or chunked) per layer, from the many ways to say where the windows are."""
    chunk_free = keys.get("no_rope_layers")
    if keys.get("attention_chunk_size") and keys.get("interleave_moe_layer_step"):  # Llama 4
        if not chunk_free:
            return ["full" if (i + 1) % 4 == 0 else "chunked" for i in range(count)]
        return ["chunked" if chunk_free[i] else "full" for i in range(count)]
    hybrid = keys.get("hybrid_layer_pattern")
    if hybrid:
        return ["sliding" if hybrid[i] else "full" for i in range(count)]
    window = keys.get("sliding_window")
    if not window or keys.get("use_sliding_window") is False:
        return ["full"] * count
    every = keys.get("sliding_window_pattern", "_sliding_window_pattern")
    if isinstance(every, str):
        return ["sliding" if every[i % len(every)] == "L" else "full" for i in range(count)]
    if isinstance(every, int) and every > 0:
        return ["full" if (i + 1) % every == 0 else "sliding" for i in range(count)]
    if keys.get("use_sliding_window"):
        first = keys.optional_count("max_window_layers") or 0
        return ["sliding" if i >= first else "full" for i in range(count)]
    return ["sliding"] * count


def _layer(keys, kind, index, traits):
    attention = state = None
    if kind in ("full", "sliding", "chunked", "encoder", "hybrid"):
        attention = _attention(keys, "full" if kind == "hybrid" else kind)
    if kind in ("linear", "mamba", "conv", "hybrid"):
        state = _state(keys, kind)
    dense = moe = None
    if not (traits["one_part_layers"] and kind in ("mamba", "full")):
        moe, dense = _feed_forward(keys, kind, index)
        if moe and traits["dense_beside_experts"]:
            dense = _dense_width(keys, index)
    return LayerSpec(attention=attention, state=state, mlp_intermediate_size=dense, moe=moe)


def _attention(keys, kind):
    heads = keys.count("num_attention_heads", "n_head", "n_heads", "num_heads")
    if keys.get("kv_lora_rank"):
        return _mla(keys, heads)
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


def _mla(keys, heads):
    mla = MlaSpec(
        q_lora_rank=keys.optional_count("q_lora_rank") or None,
        kv_lora_rank=keys.count("kv_lora_rank"),
        qk_nope_head_dim=keys.count("qk_nope_head_dim"),
        qk_rope_head_dim=keys.count("qk_rope_head_dim"),
        v_head_dim=keys.count("v_head_dim"),
        index_heads=keys.optional_count("index_n_heads"),
        index_head_dim=keys.optional_count("index_head_dim"),
        index_topk=keys.optional_count("index_topk"),
    )
    if mla.index_heads and not (mla.index_head_dim and mla.q_lora_rank):
        raise ConfigError("index_head_dim", mla.index_head_dim, "an integer of at least 1, and q_lora_rank too")
    # One latent is cached for all heads, so to the cache this is attention with one KV head.
    return AttentionSpec(
        kind="mla",
        heads=heads,
        kv_heads=1,
        head_dim=mla.qk_nope_head_dim + mla.qk_rope_head_dim,
        v_head_dim=mla.v_head_dim,
        mla=mla,
    )


def _state(keys, kind):
    if kind == "linear":
        return _linear_state(keys)
    if kind == "conv":
        return StateSpec("short_conv", keys.count("conv_L_cache"), keys.count("conv_dim", "hidden_size"), 0, 0, 0)
    heads = keys.optional_count("mamba_num_heads", "mamba_n_heads", "n_mamba_heads")
    if heads is None and keys.get("n_groups"):
        heads = keys.optional_count("num_heads")
    state_size = keys.count("ssm_state_size", "mamba_d_state", "state_size")
    kernel = keys.count("conv_kernel", "mamba_d_conv")
    dtype = keys.get("mamba_ssm_cache_dtype", "mamba_ssm_dtype")
    if heads is None:
        width = keys.optional_count("intermediate_size") if keys.get("state_size") else None
        if width is None:
            width = keys.count("hidden_size") * keys.count("mamba_expand", "expand")
        rank = keys.count("mamba_dt_rank", "time_step_rank")
        return StateSpec("mamba1", kernel, width, width, 1, state_size, dt_rank=rank, ssm_dtype=dtype)
    head_dim = keys.count("mamba_head_dim", "mamba_d_head", "mamba_headdim", "head_dim")
    groups = keys.optional_count("mamba_n_groups", "mamba_ngroups", "n_groups") or 1
    width = heads * head_dim + 2 * groups * state_size
    return StateSpec("mamba2", kernel, width, heads, head_dim, state_size, groups=groups, ssm_dtype=dtype)


def _linear_state(keys):
    nested = keys.get("linear_attn_config")
    if isinstance(nested, Mapping):  # Kimi delta attention: queries, keys and values each have their convolution
        heads = whole_number("linear_attn_config.num_heads", nested.get("num_heads"), 1)
        dim = whole_number("linear_attn_config.head_dim", nested.get("head_dim"), 1)
        kernel = whole_number("linear_attn_config.short_conv_kernel_size", nested.get("short_conv_kernel_size"), 1)
        return StateSpec("kda", kernel, 3 * heads * dim, heads, dim, dim, groups=heads, key_head_dim=dim)
    key_heads, value_heads = keys.count("linear_num_key_heads"), keys.count("linear_num_value_heads")
    key_dim, value_dim = keys.count("linear_key_head_dim"), keys.count("linear_value_head_dim")
    return StateSpec(
        kind="gated_delta_net",
        conv_kernel=keys.count("linear_conv_kernel_dim"),
        conv_width=2 * key_heads * key_dim + value_heads * value_dim,
        heads=value_heads,
        head_dim=value_dim,
        state_size=key_dim,
        groups=key_heads,
        key_head_dim=key_dim,
        ssm_dtype=keys.get("mamba_ssm_dtype"),
    )


EXPERT_COUNT = ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
EXPERT_WIDTH = (
    "moe_intermediate_size",
    "expert_ffn_hidden_size",
    "moe_ffn_hidden_size",
    "intermediate_size",
    "ffn_hidden_size",
)
EXPERTS_PER_TOKEN = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "experts_per_token",
    "moe_k",
    "moe_topk",
    "moe_top_k",
    "top_k_experts",
)
SHARED_WIDTH = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "share_expert_dim",
    "shared_intermediate_size",
)
SHARED_COUNT = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert")
DENSE_WIDTH = ("intermediate_size_mlp", "intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim")


def _feed_forward(keys, kind, index):
    """(MoeSpec, dense width) of a layer; each can be None."""
    nested = keys.get("ffn_config")
    if isinstance(nested, Mapping) and nested.get("moe_num_experts"):
        keys = Keys(dict(nested, hidden_size=keys.count("d_model", "hidden_size")))
    experts = _per_layer(keys, index, *EXPERT_COUNT)
    if kind == "moe" or (kind != "mlp" and experts and _is_moe_layer(keys, index)):
        return _experts(keys, index, experts), None
    return None, _dense_width(keys, index)


def _per_layer(keys, index, *names):
    """A count that may be given as a list with one entry per layer."""
    value = keys.get(*names)
    if isinstance(value, (list, tuple)):
        value = value[index] if index < len(value) else None
    return None if value is None else whole_number(keys.name_of(*names), value)


def _experts(keys, index, experts):
    width = _per_layer(keys, index, *EXPERT_WIDTH)
    if width is None:
        raise ConfigError("moe_intermediate_size", None, "the width of one expert; the key is missing")
    per_token = _per_layer(keys, index, *EXPERTS_PER_TOKEN)
    if not experts:
        raise ConfigError(keys.name_of(*EXPERT_COUNT), experts, "an integer of at least 1")
    if not per_token:
        raise ConfigError("num_experts_per_tok", per_token, "an integer of at least 1; the key is missing")
    if not 1 <= per_token <= experts:
        raise ConfigError(keys.name_of(*EXPERTS_PER_TOKEN), per_token, f"at most the {experts} experts")
    shared = keys.optional_count(*SHARED_WIDTH)
    copies = _per_layer(keys, index, *SHARED_COUNT)
    if shared is None:
        shared = (copies or 0) * width
    elif copies and keys.get("moe_shared_expert_intermediate_size"):
        shared *= copies
    if keys.raw.get("model_type") in ("llama4", "llama4_text"):
        shared = width
    return MoeSpec(
        experts=experts,
        experts_per_token=per_token,
        intermediate_size=width,
        shared_intermediate_size=shared,
        shared_gate=keys.get("shared_expert_intermediate_size") is not None and shared > 0,
        latent_size=keys.optional_count("moe_latent_size") or None,
    )


def _dense_width(keys, index):
    if keys.get("block_ff_dim"):  # LFM2
        width = keys.count("block_ff_dim")
        if keys.get("block_auto_adjust_ff_dim"):
            multiplier = positive_number("block_ffn_dim_multiplier", keys.get("block_ffn_dim_multiplier") or 1, 1000)
            width = int(2 * width / 3 * multiplier)
            multiple = keys.count("block_multiple_of")
            width = multiple * -(-width // multiple)
        return width
    width = _per_layer(keys, index, *DENSE_WIDTH)
    if width is None and keys.get("multiplier_of_hidden", "mlp_ratio") is None and keys.get("model_type") in FOURFOLD:
        return 4 * keys.count("hidden_size", "n_embd")
    if width is None and keys.get("state_size"):
        return None  # Mamba: layers without a feed-forward
    if width is None:
        raise ConfigError("intermediate_size", None, "the width of the feed-forward; the key is missing")
    if keys.get("model_type") in ("mamba", "mamba2", "falcon_mamba"):
        return None
    return width


FOURFOLD = ("falcon", "gpt2", "bloom", "gptj", "RefinedWeb", "RefinedWebModel")  # feed-forward of 4 × hidden


def _is_moe_layer(keys, index):
    if index in keys.listed("mlp_only_layers"):
        return False
    layers = keys.get("moe_layers")
    if isinstance(layers, (list, tuple)) and layers:
        return index in layers
    enum = keys.get("moe_layers_enum")
    if isinstance(enum, str) and enum:
        return str(index) in [number.strip() for number in enum.split(",")]
    frequency = keys.get("moe_layer_freq")
    if isinstance(frequency, (list, tuple)):
        if index >= len(frequency):
            raise ConfigError("moe_layer_freq", f"{len(frequency)} entries", "one per layer")
        return bool(frequency[index])
    first = keys.optional_count("first_k_dense_replace", "moe_layer_start_index", "num_dense_layers") or 0
    last = keys.get("moe_layer_end_index")
    if index < first or (isinstance(last, int) and last >= 0 and index > last):
        return False
    if isinstance(frequency, int) and frequency > 1 and index % frequency:
        return False
    period = keys.optional_count("expert_layer_period")
    if period:
        return index % period == (keys.optional_count("expert_layer_offset") or 0)
    step = keys.optional_count("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval")
    return not step or (index + 1) % step == 0


def _nas_layers(keys, blocks):
    """Layers of an architecture-search model: each says its KV heads and feed-forward, or that it has none."""
    heads, hidden = keys.count("num_attention_heads"), keys.count("hidden_size")
    if len(blocks) > MOST_LAYERS:
        raise ConfigError("block_configs", f"{len(blocks)} entries", f"at most {MOST_LAYERS}")
    layers = []
    for i, block in enumerate(blocks):
        attention, ffn = mapping_or_empty(block.get("attention")), mapping_or_empty(block.get("ffn"))
        spec = None
        if not attention.get("no_op"):
            where = f"block_configs[{i}].attention"
            group = attention.get("n_heads_in_group")
            kv_heads = attention.get("num_key_value_heads")
            if not kv_heads and group:
                kv_heads = heads // whole_number(where + ".n_heads_in_group", group, 1)
            if kv_heads is not None:
                kv_heads = whole_number(where + ".num_key_value_heads", kv_heads, 1)
            if kv_heads is None:
                raise ConfigError(f"block_configs[{i}].attention", dict(attention), "n_heads_in_group, or no_op: true")
            dim = keys.optional_count("head_dim", minimum=1) or hidden // heads
            spec = AttentionSpec(kind="full", heads=heads, kv_heads=kv_heads, head_dim=dim, v_head_dim=dim)
        width = None
        if not ffn.get("no_op"):
            width = ffn.get("intermediate_size")
            if width is None:
                if not ffn.get("ffn_mult"):
                    raise ConfigError(
                        f"block_configs[{i}].ffn", dict(ffn), "ffn_mult or intermediate_size, or no_op: true"
                    )
                # As the model's code rounds it: two thirds of 4 × hidden × multiplier, up to a multiple of 256.
                multiplier = positive_number(f"block_configs[{i}].ffn.ffn_mult", ffn["ffn_mult"], 1000)
                width = -(-int(2 * multiplier * hidden / 3) // 256) * 256
            width = whole_number(f"block_configs[{i}].ffn.intermediate_size", width, 1)
        layers.append(LayerSpec(attention=spec, state=None, mlp_intermediate_size=width, moe=None))
    return tuple(layers)
