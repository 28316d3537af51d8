# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a model is: the plain data that the estimator and the planner work on.

A ModelSpec says what a model *is*, before any sharding: all sizes are those of the whole model, counted in elements
(never bytes) unless a name says otherwise. `None` means "the model has no such thing", never "unknown".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Mapping, Optional, Tuple

from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.attention import AttentionSpec
from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.experts import MoeSpec
from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.state import StateSpec
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.architectures import resolve_traits


@dataclass(frozen=True)
class LayerSpec:
    """One decoder or encoder layer. Any part can be None: no-op layers, attention-free layers, layers with both an
    attention and a state (Falcon-H1)."""

    attention: Optional[AttentionSpec]
    state: Optional[StateSpec]
    mlp_intermediate_size: Optional[int]  # dense feed-forward
    moe: Optional[MoeSpec]


@dataclass(frozen=True)
class RopeSpec:
    """Rotary embedding: vLLM keeps one cos/sin table per distinct one, cache_length × rotary_dim elements.

    mrope: positions of images and video too; most versions give it four times the rows.
    """

    rotary_dim: int
    cache_length: int
    kind: str = "default"
    theta: float = 10000.0
    mrope: bool = False


@dataclass(frozen=True)
class VisionSpec:
    """The vision (or audio) tower, as far as sizes go."""

    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    patch_size: int
    image_size: Optional[int]
    spatial_merge_size: int
    out_hidden_size: int
    family: str  # model_type of the tower: how it is built
    raw: Mapping = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Quantization:
    """How linear weights are stored.

    method: vLLM's name (fp8, awq, gptq, compressed-tensors, mxfp4, modelopt, modelopt_fp4, bitsandbytes, …)
    weights: fp8 | int4 | int8 | nvfp4 | mxfp4 | nf4: the number format of the weights
    block: (rows, columns) of a scale, when block-wise; group_size: inputs per scale, when group-wise (-1: per channel)
    activations: dynamic | static | None (16-bit: weight-only)
    unquantized: patterns of module names that keep the model's dtype
    """

    method: str
    weights: str
    bits: int
    block: Optional[Tuple[int, int]] = None
    group_size: Optional[int] = None
    zero_point: bool = False
    activations: Optional[str] = None
    strategy: Optional[str] = None  # tensor | channel | block | group
    unquantized: Tuple[str, ...] = ()
    kv_cache_dtype: Optional[str] = None  # "fp8" when the checkpoint brings scales for it
    raw: Mapping = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class ModelSpec:
    """What a model is, read from its config.json.

    kind: generate | embedding | rerank | classify; `vision`/`audio` say whether it also takes images or sound.
    layers: one LayerSpec per layer, in order; equal layers compare equal.
    max_model_len: the longest context vLLM derives when none is asked for (rope scaling included).
    dtype: of the checkpoint ("bfloat16", …); None when the file does not say.
    basis: "config" for an architecture known here, "generic" for one that is estimated as a Llama-like decoder.
    assumed: "key=value" for each key the file leaves to its model type's published default.
    """

    architecture: str
    model_type: str
    kind: str
    hidden_size: int
    vocab_size: int
    layers: Tuple[LayerSpec, ...]
    max_position_embeddings: int
    max_model_len: int
    dtype: Optional[str]
    tie_word_embeddings: bool
    ropes: Tuple[RopeSpec, ...] = ()
    quantization: Optional[Quantization] = None
    vision: Optional[VisionSpec] = None
    audio: Optional[VisionSpec] = None
    num_labels: int = 1  # of a classification head
    mtp_layers: int = 0  # multi-token-prediction layers in the files; loaded only for speculative decoding
    supports_pipeline: bool = True
    basis: str = "config"
    assumed: Tuple[str, ...] = ()
    config: Mapping = field(default_factory=dict, compare=False, repr=False)  # the language model's own keys
    root_config: Mapping = field(default_factory=dict, compare=False, repr=False)  # the whole file

    def __hash__(self):
        # What is remembered per model would otherwise cost more to look up than to compute: all layers are hashed.
        return hash((self.architecture, self.hidden_size, self.vocab_size, len(self.layers), self.max_model_len))

    @cached_property
    def traits(self):
        """What its architecture and its own keys say of its modules. Of this very spec: equal ones can differ in keys
        that are no field."""
        return resolve_traits(self.architecture, self.config)

    @property
    def num_layers(self):
        return len(self.layers)

    @cached_property
    def attention_layers(self):
        """Layers with attention, as (index, AttentionSpec)."""
        return tuple((i, layer.attention) for i, layer in enumerate(self.layers) if layer.attention)

    @cached_property
    def state_layers(self):
        """Layers with a per-request state, as (index, StateSpec)."""
        return tuple((i, layer.state) for i, layer in enumerate(self.layers) if layer.state)

    @cached_property
    def heads(self):
        """Attention heads (the most of any layer); 0 without attention."""
        return max((a.heads for _i, a in self.attention_layers), default=0)

    @cached_property
    def kv_heads(self):
        return max((a.kv_heads for _i, a in self.attention_layers), default=0)

    @cached_property
    def head_dim(self):
        return max((a.head_dim for _i, a in self.attention_layers), default=0)

    @cached_property
    def intermediate_size(self):
        """Width of the widest dense feed-forward; 0 when all layers are mixtures of experts."""
        return max((layer.mlp_intermediate_size or 0 for layer in self.layers), default=0)

    @cached_property
    def moe(self):
        """The MoeSpec of the model (of its widest MoE layer), or None."""
        return max((layer.moe for layer in self.layers if layer.moe), default=None, key=lambda m: m.experts)

    @cached_property
    def attentions(self):
        """The distinct attentions of its layers."""
        return tuple(dict.fromkeys(a for _i, a in self.attention_layers))

    @cached_property
    def encoder_only(self):
        """No layer caches anything: no KV pool."""
        return not self.state_layers and all(a.kind == "encoder" for _i, a in self.attention_layers)
