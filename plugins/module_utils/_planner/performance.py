# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast a layout is, roughly: enough to rank layouts, not to promise figures.

A roofline: a step takes as long as the slower of arithmetic and memory traffic, plus what the GPUs say to each other.
COMPUTE_EFFICIENCY is fitted to three runs of vLLM 0.26 on H200 with 512 tokens in and 256 out: Qwen2.5-7B on one GPU
12 281 tokens/s (12 570 here), Qwen2.5-32B on one GPU 2 793 (2 822), Qwen2.5-7B with PP 2 21 857 (22 183).
The latencies of the links are those of small NCCL all-reduces, rounded; the other efficiencies are common experience.
"""

from __future__ import annotations

from collections import namedtuple

from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.weights import parameter_counts

PROMPT_TOKENS = 512
OUTPUT_TOKENS = 256
COMPUTE_EFFICIENCY = 0.55
MEMORY_EFFICIENCY = 0.75
STAGE_LOSS = 0.12  # of throughput per further pipeline stage, measured with two
NVLINK_LATENCY, PCIE_LATENCY, NETWORK_LATENCY = 12e-6, 35e-6, 60e-6  # seconds
NETWORK_BANDWIDTH = 12e9  # bytes per second between hosts: 100 Gbit/s
STEP_OVERHEAD = 0.4e-3  # scheduler and sampler

Speed = namedtuple("Speed", "tokens_per_second time_per_token requests")
Parameters = namedtuple("Parameters", "total active")


def count_parameters(spec):
    """Parameters of the model, and those that one token is multiplied with: no look-up of its embedding."""
    total, active = parameter_counts(spec)
    looked_up = 0 if spec.tie_word_embeddings else spec.hidden_size * spec.vocab_size
    return Parameters(total, active - looked_up)


def speed(spec, parameters, estimate, kind, tensor_parallel_size, pipeline_parallel_size, hosts=1):
    """Output tokens per second of one replica under load, and seconds per token of a lone request."""
    tp, pp = tensor_parallel_size, pipeline_parallel_size
    ranks = estimate.ranks
    weights = max(rank.weights for rank in ranks)
    sparse = _active_share(spec, parameters)
    per_token = _cache_bytes_per_token(estimate)
    length = PROMPT_TOKENS + OUTPUT_TOKENS
    requests = estimate.max_num_seqs
    if estimate.kv_cache_tokens:
        requests = min(requests, max(1, estimate.kv_cache_tokens // length))
    requests = max(1, min(requests, 256 * pp))
    bandwidth = kind.bandwidth * 1e9 * MEMORY_EFFICIENCY
    flops = kind.tflops * 1e12 * COMPUTE_EFFICIENCY * tp
    batch = max(1, requests // pp)
    # Each output token brings its share of prompt tokens with it.
    tokens = batch * length / OUTPUT_TOKENS
    compute = 2 * parameters.active / pp * tokens / flops
    memory = (weights * min(1.0, sparse * batch) + batch * per_token * (PROMPT_TOKENS + OUTPUT_TOKENS / 2)) / bandwidth
    talk = _talk(spec, kind, tp, pp, tokens, hosts)
    step = max(compute, memory) + talk + STEP_OVERHEAD / pp
    efficiency = 1 / (1 + STAGE_LOSS * (pp - 1))
    lone = pp * (weights * sparse / bandwidth + _talk(spec, kind, tp, pp, 1, hosts)) + STEP_OVERHEAD
    return Speed(batch / step * efficiency, lone, requests)


def _active_share(spec, parameters):
    """The part of the weights that one token reads."""
    return min(1.0, parameters.active / parameters.total) if spec.moe and parameters.total else 1.0


def _cache_bytes_per_token(estimate):
    rank = max(estimate.ranks, key=lambda rank: rank.kv_cache_per_request)
    return rank.kv_cache_per_request / estimate.max_model_len if estimate.max_model_len else 0


def _talk(spec, kind, tp, pp, tokens, hosts):
    """Seconds of communication per step and stage: two all-reduces a layer, one hand-over a stage."""
    size = tokens * spec.hidden_size * 2
    seconds = 0.0
    if tp > 1:
        linked = kind.nvlink and kind.span >= tp
        latency = NVLINK_LATENCY if linked else PCIE_LATENCY
        bandwidth = (kind.nvlink / 2 if linked else kind.pcie / 2) * 1e9
        volume = 2 * size * (tp - 1) / tp
        seconds += 2 * spec.num_layers / pp * (latency + volume / bandwidth)
    if pp > 1:
        bandwidth = NETWORK_BANDWIDTH if hosts > 1 else kind.pcie * 1e9
        latency = NETWORK_LATENCY if hosts > 1 else PCIE_LATENCY
        seconds += latency + size / bandwidth
    return seconds
