# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every kind of layer says of itself. A new kind is a file beside this one and a line in registry.py.

A room of a kind has

    WORDS               what config.json calls such layers in `layer_types` → the word that registry.py knows
    read(keys, …)       its keys of config.json → a part, or a ConfigError that names the key
    a LayerPart         its tensors, its cache, its refusals, and how much of it is alive while vLLM measures the peak

The objects that a part talks to are those of _memory: `rank` collects the tensors of one rank (weights.py), `moments`
knows the profiling run (activations.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Optional


@dataclass(frozen=True)
class Refusal:
    """Why vLLM would not start. code: stable, for tests and translations; reason: one sentence; numbers: what it is
    made of."""

    code: str
    reason: str
    numbers: Mapping = field(default_factory=dict, compare=False)


def divides(code, what, size, tp):
    """The refusal of a size that tensor parallelism does not divide, as a list of at most one."""
    if size % tp == 0:
        return []
    return [
        Refusal(code, f"{what} ({size}) must be divisible by tensor parallel size ({tp})", {"size": size, "tp": tp})
    ]


@dataclass(frozen=True)
class CachedLayer:
    """What one layer keeps: kind is full, sliding, chunked, mla, indexer or state; a state has no tokens."""

    kind: str
    token_bytes: int  # of one token on one rank; of the whole state for a state
    block_size: int  # tokens per block
    window: Optional[int] = None
    page_bytes: int = 0

    @property
    def attends_to_all(self):
        return self.kind in ("full", "mla", "indexer")


class LayerPart:
    """A part of a layer: its attention, its state, its experts. What a kind does not have it does not say."""

    BLOCK = "attention"  # the block of a checkpoint's names that its modules lie in: attention | state | mlp
    MODULES = ()  # its linear modules, as vLLM names them, that a checkpoint may leave unquantized

    def tensors(self, rank):
        """Adds what one rank loads of it."""
        raise NotImplementedError

    def refusals(self, tp, ep=False):
        """Every reason that vLLM has against sharding it over `tp` ranks. ep: experts are dealt out whole."""
        return []

    def sharded_linears(self, hidden, tp):
        """(module, inputs, their share, outputs of one rank) of the linear layers that quantization may not cut."""
        return ()
