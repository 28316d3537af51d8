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


def engine_tuple(version):
    """ "0.26.0" → (0, 26)."""
    major, minor = [*version.lstrip("v").split("."), "0"][:2]
    return int(major), int(minor)


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
    engine = engine_tuple(engine_version)
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


# Modules that a checkpoint may leave unquantized, under the names of their blocks.
ATTENTION_MODULES = (
    "qkv_proj",
    "o_proj",
    "q_proj",
    "kv_a_proj_with_mqa",
    "fused_qkv_a_proj",
    "q_b_proj",
    "kv_b_proj",
    "indexer.wq_b",
)
STATE_MODULES = ("in_proj", "out_proj", "in_proj_qkvz", "in_proj_ba", "x_proj", "dt_proj")
MLP_MODULES = ("gate_up_proj", "down_proj", "gate")


@lru_cache(maxsize=256)
def _layer_classes(spec, quantization):
    """(LayerSpec, modules left unquantized) per layer; equal layers are equal objects, so they can be counted."""
    if quantization is None or not (quantization.unquantized or quantization.method == "mxfp4"):
        return tuple((layer, frozenset()) for layer in spec.layers)
    names = traits_of(spec)["names"]
    modules = {
        **{m: f"{names['attention']}.{m}" for m in ATTENTION_MODULES},
        **{m: f"{names['state']}.{m}" for m in STATE_MODULES},
        **{m: f"{names['mlp']}.{m}" for m in MLP_MODULES},
        "experts": names["experts"],
        **{f"shared.{m}": f"{names['mlp']}.{names['shared']}.{m}" for m in MLP_MODULES[:2]},
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
        if self.spec.mla and self.spec.mla.index_heads:  # the indexer has a table of its own
            self.tensors.append(self.tensors[-1])

    # --- one layer ----------------------------------------------------------------------------------------------------

    def layer(self, layer, unquantized, count):
        self.count, self.unquantized = count, unquantized
        if layer.attention:
            if layer.attention.mla:
                self.latent_attention(layer.attention)
            else:
                self.attention(layer.attention)
        if layer.state:
            getattr(self, layer.state.kind)(layer.state)
        if layer.mlp_intermediate_size:
            self.mlp("mlp", "mlp", layer.mlp_intermediate_size, self.traits["mlp_bias"])
        if layer.moe:
            self.moe(layer.moe)
        norms = self.traits["norms"]
        if norms == "per_part":  # one before each part that the layer has
            norms = sum(
                1 for part in (layer.attention or layer.state, layer.mlp_intermediate_size or layer.moe) if part
            )
        for _i in range(norms + (self.traits["expert_norms"] if layer.moe else 0)):
            self.norm("layer_norm", self.spec.hidden_size)
        self.count, self.unquantized = 1, frozenset()

    def attention(self, a):
        traits, hidden = self.traits, self.spec.hidden_size
        heads, kv_heads = self.share(a.heads), max(1, a.kv_heads // self.tp)
        outputs = (
            heads * a.head_dim * (2 if traits["output_gate"] else 1),
            kv_heads * a.head_dim,
            kv_heads * a.v_head_dim,
        )
        self.linear("attention", "qkv_proj", hidden, outputs, traits["qkv_bias"])
        self.linear("attention", "o_proj", heads * a.v_head_dim, (hidden,), traits["o_bias"])
        form = traits["qk_norm"]
        if form == "head":  # one weight per element of a head, shared by all heads
            self.add("norm", "q_norm", a.head_dim)
            self.add("norm", "k_norm", a.head_dim)
        elif form == "heads":  # each head its own
            self.add("norm", "q_norm", heads * a.head_dim)
            self.add("norm", "k_norm", kv_heads * a.head_dim)
        elif form == "replicated":  # over all heads together, whole on each rank
            self.add("norm", "q_norm", a.heads * a.head_dim)
            self.add("norm", "k_norm", a.kv_heads * a.head_dim)
        if traits["sinks"]:
            self.add("attention", "sinks", heads)

    def latent_attention(self, a):
        mla, hidden, heads = a.mla, self.spec.hidden_size, self.share(a.heads)
        bias = self.traits["qkv_bias"]
        query = heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
        if mla.q_lora_rank:
            outputs = (mla.q_lora_rank, mla.cache_width)
            self.linear("attention", "fused_qkv_a_proj", hidden, outputs, bias)
            self.add("norm", "q_a_layernorm", mla.q_lora_rank)
            self.linear("attention", "q_b_proj", mla.q_lora_rank, (query,))
        else:
            self.linear("attention", "kv_a_proj_with_mqa", hidden, (mla.cache_width,), bias)
            self.linear("attention", "q_proj", hidden, (query,))
        self.add("norm", "kv_a_layernorm", mla.kv_lora_rank)
        up = heads * (mla.qk_nope_head_dim + mla.v_head_dim)
        self.linear("attention", "kv_b_proj", mla.kv_lora_rank, (up,))
        if self.capability is not None and self.quantization is not None and "kv_b_proj" not in self.unquantized:
            # Decoding multiplies with 16-bit copies of a quantized kv_b_proj's two halves.
            self.add("attention", "W_UK", heads * mla.qk_nope_head_dim * mla.kv_lora_rank, parameters=0)
            self.add("attention", "W_UV", heads * mla.v_head_dim * mla.kv_lora_rank, parameters=0)
        self.linear("attention", "o_proj", heads * mla.v_head_dim, (hidden,), self.traits["o_bias"])
        if mla.index_heads:
            self.indexer(mla)

    def indexer(self, mla):
        """Chooses the tokens that sparse attention looks at (DeepSeek V3.2); replicated."""
        hidden = self.spec.hidden_size
        self.linear("attention", "indexer.wq_b", mla.q_lora_rank, (mla.index_heads * mla.index_head_dim,))
        # The key and the heads' weights are one matrix, never quantized; the norm is kept in float32.
        self.add("attention", "indexer.wk_weights_proj", hidden * (mla.index_head_dim + mla.index_heads))
        self.add("norm", "indexer.k_norm", 2 * mla.index_head_dim, 4)

    def mlp(self, part, name, width, bias=False, prefix=""):
        hidden, width = self.spec.hidden_size, self.share(width)
        outputs = (width, width) if self.traits["gated"] else (width,)
        self.linear(part, name + ".gate_up_proj", hidden, outputs, bias, module=prefix + "gate_up_proj")
        self.linear(part, name + ".down_proj", width, (hidden,), bias, module=prefix + "down_proj")

    def moe(self, moe):
        traits, hidden = self.traits, self.spec.hidden_size
        router = traits["router_dtype"]
        if router == "quantizable":
            self.linear("experts_router", "gate", hidden, (moe.experts,))
        else:
            self.add("router", "gate", hidden * moe.experts, DTYPE_BYTES[router] if router else None)
        if traits["router_bias"]:
            self.add("router", "gate.bias", moe.experts)
        if traits["correction_bias"]:
            self.add("router", "e_score_correction_bias", moe.experts, 4)
        if traits["router_scales"]:
            self.add("router", "router.scale", hidden)
            self.add("router", "router.per_expert_scale", moe.experts)
        quantization = None if "experts" in self.unquantized else self.quantization
        local = ceil_div(moe.experts, self.ep)
        width = moe.intermediate_size if self.ep > 1 else self.share(moe.intermediate_size)
        inner = moe.latent_size or hidden
        gate = 2 if traits["gated"] else 1
        parameters = {"w13": local * gate * width * inner, "w2": local * width * inner}
        for suffix, size in expert_tensors(
            quantization, local, inner, width, gate, self.itemsize, traits["expert_bias"], self.capability, self.engine
        ):
            own = parameters.get(suffix.replace("_qweight", ""), size // 2 if suffix.endswith("bias") else 0)
            self.tensors.append(Tensor("experts", "experts." + suffix, size, self.count, own))
        if moe.shared_intermediate_size:
            self.mlp("shared_experts", traits["names"]["shared"], moe.shared_intermediate_size, prefix="shared.")
        if moe.shared_gate:
            self.add("router", "shared_expert_gate", hidden)

    # --- layers that keep a state per request -------------------------------------------------------------------------

    def mamba2(self, s):
        hidden, heads = self.spec.hidden_size, self.share(s.heads)
        width = heads * s.head_dim
        conv = s.shapes(self.tp)[0][1]
        self.add("state", "A", heads, 4)
        self.add("state", "D", heads)
        self.add("state", "dt_bias", heads)
        self.add("state", "conv1d", conv * s.conv_kernel)
        if self.traits["conv_bias"]:
            self.add("state", "conv1d.bias", conv)
        bias = self.traits["state_bias"]
        group = (conv - width) // 2
        self.linear("state", "in_proj", hidden, (width, width, group, group, heads), bias)
        self.linear("state", "out_proj", width, (hidden,), bias)
        if self.traits["state_norm"]:
            self.add("state", "norm", width)

    def mamba1(self, s):
        hidden, width = self.spec.hidden_size, self.share(s.heads)
        self.add("state", "A", width * s.state_size, 4)
        self.add("state", "D", width)
        self.add("state", "conv1d", width * s.conv_kernel)
        if self.traits["conv_bias"]:
            self.add("state", "conv1d.bias", width)
        bias = self.traits["state_bias"]
        self.linear("state", "in_proj", hidden, (width, width), bias)
        self.linear("state", "x_proj", width, (s.dt_rank + 2 * s.state_size,))
        self.linear("state", "dt_proj", s.dt_rank, (width,), bias=True)
        self.linear("state", "out_proj", width, (hidden,), bias)
        if self.traits["state_norm"]:
            self.add("state", "norms", s.dt_rank + 2 * s.state_size)

    def gated_delta_net(self, s):
        hidden = self.spec.hidden_size
        heads, value, key = self.share(s.heads), self.share(s.heads * s.head_dim), self.share(s.groups * s.key_head_dim)
        self.add("state", "dt_bias", heads)
        self.add("state", "A_log", heads, 4)
        self.add("state", "conv1d", (2 * key + value) * s.conv_kernel)
        self.linear("state", "in_proj_qkvz", hidden, (2 * key + 2 * value,))
        self.linear("state", "in_proj_ba", hidden, (2 * heads,))
        self.add("state", "norm", s.head_dim)
        self.linear("state", "out_proj", value, (hidden,))

    def kda(self, s):
        """Kimi's delta attention: like the gated one, with low-rank gates per channel."""
        hidden, heads, dim = self.spec.hidden_size, self.share(s.heads), s.head_dim
        width = heads * dim
        self.linear("state", "qkv_proj", hidden, (width, width, width))
        for gate in ("f", "g"):
            self.linear("state", gate + "_a_proj", hidden, (dim,))
            self.linear("state", gate + "_b_proj", dim, (width,))
        self.linear("state", "b_proj", hidden, (heads,))
        self.add("state", "conv1d", 3 * width * s.conv_kernel)
        self.add("state", "dt_bias", width, 4)
        self.add("state", "A_log", heads, 4)
        self.add("state", "o_norm", dim)
        self.linear("state", "o_proj", width, (hidden,))

    def short_conv(self, s):
        hidden, width = self.spec.hidden_size, self.share(s.conv_width)
        self.add("state", "conv", width * s.conv_kernel)
        self.linear("state", "in_proj", hidden, (width, width, width))
        self.linear("state", "out_proj", width, (hidden,))
