# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs where, and how it is, as a table that a person reads."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils._container_state import CANDIDATE, FAILED, PREVIOUS
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.report import table
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import whole_number

_BESIDE = {PREVIOUS: "kept until its successor answers", CANDIDATE: "candidate", FAILED: "failed, kept for its log"}


def status(hosts, services):
    """{services, table} of hosts as service_info found them. services: as normalize_services returns them."""
    declared = {service["name"]: service for service in services}
    rows = [
        _row(host, container, declared)
        for host, found in sorted(hosts.items())
        for _name, container in sorted(found["containers"].items())
        if container["ours"]
    ]
    seen = {row["service"] for row in rows}
    for name, service in declared.items():
        if name not in seen and service["state"] != "absent":
            health = "stopped" if service["state"] == "stopped" else "not there"
            rows.append(dict(dict.fromkeys(_COLUMNS), service=name, health=health))
    return {"services": rows, "table": _table(rows)}


_COLUMNS = ("service", "container", "host", "gpus", "port", "health", "seconds", "kv_cache_use", "running", "waiting")


def _row(host, container, declared):
    labels, metrics = container["labels"], container.get("metrics") or {}
    row = dict.fromkeys(_COLUMNS)
    row.update(
        service=labels["service"],
        container=container["name"],
        host=host,
        gpus=labels.get("gpus") or "",
        port=whole_number((labels.get("url") or "").rpartition(":")[2]),
        health=_health(container),
        seconds=container["seconds"],
        image=container["image"],
        restarts=container["restarts"],
        **metrics,
    )
    for suffix, words in _BESIDE.items():
        if container["name"].endswith(suffix):
            row["health"] = words
    if labels["service"] not in declared:
        row["health"] += ", not declared"
    return row


def _health(container):
    if container["running"] and "url" not in container["labels"]:
        return "running"  # a part of a service whose head is on another host
    if container["running"]:
        return "ready" if container["healthy"] else "no answer yet"
    if container["status"] == "exited":
        # 0 and the signals of a stop are no failure.
        return "stopped" if container["exit_code"] in (0, 137, 143) else f"failed, exit code {container['exit_code']}"
    return container["status"] or "?"


def _uptime(seconds):
    if not seconds:
        return ""
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{rest} s"


def _table(rows):
    head = ("service", "host", "GPUs", "port", "health", "uptime", "KV use", "running", "waiting")
    lines = []
    for row in rows:
        use = row["kv_cache_use"]
        values = (
            row["container"] or row["service"],
            row["host"],
            row["gpus"],
            row["port"],
            row["health"],
            _uptime(row["seconds"]),
            None if use is None else f"{use:.0%}",
            row["running"],
            row["waiting"],
        )
        lines.append(["" if value is None else str(value) for value in values])
    return table(lines, head)
