# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every dialect of config.json → one ModelSpec (see _model/spec.py for what its fields mean).

The file comes from whoever published the model. A value that makes no sense is a ConfigError which names its key, and
no count or list may be so large that reading it takes noticeable time or memory.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Mapping, Optional

from ansible_collections.inferops.gpu_host.plugins.module_utils._config_keys import ConfigError, Keys, whole_number
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.architectures import (
    ARCHITECTURES,
    MODEL_TYPE_DEFAULTS,
    resolve_traits,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.layers import read_layers
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.quantization_config import read_quantization
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.rope_config import read_lengths, read_ropes
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.spec import ModelSpec
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.vision_config import read_vision

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
    keys = Keys(_text_config(config), MODEL_TYPE_DEFAULTS, fallback=config)
    language_config = {**keys.defaults, **keys.raw}
    traits = resolve_traits(architecture, language_config)
    layers = read_layers(keys, traits)
    if not layers:
        raise ConfigError("num_hidden_layers", 0, "at least 1")
    max_positions, max_model_len = read_lengths(keys)
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
        ropes=read_ropes(keys, layers) if traits["rope"] else (),
        num_labels=_num_labels(config),
        quantization=read_quantization(config, keys.raw, hf_quant_config),
        vision=read_vision(config),
        mtp_layers=keys.optional_count("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules") or 0,
        supports_pipeline=traits["pipeline"],
        basis="config" if known else "generic",
        assumed=tuple(keys.assumed),
        config=language_config,
        root_config=config,
    )


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
    return whole_number("num_labels", labels, 1)


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
