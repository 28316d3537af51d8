# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every dialect of config.json → one ModelSpec (see _model/spec.py for what its fields mean).

The file comes from whoever published the model. A value that makes no sense is a ConfigError which names its key, and
no count or list may be so large that reading it takes noticeable time or memory.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import Mapping, Optional

from ansible_collections.inferops.gpu_host.plugins.module_utils._model.architectures import (
    ARCHITECTURES,
    MODEL_TYPE_DEFAULTS,
    resolve_traits,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.patterns import pattern_refusal
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.spec import (
    AttentionSpec,
    ConfigError,
    LayerSpec,
    MlaSpec,
    ModelSpec,
    MoeSpec,
    Quantization,
    RopeSpec,
    StateSpec,
    VisionSpec,
)

ABSURD = 1 << 30  # no width, count or length of a real model reaches this
MOST_LAYERS = 1024  # the deepest merges that people published have about 300
LONGEST_LIST = 4096  # of entries per layer, or of layers
TEXT_CONFIG_KEYS = ("text_config", "llm_config", "language_config", "text_model_config", "language_model_config")


def parse_model_config(config: Mapping, hf_quant_config: Optional[Mapping] = None, strict: bool = False) -> ModelSpec:
    """The ModelSpec of a parsed config.json.

    hf_quant_config: the content of hf_quant_config.json, where a checkpoint has one.
    strict: refuse an architecture that is not known here instead of estimating it as a Llama-like decoder.
    """
    for document, name in ((config, "the document"), (hf_quant_config, "hf_quant_config.json")):
        if not isinstance(document, Mapping) and (document is not None or name == "the document"):
            raise ConfigError(name, type(document).__name__, "a JSON object")
    with sense():
        return _parse(config, hf_quant_config, strict)


@contextmanager
def sense():
    """Values that cannot be calculated with, in keys that nothing looks at alone, are a ConfigError as well."""
    try:
        yield
    except ConfigError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        found = f"{type(error).__name__}: {error}"
        raise ConfigError("the document", found, "values of the kinds that models have") from error


def _parse(config, hf_quant_config, strict):
    architecture = _architecture(config)
    known = architecture in ARCHITECTURES
    if strict and not known:
        raise ConfigError(
            "architectures", architecture, "an architecture this planner knows, or strict: false for a generic estimate"
        )
    keys = _Keys(_text_config(config), fallback=config)
    language_config = {**keys.defaults, **keys.raw}
    traits = resolve_traits(architecture, language_config)
    layers = _layers(keys, traits)
    if not layers:
        raise ConfigError("num_hidden_layers", 0, "at least 1")
    max_positions, max_model_len = _lengths(keys)
    for name in ("type_vocab_size", "max_trained_positions"):
        keys.optional_count(name)
    return ModelSpec(
        architecture=architecture,
        model_type=str(config.get("model_type") or keys.raw.get("model_type") or ""),
        kind=traits["kind"] or _kind(architecture),
        hidden_size=keys.count("hidden_size", "n_embd", "d_model", "dim"),
        vocab_size=keys.count("vocab_size", "n_vocab", "padded_vocab_size"),
        layers=layers,
        max_position_embeddings=max_positions,
        max_model_len=max_model_len,
        dtype=_dtype(keys, config),
        tie_word_embeddings=_tied(keys, config, traits),
        ropes=_ropes(keys, layers) if traits["rope"] else (),
        num_labels=_num_labels(config),
        quantization=_quantization(config, keys.raw, hf_quant_config),
        vision=_vision(config),
        mtp_layers=keys.optional_count("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules") or 0,
        supports_pipeline=traits["pipeline"],
        basis="config" if known else "generic",
        assumed=tuple(keys.assumed),
        config=language_config,
        root_config=config,
    )


class _Keys:
    """A mapping's keys, read under their several names, with errors that name the field."""

    def __init__(self, raw, fallback=None):
        self.raw = raw
        model_type = raw.get("model_type") or (fallback or {}).get("model_type") or ""
        if not isinstance(model_type, str):
            raise ConfigError("model_type", model_type, "a word, such as 'llama'")
        self.defaults = MODEL_TYPE_DEFAULTS.get(model_type, {})
        self.assumed = []

    def get(self, *names, default=None):
        """The first of `names` that is set, else the model type's published default, else `default`."""
        for name in names:
            value = self.raw.get(name)
            if value is not None:
                if isinstance(value, (list, tuple, str)) and len(value) > LONGEST_LIST:
                    raise ConfigError(name, f"{len(value)} entries", f"at most {LONGEST_LIST}")
                return value
        for name in names:
            if name not in self.raw and self.defaults.get(name) is not None:
                note = f"{name}={self.defaults[name]}"
                if note not in self.assumed:
                    self.assumed.append(note)
                return self.defaults[name]
        return default

    def listed(self, *names):
        """A list, empty where there is none."""
        value = self.get(*names, default=())
        if not isinstance(value, (list, tuple)):
            raise ConfigError(self.name_of(*names), value, "a list")
        return value

    def name_of(self, *names):
        return next((n for n in names if self.raw.get(n) is not None), names[0])

    def optional_count(self, *names, minimum=0):
        value = self.get(*names)
        if value is None:
            return None
        return _count(self.name_of(*names), value, minimum)

    def count(self, *names, minimum=1):
        value = self.optional_count(*names, minimum=minimum)
        if value is None:
            others = f" (or {', '.join(names[1:])})" if names[1:] else ""
            raise ConfigError(names[0], None, f"an integer of at least {minimum}{others}; the key is missing")
        return value


def _count(name, value, minimum=0):
    """`value` as an integer within reason, or a ConfigError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not float(value).is_integer():
        raise ConfigError(name, value, f"an integer of at least {minimum}")
    if not minimum <= value < ABSURD:
        raise ConfigError(name, value, f"an integer from {minimum} to {ABSURD - 1}")
    return int(value)


def _number(name, value, most):
    """`value` as a finite number above 0, or a ConfigError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= most:
        raise ConfigError(name, value, f"a number above 0, at most {most}")
    return value


def _rounded(name, value):
    """The whole number below a product of the file's figures."""
    if not math.isfinite(value):
        raise ConfigError(name, value, "a finite number")
    return _count(name, int(value))


def _architecture(config):
    names = config.get("architectures")
    if isinstance(names, str):
        names = [names]
    if not names or not isinstance(names, (list, tuple)) or not isinstance(names[0], str):
        raise ConfigError("architectures", names, "a list with the model's class, such as ['LlamaForCausalLM']")
    return next((n for n in names if n in ARCHITECTURES), names[0])


def _text_config(config):
    """The language model's own part of a nested configuration."""
    thinker = config.get("thinker_config")
    if isinstance(thinker, Mapping):
        return _text_config(thinker)
    for key in TEXT_CONFIG_KEYS:
        if isinstance(config.get(key), Mapping):
            return config[key]
    return config


def _kind(architecture):
    if any(part in architecture for part in ("CausalLM", "ConditionalGeneration", "LMHead", "ChatModel")):
        return "generate"
    if architecture.endswith("ForSequenceClassification"):
        return "rerank"
    if architecture.endswith("ForTokenClassification"):
        return "classify"
    if architecture.endswith("Model"):
        return "embedding"
    return "generate"


def _num_labels(config):
    names = config.get("id2label")
    labels = config.get("num_labels") or len(names if isinstance(names, (Mapping, list)) else ()) or 2
    return _count("num_labels", labels, 1)


def _dtype(keys, config):
    for source in (keys.raw, config):
        value = source.get("dtype") or source.get("torch_dtype")
        if value:
            return str(value).replace("torch.", "")
    return None


def _tied(keys, config, traits):
    for source in (keys.raw, config):
        if source.get("tie_word_embeddings") is not None:
            return bool(source["tie_word_embeddings"])
    return bool(keys.get("tie_word_embeddings", default=traits["tied"]))


# --- layers -----------------------------------------------------------------------------------------------------------

_KIND_NAMES = {
    "full_attention": "full",
    "attention": "full",
    "global_attention": "full",
    "deepseek_sparse_attention": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "chunked",
    "linear_attention": "linear",
    "mamba": "mamba",
    "mamba2": "mamba",
    "conv": "conv",
    "moe": "moe",
    "mlp": "mlp",
    "hybrid": "hybrid",
}
_PATTERN_LETTERS = {"M": "mamba", "*": "full", "-": "mlp", "E": "moe"}


def _layers(keys, traits):
    blocks = keys.get("block_configs")
    if isinstance(blocks, (list, tuple)) and blocks and "attention" in _plain(blocks[0]):
        return _nas_layers(keys, [_plain(b) for b in blocks])
    pattern = keys.get("hybrid_override_pattern")
    if pattern is not None and not isinstance(pattern, str):
        raise ConfigError("hybrid_override_pattern", pattern, f"letters of {' '.join(_PATTERN_LETTERS)}")
    count = keys.optional_count("num_hidden_layers", "n_layer", "n_layers", "num_layers", minimum=1)
    if count is None and pattern:
        count = len(pattern)
    if count is None and isinstance(keys.get("layers_block_type"), (list, tuple)):
        count = len(keys.get("layers_block_type"))
    if count is None:
        count = keys.count("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    if count > MOST_LAYERS:
        raise ConfigError(
            keys.name_of("num_hidden_layers", "n_layer", "n_layers", "num_layers"), count, f"at most {MOST_LAYERS}"
        )
    kinds = _layer_kinds(keys, count, traits)
    cache = {}  # equal layers are the same object: cheap to build, to compare and to count
    layers = []
    for i in range(count):
        layer = _layer(keys, kinds[i], i, traits)
        layers.append(cache.setdefault(layer, layer))
    return tuple(layers)


def _plain(block):
    return block if isinstance(block, Mapping) else {}


def _layer_kinds(keys, count, traits):
    """One word per layer: full, sliding, chunked, encoder, linear, mamba, conv, hybrid, moe or mlp."""
    if traits["encoder"]:
        return ["encoder"] * count
    pattern = keys.get("hybrid_override_pattern")
    if pattern is not None:
        if len(pattern) != count or set(pattern) - set(_PATTERN_LETTERS):
            raise ConfigError("hybrid_override_pattern", pattern, f"{count} letters of {' '.join(_PATTERN_LETTERS)}")
        return [_PATTERN_LETTERS[c] for c in pattern]
    types = keys.get("layer_types", "layers_block_type")
    if types is not None:
        if not isinstance(types, (list, tuple)) or len(types) < count:
            found = len(types) if isinstance(types, (list, tuple)) else types
            raise ConfigError("layer_types", found, f"{count} entries")
        unknown = [t for t in types if not isinstance(t, str) or t not in _KIND_NAMES]
        if unknown:
            raise ConfigError("layer_types", unknown[0], "one of " + ", ".join(_KIND_NAMES))
        return [_KIND_NAMES[t] for t in types[:count]]
    linear = keys.get("linear_attn_config")
    if isinstance(linear, Mapping) and linear.get("full_attn_layers"):
        return ["full" if i + 1 in linear["full_attn_layers"] else "linear" for i in range(count)]
    interval = keys.optional_count("full_attention_interval")
    if interval:
        return ["full" if (i + 1) % interval == 0 else "linear" for i in range(count)]
    period = keys.optional_count("attn_layer_period")
    if period:
        offset = keys.optional_count("attn_layer_offset") or 0
        return ["full" if i % period == offset else "mamba" for i in range(count)]
    attention_layers = keys.get("full_attn_idxs")
    if attention_layers:
        return ["full" if i in attention_layers else "conv" for i in range(count)]
    if traits["layers"]:
        return [traits["layers"]] * count
    return _window_kinds(keys, count)


def _window_kinds(keys, count):
    """full or sliding (or chunked) per layer, from the many ways to say where the windows are."""
    chunk_free = keys.get("no_rope_layers")
    if keys.get("attention_chunk_size") and keys.get("interleave_moe_layer_step"):  # Llama 4
        if not chunk_free:
            return ["full" if (i + 1) % 4 == 0 else "chunked" for i in range(count)]
        return ["chunked" if chunk_free[i] else "full" for i in range(count)]
    hybrid = keys.get("hybrid_layer_pattern")
    if hybrid:
        return ["sliding" if hybrid[i] else "full" for i in range(count)]
    window = keys.get("sliding_window")
    if not window or keys.get("use_sliding_window") is False:
        return ["full"] * count
    every = keys.get("sliding_window_pattern", "_sliding_window_pattern")
    if isinstance(every, str):
        return ["sliding" if every[i % len(every)] == "L" else "full" for i in range(count)]
    if isinstance(every, int) and every > 0:
        return ["full" if (i + 1) % every == 0 else "sliding" for i in range(count)]
    if keys.get("use_sliding_window"):
        first = keys.optional_count("max_window_layers") or 0
        return ["sliding" if i >= first else "full" for i in range(count)]
    return ["sliding"] * count


def _layer(keys, kind, index, traits):
    attention = state = None
    if kind in ("full", "sliding", "chunked", "encoder", "hybrid"):
        attention = _attention(keys, "full" if kind == "hybrid" else kind)
    if kind in ("linear", "mamba", "conv", "hybrid"):
        state = _state(keys, kind)
    dense = moe = None
    if not (traits["one_part_layers"] and kind in ("mamba", "full")):
        moe, dense = _feed_forward(keys, kind, index)
        if moe and traits["dense_beside_experts"]:
            dense = _dense_width(keys, index)
    return LayerSpec(attention=attention, state=state, mlp_intermediate_size=dense, moe=moe)


def _attention(keys, kind):
    heads = keys.count("num_attention_heads", "n_head", "n_heads", "num_heads")
    if keys.get("kv_lora_rank"):
        return _mla(keys, heads)
    sliding = kind == "sliding"
    if sliding and keys.get("swa_num_attention_heads"):
        heads = keys.count("swa_num_attention_heads")
    kv_heads = _kv_heads(keys, heads, kind)
    head_dim = None
    if sliding:
        head_dim = keys.optional_count("swa_head_dim")
    elif keys.get("global_head_dim"):
        head_dim = keys.count("global_head_dim")
    head_dim = head_dim or keys.optional_count("head_dim", "kv_channels", "attention_head_dim", minimum=1)
    if head_dim is None:
        hidden = keys.count("hidden_size", "n_embd", "d_model", "dim")
        if hidden % heads:
            raise ConfigError("head_dim", None, f"a value: hidden_size {hidden} is no multiple of {heads} heads")
        head_dim = hidden // heads
    window = None
    if sliding:
        window = keys.count("sliding_window", "sliding_window_size")
    elif kind == "chunked":
        window = keys.count("attention_chunk_size")
    v_head_dim = (keys.optional_count("swa_v_head_dim") if sliding else None) or keys.optional_count("v_head_dim")
    return AttentionSpec(
        kind=kind, heads=heads, kv_heads=kv_heads, head_dim=head_dim, v_head_dim=v_head_dim or head_dim, window=window
    )


def _kv_heads(keys, heads, kind):
    """KV heads; a model without grouped queries has as many as heads."""
    if keys.get("multi_query") is True and not keys.get("new_decoder_architecture"):
        return 1
    nested = keys.get("attn_config")
    if isinstance(nested, Mapping) and nested.get("kv_n_heads"):
        return _count("attn_config.kv_n_heads", nested["kv_n_heads"], 1)
    if kind == "sliding" and keys.get("swa_num_key_value_heads"):
        return keys.count("swa_num_key_value_heads")
    if kind == "full" and keys.get("num_global_key_value_heads"):
        return keys.count("num_global_key_value_heads")
    names = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups")
    kv_heads = keys.optional_count(*names, minimum=1)
    return heads if kv_heads is None else kv_heads


def _mla(keys, heads):
    mla = MlaSpec(
        q_lora_rank=keys.optional_count("q_lora_rank") or None,
        kv_lora_rank=keys.count("kv_lora_rank"),
        qk_nope_head_dim=keys.count("qk_nope_head_dim"),
        qk_rope_head_dim=keys.count("qk_rope_head_dim"),
        v_head_dim=keys.count("v_head_dim"),
        index_heads=keys.optional_count("index_n_heads"),
        index_head_dim=keys.optional_count("index_head_dim"),
        index_topk=keys.optional_count("index_topk"),
    )
    if mla.index_heads and not (mla.index_head_dim and mla.q_lora_rank):
        raise ConfigError("index_head_dim", mla.index_head_dim, "an integer of at least 1, and q_lora_rank too")
    # One latent is cached for all heads, so to the cache this is attention with one KV head.
    return AttentionSpec(
        kind="mla",
        heads=heads,
        kv_heads=1,
        head_dim=mla.qk_nope_head_dim + mla.qk_rope_head_dim,
        v_head_dim=mla.v_head_dim,
        mla=mla,
    )


def _state(keys, kind):
    if kind == "linear":
        return _linear_state(keys)
    if kind == "conv":
        return StateSpec("short_conv", keys.count("conv_L_cache"), keys.count("conv_dim", "hidden_size"), 0, 0, 0)
    heads = keys.optional_count("mamba_num_heads", "mamba_n_heads", "n_mamba_heads")
    if heads is None and keys.get("n_groups"):
        heads = keys.optional_count("num_heads")
    state_size = keys.count("ssm_state_size", "mamba_d_state", "state_size")
    kernel = keys.count("conv_kernel", "mamba_d_conv")
    dtype = keys.get("mamba_ssm_cache_dtype", "mamba_ssm_dtype")
    if heads is None:
        width = keys.optional_count("intermediate_size") if keys.get("state_size") else None
        if width is None:
            width = keys.count("hidden_size") * keys.count("mamba_expand", "expand")
        rank = keys.count("mamba_dt_rank", "time_step_rank")
        return StateSpec("mamba1", kernel, width, width, 1, state_size, dt_rank=rank, ssm_dtype=dtype)
    head_dim = keys.count("mamba_head_dim", "mamba_d_head", "mamba_headdim", "head_dim")
    groups = keys.optional_count("mamba_n_groups", "mamba_ngroups", "n_groups") or 1
    width = heads * head_dim + 2 * groups * state_size
    return StateSpec("mamba2", kernel, width, heads, head_dim, state_size, groups=groups, ssm_dtype=dtype)


def _linear_state(keys):
    nested = keys.get("linear_attn_config")
    if isinstance(nested, Mapping):  # Kimi delta attention: queries, keys and values each have their convolution
        heads = _count("linear_attn_config.num_heads", nested.get("num_heads"), 1)
        dim = _count("linear_attn_config.head_dim", nested.get("head_dim"), 1)
        kernel = _count("linear_attn_config.short_conv_kernel_size", nested.get("short_conv_kernel_size"), 1)
        return StateSpec("kda", kernel, 3 * heads * dim, heads, dim, dim, groups=heads, key_head_dim=dim)
    key_heads, value_heads = keys.count("linear_num_key_heads"), keys.count("linear_num_value_heads")
    key_dim, value_dim = keys.count("linear_key_head_dim"), keys.count("linear_value_head_dim")
    return StateSpec(
        kind="gated_delta_net",
        conv_kernel=keys.count("linear_conv_kernel_dim"),
        conv_width=2 * key_heads * key_dim + value_heads * value_dim,
        heads=value_heads,
        head_dim=value_dim,
        state_size=key_dim,
        groups=key_heads,
        key_head_dim=key_dim,
        ssm_dtype=keys.get("mamba_ssm_dtype"),
    )


# --- feed-forward -----------------------------------------------------------------------------------------------------

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
DENSE_WIDTH = ("intermediate_size_mlp", "intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim")


def _feed_forward(keys, kind, index):
    """(MoeSpec, dense width) of a layer; each can be None."""
    nested = keys.get("ffn_config")
    if isinstance(nested, Mapping) and nested.get("moe_num_experts"):
        keys = _Keys(dict(nested, hidden_size=keys.count("d_model", "hidden_size")))
    experts = _per_layer(keys, index, *EXPERT_COUNT)
    if kind == "moe" or (kind != "mlp" and experts and _is_moe_layer(keys, index)):
        return _experts(keys, index, experts), None
    return None, _dense_width(keys, index)


def _per_layer(keys, index, *names):
    """A count that may be given as a list with one entry per layer."""
    value = keys.get(*names)
    if isinstance(value, (list, tuple)):
        value = value[index] if index < len(value) else None
    return None if value is None else _count(keys.name_of(*names), value)


def _experts(keys, index, experts):
    width = _per_layer(keys, index, *EXPERT_WIDTH)
    if width is None:
        raise ConfigError("moe_intermediate_size", None, "the width of one expert; the key is missing")
    per_token = _per_layer(keys, index, *EXPERTS_PER_TOKEN)
    if not experts:
        raise ConfigError(keys.name_of(*EXPERT_COUNT), experts, "an integer of at least 1")
    if not per_token:
        raise ConfigError("num_experts_per_tok", per_token, "an integer of at least 1; the key is missing")
    if not 1 <= per_token <= experts:
        raise ConfigError(keys.name_of(*EXPERTS_PER_TOKEN), per_token, f"at most the {experts} experts")
    shared = keys.optional_count(*SHARED_WIDTH)
    copies = _per_layer(keys, index, *SHARED_COUNT)
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


def _dense_width(keys, index):
    if keys.get("block_ff_dim"):  # LFM2
        width = keys.count("block_ff_dim")
        if keys.get("block_auto_adjust_ff_dim"):
            multiplier = _number("block_ffn_dim_multiplier", keys.get("block_ffn_dim_multiplier") or 1, 1000)
            width = int(2 * width / 3 * multiplier)
            multiple = keys.count("block_multiple_of")
            width = multiple * -(-width // multiple)
        return width
    width = _per_layer(keys, index, *DENSE_WIDTH)
    if width is None and keys.get("multiplier_of_hidden", "mlp_ratio") is None and keys.get("model_type") in FOURFOLD:
        return 4 * keys.count("hidden_size", "n_embd")
    if width is None and keys.get("state_size"):
        return None  # Mamba: layers without a feed-forward
    if width is None:
        raise ConfigError("intermediate_size", None, "the width of the feed-forward; the key is missing")
    if keys.get("model_type") in ("mamba", "mamba2", "falcon_mamba"):
        return None
    return width


FOURFOLD = ("falcon", "gpt2", "bloom", "gptj", "RefinedWeb", "RefinedWebModel")  # feed-forward of 4 × hidden


def _is_moe_layer(keys, index):
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


def _nas_layers(keys, blocks):
    """Layers of an architecture-search model: each says its KV heads and feed-forward, or that it has none."""
    heads, hidden = keys.count("num_attention_heads"), keys.count("hidden_size")
    if len(blocks) > MOST_LAYERS:
        raise ConfigError("block_configs", f"{len(blocks)} entries", f"at most {MOST_LAYERS}")
    layers = []
    for i, block in enumerate(blocks):
        attention, ffn = _plain(block.get("attention")), _plain(block.get("ffn"))
        spec = None
        if not attention.get("no_op"):
            where = f"block_configs[{i}].attention"
            group = attention.get("n_heads_in_group")
            kv_heads = attention.get("num_key_value_heads")
            if not kv_heads and group:
                kv_heads = heads // _count(where + ".n_heads_in_group", group, 1)
            if kv_heads is not None:
                kv_heads = _count(where + ".num_key_value_heads", kv_heads, 1)
            if kv_heads is None:
                raise ConfigError(f"block_configs[{i}].attention", dict(attention), "n_heads_in_group, or no_op: true")
            dim = keys.optional_count("head_dim", minimum=1) or hidden // heads
            spec = AttentionSpec(kind="full", heads=heads, kv_heads=kv_heads, head_dim=dim, v_head_dim=dim)
        width = None
        if not ffn.get("no_op"):
            width = ffn.get("intermediate_size")
            if width is None:
                if not ffn.get("ffn_mult"):
                    raise ConfigError(
                        f"block_configs[{i}].ffn", dict(ffn), "ffn_mult or intermediate_size, or no_op: true"
                    )
                # As the model's code rounds it: two thirds of 4 × hidden × multiplier, up to a multiple of 256.
                multiplier = _number(f"block_configs[{i}].ffn.ffn_mult", ffn["ffn_mult"], 1000)
                width = -(-int(2 * multiplier * hidden / 3) // 256) * 256
            width = _count(f"block_configs[{i}].ffn.intermediate_size", width, 1)
        layers.append(LayerSpec(attention=spec, state=None, mlp_intermediate_size=width, moe=None))
    return tuple(layers)


# --- lengths and rotary tables ----------------------------------------------------------------------------------------

LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
UNSCALED_ROPES = ("su", "longrope", "llama3")  # their factor is already in max_position_embeddings


def _rope_parameters(keys):
    """The rope settings, one mapping per layer type ("" where all layers share one)."""
    raw = keys.get("rope_parameters") or keys.get("rope_scaling") or {}
    if not isinstance(raw, Mapping) or len(raw) > 64:
        raise ConfigError("rope_scaling", raw, "a mapping with rope_type")
    if raw and all(isinstance(value, Mapping) for value in raw.values()):
        return {name: dict(value) for name, value in raw.items()}
    return {"": dict(raw)}


def _rope_type(rope):
    kind = str(rope.get("rope_type", rope.get("type")) or "default")
    return {"su": "longrope", "mrope": "default"}.get(kind, kind)


def _lengths(keys):
    """(max_position_embeddings, the context length vLLM derives from it)."""
    found = [_count(name, keys.raw[name], 1) for name in LENGTH_KEYS if keys.raw.get(name) is not None]
    if not found:
        found = [keys.optional_count(*LENGTH_KEYS, minimum=1) or UNKNOWN_LENGTH]
    longest = keys.optional_count("model_max_length") or min(found)
    derived = longest
    ropes = _rope_parameters(keys)
    if "gemma3" not in str(keys.raw.get("model_type")):  # Gemma 3 states its scaled length
        factor = 1
        for rope in ropes.values():
            if _rope_type(rope) not in UNSCALED_ROPES:
                factor = _rope_factor(rope) or factor
                if _rope_type(rope) == "yarn":
                    derived = _original_length(rope) or derived
        derived = _rounded("rope_scaling.factor", derived * factor)
    if any(_rope_type(rope) == "longrope" for rope in ropes.values()):
        derived = keys.optional_count("original_max_position_embeddings") or derived
    return longest, derived


def _rope_factor(rope):
    return _number("rope_scaling.factor", rope["factor"], 1 << 20) if rope.get("factor") else None


def _original_length(rope):
    name = "original_max_position_embeddings"
    return _count("rope_scaling." + name, rope[name]) if rope.get(name) else None


UNKNOWN_LENGTH = 2048  # what vLLM assumes, with a warning, for a model that does not say


def _ropes(keys, layers):
    """The distinct cos/sin tables that vLLM keeps."""
    tables = []
    named = _rope_parameters(keys)
    positions = keys.optional_count("model_max_length") if "cohere" in str(keys.raw.get("model_type")) else None
    positions = positions or keys.optional_count("max_position_embeddings", "seq_length", "n_positions", "max_seq_len")
    positions = positions or UNKNOWN_LENGTH
    for layer in layers:
        a = layer.attention
        if a is None:
            continue
        sliding = a.kind == "sliding"
        rope = named.get("sliding_attention" if sliding else "full_attention", named.get("", {}))
        theta = rope.get("rope_theta") or keys.get("rope_theta") or 10000.0
        local = keys.get("rope_local_base_freq", "swa_rope_theta")
        if sliding and local and "" in named:
            rope, theta = {}, local
        table = RopeSpec(
            _rotary_dim(keys, a, rope),
            _rope_rows(rope, positions, keys.optional_count("original_max_position_embeddings")),
            _rope_type(rope),
            float(_number("rope_theta", theta, 1e15)),
            bool(rope.get("mrope_section")),
        )
        if table not in tables:
            tables.append(table)
    return tuple(tables)


def _rotary_dim(keys, a, rope):
    if a.mla:
        return a.mla.qk_rope_head_dim
    if keys.get("rotary_dim"):
        return keys.count("rotary_dim")
    if _rope_type(rope) == "proportional":
        return a.head_dim  # the table is whole, part of it does not rotate
    factor = rope.get("partial_rotary_factor") or keys.get("partial_rotary_factor", "rotary_pct", "rope_pct") or 1
    return int(a.head_dim * _number("partial_rotary_factor", factor, 1))


def _rope_rows(rope, positions, original):
    kind, factor = _rope_type(rope), _rope_factor(rope) or 1
    if kind in ("yarn", "deepseek_yarn"):
        return int((_original_length(rope) or positions) * factor)
    if kind == "linear":
        return int(positions * factor)
    if kind == "longrope":  # a short and a long table
        return positions + (_original_length(rope) or original or 0)
    return positions


# --- quantization -----------------------------------------------------------------------------------------------------

SUPPORTED_QUANTIZATION = "fp8, fbgemm_fp8, awq, gptq, compressed-tensors, modelopt, mxfp4 or bitsandbytes"


def _quantization(config, text, hf_quant_config):
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
        block = tuple(_count("quantization_config.weight_block_size", n, 1) for n in block)
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
    bits = _count("quantization_config.bits", raw.get("bits", raw.get("w_bit")), 2)
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


def _compressed_tensors(method, raw):
    groups = raw.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise ConfigError("quantization_config.config_groups", groups, "at least one group")
    group = _plain(next(iter(groups.values())))
    weights = group.get("weights")
    if not isinstance(weights, Mapping):
        raise ConfigError("quantization_config.config_groups.weights", weights, "the weights' number format")
    bits = _count("quantization_config.config_groups.weights.num_bits", weights.get("num_bits"), 2)
    layout = str(group.get("format") or raw.get("format") or "")
    activations = group.get("input_activations")
    floating = weights.get("type") == "float"
    if floating and bits == 4:
        number = "nvfp4" if "nvfp4" in layout or weights.get("group_size") == 16 else "mxfp4"
    else:
        number = f"fp{bits}" if floating else f"int{bits}"
    block = weights.get("block_structure")
    if isinstance(block, (list, tuple)) and len(block) == 2:
        block = tuple(_count("quantization_config.config_groups.weights.block_structure", n, 1) for n in block)
    else:
        block = None
    strategy = str(weights.get("strategy") or "tensor")
    group_size = weights.get("group_size")
    if group_size is not None and group_size != -1:
        group_size = _count("quantization_config.config_groups.weights.group_size", group_size, 1)
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
        activations=None if not activations else "dynamic" if _plain(activations).get("dynamic") else "static",
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


# What the tensors of towers are counted from, beside what VisionSpec holds.
VISION_COUNTS = (
    "in_channels",
    "in_chans",
    "num_channels",
    "temporal_patch_size",
    "num_position_embeddings",
    "position_embedding_size",
    "head_dim",
    "projector_input_dim",
    "projector_output_dim",
    "vision_output_dim",
)

# Keys that a family's towers cannot be counted without.
VISION_NEEDS = {
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"), ("num_position_embeddings",)),
    **dict.fromkeys(("siglip_vision_model", "clip_vision_model", "intern_vit_6b"), ("image_size",)),
    "llama4_vision_model": ("image_size", "projector_input_dim", "projector_output_dim"),
}


def _vision(config):
    """The vision tower, or None."""
    for nested in ("thinker_config",):
        if isinstance(config.get(nested), Mapping):
            config = config[nested]
    raw = config.get("vision_config")
    if not isinstance(raw, Mapping):
        return None
    keys = _Keys(raw)
    for name in VISION_COUNTS:
        keys.optional_count(name)
    if len(keys.listed("deepstack_visual_indexes")) > MOST_LAYERS:
        raise ConfigError("vision_config.deepstack_visual_indexes", "too many", f"at most {MOST_LAYERS}")
    for name, place in (("downsample_ratio", config), ("pixel_shuffle_ratio", raw)):
        if place.get(name):
            _number(name, place[name], 1)
    _count("spatial_merge_size", config.get("spatial_merge_size") or 0)
    family = str(raw.get("model_type") or config.get("model_type") or "")
    # Qwen2-VL calls the tower's width embed_dim and means the language model's by hidden_size.
    hidden = keys.optional_count("embed_dim", "hidden_size", "width", minimum=1)
    layers = keys.optional_count("depth", "num_hidden_layers", "layers", minimum=1)
    if not hidden or not layers:
        return None
    width = keys.optional_count("intermediate_size")
    if width is None:
        width = int(hidden * _number("vision_config.mlp_ratio", keys.get("mlp_ratio") or 4, 1000))
    image_size = keys.get("image_size") or config.get("force_image_size")
    if isinstance(image_size, (list, tuple)):
        image_size = image_size[0] if image_size else None
    if image_size is not None:
        image_size = _count("vision_config.image_size", image_size)
    for name in VISION_NEEDS.get(family, ()):
        if not (image_size if name == "image_size" else keys.get(name)):
            raise ConfigError("vision_config." + name, None, "an integer of at least 1; the key is missing")
    for name in ("vision_feature_layer", "select_layer"):
        if isinstance(config.get(name), int) and config[name] < -layers:
            raise ConfigError(name, config[name], f"one of the tower's {layers} layers")
    out = keys.optional_count("out_hidden_size")
    if out is None and family == "qwen2_vl":
        out = keys.optional_count("hidden_size")
    return VisionSpec(
        layers=layers,
        hidden_size=hidden,
        intermediate_size=width,
        heads=keys.count("num_heads", "num_attention_heads"),
        patch_size=keys.count("patch_size", "spatial_patch_size"),
        image_size=image_size,
        spatial_merge_size=keys.optional_count("spatial_merge_size") or 1,
        out_hidden_size=out or hidden,
        family=family,
        raw={**keys.defaults, **raw},
    )
