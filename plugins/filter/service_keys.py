# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about the keys that are made for services."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError

from ansible_collections.inferops.gpu_host.plugins.module_utils import _open_routes, _service_keys
from ansible_collections.inferops.gpu_host.plugins.module_utils import _service_values as values
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import ServiceError, normalize_services


def _keyed_services(plan, services, host, default=None, engine=None):
    try:
        normalized = normalize_services(services)
        default = _service_keys.checked_default(default)
    except ServiceError as error:
        raise AnsibleFilterError(f"inference_services: {error}") from error
    except values.Bad as error:
        raise AnsibleFilterError(str(error)) from error
    ours = [service for service in normalized if engine in (None, service["engine"])]
    return _service_keys.of_host(plan, ours, host, default)


def _exposed_services(services, plan, host, default=None, open_routes="refuse"):
    """One line for each service of a host whose open routes others would reach against nobody's consent."""
    if open_routes not in ("refuse", "accept"):
        raise AnsibleFilterError(f"inference_open_routes is {open_routes!r}, wanted accept, or nothing")
    try:
        normalized = normalize_services(services)
    except ServiceError as error:
        raise AnsibleFilterError(f"inference_services: {error}") from error
    here = {
        entry["name"]
        for entry in (plan or {}).get("services") or []
        for placement in entry.get("placements") or []
        if any(node["host"] == host for node in placement["nodes"])
    }
    ours = [service for service in normalized if service["name"] in here]
    return list(_open_routes.warnings(ours, default, open_routes == "accept").values())


def _keys_to_make(wanted, read):
    return _service_keys.to_make(wanted, _service_keys.reports_of(read))


def _keys_in_use(wanted, host, read, dry=False):
    return _service_keys.decided(wanted, host, _service_keys.reports_of(read), dry)


class FilterModule:
    def filters(self):
        return {
            "exposed_services": _exposed_services,
            "keyed_services": _keyed_services,
            "keys_to_make": _keys_to_make,
            "keys_in_use": _keys_in_use,
        }
