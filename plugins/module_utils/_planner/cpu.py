# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services on hosts without GPUs."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils._planner import layouts
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.job import foreign_port
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.layouts import Candidate
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB, format_bytes

CPU_CACHE = GIB  # unless VLLM_CPU_KVCACHE_SPACE in the env of the service says otherwise
CPU_OVERHEAD = GIB


def _cpu_cache(service):
    """Bytes of cache: VLLM_CPU_KVCACHE_SPACE counts GiB."""
    wanted = service["env"].get("VLLM_CPU_KVCACHE_SPACE", "")
    return int(float(wanted) * GIB) if wanted.replace(".", "", 1).isdigit() and float(wanted) else CPU_CACHE


def place_on_cpu(placer, job):
    service = job.service
    allowed = [placer.by_name[name] for name in service["hosts"]] or list(placer.hosts)
    if not allowed:
        job.problem = f"service {job.name!r}: there is no host"
        return
    tp, pp = service["tensor_parallel_size"] or 1, service["pipeline_parallel_size"] or 1
    count = service["replicas"] or 1
    candidate = Candidate(None, tp, pp, 1)
    candidate.dtype = service["dtype"] or "bfloat16"
    length = service["max_model_len"]
    candidate.max_model_len = None if length == "auto" else length
    spread = tp * pp if 1 < tp * pp <= len(service["hosts"]) else 1
    candidate.hosts = spread
    if job.subject.spec is not None:
        cache = _cpu_cache(service)
        candidate.estimate = layouts.cpu_estimate(job.subject, candidate, cache)
        candidate.max_model_len = candidate.estimate.max_model_len
        needed = sum(r.weights + r.activation for r in candidate.estimate.ranks) + cache + CPU_OVERHEAD
        roomy = [host for host in allowed if host.memory is None or host.memory >= needed]
        if not roomy:
            job.problem = (
                f"service {job.name!r}: needs {format_bytes(needed)} of memory, the largest host has "
                f"{format_bytes(max(host.memory for host in allowed))}"
            )
            return
        allowed = roomy
    foreign = foreign_port(placer, job)
    if foreign:
        free = [host for host in allowed if not foreign(host)]
        if not free:
            other = placer.ports[allowed[0].name][service["port"]]
            job.problem = (
                f"services {other!r} and {job.name!r} both want port {service['port']} on host {allowed[0].name}"
            )
            return
        allowed = free
    job.chosen = candidate
    if spread > 1:
        job.replicas = [[(host, []) for host in allowed[:spread]]]
        return
    by_load = sorted(allowed, key=lambda host: len(placer.ports[host.name]))
    job.replicas = [[(by_load[i % len(by_load)], [])] for i in range(count)]
