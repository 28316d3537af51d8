# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service on its way to a placement: what it may get, and what it took."""

from __future__ import annotations

import math

from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.layouts import POSSIBLE
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.placer import FIRST_PORT, Use

NO_ROOM = "no room"


class PlanError(ValueError):
    """What keeps a plan from being made, service by service."""

    def __init__(self, problems):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class Job:
    """A service on its way to a placement."""

    def __init__(self, subject):
        self.subject = subject
        self.candidates = []
        self.chosen = None
        self.replicas = []  # [[(host, devices)]]
        self.use = None
        self.kept = False
        self.problem = None
        self.ports = []
        self.held_ports = []  # of a placement that is kept
        self.notes = list(subject.notes)

    @property
    def service(self):
        return self.subject.service

    @property
    def name(self):
        return self.service["name"]


def fixed_least(candidate, share):
    return int(share * candidate.kind.total) + max(rank.in_use for rank in candidate.estimate.ranks)


def possible_layouts(job):
    return sorted((c for c in job.candidates if c.verdict == POSSIBLE), key=lambda c: _least_cost(job, c))


def replicas_needed(job, candidate):
    """Replicas for the wanted requests at once; 1 unless the operator says otherwise."""
    service = job.service
    if service["replicas"]:
        return service["replicas"]
    if not service["concurrency"] or not candidate.estimate.max_concurrency:
        return 1
    return max(1, math.ceil(service["concurrency"] / candidate.estimate.max_concurrency))


def _least_cost(job, candidate):
    """Order of candidates by what they take: a context that had to be cut short comes last."""
    needed = replicas_needed(job, candidate)
    return (
        candidate.shortened,
        needed * candidate.gpus,
        candidate.hosts,
        candidate.kind.total,  # the smallest card that is enough
        -needed * candidate.speed.tokens_per_second,
        candidate.kind.name,
        candidate.pp,
        candidate.tp,
    )


def place(placer, job, candidate, count, shared, tight=False):
    service = job.service
    pool = placer.pool(service)[candidate.kind]
    if service["gpus"]:
        shared = True
        if not service["hosts"] or len(service["hosts"]) == 1:
            if candidate.gpus * count != len(service["gpus"]):
                return False
        elif candidate.gpus * count != len(service["gpus"]) * len(service["hosts"]):
            return False
    if job.subject.pooling:
        shared = True
    fixed = service["gpu_memory_utilization"]
    least = fixed_least(candidate, fixed) if fixed else candidate.least_bytes(job.subject, tight)
    found = placer.find(pool, candidate, least, count, shared, foreign_port(placer, job), job.subject.pooling)
    if len(found) < count:
        return False
    job.chosen, job.replicas = candidate, found
    job.use = Use(job.name, least, job.subject.pooling, fixed)
    take(placer, job)
    return True


def take(placer, job):
    placer.take(job.replicas, job.use)
    claim(placer, job)


def release(placer, job):
    placer.release(job.replicas, job.use)
    for nodes in job.replicas:
        placer.unclaim(nodes[0][0], job.name)


def claim(placer, job):
    """The operator's port belongs to the service on every host where it has a head."""
    if job.service["port"]:
        for nodes in job.replicas:
            placer.claim_port(nodes[0][0], job.service["port"], job.name)


def foreign_port(placer, job):
    """Says of a host who else has the operator's port there."""
    port = job.service["port"]
    return (lambda host: placer.ports[host.name].get(port, job.name) != job.name) if port else None


def port_conflict(placer, host, job):
    port = job.service["port"]
    return f"services {placer.ports[host.name][port]!r} and {job.name!r} both want port {port} on host {host.name}"


def reserve_ports(placer, jobs):
    for job in jobs:
        hosts = job.service["hosts"]
        if job.service["port"] and len(hosts) == 1 and hosts[0] in placer.ports:
            placer.claim_port(placer.by_name[hosts[0]], job.service["port"], job.name)


def assign_ports(placer, job):
    """The operator's port for the first replica on a host, the port that is in force, else the next free one."""
    fixed = job.service["port"]
    for number, nodes in enumerate(job.replicas):
        head = nodes[0][0]
        held = job.held_ports[number] if number < len(job.held_ports) else None
        port = fixed if fixed and (fixed, head.name) not in job.ports else held
        if not port or (port, head.name) in job.ports or placer.claim_port(head, port, job.name):
            port = placer.free_port(head, job.name, fixed or FIRST_PORT)
        job.ports.append((port, head.name))


def shape_of(candidate):
    text = f"TP {candidate.tp}"
    if candidate.pp > 1:
        text += f" × PP {candidate.pp}"
    if candidate.hosts > 1:
        text += f" on {candidate.hosts} hosts"
    return text + (f" of {candidate.kind.name}" if candidate.kind else "")
