# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The dense feed-forward of a layer."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils._config_keys import ConfigError, positive_number

WORDS = {"mlp": "mlp"}
MODULES = ("gate_up_proj", "down_proj")
DENSE_WIDTH = ("intermediate_size_mlp", "intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim")

FOURFOLD = ("falcon", "gpt2", "bloom", "gptj", "RefinedWeb", "RefinedWebModel")  # feed-forward of 4 × hidden
# feed-forward of 4 × hidden


def tensors(rank, part, name, width, bias=False, prefix=""):
    """Adds what one rank loads of a feed-forward of `width`. prefix: of its modules in a checkpoint's names."""
    hidden, width = rank.spec.hidden_size, rank.share(width)
    outputs = (width, width) if rank.traits["gated"] else (width,)
    rank.linear(part, name + ".gate_up_proj", hidden, outputs, bias, module=prefix + "gate_up_proj")
    rank.linear(part, name + ".down_proj", width, (hidden,), bias, module=prefix + "down_proj")


def sharded_linears(module, width, hidden, tp):
    """(module, inputs, their share, outputs of one rank) of the linear layers that quantization may not cut."""
    if width:
        yield module + ".gate_up_proj", hidden, hidden, (width // tp, width // tp)
        yield module + ".down_proj", width, width // tp, (hidden,)


def read(keys, index):
    """Its width; None for layers that have none."""
    if keys.get("block_ff_dim"):  # LFM2
        width = keys.count("block_ff_dim")
        if keys.get("block_auto_adjust_ff_dim"):
            multiplier = positive_number("block_ffn_dim_multiplier", keys.get("block_ffn_dim_multiplier") or 1, 1000)
            width = int(2 * width / 3 * multiplier)
            multiple = keys.count("block_multiple_of")
            width = multiple * -(-width // multiple)
        return width
    width = keys.per_layer(index, *DENSE_WIDTH)
    if width is None and keys.get("multiplier_of_hidden", "mlp_ratio") is None and keys.get("model_type") in FOURFOLD:
        return 4 * keys.count("hidden_size", "n_embd")
    if width is None and keys.get("state_size"):
        return None  # Mamba: layers without a feed-forward
    if width is None:
        raise ConfigError("intermediate_size", None, "the width of the feed-forward; the key is missing")
    if keys.get("model_type") in ("mamba", "mamba2", "falcon_mamba"):
        return None
    return width
