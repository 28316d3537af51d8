# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one service takes on each GPU of one layout, and whether vLLM would start: the only entry the planner calls."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Optional, Tuple

from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.activations import Batch
from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.kv_cache import DTYPE_BYTES, layout_kv_cache
from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.memo import SpecMemo
from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.profiles import batch_defaults, profile_for
from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.weights import (
    loaded_dtype,
    rank_weights,
    stage_layers,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GB, GIB

NAIVE_OVERHEAD = 1.2


@dataclass(frozen=True)
class Layout:
    """How a model is cut over GPUs; one replica."""

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    expert_parallel: bool = False

    @property
    def gpus(self):
        return self.tensor_parallel_size * self.pipeline_parallel_size


@dataclass(frozen=True)
class Engine:
    """The options of `vllm serve` that decide about memory, under their own names. None: vLLM's default."""

    version: str = "0.26.0"
    gpu_memory_utilization: Optional[float] = None
    max_model_len: Optional[int] = None  # tokens
    max_num_batched_tokens: Optional[int] = None
    max_num_seqs: Optional[int] = None
    dtype: Optional[str] = None  # what the model runs in: "bfloat16", "float16", "float32"
    kv_cache_dtype: str = "auto"
    block_size: Optional[int] = None
    enforce_eager: bool = False
    enable_prefix_caching: Optional[bool] = None
    kv_cache_memory_bytes: Optional[int] = None  # the pool, instead of gpu_memory_utilization
    mm_encoder_tp_mode: str = "weights"  # "data": the vision tower whole on every rank
    flashinfer: bool = True  # installed beside vLLM, as in the official image
    runner: str = "auto"  # "pooling": a decoder served for embeddings
    language_model_only: bool = False  # no vision tower


@dataclass(frozen=True)
class RankEstimate:
    """Bytes on each GPU of one pipeline stage (its tensor-parallel ranks are alike)."""

    stage: int
    layers: int
    weights: int
    activation: int
    cuda_graphs: int  # what vLLM subtracts for them from the pool
    non_torch: int
    kv_cache: int  # the pool: what is left of the budget; 0 when nothing is left
    kv_cache_per_request: int  # pool that one request of max_model_len tokens needs
    total: int  # the parts together, pool included
    minimum: int  # the parts together with a pool for exactly one request: the least budget that serves
    budget: int  # gpu_total_bytes × gpu_memory_utilization
    in_use: int  # CUDA context and NCCL: not in the budget's account, but not free at start either


@dataclass(frozen=True)
class Estimate:
    """The estimate of one service in one layout on one kind of GPU."""

    ranks: Tuple[RankEstimate, ...]  # one per pipeline stage
    kv_cache_tokens: int  # "GPU KV cache size"; 0 without a cache
    max_concurrency: float  # requests of max_model_len tokens; 0.0 without a cache
    max_model_len: int
    longest_context: int  # tokens of the longest single request that fits, at most what the model allows
    block_size: int
    max_num_batched_tokens: int
    max_num_seqs: int
    gpu_memory_utilization: float
    dtype: str
    fits: bool
    reason: str  # "" when it fits, else what vLLM would refuse, with the numbers
    basis: str  # config | safetensors | parameter_count | generic
    profile: str  # the calibration: "0.26", or "0.26 (extrapolated to 0.33.0)"

    @property
    def weights(self):
        """Bytes of weights on the fullest rank."""
        return max(r.weights for r in self.ranks)

    @property
    def minimum(self):
        """Bytes of budget that the neediest rank wants to serve one request of max_model_len tokens."""
        return max(r.minimum for r in self.ranks)

    def minimum_for(self, requests):
        """Bytes of budget for `requests` concurrent requests of max_model_len tokens."""
        return max(r.minimum + math.ceil((requests - 1) * r.kv_cache_per_request) for r in self.ranks)


_memo = SpecMemo()


def estimate(
    spec, layout, engine, gpu_total_bytes, gpu_free_bytes=None, gpu_name="", compute_capability=9.0
) -> Estimate:
    """The Estimate of `spec` in `layout` on GPUs of `gpu_total_bytes` each.

    gpu_total_bytes: what cudaMemGetInfo calls total (a card sold as 80 GB has 79.19 GiB).
    gpu_free_bytes: free before vLLM starts; None for an idle GPU.
    gpu_name: vLLM's default batch sizes depend on it (A100).
    compute_capability: decides in which form quantized weights are held.
    """
    if engine.runner == "pooling" or engine.language_model_only:
        spec = _memo.get(spec, ("served", engine.runner, engine.language_model_only), lambda: _served(spec, engine))
    profile, extrapolated = profile_for(engine.version)
    tp, pp = layout.tensor_parallel_size, layout.pipeline_parallel_size
    dtype = loaded_dtype(spec, engine.dtype)
    max_model_len = engine.max_model_len or spec.max_model_len
    tokens, sequences = _batch(engine, max_model_len, gpu_total_bytes, gpu_name)
    utilization = (
        profile.gpu_memory_utilization if engine.gpu_memory_utilization is None else engine.gpu_memory_utilization
    )
    budget = math.ceil(gpu_total_bytes * utilization)
    in_use = profile.in_use_parallel if layout.gpus > 1 else profile.in_use_alone
    non_torch = profile.non_torch(spec, tp, pp, tokens, engine)
    cache = _memo.get(
        spec,
        ("cache", tp, pp, engine.kv_cache_dtype, dtype, engine.block_size),
        lambda: layout_kv_cache(spec, tp, pp, engine.kv_cache_dtype, dtype, engine.block_size) or (),
    )
    weights = _memo.get(
        spec,
        ("weights", layout, dtype, engine.mm_encoder_tp_mode, profile.name, compute_capability),
        lambda: _weights(spec, layout, dtype, engine, profile, compute_capability),
    )
    batch = Batch(
        tokens,
        sequences,
        max_model_len,
        cache.block_size if cache else 0,
        not engine.enforce_eager,
        DTYPE_BYTES[dtype],
    )
    activations, graphs = _memo.get(
        spec,
        ("activation", layout, profile.name, batch),
        lambda: (
            tuple(profile.activation(spec, tp, pp, s, batch, layout.expert_parallel) for s in range(pp)),
            tuple(profile.cuda_graphs(spec, tp, layers, batch) for layers in stage_layers(spec.num_layers, pp)),
        ),
    )
    in_flight = profile.batches_in_flight(spec, pp) * tokens
    state_blocks = 2 if engine.enable_prefix_caching else 1
    per_request = cache.request_bytes(max_model_len, in_flight, state_blocks) if cache else (0,) * pp
    ranks = []
    for stage, layers in enumerate(stage_layers(spec.num_layers, pp)):
        fixed = weights[stage] + activations[stage] + graphs[stage] + non_torch
        pool = max(budget - fixed, 0) if cache else 0
        if cache and engine.kv_cache_memory_bytes:
            pool = engine.kv_cache_memory_bytes
        ranks.append(
            RankEstimate(
                stage=stage,
                layers=layers,
                weights=weights[stage],
                activation=activations[stage],
                cuda_graphs=graphs[stage],
                non_torch=non_torch,
                kv_cache=pool,
                kv_cache_per_request=per_request[stage],
                total=fixed + pool,
                minimum=fixed + per_request[stage],
                budget=budget,
                in_use=in_use,
            )
        )
    blocks = cache.blocks([r.kv_cache for r in ranks]) if cache else 0
    needed = cache.blocks_per_request(max_model_len, in_flight, state_blocks) if cache else 0
    concurrency = blocks / needed if needed else 0.0
    longest = cache.longest_context(blocks, in_flight, spec.max_model_len, state_blocks) if cache else max_model_len
    free = gpu_total_bytes - in_use if gpu_free_bytes is None else gpu_free_bytes
    reason = _refusal(ranks, gpu_total_bytes, free, utilization, max_model_len, longest, bool(cache))
    return Estimate(
        ranks=tuple(ranks),
        kv_cache_tokens=int(concurrency * max_model_len),
        max_concurrency=concurrency,
        max_model_len=max_model_len,
        longest_context=longest,
        block_size=cache.block_size if cache else 0,
        max_num_batched_tokens=tokens,
        max_num_seqs=sequences,
        gpu_memory_utilization=utilization,
        dtype=dtype,
        fits=not reason,
        reason=reason,
        basis=spec.basis,
        profile=f"{profile.name} (extrapolated to {engine.version})" if extrapolated else profile.name,
    )


def naive_estimate(parameters, bytes_per_parameter=2.0, gpu_total_bytes=0, gpus=1) -> Estimate:
    """The common rule of thumb, for when nothing but a parameter count is known: parameters × bytes × 1.2.

    671e9 parameters of one byte: 805 GB. It knows no layout, no context and no cache.
    """
    total = naive_bytes(parameters, bytes_per_parameter)
    each = math.ceil(total / gpus)
    fits = each <= gpu_total_bytes
    rank = RankEstimate(
        0, 0, math.ceil(parameters * bytes_per_parameter / gpus), 0, 0, 0, 0, 0, each, each, gpu_total_bytes, 0
    )
    return Estimate(
        ranks=(rank,),
        kv_cache_tokens=0,
        max_concurrency=0.0,
        max_model_len=0,
        longest_context=0,
        block_size=0,
        max_num_batched_tokens=0,
        max_num_seqs=0,
        gpu_memory_utilization=1.0,
        dtype="",
        fits=fits,
        reason="" if fits else f"{total / GB:.0f} GB by the rule of thumb on {gpus} GPUs of {_gib(gpu_total_bytes)}",
        basis="parameter_count",
        profile="parameters × bytes × 1.2",
    )


def naive_bytes(parameters, bytes_per_parameter=2.0):
    """parameters × bytes_per_parameter × 1.2, in bytes."""
    return math.ceil(parameters * bytes_per_parameter * NAIVE_OVERHEAD)


def _served(spec, engine):
    """The part of a model that these options load."""
    if engine.runner == "pooling" and spec.kind == "generate":
        spec = replace(spec, kind="embedding")
    return replace(spec, vision=None, audio=None) if engine.language_model_only else spec


def _batch(engine, max_model_len, gpu_total_bytes, gpu_name):
    """(max_num_batched_tokens, max_num_seqs) as vLLM settles them."""
    tokens, sequences = batch_defaults(gpu_total_bytes, gpu_name)
    sequences = engine.max_num_seqs or sequences
    tokens = engine.max_num_batched_tokens or min(tokens, sequences * max_model_len)
    return tokens, engine.max_num_seqs or min(sequences, tokens)


def _weights(spec, layout, dtype, engine, profile, compute_capability):
    """Bytes of weights per stage, as the allocator holds them."""
    return tuple(
        rank_weights(
            spec,
            layout.tensor_parallel_size,
            layout.pipeline_parallel_size,
            stage,
            layout.expert_parallel,
            dtype=dtype,
            mm_encoder_tp_mode=engine.mm_encoder_tp_mode,
            engine_version=profile.name,
            compute_capability=compute_capability,
        ).allocated
        for stage in range(layout.pipeline_parallel_size)
    )


def _refusal(ranks, gpu_total_bytes, free, utilization, max_model_len, longest, cached):
    """Why vLLM would not start, or ""."""
    budget = ranks[0].budget
    if free < budget:
        return (
            f"free memory {_gib(free)} of {_gib(gpu_total_bytes)} is less than the requested {_gib(budget)} "
            f"(gpu_memory_utilization {utilization:g}): lower gpu_memory_utilization to "
            f"{max(math.floor(free / gpu_total_bytes * 100) / 100, 0):g} or free the GPU"
        )
    for rank in ranks:
        fixed = rank.weights + rank.activation + rank.non_torch + rank.cuda_graphs
        where = f" on pipeline stage {rank.stage}" if len(ranks) > 1 else ""
        if rank.weights > min(free, gpu_total_bytes):
            return f"weights of {_gib(rank.weights)}{where} do not fit into {_gib(free)} of free memory"
        if (cached and rank.kv_cache <= 0) or fixed > free:
            return (
                f"no memory is left for the KV cache{where}: weights {_gib(rank.weights)}, activations "
                f"{_gib(rank.activation)} and engine {_gib(rank.non_torch + rank.cuda_graphs)} of {_gib(budget)}"
            )
    for rank in ranks:
        where = f" on pipeline stage {rank.stage}" if len(ranks) > 1 else ""
        if rank.kv_cache_per_request > rank.kv_cache:
            hint = f"the longest context that fits is {longest}" if longest else "not even one token fits"
            return (
                f"one request of {max_model_len} tokens needs {_gib(rank.kv_cache_per_request)} of KV cache{where}, "
                f"{_gib(rank.kv_cache)} are available: {hint}"
            )
    return ""


def _gib(value):
    return f"{value / GIB:.2f} GiB"
