# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The vision tower of a model that takes images, from config.json."""

from __future__ import annotations

from typing import Mapping

from ansible_collections.inferops.gpu_host.plugins.module_utils._config_keys import (
    MOST_LAYERS,
    ConfigError,
    Keys,
    positive_number,
    whole_number,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.spec import VisionSpec

# What the tensors of towers are counted from, beside what VisionSpec holds.
VISION_COUNTS = (
    "in_channels",
    "in_chans",
    "num_channels",
    "temporal_patch_size",
    "num_position_embeddings",
    "position_embedding_size",
    "head_dim",
    "projector_input_dim",
    "projector_output_dim",
    "vision_output_dim",
)
# Keys that a family's towers cannot be counted without.
VISION_NEEDS = {
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"), ("num_position_embeddings",)),
    **dict.fromkeys(("siglip_vision_model", "clip_vision_model", "intern_vit_6b"), ("image_size",)),
    "llama4_vision_model": ("image_size", "projector_input_dim", "projector_output_dim"),
}


def read_vision(config):
    """The vision tower, or None."""
    for nested in ("thinker_config",):
        if isinstance(config.get(nested), Mapping):
            config = config[nested]
    raw = config.get("vision_config")
    if not isinstance(raw, Mapping):
        return None
    keys = Keys(raw)
    for name in VISION_COUNTS:
        keys.optional_count(name)
    if len(keys.listed("deepstack_visual_indexes")) > MOST_LAYERS:
        raise ConfigError("vision_config.deepstack_visual_indexes", "too many", f"at most {MOST_LAYERS}")
    for name, place in (("downsample_ratio", config), ("pixel_shuffle_ratio", raw)):
        if place.get(name):
            positive_number(name, place[name], 1)
    whole_number("spatial_merge_size", config.get("spatial_merge_size") or 0)
    family = str(raw.get("model_type") or config.get("model_type") or "")
    # Qwen2-VL calls the tower's width embed_dim and means the language model's by hidden_size.
    hidden = keys.optional_count("embed_dim", "hidden_size", "width", minimum=1)
    layers = keys.optional_count("depth", "num_hidden_layers", "layers", minimum=1)
    if not hidden or not layers:
        return None
    width = keys.optional_count("intermediate_size")
    if width is None:
        width = int(hidden * positive_number("vision_config.mlp_ratio", keys.get("mlp_ratio") or 4, 1000))
    image_size = keys.get("image_size") or config.get("force_image_size")
    if isinstance(image_size, (list, tuple)):
        image_size = image_size[0] if image_size else None
    if image_size is not None:
        image_size = whole_number("vision_config.image_size", image_size)
    for name in VISION_NEEDS.get(family, ()):
        if not (image_size if name == "image_size" else keys.get(name)):
            raise ConfigError("vision_config." + name, None, "an integer of at least 1; the key is missing")
    for name in ("vision_feature_layer", "select_layer"):
        if isinstance(config.get(name), int) and config[name] < -layers:
            raise ConfigError(name, config[name], f"one of the tower's {layers} layers")
    out = keys.optional_count("out_hidden_size")
    if out is None and family == "qwen2_vl":
        out = keys.optional_count("hidden_size")
    return VisionSpec(
        layers=layers,
        hidden_size=hidden,
        intermediate_size=width,
        heads=keys.count("num_heads", "num_attention_heads"),
        patch_size=keys.count("patch_size", "spatial_patch_size"),
        image_size=image_size,
        spatial_merge_size=keys.optional_count("spatial_merge_size") or 1,
        out_hidden_size=out or hidden,
        family=family,
        raw={**keys.defaults, **raw},
    )
