# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A place for everybody: the fewest GPUs that serve each service, the least flexible first."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.job import (
    NO_ROOM,
    foreign_port,
    place,
    port_conflict,
    possible_layouts,
    release,
    replicas_needed,
    shape_of,
    take,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.layouts import POSSIBLE, TOO_SMALL
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import format_bytes


def admit_all(placer, jobs):
    """Everybody a place; where that fails, once more with contexts cut to make room, for services that want none."""
    left = _admit(placer, jobs, tight=False)
    if any(job.chosen is None and possible_layouts(job) for job in left):
        placed = [job for job in jobs if job.chosen]
        before = [(job, job.chosen, job.replicas, job.use) for job in placed]
        _withdraw(placer, placed)
        again = _admit(placer, jobs, tight=True)
        if len(again) >= len(left):
            _withdraw(placer, [job for job in jobs if job.chosen])
            for job, job.chosen, job.replicas, job.use in before:
                take(placer, job)
        left = [job for job in jobs if job.chosen is None]
    for job in left:
        _explain_failure(placer, job, possible_layouts(job))


def _withdraw(placer, jobs):
    for job in jobs:
        release(placer, job)
        job.chosen, job.replicas, job.use = None, [], None


def _admit(placer, jobs, tight):
    """The jobs that found no place."""
    left = []
    for job in sorted(jobs, key=_flexibility):
        possible = possible_layouts(job)
        if not any(
            place(placer, job, c, replicas_needed(job, c), shared, tight) for shared in (False, True) for c in possible
        ):
            left.append(job)
    return left


def _flexibility(job):
    """Named GPUs first, then named hosts, then the largest; embedding and rerank models fill what is left."""
    service = job.service
    sizes = [c.gpus for c in job.candidates if c.verdict == POSSIBLE]
    return (
        not service["gpus"],
        not service["hosts"],
        job.subject.pooling,
        -min(sizes, default=0),
        -job.subject.total_parameters,
    )


def _explain_failure(placer, job, possible):
    pools = placer.pool(job.service)
    if not pools:
        job.problem = f"service {job.name!r}: {_no_gpus(placer, job.service)}"
        return
    if possible:
        clash = _port_clash(placer, job)
        if clash:
            job.problem = clash
            return
        best = possible[0]
        count = replicas_needed(job, best)
        users = sorted(
            {u.name for devices in pools[best.kind] for d in devices[1] for u in d.users if u.name != job.name}
        )
        job.problem = (
            f"service {job.name!r}: needs {count * best.gpus} × {best.kind.name} with "
            f"{format_bytes(best.least_bytes(job.subject))} free on each"
            + (f" in one host ({best.gpus} together)" if best.gpus > 1 and best.hosts == 1 else "")
            + (f"; what there is goes to {', '.join(users)}" if users else "; the GPUs are not free")
            + _left_out(placer)
        )
        for candidate in possible:
            candidate.refuse("the GPUs it needs are not free", NO_ROOM)
        return
    nearest = _nearest(job)
    job.problem = f"service {job.name!r}: no layout fits; nearest: {shape_of(nearest)}: {nearest.reason}"
    job.problem += _left_out(placer)


def _left_out(placer):
    """GPUs that hosts have and nothing is planned on, for whoever counts them."""
    told = [f"{host.name}: {host.reason}" for host in placer.hosts if host.devices and host.reason]
    return f"; left out: {'; '.join(told[:3])}" if told else ""


def _port_clash(placer, job):
    """When only the port keeps a service from every host it may use: who has it."""
    foreign = foreign_port(placer, job)
    hosts = {host.name: host for pool in placer.pool(job.service).values() for host, _devices in pool}
    if foreign is None or not all(foreign(host) for host in hosts.values()):
        return None
    return port_conflict(placer, next(iter(hosts.values())), job)


def _nearest(job):
    """The rejected layout that comes closest, to explain with."""
    small = [c for c in job.candidates if c.verdict == TOO_SMALL]
    if small:
        return min(small, key=lambda c: (-(c.estimate.longest_context if c.estimate else 0), c.gpus))
    return job.candidates[0]


def _no_gpus(placer, service):
    reasons = [f"{host.name}: {host.reason}" for host in placer.hosts if host.reason]
    if service["gpus"]:
        told = f" ({'; '.join(reasons[:3])})" if reasons else ""
        return f"no host has all the GPUs {service['gpus']} (alike){told}"
    hint = "; set accelerator: cpu, or declare inference_gpus for hosts that have none yet"
    where = f" on {', '.join(service['hosts'])}" if service["hosts"] else " in the fleet"
    return f"there is no GPU{where}" + (f" ({'; '.join(reasons[:3])})" if reasons else "") + hint
