# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter of playbooks/status.yml."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError

from ansible_collections.inferops.gpu_host.plugins.module_utils._service import ServiceError, normalize_services
from ansible_collections.inferops.gpu_host.plugins.module_utils._service_status import status


def _service_status(hosts, services):
    try:
        return status(hosts, normalize_services(services))
    except ServiceError as error:
        raise AnsibleFilterError(f"inference_services: {error}") from error


class FilterModule:
    def filters(self):
        return {"service_status": _service_status}
