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

import math

from ansible_collections.inferops.gpu_host.plugins.module_utils._model.config import parse_model_config
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.demo import demo_config
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.spec import ConfigError
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner import layouts
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.fleet import build_fleet
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.layouts import (
    POSSIBLE,
    TOO_SMALL,
    Candidate,
    Subject,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.model_info import detect_type
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.placer import (
    FIRST_PORT,
    Placer,
    Use,
    divide,
    named,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import normalize_services
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB, format_bytes

DEFAULT_ENGINE_VERSION = "0.33.0"
CPU_CACHE = GIB  # unless VLLM_CPU_KVCACHE_SPACE in the env of the service says otherwise
CPU_OVERHEAD = GIB
NO_ROOM = "no room"
KEEP_ALL, KEEP_NEEDED, KEEP_NONE = "all", "needed", "none"
ABOUT_EQUAL = 0.05


class PlanError(ValueError):
    """What keeps a plan from being made, service by service."""

    def __init__(self, problems):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class _Job:
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


def plan(
    services, hosts, models=None, defaults=None, engine_version=DEFAULT_ENGINE_VERSION, current=None, strict=False
):
    """The plan for declared services on declared or found hosts.

    hosts: see _planner.fleet.build_fleet. models: {service name: model_info's answer, or {"config": …}}.
    defaults: values for keys that services leave out. current: the services of a plan that is in force.
    Returns the plan; its `problems` say what could not be placed.
    Raises ServiceError, FleetError or PlanError for input that cannot be understood.
    """
    services = normalize_services(services, defaults)
    subjects = _subjects(
        services, models or {}, engine_version, strict, [host["name"] for host in hosts if "name" in host]
    )
    # Rather fewer replicas than a service without a place, and rather moved than that.
    answer = None
    for level in (KEEP_ALL, KEEP_NEEDED, KEEP_NONE) if current else (KEEP_ALL,):
        attempt = _attempt(subjects, build_fleet(hosts), current or (), level)
        if answer is None or not attempt["problems"]:
            answer = attempt
        if not answer["problems"]:
            break
    return answer


def _attempt(subjects, fleet, current, level):
    placer = Placer(fleet)
    jobs = [_Job(subject) for subject in subjects]
    active = [job for job in jobs if job.service["state"] == "started"]
    cuda = [job for job in active if job.service["accelerator"] == "cuda"]
    _reserve_ports(placer, active)
    for job in cuda:
        pools = placer.pool(job.service)
        for kind in sorted(pools, key=lambda kind: (kind.name, kind)):
            widths = sorted((len(devices) for _host, devices in pools[kind]), reverse=True)
            if job.service["gpus"] and not job.service["hosts"]:
                widths = widths[:1]  # an index without a host means that GPU of one host
            job.candidates.extend(layouts.candidates(job.subject, kind, widths))
    _keep(placer, cuda, {entry["name"]: entry for entry in current}, level)
    _admit_all(placer, [job for job in cuda if not job.kept])
    _improve(placer, [job for job in cuda if not job.kept and job.chosen])
    _settle(cuda)
    for job in active:
        if job.service["accelerator"] == "cpu":
            _place_on_cpu(placer, job)
        _assign_ports(placer, job)
    force = {entry["name"]: entry for entry in current}
    return {
        "services": [_answer(job, force.get(job.name)) for job in jobs],
        "problems": [job.problem for job in jobs if job.problem],
        "gpus": _usage(fleet),
    }


def _subjects(services, models, engine_version, strict, names):
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
        try:
            if config:
                spec = parse_model_config(config, info.get("hf_quant_config"), strict)
                kind = info.get("type") or detect_type(spec, service["model"])
                subjects.append(Subject(service, spec, kind, engine_version))
                subjects[-1].notes += [info["note"]] if info.get("note") else []
                subjects[-1].weights_bytes = info.get("weights_bytes")
            elif service["parameters"] or service["state"] != "started":
                subjects.append(Subject(service, None, info.get("type"), engine_version))
            else:
                problems.append(
                    f"{label}: nothing is known of model {service['model']}: give its config.json (config, path, or a "
                    "hub that can be reached), or parameters for the rule of thumb"
                    + (f" ({info['error']})" if info.get("error") else "")
                )
        except ConfigError as error:
            problems.append(f"{label}: {error}")
    if problems:
        raise PlanError(problems)
    return subjects


# --- what runs stays ----------------------------------------------------------------------------------------


def _keep(placer, jobs, current, level):
    held = [(job, current[job.name]) for job in jobs if job.name in current]
    # What they use now is not taken by strangers.
    for _job, entry in held:
        for device in _devices_of(placer, entry):
            device.room = min(device.kind.total, device.room + int(_share(entry) * device.kind.total) + 2 * GIB)
    for job, entry in held:
        replicas = _nodes_of(placer, entry)
        reason = _still_valid(job, entry, replicas) if level != KEEP_NONE else "to make room for others"
        if reason:
            job.notes.append(f"moved: {reason}")
            continue
        candidate = job.chosen
        needed = _replicas_needed(job, candidate)
        if level == KEEP_NEEDED and needed < len(replicas):
            job.notes.append(f"{len(replicas) - needed} of {len(replicas)} replicas make room for others")
            replicas = replicas[:needed]
        least = _fixed_least(candidate, candidate.utilization)
        job.use = Use(job.name, least, job.subject.pooling, candidate.utilization)
        placer.take(replicas, job.use)
        job.replicas, job.kept = replicas, True
        _claim(placer, job)
        job.held_ports = [placement.get("port") for placement in entry["placements"]]
        for nodes, port in zip(replicas, job.held_ports):
            if port:
                placer.claim_port(nodes[0][0], port, job.name)


def _share(entry):
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
    share = service["gpu_memory_utilization"] or _share(entry)
    pinned = dict(service)
    if pinned["max_model_len"] in (None, "auto") and (entry.get("engine") or {}).get("max_model_len"):
        pinned["max_model_len"] = entry["engine"]["max_model_len"]
    subject = Subject(pinned, job.subject.spec, job.subject.type, job.subject.engine_version)
    tp, pp = layout.get("tensor_parallel_size", 1), layout.get("pipeline_parallel_size", 1)
    candidate = layouts.judge(subject, kind, tp, pp, len(replicas[0]), [tp * pp], share)
    if candidate.verdict != POSSIBLE:
        return candidate.reason
    least = _fixed_least(candidate, share)
    if any(device.room < least for device in devices):
        return "its GPUs have not the memory left"
    job.chosen = candidate
    return ""


def _fixed_least(candidate, share):
    return int(share * candidate.kind.total) + max(rank.in_use for rank in candidate.estimate.ranks)


# --- the fewest GPUs for each -------------------------------------------------------------------------------


def _admit_all(placer, jobs):
    """Everybody a place; where that fails, once more with contexts cut to make room, for services that want none."""
    left = _admit(placer, jobs, tight=False)
    if any(job.chosen is None and _possible(job) for job in left):
        placed = [job for job in jobs if job.chosen]
        before = [(job, job.chosen, job.replicas, job.use) for job in placed]
        _withdraw(placer, placed)
        again = _admit(placer, jobs, tight=True)
        if len(again) >= len(left):
            _withdraw(placer, [job for job in jobs if job.chosen])
            for job, job.chosen, job.replicas, job.use in before:
                _take(placer, job)
        left = [job for job in jobs if job.chosen is None]
    for job in left:
        _explain_failure(placer, job, _possible(job))


def _withdraw(placer, jobs):
    for job in jobs:
        _release(placer, job)
        job.chosen, job.replicas, job.use = None, [], None


def _possible(job):
    return sorted((c for c in job.candidates if c.verdict == POSSIBLE), key=lambda c: _least_cost(job, c))


def _admit(placer, jobs, tight):
    """The jobs that found no place."""
    left = []
    for job in sorted(jobs, key=_flexibility):
        possible = _possible(job)
        if not any(
            _place(placer, job, c, _replicas_needed(job, c), shared, tight)
            for shared in (False, True)
            for c in possible
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


def _replicas_needed(job, candidate):
    """Replicas for the wanted requests at once; 1 unless the operator says otherwise."""
    service = job.service
    if service["replicas"]:
        return service["replicas"]
    if not service["concurrency"] or not candidate.estimate.max_concurrency:
        return 1
    return max(1, math.ceil(service["concurrency"] / candidate.estimate.max_concurrency))


def _least_cost(job, candidate):
    """Order of candidates by what they take: a context that had to be cut short comes last."""
    needed = _replicas_needed(job, candidate)
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


def _place(placer, job, candidate, count, shared, tight=False):
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
    least = _fixed_least(candidate, fixed) if fixed else candidate.least_bytes(job.subject, tight)
    found = placer.find(pool, candidate, least, count, shared, _foreign_port(placer, job), job.subject.pooling)
    if len(found) < count:
        return False
    job.chosen, job.replicas = candidate, found
    job.use = Use(job.name, least, job.subject.pooling, fixed)
    _take(placer, job)
    return True


def _take(placer, job):
    placer.take(job.replicas, job.use)
    _claim(placer, job)


def _release(placer, job):
    placer.release(job.replicas, job.use)
    for nodes in job.replicas:
        placer.unclaim(nodes[0][0], job.name)


def _claim(placer, job):
    """The operator's port belongs to the service on every host where it has a head."""
    if job.service["port"]:
        for nodes in job.replicas:
            placer.claim_port(nodes[0][0], job.service["port"], job.name)


def _foreign_port(placer, job):
    """Says of a host who else has the operator's port there."""
    port = job.service["port"]
    return (lambda host: placer.ports[host.name].get(port, job.name) != job.name) if port else None


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
        count = _replicas_needed(job, best)
        users = sorted(
            {u.name for devices in pools[best.kind] for d in devices[1] for u in d.users if u.name != job.name}
        )
        job.problem = (
            f"service {job.name!r}: needs {count * best.gpus} × {best.kind.name} with "
            f"{format_bytes(best.least_bytes(job.subject))} free on each"
            + (f" in one host ({best.gpus} together)" if best.gpus > 1 and best.hosts == 1 else "")
            + (f"; what there is goes to {', '.join(users)}" if users else "; the GPUs are not free")
        )
        for candidate in possible:
            candidate.refuse("the GPUs it needs are not free", NO_ROOM)
        return
    nearest = _nearest(job)
    job.problem = f"service {job.name!r}: no layout fits; nearest: {_shape(nearest)}: {nearest.reason}"


def _port_clash(placer, job):
    """When only the port keeps a service from every host it may use: who has it."""
    foreign = _foreign_port(placer, job)
    hosts = {host.name: host for pool in placer.pool(job.service).values() for host, _devices in pool}
    if foreign is None or not all(foreign(host) for host in hosts.values()):
        return None
    return _clash(placer, next(iter(hosts.values())), job)


def _clash(placer, host, job):
    port = job.service["port"]
    return f"services {placer.ports[host.name][port]!r} and {job.name!r} both want port {port} on host {host.name}"


def _nearest(job):
    """The rejected layout that comes closest, to explain with."""
    small = [c for c in job.candidates if c.verdict == TOO_SMALL]
    if small:
        return min(small, key=lambda c: (-(c.estimate.longest_context if c.estimate else 0), c.gpus))
    return job.candidates[0]


def _no_gpus(placer, service):
    if service["gpus"]:
        return f"no host has all the GPUs {service['gpus']} (alike)"
    reasons = [f"{host.name}: {host.reason}" for host in placer.hosts if host.reason]
    hint = "; set accelerator: cpu, or declare inference_gpus for hosts that have none yet"
    where = f" on {', '.join(service['hosts'])}" if service["hosts"] else " in the fleet"
    return f"there is no GPU{where}" + (f" ({'; '.join(reasons[:3])})" if reasons else "") + hint


# --- better use of what is left -----------------------------------------------------------------------------


def _improve(placer, jobs):
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
    _release(placer, job)
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
        if _place(placer, job, candidate, count, False):
            return
    job.chosen, job.replicas, job.use = old
    _take(placer, job)


def _capacity(counts, candidate):
    """Replicas that the idle GPUs hold."""
    if candidate.hosts == 1:
        return sum(number // candidate.gpus * hosts for number, hosts in counts.items())
    size = candidate.gpus // candidate.hosts
    return sum(hosts for number, hosts in counts.items() if number >= size) // candidate.hosts


def _replicas_wanted(job, candidate, capacity, quota):
    needed = _replicas_needed(job, candidate)
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


# --- final shares -------------------------------------------------------------------------------------------


def _settle(jobs):
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


# --- hosts without GPUs -------------------------------------------------------------------------------------


def _cpu_cache(service):
    """Bytes of cache: VLLM_CPU_KVCACHE_SPACE counts GiB."""
    wanted = service["env"].get("VLLM_CPU_KVCACHE_SPACE", "")
    return int(float(wanted) * GIB) if wanted.replace(".", "", 1).isdigit() and float(wanted) else CPU_CACHE


def _place_on_cpu(placer, job):
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
    foreign = _foreign_port(placer, job)
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


# --- ports --------------------------------------------------------------------------------------------------


def _reserve_ports(placer, jobs):
    for job in jobs:
        hosts = job.service["hosts"]
        if job.service["port"] and len(hosts) == 1 and hosts[0] in placer.ports:
            placer.claim_port(placer.by_name[hosts[0]], job.service["port"], job.name)


def _assign_ports(placer, job):
    """The operator's port for the first replica on a host, the port that is in force, else the next free one."""
    fixed = job.service["port"]
    for number, nodes in enumerate(job.replicas):
        head = nodes[0][0]
        held = job.held_ports[number] if number < len(job.held_ports) else None
        port = fixed if fixed and (fixed, head.name) not in job.ports else held
        if not port or (port, head.name) in job.ports or placer.claim_port(head, port, job.name):
            port = placer.free_port(head, job.name, fixed or FIRST_PORT)
        job.ports.append((port, head.name))


# --- the answer ---------------------------------------------------------------------------------------------


def _answer(job, in_force):
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


def _shape(candidate):
    text = f"TP {candidate.tp}"
    if candidate.pp > 1:
        text += f" × PP {candidate.pp}"
    if candidate.hosts > 1:
        text += f" on {candidate.hosts} hosts"
    return text + (f" of {candidate.kind.name}" if candidate.kind else "")


def _why(job):
    """The recommendation in one sentence."""
    service, chosen = job.service, job.chosen
    count = len(job.replicas)
    if service["accelerator"] == "cpu":
        return f"{count} × on the CPU of {', '.join(sorted({n[0][0].name for n in job.replicas}))}."
    found = chosen.estimate
    text = f"{count} × {_shape(chosen)} ({chosen.dtype})"
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
            f"{_replicas_needed(job, candidate) * candidate.gpus} GPUs, not fewer"
            if (candidate.gpus * _replicas_needed(job, candidate) >= chosen.gpus * len(job.replicas))
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


def _usage(fleet):
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
