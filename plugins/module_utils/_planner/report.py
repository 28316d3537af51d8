# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan as tables that a person reads, and pastes into a purchase request."""

from __future__ import annotations

import re

from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GB, gib

_COLUMNS = (
    "layout",
    "GPU",
    "GPUs",
    "weights",
    "activ.",
    "other",
    "KV cache",
    "of budget",
    "KV tokens",
    "requests",
    "longest",
    "verdict",
)


def table(rows, header):
    """Rows of text under a header, in columns as wide as needed."""
    rows = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def report(plan):
    """Lines of text: for each service every candidate layout with its figures and verdict, then the recommendation."""
    lines = []
    for service in plan["services"]:
        lines += _service(service)
    return lines + _gpus(plan) + _problems(plan)


def _service(service):
    lines = [f"{service['name']}: {service['model']} ({service['type']}, {service['accelerator']})", ""]
    rows = []
    if service["estimate"]:
        rows.append(_row(service, service["estimate"], _chosen(service)))
    judged = [item for item in _sorted(service["rejected"]) if item["verdict"] != "refused"]
    rows += [_row(item, item["numbers"], item["reason"]) for item in judged]
    if rows:
        lines += table(rows, _COLUMNS)
        lines += [
            "",
            "GiB per GPU, of the fullest rank. Requests: of the full context, at once. Longest: of one.",
        ]
    lines += [f"Refused: {text}." for text in _refusals(service["rejected"])]
    if service["estimate"] and service["accelerator"] == "cuda":
        lines.append(f"Estimated with the measurements of vLLM {service['estimate']['profile']}.")
    naive = service["naive"]
    if naive:
        lines.append(_naive(naive))
    lines += [f"Note: {note}" for note in service["notes"]]
    lines += ["", ("Recommendation: " if service["placements"] else "NOT PLACED: ") + service["reason"]]
    for placement in service["placements"][:8]:
        where = ", ".join(
            node["host"] + (f" GPU {','.join(str(gpu['index']) for gpu in node['gpus'])}" if node["gpus"] else "")
            for node in placement["nodes"]
        )
        lines.append(f"  replica {placement['replica']}: {where}, port {placement['port']}")
    if len(service["placements"]) > 8:
        lines.append(f"  … and {len(service['placements']) - 8} more replicas")
    lines += [f"Access: {line}" for line in service.get("access") or []]
    return [*lines, ""]


def _chosen(service):
    estimate = service["estimate"]
    if service["kept"]:
        return "stays where it runs"
    if not estimate["tokens_per_second"]:
        return "chosen"
    if service["objective"] == "latency":
        return f"chosen: {estimate['milliseconds_per_token']:.1f} ms per token"
    per_gpu = estimate["tokens_per_second"] / _gpus_per_replica(service["layout"])
    return f"chosen: about {per_gpu:.0f} tokens/s per GPU"


def _gpus_per_replica(layout):
    return layout["tensor_parallel_size"] * layout["pipeline_parallel_size"]


def _naive(naive):
    text = f"Rule of thumb ({naive['rule']}): {naive['bytes'] / GB:.0f} GB"
    if "gpus" in naive:
        text += f", {naive['gpus']} GPUs by the figure on their box"
    if "hosts" in naive:
        text += f", {naive['hosts']} host{'s' if naive['hosts'] > 1 else ''}"
    return text + ". It knows no layout, no cache and no context."


def layout_name(item):
    layout = item["layout"]
    text = f"TP {layout['tensor_parallel_size']}"
    if layout["pipeline_parallel_size"] > 1:
        text += f" PP {layout['pipeline_parallel_size']}"
    if layout["expert_parallel"]:
        text += " EP"
    if layout["replicas"] > 1:
        text = f"{layout['replicas']} × {text}"
    return text + (f", {item['hosts']} hosts" if (item["hosts"] or 1) > 1 else "")


def _row(item, numbers, verdict):
    layout = item["layout"]
    gpus = _gpus_per_replica(layout) * layout["replicas"]
    head = [layout_name(item), item["gpu"] or "CPU", gpus if item["gpu"] else "-"]
    if not numbers:
        return [*head, *["-"] * 8, verdict]
    rank = max(numbers["ranks"], key=lambda rank: rank["weights"] + rank["activation"])
    context = numbers["longest_context"]
    return [
        *head,
        f"{gib(rank['weights']):.1f}",
        f"{gib(rank['activation']):.1f}",
        f"{gib(rank['non_torch'] + rank['cuda_graphs']):.1f}",
        f"{gib(rank['kv_cache']):.1f}",
        f"{gib(rank['budget']):.1f}" if item["gpu"] else "-",
        f"{numbers['kv_cache_tokens']:,}" if numbers["kv_cache_tokens"] else "-",
        f"{numbers['max_concurrency']:.1f}" if numbers["kv_cache_tokens"] else "-",
        f"{context:,}" if context else "-",
        verdict,
    ]


_ORDER = ("possible", "needless", "no room", "does not fit", "refused")


def _sorted(rejected):
    """What could be first, what vLLM refuses last."""
    return sorted(rejected, key=lambda item: _ORDER.index(item["verdict"]))


def _refusals(rejected):
    """One line for all widths that are refused for the same reason."""
    groups = {}
    for item in rejected:
        if item["verdict"] == "refused":
            width = item["layout"]["tensor_parallel_size"]
            key = item["gpu"], re.sub(rf"\b{width}\b", "{}", item["reason"])
            groups.setdefault(key, []).append(width)
    for (gpu, reason), widths in groups.items():
        widths = ", ".join(str(width) for width in sorted(set(widths)))
        yield f"TP {widths} on {gpu}: {reason.replace('{}', widths)}"


def _gpus(plan):
    shared = [row for row in plan["gpus"] if len(row["services"]) > 1]
    return [f"Shared: {row['host']} GPU {row['index']}: {', '.join(row['services'])}" for row in shared]


def _problems(plan):
    return [f"PROBLEM: {problem}" for problem in plan["problems"]]
