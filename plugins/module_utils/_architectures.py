# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each architecture adds to the common shape of a transformer: data, no logic."""

from __future__ import annotations

KNOWN_ARCHITECTURES = {
    **{
        name: {}
        for name in (
            "LlamaForCausalLM",
            "MistralForCausalLM",
            "MixtralForCausalLM",
            "Qwen2ForCausalLM",
            "Qwen3ForCausalLM",
            "Qwen2MoeForCausalLM",
            "Qwen3MoeForCausalLM",
            "Qwen3NextForCausalLM",
            "DeepseekV2ForCausalLM",
            "DeepseekV3ForCausalLM",
            "GptOssForCausalLM",
            "Glm4MoeForCausalLM",
            "Phi3ForCausalLM",
            "Gemma2ForCausalLM",
        )
    },
    "BertModel": {"encoder": True, "pipeline": False, "kind": "embedding"},
    "XLMRobertaModel": {"encoder": True, "pipeline": False, "kind": "embedding"},
    "XLMRobertaForSequenceClassification": {"encoder": True, "pipeline": False, "kind": "rerank"},
}

MODEL_TYPE_DEFAULTS = {}
