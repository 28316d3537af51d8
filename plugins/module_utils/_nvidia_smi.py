# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nvidia-smi prints → plain data. Sizes in bytes; None where the driver says N/A.

Four commands tell everything; each is a list of arguments, so that a module and a test run the same.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from ansible_collections.inferops.gpu_host.plugins.module_utils import _gpu_catalogue
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB

QUERY = ["-q", "-x"]
COMPUTE_CAPABILITY = ["--query-gpu=pci.bus_id,compute_cap", "--format=csv,noheader"]
LIST = ["-L"]  # the only place that names the UUIDs of MIG instances
TOPOLOGY = ["topo", "-m"]

# What keeps a host from having GPUs, by what nvidia-smi says: (pattern, reason, what to do).
_FAILURES = (
    (
        r"driver/library version mismatch",
        "the driver was upgraded under the running kernel module (driver/library version mismatch)",
        "reboot the host, or unload and load the nvidia kernel modules",
    ),
    (
        r"couldn't communicate with the NVIDIA driver",
        "the NVIDIA driver is installed but not loaded",
        "check `modprobe nvidia` and `dmesg`: Secure Boot, or a kernel without its module built",
    ),
    (
        r"No devices were found",
        "the NVIDIA driver runs but finds no GPU",
        "check `lspci` and `dmesg` (Xid): a GPU that fell off the bus, or none passed to this machine",
    ),
    (
        r"Failed to initialize NVML",
        "NVML could not be initialised",
        "check `dmesg`; inside a container the GPUs may have been lost by a `systemctl daemon-reload`",
    ),
    (r"Unable to determine the device handle|GPU is lost", "a GPU is lost", "check `dmesg` for Xid 79 and reboot"),
)


def empty(reason, hint=None):
    """The answer where there is no GPU to plan with."""
    return {"gpus": [], "driver_version": None, "cuda_version": None, "links": {}, "reason": reason, "hint": hint}


def explain_failure(rc, stdout, stderr):
    """The empty answer for an nvidia-smi that failed."""
    said = (stderr.strip() + "\n" + stdout.strip()).strip()
    for pattern, reason, hint in _FAILURES:
        if re.search(pattern, said, re.IGNORECASE):
            return empty(reason, hint)
    return empty(f"nvidia-smi ended with {rc}: {said.splitlines()[0] if said else 'no output'}")


def parse(query, compute_capabilities="", listing="", topology=""):
    """The answers of the four commands as one; only the first is needed."""
    try:
        root = ElementTree.fromstring(query.strip())
    except ElementTree.ParseError as error:
        return empty(f"nvidia-smi -q -x printed no XML ({error})")
    capabilities = _compute_capabilities(compute_capabilities)
    mig_uuids = _mig_uuids(listing)
    nodes = sorted(root.findall("gpu"), key=lambda node: node.get("id") or "")
    gpus = [_gpu(node, index, capabilities, mig_uuids) for index, node in enumerate(nodes)]
    return {
        "gpus": gpus,
        "driver_version": _text(root, "driver_version"),
        "cuda_version": _text(root, "cuda_version"),
        "links": parse_topology(topology),
        "reason": None if gpus else "the NVIDIA driver runs but finds no GPU",
        "hint": None,
    }


def _text(node, path):
    value = node.findtext(path)
    value = value.strip() if value else None
    return None if value in (None, "", "N/A", "[N/A]", "Requested functionality has been deprecated") else value


def _bytes(node, path):
    match = re.match(r"(\d+)\s*MiB", _text(node, path) or "")
    return int(match.group(1)) * MIB if match else None


def _integer(text):
    return int(text) if text and text.isdigit() else None


def _gpu(node, index, capabilities, mig_uuids):
    bus = (_text(node, "pci/pci_bus_id") or node.get("id") or "").upper()
    name = _text(node, "product_name")
    total = _bytes(node, "fb_memory_usage/total")
    known = _gpu_catalogue.find(name or "", total)
    uuid = _text(node, "uuid")
    mig_enabled = (_text(node, "mig_mode/current_mig") or "").lower() == "enabled"
    return {
        "index": index,
        "uuid": uuid,
        "pci_bus_id": bus,
        "name": name,
        "model": known.name if known else None,
        "memory_total": total,
        "memory_used": _bytes(node, "fb_memory_usage/used"),
        "memory_free": _bytes(node, "fb_memory_usage/free"),
        "compute_capability": capabilities.get(_short_bus(bus)) or (known.compute_capability if known else None),
        "mig_enabled": mig_enabled,
        "mig_devices": [
            dict(device, uuid=mig_uuids.get((uuid, device["index"])))
            for device in (_mig_device(item) for item in node.findall("mig_devices/mig_device"))
        ],
        "nvlink_active": _active_links(node),
        "processes": [_process(item) for item in node.findall("processes/process_info")],
    }


def _mig_device(node):
    return {
        "index": _integer(_text(node, "index")),
        "gpu_instance_id": _integer(_text(node, "gpu_instance_id")),
        "compute_instance_id": _integer(_text(node, "compute_instance_id")),
        "memory_total": _bytes(node, "fb_memory_usage/total"),
        "memory_used": _bytes(node, "fb_memory_usage/used"),
        "memory_free": _bytes(node, "fb_memory_usage/free"),
    }


def _process(node):
    return {
        "pid": _integer(_text(node, "pid")),
        "type": _text(node, "type"),
        "name": _text(node, "process_name"),
        "memory_used": _bytes(node, "used_memory"),
        "gpu_instance_id": _integer(_text(node, "gpu_instance_id")),
    }


def _active_links(node):
    """NVLinks that are up, or None where nvidia-smi's XML does not list them (topology then tells)."""
    links = node.findall("nvlink_links/link")
    return sum(1 for link in links if (link.findtext("status") or "").strip() == "Active") if links else None


def _short_bus(bus):
    """`00000000:1B:00.0` and `0000:1b:00.0` are one bus id."""
    domain, _colon, rest = bus.upper().partition(":")
    return f"{domain.lstrip('0')}:{rest}"


def _compute_capabilities(text):
    """From `pci.bus_id, compute_cap` lines; drivers before 510 do not know the field and print an error."""
    found = re.findall(r"^\s*([0-9A-Fa-f]+:[0-9A-Fa-f:.]+)\s*,\s*(\d+\.\d+)\s*$", text, re.MULTILINE)
    return {_short_bus(bus): float(value) for bus, value in found}


def _mig_uuids(text):
    """(GPU UUID, MIG index) → MIG UUID, from `nvidia-smi -L`."""
    result, gpu = {}, None
    for line in text.splitlines():
        match = re.match(r"GPU \d+:.*\(UUID: (GPU-[^)]+)\)", line)
        if match:
            gpu = match.group(1)
        match = re.match(r"\s+MIG .*Device\s+(\d+):\s+\(UUID: (MIG-[^)]+)\)", line)
        if match:
            result[(gpu, int(match.group(1)))] = match.group(2)
    return result


def parse_topology(text):
    """`nvidia-smi topo -m` → {"0": {"1": "NV18", …}, …} between GPUs, by index. Empty where it prints no matrix."""
    # The header is underlined with escape codes, even when it is not a terminal that reads it.
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in text.splitlines()]
    header = next((line.split("\t") for line in lines if re.match(r"\s*GPU0\b", line)), None)
    if header is None:
        return {}
    columns = [cell.strip() for cell in header if cell.strip()]
    gpus = [column for column in columns if re.fullmatch(r"GPU\d+", column)]
    links = {}
    for line in lines:
        match = re.match(r"(GPU\d+)\s+(.*)", line)
        if not match or match.group(1) not in gpus or "\tGPU1" in line:
            continue
        cells = match.group(2).split()
        row = {
            other[3:]: cell
            for other, cell in zip(gpus, cells)
            if other != match.group(1) and re.fullmatch(r"NV\d+|PIX|PXB|PHB|NODE|SYS", cell)
        }
        links[match.group(1)[3:]] = row
    return links
