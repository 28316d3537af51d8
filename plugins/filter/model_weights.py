# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters over the declared models."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError

from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_weights
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import ServiceError, normalize_services


def _complete_models(models, models_dir):
    try:
        return _model_weights.complete_models(models, models_dir)
    except _model_weights.ModelError as error:
        raise AnsibleFilterError(f"model_weights_models: {error}") from error


def _models_to_show(models, models_dir):
    return _model_weights.without_secrets(_complete_models(models, models_dir))


def _model_addresses(models, models_dir):
    return _model_weights.addresses(_complete_models(models, models_dir))


def _models_of_services(services, models_dir, plan=None, hub="modelscope"):
    try:
        return _model_weights.models_of_services(normalize_services(services, {"hub": hub}), models_dir, plan)
    except ServiceError as error:
        raise AnsibleFilterError(f"inference_services: {error}") from error


def _model_requirements(plan, services, host, models_dir, allow_root_filesystem=False, but_not_on=()):
    models = _models_of_services(services, models_dir, plan)
    requirements = _model_weights.requirements_of_models(models, plan, host, allow_root_filesystem)
    return _model_weights.outside(requirements, but_not_on)


def _distribute(models, play_hosts, fan_out=True, seed=None, controller_directory="/"):
    try:
        return _model_weights.distribute(models, play_hosts, fan_out, seed, controller_directory)
    except _model_weights.ModelError as error:
        raise AnsibleFilterError(f"model_weights_seed: {error}") from error


class FilterModule:
    def filters(self):
        return {
            "complete_models": _models_to_show,
            "model_addresses": _model_addresses,
            "models_of_services": _models_of_services,
            "model_requirements": _model_requirements,
            "distribute": _distribute,
            "models_to_fetch": _model_weights.models_to_fetch,
            "fan_out_plan": _model_weights.fan_out_plan,
            "installed_models": _model_weights.installed_models,
        }
