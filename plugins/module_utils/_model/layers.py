# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layers of a model from its config.json: which is of which kind, and what each kind reads of it."""

from __future__ import annotations

from typing import Mapping

from ansible_collections.inferops.gpu_host.plugins.module_utils._config_keys import (
    MOST_LAYERS,
    ConfigError,
    Keys,
    mapping_or_empty,
    positive_number,
    whole_number,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._layers import experts, feed_forward, registry
from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.attention import AttentionSpec
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.spec import LayerSpec

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
        unknown = [t for t in types if not isinstance(t, str) or t not in registry.WORDS]
        if unknown:
            raise ConfigError("layer_types", unknown[0], "one of " + ", ".join(registry.WORDS))
        return [registry.WORDS[t] for t in types[:count]]
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
    attention, state = registry.read_attention(keys, kind), registry.read_state(keys, kind)
    dense = moe = None
    if not (traits["one_part_layers"] and kind in ("mamba", "full")):
        moe, dense = _feed_forward(keys, kind, index)
        if moe and traits["dense_beside_experts"]:
            dense = feed_forward.read(keys, index)
    return LayerSpec(attention=attention, state=state, mlp_intermediate_size=dense, moe=moe)


def _feed_forward(keys, kind, index):
    """(MoeSpec, dense width) of a layer; each can be None."""
    nested = keys.get("ffn_config")
    if isinstance(nested, Mapping) and nested.get("moe_num_experts"):
        keys = Keys(dict(nested, hidden_size=keys.count("d_model", "hidden_size")))
    wanted = kind != "mlp" and experts.count_of(keys, index) and experts.are_in_layer(keys, index)
    if kind == "moe" or wanted:
        return experts.read(keys, index), None
    return None, feed_forward.read(keys, index)


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
