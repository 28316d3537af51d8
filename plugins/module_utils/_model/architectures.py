# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each architecture adds to the common shape of a transformer: data, no sizes.

A trait is a value, or the name of the configuration's key that decides (`"attention_bias"`), or `("key", value)` or
`("key", value, other)`: that value where the key is true.
"""

from __future__ import annotations

# The common shape is Llama's.
DEFAULTS = {
    "kind": None,  # None: told from the architecture's name
    "pipeline": True,
    "encoder": None,  # the block of an encoder-only model: bert | modernbert | nomic | new
    "qkv_bias": False,
    "o_bias": False,
    "mlp_bias": False,
    "norm_bias": False,  # LayerNorm with bias instead of RMSNorm
    "lm_head_bias": False,
    "norms": 2,  # per layer; "per_part": one for each part that the layer has
    "expert_norms": 0,  # further ones in layers with experts
    "final_norm": True,
    "embedding_norm": False,
    # Of embedding, norm and head: those that vLLM builds on every pipeline stage, needed there or not.
    "every_stage": (),
    "learned_positions": 0,  # 1 + the rows added to max_position_embeddings; 0: rotary or none
    "gated": True,  # gate and up projections, not up alone
    "qk_norm": None,  # head | heads | replicated
    "output_gate": False,  # the query projection is doubled by a gate
    "sinks": False,  # one learned sink per head
    "router_dtype": None,  # None: the model's; float32; "quantizable": a linear layer like the others
    "router_bias": False,
    "correction_bias": False,
    "router_scales": False,  # a scale per input and one per expert
    "dense_beside_experts": False,  # layers with experts have a dense feed-forward too
    "expert_bias": False,
    "conv_bias": True,  # of state layers
    "state_bias": False,
    "state_norm": True,
    "rope": True,  # False: positions are not rotated, or the engine keeps no table
    "rope_float32": False,
    "layers": None,  # the kind of all layers where no key says it: mamba | hybrid
    "one_part_layers": False,  # a layer is a mixer or a feed-forward, not both
    "native_until": None,  # version from which vLLM's Transformers backend runs it, without rotary table
    "mrope_rows_until": (99, 0),  # version from which a table for images and video has one row per position
    "encoder_data_parallel": False,  # the vision tower can be replicated instead of sharded
    "names": {},
    "tied": False,  # what a missing tie_word_embeddings means
}
NAMES = {"attention": "self_attn", "mlp": "mlp", "experts": None, "state": "mixer", "shared": "shared_experts"}

_QWEN2 = {"qkv_bias": True}
_REPLICABLE = {"encoder_data_parallel": True}
_QWEN3_VL = {"encoder_data_parallel": True, "mrope_rows_until": (0, 32)}
_QWEN3 = {"qkv_bias": "attention_bias", "qk_norm": "head"}
_LLAMA = {"qkv_bias": "attention_bias", "o_bias": "attention_bias", "mlp_bias": "mlp_bias"}
_GEMMA4 = {
    "norms": 4,
    "expert_norms": 3,
    "names": {"experts": "experts"},
    "qk_norm": "head",
    "router_scales": True,
    "dense_beside_experts": True,
    "tied": True,
    "qkv_bias": "attention_bias",
    "o_bias": "attention_bias",
}
_GEMMA3 = {"norms": 4, "qk_norm": "head", "tied": True, "qkv_bias": "attention_bias", "o_bias": "attention_bias"}
_DEEPSEEK = {"qkv_bias": "attention_bias", "o_bias": "attention_bias"}
_DEEPSEEK_V3 = dict(_DEEPSEEK, correction_bias=("topk_method", "noaux_tc"))
_GLM4_MOE = {
    "qkv_bias": "attention_bias",
    "qk_norm": ("use_qk_norm", "head"),
    "router_dtype": "float32",
    "correction_bias": True,
}
_QWEN3_NEXT = dict(_QWEN3, output_gate=True, names={"state": "linear_attn", "shared": "shared_expert"}, conv_bias=False)
_QWEN3_MOE = dict(_QWEN3, router_dtype="quantizable", names={"shared": "shared_expert"})
_MAMBA_HYBRID = {"conv_bias": "mamba_conv_bias", "state_bias": "mamba_proj_bias"}
# Run by vLLM's Transformers backend, which keeps inverse frequencies instead of a rotary table.
_TRANSFORMERS = {"rope": False}

ARCHITECTURES = {
    # Llama's shape
    "LlamaForCausalLM": _LLAMA,
    "LlamaModel": dict(_LLAMA, kind="embedding"),
    "MistralForCausalLM": {},
    "MistralModel": {"kind": "embedding"},
    "MixtralForCausalLM": {"names": {"mlp": "block_sparse_moe"}},
    "InternLM3ForCausalLM": {"qkv_bias": "qkv_bias", "o_bias": "bias", "mlp_bias": "bias"},
    "InternLM2ForCausalLM": {"qkv_bias": "bias", "o_bias": "bias"},
    "SolarForCausalLM": _LLAMA,
    "TeleChat3ForCausalLM": _LLAMA,
    "IQuestCoderForCausalLM": _LLAMA,
    "Ernie4_5ForCausalLM": {"qkv_bias": "use_bias", "o_bias": "use_bias", "mlp_bias": "use_bias", "tied": True},
    "GraniteForCausalLM": dict(_LLAMA, tied=True),
    "GraniteMoeForCausalLM": {"qkv_bias": "attention_bias", "o_bias": "attention_bias", "tied": True},
    "GraniteMoeSharedForCausalLM": {"tied": True},
    "MiniCPMForCausalLM": {"tied": True},
    "MiniCPM3ForCausalLM": {"qkv_bias": "attention_bias", "o_bias": "attention_bias", "tied": True},
    "HunYuanDenseV1ForCausalLM": {"qkv_bias": "attention_bias", "qk_norm": ("use_qk_norm", "head"), "tied": True},
    "SeedOssForCausalLM": {
        "native_until": (0, 32),
        "qkv_bias": "attention_bias",
        "o_bias": "attention_out_bias",
        "mlp_bias": "mlp_bias",
    },
    "ArceeForCausalLM": {
        "native_until": (0, 32),
        "gated": False,
        "qkv_bias": "attention_bias",
        "o_bias": "attention_bias",
    },
    "Phi3ForCausalLM": {},
    "OrionForCausalLM": {"norm_bias": True},
    "StableLmForCausalLM": {"qkv_bias": "use_qkv_bias", "norm_bias": True},
    "NemotronForCausalLM": {
        "gated": False,
        "norm_bias": True,
        "qkv_bias": "attention_bias",
        "o_bias": "attention_bias",
        "mlp_bias": "mlp_bias",
    },
    "DeciLMForCausalLM": dict(_LLAMA, norms="per_part"),
    "ApertusForCausalLM": {"gated": False, "qk_norm": "head"},
    "SmolLM3ForCausalLM": dict(_TRANSFORMERS, qkv_bias="attention_bias", o_bias="attention_bias", tied=True),
    # Qwen
    "Qwen2ForCausalLM": _QWEN2,
    "Qwen2Model": dict(_QWEN2, kind="embedding"),
    "Qwen2MoeForCausalLM": dict(_QWEN2, names={"shared": "shared_expert"}),
    "Qwen2VLForConditionalGeneration": dict(_QWEN2, **_REPLICABLE),
    "Qwen2_5_VLForConditionalGeneration": dict(_QWEN2, **_REPLICABLE),
    "Qwen3ForCausalLM": _QWEN3,
    "Qwen3ForSequenceClassification": dict(_QWEN3, kind="rerank"),
    "Qwen3MoeForCausalLM": _QWEN3_MOE,
    "Qwen3VLForConditionalGeneration": dict(_QWEN3, **_QWEN3_VL),
    "Qwen3VLMoeForConditionalGeneration": dict(_QWEN3_MOE, **_QWEN3_VL),
    "Qwen3NextForCausalLM": _QWEN3_NEXT,
    "Qwen3_5ForConditionalGeneration": dict(_QWEN3_NEXT, **_QWEN3_VL),
    "Qwen3_5MoeForConditionalGeneration": dict(_QWEN3_NEXT, **_QWEN3_VL),
    "MiMoForCausalLM": _QWEN2,
    # Gemma and Cohere
    "GemmaForCausalLM": {"tied": True},
    "Gemma2ForCausalLM": {"norms": 4, "tied": True, "qkv_bias": "attention_bias", "o_bias": "attention_bias"},
    "Gemma3ForCausalLM": _GEMMA3,
    "Gemma3TextModel": dict(_GEMMA3, kind="embedding"),
    "Gemma3ForConditionalGeneration": _GEMMA3,
    "Gemma4ForCausalLM": _GEMMA4,
    "Gemma4ForConditionalGeneration": _GEMMA4,
    "CohereForCausalLM": {"norms": 1, "qk_norm": ("use_qk_norm", "heads"), "tied": True},
    "Cohere2ForCausalLM": {"norms": 1, "qk_norm": ("use_qk_norm", "heads"), "tied": True},
    # DeepSeek's shape: latent attention and many small experts
    "DeepseekForCausalLM": _DEEPSEEK,
    "DeepseekV2ForCausalLM": _DEEPSEEK,
    "DeepseekV3ForCausalLM": _DEEPSEEK_V3,
    "DeepseekV32ForCausalLM": _DEEPSEEK_V3,
    "GlmMoeDsaForCausalLM": _DEEPSEEK_V3,
    "KimiK25ForConditionalGeneration": dict(_DEEPSEEK_V3, **_REPLICABLE),
    "Glm4MoeLiteForCausalLM": dict(_DEEPSEEK, router_dtype="float32", correction_bias=True),
    # Mixtures of experts
    "Glm4MoeForCausalLM": _GLM4_MOE,
    "GptOssForCausalLM": {
        "qkv_bias": True,
        "o_bias": True,
        "sinks": True,
        "router_bias": True,
        "expert_bias": True,
        "rope_float32": True,
    },
    "PhiMoEForCausalLM": {
        "qkv_bias": "attention_bias",
        "o_bias": "attention_bias",
        "norm_bias": True,
        "lm_head_bias": "lm_head_bias",
        "names": {"mlp": "block_sparse_moe"},
    },
    "OlmoeForCausalLM": {"qk_norm": "replicated"},
    "MiniMaxM2ForCausalLM": {
        "qk_norm": ("use_qk_norm", "heads"),
        "router_dtype": "float32",
        "correction_bias": True,
        "names": {"mlp": "block_sparse_moe"},
    },
    "Ernie4_5_MoeForCausalLM": {
        "qkv_bias": "use_bias",
        "o_bias": "use_bias",
        "router_dtype": "float32",
        "correction_bias": True,
        "tied": True,
    },
    "BailingMoeV2ForCausalLM": {
        "qkv_bias": "use_qkv_bias",
        "o_bias": "use_bias",
        "qk_norm": ("use_qk_norm", "head"),
        "correction_bias": "moe_router_enable_expert_bias",
        "router_dtype": "float32",
    },
    "HunYuanMoEV1ForCausalLM": {
        "native_until": (0, 32),
        "qkv_bias": "attention_bias",
        "qk_norm": ("use_qk_norm", "head"),
        "tied": True,
    },
    "DbrxForCausalLM": {},
    "Llama4ForCausalLM": {},
    "Llama4ForConditionalGeneration": {
        "encoder_data_parallel": True,
        "names": {"mlp": "feed_forward", "shared": "shared_expert"},
    },
    # GLM
    "ChatGLMModel": {
        "kind": "generate",
        "qkv_bias": "add_qkv_bias",
        "o_bias": "add_bias_linear",
        "mlp_bias": "add_bias_linear",
    },
    "GlmForCausalLM": {"native_until": (0, 32), "qkv_bias": "attention_bias"},
    "Glm4ForCausalLM": {"qkv_bias": "attention_bias", "norms": 4},
    # OLMo, StarCoder, EXAONE
    "Olmo2ForCausalLM": dict(_TRANSFORMERS, qk_norm="replicated"),
    "Olmo3ForCausalLM": {"native_until": (0, 32), "qk_norm": "replicated"},
    "Starcoder2ForCausalLM": dict(
        _TRANSFORMERS,
        gated=False,
        qkv_bias="use_bias",
        o_bias="use_bias",
        mlp_bias="use_bias",
        norm_bias=True,
        tied=True,
    ),
    "Exaone4ForCausalLM": {"qk_norm": "head"},
    # Older decoders
    "PhiForCausalLM": {
        "native_until": (0, 32),
        "gated": False,
        "qkv_bias": True,
        "o_bias": True,
        "mlp_bias": True,
        "norm_bias": True,
        "norms": 1,
        "lm_head_bias": True,
    },
    "FalconForCausalLM": {
        "gated": False,
        "qkv_bias": "bias",
        "o_bias": "bias",
        "mlp_bias": "bias",
        "norm_bias": True,
        "norms": ("new_decoder_architecture", 2, 1),
        "tied": True,
    },
    "GPT2LMHeadModel": {
        "gated": False,
        "qkv_bias": True,
        "o_bias": True,
        "mlp_bias": True,
        "norm_bias": True,
        "learned_positions": 1,
        "rope": False,
        "tied": True,
    },
    "GPTNeoXForCausalLM": {
        "native_until": (0, 32),
        "gated": False,
        "qkv_bias": True,
        "o_bias": True,
        "mlp_bias": True,
        "norm_bias": True,
    },
    "OPTForCausalLM": {
        "gated": False,
        "qkv_bias": "enable_bias",
        "o_bias": "enable_bias",
        "mlp_bias": "enable_bias",
        "norm_bias": True,
        "learned_positions": 3,
        "rope": False,
        "tied": True,
    },
    # Layers with a state
    "MambaForCausalLM": {
        "layers": "mamba",
        "norms": 1,
        "conv_bias": "use_conv_bias",
        "state_bias": "use_bias",
        "state_norm": False,
        "tied": True,
    },
    "FalconMambaForCausalLM": {
        "layers": "mamba",
        "norms": 1,
        "conv_bias": "use_conv_bias",
        "state_bias": "use_bias",
        "state_norm": False,
        "tied": True,
    },
    "Mamba2ForCausalLM": {
        "pipeline": False,
        "layers": "mamba",
        "norms": 1,
        "conv_bias": "use_conv_bias",
        "state_bias": "use_bias",
    },
    "JambaForCausalLM": dict(_MAMBA_HYBRID, rope=False, names={"mlp": "feed_forward", "state": "mamba"}),
    "GraniteMoeHybridForCausalLM": dict(
        _MAMBA_HYBRID,
        qkv_bias="attention_bias",
        o_bias="attention_bias",
        rope=("position_embedding_type", "rope"),
        tied=True,
        names={"mlp": "block_sparse_moe", "state": "mamba"},
    ),
    "FalconH1ForCausalLM": dict(
        _MAMBA_HYBRID, layers="hybrid", qkv_bias="attention_bias", state_norm="mamba_rms_norm", names={"state": "mamba"}
    ),
    "NemotronHForCausalLM": {
        "one_part_layers": True,
        "norms": 1,
        "gated": False,
        "rope": False,
        "qkv_bias": "attention_bias",
        "o_bias": "attention_bias",
        "mlp_bias": "mlp_bias",
        "conv_bias": "use_conv_bias",
        "state_bias": "use_bias",
        "router_dtype": "float32",
        "correction_bias": True,
        "names": {"attention": "mixer", "mlp": "mixer"},
    },
    "Lfm2ForCausalLM": {"qk_norm": "head", "tied": True, "names": {"mlp": "feed_forward", "state": "short_conv"}},
    "KimiLinearForCausalLM": {"rope": False, "correction_bias": True},
    # Vision language models not named above
    "Mistral3ForConditionalGeneration": {},
    "LlavaForConditionalGeneration": {},
    "InternVLChatModel": dict(_QWEN2, **_REPLICABLE),
    # Encoders
    "BertModel": {"encoder": "bert", "kind": "embedding", "pipeline": False},
    "BertForSequenceClassification": {"encoder": "bert", "kind": "rerank", "pipeline": False},
    "RobertaModel": {"encoder": "bert", "kind": "embedding", "pipeline": False},
    "RobertaForSequenceClassification": {"encoder": "bert", "kind": "rerank", "pipeline": False},
    "XLMRobertaModel": {"encoder": "bert", "kind": "embedding", "pipeline": False},
    "XLMRobertaForSequenceClassification": {"encoder": "bert", "kind": "rerank", "pipeline": False},
    "ModernBertModel": {"encoder": "modernbert", "kind": "embedding", "pipeline": False},
    "ModernBertForSequenceClassification": {"encoder": "modernbert", "kind": "rerank", "pipeline": False},
    "NomicBertModel": {"encoder": "nomic", "kind": "embedding", "pipeline": False},
    "NewModel": {"encoder": "new", "kind": "embedding", "pipeline": False},
    "GteNewModel": {"encoder": "new", "kind": "embedding", "pipeline": False},
    "NewForSequenceClassification": {"encoder": "new", "kind": "rerank", "pipeline": False},
    "GteNewForSequenceClassification": {"encoder": "new", "kind": "rerank", "pipeline": False},
}

# Keys that a model type's published configuration class supplies when config.json leaves them out.
_MROPE = {"rope_scaling": {"rope_type": "default", "mrope_section": [24, 20, 20]}}
MODEL_TYPE_DEFAULTS = {
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "sliding_window_pattern": 6,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "tie_word_embeddings": True,
    },
    "gemma2": {"sliding_window_pattern": 2, "sliding_window": 4096},
    "bert": {"type_vocab_size": 2},
    "chatglm": {"partial_rotary_factor": 0.5},
    "cohere2": {"sliding_window_pattern": 4, "sliding_window": 4096, "head_dim": 128},
    "exaone4": {"sliding_window_pattern": 4},
    "falcon": {"multi_query": True, "max_position_embeddings": 2048},
    "falcon_mamba": {"use_conv_bias": True},
    "glm": {"partial_rotary_factor": 0.5},
    "glm4": {"partial_rotary_factor": 0.5},
    "glm4_moe": {"partial_rotary_factor": 0.5},
    "gpt_neox": {"rotary_pct": 0.25, "attention_bias": True},
    "granitemoehybrid": {"mamba_conv_bias": True},
    "jamba": {"mamba_conv_bias": True},
    "mamba": {"use_conv_bias": True},
    "mamba2": {"use_conv_bias": True},
    "nemotron": {"partial_rotary_factor": 0.5},
    "nemotron_h": {"use_conv_bias": True},
    "opt": {"enable_bias": True},
    "phi": {"partial_rotary_factor": 0.5},
    "qwen3_next": {"partial_rotary_factor": 0.25},
    "qwen3_vl_text": _MROPE,
    "qwen3_vl_moe_text": _MROPE,
    "qwen3_5_text": _MROPE,
    "qwen3_5_moe_text": _MROPE,
    "stablelm": {"partial_rotary_factor": 0.25},
    "starcoder2": {"use_bias": True},
    # towers
    "qwen2_vl": {"patch_size": 14, "num_heads": 16},
    "clip_vision_model": {"patch_size": 32, "image_size": 224},
}


_EVERY_STAGE = {
    ("embedding", "norm", "head"): """
        Qwen2MoeForCausalLM Qwen3MoeForCausalLM MixtralForCausalLM OlmoeForCausalLM GptOssForCausalLM
        PhiMoEForCausalLM GraniteMoeForCausalLM GraniteMoeSharedForCausalLM GraniteMoeHybridForCausalLM
        DbrxForCausalLM FalconForCausalLM GPT2LMHeadModel OrionForCausalLM StableLmForCausalLM MiniCPMForCausalLM
        MiniCPM3ForCausalLM JambaForCausalLM NemotronHForCausalLM GemmaForCausalLM Gemma2ForCausalLM
        Gemma3ForCausalLM Gemma3ForConditionalGeneration Gemma4ForCausalLM Gemma4ForConditionalGeneration
        CohereForCausalLM Cohere2ForCausalLM InternLM2ForCausalLM ChatGLMModel
        OPTForCausalLM MambaForCausalLM Mamba2ForCausalLM FalconMambaForCausalLM Qwen3VLMoeForConditionalGeneration""",
    ("embedding", "head"): "Qwen3NextForCausalLM",
    ("embedding",): """
        Qwen3_5ForConditionalGeneration Qwen3_5MoeForConditionalGeneration Lfm2ForCausalLM""",
}
for _parts, _names in _EVERY_STAGE.items():
    for _name in _names.split():
        ARCHITECTURES[_name] = dict(ARCHITECTURES.get(_name, {}), every_stage=_parts)


def resolve_traits(architecture, config):
    """The traits of an architecture (of the common shape, where it is not known), with `config`'s keys looked up."""
    traits = {**DEFAULTS, **ARCHITECTURES.get(architecture, {})}
    for name, value in traits.items():
        if isinstance(value, str) and isinstance(DEFAULTS[name], bool):
            traits[name] = bool(config.get(value))
        elif isinstance(value, tuple) and name not in ("every_stage", "native_until", "mrope_rows_until"):
            key, then, otherwise = (*value, DEFAULTS[name])[:3]
            if isinstance(DEFAULTS[name], bool):
                traits[name] = config.get(key) == then
            else:
                traits[name] = then if config.get(key) else otherwise
    names = {**NAMES, **traits["names"]}
    traits["names"] = dict(names, experts=names["experts"] or f"{names['mlp']}.experts")
    return traits


def traits_of(spec):
    """The traits of a parsed model."""
    return spec.traits
