# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which address and interface each host of a group uses for the others, and everything that follows from that.

One source: what vLLM, Ray, NCCL and Gloo are told about the network is derived here from the same choice.
"""

from __future__ import annotations

import ipaddress
import re

from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import bounded_json

# Interfaces that a container engine, a hypervisor or an overlay network made: they lead to no other host.
_MADE_BY_ENGINES = re.compile(
    r"^(docker\d|docker_gwbridge|br-[0-9a-f]{12}$|virbr|lxcbr|lxdbr|podman|cni|flannel|cali|cilium|kube-|nerdctl|tunl\d)"
)


class NetworkError(ValueError):
    """Everything that is wrong with the network of a group, at once."""

    def __init__(self, problems):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def _unreadable(problem):
    return NetworkError([problem])


# What a host has


def parse_interfaces(text):
    """The interfaces in the output of `ip -j -d address show`: [{name, kind, up, mtu, addresses}].

    kind: loopback, engine (made by a container engine or the like), bridge, or whatever the link is (ether, bond, …).
    """
    told, interfaces = bounded_json(text, "the output of `ip address show`", _unreadable), []
    for link in told if isinstance(told, list) else []:
        if not isinstance(link, dict) or not isinstance(link.get("ifname"), str):
            continue  # old versions of ip leave an empty object for what a filter hid
        flags = {flag for flag in _list(link, "flags") if isinstance(flag, str)}
        info = link.get("linkinfo")
        kind = info.get("info_kind") if isinstance(info, dict) else None
        kind = str(kind or link.get("link_type") or "unknown")
        if "LOOPBACK" in flags:
            kind = "loopback"
        elif _MADE_BY_ENGINES.match(link["ifname"]):
            kind = "engine"
        interfaces.append(
            {
                "name": link["ifname"],
                "kind": kind,
                "up": {"UP", "LOWER_UP"} <= flags,
                "mtu": link["mtu"] if isinstance(link.get("mtu"), int) else None,
                "addresses": [
                    f"{entry['local']}/{entry['prefixlen']}"
                    for entry in _list(link, "addr_info")
                    if isinstance(entry, dict) and entry.get("scope") != "link" and not entry.get("temporary")
                    if _is_interface(entry.get("local"), entry.get("prefixlen"))
                ],
            }
        )
    return interfaces


def _list(link, name):
    value = link.get(name)
    return value if isinstance(value, list) else []


def _is_interface(address, prefix):
    try:
        return isinstance(address, str) and bool(ipaddress.ip_interface(f"{address}/{prefix}"))
    except ValueError:
        return False


# Choosing


def resolve(found, wanted=None, waive=()):
    """{host: {address, interface, mtu, rdma}} of one group; raises NetworkError.

    found: {host: {interfaces, routes, rdma}} as the module network_info returns them.
    wanted: {host: {network, address, interface, rdma}}, what the operator fixed; None where nothing is.
    waive: "mtu" lets the MTUs differ.
    """
    problems, chosen = [], {}
    for host in found:
        try:
            chosen[host] = _choose(host, found[host], (wanted or {}).get(host) or {}, [h for h in found if h != host])
        except _Unresolved as problem:
            problems.append(str(problem))
    problems.extend(_disagreements(chosen, waive))
    if problems:
        raise NetworkError(problems)
    return chosen


class _Unresolved(ValueError):
    """Why one host has no address for its peers."""


def _choose(host, found, wanted, peers):
    candidates = [
        (ipaddress.ip_interface(address), interface)
        for interface in found["interfaces"]
        for address in interface["addresses"]
    ]
    if wanted.get("address"):
        address, interface = _by_address(host, candidates, wanted["address"])
    elif wanted.get("interface") or wanted.get("network"):
        address, interface = _by_wish(host, candidates, wanted.get("interface"), wanted.get("network"))
    else:
        address, interface = _by_route(host, found["routes"], candidates, peers)
    if interface["kind"] in ("loopback", "engine"):
        raise _Unresolved(
            f"{host}: {address} is on {interface['name']}, which leads to no other host; "
            f"{_has(candidates)}. Set inference_network to the subnet that joins the hosts"
        )
    if not interface["up"]:
        raise _Unresolved(
            f"{host}: {address} is on {interface['name']}, which is down; {_has(candidates)}. "
            f"Bring it up, or set inference_network or inference_address of {host} to another one"
        )
    rdma = wanted.get("rdma")
    return {
        "address": str(address),
        "interface": interface["name"],
        "mtu": interface["mtu"],
        "rdma": _rdma(found.get("rdma") or [], interface["name"]) if rdma is None else list(rdma),
    }


def _by_address(host, candidates, wanted):
    for address, interface in candidates:
        if str(address.ip) == str(wanted):
            return address.ip, interface
    raise _Unresolved(
        f"{host}: inference_address is {wanted}, which it does not have; {_has(candidates)}. Correct it for {host}"
    )


def _by_wish(host, candidates, name, network):
    try:
        subnet = ipaddress.ip_network(network, strict=False) if network else None
    except ValueError as error:
        raise _Unresolved(f"{host}: inference_network is {network!r}, wanted a subnet such as 10.0.0.0/24") from error
    wish = " and ".join(
        filter(None, [name and f"inference_interface {name}", network and f"inference_network {network}"])
    )
    matching = [
        (address, interface)
        for address, interface in candidates
        if (not name or interface["name"] == name) and (not subnet or address.ip in subnet)
    ]
    # An interface that was named may have an IPv6 address as well; a host that has IPv4 there uses it.
    if not subnet:
        matching = [m for m in matching if m[0].version == 4] or matching
    if not matching:
        raise _Unresolved(f"{host} has no address for {wish}; {_has(candidates)}. Correct it for {host}")
    if len(matching) > 1:
        several = ", ".join(f"{address.ip} on {interface['name']}" for address, interface in matching)
        raise _Unresolved(f"{host} has several addresses for {wish}: {several}. Set inference_address of {host} to one")
    return matching[0][0].ip, matching[0][1]


def _by_route(host, routes, candidates, peers):
    ways, failures = {}, []
    for peer in peers:
        route = routes.get(peer) or {}
        if route.get("source"):
            ways.setdefault(route["source"], []).append(peer)
        else:
            failures.append(f"{peer} ({route.get('reason') or 'not looked up'})")
    if failures or not ways:
        raise _Unresolved(
            f"{host} finds no way to {', '.join(failures)}; {_has(candidates)}. "
            f"Set inference_network to the subnet that joins the hosts"
        )
    if len(ways) > 1:
        told = ", ".join(f"{source} to {' and '.join(to)}" for source, to in sorted(ways.items()))
        raise _Unresolved(f"{host} would use several addresses: {told}. Set inference_network to the subnet to use")
    source, to = next(iter(ways.items()))
    for address, interface in candidates:
        if str(address.ip) == source:
            if interface["kind"] == "bridge":
                raise _Unresolved(
                    f"{host}: the way to {' and '.join(to)} is over the bridge {interface['name']} ({source}); "
                    f"{_has(candidates)}. Set inference_network to its subnet if that is meant"
                )
            return address.ip, interface
    raise _Unresolved(f"{host}: {source} leads to {' and '.join(to)}, and is on no interface; {_has(candidates)}")


def _has(candidates):
    there = [
        f"{interface['name']} {address}{'' if interface['up'] else ' (down)'}"
        for address, interface in candidates
        if interface["kind"] != "loopback"
    ]
    return f"it has {', '.join(there)}" if there else "it has no address besides loopback"


def _rdma(devices, interface):
    """The adapters NCCL shall use: all InfiniBand ports that are up; of RoCE only what carries the chosen interface."""
    active = [device for device in devices if device.get("state") == "ACTIVE"]
    infiniband = [device["name"] for device in active if device.get("link_layer") == "InfiniBand"]
    return infiniband or [device["name"] for device in active if device.get("interface") == interface]


def _disagreements(chosen, waive):
    owners = {}
    for host, network in chosen.items():
        owners.setdefault(network["address"], []).append(host)
    for address, hosts in owners.items():
        if len(hosts) > 1:
            yield (
                f"{' and '.join(hosts)} would all be {address}: give each host its own inference_address, "
                f"or correct the inventory when these are one machine"
            )
    if len({ipaddress.ip_address(network["address"]).version for network in chosen.values()}) > 1:
        told = ", ".join(f"{host} {network['address']}" for host, network in chosen.items())
        yield f"some hosts would use IPv4 and some IPv6 ({told}): set inference_network to one subnet"
    if "mtu" not in waive and len({network["mtu"] for network in chosen.values()}) > 1:
        told = ", ".join(f"{host} {network['mtu']} on {network['interface']}" for host, network in chosen.items())
        yield (
            f"the MTU differs ({told}): large messages would get stuck. Set the same one on all, "
            f"or add mtu to inference_sameness_waive"
        )


# What follows


def environment(host, peers, accelerator="cuda"):
    """What the engine of a host must be told about the network, as environment variables."""
    own = peers[host]
    told = {
        "VLLM_HOST_IP": own["address"],
        "GLOO_SOCKET_IFNAME": own["interface"],
        # Peers are spoken to directly, whatever proxy the rest of the environment names.
        "NO_PROXY": ",".join(["localhost", "127.0.0.1", *sorted(peer["address"] for peer in peers.values())]),
    }
    told["no_proxy"] = told["NO_PROXY"]
    if accelerator == "cuda":
        # With `=` NCCL takes exactly this name; without, eth1 would mean eth10 as well.
        told["NCCL_SOCKET_IFNAME"] = "=" + own["interface"]
        # The way NCCL takes is told in its log only; see engine_log_info.
        told["NCCL_DEBUG"] = "INFO"
        told["NCCL_DEBUG_SUBSYS"] = "INIT,NET"
        if own["rdma"]:
            told["NCCL_IB_HCA"] = "=" + ",".join(own["rdma"])
    return told


# Who must reach whom


def connections(groups, peers, probes):
    """Every connection that the groups need, by the host that opens it: {host: [{host, address, port, purpose}]}.

    groups: as _groups.of_plan returns them. probes: {host: port} of a port that the kernel chose, as NCCL and Gloo do.
    """
    needed = {}

    def need(source, target, port, purpose):
        way = {"host": target, "address": peers[target]["address"], "port": port, "purpose": purpose}
        if way not in needed.setdefault(source, []):
            needed[source].append(way)

    for group in groups:
        for source in group["hosts"]:
            for target in group["hosts"]:
                if source == target:
                    continue
                for purpose, port in ports_of(group, target).items():
                    need(source, target, port, purpose)
                if probes.get(target):
                    need(source, target, probes[target], "ports that NCCL and Gloo choose")
    return needed


def ports_of(group, host):
    """{purpose: port} that the others of the group open connections to on this host."""
    ports = dict(group["ports"]["every"])
    if host == group["head"]:
        ports.update(group["ports"]["head"])
    return ports


def blocked(failed):
    """One line for each connection that failed: {source: failed_targets of peer_check} → [text]."""
    explain = {
        "timeout": "no answer: a firewall drops it, on {host} or on the way",
        "refused": "refused although something listens there: a firewall on {host} or on the way rejects it",
        "unreachable": "there is no route, or a firewall rejects it",
    }
    return [
        f"{source} → {target['host']} {target['address']}:{target['port']} ({target['purpose']}): "
        + explain.get(target["reason"], "{reason}").format(**target)
        for source, targets in failed.items()
        for target in targets
    ]
