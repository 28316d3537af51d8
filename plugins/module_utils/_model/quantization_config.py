# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a checkpoint says that its weights are quantized: every dialect → one Quantization."""

from __future__ import annotations

from typing import Mapping

from ansible_collections.inferops.gpu_host.plugins.module_utils._config_keys import (
    ABSURD,
    ConfigError,
    mapping_or_empty,
    whole_number,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.patterns import pattern_refusal
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.spec import Quantization

SUPPORTED_QUANTIZATION = "fp8, fbgemm_fp8, awq, gptq, compressed-tensors, modelopt, mxfp4 or bitsandbytes"


def read_quantization(config, text, hf_quant_config):
    """The Quantization of a checkpoint, or None for one in 16 or 32 bits."""
    raw = config.get("quantization_config") or text.get("quantization_config") or config.get("compression_config")
    if raw and not isinstance(raw, Mapping):
        raise ConfigError("quantization_config", raw, "a mapping with quant_method")
    if hf_quant_config and not (raw and raw.get("quant_method") not in (None, "", "modelopt")):
        raw = {**(raw or {}), **hf_quant_config, "quant_method": "modelopt"}
    if not raw:
        return None
    method = str(raw.get("quant_method") or ("modelopt" if "producer" in raw else "")).lower().replace("_", "-")
    method = {"fbgemm-fp8": "fbgemm_fp8", "modelopt-fp4": "modelopt"}.get(method, method)
    readers = {
        "fp8": _fp8,
        "fbgemm_fp8": _fp8,
        "awq": _integer,
        "gptq": _integer,
        "compressed-tensors": _compressed_tensors,
        "modelopt": _modelopt,
        "mxfp4": _mxfp4,
        "bitsandbytes": _bitsandbytes,
    }
    if method not in readers:
        raise ConfigError("quantization_config.quant_method", raw.get("quant_method"), SUPPORTED_QUANTIZATION)
    return readers[method](method, raw)


def _patterns(raw, *names):
    """The modules that a checkpoint leaves unquantized."""
    for name in names:
        if isinstance(raw.get(name), (list, tuple)):
            patterns = tuple(str(pattern) for pattern in raw[name])
            refusal = pattern_refusal(patterns)
            if refusal:
                raise ConfigError(f"quantization_config.{name}", *refusal)
            return patterns
    return ()


UNQUANTIZED_KEYS = ("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules")


def _fp8(method, raw):
    block = raw.get("weight_block_size")
    if block is not None:
        if not isinstance(block, (list, tuple)) or len(block) != 2:
            raise ConfigError("quantization_config.weight_block_size", block, "two integers, such as [128, 128]")
        block = tuple(whole_number("quantization_config.weight_block_size", n, 1) for n in block)
    strategy = "channel" if method == "fbgemm_fp8" else "block" if block else "tensor"
    return Quantization(
        method,
        "fp8",
        8,
        block=block,
        activations=str(raw.get("activation_scheme") or "dynamic"),
        strategy=strategy,
        unquantized=_patterns(raw, *UNQUANTIZED_KEYS),
        raw=raw,
    )


def _integer(method, raw):
    bits = whole_number("quantization_config.bits", raw.get("bits", raw.get("w_bit")), 2)
    group = raw.get("group_size", raw.get("q_group_size"))
    if not isinstance(group, int) or isinstance(group, bool) or (not 1 <= group < ABSURD and group != -1):
        raise ConfigError("quantization_config.group_size", group, "inputs per scale, or -1 for one per output")
    zero_point = raw.get("zero_point", True) if method == "awq" else not raw.get("sym", True)
    return Quantization(
        method,
        f"int{bits}",
        bits,
        group_size=group,
        zero_point=bool(zero_point),
        strategy="group",
        unquantized=_patterns(raw, *UNQUANTIZED_KEYS),
        raw=raw,
    )


def _activations(described):
    """How a compressed-tensors checkpoint quantizes what goes into its layers."""
    if not described:
        return None
    return "dynamic" if mapping_or_empty(described).get("dynamic") else "static"


def _compressed_tensors(method, raw):
    groups = raw.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise ConfigError("quantization_config.config_groups", groups, "at least one group")
    group = mapping_or_empty(next(iter(groups.values())))
    weights = group.get("weights")
    if not isinstance(weights, Mapping):
        raise ConfigError("quantization_config.config_groups.weights", weights, "the weights' number format")
    bits = whole_number("quantization_config.config_groups.weights.num_bits", weights.get("num_bits"), 2)
    layout = str(group.get("format") or raw.get("format") or "")
    activations = group.get("input_activations")
    floating = weights.get("type") == "float"
    if floating and bits == 4:
        number = "nvfp4" if "nvfp4" in layout or weights.get("group_size") == 16 else "mxfp4"
    else:
        number = f"fp{bits}" if floating else f"int{bits}"
    block = weights.get("block_structure")
    if isinstance(block, (list, tuple)) and len(block) == 2:
        block = tuple(whole_number("quantization_config.config_groups.weights.block_structure", n, 1) for n in block)
    else:
        block = None
    strategy = str(weights.get("strategy") or "tensor")
    group_size = weights.get("group_size")
    if group_size is not None and group_size != -1:
        group_size = whole_number("quantization_config.config_groups.weights.group_size", group_size, 1)
    if number == "int8" and activations:
        group_size = None
    elif number.startswith("int") and group_size is None:
        group_size = -1
    scheme = raw.get("kv_cache_scheme")
    return Quantization(
        method,
        number,
        bits,
        block=block if strategy == "block" else None,
        group_size=group_size,
        zero_point=weights.get("symmetric") is False,
        activations=None
        if not activations
        else "dynamic"
        if mapping_or_empty(activations).get("dynamic")
        else "static",
        strategy=strategy,
        unquantized=_patterns(raw, "ignore"),
        kv_cache_dtype="fp8" if scheme else None,
        raw=raw,
    )


def _modelopt(method, raw):
    nested = raw.get("quantization")
    quantization = nested if isinstance(nested, Mapping) else raw
    algorithm = str(quantization.get("quant_algo") or raw.get("quant_algo") or "").upper()
    formats = {
        "FP8": ("fp8", 8, "tensor", None, None, "static"),
        "FP8_PER_CHANNEL_PER_TOKEN": ("fp8", 8, "channel", None, None, "dynamic"),
        "FP8_PB_WO": ("fp8", 8, "block", (128, 128), None, "dynamic"),
        "NVFP4": ("nvfp4", 4, "group", None, 16, "static"),
        "MXFP8": ("mxfp8", 8, "group", None, 32, "dynamic"),
    }
    if algorithm not in formats:
        raise ConfigError("hf_quant_config.quantization.quant_algo", algorithm or None, "one of " + ", ".join(formats))
    number, bits, strategy, block, group_size, activations = formats[algorithm]
    cache = quantization.get("kv_cache_quant_algo") or raw.get("kv_cache_scheme")
    return Quantization(
        method,
        number,
        bits,
        block=block,
        group_size=group_size,
        activations=activations,
        strategy=strategy,
        unquantized=_patterns(quantization, "exclude_modules", "ignore") or _patterns(raw, "exclude_modules", "ignore"),
        kv_cache_dtype="fp8" if cache else None,
        raw=raw,
    )


def _mxfp4(method, raw):
    return Quantization(
        method, "mxfp4", 4, group_size=32, strategy="group", unquantized=_patterns(raw, *UNQUANTIZED_KEYS), raw=raw
    )


def _bitsandbytes(method, raw):
    unquantized = _patterns(raw, "llm_int8_skip_modules")
    if raw.get("load_in_8bit"):
        return Quantization(method, "int8", 8, strategy="channel", unquantized=unquantized, raw=raw)
    number = str(raw.get("bnb_4bit_quant_type") or "nf4")
    return Quantization(method, number, 4, group_size=64, strategy="group", unquantized=unquantized, raw=raw)


def online_quantization(name):
    """The Quantization that `--quantization NAME` applies to a 16-bit checkpoint while loading."""
    if name in ("fp8", "fp8_per_tensor"):
        return Quantization("fp8", "fp8", 8, activations="dynamic", strategy="tensor")
    if name == "fp8_per_block":
        return Quantization("fp8", "fp8", 8, block=(128, 128), activations="dynamic", strategy="block")
    if name == "bitsandbytes":
        return _bitsandbytes(name, {})
    raise ConfigError("quantization", name, "fp8 or bitsandbytes for a checkpoint that is not quantized")
