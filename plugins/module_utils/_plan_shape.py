# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what a plan.json says of services has the form that everything after it relies on."""

from __future__ import annotations

SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "replicas")
MOST = 4096  # services, replicas, hosts and GPUs


def fault(entries):
    """What is wrong with them, or nothing."""
    if not _few(entries):
        return "it is no list of services"
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            return "a service has no name"
        layout, engine = (entry.get(key) or {} for key in ("layout", "engine"))
        if not isinstance(layout, dict) or not isinstance(engine, dict):
            return "a layout or an engine is no mapping"
        if not all(_count(layout[size], MOST) and layout[size] for size in SIZES if size in layout):
            return "a layout has odd sizes"
        share, length = engine.get("gpu_memory_utilization"), engine.get("max_model_len")
        if not _is_share(share) or not (length in ("auto", None) or _count(length, 1 << 30)):
            return "an engine has odd settings"
        if not _few(entry.get("placements")) or not all(_is_placement(one) for one in entry["placements"]):
            return "a placement lacks its port, hosts or GPUs"
    return ""


def _few(value):
    return isinstance(value, list) and len(value) <= MOST


def _count(value, most):
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most)


def _is_share(value):
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1)


def _is_placement(placement):
    if not isinstance(placement, dict) or not _few(placement.get("nodes")) or not placement["nodes"]:
        return False
    if not _count(placement.get("port"), 65535) or not _count(placement.get("replica"), MOST):
        return False
    return all(_is_node(node) for node in placement["nodes"])


def _is_node(node):
    if not isinstance(node, dict) or not isinstance(node.get("host"), str) or not _few(node.get("gpus")):
        return False
    return all(
        isinstance(gpu, dict)
        and isinstance(gpu.get("uuid"), (str, type(None)))
        and isinstance(gpu.get("index"), (int, type(None)))
        for gpu in node["gpus"]
    )
