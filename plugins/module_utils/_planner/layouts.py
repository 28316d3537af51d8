# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layouts that a service could have on one kind of GPU, each with its verdict and its figures."""

from __future__ import annotations

import math
from dataclasses import replace

from ansible_collections.inferops.gpu_host.plugins.module_utils._memory import rules
from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.estimate import (
    Engine,
    Layout,
    estimate,
    naive_bytes,
    naive_estimate,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.profiles import profile_for
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner import performance
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GB, GIB
from ansible_collections.inferops.gpu_host.plugins.module_utils._versions import (
    DEFAULT_ENGINE_VERSION,
    engine_version_of,
    minor_release,
)

MOST_HOSTS = 16  # of one replica
# An automatic length keeps this much of the cache back: the estimate's worst error on measured runs is 3 %.
AUTO_LENGTH_MARGIN = 0.03
# A fitted share (several services on one GPU) keeps this much above the least that serves.
SHARE_MARGIN = 0.03
POOLING_MARGIN = 0.15  # embedding and rerank models have no cache to give way
CUDA_13_SINCE = (0, 20)
OLDEST_CAPABILITY = 7.5  # of images with CUDA 13: vLLM 0.20 and newer
LABELS_GB = (8, 11, 12, 16, 20, 24, 32, 40, 48, 64, 80, 94, 96, 141, 144, 180, 192, 288)

SHORT_CONTEXT = 4096  # a service without a wanted length is not cut below this to make room for others

REFUSED, TOO_SMALL, NEEDLESS, POSSIBLE = "refused", "does not fit", "needless", "possible"


class Subject:
    """A service together with what is known of its model."""

    def __init__(self, service, spec=None, kind=None, engine_version=DEFAULT_ENGINE_VERSION):
        self.service = service
        self.spec = spec  # None: only a parameter count is known
        self.type = service["type"] or kind or "chat"
        self.engine_version = engine_version_of(service, default=engine_version)
        self.parameters = performance.count_parameters(spec) if spec else None
        self.notes = []
        self.weights_bytes = None  # what the hub's listing says

    @property
    def name(self):
        return self.service["name"]

    @property
    def pooling(self):
        """An encoder: no cache, so its share is what it needs and no more."""
        return self.spec is not None and self.spec.encoder_only

    @property
    def total_parameters(self):
        return self.service["parameters"] or (self.parameters.total if self.parameters else 0)

    def bytes_per_parameter(self):
        quantization = self.service["quantization"]
        if self.spec is not None and self.spec.quantization is not None:
            return self.spec.quantization.bits / 8
        if quantization:
            return 0.5 if "4" in quantization or quantization in ("awq", "gptq", "bitsandbytes") else 1.0
        return 4.0 if self.service["dtype"] == "float32" else 2.0

    def files_bytes(self):
        """What the model's files take on a disk: as listed, or counted from its configuration; 0 is unknown."""
        return self.weights_bytes or math.ceil(self.total_parameters * self.bytes_per_parameter())

    @property
    def quantization(self):
        """How its weights are quantized, by name; None when they are not."""
        found = self.spec.quantization if self.spec is not None else None
        return self.service["quantization"] or (found.method if found else None)


class Candidate:
    """One layout of one service on one kind of GPU."""

    __slots__ = (
        "dtype",
        "estimate",
        "expert_parallel",
        "hosts",
        "kind",
        "max_model_len",
        "pp",
        "reason",
        "shortened",
        "speed",
        "tp",
        "utilization",
        "verdict",
    )

    def __init__(self, kind, tp, pp, hosts, expert_parallel=False):
        self.kind, self.tp, self.pp, self.hosts, self.expert_parallel = kind, tp, pp, hosts, expert_parallel
        self.verdict, self.reason = POSSIBLE, ""
        self.estimate = self.speed = self.dtype = self.utilization = self.max_model_len = None
        self.shortened = False

    @property
    def gpus(self):
        return self.tp * self.pp

    def refuse(self, reason, verdict=REFUSED):
        self.verdict, self.reason = verdict, reason
        return self

    def layout(self, replicas=1):
        """What `vllm serve` is told, and how often."""
        return {
            "tensor_parallel_size": self.tp,
            "pipeline_parallel_size": self.pp,
            "replicas": replicas,
            "expert_parallel": self.expert_parallel,
            "dtype": self.dtype,
        }

    def where(self):
        """What it takes: the kind of GPU, and the hosts of one replica."""
        return {"gpu": self.kind.name if self.kind else None, "hosts": self.hosts}

    def least_bytes(self, subject, tight=False):
        """What one GPU must have left for this layout: the least that serves, and the CUDA context beside it.

        tight: a context that nobody asked for may be cut.
        """
        found, service = self.estimate, subject.service
        if (
            tight
            and service["max_model_len"] in (None, "auto")
            and not service["concurrency"]
            and found.kv_cache_tokens
        ):
            found = run_estimate(subject, self, self.utilization, min(SHORT_CONTEXT, found.max_model_len))
        margin = POOLING_MARGIN if subject.pooling else SHARE_MARGIN
        return int(found.minimum * (1 + margin)) + max(rank.in_use for rank in found.ranks)


def label_gb(kind):
    """The GB on the card's box: the smallest usual size that is not below what CUDA sees."""
    return next((size for size in LABELS_GB if size * GIB >= kind.total), round(kind.total / GB))


def naive(subject, kind=None, gpus_per_host=None):
    """The rule of thumb that people use, beside the plan so that they can compare: parameters × bytes × 1.2."""
    parameters = subject.total_parameters
    if not parameters:
        return None
    total = naive_bytes(parameters, subject.bytes_per_parameter())
    answer = {"rule": "parameters × bytes per parameter × 1.2", "parameters": parameters, "bytes": total}
    if kind:
        answer["gpus"] = math.ceil(total / (label_gb(kind) * GB))
        if gpus_per_host:
            answer["hosts"] = math.ceil(total / (label_gb(kind) * GB * gpus_per_host))
    return answer


def shapes(subject, widths, hosts):
    """(tp, pp, hosts of one replica) worth a look, for hosts that have `widths` GPUs of one kind (most first)."""
    service = subject.service
    widest = widths[0]
    fixed_tp, fixed_pp = service["tensor_parallel_size"], service["pipeline_parallel_size"]
    if subject.spec is None and not fixed_tp and not fixed_pp:
        # Without a configuration only what every model is likely to accept.
        inside = [(1 << power, 1, 1) for power in range(widest.bit_length()) if 1 << power <= widest]
        return inside + [(inside[-1][0], count, count) for count in range(2, min(MOST_HOSTS, hosts) + 1)]
    layers = subject.spec.num_layers if subject.spec else 10**6
    found = []
    for tp in [fixed_tp] if fixed_tp else range(1, widest + 1):
        if tp > widest:
            found.append((tp, fixed_pp or 1, 0))
            continue
        stages = widest // tp
        for pp in [fixed_pp] if fixed_pp else range(1, min(stages, layers) + 1):
            if pp <= stages:
                found.append((tp, pp, 1))
            else:
                found.append((tp, pp, _hosts_for(tp, pp, widths)))
        # Across hosts only whole hosts are worth it, cut once or twice.
        if not fixed_pp and hosts > 1 and stages in (1, 2):
            found.extend(
                (tp, stages * count, count)
                for count in range(2, min(MOST_HOSTS, hosts) + 1)
                if stages * count <= layers and widths[count - 1] >= tp * stages
            )
    return found


def _hosts_for(tp, pp, widths):
    """The fewest hosts that hold pp stages, the same number each; 0 when there are not enough."""
    for count in range(2, len(widths) + 1):
        if pp % count == 0 and pp // count * tp <= widths[count - 1]:
            return count
    return 0


def candidates(subject, kind, widths):
    """Every layout of `subject` on hosts that have `widths` GPUs of `kind`, most first."""
    result = []
    grown = {}
    for tp, pp, hosts in shapes(subject, widths, len(widths)):
        # More hosts than the first number that is enough, and one to spare, only waste them.
        if hosts > 2 and grown.get(tp, 0) >= 2:
            continue
        candidate = judge(subject, kind, tp, pp, hosts, widths)
        result.append(candidate)
        if hosts > 1 and candidate.verdict == POSSIBLE and not candidate.shortened:
            grown[tp] = grown.get(tp, 0) + 1
    _drop_needless(result)
    return result


def _drop_needless(found):
    """More stages than a width needs only add waiting: a replica makes more of the same GPUs."""
    enough = {}
    for candidate in found:
        if candidate.verdict == POSSIBLE and not candidate.shortened:
            enough[candidate.tp] = min(candidate.pp, enough.get(candidate.tp, candidate.pp))
    for candidate in found:
        least = enough.get(candidate.tp, candidate.pp)
        if candidate.verdict == POSSIBLE and candidate.pp > least:
            candidate.refuse(f"{least} stage{'s are' if least > 1 else ' is'} enough", NEEDLESS)


def judge(subject, kind, tp, pp, hosts, widths, utilization=None):
    """One layout with its verdict. `utilization` overrides the share (a GPU that is shared)."""
    service = subject.service
    candidate = Candidate(kind, tp, pp, hosts, bool(service["expert_parallel"]))
    if hosts == 0:
        return candidate.refuse(_too_wide(tp, pp, widths))
    refusal = unsupported(subject, kind)
    if refusal:
        return candidate.refuse(refusal)
    candidate.dtype = choose_dtype(subject, kind)
    if subject.spec is None:
        return _judge_by_count(subject, candidate)
    reason = refused_by_vllm(subject, kind, candidate)
    if reason and subject.spec.moe and service["expert_parallel"] is None and tp > 1:
        # Experts dealt out whole can be had where their slices cannot.
        candidate.expert_parallel = not refused_by_vllm(subject, kind, _whole_experts(candidate))
        reason = "" if candidate.expert_parallel else reason
    if reason:
        return candidate.refuse(reason)
    return _judge_by_memory(subject, candidate, utilization)


def _whole_experts(candidate):
    other = Candidate(candidate.kind, candidate.tp, candidate.pp, candidate.hosts, True)
    other.dtype = candidate.dtype
    return other


def _too_wide(tp, pp, widths):
    if tp > widths[0]:
        return (
            f"tensor_parallel_size {tp} needs {tp} equal GPUs in one host, the largest has {widths[0]}: "
            f"tensor parallelism across hosts is slow, use tensor_parallel_size {widths[0]} and "
            f"pipeline_parallel_size {math.ceil(tp * pp / widths[0])}"
        )
    return f"{pp} stages of {tp} GPUs do not spread evenly over {len(widths)} hosts of {widths[0]} GPUs"


def unsupported(subject, kind):
    """Why the engine's images do not run on this kind of GPU, or ''."""
    if kind.capability >= OLDEST_CAPABILITY or subject.service["image"]:
        return ""
    if minor_release(subject.engine_version) < CUDA_13_SINCE:
        return ""
    return (
        f"{kind.name} has compute capability {kind.capability:g}; images of vLLM {subject.engine_version} need "
        f"{OLDEST_CAPABILITY:g}: set image and engine_version to one before 0.20 that still carries its kernels"
    )


def choose_dtype(subject, kind):
    """What the model runs in on this GPU; the operator's choice is never changed."""
    fixed = subject.service["dtype"]
    if fixed:
        return fixed
    stored = subject.spec.dtype if subject.spec else None
    if kind is not None and kind.capability < rules.BFLOAT16_FLOOR:
        return "float32" if subject.spec and subject.spec.model_type in rules.FLOAT16_UNSTABLE else "float16"
    return "bfloat16" if stored in (None, "bfloat16") else "float16"


def refused_by_vllm(subject, kind, candidate):
    """vLLM's first reason against this layout, or ''."""
    found = rules.refusals(
        subject.spec,
        candidate.tp,
        candidate.pp,
        candidate.expert_parallel,
        candidate.dtype,
        compute_capability=kind.capability,
        engine_version=subject.engine_version,
    )
    return found[0].reason if found else ""


def _engine(subject, candidate, utilization, max_model_len):
    service = subject.service
    return Engine(
        version=subject.engine_version,
        gpu_memory_utilization=utilization,
        max_model_len=max_model_len,
        max_num_batched_tokens=service["max_num_batched_tokens"],
        max_num_seqs=service["max_num_seqs"],
        dtype=candidate.dtype,
        kv_cache_dtype=service["kv_cache_dtype"] or "auto",
        block_size=service["options"].get("block-size"),
        enforce_eager=bool(service["options"].get("enforce-eager")),
    )


def _layout(candidate):
    return Layout(candidate.tp, candidate.pp, candidate.expert_parallel)


def default_share(subject, kind, gpus):
    """The share of an idle GPU: the version's default, or what the CUDA context and NCCL leave of a small card."""
    profile = profile_for(subject.engine_version)[0]
    in_use = profile.in_use_parallel if gpus > 1 else profile.in_use_alone
    most = math.floor((kind.total - in_use) / kind.total * 100) / 100
    return min(profile.gpu_memory_utilization, most)


def run_estimate(subject, candidate, utilization, max_model_len):
    """The estimate of a candidate with one share and one length."""
    kind = candidate.kind
    free = None
    if subject.service["gpu_memory_utilization"]:
        # What NCCL holds was measured on large cards only: no ground to refuse what the operator asks for.
        free = kind.total - profile_for(subject.engine_version)[0].in_use_alone
    return estimate(
        subject.spec,
        _layout(candidate),
        _engine(subject, candidate, utilization, max_model_len),
        kind.total,
        free,
        compute_capability=kind.capability,
        gpu_name=kind.name,
    )


def _judge_by_memory(subject, candidate, utilization):
    service, kind = subject.service, candidate.kind
    fixed_length = service["max_model_len"]
    length = None if fixed_length in (None, "auto") else fixed_length
    if utilization is None:
        utilization = service["gpu_memory_utilization"] or default_share(subject, kind, candidate.gpus)
    found = run_estimate(subject, candidate, utilization, length)
    wanted = service["concurrency"] or 1
    per_replica = math.ceil(wanted / (service["replicas"] or 1))
    if fixed_length == "auto" or (fixed_length is None and not found.fits and found.longest_context):
        shorter = longest_length(subject, candidate, utilization, found, per_replica if fixed_length else 1)
        if shorter:
            candidate.shortened = fixed_length is None and shorter < found.max_model_len
            found = run_estimate(subject, candidate, utilization, shorter)
    candidate.estimate, candidate.utilization, candidate.max_model_len = found, utilization, found.max_model_len
    candidate.speed = performance.speed(
        subject.spec, subject.parameters, found, kind, candidate.tp, candidate.pp, candidate.hosts
    )
    if not found.fits:
        return candidate.refuse(found.reason, TOO_SMALL)
    if service["replicas"] and found.kv_cache_tokens and found.max_concurrency < per_replica:
        return candidate.refuse(
            f"holds {found.max_concurrency:.1f} requests of {found.max_model_len} tokens, "
            f"{per_replica} are wanted of each replica (concurrency {wanted})",
            TOO_SMALL,
        )
    return candidate


def longest_length(subject, candidate, utilization, found, requests):
    """The longest max_model_len with which `requests` of that length fit, less a margin; 0 when there is none."""
    if not found.kv_cache_tokens and not found.longest_context:
        return 0
    most = subject.spec.max_model_len
    if requests <= 1:
        longest = found.longest_context
    else:
        low, high = 0, most
        while high - low > 16:
            middle = (low + high) // 2
            if run_estimate(subject, candidate, utilization, middle).max_concurrency >= requests:
                low = middle
            else:
                high = middle
        longest = most if high == most and low >= most - 16 else low
    if longest >= most:
        return most
    return int(longest * (1 - AUTO_LENGTH_MARGIN)) // 16 * 16


def cpu_estimate(subject, candidate, cache):
    """What a service takes of a host's memory: the same parts, with the cache that the CPU engine reserves."""
    engine = replace(_engine(subject, candidate, 1.0, candidate.max_model_len), kv_cache_memory_bytes=cache)
    return estimate(subject.spec, _layout(candidate), engine, 10**15)


def _judge_by_count(subject, candidate):
    """With nothing but a parameter count: the rule of thumb, said to be one."""
    kind = candidate.kind
    found = naive_estimate(
        subject.total_parameters, subject.bytes_per_parameter(), kind.total, candidate.tp * candidate.pp
    )
    candidate.estimate = found
    candidate.utilization = subject.service["gpu_memory_utilization"] or default_share(subject, kind, candidate.gpus)
    length = subject.service["max_model_len"]
    candidate.max_model_len = None if length == "auto" else length
    candidate.speed = performance.Speed(0.0, 0.0, 0)
    return candidate if found.fits else candidate.refuse(found.reason, TOO_SMALL)
