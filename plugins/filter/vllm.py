# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters between the plan and the containers of vLLM."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError

from ansible_collections.inferops.gpu_host.plugins.module_utils import _vllm_container, _vllm_options


def _vllm_config_file(service, plan=None, placement=None, engine_version=None, settings=None, api_key=None):
    try:
        return _vllm_container.config_file(service, plan, placement, engine_version, settings, api_key)
    except (_vllm_options.OptionError, _vllm_container.ContainerError) as error:
        raise AnsibleFilterError(f"service {service.get('name')!r}: {error}") from error


def _vllm_container_args(
    placement, service, host, image, model_dir, config_dir, cache_dir, config, plan=None, settings=None, peers=None
):
    try:
        return _vllm_container.container_args(
            placement, service, host, image, model_dir, config_dir, cache_dir, config, plan, settings, peers
        )
    except _vllm_container.ContainerError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self):
        return {
            "vllm_config_file": _vllm_config_file,
            "vllm_container_args": _vllm_container_args,
            "vllm_version_of_image": _vllm_options.version_of_image,
        }
