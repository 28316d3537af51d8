# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a context may be, and the tables of rotary embeddings, from config.json."""

from __future__ import annotations

from typing import Mapping

from ansible_collections.inferops.gpu_host.plugins.module_utils._config_keys import (
    ConfigError,
    positive_number,
    rounded,
    whole_number,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.spec import RopeSpec

LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
UNSCALED_ROPES = ("su", "longrope", "llama3")  # their factor is already in max_position_embeddings


def _rope_parameters(keys):
    """The rope settings, one mapping per layer type ("" where all layers share one)."""
    raw = keys.get("rope_parameters") or keys.get("rope_scaling") or {}
    if not isinstance(raw, Mapping) or len(raw) > 64:
        raise ConfigError("rope_scaling", raw, "a mapping with rope_type")
    if raw and all(isinstance(value, Mapping) for value in raw.values()):
        return {name: dict(value) for name, value in raw.items()}
    return {"": dict(raw)}


def _rope_type(rope):
    kind = str(rope.get("rope_type", rope.get("type")) or "default")
    return {"su": "longrope", "mrope": "default"}.get(kind, kind)


def read_lengths(keys):
    """(max_position_embeddings, the context length vLLM derives from it)."""
    found = [whole_number(name, keys.raw[name], 1) for name in LENGTH_KEYS if keys.raw.get(name) is not None]
    if not found:
        found = [keys.optional_count(*LENGTH_KEYS, minimum=1) or UNKNOWN_LENGTH]
    longest = keys.optional_count("model_max_length") or min(found)
    derived = longest
    ropes = _rope_parameters(keys)
    if "gemma3" not in str(keys.raw.get("model_type")):  # Gemma 3 states its scaled length
        factor = 1
        for rope in ropes.values():
            if _rope_type(rope) not in UNSCALED_ROPES:
                factor = _rope_factor(rope) or factor
                if _rope_type(rope) == "yarn":
                    derived = _original_length(rope) or derived
        derived = rounded("rope_scaling.factor", derived * factor)
    if any(_rope_type(rope) == "longrope" for rope in ropes.values()):
        derived = keys.optional_count("original_max_position_embeddings") or derived
    return longest, derived


def _rope_factor(rope):
    return positive_number("rope_scaling.factor", rope["factor"], 1 << 20) if rope.get("factor") else None


def _original_length(rope):
    name = "original_max_position_embeddings"
    return whole_number("rope_scaling." + name, rope[name]) if rope.get(name) else None


UNKNOWN_LENGTH = 2048  # what vLLM assumes, with a warning, for a model that does not say


def read_ropes(keys, layers):
    """The distinct cos/sin tables that vLLM keeps."""
    tables = []
    named = _rope_parameters(keys)
    positions = keys.optional_count("model_max_length") if "cohere" in str(keys.raw.get("model_type")) else None
    positions = positions or keys.optional_count("max_position_embeddings", "seq_length", "n_positions", "max_seq_len")
    positions = positions or UNKNOWN_LENGTH
    for layer in layers:
        a = layer.attention
        if a is None:
            continue
        sliding = a.kind == "sliding"
        rope = named.get("sliding_attention" if sliding else "full_attention", named.get("", {}))
        theta = rope.get("rope_theta") or keys.get("rope_theta") or 10000.0
        local = keys.get("rope_local_base_freq", "swa_rope_theta")
        if sliding and local and "" in named:
            rope, theta = {}, local
        table = RopeSpec(
            _rotary_dim(keys, a, rope),
            _rope_rows(rope, positions, keys.optional_count("original_max_position_embeddings")),
            _rope_type(rope),
            float(positive_number("rope_theta", theta, 1e15)),
            bool(rope.get("mrope_section")),
        )
        if table not in tables:
            tables.append(table)
    return tuple(tables)


def _rotary_dim(keys, a, rope):
    if a.rotary_dim:
        return a.rotary_dim
    if keys.get("rotary_dim"):
        return keys.count("rotary_dim")
    if _rope_type(rope) == "proportional":
        return a.head_dim  # the table is whole, part of it does not rotate
    factor = rope.get("partial_rotary_factor") or keys.get("partial_rotary_factor", "rotary_pct", "rope_pct") or 1
    return int(a.head_dim * positive_number("partial_rotary_factor", factor, 1))


def _rope_rows(rope, positions, original):
    kind, factor = _rope_type(rope), _rope_factor(rope) or 1
    if kind in ("yarn", "deepseek_yarn"):
        return int((_original_length(rope) or positions) * factor)
    if kind == "linear":
        return int(positions * factor)
    if kind == "longrope":  # a short and a long table
        return positions + (_original_length(rope) or original or 0)
    return positions
