# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan as plain data: what is placed where, with its figures and the reason of every alternative."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils._planner import layouts
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.job import replicas_needed, shape_of
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import format_bytes


def answer_of(job, in_force):
    service, subject, chosen = job.service, job.subject, job.chosen
    answer = {
        "name": job.name,
        "model": service["model"],
        "type": subject.type,
        "quantization": subject.quantization,
        "files_bytes": subject.files_bytes(),
        "state": service["state"],
        "accelerator": service["accelerator"],
        "objective": service["objective"],
        "layout": None,
        "gpu": None,
        "hosts": None,
        "engine": {},
        "placements": [],
        "estimate": None,
        "naive": None,
        "kept": job.kept,
        "reason": job.problem or "",
        "rejected": [],
        "notes": job.notes,
    }
    if chosen is not None:
        answer["layout"] = chosen.layout(len(job.replicas))
        answer.update(chosen.where())
        answer["engine"] = _engine_options(service, subject, chosen)
        answer["placements"] = [_placement(job, number, nodes) for number, nodes in enumerate(job.replicas)]
        answer["estimate"] = _numbers(chosen)
        answer["reason"] = job.problem or _why(job)
    if service["state"] == "stopped" and in_force:
        # It takes nothing, but whoever stops it must know where it is.
        answer.update({key: in_force[key] for key in ("layout", "engine", "placements")}, kept=True)
    kind = chosen.kind if chosen else (job.candidates[0].kind if job.candidates else None)
    width = max((c.tp for c in job.candidates if c.hosts and c.kind == kind), default=None)
    answer["naive"] = layouts.naive(subject, kind, width)
    answer["rejected"] = [
        dict(
            c.where(),
            layout=c.layout(),
            verdict=c.verdict,
            reason=c.reason or _why_not(job, c),
            numbers=_numbers(c),
        )
        for c in job.candidates
        if c is not chosen and not (job.kept and (c.layout(), c.where()) == (chosen.layout(), chosen.where()))
    ]
    return answer


def _engine_options(service, subject, chosen):
    """What the operator did not write and `vllm serve` must be told; None stands for the engine's own default."""
    options = {"dtype": chosen.dtype}
    if chosen.kind is not None:
        options["gpu_memory_utilization"] = chosen.utilization
    if chosen.max_model_len and not (subject.pooling and service["max_model_len"] is None):
        options["max_model_len"] = chosen.max_model_len
    for key in ("max_num_seqs", "max_num_batched_tokens", "kv_cache_dtype", "quantization"):
        if service[key] is not None:
            options[key] = service[key]
    if chosen.expert_parallel:
        options["enable_expert_parallel"] = True
    return options


def _placement(job, number, nodes):
    return {
        "replica": number,
        "port": job.ports[number][0] if number < len(job.ports) else None,
        "nodes": [
            {
                "host": host.name,
                "node_rank": rank,
                "gpus": [{"uuid": device.uuid, "index": device.index} for device in devices],
            }
            for rank, (host, devices) in enumerate(nodes)
        ],
    }


def _numbers(candidate):
    found = candidate.estimate
    if found is None:
        return None
    ranks = [
        {
            "stage": rank.stage,
            "weights": rank.weights,
            "kv_cache": rank.kv_cache,
            "activation": rank.activation,
            "cuda_graphs": rank.cuda_graphs,
            "non_torch": rank.non_torch,
            "total": rank.total,
            "budget": rank.budget,
        }
        for rank in found.ranks
    ]
    speed = candidate.speed
    return {
        "ranks": ranks,
        "kv_cache_tokens": found.kv_cache_tokens,
        "max_concurrency": round(found.max_concurrency, 4),
        "max_model_len": found.max_model_len,
        "longest_context": found.longest_context,
        "max_num_seqs": found.max_num_seqs,
        "max_num_batched_tokens": found.max_num_batched_tokens,
        "gpu_memory_utilization": candidate.utilization,
        "tokens_per_second": round(speed.tokens_per_second) if speed else None,
        "milliseconds_per_token": round(speed.time_per_token * 1000, 2) if speed else None,
        "basis": found.basis,
        "profile": found.profile,
    }


def _why(job):
    """The recommendation in one sentence."""
    service, chosen = job.service, job.chosen
    count = len(job.replicas)
    if service["accelerator"] == "cpu":
        return f"{count} × on the CPU of {', '.join(sorted({n[0][0].name for n in job.replicas}))}."
    found = chosen.estimate
    text = f"{count} × {shape_of(chosen)} ({chosen.dtype})"
    if found.kv_cache_tokens:
        text += (
            f": {format_bytes(found.weights)} of weights per GPU, "
            f"{count * found.kv_cache_tokens:,} tokens of KV cache, "
            f"{count * found.max_concurrency:.1f} requests of {found.max_model_len:,} tokens at once"
        )
    elif job.subject.spec is not None:
        text += f": {format_bytes(found.minimum)} per GPU, nothing is cached"
    if job.kept:
        text += "; it stays where it runs"
    elif service["gpus"]:
        text += "; on the GPUs that were named"
    elif service["tensor_parallel_size"] and service["pipeline_parallel_size"]:
        text += "; the layout that was declared"
    else:
        text += (
            "; "
            + {
                "throughput": "most tokens per second of the GPUs it may use",
                "latency": "fastest answer to one request",
                "fewest_gpus": "fewest GPUs that serve it",
            }[service["objective"]]
        )
    if chosen.shortened:
        text += f"; the model's own {job.subject.spec.max_model_len} tokens do not fit, so the context is cut"
    return text + "."


def _why_not(job, candidate):
    chosen, service = job.chosen, job.service
    if chosen is None:
        return "could be, but was not placed"
    if candidate.shortened and not chosen.shortened:
        return f"only {candidate.max_model_len} tokens of context fit"
    if service["gpus"] and candidate.gpus * (service["replicas"] or 1) != len(service["gpus"]):
        return f"does not use the {len(service['gpus'])} GPUs that were named"
    if job.kept:
        return "what runs stays where it is"
    speed, best = candidate.speed, chosen.speed
    if service["objective"] == "fewest_gpus":
        return (
            f"{replicas_needed(job, candidate) * candidate.gpus} GPUs, not fewer"
            if (candidate.gpus * replicas_needed(job, candidate) >= chosen.gpus * len(job.replicas))
            else "its GPUs are not free"
        )
    if service["objective"] == "latency":
        if speed.time_per_token > best.time_per_token:
            return f"{speed.time_per_token * 1000:.1f} ms per token, chosen {best.time_per_token * 1000:.1f}"
        return "its GPUs are not free"
    each, chosen_each = speed.tokens_per_second / candidate.gpus, best.tokens_per_second / chosen.gpus
    if each < chosen_each:
        return f"about {each:.0f} tokens/s per GPU, chosen {chosen_each:.0f}"
    return "its GPUs are not free, or do not divide evenly"


def gpu_usage(fleet):
    """What every GPU is used for, so that a reader can check that nothing is given twice."""
    rows = []
    for host in fleet:
        for device in host.devices:
            if device.users:
                rows.append(
                    {
                        "host": host.name,
                        "index": device.index,
                        "uuid": device.uuid,
                        "gpu": device.kind.name,
                        "services": [use.name for use in device.users],
                    }
                )
    return rows
