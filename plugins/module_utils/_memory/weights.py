# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tensors that one rank loads, as vLLM 0.26 to 0.33 shards them.

The list is checked to the byte against vLLM's own module trees (tests/oracle). What vLLM logs as "Model loading took"
is their sum after the allocator has rounded large blocks: `RankWeights.allocated`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Tuple

from ansible_collections.inferops.gpu_host.plugins.module_utils._layers import feed_forward, registry
from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.encoder_weights import (
    HEAD_BYTES,
    encoder_tensors,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.quantization import (
    expert_tensors,
    is_unquantized,
    is_unquantized_head,
    linear_tensors,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.vision_weights import vision_tensors
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.architectures import traits_of
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB, ceil_div, round_up
from ansible_collections.inferops.gpu_host.plugins.module_utils._versions import minor_release

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
VOCABULARY_PADDING = 64
DEFAULT_ENGINE = "0.26"

MROPE_ROWS = 4  # a table for images and video has four rows per position

# PyTorch's caching allocator: what it charges for a tensor is the block that it hands out.
LARGE_BLOCK = 10 * MIB  # from here on blocks are requested from the driver in multiples of 2 MiB
LARGE_BLOCK_STEP = 2 * MIB
SPLIT_REMAINDER = MIB  # a block is cut, and the rest used for other tensors, when more than this remains
# Since 0.26 blocks from this size on seem never to be cut (inferred from the logs of measured runs), and one freed by
# the rotary tables' computation serves a tensor that is up to as much smaller.
WHOLE_BLOCK = 20 * MIB
WHOLE_BLOCK_SINCE = (0, 26)


@dataclass(frozen=True)
class Tensor:
    """`count` equal tensors. `bytes` is the size of one; `parameters` counts the model's own numbers in one, on this
    rank (0 for scales, padding, copies and tables)."""

    part: str  # embedding | attention | state | mlp | experts | norm | lm_head | head | vision | rotary
    name: str
    bytes: int
    count: int = 1
    parameters: int = 0


@dataclass(frozen=True)
class RankWeights:
    """What one rank holds once the model is loaded, in bytes."""

    tensors: Tuple[Tensor, ...]
    engine: Tuple[int, int]  # (major, minor) version: decides how the allocator rounds

    @property
    def exact(self):
        """Weights, scales and copies before the allocator rounds, without the rotary tables."""
        return sum(t.bytes * t.count for t in self.tensors if t.part != "rotary")

    @property
    def rotary(self):
        return sum(t.bytes * t.count for t in self.tensors if t.part == "rotary")

    @property
    def parameters(self):
        """The model's own numbers on this rank."""
        return sum(t.parameters * t.count for t in self.tensors)

    @property
    def by_part(self):
        """Bytes per part, before the allocator rounds."""
        parts = Counter()
        for t in self.tensors:
            parts[t.part] += t.bytes * t.count
        return dict(parts)

    @property
    def allocated(self):
        """What vLLM logs as "Model loading took"."""
        blocks = sum(allocated_bytes(t.bytes, self.engine) * t.count for t in self.tensors)
        return blocks + self._reused_block_excess()

    def _reused_block_excess(self):
        """A rotary table is computed in float32: the largest intermediate, freed, is handed whole to the next tensor
        that it fits and that would not leave 20 MiB of it unused."""
        if self.engine < WHOLE_BLOCK_SINCE:
            return 0
        layers = [t.bytes for t in self.tensors if t.part not in ("embedding", "lm_head", "norm", "rotary", "vision")]
        excess = 0
        for table in self.tensors:
            if table.part == "rotary" and table.name.endswith("16"):
                freed = 2 * table.bytes
                fitting = [freed - b for b in layers if WHOLE_BLOCK <= b <= freed < b + WHOLE_BLOCK]
                if freed >= WHOLE_BLOCK and fitting:
                    excess += fitting[0]
        return excess


def allocated_bytes(size, engine=(0, 26)):
    """Device memory that PyTorch's caching allocator charges for one tensor of `size` bytes."""
    exact = round_up(size, 512)
    if size < LARGE_BLOCK:
        return exact
    rounded = round_up(size, LARGE_BLOCK_STEP)
    cut = rounded - exact > SPLIT_REMAINDER and (size < WHOLE_BLOCK or engine < WHOLE_BLOCK_SINCE)
    return exact if cut else rounded


def stage_layers(num_layers, pipeline_parallel_size):
    """Layers of each pipeline stage. The remainder goes one each to stages −2, −3, …, never to the last, which has the
    language head."""
    per_stage, remainder = divmod(num_layers, pipeline_parallel_size)
    sizes = [per_stage] * pipeline_parallel_size
    for i in range(2, remainder + 2):
        sizes[-i] += 1
    return tuple(sizes)


def loaded_dtype(spec, dtype="auto"):
    """The dtype that vLLM loads at: float32 checkpoints are loaded at half precision unless float32 is asked for."""
    if dtype not in (None, "auto"):
        return {"half": "float16", "float": "float32"}.get(dtype, dtype)
    if spec.dtype in (None, "float32", "float64"):
        return "float16" if spec.kind != "generate" else "bfloat16"
    return spec.dtype if spec.dtype in DTYPE_BYTES else "bfloat16"


def rank_weights(
    spec,
    tensor_parallel_size=1,
    pipeline_parallel_size=1,
    pipeline_stage=0,
    expert_parallel=False,
    data_parallel_size=1,
    dtype="auto",
    quantization_override=None,
    mm_encoder_tp_mode="weights",
    kind=None,
    engine_version=DEFAULT_ENGINE,
    compute_capability=None,
):
    """The tensors of one rank, as a RankWeights.

    expert_parallel: experts are dealt out whole over tensor × data parallel ranks instead of being sharded.
    quantization_override: a Quantization in place of the checkpoint's own (online quantization).
    mm_encoder_tp_mode: "weights" shards the vision tower, "data" replicates it.
    kind: what the model is served as, where that differs from spec.kind (a pooling model loads no language head).
    engine_version: of vLLM, "0.26" or "0.26.0".
    compute_capability: of the GPU (9.0): quantized weights in the form that its kernels want. None: in the form in
        which vLLM creates them, before any kernel is chosen.
    """
    engine = minor_release(engine_version)
    rank = _Rank(
        spec,
        tensor_parallel_size,
        tensor_parallel_size * data_parallel_size if expert_parallel else 1,
        DTYPE_BYTES[loaded_dtype(spec, dtype)],
        quantization_override or spec.quantization,
        compute_capability,
        engine,
    )
    if spec.encoder_only:
        rank.extend(encoder_tensors(spec, rank.traits["encoder"], tensor_parallel_size, rank.itemsize))
        return RankWeights(tuple(rank.tensors), engine)
    sizes = stage_layers(spec.num_layers, pipeline_parallel_size)
    start = sum(sizes[:pipeline_stage])
    first, last = pipeline_stage == 0, pipeline_stage == pipeline_parallel_size - 1
    rank.ends(first, last, kind or spec.kind)
    kinds = _layer_classes(spec, rank.quantization)[start : start + sizes[pipeline_stage]]
    for (layer, unquantized), count in Counter(kinds).items():
        rank.layer(layer, unquantized, count)
    # Every pipeline stage builds the vision tower.
    whole_tower = mm_encoder_tp_mode == "data" and rank.traits["encoder_data_parallel"]
    rank.extend(vision_tensors(spec, 1 if whole_tower else tensor_parallel_size, rank.itemsize))
    rank.rotary()
    return RankWeights(tuple(rank.tensors), engine)


def parameter_counts(spec):
    """(parameters of the whole model, parameters that one token passes), without tables, scales and copies."""
    weights = rank_weights(spec)
    experts = sum(t.parameters * t.count for t in weights.tensors if t.part == "experts")
    total = weights.parameters
    if not experts:
        return total, total
    return total, total - experts + experts * spec.moe.experts_per_token // spec.moe.experts


@lru_cache(maxsize=256)
def _layer_classes(spec, quantization):
    """(LayerSpec, modules left unquantized) per layer; equal layers are equal objects, so they can be counted."""
    if quantization is None or not (quantization.unquantized or quantization.method == "mxfp4"):
        return tuple((layer, frozenset()) for layer in spec.layers)
    names = traits_of(spec)["names"]
    modules = {
        **{module: f"{names[block]}.{module}" for module, block in registry.MODULES.items()},
        **{m: f"{names['mlp']}.{m}" for m in (*feed_forward.MODULES, "gate")},
        "experts": names["experts"],
        **{f"shared.{m}": f"{names['mlp']}.{names['shared']}.{m}" for m in feed_forward.MODULES},
    }
    return tuple(
        (layer, frozenset(key for key, name in modules.items() if is_unquantized(quantization, i, name)))
        for i, layer in enumerate(spec.layers)
    )


class _Rank:
    """Collects the tensors of one rank. Sizes passed to its methods are per rank unless they say otherwise."""

    def __init__(self, spec, tp, ep, itemsize, quantization, capability, engine):
        self.spec, self.tp, self.ep = spec, tp, ep
        self.itemsize, self.quantization = itemsize, quantization
        self.capability, self.engine = capability, engine
        self.traits = traits_of(spec)
        self.tensors = []
        self.count, self.unquantized = 1, frozenset()

    def extend(self, tensors):
        self.tensors.extend(Tensor(*t) for t in tensors)

    def add(self, part, name, elements, itemsize=None, parameters=None):
        if elements:
            size = elements * (itemsize or self.itemsize)
            self.tensors.append(Tensor(part, name, size, self.count, elements if parameters is None else parameters))

    def on_transformers(self):
        """Whether this engine runs the model by its Transformers backend."""
        until = self.traits["native_until"]
        return until is not None and self.engine >= until

    def share(self, size):
        """One rank's part of a dimension that is split evenly."""
        return ceil_div(size, self.tp)

    def linear(self, part, name, inputs, outputs, bias=False, module=None, quantizable=True):
        """One linear layer; `outputs` one entry per fused matrix."""
        rows = sum(outputs)
        if bias:
            self.add(part, name + ".bias", rows)
        if self.quantization is None or not quantizable or (module or name) in self.unquantized:
            self.add(part, name, rows * inputs)
            return
        parameters = rows * inputs
        for suffix, size in linear_tensors(self.quantization, inputs, outputs, self.itemsize, self.capability):
            self.tensors.append(Tensor(part, f"{name}.{suffix}", size, self.count, parameters))
            parameters = 0  # counted once, with the weights themselves

    def norm(self, name, width, bias=None):
        """A normalisation's weight, and bias where the architecture has one."""
        self.add("norm", name, width)
        if self.traits["norm_bias"] if bias is None else bias:
            self.add("norm", name + ".bias", width)

    # --- the model's two ends -----------------------------------------------------------------------------------------

    def ends(self, first, last, kind):
        spec, traits = self.spec, self.traits
        rows = round_up(spec.vocab_size, VOCABULARY_PADDING) // self.tp
        parameters = spec.vocab_size * spec.hidden_size // self.tp
        tied, generates = spec.tie_word_embeddings, kind == "generate"
        always = traits["every_stage"]
        if first or "embedding" in always or (last and tied):
            self.add("embedding", "embed_tokens", rows * spec.hidden_size, parameters=parameters if first else 0)
            if traits["learned_positions"]:
                self.add("embedding", "embed_positions", self.positions() * spec.hidden_size)
        if first and traits["embedding_norm"]:
            self.norm("embedding_norm", spec.hidden_size)
        if traits["final_norm"] and (last or "norm" in always):
            self.norm("final_norm", spec.hidden_size)
        if kind in ("rerank", "classify"):
            self.add("head", "score", spec.hidden_size * spec.num_labels, itemsize=HEAD_BYTES)
        if generates and (last or "head" in always):
            if not tied:
                self.head(rows, parameters if last else 0)
            if traits["lm_head_bias"] and not self.on_transformers():
                self.add("lm_head", "lm_head.bias", rows)

    def head(self, rows, parameters):
        """The language head; ModelOpt's checkpoints quantize it unless they exclude it."""
        hidden, q = self.spec.hidden_size, self.quantization
        if q is None or q.method != "modelopt" or is_unquantized_head(q):
            self.add("lm_head", "lm_head", rows * hidden, parameters=parameters)
            return
        for suffix, size in linear_tensors(q, hidden, (rows,), self.itemsize, self.capability):
            self.tensors.append(Tensor("lm_head", f"lm_head.{suffix}", size, 1, parameters))
            parameters = 0

    def positions(self):
        return self.spec.max_position_embeddings + self.traits["learned_positions"] - 1

    def rotary(self):
        if self.on_transformers():
            return
        itemsize = 4 if self.traits["rope_float32"] else self.itemsize
        for rope in self.spec.ropes:
            name = "cos_sin_cache.float32" if itemsize == 4 else "cos_sin_cache.float16"
            copies = MROPE_ROWS if rope.mrope and self.engine < self.traits["mrope_rows_until"] else 1
            self.add("rotary", name, copies * rope.cache_length * rope.rotary_dim, itemsize, parameters=0)
        if any(attention.own_rotary_table for attention in self.spec.attentions):
            self.tensors.append(self.tensors[-1])

    # --- one layer ----------------------------------------------------------------------------------------------------

    def layer(self, layer, unquantized, count):
        self.count, self.unquantized = count, unquantized
        for part in (layer.attention, layer.state):
            if part:
                part.tensors(self)
        if layer.mlp_intermediate_size:
            feed_forward.tensors(self, "mlp", "mlp", layer.mlp_intermediate_size, self.traits["mlp_bias"])
        if layer.moe:
            layer.moe.tensors(self)
        norms = self.traits["norms"]
        if norms == "per_part":  # one before each part that the layer has
            norms = sum(
                1 for part in (layer.attention or layer.state, layer.mlp_intermediate_size or layer.moe) if part
            )
        for _i in range(norms + (self.traits["expert_norms"] if layer.moe else 0)):
            self.norm("layer_norm", self.spec.hidden_size)
        self.count, self.unquantized = 1, frozenset()

    def experts(self, local, inner, width):
        """The routed experts: `local` of them live here, each `inner` → `width` → `inner`."""
        quantization = None if "experts" in self.unquantized else self.quantization
        gate = 2 if self.traits["gated"] else 1
        parameters = {"w13": local * gate * width * inner, "w2": local * width * inner}
        bias = self.traits["expert_bias"]
        for suffix, size in expert_tensors(
            quantization, local, inner, width, gate, self.itemsize, bias, self.capability, self.engine
        ):
            own = parameters.get(suffix.replace("_qweight", ""), size // 2 if suffix.endswith("bias") else 0)
            self.tensors.append(Tensor("experts", "experts." + suffix, size, self.count, own))
