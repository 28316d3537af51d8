# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A placement of a service → a container of text-embeddings-inference. The same functions as _vllm_container."""

from __future__ import annotations

import re
import shlex

from ansible_collections.inferops.gpu_host.plugins.module_utils import (
    _container_secrets,
    _gpu_catalogue,
    _hardening,
    _service_keys,
    _vllm_container,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import option_name
from ansible_collections.inferops.gpu_host.plugins.module_utils._vllm_container import ContainerError

SECRETS_PATH = "/etc/tei/secrets"
EXTENSION = "sh"
KINDS = ("embedding", "rerank")
# One image for each compute capability; what is missing here chooses at its start.
_VARIANTS = {7.5: "turing-", 8.0: "", 8.6: "86-", 8.9: "89-", 9.0: "hopper-"}
_ANY_VARIANT, _CPU_VARIANT = "cuda-", "cpu-"
_DTYPES = ("float16", "float32")
# The server takes its key from the environment alone, and `docker inspect` would show that. So a shell reads the key
# from a file, and only the process itself has it. Images that choose at their start have no program of the plain name.
_START = (
    f'. {SECRETS_PATH}; export API_KEY; [ -n "$API_KEY" ] || unset API_KEY; '
    'exec "$(command -v text-embeddings-router || echo /entrypoint.sh)" "$@"'
)

# With a key, some versions want it for /health too. It goes through a pipe, since a command line is seen by everyone.
_HEALTH_PROBE = (
    f". {SECRETS_PATH}; printf 'Authorization: Bearer %s' \"$API_KEY\" | "
    "curl --noproxy '*' -fsS -o /dev/null -H @- \"$1\""
)


def image(base, accelerator="cuda", gpu=None):
    """The image for a kind of GPU: REPOSITORY:1.9 and an A10 → REPOSITORY:86-1.9."""
    repository, colon, version = base.rpartition(":")
    if not colon or "/" in version or not re.match(r"\d", version):
        return base  # without a version, or a variant already
    if accelerator == "cpu":
        return f"{repository}:{_CPU_VARIANT}{version}"
    known = _gpu_catalogue.find(gpu) if gpu else None
    return f"{repository}:{_VARIANTS.get(known.compute_capability, _ANY_VARIANT) if known else _ANY_VARIANT}{version}"


def config_file(service, plan=None, placement=None, engine_version=None, settings=None, api_key=None):
    """{content, digest, arguments, warnings}: the file with the key, and what stands on the command line."""
    kind = service.get("type") or (plan or {}).get("type")
    if kind not in KINDS:
        raise ContainerError(
            f"service {service['name']!r} is of type {kind}, and text_embeddings_inference only serves "
            f"{' and '.join(KINDS)}: set engine to vllm, or type to what the model does"
        )
    nodes = (placement or {}).get("nodes") or []
    if len(nodes) > 1 or any(len(node.get("gpus") or []) > 1 for node in nodes):
        raise ContainerError(
            f"service {service['name']!r}: text_embeddings_inference uses one GPU; remove tensor_parallel_size and "
            f"pipeline_parallel_size, or set replicas"
        )
    options = {option_name(name): value for name, value in (service.get("options") or {}).items()}
    dtype = service.get("dtype") or ((plan or {}).get("layout") or {}).get("dtype")
    if dtype in _DTYPES:
        options.setdefault("dtype", dtype)
    arguments = []
    for name, value in sorted(options.items()):
        if value is True:
            arguments.append(f"--{name}")
        elif value not in (None, False):
            # In one word, or a value with a leading dash would be the next option.
            arguments.append(f"--{name}={value}")
    key = _service_keys.given(service, api_key) or ""
    content = f"API_KEY={shlex.quote(key)}\n"
    seals = (settings or {}).get("seals")
    digest = _container_secrets.fingerprint(content, service["name"], placement, seals)
    return {"content": content, "digest": digest, "arguments": arguments, "warnings": []}


def container_args(
    placement, service, host, image, model_dir, config_path, cache_dir, config, plan=None, settings=None, peers=None
):
    """Arguments of community.docker.docker_container; see _vllm_container.container_args."""
    settings = _vllm_container.complete_settings(settings)
    arguments = _vllm_container.frame(placement, service, host, image, model_dir, config, plan, settings)
    network = arguments["network_mode"]
    port = placement["port"]
    arguments.update(
        entrypoint=["sh", "-c", _START, "sh"],
        command=[
            *("--model-id", model_dir, "--port", str(port)),
            *("--hostname", (service["bind_address"] if network == "host" else "0.0.0.0")),
            *config["arguments"],
        ],
        env={"HF_HUB_OFFLINE": "1", "HOME": "/tmp", **arguments["env"]},  # the driver keeps compiled code there
        volumes=[
            _hardening.volume(model_dir, model_dir, settings),
            _hardening.volume(config_path, SECRETS_PATH, settings),
            *arguments["volumes"],
        ],
    )
    inside = _vllm_container.url_inside(service, port, network)
    arguments["healthcheck"]["test"] = ["CMD", "sh", "-c", _HEALTH_PROBE, "sh", inside + "/health"]
    return _vllm_container.with_operators_wishes(arguments, service)
