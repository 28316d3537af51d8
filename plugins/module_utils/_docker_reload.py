# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Handing daemon.json over to an engine that runs, and whether it took what it was given."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import signal
import time

RELOAD_TIMEOUT = 10
POLL_INTERVAL = 0.2
# What the engine writes when it does not take over a configuration on SIGHUP.
_RELOAD_FAILED = re.compile(
    r"(?i)unable to configure the docker daemon|error reconfiguring"
    r"|reload\w*[^\n]{0,80}(?:fail|error)|(?:fail|error)[^\n]{0,80}reload"
)


def reload_failure(log):
    """The reason why the engine refused a reload, as its log gives it; empty when it tells of none."""
    for line in reversed(log.splitlines()):
        line = line[:4000]
        if _RELOAD_FAILED.search(line) and "level=info" not in line:
            parts = re.findall(r'(?:msg|error)="((?:[^"\\]|\\.)*)"', line)
            return ": ".join(parts).replace('\\"', '"') if parts else line.strip()
    return ""


def untaken_keys(config, info, keys):
    """Those of the reloadable `keys` of `config` of which the engine says otherwise; silence is no proof."""
    registries = info.get("RegistryConfig") or {}
    insecure = [
        *(
            name
            for name, entry in (registries.get("IndexConfigs") or {}).items()
            if not (entry or {}).get("Secure", True)
        ),
        *(registries.get("InsecureRegistryCIDRs") or []),
    ]
    runtimes = info.get("Runtimes") or {}
    told = {
        "live-restore": lambda wanted: info.get("LiveRestoreEnabled", wanted) == wanted,
        "debug": lambda wanted: info.get("Debug", wanted) == wanted,
        "default-runtime": lambda wanted: info.get("DefaultRuntime", wanted) == wanted,
        "labels": lambda wanted: "Labels" not in info or sorted(info["Labels"] or []) == sorted(wanted),
        "registry-mirrors": lambda wanted: (
            "Mirrors" not in registries or _plain(registries["Mirrors"]) == _plain(wanted)
        ),
        "insecure-registries": lambda wanted: not registries or not _registries(wanted) - _registries(insecure),
        "runtimes": lambda wanted: (
            "Runtimes" not in info
            or all(
                name in runtimes and (runtimes[name] or {}).get("path", "") in ("", (entry or {}).get("path", ""))
                for name, entry in wanted.items()
            )
        ),
    }
    return [key for key in keys if key in told and key in config and not told[key](config[key])]


# What the engine tells of itself; of other keys only its event and its log say that it has taken them.
TOLD_KEYS = frozenset(
    ["debug", "default-runtime", "insecure-registries", "labels", "live-restore", "registry-mirrors", "runtimes"]
)


def _registries(names):
    """Names without their scheme, and networks as the engine writes them."""
    plain = set()
    for name in _plain(names):
        name = re.sub(r"^https?://", "", name)
        with contextlib.suppress(ValueError):
            name = str(ipaddress.ip_network(name, strict=False))
        plain.add(name)
    return plain


def _plain(addresses):
    return {str(address).rstrip("/") for address in addresses or []}


def hand_over(host):
    """Makes the running engine read what it can while running."""
    pid = host.pid()
    if pid:
        os.kill(pid, signal.SIGHUP)


def refusal(host, config, keys):
    """Tells the engine to take over `keys`; why it did not, or nothing when it did."""
    mark, engine = host.log_mark(), host.identity()
    hand_over(host)
    deadline = time.monotonic() + RELOAD_TIMEOUT
    while True:
        reason = reload_failure(host.log_since(mark))
        if reason:
            return reason
        if host.identity() != engine:
            return "the engine ended"
        info, told = host.get("/info") or {}, host.reloads_since(mark["time"])
        untaken = untaken_keys(config, info, keys)
        silent = [key for key in keys if key not in TOLD_KEYS] if not told else []
        if info and told is not False and not untaken and not silent:
            return ""
        if time.monotonic() > deadline:
            if untaken:
                return "it still runs with another %s" % ", ".join(untaken)
            return "it does not say that it took over %s" % ", ".join(keys)
        time.sleep(POLL_INTERVAL)
