# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each vLLM version does by default, and the memory it takes that follows from no configuration. Every figure
with its source. "Measured" means the runs in tests/ground_truth."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.activations import (
    activation_peak,
    activation_peak_0_19,
    new_model_runner,
    shape_of,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB, MIB, ceil_div
from ansible_collections.inferops.gpu_host.plugins.module_utils._versions import minor_release


class Profile026:
    """vLLM 0.26: 27 starts on H200, and a trace of the allocator for 50 more."""

    name = "0.26"
    gpu_memory_utilization = 0.92  # the default since 0.22 (vllm/config/cache.py)
    # At the first snapshot: the CUDA context, and NCCL with several ranks (1.4 to 2.0 GiB measured). Not taken from
    # the pool, but not free at start either.
    in_use_alone = int(0.51 * GIB)
    in_use_parallel = int(1.97 * GIB)
    # Growth outside PyTorch between that snapshot and the end of profiling, measured. With several ranks most of it
    # has happened before.
    non_torch_alone = 230 * MIB
    non_torch_parallel = 66 * MIB
    # FlashInfer's buffers for fusing all-reduce and norm, taken when vLLM compiles for Hopper and newer: four times the
    # ranks' largest fused batch (flashinfer/comm/trtllm_ar.py), which vLLM limits per tensor-parallel size
    # (vllm/compilation/passes/fusion/allreduce_rms_fusion.py), and what the one run with it took beyond that.
    fused_batch = ((2, 64 * MIB), (4, 2 * MIB), (8, MIB // 2))
    fused_rest = ((2, 288 * MIB),)
    # FlashAttention 3 cuts the context into up to 32 parts while graphs are captured, each with a float32 output
    # (max_num_splits of its CUDA graphs). 258 MiB measured at 32 heads of 128.
    context_splits = 32
    graph_piece = 0.165  # MiB per layer and piecewise graph: 4 MiB measured at 24 layers, 2 at 8
    graph_piece_split = 0.25  # the same where linear attention or MXFP4 experts cut a layer into more pieces

    def non_torch(self, spec, tp, pp, tokens, engine):
        """Bytes that the pool loses to what is allocated outside PyTorch."""
        if tp * pp == 1:
            return self.non_torch_alone
        if tp == 1 or engine.enforce_eager or not engine.flashinfer:
            return self.non_torch_parallel
        largest = min(dict(self.fused_batch).get(tp, 0), 2 * tokens * spec.hidden_size)
        return self.non_torch_parallel + 4 * tp * largest + dict(self.fused_rest).get(tp, 0)

    def activation(self, spec, tp, pp, stage, batch, expert_parallel):
        return activation_peak(spec, tp, pp, stage, batch, expert_parallel)

    def batches_in_flight(self, spec, pp):
        """Batches whose tokens hold cache at once (VllmConfig.max_concurrent_batches, asynchronous scheduling)."""
        if new_model_runner(spec):
            return pp + 1
        return 2 if pp == 1 else pp

    def cuda_graphs(self, spec, tp, layers, batch):
        """Bytes subtracted from the pool as an estimate of CUDA graphs, on a stage of `layers` layers. The new model
        runner subtracts nothing (its graphs take 0.9 to 1.7 GiB above the budget, measured)."""
        shape = shape_of(spec)
        if not batch.compiled or shape.new_runner or not shape.generates:
            return 0
        largest = min(2 * batch.sequences, 512, batch.tokens)
        piece = self.graph_piece_split if shape.states or shape.mxfp4 else self.graph_piece
        per_graph = (2 * ceil_div(int(100 * piece * layers), 200) + 1) * MIB  # in steps of 2 MiB; 1 per full graph
        columns = max((attention.graph_columns(tp) for attention in shape.attentions), default=0)
        first = self.context_splits * largest * columns * 4 + 2 * MIB
        return first + (capture_sizes(largest) - 1) * per_graph


class Profile019:
    """vLLM 0.17 to 0.19: published runs on H100-80GB."""

    name = "0.19"
    gpu_memory_utilization = 0.9
    in_use_alone = int(0.51 * GIB)
    in_use_parallel = int(1.97 * GIB)
    non_torch_alone = int(0.25 * GIB)
    non_torch_parallel = int(2.1 * GIB)  # NCCL counted in
    non_torch_pipeline = int(0.07 * GIB)

    def non_torch(self, spec, tp, pp, tokens, engine):
        if tp > 1:
            return self.non_torch_parallel
        return self.non_torch_pipeline if pp > 1 else self.non_torch_alone

    def activation(self, spec, tp, pp, stage, batch, expert_parallel):
        return activation_peak_0_19(spec, tp, pp, stage, batch, expert_parallel)

    def batches_in_flight(self, spec, pp):
        return 1

    def cuda_graphs(self, spec, tp, layers, batch):
        return 0  # subtracted by default since 0.21


PROFILES = (Profile019(), Profile026())


def profile_for(version):
    """(profile, extrapolated): the calibrated profile nearest to a vLLM version such as "0.26.0" or "v0.20.1"."""
    wanted = minor_release(version)

    def distance(profile):
        major, minor = minor_release(profile.name)
        return abs(major - wanted[0]), abs(minor - wanted[1]), -minor

    nearest = min(PROFILES, key=distance)
    return nearest, minor_release(nearest.name) != wanted


def capture_sizes(largest):
    """How many batch sizes vLLM captures graphs for: 1, 2, 4, then every 8 below 256 and every 16 from there."""
    return (
        sum(1 for size in (1, 2, 4) if size <= largest)
        + max(0, min(largest, 248) // 8)
        + (max(0, (largest - 256) // 16 + 1) if largest >= 256 else 0)
    )


def batch_defaults(gpu_total_bytes, gpu_name=""):
    """(max_num_batched_tokens, max_num_seqs) of the API server.

    Source: EngineArgs.get_batch_defaults of vLLM 0.26; the same since 0.10.
    """
    if gpu_total_bytes >= 70 * GIB and "a100" not in gpu_name.lower():
        return 8192, 1024
    return 2048, 256
