"""Which variables may hold a secret, and which tasks of the roles take them.

A new variable, option of a module or key of a service that is named like a secret or an address has to be entered here:
in SECRET, and then everything that is done with it is looked at, or in HARMLESS with the reason.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from ansible_collections.inferops.gpu_host.plugins.module_utils import _service
from ansible_collections.inferops.gpu_host.plugins.module_utils._redaction import is_secret_name

ROOT = Path(__file__).resolve().parents[2]

SUSPICIOUS = re.compile(
    r"key|token|secret|passw|credential|url|endpoint|prox(y|ies)|mirror|index|channel|regist|env$|environment|options$|"
    r"settings|config$|wanted$|header|(^|_)rc$|services$|models$|repositor|alias|recipes|client_packages"
)

# Roles' variables that may hold one, and what else operators set.
SECRET = {
    "container_image_options",
    "container_image_pip_extra_index_urls",
    "container_image_pip_index_url",
    "container_image_secrets",
    "docker_daemon_config_wanted",
    "docker_daemon_options",
    "docker_http_proxy",
    "docker_https_proxy",
    "docker_log_options",
    "docker_mirror",
    "docker_registry_mirrors",
    "inference_api_key",
    "inference_endpoints",
    "inference_hub_endpoint",
    "inference_services",
    "micromamba_channel_alias",
    "micromamba_channels",
    "micromamba_environments",
    "micromamba_environments.channels",
    "micromamba_environments.pip_index_url",
    "micromamba_mirror",
    "micromamba_pip_index_url",
    "micromamba_rc",
    "micromamba_url",
    "model_weights_huggingface_endpoint",
    "model_weights_huggingface_token",
    "model_weights_models",
    "model_weights_modelscope_endpoint",
    "model_weights_modelscope_token",
    "model_weights_pip_index_url",
    "nvidia_container_toolkit_mirror",
    "preflight_api_key",
    "ray_cluster_env",
    "text_embeddings_inference_api_key",
    "text_embeddings_inference_container_settings",
    "text_embeddings_inference_services",
    "verify_api_key",
    "verify_endpoints",
    "verify_endpoints.api_key",
    "verify_endpoints.endpoint",
    "verify_services",
    "vllm_api_key",
    "vllm_container_settings",
    "vllm_default_options",
    "vllm_services",
}
HARMLESS = {
    "container_image_apt_mirror": "refused with a password: it would stay in the image",
    "container_image_recipes": "refused with a secret in the Dockerfile that comes of it",
    "docker_no_proxy": "names of hosts",
    "docker_insecure_registries": "names and networks, no addresses with a user",
    "docker_manage_daemon_config": "a choice",
    "docker_mirror_key": "a file's name below the mirror",
    "model_weights_client_packages": "names with versions",
    "peers_services": "the hosts of a group and their ports are taken from them",
    "preflight_services": "models and ports are taken from them",
    "ray_cluster_container_settings": "limits and capabilities; the environment is another variable",
    "storage_disks.mkfs_options": "words of mkfs",
    "storage_disks.partitions.mkfs_options": "words of mkfs",
    "storage_disks.mount_options": "words of mount",
    "storage_disks.partitions.mount_options": "words of mount",
}


def named_options(options, prefix=""):
    for name, option in (options or {}).items():
        yield prefix + name, option
        yield from named_options(option.get("options"), prefix + name + ".")


def variables_of_roles():
    """Every documented variable of every entry point."""
    found = {}
    for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
            found.update(named_options(entry.get("options")))
    return found


def is_suspicious(name, option):
    last = name.rpartition(".")[2]
    if re.search(r"_(dir|directory|path|file)$", last):
        return False
    return (is_secret_name(last) or bool(SUSPICIOUS.search(last))) and option.get("type") not in (
        "bool",
        "int",
        "float",
    )


def service_keys():
    return set(_service.SCHEMA)


def tasks_in(content):
    """Every task in a file, also in blocks and plays, with what holds for it from above."""
    for entry in content or []:
        inner = [
            entry[key] for key in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks") if key in entry
        ]
        for part in inner:
            for task in tasks_in(part):
                yield {**{key: entry[key] for key in ("no_log",) if key in entry}, **task}
        if not inner and "hosts" not in entry:
            yield entry


def task_files():
    for pattern in ("roles/*/tasks/*.yml", "playbooks/*.yml", "playbooks/tasks/*.yml"):
        for path in sorted(ROOT.glob(pattern)):
            yield path, list(tasks_in(yaml.safe_load(path.read_text())))


# What roles make of the variables and still is a secret, or holds one.
DERIVED = {
    "__container_image_dockerfile",
    "__docker_proxies",
    "__micromamba_mambarc",
    "__micromamba_source",
    "__model_weights_addresses",
    "__model_weights_endpoints",
    "__model_weights_share_token",
    "__model_weights_token",
    "__model_weights_tokens",
    "__package_options",
    "__plan_services",
    "__verify_keys",
    "__vllm_before",
    "__vllm_seal",
}
# Expressions that take what is no secret out of something that holds one.
_CLEAN = (
    r"[\w.]+(?: \| [\w.]+(?:\((?:[^()]|\([^()]*\))*\))?)* \| inferops\.gpu_host\.redacted",
    r"[\w.]+ \| length",
    r"[\w.]+ (?:\| rejectattr\([^()]*\) |\| selectattr\([^()]*\) )*\| map\(attribute='(?:name|state)'[^()]*\)",
)


def secrets_in(value):
    """The variables with secrets that an argument of a task takes."""
    text = json.dumps(value)
    for pattern in _CLEAN:
        text = re.sub(pattern, "", text)
    return set(re.findall(r"\w+", text)) & ({name for name in SECRET if "." not in name} | DERIVED)
