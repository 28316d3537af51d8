# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The activation peak: the most that vLLM's profiling run holds at once, beside the weights.

vLLM runs one batch of max_num_batched_tokens and then samples for max_num_seqs requests; the peak is the largest of a
few moments. Each is written here as the sum of the tensors that live in it, as a trace of the allocator showed them on
vLLM 0.26.0 (H200; tests/ground_truth/vllm-0.26.0-h200-own.json).
"""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.memo import SpecMemo
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.architectures import traits_of
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB, ceil_div, round_up

CUBLAS_WORKSPACE = 32 * MIB  # PyTorch's on Hopper, from the first 16-bit matrix product on
TUNING_BUFFER = 60 * MIB  # what Inductor flushes the L2 cache with while it times kernels
SMALL = 2 * MIB  # positions, indices, router logits and the like
SAMPLER_SMS = 132  # the top-k/top-p kernel keeps one row of the vocabulary per multiprocessor (H100, H200)
VOCABULARY_PADDING = 64
ENCODER_HELD = 4

# Mixtures of experts that run on the new model runner; every dense decoder does. (vllm/config/vllm.py)
NEW_RUNNER_MOE = (
    "DeepseekV2ForCausalLM",
    "GraniteMoeForCausalLM",
    "LongcatFlashNgramForCausalLM",
    "Qwen2MoeForCausalLM",
)
# Feed-forwards that let go of the gate and up projections before they project down (vllm/model_executor/models/llama.py
# and what is built from it); all others hold them.
FRUGAL_MLP = (
    "ArceeForCausalLM",
    "Ernie4_5ForCausalLM",
    "FalconH1ForCausalLM",
    "Glm4ForCausalLM",
    "GlmForCausalLM",
    "HyperCLOVAXForCausalLM",
    "JambaForCausalLM",
    "Llama4ForConditionalGeneration",
    "LlamaForCausalLM",
    "Mistral3ForConditionalGeneration",
    "MistralForCausalLM",
    "Phi3ForCausalLM",
    "TeleChat2ForCausalLM",
    "TeleFLMForCausalLM",
)
SAMPLING_REST_0_19 = int(0.1 * 1024) * MIB  # what 0.19's sampling holds beside logits and states, fitted


@dataclass(frozen=True)
class Batch:
    """What the profiling run is run with."""

    tokens: int  # max_num_batched_tokens
    sequences: int  # max_num_seqs
    max_model_len: int
    block_size: int
    compiled: bool  # not enforce_eager
    itemsize: int = 2  # bytes of an activation


class _Shape:
    """What the moments need to know of a model, gathered once."""

    def __init__(self, spec):
        self.hidden_size, self.vocab_size = spec.hidden_size, spec.vocab_size
        self.architecture, self.generates = spec.architecture, spec.kind == "generate"
        self.encoder_only, self.vision = spec.encoder_only, spec.vision is not None
        self.states = bool(spec.state_layers)
        self.attentions = spec.attentions
        self.dense = spec.intermediate_size
        self.moe = spec.moe
        self.gated = traits_of(spec)["gated"]
        self.gemma = spec.model_type.startswith("gemma")
        self.softcap = bool(spec.config.get("final_logit_softcapping"))
        self.quantized = spec.quantization is not None
        self.quantizes_activations = (
            self.quantized and spec.quantization.weights == "fp8" and bool(spec.quantization.activations)
        )
        self.mxfp4 = self.quantized and spec.quantization.weights == "mxfp4"
        self.new_runner = (
            self.generates
            and not self.states
            and bool(self.attentions)
            and (self.moe is None or spec.architecture in NEW_RUNNER_MOE)
        )


_memo = SpecMemo()


def shape_of(spec):
    return _memo.get(spec, "shape", lambda: _Shape(spec))


def new_model_runner(spec):
    """Whether vLLM 0.26 serves the model with its new runner: dense decoders, and few mixtures of experts."""
    return shape_of(spec).new_runner


def activation_peak(spec, tp, pp, stage, batch, expert_parallel=False):
    """Bytes of the peak on a rank of pipeline stage `stage`, as vLLM 0.26 reports it."""
    return max(_Moments(spec, tp, pp, stage, batch, expert_parallel).all())


def activation_peak_0_19(spec, tp, pp, stage, batch, expert_parallel=False):
    """The same of vLLM 0.17 to 0.19. Fits 20 published runs (tests/ground_truth/vllm-0.19.0-h100.json)."""
    hidden = batch.tokens * spec.hidden_size * batch.itemsize
    width = spec.intermediate_size // tp
    moe = _experts_buffers_0_19(spec, tp, batch, expert_parallel)
    peak = batch.itemsize * batch.tokens * (3 * width + 4 * spec.hidden_size)
    if stage == pp - 1 and spec.kind == "generate":
        peak = max(peak, 14 * batch.sequences * spec.vocab_size + 2 * hidden // batch.itemsize + SAMPLING_REST_0_19)
    return int(peak + moe)


def _experts_buffers_0_19(spec, tp, batch, expert_parallel):
    if not spec.moe:
        return 0
    width = spec.moe.intermediate_size if expert_parallel else spec.moe.intermediate_size // tp
    rows = batch.tokens * spec.moe.experts_per_token
    return batch.itemsize * rows * (max(2 * width, spec.hidden_size) + width)


class _Moments:
    """The moments of one profiling run at which its peak can fall, in bytes."""

    cublas_workspace = CUBLAS_WORKSPACE

    def __init__(self, spec, tp, pp, stage, batch, expert_parallel):
        self.shape, self.tp, self.batch = shape_of(spec), tp, batch
        self.first, self.last = stage == 0, stage == pp - 1
        self.token = batch.tokens * batch.itemsize  # bytes of one column of an activation
        self.hidden = self.token * spec.hidden_size
        self.workspace = self._experts_workspace(expert_parallel)
        # The new runner receives the hidden states and the residual of the stage before in tensors that it made with
        # the model; they are no part of the peak.
        self.received = 1 if not self.first and self.shape.new_runner and not batch.compiled else 0

    def all(self):
        yield SMALL
        if self.shape.encoder_only:
            yield self.encoder()
            return
        if self.shape.dense:
            yield self.feed_forward(self.shape.dense)
        if self.shape.moe:
            yield self.experts()
        if self.shape.attentions:
            yield self.attention()
        if self.batch.compiled and self.first and not self.shape.vision:
            yield self.embedding_tuning()
        if self.last and self.shape.generates:
            yield self.logits() if self.shape.new_runner else self.sampling()

    def feed_forward(self, width):
        """The widest dense feed-forward: gate, up and their product beside the hidden states still referred to."""
        inner = self.token * width // self.tp
        projected = (3 if self.shape.gated else 2) * inner
        if self.batch.compiled:
            heads = self.shape.attentions[0].columns(self.tp) if self.shape.attentions else 0
            return projected + 2 * self.hidden + self.token * heads + TUNING_BUFFER + CUBLAS_WORKSPACE
        frugal = self.shape.architecture in FRUGAL_MLP
        copies = 3 if frugal else 4 + (self.tp > 1) + self.shape.gemma
        quantized_input = 0
        if not frugal and self.shape.quantizes_activations:
            quantized_input = inner // self.batch.itemsize
            quantized_input += quantized_input // 32  # one float32 scale per 128
        return projected + (copies - self.received) * self.hidden + quantized_input + self._cublas()

    def experts(self):
        """Routed experts, with the shared ones computed before them."""
        moe = self.shape.moe
        shared = 3 * self.token * moe.shared_intermediate_size // self.tp
        return self.workspace + shared + 4 * self.hidden + self._cublas() + SMALL

    def attention(self):
        """The widest attention, once the experts' workspace is there."""
        return self.workspace + max(attention.profiled_bytes(self) for attention in self.shape.attentions)

    def embedding_tuning(self):
        """Inductor times the embedding's kernel on a stand-in for the table. A warm compile cache spares this."""
        rows = round_up(self.shape.vocab_size, VOCABULARY_PADDING) // self.tp
        table = rows * self.shape.hidden_size * self.batch.itemsize
        return table + self.hidden + max(self.hidden, TUNING_BUFFER)

    def logits(self):
        """The new runner samples in place: the logits, gathered from all ranks and put in order."""
        logits = self._logits_bytes()
        gathered = logits // self.tp + 2 * logits if self.tp > 1 else logits
        if self.shape.softcap:
            gathered = max(gathered, 2 * logits)
        return self.workspace + gathered + self._final_states(1) + CUBLAS_WORKSPACE + SMALL

    def sampling(self):
        """The old runner samples in float32: logits, probabilities and noise, and the top-k kernel's rows."""
        logits = self._logits_bytes()
        float32 = 4 * self.batch.sequences * self.shape.vocab_size
        rows = 4 * SAMPLER_SMS * self.shape.vocab_size
        received = 0 if self.first else 2 * self.hidden
        held = self.workspace + self._final_states(2) + received
        return logits + 3 * float32 + rows + held + CUBLAS_WORKSPACE + SMALL

    def encoder(self):
        """Encoders are not profiled, so this is what they hold once they run: four times the feed-forward's moment,
        by two runs (0.90 GiB each, bge-m3 and bge-large-zh)."""
        return ENCODER_HELD * (2 * self.token * self.shape.dense // self.tp + 6 * self.hidden) + CUBLAS_WORKSPACE

    def _experts_workspace(self, expert_parallel):
        """Two buffers that the fused experts take once and keep; none for MXFP4, whose kernels bring their own."""
        moe = self.shape.moe
        if not moe or self.shape.mxfp4:
            return 0
        width = moe.intermediate_size if expert_parallel else ceil_div(moe.intermediate_size, self.tp)
        rows = self.token * moe.experts_per_token
        return rows * (max(width, self.shape.hidden_size) + max(2 * width, self.shape.hidden_size))

    def _logits_bytes(self):
        return min(self.batch.sequences, self.batch.tokens) * self.shape.vocab_size * self.batch.itemsize

    def _final_states(self, copies):
        """The final hidden states of all tokens, and of the sampled ones."""
        sampled = min(self.batch.sequences, self.batch.tokens) * self.shape.hidden_size * self.batch.itemsize
        return self.hidden + copies * sampled

    def _cublas(self):
        return 0 if self.shape.quantized else CUBLAS_WORKSPACE
