# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who makes the key of a service, and who gets it from whom.

A service whose operator gave no key gets one: made once, on the host that the plan names as its owner, and the same for
all its replicas. Nobody ever gets a second one because the first could not be read.
"""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils import _service_values as values

# What a dry run works with where a key would be made.
PLACEHOLDER = "0" * 64


def given(service, default=None):
    """The key that the operator gave, None when it is wanted open, "" when one has to be made."""
    key = service.get("api_key") or default or ""
    return None if str(key).strip().lower() == values.OPEN else str(key)


def checked_default(key, variable="inference_api_key"):
    """The key of all services that set none, as it can be used; raises values.Bad without the key."""
    if key in (None, ""):
        return None
    try:
        return values.api_key(key)
    except values.Bad as wanted:
        raise values.Bad(f"{variable} is not shown here, wanted {wanted}") from None


def planned(answer, in_force=None, inventory=None):
    """{owner, held_by} of a service in the plan: who makes its key, and who may hold it from before.

    answer, in_force: its entry in this plan and in the one in force. inventory: every host that there is, reachable or
    not. The owner stays as long as it is in there, with or without a replica; after that it is a host that has a copy.
    """
    before = (in_force or {}).get("key") or {}
    held = [before.get("owner"), *(before.get("held_by") or [])]
    held += [host for host in _hosts(in_force or {}) if before]
    held = [host for host in dict.fromkeys(held) if host and (inventory is None or host in inventory)]
    owner = before.get("owner") if before.get("owner") in held else None
    owner = owner or next(iter(held), None) or next(iter(_hosts(answer)), None)
    return {"owner": owner, "held_by": sorted(held)} if owner else None


def carried_out(entry):
    """{owner, held_by} of a service when its plan has been carried out: all of its hosts may have the key by then."""
    key = entry.get("key")
    if not key:
        return None
    return {"owner": key["owner"], "held_by": sorted({key["owner"], *(key.get("held_by") or []), *_hosts(entry)})}


def _hosts(entry):
    nodes = [node["host"] for placement in entry.get("placements") or [] for node in placement["nodes"]]
    return list(dict.fromkeys(nodes))


def of_host(plan, services, host, default=None):
    """[{name, owner, held_by, asks, mine}] of the services whose made key this host owns or needs.

    asks: the hosts whose keys matter.
    services: as normalize_services returns them.
    """
    entries = {entry["name"]: entry for entry in (plan or {}).get("services") or []}
    found = []
    for service in services:
        entry = entries.get(service["name"])
        if service["state"] != "started" or entry is None or given(service, default) != "":
            continue
        key = entry.get("key") or planned(entry) or {}
        if host in _hosts(entry) or key.get("owner") == host:
            owner, held_by = key["owner"], list(key.get("held_by") or [])
            asks = list(dict.fromkeys([host, owner, *held_by, *_hosts(entry)]))
            found.append(
                {"name": service["name"], "owner": owner, "held_by": held_by, "asks": asks, "mine": owner == host}
            )
    return found


def keyless(services, items):
    """The services of which a container would run without a key, though nobody wants them open."""
    without = {service["name"] for service in services if service["api_key"] == ""}
    return sorted(without & {item["service"]["name"] for item in items})


def reports_of(read):
    """{host: {service: key or None}} from what the module service_keys said on each host; {host: its result}.

    A host on which a key could not be read or trusted says nothing: its key is not known, which is not "none".
    """
    reports = {}
    for host, result in read.items():
        if "found" in result and not result.get("problems"):
            reports[host] = {**result["found"], **(result.get("pending") or {})}
    return reports


def to_make(wanted, reports):
    """Names of the services whose key this host has to make now: it owns them, and nobody has one or may have one."""
    return [one["name"] for one in wanted if one["mine"] and _judged(one, reports)[0] == "make"]


def decided(wanted, host, reports, dry=False):
    """What a host does about its keys: {use, copies, changes, refusals, missing}.

    reports: see reports_of; owners have made what to_make named. dry: nothing was made, a placeholder stands for it.
    use: {service: key} for the containers. copies: those of which this host has no file yet. changes: those of which
    it has another one, which stays in its file until the service has answered with the new one. missing: {service:
    owner} of those that would be made.
    """
    answer = {"use": {}, "copies": {}, "changes": {}, "refusals": [], "missing": {}}
    for one in wanted:
        name, own = one["name"], (reports.get(host) or {}).get(one["name"])
        act, found = _judged(one, reports)
        if act == "away" and own:
            act, found = "have", own  # its own copy is as good
        if act == "make" and dry:
            answer["missing"][name] = one["owner"]
            answer["use"][name] = PLACEHOLDER
        elif act == "have":
            answer["use"][name] = found
            if own != found:
                answer["copies" if own is None else "changes"][name] = found
        else:
            answer["refusals"].append(found if act == "refuse" else _away(one, host))
    return answer


def _judged(one, reports):
    """("have", key), ("make", None), ("refuse", why) or ("away", None), from what all hosts say."""
    name, owner = one["name"], one["owner"]
    if owner not in reports:
        return "away", None
    if reports[owner].get(name):
        return "have", reports[owner][name]
    copies = {host: found[name] for host, found in sorted(reports.items()) if found.get(name)}
    if len(set(copies.values())) > 1:
        return "refuse", (
            f"{name}: {owner}, which owns its key, has none, and {', '.join(copies)} have different ones. Put the "
            f"right one back on {owner}, or remove the wrong ones"
        )
    if copies:
        return "have", next(iter(copies.values()))
    absent = [host for host in one["held_by"] if host not in reports]
    if absent:
        return "refuse", (
            f"{name}: its key is not on {owner}, and {', '.join(absent)}, which may have it, cannot be asked in this "
            f"run. Run it again with them, so that no second key is made"
        )
    return "make", None


def _away(one, host):
    return (
        f"{one['name']}: its key lies on {one['owner']}, which is not in this run or cannot be reached, and {host} has "
        f"no copy. Run it with {one['owner']} (--limit {one['owner']},{host}), so that no second key is made; or give "
        f"one in `api_key`"
    )


def with_keys(services, default=None, made=None):
    """The services, each with the key that its container is to want; open ones have none.

    made: {service: key}. A service without a key that nobody wants open has "", which no container may have.
    """
    result = []
    for service in services:
        key = given(service, default)
        if key == "" and service["state"] == "started":
            key = (made or {}).get(service["name"], "")
        result.append(dict(service, api_key=key))
    return result


def access(service, key):
    """How a service can be reached, as lines of the plan for a person. key: of its entry in the plan."""
    name, wish, local = service["name"], given(service), values.is_loopback(service["bind_address"])
    where = f"on {service['bind_address']}" + (", for its own host only" if local else "")
    if wish is None:
        reach = "whoever is on its host" if local else "whoever reaches its port"
        yield f"{name} is OPEN {where}: {reach} can use it without a key, as api_key: none says."
    elif wish == "":
        owner = f" on {key['owner']}" if key else ""
        yield f"{name} listens {where}, and wants a key that is made once{owner} and kept there."
    else:
        weak = values.weak(wish)
        yield f"{name} listens {where}, and wants the key that you gave."
        if weak:
            yield f"WARNING: the key of {name} {weak}. `openssl rand -hex 32` makes a good one."
