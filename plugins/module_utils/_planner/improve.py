# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Better use of what is left: each service takes its part of the idle GPUs, as its objective likes best."""

from __future__ import annotations

import math

from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.job import (
    place,
    release,
    replicas_needed,
    take,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.layouts import POSSIBLE

ABOUT_EQUAL = 0.05


def improve(placer, jobs):
    waiting = [job for job in jobs if not job.subject.pooling and not _shares(job) and not job.service["gpus"]]
    waiting = [job for job in waiting if job.service["objective"] != "fewest_gpus"]
    for position, job in enumerate(waiting):
        _take_share(placer, job, len(waiting) - position)
    if len(waiting) > 1:
        for job in waiting:  # what did not divide
            _take_share(placer, job, 1)


def _shares(job):
    return any(len(device.users) > 1 for nodes in job.replicas for _host, group in nodes for device in group)


def _take_share(placer, job, takers):
    """Gives a job the layout its objective likes best within its own GPUs and its part of the idle ones."""
    old = job.chosen, job.replicas, job.use
    release(placer, job)
    own = sum(len(group) for nodes in job.replicas for _host, group in nodes)
    options = []
    for kind, pool in placer.pool(job.service).items():
        counts = placer.idle_counts(pool)
        total = sum(number * hosts for number, hosts in counts.items())
        mine = own if kind == job.chosen.kind else 0
        quota = mine + (total - mine) // takers
        for candidate in job.candidates:
            if candidate.kind == kind and candidate.verdict == POSSIBLE:
                count = _replicas_wanted(job, candidate, _capacity(counts, candidate), quota)
                if count:
                    options.append((_preference(job, candidate, count), candidate, count))
    # The tuples compare by preference; it ends in the layout itself, so that no two are equal.
    for _key, candidate, count in sorted(options, key=lambda option: option[0]):
        if place(placer, job, candidate, count, False):
            return
    job.chosen, job.replicas, job.use = old
    take(placer, job)


def _capacity(counts, candidate):
    """Replicas that the idle GPUs hold."""
    if candidate.hosts == 1:
        return sum(number // candidate.gpus * hosts for number, hosts in counts.items())
    size = candidate.gpus // candidate.hosts
    return sum(hosts for number, hosts in counts.items() if number >= size) // candidate.hosts


def _replicas_wanted(job, candidate, capacity, quota):
    needed = replicas_needed(job, candidate)
    most = min(capacity, quota // candidate.gpus)
    if most < needed:
        return 0
    fill = job.service["objective"] == "throughput" and not job.service["replicas"] and job.subject.spec is not None
    return most if fill else needed


def _preference(job, candidate, count):
    speed = candidate.speed
    size = (count * candidate.gpus, candidate.hosts, candidate.pp, candidate.tp, candidate.kind.name)
    if job.service["objective"] == "latency":
        return (candidate.shortened, speed.time_per_token, *size)
    # The figures are rough: what is within some percent counts as equal, and then the simpler layout wins.
    step = math.floor(math.log(max(count * speed.tokens_per_second, 1e-9)) / math.log(1 + ABOUT_EQUAL))
    return (candidate.shortened, -step, *size)
