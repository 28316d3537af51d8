# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The final shares of memory: the services of one GPU divide it, and every figure is estimated again."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils._planner import layouts
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.layouts import Subject
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.placer import divide


def settle_shares(jobs):
    placed = {job.name: job for job in jobs if job.chosen and job.use}

    def most(use):
        job = placed[use.name]
        return job.chosen.utilization

    def context(use):
        return max(rank.in_use for rank in placed[use.name].chosen.estimate.ranks)

    shares = {}
    seen = set()
    for job in placed.values():
        for nodes in job.replicas:
            for _host, group in nodes:
                for device in group:
                    if id(device) in seen:
                        continue
                    seen.add(id(device))
                    for name, share in divide(device, most, context).items():
                        shares[name] = min(share, shares.get(name, 1.0))
    for name, job in placed.items():
        share = shares[name]
        if share != job.chosen.utilization and job.subject.spec is not None:
            candidate = job.chosen
            # Kept candidates carry the length that is in force.
            pinned = dict(
                job.service, max_model_len=candidate.max_model_len if job.kept else job.service["max_model_len"]
            )
            subject = Subject(pinned, job.subject.spec, job.subject.type, job.subject.engine_version)
            settled = layouts.judge(
                subject, candidate.kind, candidate.tp, candidate.pp, candidate.hosts, [candidate.gpus], share
            )
            settled.utilization = share
            job.candidates = [settled if c is candidate else c for c in job.candidates]
            job.chosen = settled
