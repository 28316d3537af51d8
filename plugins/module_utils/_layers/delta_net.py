# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Linear attention by the delta rule: gated delta nets (Qwen3-Next) and Kimi's delta attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

from ansible_collections.inferops.gpu_host.plugins.module_utils._config_keys import whole_number
from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.part import divides
from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.state import StateSpec

WORDS = {"linear_attention": "linear"}


@dataclass(frozen=True)
class GatedDeltaNetSpec(StateSpec):
    kind = "gated_delta_net"
    MODULES = ("in_proj_qkvz", "in_proj_ba", "out_proj")

    def tensors(self, rank):
        hidden, heads = rank.spec.hidden_size, rank.share(self.heads)
        value, key = rank.share(self.heads * self.head_dim), rank.share(self.groups * self.key_head_dim)
        rank.add("state", "dt_bias", heads)
        rank.add("state", "A_log", heads, 4)
        rank.add("state", "conv1d", (2 * key + value) * self.conv_kernel)
        rank.linear("state", "in_proj_qkvz", hidden, (2 * key + 2 * value,))
        rank.linear("state", "in_proj_ba", hidden, (2 * heads,))
        rank.add("state", "norm", self.head_dim)
        rank.linear("state", "out_proj", value, (hidden,))

    def refusals(self, tp, ep=False):
        return super().refusals(tp) + divides("state_heads", "Key heads of the layers with a state", self.groups, tp)


@dataclass(frozen=True)
class KimiDeltaAttentionSpec(StateSpec):
    """Like the gated one, with low-rank gates per channel."""

    kind = "kda"

    def tensors(self, rank):
        hidden, heads, dim = rank.spec.hidden_size, rank.share(self.heads), self.head_dim
        width = heads * dim
        rank.linear("state", "qkv_proj", hidden, (width, width, width))
        for gate in ("f", "g"):
            rank.linear("state", gate + "_a_proj", hidden, (dim,))
            rank.linear("state", gate + "_b_proj", dim, (width,))
        rank.linear("state", "b_proj", hidden, (heads,))
        rank.add("state", "conv1d", 3 * width * self.conv_kernel)
        rank.add("state", "dt_bias", width, 4)
        rank.add("state", "A_log", heads, 4)
        rank.add("state", "o_norm", dim)
        rank.linear("state", "o_proj", width, (hidden,))


def read(keys):
    nested = keys.get("linear_attn_config")
    if isinstance(nested, Mapping):  # Kimi's: queries, keys and values each have their convolution
        heads = whole_number("linear_attn_config.num_heads", nested.get("num_heads"), 1)
        dim = whole_number("linear_attn_config.head_dim", nested.get("head_dim"), 1)
        kernel = whole_number("linear_attn_config.short_conv_kernel_size", nested.get("short_conv_kernel_size"), 1)
        return KimiDeltaAttentionSpec(
            kernel, 3 * heads * dim, heads, dim, dim, groups=heads, key_head_dim=dim, ssm_dtype="float32"
        )
    key_heads, value_heads = keys.count("linear_num_key_heads"), keys.count("linear_num_value_heads")
    key_dim, value_dim = keys.count("linear_key_head_dim"), keys.count("linear_value_head_dim")
    return GatedDeltaNetSpec(
        conv_kernel=keys.count("linear_conv_kernel_dim"),
        conv_width=2 * key_heads * key_dim + value_heads * value_dim,
        heads=value_heads,
        head_dim=value_dim,
        state_size=key_dim,
        groups=key_heads,
        key_head_dim=key_dim,
        ssm_dtype=keys.get("mamba_ssm_dtype"),
    )
