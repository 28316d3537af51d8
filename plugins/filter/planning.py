# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of playbooks/plan.yml."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError

from ansible_collections.inferops.gpu_host.plugins.module_utils import _plan_in_force as _in_force


def _declared_fleet(count, gpu, gpus_per_host=1, memory=None):
    """Hosts that do not exist yet: planned1, planned2, …"""
    try:
        hosts, gpus = int(count), int(gpus_per_host)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"hosts is {count!r} and gpus_per_host {gpus_per_host!r}: wanted numbers") from error
    if hosts < 1 or gpus < 0:
        raise AnsibleFilterError(f"hosts is {hosts} and gpus_per_host {gpus}: wanted at least 1 host")
    entry = {"gpus": {"model": gpu, "count": gpus}} if gpu else {}
    if memory:
        entry["memory"] = memory
    return [dict(entry, name=f"planned{number}") for number in range(1, hosts + 1)]


def _known_models(services, results=(), published=None):
    """What model_info found, by service; where it found nothing, the published configuration that comes with us,
    or all reasons why: of the hosts' own directories and of the hub."""
    known, errors = {}, {}
    for result in results:
        item = result.get("item")
        name = item.get("name") if isinstance(item, dict) else None
        if result.get("model"):
            known.setdefault(name, result["model"])
        elif result.get("msg") and not result.get("skipped"):
            reasons = errors.setdefault(name, [])
            reasons += [result["msg"]] if result["msg"] not in reasons else []
    for service in services:
        if not isinstance(service, dict):
            continue  # the planner says so, with all that is wrong
        name, model = service.get("name"), service.get("model")
        if name in known or service.get("config"):
            continue
        if model in (published or {}) and not service.get("path"):
            known[name] = {"config": published[model], "note": "config.json as published, from this collection"}
        else:
            known[name] = {"error": "; ".join(errors.get(name, []))}
    return known


def _plan_in_force(contents):
    """What runs where, from the plan.json of several hosts."""
    try:
        force = _in_force.merged([_in_force.read(content) for content in contents if content.strip()])
    except _in_force.PlanFileError as error:
        raise AnsibleFilterError(str(error)) from error
    return dict(force, services=_in_force.services(force))


def _plan_carried_out(force, plan, hosts, inventory, names):
    return _in_force.text_of(_in_force.carried_out(force, plan or {}, hosts, inventory, names))


class FilterModule:
    def filters(self):
        return {
            "declared_fleet": _declared_fleet,
            "known_models": _known_models,
            "plan_around": _in_force.around,
            "plan_carried_out": _plan_carried_out,
            "plan_completed": _in_force.completed,
            "plan_in_force": _plan_in_force,
        }
