# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters over the declared services."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError

from ansible_collections.inferops.gpu_host.plugins.module_utils._service import ServiceError, normalize_services


def _normalize_services(services, defaults=None):
    try:
        return normalize_services(services, defaults)
    except ServiceError as error:
        raise AnsibleFilterError(f"inference_services: {error}") from error


class FilterModule:
    def filters(self):
        return {"normalize_services": _normalize_services}
