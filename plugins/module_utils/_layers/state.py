# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the layers that keep a state per request, whatever its length, have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.part import CachedLayer, LayerPart, divides


@dataclass(frozen=True)
class StateSpec(LayerPart):
    """The convolution's state is conv_width × (conv_kernel − 1), the recurrent state heads × head_dim × state_size.
    A kind without one of them has 0 there."""

    conv_kernel: int
    conv_width: int  # channels that the causal convolution sees, all ranks together
    heads: int = 0
    head_dim: int = 0
    state_size: int = 0
    groups: int = 1  # B/C groups of Mamba 2 or key heads of a delta net: replicated when fewer than ranks
    key_head_dim: int = 0
    dt_rank: int = 0
    ssm_dtype: Optional[str] = None  # of the recurrent state; None: the model's dtype

    kind = ""  # a word for people and for counting
    BLOCK = "state"

    def shapes(self, tp=1):
        """State tensors of one request on one rank, as tuples: (convolution, recurrent) less those absent."""
        shapes = []
        width = self.conv_columns(tp)
        if self.conv_kernel > 1 and width:
            shapes.append((self.conv_kernel - 1, width // tp))
        if self.state_size:
            shapes.append(self.recurrent_shape(tp))
        return tuple(shapes)

    def conv_columns(self, tp):
        """Channels of the convolution over all ranks, replicated ones counted."""
        return self.conv_width

    def recurrent_shape(self, tp):
        return (self.heads // tp, self.head_dim, self.state_size)

    def state_bytes(self, tp, dtype, itemsizes):
        """Bytes of one request's state in one layer on one rank. itemsizes: {dtype: bytes}."""
        shapes = self.shapes(tp)
        total = 0
        for position, shape in enumerate(shapes):
            recurrent = self.state_size and position == len(shapes) - 1
            elements = 1
            for size in shape:
                elements *= size
            total += elements * itemsizes.get((self.ssm_dtype if recurrent else None) or dtype, 2)
        return total

    def cache(self, tp, dtype, itemsizes):
        size = self.state_bytes(tp, dtype, itemsizes)
        yield CachedLayer("state", size, 0, None, size)

    def refusals(self, tp, ep=False):
        return divides("state_heads", "Heads of the layers with a state", self.heads, tp)
