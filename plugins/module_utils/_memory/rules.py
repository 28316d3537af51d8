# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What vLLM refuses to start, and why: checked against its own answers in tests/oracle."""

from __future__ import annotations

import math

from ansible_collections.inferops.gpu_host.plugins.module_utils._layers import feed_forward
from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.part import Refusal, divides
from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.quantization import (
    SMALLEST_REFINED_BLOCK,
    is_unquantized,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.weights import (
    DEFAULT_ENGINE,
    VOCABULARY_PADDING,
    loaded_dtype,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.architectures import traits_of
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import round_up
from ansible_collections.inferops.gpu_host.plugins.module_utils._versions import minor_release

# Least compute capability of a quantization method's kernels in vLLM 0.26: weight-only ones included.
CAPABILITY_FLOORS = {
    "awq": 7.5,
    "gptq": 6.0,
    "fp8": 7.5,
    "fbgemm_fp8": 8.0,
    "compressed-tensors": 7.5,
    "bitsandbytes": 7.0,
    "mxfp4": 8.0,
    "modelopt": 8.9,
}
NUMBER_FLOORS = {("modelopt", "nvfp4"): 7.5, ("modelopt", "mxfp8"): 8.0}
BFLOAT16_FLOOR = 8.0
FLOAT16_UNSTABLE = ("gemma2", "gemma3", "gemma3_text", "glm4", "plamo2")
MARLIN_PADS_SINCE = (0, 26)  # before, output widths had to be multiples of 64 and inputs of 128
BLOCK_REFINED_SINCE = (0, 32)  # before, sharded expert widths had to be multiples of the FP8 block


def refusals(
    spec,
    tp=1,
    pp=1,
    ep=False,
    dtype="auto",
    quantization=None,
    compute_capability=None,
    engine_version=DEFAULT_ENGINE,
    mm_encoder_tp_mode="weights",
):
    """Every reason that vLLM has against a layout of a model, as a list of Refusal; empty where it starts.

    ep: experts dealt out whole. quantization: a Quantization in place of the checkpoint's own.
    compute_capability: of the GPU (9.0); None leaves out what depends on it.
    """
    found = []
    engine = minor_release(engine_version)
    quantization = quantization or spec.quantization
    found += _pipeline(spec, pp)
    found += _heads(spec, tp)
    found += _widths(spec, tp, ep)
    found += _states(spec, tp)
    found += _tower(spec, tp, mm_encoder_tp_mode)
    if quantization:
        found += _quantized_shapes(spec, quantization, tp, ep, engine)
    found += _dtype(spec, dtype, compute_capability)
    if quantization and compute_capability is not None:
        found += _capability(quantization, compute_capability)
    return found


def _pipeline(spec, pp):
    if pp > 1 and not spec.supports_pipeline:
        return [Refusal("pipeline", f"Pipeline parallelism is not supported for {spec.architecture}", {"pp": pp})]
    if pp > spec.num_layers:
        reason = f"{spec.num_layers} layers cannot fill {pp} pipeline stages"
        return [Refusal("pipeline_layers", reason, {"layers": spec.num_layers, "pp": pp})]
    return []


def _heads(spec, tp):
    found = divides("heads", "Total number of attention heads", spec.heads, tp)
    for attention in sorted(spec.attentions, key=lambda attention: attention.kv_heads):
        found += [refusal for refusal in attention.refusals(tp) if refusal not in found]
    return found


def _widths(spec, tp, ep):
    vocabulary = round_up(spec.vocab_size, VOCABULARY_PADDING)
    found = divides("vocabulary", "The vocabulary, padded", vocabulary, tp)
    if spec.encoder_only:  # their other tables are padded and sharded like the vocabulary
        if traits_of(spec)["encoder"] == "bert":
            positions = round_up(spec.max_position_embeddings, VOCABULARY_PADDING)
            found += divides("positions", "The position embeddings, padded", positions, tp)
        if traits_of(spec)["encoder"] != "modernbert":
            types = round_up(spec.config.get("type_vocab_size") or 0, VOCABULARY_PADDING)
            found += divides("token_types", "The token type embeddings, padded", types, tp)
    layers = set(spec.layers)
    for width in sorted({layer.mlp_intermediate_size for layer in layers if layer.mlp_intermediate_size}):
        found += divides("intermediate_size", "intermediate_size", width, tp)
    for moe in {layer.moe for layer in layers if layer.moe}:
        found += moe.refusals(tp, ep)
    if ep and spec.moe is None:
        reason = "Number of experts in the model must be greater than 0 when expert parallelism is enabled"
        found.append(Refusal("no_experts", reason))
    return found


def _states(spec, tp):
    states = {layer.state for layer in spec.layers if layer.state}
    return [refusal for state in states for refusal in state.refusals(tp)]


def _tower(spec, tp, mode):
    vision = spec.vision
    if vision is None or vision.family in ("intern_vit_6b", "gemma4_vision"):
        return []  # padded, or never sharded
    if mode == "data" and traits_of(spec)["encoder_data_parallel"]:
        return []
    found = divides("vision_heads", "Attention heads of the vision tower", vision.heads, tp)
    found += divides("vision_width", "intermediate_size of the vision tower", vision.intermediate_size, tp)
    return found


def _sharded_linears(spec, tp):
    """(module, inputs, their share, outputs of one rank, sharded by rows) of the layers that quantization cuts."""
    hidden = spec.hidden_size
    for i, layer in enumerate(spec.layers):
        linears = [*layer.attention.sharded_linears(hidden, tp)] if layer.attention else []
        linears += feed_forward.sharded_linears("mlp", layer.mlp_intermediate_size, hidden, tp)
        linears += layer.moe.sharded_linears(hidden, tp) if layer.moe else ()
        for linear in linears:
            yield (i, *linear)


def _quantized_shapes(spec, q, tp, ep, engine):
    """Scales belong to blocks or groups of weights, and a rank must own whole ones."""
    found = {}
    seen = set()
    for i, module, inputs, share, outputs in _sharded_linears(spec, tp):
        shape = (module, inputs, share, outputs)
        if shape in seen or is_unquantized(q, i, module):
            continue
        seen.add(shape)
        for refusal in _quantized_linear(q, module, inputs, share, outputs, tp, engine):
            found.setdefault(refusal.code, refusal)
    if spec.moe and not ep:
        for refusal in _quantized_experts(spec, q, tp, engine):
            found.setdefault(refusal.code, refusal)
    return list(found.values())


def _quantized_linear(q, module, inputs, share, outputs, tp, engine):
    if q.block:
        rows, columns = q.block
        if share != inputs and share % columns:
            reason = f"{module}: input_size_per_partition = {share} is not divisible by block_k = {columns}"
            yield Refusal("fp8_block", reason, {"size": share, "block": columns, "tp": tp})
        if share == inputs:
            for size in outputs:
                if size % rows:
                    reason = f"{module}: output_partition_size = {size} is not divisible by block_n = {rows}"
                    yield Refusal("fp8_block", reason, {"size": size, "block": rows, "tp": tp})
    elif q.group_size and q.weights in ("int4", "int8"):
        if q.group_size > 0 and share % q.group_size:
            reason = f"{module}: {share} inputs of a rank are not divisible by group_size = {q.group_size}"
            yield Refusal("group_size", reason, {"size": share, "group_size": q.group_size, "tp": tp})
        pack = 32 // q.bits
        if any(size % pack for size in outputs):
            yield Refusal("packing", f"{module}: outputs {outputs} of a rank do not fill 32-bit words", {"tp": tp})
        if engine < MARLIN_PADS_SINCE and (sum(outputs) % 64 or share % 128):
            reason = f"{module}: {sum(outputs)} × {share} on a rank; Marlin needs multiples of 64 and 128"
            yield Refusal("marlin_shape", reason, {"outputs": sum(outputs), "inputs": share, "tp": tp})
    elif q.weights == "nvfp4" and share % 16:
        yield Refusal("group_size", f"{module}: {share} inputs of a rank are not divisible by 16", {"size": share})


def _quantized_experts(spec, q, tp, engine):
    width = spec.moe.intermediate_size // tp
    if is_unquantized(q, spec.num_layers - 1, "mlp.experts"):
        return
    if q.block and (width % q.block[0] or (tp > 1 and width % q.block[1])):
        refined = math.gcd(math.gcd(*q.block), math.gcd(width, spec.hidden_size))
        if engine < BLOCK_REFINED_SINCE or refined < SMALLEST_REFINED_BLOCK:
            reason = f"The experts' width on a rank ({width}) is not divisible by block_n = {q.block[0]}"
            yield Refusal("fp8_block", reason, {"size": width, "block": q.block[0], "tp": tp})
    elif q.group_size and q.weights.startswith("int") and width % math.gcd(width, max(q.group_size, 1)) == 0:
        # Groups that do not fit are halved until they do.
        if q.group_size < 1 or math.gcd(width, q.group_size) >= SMALLEST_REFINED_BLOCK:
            return
        reason = f"The experts' width on a rank ({width}) is not divisible by group_size = {q.group_size}"
        yield Refusal("group_size", reason, {"size": width, "group_size": q.group_size, "tp": tp})


def _dtype(spec, dtype, capability):
    found = []
    wanted = loaded_dtype(spec, dtype)
    if dtype not in (None, "auto") and wanted not in ("float32", "float16", "bfloat16"):
        return [Refusal("dtype", f"Unknown dtype: {dtype}", {"dtype": dtype})]
    model_type = str(spec.config.get("model_type") or spec.model_type)
    unstable = model_type in FLOAT16_UNSTABLE or spec.model_type in FLOAT16_UNSTABLE
    old = capability is not None and capability < BFLOAT16_FLOOR
    asked = dtype not in (None, "auto")
    if unstable and asked and wanted == "float16":
        reason = f"The model type {model_type!r} does not support float16: use bfloat16 or float32"
        found.append(Refusal("float16", reason, {"dtype": wanted}))
    if old and asked and wanted == "bfloat16":
        reason = (
            f"bfloat16 is only supported on GPUs with compute capability of at least 8.0, this one has {capability}"
        )
        found.append(Refusal("bfloat16", f"{reason}: use float16", {"compute_capability": capability}))
    return found


def _capability(q, capability):
    floor = NUMBER_FLOORS.get((q.method, q.weights), CAPABILITY_FLOORS.get(q.method))
    if floor is None or capability >= floor:
        return []
    reason = f"The quantization method {q.method} is not supported for the current GPU. Minimum capability: {floor}"
    return [Refusal("capability", f"{reason}. Current capability: {capability}", {"floor": floor, "found": capability})]
