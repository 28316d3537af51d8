# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts and their GPUs as the planner sees them, whether gpu_info found them or an inventory declares them.

A host's `gpus` may be written as a name (`H20-96GB`), as `{model: H20-96GB, count: 8}`, as a mapping with `memory` and
`compute_capability` for a card that the catalogue does not know, as what gpu_info returns, or as a list of these.
"""

from __future__ import annotations

import difflib
import re
from collections import namedtuple

from ansible_collections.inferops.gpu_host.plugins.module_utils import _gpu_catalogue
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GB, GIB, MIB

_UNITS = {"": 1, "b": 1, "mb": 10**6, "gb": GB, "tb": 10**12, "mib": MIB, "gib": GIB, "tib": 1024**4}

# From best to worst, as `nvidia-smi topo -m` says it.
_LINK_RANK = {"NV": 0, "PIX": 1, "PXB": 2, "PHB": 3, "NODE": 4, "SYS": 5}

# Equal GPUs are planned alike: name, usable bytes, compute capability, GB/s of memory, GB/s of NVLink (0: none) and
# how many GPUs it joins, GB/s of PCIe, 16-bit TFLOPs.
Kind = namedtuple("Kind", "name total capability bandwidth nvlink span pcie tflops")


# What an operator may say of GPUs that nobody has looked at.
DECLARED = ("model", "name", "count", "index", "uuid", "memory", "memory_free", "compute_capability")


class FleetError(ValueError):
    """A host or GPU that cannot be understood; the message names it."""


class Device:
    """One GPU (or MIG instance). `room` is what is left of it while the planner hands it out."""

    __slots__ = ("free", "host", "index", "kind", "mig", "room", "users", "uuid")

    def __init__(self, host, index, uuid, kind, free=None, mig=False):
        self.host = host
        self.index = index
        self.uuid = uuid
        self.kind = kind
        self.free = free  # bytes, None where nobody looked
        self.mig = mig
        self.users = []
        self.room = kind.total if free is None else min(free, kind.total)


class Host:
    """One host: its devices in the order of their indexes, the ranks of their links, its memory in bytes."""

    __slots__ = ("devices", "links", "memory", "name", "reason", "uniform")

    def __init__(self, name, devices, links=None, memory=None, reason=None):
        self.name = name
        self.devices = devices
        self.links = links or {}
        self.memory = memory
        self.reason = reason  # why there are no devices, as gpu_info said it
        self.uniform = len(set(self.links.values())) <= 1

    def link_rank(self, a, b):
        """0 for NVLink up to 5 for a path across sockets; equal where nobody looked."""
        return self.links.get((a.index, b.index), 5) if self.links else 0


def parse_bytes(value, what):
    """Bytes from a number of bytes or from text with a unit: '24 GiB', '24GB'."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        return int(value)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(value))
    if not match or match.group(2).lower() not in _UNITS:
        raise FleetError(f"{what} is {value!r}, wanted bytes or a size such as 24 GiB")
    return int(float(match.group(1)) * _UNITS[match.group(2).lower()])


def build_fleet(hosts):
    """[{name, gpus, links, memory, reason}] → [Host]. Raises FleetError."""
    fleet, names = [], set()
    for entry in hosts:
        name = entry.get("name")
        if not name or name in names:
            raise FleetError(f"hosts: {'two hosts are called ' + repr(name) if name else 'a host has no name'}")
        names.add(name)
        memory = entry.get("memory")
        memory = parse_bytes(memory, f"host {name}: memory") if memory is not None else None
        devices = _devices(name, entry.get("gpus"), entry.get("links"))
        fleet.append(Host(name, devices, _link_ranks(entry.get("links")), memory, entry.get("reason")))
    return fleet


def _link_ranks(links):
    """{"0": {"1": "NV18"}} → {(0, 1): 0}."""
    ranks = {}
    for first, row in (links or {}).items():
        for second, link in row.items():
            ranks[(int(first), int(second))] = _LINK_RANK.get(re.sub(r"\d+$", "", link), 5)
    return ranks


def _devices(host, gpus, links):
    entries = []
    for entry in gpus if isinstance(gpus, (list, tuple)) else [gpus]:
        entries.extend(_expand(host, entry))
    ranks = _link_ranks(links)
    devices, index = [], 0
    for entry in entries:
        index = entry.get("index", index)
        devices.extend(_device(host, index, entry, ranks))
        index += 1
    return devices


def _expand(host, entry):
    if entry is None or entry == {}:
        return []
    if isinstance(entry, str):
        entry = {"model": entry}
    if not isinstance(entry, dict):
        raise FleetError(f"host {host}: gpus holds {entry!r}, wanted a name such as H20-96GB or a mapping")
    if "memory_total" not in entry:  # declared, not found
        for key in entry:
            if key not in DECLARED:
                near = difflib.get_close_matches(str(key), DECLARED, n=1)
                meant = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(DECLARED)}"
                raise FleetError(f"host {host}: inference_gpus: unknown key {key!r}, {meant}")
    count = entry.get("count", 1)
    if isinstance(count, str) and count.isdigit():
        count = int(count)
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= 1024:
        raise FleetError(f"host {host}: gpus.count is {count!r}, wanted a number of GPUs")
    return [{key: value for key, value in entry.items() if key != "count"}] * count


def _device(host, index, entry, ranks):
    name = entry.get("model") or entry.get("name")
    what = f"host {host}: GPU {index}"
    reported = entry.get("memory_total")
    if reported is not None:
        total = _gpu_catalogue.usable_bytes(name or "", parse_bytes(reported, f"{what}: memory_total"))
        known = _gpu_catalogue.find(entry.get("name") or name or "", parse_bytes(reported, what))
    elif entry.get("memory") is not None:
        total = parse_bytes(entry["memory"], f"{what}: memory")
        known = _gpu_catalogue.find(name or "")
    else:
        try:
            known = _gpu_catalogue.get(name or "")
        except _gpu_catalogue.UnknownGpu as error:
            raise FleetError(f"{what}: {error}") from error
        total = known.usable
    kind = _kind(what, index, entry, name, known, total, ranks)
    free = entry.get("memory_free")
    free = None if free is None else parse_bytes(free, f"{what}: memory_free") if free else 0
    if entry.get("mig_enabled"):
        return [_mig(host, index, kind, instance) for instance in entry.get("mig_devices") or ()]
    return [Device(host, index, entry.get("uuid"), kind, free)]


def _kind(what, index, entry, name, known, total, ranks):
    capability = entry.get("compute_capability") or (known.compute_capability if known else None)
    if capability is None:
        raise FleetError(f"{what} ({name or 'no name'}): compute_capability is missing, such as 8.6")
    joined = 1 + sum(1 for (first, _second), rank in ranks.items() if first == index and rank == 0)
    span = joined if ranks else (known.nvlink_span if known else 0)
    nvlink = (known.nvlink if known and known.nvlink else 100) if span > 1 else 0
    return Kind(
        known.name if known else (name or "GPU"),
        total,
        float(capability),
        known.bandwidth if known else 600,
        nvlink,
        span if nvlink else 0,
        known.pcie if known else 16,
        known.tflops if known else 60,
    )


def _mig(host, index, kind, instance):
    share = instance["memory_total"] / kind.total
    slice_kind = kind._replace(
        name=f"{kind.name} MIG {instance['memory_total'] // MIB} MiB",
        total=instance["memory_total"],
        bandwidth=kind.bandwidth * share,
        tflops=kind.tflops * share,
        nvlink=0,
        span=0,
    )
    return Device(host, index, instance.get("uuid"), slice_kind, instance.get("memory_free"), mig=True)
