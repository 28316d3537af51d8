# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shapes of the docker role's variables."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError

from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_engine import fates
from ansible_collections.inferops.gpu_host.plugins.module_utils._vllm_container import gpu_run_options


def docker_ulimits(limits):
    """{nofile: {soft: 1024, hard: 4096}} → what daemon.json calls default-ulimits."""
    shaped = {}
    for name, limit in limits.items():
        missing = {"soft", "hard"} - set(limit)
        if missing:
            raise AnsibleFilterError("the limit %s lacks %s" % (name, " and ".join(sorted(missing))))
        shaped[name] = {"Name": name, "Soft": int(limit["soft"]), "Hard": int(limit["hard"])}
    return shaped


class FilterModule:
    def filters(self):
        return {"docker_ulimits": docker_ulimits, "docker_fates": fates, "gpu_run_options": gpu_run_options}
