# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters over the endpoints of the services."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError

from ansible_collections.inferops.gpu_host.plugins.module_utils import _endpoints
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import ServiceError, normalize_services


def _normalized(services):
    try:
        return normalize_services(services)
    except ServiceError as error:
        raise AnsibleFilterError(f"inference_services: {error}") from error


def _given(endpoints):
    try:
        return _endpoints.given(endpoints)
    except _endpoints.EndpointError as error:
        raise AnsibleFilterError(f"verify_endpoints: {error}") from error


def _endpoints_on_host(plan, services, host, address=None, given=None, default_key=None, keys_dir="/etc/inferops/keys"):
    if given:
        return _given(given)
    return _endpoints.on_host(plan or {}, _normalized(services), host, address, default_key, keys_dir)


def _endpoint_keys(services, given=None, default=None, made=None):
    if given:
        named = zip(_given(given), given)
        return {endpoint["service"]: item["api_key"] for endpoint, item in named if item.get("api_key")}
    return _endpoints.keys(_normalized(services), default, made)


class FilterModule:
    def filters(self):
        return {
            "connection_card": _endpoints.card,
            "endpoint_keys": _endpoint_keys,
            "endpoint_report": lambda result, endpoint: _endpoints.report(endpoint, result),
            "endpoints_on_host": _endpoints_on_host,
        }
