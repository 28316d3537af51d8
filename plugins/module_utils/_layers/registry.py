# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which kinds of layers there are. A new kind is a file beside this one and a line here."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils._layers import (
    attention,
    delta_net,
    experts,
    feed_forward,
    latent,
    mamba,
    short_conv,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.attention import AttentionSpec
from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.delta_net import (
    GatedDeltaNetSpec,
    KimiDeltaAttentionSpec,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.latent import LatentAttentionSpec
from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.mamba import Mamba1Spec, Mamba2Spec
from ansible_collections.inferops.gpu_host.plugins.module_utils._layers.short_conv import ShortConvSpec

SPECIAL_ATTENTIONS = (latent,)  # each `applies` to the models whose keys say so; all others have plain attention
STATES = {"linear": delta_net, "mamba": mamba, "conv": short_conv}
ATTENDING = ("full", "sliding", "chunked", "encoder")
BOTH = "hybrid"  # layers with full attention beside a Mamba (Falcon-H1)

# What config.json calls a kind in `layer_types` → the word above.
WORDS = {BOTH: BOTH}
for _room in (attention, *SPECIAL_ATTENTIONS, *STATES.values(), experts, feed_forward):
    WORDS.update(_room.WORDS)

PARTS = (
    AttentionSpec,
    LatentAttentionSpec,
    Mamba1Spec,
    Mamba2Spec,
    GatedDeltaNetSpec,
    KimiDeltaAttentionSpec,
    ShortConvSpec,
)
# The linear modules that a checkpoint may leave unquantized → the block of its names that they lie in.
MODULES = {module: part.BLOCK for part in PARTS for module in part.MODULES}


def read_attention(keys, kind):
    """The attention of a layer of this kind; None for layers that do not attend."""
    if kind != BOTH and kind not in ATTENDING:
        return None
    room = next((room for room in SPECIAL_ATTENTIONS if room.applies(keys)), attention)
    return room.read(keys, "full" if kind == BOTH else kind)


def read_state(keys, kind):
    """The state of a layer of this kind; None for layers that keep none."""
    room = mamba if kind == BOTH else STATES.get(kind)
    return room.read(keys) if room else None
