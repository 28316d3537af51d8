# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs stays where it is, while that is still valid."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils._planner import layouts
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.job import claim, fixed_least, replicas_needed
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.layouts import POSSIBLE, Subject
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.placer import Use, named
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB

KEEP_ALL, KEEP_NEEDED, KEEP_NONE = "all", "needed", "none"


def keep_what_runs(placer, jobs, current, level):
    held = [(job, current[job.name]) for job in jobs if job.name in current]
    # What they use now is not taken by strangers.
    for _job, entry in held:
        for device in _devices_of(placer, entry):
            device.room = min(device.kind.total, device.room + int(share_in_force(entry) * device.kind.total) + 2 * GIB)
    for job, entry in held:
        replicas = _nodes_of(placer, entry)
        reason = _still_valid(job, entry, replicas) if level != KEEP_NONE else "to make room for others"
        if reason:
            job.notes.append(f"moved: {reason}")
            continue
        candidate = job.chosen
        needed = replicas_needed(job, candidate)
        if level == KEEP_NEEDED and needed < len(replicas):
            job.notes.append(f"{len(replicas) - needed} of {len(replicas)} replicas make room for others")
            replicas = replicas[:needed]
        least = fixed_least(candidate, candidate.utilization)
        job.use = Use(job.name, least, job.subject.pooling, candidate.utilization)
        placer.take(replicas, job.use)
        job.replicas, job.kept = replicas, True
        claim(placer, job)
        job.held_ports = [placement.get("port") for placement in entry["placements"]]
        for nodes, port in zip(replicas, job.held_ports):
            if port:
                placer.claim_port(nodes[0][0], port, job.name)


def share_in_force(entry):
    return (entry.get("engine") or {}).get("gpu_memory_utilization") or 0.9


def _nodes_of(placer, entry):
    """The placements of a plan in force as [[(host, devices)]]; None where a host or GPU is gone."""
    replicas = []
    for placement in entry.get("placements") or ():
        nodes = []
        for node in placement["nodes"]:
            host = placer.by_name.get(node["host"])
            gpus = [gpu.get("uuid") or gpu.get("index") for gpu in node["gpus"]]
            devices = [device for device in host.devices if named(device, gpus)] if host else []
            if not gpus or len(devices) != len(gpus):
                return None
            nodes.append((host, devices))
        replicas.append(nodes)
    return replicas or None


def _devices_of(placer, entry):
    for nodes in _nodes_of(placer, entry) or ():
        for _host, devices in nodes:
            yield from devices


def _still_valid(job, entry, replicas):
    """Why a placement in force cannot stay, or ''; sets the job's candidate when it can."""
    service, layout = job.service, entry.get("layout") or {}
    if entry.get("model") != service["model"]:
        return "another model"
    if not replicas:
        return "a host or GPU of its placement is gone"
    for key in ("tensor_parallel_size", "pipeline_parallel_size", "replicas", "expert_parallel"):
        if service[key] is not None and service[key] != layout.get(key):
            return f"{key} is now {service[key]}"
    devices = [device for nodes in replicas for _host, group in nodes for device in group]
    if service["gpus"] and not all(named(device, service["gpus"]) for device in devices):
        return "gpus names others"
    if service["hosts"] and any(device.host not in service["hosts"] for device in devices):
        return "hosts names others"
    kinds = {device.kind for device in devices}
    if len(kinds) > 1:
        return "its GPUs are no longer alike"
    kind = kinds.pop()
    share = service["gpu_memory_utilization"] or share_in_force(entry)
    pinned = dict(service)
    if pinned["max_model_len"] in (None, "auto") and (entry.get("engine") or {}).get("max_model_len"):
        pinned["max_model_len"] = entry["engine"]["max_model_len"]
    subject = Subject(pinned, job.subject.spec, job.subject.type, job.subject.engine_version)
    tp, pp = layout.get("tensor_parallel_size", 1), layout.get("pipeline_parallel_size", 1)
    candidate = layouts.judge(subject, kind, tp, pp, len(replicas[0]), [tp * pp], share)
    if candidate.verdict != POSSIBLE:
        return candidate.reason
    least = fixed_least(candidate, share)
    if any(device.room < least for device in devices):
        return "its GPUs have not the memory left"
    job.chosen = candidate
    return ""
