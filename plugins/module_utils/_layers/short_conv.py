# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Short convolutions in place of attention (LFM2)."""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.part import divides
from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.state import StateSpec

WORDS = {"conv": "conv"}


@dataclass(frozen=True)
class ShortConvSpec(StateSpec):
    kind = "short_conv"
    MODULES = ("in_proj", "out_proj")

    def tensors(self, rank):
        hidden, width = rank.spec.hidden_size, rank.share(self.conv_width)
        rank.add("state", "conv", width * self.conv_kernel)
        rank.linear("state", "in_proj", hidden, (width, width, width))
        rank.linear("state", "out_proj", width, (hidden,))

    def refusals(self, tp, ep=False):
        return divides("state_width", "The convolution's width", self.conv_width, tp)


def read(keys):
    return ShortConvSpec(keys.count("conv_L_cache"), keys.count("conv_dim", "hidden_size"))
