# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services × fleet → plan.

1. Every layout that could be is judged once per kind of GPU: refused by vLLM, too small, or possible (layouts.py).
2. What runs already stays where it is while that is still valid.
3. Every other service gets the fewest GPUs that serve it, the least flexible first. Then the services in turn take
   their part of the GPUs that are left, in the way that their objective likes best.
4. The services of one GPU divide its memory, and every figure of the plan is estimated again with the final share.

Nothing here looks at a host: all is plain data, and the same data gives the same plan.
"""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils import _open_routes, _service_keys
from ansible_collections.inferops.gpu_host.plugins.module_utils._config_keys import ConfigError
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.config import parse_model_config
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.demo import demo_config
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner import layouts, refusals
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.admit import admit_all
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.answer import answer_of, gpu_usage
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.cpu import place_on_cpu
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.fleet import build_fleet
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.improve import improve
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.job import (
    Job,
    PlanError,
    assign_ports,
    reserve_ports,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.keep import (
    KEEP_ALL,
    KEEP_NEEDED,
    KEEP_NONE,
    keep_what_runs,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.layouts import Subject
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.model_info import detect_type
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.placer import Placer
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.settle import settle_shares
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import normalize_services
from ansible_collections.inferops.gpu_host.plugins.module_utils._versions import default_engine_version


def plan(
    services,
    hosts,
    models=None,
    defaults=None,
    engine_version=None,
    current=None,
    strict=False,
    images=None,
    inventory=None,
    open_routes="refuse",
):
    """The plan for declared services on declared or found hosts.

    hosts: see _planner.fleet.build_fleet. models: {service name: model_info's answer, or {"config": …}}.
    defaults: values for keys that services leave out. current: the services of a plan that is in force.
    engine_version: where a service says none; None for that of its image.
    images: {accelerator: image} that replace the default ones.
    inventory: all hosts that there are, also those that could not be asked. With it, the plan tells who can reach what.
    Returns the plan; its `problems` say what could not be placed.
    Raises ServiceError, FleetError or PlanError for input that cannot be understood.
    """
    services = normalize_services(services, defaults)
    subjects = _subjects(
        services,
        models or {},
        lambda service: engine_version or default_engine_version(service["accelerator"], images),
        strict,
        [host["name"] for host in hosts if "name" in host],
    )
    # Rather fewer replicas than a service without a place, and rather moved than that.
    answer = None
    for level in (KEEP_ALL, KEEP_NEEDED, KEEP_NONE) if current else (KEEP_ALL,):
        attempt = _attempt(subjects, build_fleet(hosts), current or (), level)
        if answer is None or not attempt["problems"]:
            answer = attempt
        if not answer["problems"]:
            break
    _tell_access(answer, services, current or (), inventory, open_routes)
    return answer


def _tell_access(answer, services, current, inventory, open_routes):
    """Who makes the key of each service, and how it can be reached."""
    force = {entry["name"]: entry for entry in current}
    dangers = _open_routes.warnings(services, accepted=open_routes == "accept") if inventory else {}
    for entry, service in zip(answer["services"], services):
        made = _service_keys.given(service) == ""
        entry["key"] = _service_keys.planned(entry, force.get(entry["name"]), inventory) if made else None
        entry["access"] = []
        if inventory and service["state"] == "started":
            entry["access"] = [*_service_keys.access(service, entry["key"])]
            if service["name"] in dangers:
                entry["access"].append("WARNING: site.yml will refuse it. " + dangers[service["name"]] + ".")


def _attempt(subjects, fleet, current, level):
    placer = Placer(fleet)
    jobs = [Job(subject) for subject in subjects]
    active = [job for job in jobs if job.service["state"] == "started"]
    cuda = [job for job in active if job.service["accelerator"] == "cuda"]
    reserve_ports(placer, active)
    for job in cuda:
        pools = placer.pool(job.service)
        for kind in sorted(pools, key=lambda kind: (kind.name, kind)):
            widths = sorted((len(devices) for _host, devices in pools[kind]), reverse=True)
            if job.service["gpus"] and not job.service["hosts"]:
                widths = widths[:1]  # an index without a host means that GPU of one host
            job.candidates.extend(layouts.candidates(job.subject, kind, widths))
    keep_what_runs(placer, cuda, {entry["name"]: entry for entry in current}, level)
    admit_all(placer, [job for job in cuda if not job.kept])
    improve(placer, [job for job in cuda if not job.kept and job.chosen])
    settle_shares(cuda)
    for job in active:
        if job.service["accelerator"] == "cpu":
            place_on_cpu(placer, job)
        assign_ports(placer, job)
    force = {entry["name"]: entry for entry in current}
    return {
        "services": [answer_of(job, force.get(job.name)) for job in jobs],
        "problems": [job.problem for job in jobs if job.problem],
        "gpus": gpu_usage(fleet),
    }


def _subjects(services, models, default_version, strict, names):
    problems, subjects = [], []
    for service in services:
        label = f"service {service['name']!r}"
        unknown = [host for host in service["hosts"] if host not in names]
        if unknown:
            problems.append(f"{label}: host {unknown[0]} is not in the fleet ({', '.join(sorted(names)) or 'empty'})")
        info = models.get(service["name"]) or {}
        config = service["config"] or info.get("config")
        if config is None and service["hub"] == "generated":
            config = demo_config()
        spec = None
        try:
            if config:
                spec = parse_model_config(config, info.get("hf_quant_config"), strict)
                kind = info.get("type") or detect_type(spec, service["model"])
                subjects.append(Subject(service, spec, kind, default_version(service)))
                subjects[-1].notes += [info["note"]] if info.get("note") else []
                subjects[-1].weights_bytes = info.get("weights_bytes")
            elif service["parameters"] or service["state"] != "started":
                subjects.append(Subject(service, None, info.get("type"), default_version(service)))
            else:
                problems.append(
                    f"{label}: nothing is known of model {service['model']}: give its config.json (config, path, or a "
                    "hub that can be reached), or parameters for the rule of thumb"
                    + (f" ({info['error']})" if info.get("error") else "")
                )
        except ConfigError as error:
            problems.append(f"{label}: {error}")
        refused = refusals.of_service(service, spec, default_version(service)) + refusals.of_code(service, info)
        problems += [f"{label}: {refusal}" for refusal in refused]
    if problems:
        raise PlanError(problems)
    return subjects
