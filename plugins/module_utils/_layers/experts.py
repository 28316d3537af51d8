# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mixtures of experts: the routed experts of a layer, their router, and the experts that every token passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from ansible_collections.inferops.gpu_host.plugins.module_utils._config_keys import ConfigError
from ansible_collections.inferops.gpu_host.plugins.module_utils._layers import feed_forward
from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.part import LayerPart, Refusal, divides
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import ceil_div

WORDS = {"moe": "moe"}
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

ROUTER_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class MoeSpec(LayerPart):
    """The routed experts of one layer, and those that every token passes."""

    experts: int
    experts_per_token: int
    intermediate_size: int  # of one routed expert
    shared_intermediate_size: int = 0  # all shared experts together; 0: none
    shared_gate: bool = False  # a gate weighs the shared expert (Qwen2-MoE, Qwen3-Next)
    latent_size: Optional[int] = None  # width that the routed experts work in, when not the hidden size

    BLOCK = "mlp"

    def tensors(self, rank):
        traits, hidden = rank.traits, rank.spec.hidden_size
        router = traits["router_dtype"]
        if router == "quantizable":
            rank.linear("experts_router", "gate", hidden, (self.experts,))
        else:
            rank.add("router", "gate", hidden * self.experts, ROUTER_BYTES[router] if router else None)
        if traits["router_bias"]:
            rank.add("router", "gate.bias", self.experts)
        if traits["correction_bias"]:
            rank.add("router", "e_score_correction_bias", self.experts, 4)
        if traits["router_scales"]:
            rank.add("router", "router.scale", hidden)
            rank.add("router", "router.per_expert_scale", self.experts)
        width = self.intermediate_size if rank.ep > 1 else rank.share(self.intermediate_size)
        rank.experts(ceil_div(self.experts, rank.ep), self.latent_size or hidden, width)
        if self.shared_intermediate_size:
            name = traits["names"]["shared"]
            feed_forward.tensors(rank, "shared_experts", name, self.shared_intermediate_size, prefix="shared.")
        if self.shared_gate:
            rank.add("router", "shared_expert_gate", hidden)

    def refusals(self, tp, ep=False):
        found = divides("shared_experts", "The shared experts' width", self.shared_intermediate_size, tp)
        if not ep:
            found += divides("experts", "The experts' width", self.intermediate_size, tp)
        if tp > self.experts:
            reason = f"Tensor parallel size {tp} is greater than the number of experts {self.experts}"
            found.append(Refusal("expert_count", reason, {"size": self.experts, "tp": tp}))
        return found

    def sharded_linears(self, hidden, tp):
        return feed_forward.sharded_linears("mlp.shared_experts", self.shared_intermediate_size, hidden, tp)


def count_of(keys, index):
    """How many routed experts the keys give a layer, None where they name none."""
    return keys.per_layer(index, *EXPERT_COUNT)


def read(keys, index):
    experts = count_of(keys, index)
    width = keys.per_layer(index, *EXPERT_WIDTH)
    if width is None:
        raise ConfigError("moe_intermediate_size", None, "the width of one expert; the key is missing")
    per_token = keys.per_layer(index, *EXPERTS_PER_TOKEN)
    if not experts:
        raise ConfigError(keys.name_of(*EXPERT_COUNT), experts, "an integer of at least 1")
    if not per_token:
        raise ConfigError("num_experts_per_tok", per_token, "an integer of at least 1; the key is missing")
    if not 1 <= per_token <= experts:
        raise ConfigError(keys.name_of(*EXPERTS_PER_TOKEN), per_token, f"at most the {experts} experts")
    shared = keys.optional_count(*SHARED_WIDTH)
    copies = keys.per_layer(index, *SHARED_COUNT)
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


def are_in_layer(keys, index):
    """Whether a layer of a model with experts has them: the many ways to say which."""
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
