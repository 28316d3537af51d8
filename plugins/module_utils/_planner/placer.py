# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which GPUs of which hosts: finds them, hands them out, takes them back, and divides those that are shared."""

from __future__ import annotations

import math
from itertools import combinations

IDLE = 0.97  # of a GPU's memory: what is free when only the driver uses it
FIRST_PORT = 8000


class Use:
    """What one service holds of one GPU."""

    __slots__ = ("fixed", "least", "name", "pooling")

    def __init__(self, name, least, pooling=False, fixed=None):
        self.name = name
        self.least = least  # bytes reserved, CUDA context included
        self.pooling = pooling
        self.fixed = fixed  # share that must stay as it is


def idle(device):
    """Nobody uses it, neither a service of the plan nor a process that is there already."""
    return not device.users and device.room >= IDLE * device.kind.total


class Placer:
    """The fleet while it is handed out."""

    def __init__(self, fleet):
        self.hosts = fleet
        self.by_name = {host.name: host for host in fleet}
        self.ports = {host.name: {} for host in fleet}
        self._pools = {}

    # --- who may use what -------------------------------------------------------------------------------------------

    def pool(self, service):
        """[(host, devices)] that the service may use, by kind: {kind: [(host, [device])]}."""
        key = (tuple(service["hosts"]), tuple(service["gpus"] or ()))
        if key not in self._pools:
            self._pools[key] = self._select(*key)
        return self._pools[key]

    def _select(self, names, gpus):
        wanted = [self.by_name[name] for name in names if name in self.by_name] if names else self.hosts
        pools = {}
        for host in wanted:
            by_kind = {}
            for device in host.devices:
                if gpus and not named(device, gpus):
                    continue
                by_kind.setdefault(device.kind, []).append(device)
            for kind, devices in by_kind.items():
                if not gpus or len(devices) == len(gpus):
                    pools.setdefault(kind, []).append((host, devices))
        return pools

    # --- finding ----------------------------------------------------------------------------------------------------

    def idle_counts(self, pool):
        """How many hosts have how many idle GPUs: {GPUs: hosts}."""
        counts = {}
        for _host, devices in pool:
            number = sum(1 for device in devices if idle(device))
            counts[number] = counts.get(number, 0) + 1
        return counts

    def find(self, pool, candidate, least, count=1, shared=False, avoid=None, pooling=False):
        """Up to `count` replicas: a list of [(host, devices)], each one replica. Takes nothing.

        avoid: says of a host whether no replica may begin there.
        """
        if candidate.hosts > 1:
            return self._across(pool, candidate, least, count, shared, avoid)
        size = candidate.gpus
        options = []
        for position, (host, devices) in enumerate(pool):
            if avoid and avoid(host):
                continue
            usable = [d for d in devices if d.room >= least and (shared or idle(d))]
            if len(usable) >= size:
                options.append((len(usable), position, host, usable))
        if count == 1:
            # The tightest host that has room, so that wide gaps stay for wide services.
            options.sort(key=lambda option: option[:2])
        found = []
        for _number, _position, host, usable in options:
            while len(usable) >= size and len(found) < count:
                chosen = _choose(host, usable, size, shared, pooling)
                usable = [device for device in usable if device not in chosen]
                found.append([(host, chosen)])
            if len(found) >= count:
                break
        return found

    def _across(self, pool, candidate, least, count, shared, avoid):
        size = candidate.gpus // candidate.hosts
        nodes, found = [], []
        for host, devices in pool:
            if avoid and not nodes and avoid(host):
                continue
            usable = [d for d in devices if d.room >= least and (shared or idle(d))]
            if len(usable) >= size:
                nodes.append((host, _choose(host, usable, size, shared, False)))
            if len(nodes) == candidate.hosts:
                found.append(nodes)
                nodes = []
                if len(found) == count:
                    break
        return found

    # --- taking and giving back -------------------------------------------------------------------------------------

    def take(self, replicas, use):
        for nodes in replicas:
            for _host, devices in nodes:
                for device in devices:
                    device.users.append(use)
                    device.room -= use.least

    def release(self, replicas, use):
        for nodes in replicas:
            for _host, devices in nodes:
                for device in devices:
                    device.users.remove(use)
                    device.room += use.least

    # --- ports ------------------------------------------------------------------------------------------------------

    def claim_port(self, host, port, name):
        """The port for `name` on a host, or the name of the service that has it."""
        holder = self.ports[host.name].setdefault(port, name)
        return None if holder == name else holder

    def unclaim(self, host, name):
        taken = self.ports[host.name]
        for port in [port for port, holder in taken.items() if holder == name]:
            del taken[port]

    def free_port(self, host, name, first=FIRST_PORT):
        taken = self.ports[host.name]
        port = first
        while port in taken:
            port += 1
        taken[port] = name
        return port


def named(device, gpus):
    return device.index in gpus or (device.uuid is not None and device.uuid in gpus)


def _choose(host, usable, size, shared, pooling):
    """`size` of the usable GPUs: where pooling models are gathered, where most is left, and close to one another."""
    if shared or pooling:
        usable = sorted(usable, key=lambda d: (not (pooling and _only_pooling(d)), bool(d.users), -d.room, d.index))
        return sorted(usable[:size], key=lambda d: d.index)
    if size == 1 or host.uniform or len(usable) == size or len(usable) > 16:
        return usable[:size]
    return list(min(combinations(usable, size), key=lambda group: _distance(host, group)))


def _only_pooling(device):
    return bool(device.users) and all(use.pooling for use in device.users)


def _distance(host, group):
    ranks = [host.link_rank(a, b) for a, b in combinations(group, 2)]
    return max(ranks), sum(ranks)


def divide(device, total_share, context):
    """Shares of the services on one GPU: {name: share}. What is over goes to those with a cache, in equal parts.

    total_share: the most that a service takes alone; context: bytes of one CUDA context, outside of every share.
    """
    flexible = [use for use in device.users if use.fixed is None and not use.pooling]
    spare = max(0, device.room) // len(flexible) if flexible else 0
    shares = {}
    for use in device.users:
        if use.fixed is not None:
            shares[use.name] = use.fixed
            continue
        extra = spare if use in flexible else 0
        share = math.floor((use.least + extra - context(use)) / device.kind.total * 100) / 100
        if use.pooling:
            share += 0.01
        shares[use.name] = round(min(share, total_share(use)), 2)
    return shares
