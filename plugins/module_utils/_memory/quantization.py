# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How vLLM stores quantized linear layers: weights, scales, zero points, and which modules it leaves alone."""

from __future__ import annotations

import fnmatch
import math
import re
from functools import lru_cache

from ansible_collections.inferops.gpu_host.plugins.module_utils._units import ceil_div, round_up

MACHETE_CAPABILITY = 9.0  # Hopper's kernel for integer weights
NVFP4_CAPABILITY = 10.0  # Blackwell computes in NVFP4; older GPUs only store it

# What a fused module of vLLM is called in checkpoints, relative to its block.
CHECKPOINT_NAMES = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "fused_qkv_a_proj": ("q_a_proj", "kv_a_proj_with_mqa"),
    "in_proj_qkvz": ("in_proj_qkv", "in_proj_z"),
    "in_proj_ba": ("in_proj_b", "in_proj_a"),
}


def linear_tensors(quantization, inputs, outputs, itemsize, capability=None):
    """Tensors of one quantized linear layer on one rank, as (suffix, bytes).

    inputs: its input features on this rank. outputs: its output features, one entry per fused matrix.
    capability: the GPU's compute capability, for the form that its kernel wants; None for the form as created.
    """
    q, rows = quantization, sum(outputs)
    weight = rows * inputs
    if q.weights == "fp8":
        if q.block:
            scales = sum(ceil_div(n, q.block[0]) for n in outputs) * ceil_div(inputs, q.block[1])
        else:
            scales = rows if q.strategy == "channel" else len(outputs)
        tensors = [("weight", weight), ("weight_scale", scales * 4)]
        if q.activations == "static":
            tensors.append(("input_scale", 4 * len(outputs)))
        return tensors
    if q.weights in ("int4", "int8") and q.method in ("awq", "gptq", "compressed-tensors") and q.group_size:
        groups = 1 if q.group_size == -1 else ceil_div(inputs, q.group_size)
        tensors = [("qweight", weight * q.bits // 8), ("scales", groups * rows * itemsize)]
        machete = capability is not None and capability == MACHETE_CAPABILITY
        if q.zero_point and machete:
            tensors.append(("qzeros", groups * rows * itemsize))  # multiplied with the scales beforehand
        elif q.zero_point or (q.method == "gptq" and (capability is None or machete)):
            tensors.append(("qzeros", groups * rows * q.bits // 8))
        if q.method == "gptq" and q.raw.get("desc_act"):
            tensors.append(("g_idx", inputs * 4))
        if q.method == "compressed-tensors":
            tensors.append(("weight_shape", 16))
        return tensors
    if q.weights == "int8":
        return [("weight", weight), ("weight_scale", rows * 4)]
    if q.weights == "nvfp4":
        scales = weight // 16
        if capability is not None and capability >= NVFP4_CAPABILITY:
            scales = round_up(rows, 128) * round_up(inputs // 16, 4)  # the tensor cores' scale tiles
        return [
            ("weight", weight // 2),
            ("weight_scale", scales),
            ("weight_scale_2", 4 * len(outputs)),
            ("input_scale", 4 * len(outputs)),
        ]
    if q.weights == "mxfp8":
        return [("weight", weight), ("weight_scale", weight // 32)]
    if q.weights == "mxfp4":
        return [("weight", weight // 2), ("weight_scale", weight // 32)]
    if q.weights in ("nf4", "fp4"):
        return [("weight", ceil_div(weight, 2)), ("absmax", ceil_div(weight, 64) * 4)]
    return [("weight", weight * q.bits // 8)]


SMALLEST_REFINED_BLOCK = 32


def moe_block(block, hidden, width):
    """The block of the experts' scales on one rank. vLLM refines it where the sharded width is no multiple of the
    checkpoint's block (since 0.32; see refusals() for older ones)."""
    if width % block[0] == 0 and width % block[1] == 0:
        return block
    refined = math.gcd(math.gcd(*block), math.gcd(width, hidden))
    return (refined, refined) if refined >= SMALLEST_REFINED_BLOCK else block


def mxfp4_experts(experts, hidden, width, gate, bias, capability, engine):
    """MXFP4 experts: each backend pads sizes to its tiles, and Hopper's keeps its scales in blocks of 256 rows."""
    scale_rows, scale_columns, bias_bytes = 1, 1, 2
    if capability is None:
        width = round_up(width, 64)
    elif capability >= 10:
        hidden, width = round_up(hidden, 256), round_up(width, 256)
    elif capability >= 9 and engine >= (0, 26):  # Triton's kernels
        width = round_up(width, 64)
        scale_rows, scale_columns, bias_bytes = 256, 4, 4
    elif engine >= (0, 26):  # Marlin
        hidden, width = round_up(hidden, 256), round_up(width, 128)
    else:  # fitted to two published runs of 0.19, not read from its source
        hidden, width = round_up(hidden, 256), round_up(width, 64)
    up = gate * width
    tensors = []
    for name, rows, columns in (("w13", up, hidden), ("w2", hidden, width)):
        tensors.append((name, experts * rows * columns // 2))
        scales = round_up(rows, scale_rows) * round_up(columns // 32, scale_columns)
        tensors.append((name + "_scale", experts * scales))
        if bias:
            tensors.append((name + "_bias", experts * rows * bias_bytes))
    return tensors


def expert_tensors(quantization, experts, hidden, width, gate, itemsize, bias=False, capability=None, engine=(0, 26)):
    """Tensors of the routed experts of one layer on one rank, as (suffix, bytes).

    experts: how many live here; width: of one expert on this rank; gate: 2 with a gate projection, 1 without.
    capability, engine: as for linear_tensors; which backend runs MXFP4 depends on both.
    """
    q, up = quantization, gate * width
    if q is None:
        tensors = [("w13", experts * up * hidden * itemsize), ("w2", experts * hidden * width * itemsize)]
    elif q.weights == "fp8":
        tensors = [("w13", experts * up * hidden), ("w2", experts * hidden * width)]
        if q.block:
            rows, columns = moe_block(q.block, hidden, width)
            tensors += [
                ("w13_scale", experts * gate * ceil_div(width, rows) * ceil_div(hidden, columns) * 4),
                ("w2_scale", experts * ceil_div(hidden, rows) * ceil_div(width, columns) * 4),
            ]
        elif q.strategy == "channel":
            tensors += [("w13_scale", experts * up * 4), ("w2_scale", experts * hidden * 4)]
        else:
            tensors += [("w13_scale", experts * gate * 4), ("w2_scale", experts * 4)]
        if q.activations == "static":
            tensors += [("w13_input_scale", experts * 4), ("w2_input_scale", experts * 4)]
    elif q.weights == "mxfp4":
        return mxfp4_experts(experts, hidden, width, gate, bias, capability, engine)
    elif q.weights == "nvfp4":
        tensors = [
            ("w13", experts * up * hidden // 2),
            ("w2", experts * hidden * width // 2),
            ("w13_scale", experts * up * (hidden // 16)),
            ("w2_scale", experts * hidden * (width // 16)),
            ("w13_scale_2", experts * gate * 4),
            ("w2_scale_2", experts * 4),
            ("w13_input_scale", experts * gate * 4),
            ("w2_input_scale", experts * 4),
        ]
    elif q.group_size and q.bits < 16 and q.weights.startswith("int"):
        groups_in = 1 if q.group_size == -1 else hidden // q.group_size
        groups_out = 1 if q.group_size == -1 else max(1, width // q.group_size)
        tensors = [
            ("w13_qweight", experts * hidden * up * q.bits // 8),
            ("w2_qweight", experts * width * hidden * q.bits // 8),
            ("w13_scales", experts * groups_in * up * itemsize),
            ("w2_scales", experts * groups_out * hidden * itemsize),
        ]
        if q.method in ("awq", "gptq"):
            tensors += [
                ("w13_qzeros", experts * groups_in * up * q.bits // 8),
                ("w2_qzeros", experts * groups_out * hidden * q.bits // 8),
            ]
        if q.method == "gptq" and q.raw.get("desc_act"):
            # Activation order indices and their sorted copies.
            tensors += [("w13_g_idx", 2 * experts * hidden * 4), ("w2_g_idx", 2 * experts * width * 4)]
    elif q.weights == "int8":
        tensors = [
            ("w13", experts * up * hidden),
            ("w2", experts * hidden * width),
            ("w13_scale", experts * up * 4),
            ("w2_scale", experts * hidden * 4),
        ]
    else:
        tensors = [
            ("w13", experts * up * hidden * q.bits // 8),
            ("w2", experts * hidden * width * q.bits // 8),
        ]
    if bias:
        tensors += [("w13_bias", experts * up * 2), ("w2_bias", experts * hidden * 2)]
    return tensors


@lru_cache(maxsize=64)
def _compiled(patterns):
    """(exact names, one regular expression or None) of a list of module patterns."""
    exact, expressions = set(), []
    for pattern in patterns:
        if pattern.startswith("re:"):
            expressions.append(pattern[3:])
        elif any(c in pattern for c in "*?["):
            expressions.append(fnmatch.translate(pattern))
        else:
            exact.add(pattern)
            # Multimodal checkpoints nest the language model; the part from `layers.` on is the same everywhere.
            at = pattern.find("layers.")
            if at > 0 and "vis" not in pattern[:at]:
                exact.add(pattern[at:])
    return frozenset(exact), re.compile("|".join(f"(?:{e})" for e in expressions)) if expressions else None


def is_unquantized(quantization, layer_index, module):
    """Whether `module` ("self_attn.qkv_proj") of a layer keeps the model's dtype."""
    if quantization is None:
        return True
    if quantization.method == "mxfp4" and not module.endswith("experts"):
        return True  # vLLM quantizes only the experts of these
    if not quantization.unquantized:
        return False
    exact, expression = _compiled(quantization.unquantized)
    block, _dot, leaf = module.rpartition(".")
    # A fused module is left alone when its parts are, and the parts are always listed together.
    for name in (leaf, *CHECKPOINT_NAMES.get(leaf, ())):
        local = f"{block}.{name}" if block else name
        parts = local.split(".")
        candidates = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
        if any(f"layers.{layer_index}.{c}" in exact or c in exact for c in candidates) or any(
            p in exact for p in parts
        ):
            return True
        if f"layers.{layer_index}" in exact:
            return True
        for prefix in ("model", "model.language_model", "language_model.model"):
            full = f"{prefix}.layers.{layer_index}.{local}"
            if expression and expression.match(full):
                return True
    return False


def is_unquantized_head(quantization):
    """Whether the language head keeps the model's dtype."""
    exact, expression = _compiled(quantization.unquantized)
    names = ("lm_head", "language_model.lm_head")
    return any(bool(n in exact or (expression and expression.match(n))) for n in names)
