# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils._config_keys import ConfigError
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.config import parse_model_config

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


def test_llama():
    spec = parse_model_config(LLAMA)
    assert (spec.kind, spec.num_layers, spec.heads, spec.kv_heads, spec.head_dim) == ("generate", 32, 32, 8, 128)
    assert (spec.max_model_len, spec.dtype, spec.basis) == (131072, "bfloat16", "config")


@pytest.mark.parametrize("field", ["hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads"])
def test_a_missing_key_is_named(field):
    with pytest.raises(ConfigError) as error:
        parse_model_config({key: value for key, value in LLAMA.items() if key != field})
    assert error.value.field == field


@pytest.mark.parametrize("found", [-1, 0, 2**40, 1.5, "4096", True])
def test_absurd_numbers_are_refused(found):
    with pytest.raises(ConfigError) as error:
        parse_model_config(dict(LLAMA, hidden_size=found))
    assert error.value.field == "hidden_size"


def test_an_unknown_architecture_is_labelled_or_refused():
    unknown = dict(LLAMA, architectures=["NoSuchForCausalLM"])
    assert parse_model_config(unknown).basis == "generic"
    with pytest.raises(ConfigError):
        parse_model_config(unknown, strict=True)
