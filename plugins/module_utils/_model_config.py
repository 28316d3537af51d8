# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every dialect of config.json → one ModelSpec (see _model_spec.py for what its fields mean)."""

from __future__ import annotations

from typing import Mapping, Optional

from ansible_collections.inferops.gpu_host.plugins.module_utils._architectures import (
    KNOWN_ARCHITECTURES,
    MODEL_TYPE_DEFAULTS,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_spec import (
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
TEXT_CONFIG_KEYS = ("text_config", "llm_config", "language_config", "text_model_config", "language_model_config")


def parse_model_config(config: Mapping, hf_quant_config: Optional[Mapping] = None, strict: bool = False) -> ModelSpec:
    """The ModelSpec of a parsed config.json.

    hf_quant_config: the content of hf_quant_config.json, where a checkpoint has one.
    strict: refuse an architecture that is not known here instead of estimating it as a Llama-like decoder.
    """
    if not isinstance(config, Mapping):
        raise ConfigError("the document", type(config).__name__, "a JSON object")
    architecture = _architecture(config)
    known = KNOWN_ARCHITECTURES.get(architecture)
    if known is None and strict:
        raise ConfigError(
            "architectures", architecture, "an architecture this planner knows, or strict: false for a generic estimate"
        )
    keys = _Keys(_text_config(config), fallback=config)
    layers = _layers(keys, architecture)
    if not layers:
        raise ConfigError("num_hidden_layers", 0, "at least 1")
    max_positions, max_model_len = _lengths(keys)
    return ModelSpec(
        architecture=architecture,
        model_type=str(config.get("model_type") or keys.raw.get("model_type") or ""),
        kind=_kind(architecture),
        hidden_size=keys.count("hidden_size", "n_embd", "d_model", "dim"),
        vocab_size=keys.count("vocab_size", "n_vocab", "padded_vocab_size"),
        layers=layers,
        max_position_embeddings=max_positions,
        max_model_len=max_model_len,
        dtype=_dtype(keys, config),
        tie_word_embeddings=_tied(keys, config),
        ropes=_ropes(keys, layers, max_positions),
        quantization=_quantization(config, keys.raw, hf_quant_config),
        vision=_vision(config),
        mtp_layers=keys.optional_count("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules") or 0,
        supports_pipeline=(known or {}).get("pipeline", True),
        basis="config" if known is not None else "generic",
        assumed=tuple(keys.assumed),
        config=keys.raw,
        root_config=config,
    )


class _Keys:
    """A mapping's keys, read under their several names, with errors that name the field."""

    def __init__(self, raw, fallback=None):
        self.raw = raw
        self.defaults = MODEL_TYPE_DEFAULTS.get(raw.get("model_type") or (fallback or {}).get("model_type"), {})
        self.assumed = []

    def get(self, *names, default=None):
        """The first of `names` that is set, else the model type's published default, else `default`."""
        for name in names:
            if self.raw.get(name) is not None:
                return self.raw[name]
        for name in names:
            if name not in self.raw and self.defaults.get(name) is not None:
                note = f"{name}={self.defaults[name]}"
                if note not in self.assumed:
                    self.assumed.append(note)
                return self.defaults[name]
        return default

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
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise ConfigError(name, value, f"an integer of at least {minimum}")
    if not minimum <= value < ABSURD:
        raise ConfigError(name, value, f"an integer from {minimum} to {ABSURD - 1}")
    return int(value)


def _architecture(config):
    names = config.get("architectures")
    if isinstance(names, str):
        names = [names]
    if not names or not isinstance(names, (list, tuple)) or not isinstance(names[0], str):
        raise ConfigError("architectures", names, "a list with the model's class, such as ['LlamaForCausalLM']")
    return next((n for n in names if n in KNOWN_ARCHITECTURES), names[0])


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
    known = KNOWN_ARCHITECTURES.get(architecture) or {}
    if "kind" in known:
        return known["kind"]
    if architecture.endswith("ForSequenceClassification"):
        return "rerank"
    if architecture.endswith("ForTokenClassification"):
        return "classify"
    if architecture.endswith("Model"):
        return "embedding"
    return "generate"


def _dtype(keys, config):
    for source in (keys.raw, config):
        value = source.get("dtype") or source.get("torch_dtype")
        if value:
            return str(value).replace("torch.", "")
    return None


def _tied(keys, config):
    for source in (keys.raw, config):
        if source.get("tie_word_embeddings") is not None:
            return bool(source["tie_word_embeddings"])
    return bool(keys.get("tie_word_embeddings", default=False))


# --- layers -----------------------------------------------------------------------------------------------------------


def _layers(keys, architecture):
    count = keys.count("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    kinds = _layer_kinds(keys, count, architecture)
    return tuple(_layer(keys, kinds[i], i, count, architecture) for i in range(count))


_KIND_NAMES = {
    "full_attention": "full",
    "attention": "full",
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


def _layer_kinds(keys, count, architecture):
    """One word per layer: full, sliding, chunked, linear, mamba, conv, moe, mlp, hybrid or none."""
    if (KNOWN_ARCHITECTURES.get(architecture) or {}).get("encoder"):
        return _encoder_kinds(keys, count)
    types = keys.get("layer_types", "layers_block_type")
    if types is not None:
        if len(types) < count:
            raise ConfigError("layer_types", f"{len(types)} entries", f"one per layer ({count})")
        unknown = [t for t in types if t not in _KIND_NAMES]
        if unknown:
            raise ConfigError("layer_types", unknown[0], "one of " + ", ".join(_KIND_NAMES))
        return [_KIND_NAMES[t] for t in types[:count]]
    pattern = keys.get("hybrid_override_pattern")
    if pattern is not None:
        letters = {"M": "mamba", "*": "full", "-": "mlp", "E": "moe"}
        if len(pattern) != count or set(pattern) - set(letters):
            raise ConfigError("hybrid_override_pattern", pattern, f"{count} letters of M * - E")
        return [letters[c] for c in pattern]
    interval = keys.optional_count("full_attention_interval")
    if interval:
        return ["full" if (i + 1) % interval == 0 else "linear" for i in range(count)]
    period = keys.optional_count("attn_layer_period")
    if period:
        offset = keys.optional_count("attn_layer_offset") or 0
        return ["full" if i % period == offset else "mamba" for i in range(count)]
    window = keys.get("sliding_window")
    if not window or keys.get("use_sliding_window") is False:
        return ["full"] * count
    every = keys.get("sliding_window_pattern")
    if isinstance(every, str):
        return ["sliding" if every[i % len(every)] == "L" else "full" for i in range(count)]
    if isinstance(every, int) and every > 0:
        return ["full" if (i + 1) % every == 0 else "sliding" for i in range(count)]
    if keys.get("use_sliding_window"):
        first = keys.optional_count("max_window_layers") or 0
        return ["sliding" if i >= first else "full" for i in range(count)]
    return ["sliding"] * count


def _encoder_kinds(keys, count):
    return ["encoder"] * count


def _layer(keys, kind, index, count, architecture):
    attention = state = None
    if kind in ("full", "sliding", "chunked", "encoder", "hybrid"):
        attention = _attention(keys, "full" if kind == "hybrid" else kind)
    if kind in ("linear", "mamba", "conv", "hybrid"):
        state = _state(keys, kind)
    moe, dense = _feed_forward(keys, kind, index)
    return LayerSpec(attention=attention, state=state, mlp_intermediate_size=dense, moe=moe)


def _attention(keys, kind):
    heads = keys.count("num_attention_heads", "n_head", "n_heads", "num_heads")
    if keys.get("kv_lora_rank"):
        return _mla(keys, heads)
    kv_heads = keys.optional_count(
        "num_key_value_heads", "n_head_kv", "num_kv_heads", "multi_query_group_num", minimum=1
    )
    if kv_heads is None:
        kv_heads = heads
    head_dim = keys.optional_count("head_dim", "kv_channels", "attention_head_dim", minimum=1)
    if head_dim is None:
        hidden = keys.count("hidden_size", "n_embd", "d_model", "dim")
        if hidden % heads:
            raise ConfigError("head_dim", None, f"a value: hidden_size {hidden} is no multiple of {heads} heads")
        head_dim = hidden // heads
    window = None
    if kind == "sliding":
        window = keys.count("sliding_window", "sliding_window_size")
    elif kind == "chunked":
        window = keys.count("attention_chunk_size")
    return AttentionSpec(
        kind=kind,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        v_head_dim=keys.optional_count("v_head_dim") or head_dim,
        window=window,
    )


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
    if kind == "linear" and keys.get("linear_num_value_heads"):
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
    if kind == "conv":
        return StateSpec("short_conv", keys.count("conv_L_cache"), keys.count("conv_dim", "hidden_size"), 0, 0, 0)
    heads = keys.optional_count("mamba_num_heads", "mamba_n_heads", "num_heads", "n_mamba_heads")
    state_size = keys.count("ssm_state_size", "mamba_d_state", "state_size")
    kernel = keys.count("conv_kernel", "mamba_d_conv")
    if heads is None:
        width = keys.optional_count("intermediate_size") if keys.get("state_size") else None
        if width is None:
            width = keys.count("hidden_size") * keys.count("mamba_expand", "expand")
        return StateSpec("mamba1", kernel, width, width, 1, state_size)
    head_dim = keys.count("mamba_head_dim", "mamba_d_head", "head_dim")
    groups = keys.optional_count("n_groups", "mamba_n_groups") or 1
    return StateSpec(
        "mamba2", kernel, heads * head_dim + 2 * groups * state_size, heads, head_dim, state_size, groups=groups
    )


def _feed_forward(keys, kind, index):
    """(MoeSpec, dense width) of a layer; a layer has one, or neither."""
    if kind in ("mamba", "full") and keys.get("hybrid_override_pattern"):
        return None, None  # Nemotron-H: each layer is one mixer only
    experts = keys.optional_count("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    if kind == "moe" or (kind != "mlp" and experts and _is_moe_layer(keys, index)):
        width = keys.count("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size", "ffn_hidden_size")
        shared = keys.optional_count("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size")
        if shared is None:
            shared = (keys.optional_count("n_shared_experts", "num_shared_experts") or 0) * width
        return MoeSpec(
            experts=experts,
            experts_per_token=keys.count(
                "num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_k", "top_k_experts"
            ),
            intermediate_size=width,
            shared_intermediate_size=shared,
        ), None
    return None, keys.count("intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim")


def _is_moe_layer(keys, index):
    if index in (keys.get("mlp_only_layers") or ()):
        return False
    layers = keys.get("moe_layers")
    if isinstance(layers, (list, tuple)) and layers:
        return index in layers
    frequency = keys.get("moe_layer_freq")
    if isinstance(frequency, (list, tuple)):
        return bool(frequency[index])
    if index < (keys.optional_count("first_k_dense_replace") or 0):
        return False
    if keys.get("expert_layer_period"):
        return index % keys.get("expert_layer_period") == (keys.get("expert_layer_offset") or 0)
    step = keys.get("decoder_sparse_step", "interleave_moe_layer_step")
    return not step or (index + 1) % step == 0


# --- lengths and rotary tables ----------------------------------------------------------------------------------------

LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_seq_length",
)
UNSCALED_ROPES = ("su", "longrope", "llama3", "mrope", "default", "proportional", "dynamic_ntk_alpha")


def _rope_scaling(keys):
    scaling = keys.get("rope_scaling") or keys.get("rope_parameters") or {}
    return scaling if isinstance(scaling, Mapping) else {}


def _lengths(keys):
    """(max_position_embeddings, the context length vLLM derives from it)."""
    found = {name: keys.raw[name] for name in LENGTH_KEYS if keys.raw.get(name) is not None}
    if not found:
        found = {LENGTH_KEYS[0]: keys.count(*LENGTH_KEYS)}
    longest = min(_count(name, value, 1) for name, value in found.items())
    derived = longest
    scaling = _rope_scaling(keys)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    factor = scaling.get("factor")
    if factor and kind not in UNSCALED_ROPES:
        if kind == "yarn":
            derived = scaling.get("original_max_position_embeddings", derived)
        derived = int(derived * factor)
    return longest, derived


def _ropes(keys, layers, max_positions):
    head_dims = []
    for layer in layers:
        a = layer.attention
        if a and a.kind != "encoder":
            dim = a.mla.qk_rope_head_dim if a.mla else int(a.head_dim * float(keys.get("partial_rotary_factor") or 1))
            if dim not in head_dims:
                head_dims.append(dim)
    _max_positions, length = _lengths(keys)
    return tuple(RopeSpec(rotary_dim=dim, cache_length=length) for dim in head_dims)


# --- quantization -----------------------------------------------------------------------------------------------------


def _quantization(config, text, hf_quant_config):
    raw = config.get("quantization_config") or text.get("quantization_config") or config.get("compression_config")
    if not raw and hf_quant_config:
        raw = dict(hf_quant_config, quant_method="modelopt")
    if not raw:
        return None
    method = str(raw.get("quant_method") or ("modelopt" if "producer" in raw else "")).lower()
    ignored = tuple(raw.get("modules_to_not_convert") or raw.get("ignore") or raw.get("ignored_layers") or ())
    block = raw.get("weight_block_size")
    common = {"unquantized": ignored, "raw": raw}
    if method == "fp8":
        return Quantization(
            "fp8",
            "fp8",
            8,
            block=tuple(block) if block else None,
            activations=raw.get("activation_scheme", "dynamic"),
            strategy="block" if block else "tensor",
            **common,
        )
    if method in ("awq", "gptq"):
        bits = _count("quantization_config.bits", raw.get("bits", raw.get("w_bit")), 1)
        return Quantization(
            method,
            f"int{bits}",
            bits,
            group_size=raw.get("group_size", raw.get("q_group_size")),
            zero_point=bool(raw.get("zero_point", not raw.get("sym", True))),
            strategy="group",
            **common,
        )
    if method == "mxfp4":
        return Quantization("mxfp4", "mxfp4", 4, group_size=32, strategy="group", **common)
    return Quantization(method, method, 8, **common)


def _vision(config):
    raw = config.get("vision_config")
    if not isinstance(raw, Mapping):
        return None
    keys = _Keys(raw)
    hidden = keys.optional_count("hidden_size", "embed_dim", "width")
    layers = keys.optional_count("depth", "num_hidden_layers", "layers")
    if not hidden or not layers:
        return None
    return VisionSpec(
        layers=layers,
        hidden_size=hidden,
        intermediate_size=keys.optional_count("intermediate_size") or int(hidden * (keys.get("mlp_ratio") or 4)),
        heads=keys.optional_count("num_heads", "num_attention_heads") or 16,
        patch_size=keys.optional_count("patch_size") or 14,
        image_size=keys.optional_count("image_size") if isinstance(keys.get("image_size"), int) else None,
        spatial_merge_size=keys.optional_count("spatial_merge_size") or 1,
        out_hidden_size=keys.optional_count("out_hidden_size", "projection_dim") or hidden,
        raw=raw,
    )
