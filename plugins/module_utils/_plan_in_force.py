# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs where, as the hosts themselves keep it in plan.json: a serial, and a section for each host with its own.

    {"serial": 7, "hosts": {"gpu1": {"serial": 7, "services": […]}, "gpu2": {"serial": 5, "services": […]}}}

Every host keeps all sections, so that a run which reaches only some hosts knows what the others have. A section
changes only when its host was in the run; where two files differ, the newer section wins. Nothing is moved, and nothing
removed, because a host was not looked at.
"""

from __future__ import annotations

import json

from ansible_collections.inferops.gpu_host.plugins.module_utils import _service_keys
from ansible_collections.inferops.gpu_host.plugins.module_utils._plan_shape import fault
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import UntrustedError, bounded_json

# What later runs go by; the reasons for it are the plan's alone.
KEYS = (
    "name",
    "model",
    "type",
    "quantization",
    "files_bytes",
    "accelerator",
    "layout",
    "gpu",
    "engine",
    "key",
    "placements",
    "estimate",
)
_LEFT = {"state": "started", "kept": True, "rejected": [], "notes": [], "naive": None, "objective": None, "hosts": None}


class PlanFileError(ValueError):
    """A plan.json that cannot be used."""


def entries(plan):
    """What of a plan says where services run; the same plan carried out again gives the same."""
    placed = [entry for entry in plan.get("services") or [] if entry.get("placements")]
    return [{**{key: entry.get(key) for key in KEYS}, "key": _service_keys.carried_out(entry)} for entry in placed]


def read(text):
    """A plan.json as data; one of an earlier version, a list of services, has the serial 0."""
    try:
        data = bounded_json(text, "plan.json")
        if isinstance(data, list):
            _check(data)
            data = {"serial": 0, "hosts": {host: _section(0, data, host) for host in _hosts(data)}}
        for section in data["hosts"].values():
            _check(section["services"])
        serial = int(data["serial"])
        sections = {
            str(host): _section(int(section["serial"]), section["services"], host)
            for host, section in data["hosts"].items()
        }
    except (UntrustedError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise PlanFileError(
            f"plan.json holds no plan that this version can read ({type(error).__name__}: {error}). "
            "Move the file away, and plan all hosts again"
        ) from error
    return {"serial": serial, "hosts": sections}


def _check(services):
    wrong = fault(services)
    if wrong:
        raise ValueError(wrong)


def merged(files):
    """One of several: of each host the newest section."""
    result = {"serial": 0, "hosts": {}}
    for file in files:
        result["serial"] = max(result["serial"], file["serial"])
        for host, section in sorted(file["hosts"].items()):
            if host not in result["hosts"] or section["serial"] > result["hosts"][host]["serial"]:
                result["hosts"][host] = section
    return result


def services(force):
    """The services of all sections, in the form of a plan."""
    found, replicas = {}, {}
    for _host, section in sorted(force["hosts"].items(), key=lambda item: (item[1]["serial"], item[0])):
        for entry in section["services"]:
            found[entry["name"]] = dict(found.get(entry["name"], {}), **entry)
            for placement in entry["placements"]:
                replicas.setdefault(entry["name"], {})[placement.get("replica", 0)] = placement
    return [
        dict(entry, placements=[replicas[name][number] for number in sorted(replicas[name])])
        for name, entry in found.items()
    ]


def carried_out(force, plan, hosts, inventory, names):
    """What the hosts keep after a run that reached `hosts` and carried out the services `names` of a plan.

    Hosts that the inventory does not have any more are forgotten. What says the same keeps its serial.
    """
    planned = [entry for entry in entries(plan) if entry["name"] in names]
    known = {host: section for host, section in force["hosts"].items() if host in inventory}
    serial, sections = force["serial"] + 1, dict(known)
    for host in hosts:
        before = known.get(host, {"services": []})["services"]
        others = [entry for entry in before if entry["name"] not in names]
        after = sorted(others + _section(0, planned, host)["services"], key=lambda entry: entry["name"])
        if after != before:
            sections[host] = {"serial": serial, "services": after}
    changed = sections != known
    return {"serial": serial if changed else force["serial"], "hosts": sections}


def text_of(force):
    """The content of plan.json; empty when nothing runs anywhere."""
    if not any(section["services"] for section in force["hosts"].values()):
        return ""
    return json.dumps(force, indent=4, sort_keys=True, ensure_ascii=False) + "\n"


def _wanted_hosts(service):
    """The hosts that a declared service names, None where what was declared makes no sense."""
    wanted = (service.get("hosts") or service.get("host") or []) if isinstance(service, dict) else None
    wanted = [wanted] if isinstance(wanted, str) else wanted
    sound = isinstance(wanted, (list, tuple)) and all(isinstance(name, str) for name in wanted)
    return list(wanted) if sound and isinstance(service.get("name"), str) else None


def around(declared, force, hosts, inventory):
    """What can be planned when not all hosts were looked at: {services, hosts, left}.

    left: entries for the services that stay as they are, since a host of theirs is away. Their GPUs are nobody else's.
    """
    known = {host["name"] for host in hosts}
    away = set(inventory) - known
    running = {entry["name"]: entry for entry in services(force)}
    planned, left = [], []
    for service in declared:
        wanted = _wanted_hosts(service)
        if wanted is None:
            planned.append(service)  # the planner says what is wrong with it
            continue
        entry = running.get(service.get("name"))
        theirs = sorted(set(_hosts([entry])) & away) if entry else []
        if theirs or (wanted and set(wanted) <= away):
            reason = f"{', '.join(theirs or sorted(wanted))} is not in this run, so it stays as it is"
            nothing = {**dict.fromkeys(KEYS), "placements": [], "engine": {}, "model": service.get("model")}
            about = {"name": service["name"], "state": service.get("state") or "started", "reason": reason}
            left.append({**nothing, **(entry or {}), **_LEFT, **about})
        elif set(wanted) & away:
            planned.append(
                dict({key: service[key] for key in service if key != "host"}, hosts=sorted(set(wanted) - away))
            )
        else:
            planned.append(service)
    return {"services": planned, "hosts": [_without(host, left) for host in hosts], "left": left}


def completed(plan, left):
    """A plan with the services that stay as they are."""
    return dict(plan, services=[*plan["services"], *left])


def _without(host, left):
    """A host of the fleet without the GPUs of services that stay as they are."""
    if not isinstance(host.get("gpus"), list):
        return host
    taken = [
        gpu
        for entry in left
        for placement in entry["placements"]
        for node in placement["nodes"]
        if node["host"] == host["name"]
        for gpu in node["gpus"]
    ]
    ids = {gpu[key] for gpu in taken for key in ("uuid",) if gpu.get(key)}
    indexes = {gpu.get("index") for gpu in taken if not gpu.get("uuid")}
    gpus = [gpu for gpu in host["gpus"] if gpu.get("uuid") not in ids and gpu.get("index") not in indexes]
    return dict(host, gpus=gpus)


def _hosts(entries_):
    return sorted(
        {node["host"] for entry in entries_ for placement in entry["placements"] for node in placement["nodes"]}
    )


def _section(serial, entries_, host):
    """Of the services those with a part on the host, with the replicas that have one there."""
    own = []
    for entry in entries_:
        placements = [
            placement for placement in entry["placements"] if host in [node["host"] for node in placement["nodes"]]
        ]
        if placements:
            own.append(dict(entry, placements=placements))
    return {"serial": serial, "services": sorted(own, key=lambda entry: str(entry["name"]))}
