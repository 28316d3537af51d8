# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nvidia-smi prints → plain data. Sizes in bytes; None where the driver says N/A.

Four commands tell everything; each is a list of arguments, so that a module and a test run the same. A GPU that the
driver cannot read, or whose memory nobody knows, is not among the `gpus` but among the `excluded`, with the reason.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from ansible_collections.inferops.gpu_host.plugins.module_utils import _bounded_command, _gpu_catalogue
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import printable, whole_number

QUERY = ["-q", "-x"]
COMPUTE_CAPABILITY = ["--query-gpu=pci.bus_id,compute_cap", "--format=csv,noheader"]
LIST = ["-L"]  # the only place that names the UUIDs of MIG instances
TOPOLOGY = ["topo", "-m"]

INFOROM_CORRUPTED = 14  # an exit code with which all else is told all the same
MOST_GPUS = 1024
# What nvidia-smi writes where the driver got no answer from the GPU.
_NO_ANSWER = re.compile(
    r"ERR!|\[?(?:Unknown Error|GPU is lost|GPU requires reset|Reset Required|GPU Fell Off the Bus)\]?", re.IGNORECASE
)
_NOTHING = ("", "N/A", "[N/A]", "[Not Supported]", "Not Supported", "Requested functionality has been deprecated")
# Sections that nobody needs here and that drivers have printed as broken XML: clocks (470), names of processes.
_UNNEEDED = ("supported_clocks", "accounted_processes", "processes")
_HANDLE = re.compile(
    r"Unable to determine the device handle for gpu.{0,9}?([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])"
    r":? ?([^\r\n]{0,200})",
    re.IGNORECASE,
)

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
    (r"GPU is lost|requires reset", "a GPU is lost", "check `dmesg` for Xid 79 and reboot"),
)


def ask(program, arguments, seconds=60):
    """The Answer of nvidia-smi, which hangs where a GPU fell off the bus."""
    return _bounded_command.run([program, *arguments], seconds)


def fault_of(answer, seconds):
    """The empty answer where nvidia-smi said nothing that can be read; None where it did."""
    if answer.fault == "too slow":
        return empty(
            f"nvidia-smi did not answer in {seconds} s",
            "look for Xid errors in `dmesg`: a GPU that does not answer; the host may have to be reset",
        )
    if answer.fault == "too long":
        return empty("nvidia-smi printed more than anybody can read", "run nvidia-smi -q -x by hand")
    if answer.fault:
        return empty(f"nvidia-smi could not be run: {printable(answer.err)}")
    if answer.rc not in (0, INFOROM_CORRUPTED):
        return explain_failure(answer.rc, answer.out, answer.err)
    return None


def empty(reason, hint=None, excluded=()):
    """The answer where there is no GPU to plan with."""
    return {
        "gpus": [],
        "excluded": list(excluded),
        "driver_version": None,
        "cuda_version": None,
        "links": {},
        "reason": reason,
        "hint": hint,
    }


def explain_failure(rc, stdout, stderr):
    """The empty answer for an nvidia-smi that failed."""
    said = (stderr[:20_000].strip() + "\n" + stdout[:20_000].strip()).strip()
    lost = _lost(said)
    if lost:
        return empty("; ".join(describe(gpu) for gpu in lost), lost[0]["hint"], lost)
    for pattern, reason, hint in _FAILURES:
        if re.search(pattern, said, re.IGNORECASE):
            return empty(reason, hint)
    return empty(f"nvidia-smi ended with {rc}: {printable(said.splitlines()[0]) if said else 'no output'}")


def _lost(said):
    """The GPUs that nvidia-smi has no handle of."""
    lost = {}
    for bus, why in _HANDLE.findall(said):
        lost[bus.upper()] = _excluded(
            None,
            None,
            bus.upper(),
            None,
            "the driver has no handle of it" + (f" ({printable(why, 80)})" if why.strip() else ""),
            "look for its Xid in `dmesg` (79: it fell off the bus), then reboot, or power the host off and on",
        )
    return list(lost.values())[:MOST_GPUS]


def _excluded(index, uuid, bus, name, reason, hint):
    return {"index": index, "uuid": uuid, "pci_bus_id": bus, "name": name, "reason": reason, "hint": hint}


def describe(gpu):
    """An excluded GPU in words."""
    index = "" if gpu["index"] is None else f" {gpu['index']}"
    named = ", ".join(word for word in (gpu["name"], gpu["uuid"], gpu["pci_bus_id"]) if word)
    return f"GPU{index} ({named or 'no name'}): {gpu['reason']}"


def document(text):
    """(the root of what `nvidia-smi -q -x` printed, what it printed around it); ValueError where there is no XML.

    Warnings land before and behind the document.
    """
    begin = max(0, text.find("<?xml") if "<?xml" in text else text.find("<nvidia_smi_log"))
    end = text.rfind("</nvidia_smi_log>")
    end = len(text) if end < 0 else end + len("</nvidia_smi_log>")
    around, xml = text[:begin] + "\n" + text[end:], text[begin:end]
    if "<!ENTITY" in xml:
        raise ValueError("it declares entities")
    xml = "".join(c if c >= " " or c in "\t\r\n" else "?" for c in xml) if _CONTROL.search(xml) else xml
    try:
        return ElementTree.fromstring(xml.strip()), around
    except ElementTree.ParseError as error:
        problem = error
    try:
        return ElementTree.fromstring(_without(xml.strip(), _UNNEEDED)), around
    except ElementTree.ParseError:
        raise ValueError(str(problem)) from None


_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def _without(xml, sections):
    """The text without these elements, whatever is in them."""
    for section in sections:
        first, last, kept, at = f"<{section}>", f"</{section}>", [], 0
        while True:
            begin = xml.find(first, at)
            end = xml.find(last, begin) if begin >= 0 else -1
            if end < 0:
                break
            kept.append(xml[at:begin])
            at = end + len(last)
        xml = "".join(kept) + xml[at:]
    return xml


def parse(query, compute_capabilities="", listing="", topology="", said=""):
    """The answers of the four commands as one; only the first is needed. said: what it wrote to its error stream."""
    try:
        root, around = document(query)
    except ValueError as error:
        return empty(
            f"nvidia-smi -q -x printed no XML ({printable(error)})",
            "run it by hand; drivers before 510 may need an update",
        )
    capabilities = _compute_capabilities(compute_capabilities)
    mig_uuids = _mig_uuids(listing)
    nodes = sorted(root.findall("gpu"), key=lambda node: node.get("id") or "")[:MOST_GPUS]
    gpus, excluded = [], _lost(around[:20_000] + "\n" + said[:20_000])
    for index, node in enumerate(nodes):
        gpu = _gpu(node, index, capabilities, mig_uuids)
        why = _unusable(node, gpu)
        if why:
            excluded.append(_excluded(index, gpu["uuid"], gpu["pci_bus_id"], gpu["name"], *why))
        else:
            gpus.append(gpu)
    attached = whole_number(root.findtext("attached_gpus") or "", MOST_GPUS) or 0
    if attached > len(gpus) + len(excluded):
        missing = attached - len(gpus) - len(excluded)
        hint = "look for Xid errors in `dmesg`, then reboot"
        excluded.append(_excluded(None, None, None, None, f"nvidia-smi counts {missing} more than it describes", hint))
    reason = "; ".join(describe(gpu) for gpu in excluded) or (
        None if gpus else "the NVIDIA driver runs but finds no GPU"
    )
    return {
        "gpus": gpus,
        "excluded": excluded,
        "driver_version": _text(root, "driver_version"),
        "cuda_version": _text(root, "cuda_version"),
        "links": parse_topology(topology),
        "reason": reason,
        "hint": excluded[0]["hint"] if excluded else None,
    }


def _unusable(node, gpu):
    """(reason, remedy) why nothing may be planned on a GPU; None for a good one."""
    for part in node.iter():
        if part.text and part.tag != "process_name" and _NO_ANSWER.fullmatch(part.text.strip()):
            return (
                f"the driver cannot read it ({printable(part.tag, 40)}: {printable(part.text.strip(), 40)})",
                "look for its Xid in `dmesg`, then nvidia-smi --gpu-reset, or reboot",
            )
    if not gpu["uuid"]:
        return "the driver tells no UUID of it", "look at `nvidia-smi -q` and `dmesg`"
    if gpu["memory_total"] is None or gpu["memory_free"] is None:
        return (
            "the driver tells no size of its memory; where it shares the host's (GB10, Jetson), that is how it is",
            "to use it, declare inference_gpus for the host: [{name: GB10, memory: 100 GiB, compute_capability: 12.1}]",
        )
    return None


def _text(node, path):
    value = (node.findtext(path) or "").strip()
    return None if value in _NOTHING or _NO_ANSWER.fullmatch(value) else printable(value)


def _bytes(node, path):
    value, _space, unit = (_text(node, path) or "").partition(" ")
    size = whole_number(value, 1 << 30) if unit == "MiB" else None
    return None if size is None else size * MIB


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
            if device["memory_total"] and device["memory_free"] is not None
        ],
        "nvlink_active": _active_links(node),
        "processes": [_process(item) for item in node.findall("processes/process_info")],
    }


def _mig_device(node):
    return {
        "index": whole_number(_text(node, "index")),
        "gpu_instance_id": whole_number(_text(node, "gpu_instance_id")),
        "compute_instance_id": whole_number(_text(node, "compute_instance_id")),
        "memory_total": _bytes(node, "fb_memory_usage/total"),
        "memory_used": _bytes(node, "fb_memory_usage/used"),
        "memory_free": _bytes(node, "fb_memory_usage/free"),
    }


def _process(node):
    return {
        "pid": whole_number(_text(node, "pid")),
        "type": _text(node, "type"),
        "name": _text(node, "process_name"),
        "memory_used": _bytes(node, "used_memory"),
        "gpu_instance_id": whole_number(_text(node, "gpu_instance_id")),
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
    found = {}
    for line in text.splitlines():
        match = re.match(
            r"\s{0,20}([0-9A-Fa-f]{1,8}:[0-9A-Fa-f:.]{1,12})\s{0,20},\s{0,20}(\d{1,3}\.\d{1,2})\s{0,20}$", line
        )
        if match:
            found[_short_bus(match.group(1))] = float(match.group(2))
    return found


def _mig_uuids(text):
    """(GPU UUID, MIG index) → MIG UUID, from `nvidia-smi -L`."""
    result, gpu = {}, None
    for line in text.splitlines():
        match = re.match(r"GPU \d{1,4}:.{0,200}\(UUID: (GPU-[^)]{1,60})\)", line)
        if match:
            gpu = match.group(1)
        match = re.match(r"\s{1,20}MIG .{0,200}Device\s{1,20}(\d{1,4}):\s{1,20}\(UUID: (MIG-[^)]{1,100})\)", line)
        if match:
            result[(gpu, int(match.group(1)))] = match.group(2)
    return result


def parse_topology(text):
    """`nvidia-smi topo -m` → {"0": {"1": "NV18", …}, …} between GPUs, by index. Empty where it prints no matrix."""
    # The header is underlined with escape codes, even when it is not a terminal that reads it.
    lines = [re.sub(r"\x1b\[[0-9;]{0,20}m", "", line[:20_000]) for line in text.splitlines()[: 2 * MOST_GPUS]]
    header = next((line.split("\t") for line in lines if re.match(r"\s*GPU0\b", line)), None)
    if header is None:
        return {}
    columns = [cell.strip() for cell in header if cell.strip()]
    gpus = [column for column in columns if re.fullmatch(r"GPU\d{1,4}", column)]
    links = {}
    for line in lines:
        match = re.match(r"(GPU\d{1,4})\s(.*)", line)
        if not match or match.group(1) not in gpus or "\tGPU1" in line:
            continue
        cells = match.group(2).split()
        row = {
            other[3:]: cell
            for other, cell in zip(gpus, cells)
            if other != match.group(1) and re.fullmatch(r"NV\d{1,3}|PIX|PXB|PHB|NODE|SYS", cell)
        }
        links[match.group(1)[3:]] = row
    return links
