# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each vLLM version does by default, and the memory it takes that follows from no configuration. Every figure
with its source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB


@dataclass(frozen=True)
class EngineProfile:
    """One calibrated vLLM version. Sizes in bytes."""

    name: str
    gpu_memory_utilization: float  # default
    subtracts_cuda_graphs: bool  # from the pool, by an estimate
    non_torch_alone: int  # growth outside PyTorch between the first snapshot and the end of profiling, one rank
    non_torch_parallel: int  # the same with several ranks
    in_use_alone: int  # CUDA context at the first snapshot: not taken from the pool, but not free at start
    in_use_parallel: int  # the same with NCCL


# 0.26: 27 starts on H200 (tests/ground_truth/vllm-0.26.0-h200.json).
PROFILE_0_26 = EngineProfile(
    "0.26",
    gpu_memory_utilization=0.92,
    subtracts_cuda_graphs=True,
    non_torch_alone=int(0.22 * GIB),
    non_torch_parallel=int(0.06 * GIB),
    in_use_alone=int(0.51 * GIB),
    in_use_parallel=int(1.95 * GIB),
)

# 0.19: published runs on H100-80GB (tests/ground_truth/vllm-0.19.0-h100.json).
PROFILE_0_19 = EngineProfile(
    "0.19",
    gpu_memory_utilization=0.9,
    subtracts_cuda_graphs=False,
    non_torch_alone=int(0.25 * GIB),
    non_torch_parallel=int(2.1 * GIB),
    in_use_alone=int(0.51 * GIB),
    in_use_parallel=int(1.95 * GIB),
)

PROFILES = (PROFILE_0_19, PROFILE_0_26)


def profile_for(version):
    """(profile, extrapolated): the calibrated profile nearest to a vLLM version such as "0.26.0" or "v0.20.1"."""
    wanted = _minor(version)
    nearest = min(PROFILES, key=lambda p: (abs(_minor(p.name) - wanted), -_minor(p.name)))
    return nearest, _minor(nearest.name) != wanted


def _minor(version):
    parts = str(version).strip().lstrip("v").split(".")
    try:
        return int(parts[0]) * 1000 + int(parts[1])
    except (IndexError, ValueError):
        raise ValueError(f"engine version is {version!r}, wanted one such as 0.26.0") from None


def batch_defaults(gpu_total_bytes, gpu_name="") -> Tuple[int, int]:
    """(max_num_batched_tokens, max_num_seqs) of the API server.

    Source: EngineArgs.get_batch_defaults of vLLM 0.26; the same since 0.10.
    """
    if gpu_total_bytes >= 70 * GIB and "a100" not in gpu_name.lower():
        return 8192, 1024
    return 2048, 256
