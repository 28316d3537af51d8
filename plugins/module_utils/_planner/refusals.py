# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a declaration its engine or its model refuses, whatever the GPUs: known before anything is placed."""

from __future__ import annotations

import difflib

from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_code, _vllm_options
from ansible_collections.inferops.gpu_host.plugins.module_utils._versions import engine_version_of
from ansible_collections.inferops.gpu_host.plugins.module_utils._vllm_option_table import OPTIONS

# The names that vLLM 0.6.6 to 0.33 take for `quantization` (model_executor/layers/quantization of their sources).
QUANTIZATIONS = """
aqlm auto-round auto_awq auto_gptq awq awq_marlin bitblas bitsandbytes compressed-tensors cpu_awq cpu_gptq
deepseek_v4_fp8 deepspeedfp experts_int8 fbgemm_fp8 fp8 fp8_per_block fp8_per_channel fp8_per_tensor fp_quant gguf
gpt_oss_mxfp4 gptq gptq_bitblas gptq_marlin gptq_marlin_24 hqq humming inc int8_per_channel_weight_only ipex marlin
modelopt modelopt_fp4 modelopt_mixed modelopt_mxfp8 moe_wna16 mxfp4 mxfp8 neuron_quant nvfp4_per_token online
petit_nvfp4 ptpc_fp8 qqq quark rtn torchao tpu_int8
""".split()
_LONGER_ALLOWED = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"
# Options that change how long a context the model has.
_STRETCHING = ("hf-overrides", "rope-scaling", "rope-theta")


def of_service(service, spec, engine_version):
    """One line for each refusal. spec: the model's, where it is known."""
    if service["engine"] != "vllm" or service["state"] != "started":
        return []
    return [*_quantization(service), *_length(service, spec), *_options(service, engine_version)]


def of_code(service, info):
    """Programs among the model's files that nobody has accepted, as far as that can be told before they are here.

    info: what model_info said of the model.
    """
    if service["state"] != "started":
        return []
    return [
        line
        for line in (_model_code.unpinned(service), _model_code.refused_pickles(service, info.get("loads")))
        if line
    ]


def _quantization(service):
    name = service["quantization"]
    if name and name.replace("_", "-").lower() not in [known.replace("_", "-") for known in QUANTIZATIONS]:
        near = difflib.get_close_matches(name, QUANTIZATIONS, n=1)
        yield (
            f"quantization is {name!r}, which vLLM does not have"
            + (f", did you mean {near[0]!r}?" if near else f"; it has {', '.join(QUANTIZATIONS)}.")
            + " Leave it out where the checkpoint is quantized already"
        )


def _length(service, spec):
    length = service["max_model_len"]
    if not isinstance(length, int) or spec is None or length <= spec.max_model_len:
        return
    stretched = any(name.partition(".")[0] in _STRETCHING for name in service["options"])
    if not stretched and service["env"].get(_LONGER_ALLOWED, "0").lower() not in ("1", "true"):
        yield (
            f"max_model_len is {length}, and the model was made for {spec.max_model_len} tokens: set max_model_len to "
            f"{spec.max_model_len} or less, or env: {{{_LONGER_ALLOWED}: 1}} if you know better"
        )


def _options(service, engine_version):
    version = engine_version_of(service)
    options = service["options"]
    if not version:
        # The image decides, which the role knows: here only what no version has.
        options = {name: value for name, value in options.items() if _unheard(name)}
    try:
        _vllm_options.config_file(options, version or engine_version)
    except _vllm_options.OptionError as error:
        yield from error.problems


def _unheard(name):
    name = name.partition(".")[0]
    return not {name, name[len("no-") :] if name.startswith("no-") else name} & set(OPTIONS)
