#!/usr/bin/env python3
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks vLLM itself which layouts it accepts and what one rank would hold, and records the answers.

    PYTHON_WITH_VLLM tests/oracle/record.py [--models SUBSTRING] [--output tests/oracle/recorded.json]

No GPU and no memory are needed: the configuration check runs as it is, and the module tree of one rank is built on the
meta device under torch's fake process group. Only the choice of kernels is replaced: which kernel computes a layer
needs the real device, and does not change what is loaded.

Recorded per model and layout "TPxPP": the reason of a refusal, or [bytes of parameters and scales, bytes of rotary
tables] of rank 0 of the first stage ("TPxPP/STAGE" for others, "/ep" with expert parallelism, "/data" with a replicated
vision tower).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import pkgutil
import re
import sys
import tempfile
from pathlib import Path
from unittest import mock

os.environ.setdefault("VLLM_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

HERE = Path(__file__).resolve().parent
TENSOR_PARALLEL = (1, 2, 3, 4, 5, 6, 7, 8)
PIPELINE_PARALLEL = (2, 4)
NOT_WEIGHTS = re.compile(r"(_|\.)(k|v|q|p|prob)_(scale|zero_point)(_float)?$")


def tolerate_missing_vision_operators():
    """torchvision's Python code is needed to import the vision models, its compiled operators are not."""
    import torch

    register = torch.library.register_fake

    def tolerant(name, *args, **kwargs):
        if isinstance(name, str) and name.startswith("torchvision::"):
            return lambda function: function
        return register(name, *args, **kwargs)

    torch.library.register_fake = tolerant


def leave_out_kernels():
    """Lets layers be created whose kernels this machine does not have."""
    import torch
    import torch.fx.experimental._config
    import vllm.model_executor.layers.fused_moe.config as moe_config
    import vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method as unquantized_method
    import vllm.model_executor.layers.quantization as quantization
    from vllm.model_executor.layers.fused_moe.oracle import fp8, int_wna16, mxfp4, nvfp4, unquantized
    from vllm.platforms import cpu

    wna16 = next(v for k, v in vars(int_wna16).items() if k.endswith("Backend") and hasattr(v, "MARLIN"))
    backends = {
        "select_fp8_moe_backend": fp8.Fp8MoeBackend.TRITON,
        "select_nvfp4_moe_backend": nvfp4.NvFp4MoeBackend.MARLIN,
        "select_mxfp4_moe_backend": mxfp4.Mxfp4MoeBackend.TRITON,
        "select_wna16_moe_backend": wna16.MARLIN,
    }
    linear = (
        "init_fp8_linear_kernel",
        "init_nvfp4_linear_kernel",
        "init_mxfp4_linear_kernel",
        "init_mxfp8_linear_kernel",
        "choose_mp_linear_kernel",
    )

    def kernel(*_args, **_kwargs):
        return mock.MagicMock(__name__="kernel")

    for module in pkgutil.walk_packages(quantization.__path__, quantization.__name__ + "."):
        try:
            loaded = importlib.import_module(module.name)
        except Exception:
            continue
        for name, backend in backends.items():
            if hasattr(loaded, name):
                setattr(loaded, name, lambda *_a, _backend=backend, **_k: (_backend, kernel()))
        for name in linear:
            if hasattr(loaded, name):
                setattr(loaded, name, kernel)
    # Pretend to have the attention and MoE kernels of a GPU.
    torch.fx.experimental._config.meta_nonzero_assume_all_nonzero = True
    unquantized.select_unquantized_moe_backend = unquantized_method.select_unquantized_moe_backend = lambda *_a, **_k: (
        unquantized.UnquantizedMoeBackend.TRITON,
        kernel(),
    )
    attention = cpu.CpuPlatform.get_attn_backend_cls.__func__

    def any_attention(cls, selected_backend, attn_selector_config, num_heads=None):
        if attn_selector_config.use_mla:
            return "vllm.v1.attention.backends.mla.cpu_mla.CPUMLABackend"
        return attention(cls, selected_backend, attn_selector_config, num_heads)

    cpu.CpuPlatform.get_attn_backend_cls = classmethod(any_attention)
    platform = moe_config.current_platform
    type(platform).is_cuda_alike = lambda _self: sys._getframe(1).f_code.co_filename.endswith("fused_moe/config.py")


def inspect_in_process():
    """vLLM inspects model classes in a subprocess each; here one process is enough, and a minute faster."""
    from vllm.model_executor.models import registry

    registry._LazyRegisteredModel.inspect_model_cls = lambda self: registry._ModelInfo.from_model_cls(
        self.load_model_cls()
    )


@contextlib.contextmanager
def model_directory(config):
    config = dict(config)
    with tempfile.TemporaryDirectory(prefix="model") as directory:
        quantization = config.pop("hf_quant_config", None)
        if quantization:
            Path(directory, "hf_quant_config.json").write_text(json.dumps(quantization))
        Path(directory, "config.json").write_text(json.dumps(config))
        yield directory


def engine_config(directory, tp, pp, **options):
    from vllm.engine.arg_utils import EngineArgs

    return EngineArgs(
        model=directory,
        load_format="dummy",
        skip_tokenizer_init=True,
        tensor_parallel_size=tp,
        pipeline_parallel_size=pp,
        distributed_executor_backend="mp" if tp * pp > 1 else None,
        **options,
    ).create_engine_config()


def accept_unknown_model_types(models):
    """Model types whose configuration class comes with the checkpoint's own code: a plain one stands in."""
    from transformers import AutoConfig, PretrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from vllm.transformers_utils.config import _CONFIG_REGISTRY

    class Published(PretrainedConfig):
        def __init__(self, **keys):
            keys = {k: _nested(v) if isinstance(v, dict) and "model_type" in v else v for k, v in keys.items()}
            super().__init__(**keys)

        def get_text_config(self, *_args, **_kwargs):
            return getattr(self, "llm_config", None) or getattr(self, "text_config", None) or self

    def _nested(keys):
        known = keys["model_type"] in CONFIG_MAPPING
        return AutoConfig.for_model(**keys) if known else Published(**keys)

    for entry in models.values():
        name = entry["config"]["model_type"]
        if name not in CONFIG_MAPPING and name not in _CONFIG_REGISTRY:
            AutoConfig.register(name, type("Published", (Published,), {"model_type": name}))


@contextlib.contextmanager
def rank_of(tp, pp, rank):
    """vLLM's process groups as rank `rank` of tp × pp would see them, without the others."""
    import torch.distributed as dist
    import vllm.distributed.parallel_state as state
    from torch.testing._internal.distributed.fake_pg import FakeStore

    world = tp * pp
    new_group, init = dist.new_group, state.GroupCoordinator.__init__

    def without_communicators(self, *args, **kwargs):
        names = ("group_ranks", "local_rank", "torch_distributed_backend", "use_device_communicator")
        kwargs.update(zip(names, args))
        init(self, **dict(kwargs, use_device_communicator=False, use_message_queue_broadcaster=False))

    dist.init_process_group("fake", rank=rank, world_size=world, store=FakeStore())
    dist.new_group = lambda ranks=None, **_kwargs: new_group(ranks, backend="fake")
    state.GroupCoordinator.__init__ = without_communicators
    state.in_the_same_node_as = lambda *_args, **_kwargs: [True] * world
    try:
        state.init_distributed_environment(world, rank, "tcp://127.0.0.1:1", 0, backend="fake")
        state.initialize_model_parallel(tp, pp, backend="fake")
        yield
    finally:
        state.GroupCoordinator.__init__ = init
        state.destroy_model_parallel()
        state.destroy_distributed_environment()
        dist.new_group = new_group
        if dist.is_initialized():
            dist.destroy_process_group()


def module_tree(config, tp, pp=1, stage=0, **options):
    """(vLLM's configuration, {tensor name: (shape, dtype, bytes)}) of rank 0 of a pipeline stage."""
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.layers import rotary_embedding
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    rotary_embedding._ROPE_DICT.clear()
    with model_directory(config) as directory:
        vllm_config = engine_config(directory, tp, pp, **options)
        dtype = set_default_torch_dtype(vllm_config.model_config.dtype)
        with set_current_vllm_config(vllm_config), rank_of(tp, pp, stage * tp), torch.device("meta"), dtype:
            model = initialize_model(vllm_config=vllm_config)
    tables = [(name, buffer) for name, buffer in model.named_buffers() if name.endswith("cos_sin_cache")]
    tensors = {}
    for name, tensor in [*model.named_parameters(), *tables]:
        if NOT_WEIGHTS.search(name):
            continue
        tensors[name] = (tuple(tensor.shape), str(tensor.dtype)[6:], tensor.numel() * tensor.element_size())
    return vllm_config, tensors


def totals(tensors):
    rotary = sum(size for name, (_s, _d, size) in tensors.items() if name.endswith("cos_sin_cache"))
    return [sum(size for _s, _d, size in tensors.values()) - rotary, rotary]


def one_line(error):
    text = " ".join(str(error).split())
    text = re.sub(r"^1 validation error for \w+ Value error, ", "", text)
    text = re.sub(r" \[type=value_error.*", "", text)
    return f"{type(error).__name__}: " + re.sub(r"/\S*/model\w+", "DIR", text)[:160]


def record_model(config, runner="auto"):
    answers = {}

    def ask(key, tp, pp=1, stage=0, **options):
        try:
            vllm_config, tensors = module_tree(config, tp, pp, stage, runner=runner, **options)
        except Exception as error:
            answers[key] = one_line(error)
            return None
        answers[key] = totals(tensors)
        return vllm_config

    first = ask("1x1", 1)
    for tp in TENSOR_PARALLEL[1:]:
        ask(f"{tp}x1", tp)
    for pp in PIPELINE_PARALLEL:
        ask(f"1x{pp}", 1, pp)
        if not isinstance(answers[f"1x{pp}"], str):
            ask(f"1x{pp}/{pp - 1}", 1, pp, pp - 1)
    if first is None:
        return {"layouts": answers}
    model = first.model_config
    if model.is_moe:
        ask("2x1/ep", 2, enable_expert_parallel=True)
    if model.multimodal_config is not None:
        ask("2x1/data", 2, mm_encoder_tp_mode="data")
    return {
        "class": model.architecture,
        "max_model_len": model.max_model_len,
        "dtype": str(model.dtype)[6:],
        "runner": model.runner_type,
        "layouts": answers,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="", help="only those whose name contains this")
    parser.add_argument("--configs", type=Path, default=HERE / "model_configs.json")
    parser.add_argument("--output", type=Path, default=HERE / "recorded.json")
    parser.add_argument("--tree", metavar="TP", type=int, help="print the tensors of this layout and record nothing")
    arguments = parser.parse_args()
    tolerate_missing_vision_operators()
    import vllm

    inspect_in_process()
    leave_out_kernels()
    models = json.loads(arguments.configs.read_text())["models"]
    accept_unknown_model_types(models)
    recorded = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    answers = recorded.get("models", {})
    for name, entry in models.items():
        if arguments.models not in name:
            continue
        if arguments.tree:
            print_tree(name, module_tree(entry["config"], arguments.tree)[1])
            continue
        answers[name] = record_model(entry["config"], entry.get("runner", "auto"))
        print(f"{name}: {answers[name]['layouts']['1x1']}", flush=True)
        lines = ",\n".join(f"{json.dumps(n)}: {json.dumps(answers[n])}" for n in models if n in answers)
        arguments.output.write_text(f'{{"vllm": "{vllm.__version__}", "models": {{\n{lines}\n}}}}\n')


def print_tree(name, tensors):
    groups = {}
    for tensor, (shape, dtype, size) in tensors.items():
        key = (re.sub(r"\.\d+(?=\.)", ".*", tensor), shape, dtype, size)
        groups[key] = groups.get(key, 0) + 1
    print(name)
    for (tensor, shape, dtype, size), count in groups.items():
        print(f"  {count:4d} × {tensor} {shape} {dtype} {size}")


if __name__ == "__main__":
    main()
