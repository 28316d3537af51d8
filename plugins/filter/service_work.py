# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters between the plan, the containers of a host, and what is to be done there."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError

from ansible_collections.inferops.gpu_host.plugins.module_utils import (
    _service_keys,
    _service_work,
    _vllm_container,
    _vllm_options,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils import _service_values as values
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import ServiceError, normalize_services


def _of_engine(services, engine):
    try:
        normalized = normalize_services(services)
    except ServiceError as error:
        raise AnsibleFilterError(f"inference_services: {error}") from error
    return [service for service in normalized if service["engine"] == engine]


def _paths(paths):
    """Paths of a host, of which each becomes a part of a volume."""
    for name, path in paths.items():
        try:
            values.directory(path)
        except values.Bad as wanted:
            raise AnsibleFilterError(f"the directory for {name} is {path!r}, wanted {wanted}") from None
    return _service_work.Paths(**paths)


def _service_questions(plan, services, host, paths, engine="vllm", images=None):
    ours = _of_engine(services, engine)
    return _service_work.questions(plan or {}, ours, host, _paths(paths), images)


def _service_work_of_host(
    plan,
    services,
    host,
    found,
    paths,
    engine="vllm",
    images=None,
    options=None,
    settings=None,
    api_key=None,
    strategy="in_place",
    retry_failed=False,
    peers=None,
    seals=None,
    made_keys=None,
):
    try:
        ours = _service_keys.with_keys(_of_engine(services, engine), _service_keys.checked_default(api_key), made_keys)
    except values.Bad as error:
        raise AnsibleFilterError(str(error)) from error
    api_key = None  # each service has its own by now
    plan, where = plan or {}, _paths(paths)
    looked_at = {"docker_version": found.get("engine"), "selinux": bool(found.get("selinux"))}
    settings = {**looked_at, "seals": seals, **(settings or {})}
    try:
        items = _service_work.wanted(plan, ours, host, where, images, options, settings, api_key, peers)
        keyless = _service_keys.keyless(ours, items)
        if keyless:
            raise AnsibleFilterError(
                f"no key is known for {', '.join(keyless)}: let the role vllm make one, set api_key, or say that it is "
                f"wanted open with api_key: none"
            )
        surplus = _service_work.surplus(found, items, ours, plan)
        leaving = surplus["stop"] + surplus["remove"]
        items = _service_work.decided(
            items, found, plan, host, where, settings, api_key, strategy, retry_failed, leaving
        )
    except (_vllm_options.OptionError, _vllm_container.ContainerError) as error:
        raise AnsibleFilterError(str(error)) from error
    names = [service["name"] for service in ours]
    return {"items": items, "services": names, "unplanned": _service_work.unplanned(ours, plan), **surplus}


class FilterModule:
    def filters(self):
        return {
            "engine_options": _service_work.options_of,
            "option_changes": _service_work.option_changes,
            "service_questions": _service_questions,
            "service_work": _service_work_of_host,
        }
