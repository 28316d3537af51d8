# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters over the plan."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError

from ansible_collections.inferops.gpu_host.plugins.module_utils import _placements
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import ServiceError, normalize_services


def _normalized(services, defaults=None):
    try:
        return normalize_services(services, defaults)
    except ServiceError as error:
        raise AnsibleFilterError(f"inference_services: {error}") from error


def _placements_on_host(plan, services, host, images=None, options=None):
    return _placements.on_host(plan, _normalized(services), host, images, options)


def _images_on_host(plan, services, host, images=None):
    return _placements.images_on_host(plan, _normalized(services), host, images)


def _images_of_services(services, images=None, accelerator="cuda"):
    normalized = _normalized(services, {"accelerator": accelerator})
    return sorted({_placements.image_of(service, images) for service in normalized})


class FilterModule:
    def filters(self):
        return {
            "placements_on_host": _placements_on_host,
            "gpu_services": _placements.gpu_services,
            "images_on_host": _images_on_host,
            "images_of_services": _images_of_services,
        }
