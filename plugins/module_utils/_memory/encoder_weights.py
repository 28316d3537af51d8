# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tensors of an encoder-only model (embedding, rerank) on one rank."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils._units import ceil_div, round_up

HEAD_BYTES = 4  # vLLM runs classification heads in float32
PADDING = 64


def encoder_tensors(spec, block, tp, itemsize):
    """The model's tensors as (part, name, bytes, count, parameters).

    block: bert | modernbert | nomic | new: how its layers are built.
    """
    model = _Encoder(spec, tp, itemsize)
    getattr(model, block)(spec.config)
    return model.tensors


class _Encoder:
    def __init__(self, spec, tp, itemsize):
        self.spec, self.tp, self.itemsize = spec, tp, itemsize
        self.hidden, self.layers = spec.hidden_size, spec.num_layers
        self.inner = ceil_div(spec.intermediate_size, tp)
        self.width = ceil_div(spec.heads * spec.head_dim, tp)
        self.tensors = []

    def add(self, part, name, elements, count=1, itemsize=None):
        self.tensors.append((part, name, elements * (itemsize or self.itemsize), count, elements))

    def linear(self, part, name, inputs, outputs, bias=True, count=None, itemsize=None):
        count = self.layers if count is None else count
        self.add(part, name, inputs * outputs, count, itemsize)
        if bias:
            self.add(part, name + ".bias", outputs, count, itemsize)

    def norm(self, name, count=1, bias=True):
        for suffix in ("", ".bias") if bias else ("",):
            self.add("norm", name + suffix, self.hidden, count)

    def table(self, name, rows):
        """An embedding, padded and sharded like a vocabulary."""
        if rows:
            self.add("embedding", name, round_up(rows, PADDING) // self.tp * self.hidden)

    def rotary(self, rows, tables=1):
        size = rows * self.spec.head_dim * self.itemsize
        self.tensors.append(("rotary", "cos_sin_cache", size, tables, 0))

    def classifier(self, bias=True):
        if self.spec.kind in ("rerank", "classify"):
            self.linear("head", "classifier", self.hidden, self.spec.num_labels, bias, 1, HEAD_BYTES)

    def dense_head(self):
        self.linear("head", "dense", self.hidden, self.hidden, True, 1, HEAD_BYTES)

    def bert(self, config):
        self.table("word_embeddings", self.spec.vocab_size)
        self.table("position_embeddings", self.spec.max_position_embeddings)
        self.table("token_type_embeddings", config.get("type_vocab_size", 2))
        self.norm("embedding_norm")
        self.linear("attention", "qkv", self.hidden, 3 * self.width)
        self.linear("attention", "output", self.width, self.hidden)
        self.linear("mlp", "intermediate", self.hidden, self.inner)
        self.linear("mlp", "output", self.inner, self.hidden)
        self.norm("layer_norm", 2 * self.layers)
        if self.spec.kind == "rerank":
            self.dense_head()  # BERT calls it pooler
        self.classifier()

    def modernbert(self, config):
        self.table("tok_embeddings", self.spec.vocab_size)
        bias = bool(config.get("norm_bias"))
        self.norm("embedding_norm", 1, bias)
        attention, mlp = bool(config.get("attention_bias")), bool(config.get("mlp_bias"))
        self.linear("attention", "Wqkv", self.hidden, 3 * self.width, attention)
        self.linear("attention", "Wo", self.width, self.hidden, attention)
        self.linear("mlp", "Wi", self.hidden, 2 * self.inner, mlp)
        self.linear("mlp", "Wo", self.inner, self.hidden, mlp)
        self.norm("layer_norm", 2 * self.layers - 1, bias)  # the first attention has none
        self.norm("final_norm", 1, bias)
        if self.spec.kind == "rerank":
            self.add("head", "pooling.dense", self.hidden**2, 1, HEAD_BYTES)
            self.add("head", "pooling.norm", self.hidden, 1, HEAD_BYTES)
        self.classifier()
        self.rotary(self.spec.max_position_embeddings, 2)  # local and global layers rotate differently

    def nomic(self, config):
        self.table("word_embeddings", self.spec.vocab_size)
        self.table("token_type_embeddings", config.get("type_vocab_size", 2))
        self.norm("embedding_norm")
        bias = bool(config.get("qkv_proj_bias"))
        self.linear("attention", "qkv_proj", self.hidden, 3 * self.width, bias)
        self.linear("attention", "out_proj", self.width, self.hidden, bias)
        gated = "glu" in str(config.get("activation_function", ""))
        self.linear("mlp", "up", self.hidden, self.inner * (2 if gated else 1), bool(config.get("mlp_fc1_bias")))
        self.linear("mlp", "down", self.inner, self.hidden, bool(config.get("mlp_fc2_bias")))
        self.norm("layer_norm", 2 * self.layers)
        self.classifier()
        self.rotary(config.get("max_trained_positions") or self.spec.max_position_embeddings)

    def new(self, config):
        """Alibaba's gte: rotary positions, gated feed-forward without bias on its way up."""
        self.table("word_embeddings", self.spec.vocab_size)
        self.table("token_type_embeddings", config.get("type_vocab_size", 0))
        self.norm("embedding_norm")
        self.linear("attention", "qkv_proj", self.hidden, 3 * self.width)
        self.linear("attention", "out_proj", self.width, self.hidden)
        self.linear("mlp", "up", self.hidden, 2 * self.inner, False)
        self.linear("mlp", "down", self.inner, self.hidden)
        self.norm("layer_norm", 2 * self.layers)
        if self.spec.kind == "rerank":
            self.dense_head()
        self.classifier()
        self.rotary(self.spec.max_position_embeddings)
