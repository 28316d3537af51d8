# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tensors of a vision tower and its projector on one rank."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils._units import ceil_div

ROTARY_POSITIONS = 8192  # rows of the rotary table that vLLM gives every tower of Qwen's family


def vision_tensors(spec, tp, itemsize):
    """The tower's tensors as (part, name, bytes, count, parameters); empty for a model without one.

    tp: ranks that the tower is sharded over, 1 where it is replicated.
    """
    if spec.vision is None:
        return ()
    tower = _Tower(spec, tp, itemsize)
    getattr(tower, TOWERS.get(spec.vision.family, "generic"))(spec.vision.raw)
    return tower.tensors


class _Tower:
    def __init__(self, spec, tp, itemsize):
        self.spec, self.vision, self.tp, self.itemsize = spec, spec.vision, tp, itemsize
        self.tensors = []

    def add(self, name, elements, count=1, part="vision", itemsize=None):
        parameters = elements if part == "vision" else 0
        self.tensors.append((part, name, elements * (itemsize or self.itemsize), count, parameters))

    def linear(self, name, inputs, outputs, bias=True, count=1):
        """Sizes are those of this rank."""
        self.add(name, inputs * outputs, count)
        if bias:
            self.add(name + ".bias", outputs, count)

    def norm(self, name, width, bias=True, count=1):
        self.add(name, width, count)
        if bias:
            self.add(name + ".bias", width, count)

    def share(self, size):
        return ceil_div(size, self.tp)

    def blocks(self, layers, norm_bias=True, bias=True, gated=False, qkv_bias=None):
        """The transformer blocks: two norms, attention over all heads, a feed-forward."""
        v = self.vision
        width, inner = v.hidden_size, self.share(v.intermediate_size)
        self.norm("norm", width, norm_bias, 2 * layers)
        self.linear("qkv", width, 3 * self.share(width), bias if qkv_bias is None else qkv_bias, layers)
        self.linear("proj", self.share(width), width, bias, layers)
        self.linear("fc1", width, inner * (2 if gated else 1), bias, layers)
        self.linear("fc2", inner, width, bias, layers)

    def patches(self, raw, frames=1, bias=True):
        channels = raw.get("in_channels") or raw.get("in_chans") or raw.get("num_channels") or 3
        size = self.vision.patch_size
        self.linear("patch_embed", channels * frames * size * size, self.vision.hidden_size, bias)

    def merger(self, norm_width, norm_bias=True, name="merger"):
        """Joins spatial_merge_size² patches and projects them into the language model."""
        merged = self.vision.hidden_size * self.vision.spatial_merge_size**2
        self.norm(name + ".norm", norm_width, norm_bias)
        self.linear(name + ".fc1", merged, self.share(merged))
        self.linear(name + ".fc2", self.share(merged), self.vision.out_hidden_size)

    def rotary(self):
        head_dim = self.vision.hidden_size // self.vision.heads
        self.add("rotary_pos_emb", ROTARY_POSITIONS * (head_dim // 2), part="rotary")

    def qwen2_vl(self, raw):
        self.patches(raw, raw.get("temporal_patch_size") or 2, bias=False)
        self.blocks(self.vision.layers)
        self.merger(self.vision.hidden_size)
        self.rotary()

    def qwen2_5_vl(self, raw):
        self.patches(raw, raw.get("temporal_patch_size") or 2, bias=False)
        self.blocks(self.vision.layers, norm_bias=False, gated=True)
        self.merger(self.vision.hidden_size, norm_bias=False)
        self.rotary()

    def qwen3_vl(self, raw):
        width = self.vision.hidden_size
        self.patches(raw, raw.get("temporal_patch_size") or 2)
        self.add("pos_embed", raw["num_position_embeddings"] * width)
        self.blocks(self.vision.layers)
        self.merger(width)
        for _index in raw.get("deepstack_visual_indexes") or ():
            self.merger(width * self.vision.spatial_merge_size**2, name="deepstack_merger")
        self.rotary()

    def siglip(self, raw):
        v, hidden = self.vision, self.spec.hidden_size
        self.patches(raw)
        self.add("position_embedding", (v.image_size // v.patch_size) ** 2 * v.hidden_size)
        self.blocks(v.layers)
        self.norm("post_layernorm", v.hidden_size)
        if self.spec.root_config.get("model_type") == "gemma3":
            self.add("projector", v.hidden_size * hidden)
            self.norm("projector.norm", v.hidden_size, bias=False)
        else:
            self.projector(v.hidden_size)

    def clip(self, raw):
        v = self.vision
        self.patches(raw, bias=False)
        self.add("class_embedding", v.hidden_size)
        self.add("position_embedding", ((v.image_size // v.patch_size) ** 2 + 1) * v.hidden_size)
        self.norm("pre_layernorm", v.hidden_size)
        last = self.spec.root_config.get("vision_feature_layer", -1)
        layers = v.layers + last + 1 if isinstance(last, int) and last < 0 else v.layers
        self.blocks(layers)
        if layers == v.layers:
            self.norm("post_layernorm", v.hidden_size)
        self.projector(v.hidden_size)

    def projector(self, inputs, bias=True):
        """LLaVA's two layers."""
        hidden = self.spec.hidden_size
        self.linear("linear_1", inputs, self.share(hidden), bias)
        self.linear("linear_2", self.share(hidden), hidden, bias)

    def pixtral(self, raw):
        v = self.vision
        self.patches(raw, bias=False)
        self.norm("ln_pre", v.hidden_size, bias=False)
        self.blocks(v.layers, norm_bias=False, bias=False, gated=True)
        root = self.spec.root_config
        if root.get("model_type") == "mistral3":
            merge = root.get("spatial_merge_size") or 2
            self.norm("projector.norm", v.hidden_size, bias=False)
            self.linear("patch_merger", v.hidden_size * merge**2, v.hidden_size, bias=False)
        self.projector(v.hidden_size, bool(root.get("multimodal_projector_bias", True)))

    def llama4(self, raw):
        v, hidden = self.vision, self.spec.hidden_size
        positions = (v.image_size // v.patch_size) ** 2 + 1
        inner = raw["projector_output_dim"]
        self.linear("patch_embedding", 3 * v.patch_size**2, self.share(v.hidden_size), bias=False)
        self.add("class_embedding", v.hidden_size)
        self.add("positional_embedding", positions * v.hidden_size)
        self.norm("layernorm_pre", v.hidden_size)
        self.norm("layernorm_post", v.hidden_size)
        self.blocks(v.layers)
        ratio = raw.get("pixel_shuffle_ratio") or 0.5
        self.linear("adapter.fc1", int(v.hidden_size // ratio**2), self.share(raw["projector_input_dim"]), bias=False)
        self.linear("adapter.fc2", self.share(raw["projector_input_dim"]), inner, bias=False)
        self.linear("projector", raw.get("vision_output_dim") or inner, self.share(hidden), bias=False)
        self.add("rotary_emb", positions * (v.hidden_size // v.heads // 2), part="rotary", itemsize=8)

    def intern_vit(self, raw):
        v, hidden = self.vision, self.spec.hidden_size
        self.patches(raw)
        self.add("class_embedding", v.hidden_size)
        self.add("position_embedding", ((v.image_size // v.patch_size) ** 2 + 1) * v.hidden_size)
        layers = self.vision.layers
        select = self.spec.root_config.get("select_layer", -1)
        if isinstance(select, int) and select < 0:
            layers = layers + select + 1
        # Heads that do not divide are padded: one rank then has more than its share.
        width, heads = v.hidden_size, self.share(v.heads) * self.tp
        sharded = width // v.heads * heads // self.tp
        self.norm("norm", width, raw.get("norm_type", "rms_norm") == "layer_norm", 2 * layers)
        self.linear("qkv", width, 3 * sharded, bool(raw.get("qkv_bias")), layers)
        self.linear("proj", sharded, width, True, layers)
        inner = self.share(v.intermediate_size)
        self.linear("fc1", width, inner, True, layers)
        self.linear("fc2", inner, width, True, layers)
        self.add("ls", width, 2 * layers)
        if raw.get("qk_normalization"):
            self.add("qk_norm", sharded * self.tp, 2 * layers)
        merged = width * int(1 / (self.spec.root_config.get("downsample_ratio") or 0.5)) ** 2
        self.norm("mlp1.norm", merged)
        self.linear("mlp1.fc1", merged, hidden)
        self.linear("mlp1.fc2", hidden, hidden)

    def gemma4(self, raw):
        v = self.vision
        width = v.hidden_size
        self.linear("patch_embedder", 3 * v.patch_size**2, width, bias=False)
        self.add("position_embedding_table", 2 * (raw.get("position_embedding_size") or 10240) * width)
        head_dim = raw.get("head_dim") or width // v.heads
        # Not sharded: this tower runs whole on every rank.
        self.linear("qkv", width, 3 * v.heads * head_dim, False, v.layers)
        self.linear("proj", v.heads * head_dim, width, False, v.layers)
        self.add("qk_norm", head_dim, 2 * v.layers)
        self.linear("fc1", width, 2 * v.intermediate_size, False, v.layers)
        self.linear("fc2", v.intermediate_size, width, False, v.layers)
        self.norm("norm", width, False, 4 * v.layers)
        self.linear("embed_vision", width, self.spec.hidden_size, bias=False)

    def generic(self, raw):
        """A tower not known here: the common shape of a vision transformer with a two-layer projector."""
        v = self.vision
        self.patches(raw)
        if v.image_size:
            self.add("position_embedding", (v.image_size // v.patch_size) ** 2 * v.hidden_size)
        self.blocks(v.layers)
        self.projector(v.hidden_size * v.spatial_merge_size**2)


TOWERS = {
    "qwen2_vl": "qwen2_vl",
    "qwen2_5_vl": "qwen2_5_vl",
    "qwen3_vl": "qwen3_vl",
    "qwen3_vl_moe": "qwen3_vl",
    "qwen3_5": "qwen3_vl",
    "qwen3_5_moe": "qwen3_vl",
    "siglip_vision_model": "siglip",
    "clip_vision_model": "clip",
    "pixtral": "pixtral",
    "llama4_vision_model": "llama4",
    "intern_vit_6b": "intern_vit",
    "gemma4_vision": "gemma4",
}
