# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The activation peak: the most memory that one forward pass of vLLM's profiling run holds beside the weights."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB

CUBLAS_WORKSPACE = 33 * MIB  # allocated at the first 16-bit matrix product


def activation_peak(spec, tp, pp, stage, tokens, sequences, expert_parallel=False):
    """Bytes of the peak on a rank of `stage`."""
    hidden = tokens * spec.hidden_size * 2
    first, last = stage == 0, stage == pp - 1
    copies = 4 + (tp > 1) - (not first)
    feed_forward = tokens * 2 * 3 * spec.intermediate_size // tp
    peak = feed_forward + copies * hidden
    moe = spec.moe
    if moe:
        width = moe.intermediate_size if expert_parallel else moe.intermediate_size // tp
        workspace = 2 * tokens * moe.experts_per_token * (max(2 * width, spec.hidden_size) + width)
        peak = max(peak, workspace + copies * hidden)
        if last:
            peak = max(peak, 14 * sequences * spec.vocab_size + workspace + 2 * hidden + 100 * MIB)
    elif last:
        peak = max(peak, sequences * spec.vocab_size * 2 * (2 + (tp > 1)) + hidden)
    return peak + CUBLAS_WORKSPACE
