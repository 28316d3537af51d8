# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mamba 1 and 2: selective state spaces."""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.part import Refusal
from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.state import StateSpec

WORDS = {"mamba": "mamba", "mamba2": "mamba"}
FLOAT32_STATES = ("nemotron_h",)  # model types whose recurrent state vLLM keeps in float32 where the file says nothing


@dataclass(frozen=True)
class Mamba1Spec(StateSpec):
    """heads are channels here."""

    kind = "mamba1"
    MODULES = ("in_proj", "x_proj", "dt_proj", "out_proj")

    def recurrent_shape(self, tp):
        return (self.heads // tp, self.state_size)

    def tensors(self, rank):
        hidden, width = rank.spec.hidden_size, rank.share(self.heads)
        rank.add("state", "A", width * self.state_size, 4)
        rank.add("state", "D", width)
        rank.add("state", "conv1d", width * self.conv_kernel)
        if rank.traits["conv_bias"]:
            rank.add("state", "conv1d.bias", width)
        bias = rank.traits["state_bias"]
        rank.linear("state", "in_proj", hidden, (width, width), bias)
        rank.linear("state", "x_proj", width, (self.dt_rank + 2 * self.state_size,))
        rank.linear("state", "dt_proj", self.dt_rank, (width,), bias=True)
        rank.linear("state", "out_proj", width, (hidden,), bias)
        if rank.traits["state_norm"]:
            rank.add("state", "norms", self.dt_rank + 2 * self.state_size)


@dataclass(frozen=True)
class Mamba2Spec(StateSpec):
    kind = "mamba2"
    MODULES = ("in_proj", "out_proj")

    def conv_columns(self, tp):
        if self.groups % tp == 0:
            return self.conv_width
        # Groups are replicated so that every rank has at least one.
        return self.conv_width + 2 * max(tp - self.groups, 0) * self.state_size

    def tensors(self, rank):
        hidden, heads = rank.spec.hidden_size, rank.share(self.heads)
        width = heads * self.head_dim
        conv = self.shapes(rank.tp)[0][1]
        rank.add("state", "A", heads, 4)
        rank.add("state", "D", heads)
        rank.add("state", "dt_bias", heads)
        rank.add("state", "conv1d", conv * self.conv_kernel)
        if rank.traits["conv_bias"]:
            rank.add("state", "conv1d.bias", conv)
        bias = rank.traits["state_bias"]
        group = (conv - width) // 2
        rank.linear("state", "in_proj", hidden, (width, width, group, group, heads), bias)
        rank.linear("state", "out_proj", width, (hidden,), bias)
        if rank.traits["state_norm"]:
            rank.add("state", "norm", width)

    def refusals(self, tp, ep=False):
        found = super().refusals(tp)
        if self.groups % tp and self.groups != 1:
            reason = f"Mamba groups ({self.groups}) must be divisible by tensor parallel size ({tp}), or one"
            found = [*found, Refusal("state_groups", reason, {"size": self.groups, "tp": tp})]
        return found


def read(keys):
    heads = keys.optional_count("mamba_num_heads", "mamba_n_heads", "n_mamba_heads")
    if heads is None and keys.get("n_groups"):
        heads = keys.optional_count("num_heads")
    state_size = keys.count("ssm_state_size", "mamba_d_state", "state_size")
    kernel = keys.count("conv_kernel", "mamba_d_conv")
    dtype = keys.get("mamba_ssm_cache_dtype", "mamba_ssm_dtype")
    if dtype is None and keys.raw.get("model_type") in FLOAT32_STATES:
        dtype = "float32"
    if heads is None:
        width = keys.optional_count("intermediate_size") if keys.get("state_size") else None
        if width is None:
            width = keys.count("hidden_size") * keys.count("mamba_expand", "expand")
        rank = keys.count("mamba_dt_rank", "time_step_rank")
        return Mamba1Spec(kernel, width, width, 1, state_size, dt_rank=rank, ssm_dtype=dtype)
    head_dim = keys.count("mamba_head_dim", "mamba_d_head", "mamba_headdim", "head_dim")
    groups = keys.optional_count("mamba_n_groups", "mamba_ngroups", "n_groups") or 1
    width = heads * head_dim + 2 * groups * state_size
    return Mamba2Spec(kernel, width, heads, head_dim, state_size, groups=groups, ssm_dtype=dtype)
