# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A placement of a service → the arguments of community.docker.docker_container, and the engine's options."""

from __future__ import annotations

import json
import re
import shlex

from ansible_collections.inferops.gpu_host.plugins.module_utils import (
    _container_secrets,
    _groups,
    _hardening,
    _network,
    _ray,
    _service_keys,
    _vllm_options,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils import _service_values as values
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import option_name
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB
from ansible_collections.inferops.gpu_host.plugins.module_utils._versions import engine_version_of, version_tuple

CONFIG_PATH = "/etc/vllm/config.yaml"  # the loader wants .yaml or .yml
CACHE_PATH = "/root/.cache/vllm"
EXTENSION = "yaml"
MEMBER_PATH = "/etc/vllm/group_member.py"
MEMBER_ON_HOST = "/etc/inferops/group_member.py"  # the role peers puts it there
RAY_TOKENS_ON_HOST = "/etc/inferops/ray"  # and the tokens of Ray there
LABEL = "io.github.inferops."
_CDI_BY_DEFAULT_SINCE = (28, 2, 0)

# What the role may set for all of its containers. None: see container_args.
SETTINGS = {
    **_hardening.SETTINGS,
    "allowed_media_domains": [],
    "docker_version": None,
    "env": {},
    "gpu_injection": "auto",
    "group_member": MEMBER_ON_HOST,
    "labels": {},
    "log_driver": "json-file",
    "log_options": {"max-size": "100m", "max-file": "5"},
    "network_mode": "bridge",
    "ray_tokens": RAY_TOKENS_ON_HOST,
    "restart_policy": "unless-stopped",
    "seals": {},  # of hosts; see _container_secrets
    "start_period": "2h",
    "stop_timeout": 60,
    "volumes": [],
}
_MERGED = ("env", "labels", "log_options")
_APPENDED = ("volumes", "ulimits", "devices", "capabilities", "security_opts", "tmpfs")
# Asks the service how it is. Python, which every image with vLLM has; curl is missing from some. The address is data.
_HEALTH_PROBE = """
import ssl, sys, urllib.request as r
try:
    https = r.HTTPSHandler(context=ssl._create_unverified_context())
    r.build_opener(r.ProxyHandler({}), https).open(sys.argv[1], timeout=8)
except Exception as error:
    sys.exit(str(error)[:200])
""".strip()


_NO_DOMAIN = "none.invalid"  # a list without a name would allow all; this name is reserved and nobody's


class ContainerError(ValueError):
    """A service that cannot be put into a container as it is declared."""


# The engine's options


def engine_options(service, plan=None, placement=None, settings=None):
    """All options of `vllm serve` for one placement: what the plan decided, then what the operator said."""
    settings = complete_settings(settings)
    planned = dict((plan or {}).get("layout") or {})
    planned.update((plan or {}).get("engine") or {})

    def chosen(key):
        value = service.get(key)
        return planned.get(key) if value in (None, "auto") else value

    cuda = service.get("accelerator", "cuda") == "cuda"
    options = {
        "served-model-name": service.get("served_model_name") or service["name"],
        "host": service.get("bind_address") if _network_mode(service, placement, settings) == "host" else "0.0.0.0",
        "port": _port(service, placement),
        "tensor-parallel-size": chosen("tensor_parallel_size"),
        "pipeline-parallel-size": chosen("pipeline_parallel_size"),
        "distributed-executor-backend": chosen("distributed_executor_backend"),
        "enable-expert-parallel": chosen("expert_parallel") or None,
        "dtype": chosen("dtype"),
        "quantization": chosen("quantization"),
        "kv-cache-dtype": chosen("kv_cache_dtype"),
        "max-model-len": chosen("max_model_len"),
        "max-num-seqs": chosen("max_num_seqs"),
        "max-num-batched-tokens": chosen("max_num_batched_tokens"),
        "gpu-memory-utilization": chosen("gpu_memory_utilization") if cuda else None,
        "trust-remote-code": service.get("trust_remote_code") or None,
        "api-key": service.get("api_key"),
    }
    for key, value in planned.items():
        option = option_name(key)
        if option in ("replicas", "expert-parallel") or option in options:
            continue
        options[option] = value
    if _kind(service, plan) in ("embedding", "rerank"):
        options["runner"] = "pooling"
    options.update({option_name(key): value for key, value in (service.get("options") or {}).items()})
    return {name: value for name, value in options.items() if value is not None}


def config_file(service, plan=None, placement=None, engine_version=None, settings=None, api_key=None):
    """{config, content, arguments, warnings, digest, token} of one placement; see _vllm_options.config_file.

    api_key: the key of a service that does not set its own.
    digest changes with the content, so that a container that carries it is replaced when its options change.
    token: what the members of a group know each other by.
    """
    service = dict(service, api_key=_service_keys.given(service, api_key) or None)
    options = engine_options(service, plan, placement, settings)
    if _several_hosts(placement):
        options["distributed-executor-backend"] = _backend(service, engine_version)
    known, exact = _vllm_options.known_options(engine_version)
    if "runner" not in (service.get("options") or {}) and not {"runner", "task"} & set(known):
        options.pop("runner", None)
    elif options.get("runner") == "pooling" and "runner" not in known and _kind(service, plan) == "rerank":
        del options["runner"]
        options.setdefault("task", "score")
    if "shutdown-timeout" in known and exact:
        # Requests in flight end by themselves, well before Docker kills the container.
        options.setdefault("shutdown-timeout", max(1, complete_settings(settings)["stop_timeout"] * 3 // 4))
    unguarded = _guard_media(options, engine_version, settings)
    result = _vllm_options.config_file(options, engine_version)
    if unguarded and _kind(service, plan) == "vision":
        result["warnings"] = [*result["warnings"], f"{service['name']}: {unguarded}"]
    # JSON is YAML, and every Python can read it.
    content = json.dumps(result["config"], indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    told = (content, service["name"], placement, complete_settings(settings)["seals"])
    digest, token = _container_secrets.fingerprint(*told), _container_secrets.group_token(*told)
    return dict(result, content=content, digest=digest, token=token)


def _guard_media(options, engine_version, settings):
    """Let clients name pictures at no addresses but the allowed ones, in place; why that is not possible, or ''."""
    domains = complete_settings(settings)["allowed_media_domains"]
    if domains == ["*"] or "allowed-media-domains" in options:
        return ""
    version = version_tuple(engine_version)
    if not version or "allowed-media-domains" not in _vllm_options.known_options(engine_version)[0]:
        told = f"vLLM {engine_version}" if version else "a vLLM of unknown version (set engine_version)"
        return f"{told} cannot be kept from fetching whatever address a client names: keep it from your own network"
    options["allowed-media-domains"] = list(domains) or [_NO_DOMAIN]
    return ""


# The container


def container_args(
    placement, service, host, image, model_dir, config_path, cache_dir, config, plan=None, settings=None, peers=None
):
    """Arguments of community.docker.docker_container for the part of a placement that lives on one host.

    config: what config_file returned; its `content` is the file config_path.
    model_dir: the model's directory, mounted read-only at the same path.
    peers: {host: {address, interface, rdma}} of the hosts of a placement on several; see _network.resolve.
    """
    arguments = frame(placement, service, host, image, model_dir, config, plan, settings)
    settings = complete_settings(settings)
    node = _node(placement, service, host)
    arguments.update(
        # Up to 0.11.0 the images start the API server directly, and that one puts --config in the wrong place.
        entrypoint=["vllm", "serve"],
        command=serve_arguments(model_dir, config),
        env={**arguments["env"], **_environment(service, plan, settings)},
        volumes=[
            _hardening.volume(model_dir, model_dir, settings),
            _hardening.volume(config_path, CONFIG_PATH, settings),
            _hardening.volume(cache_dir, CACHE_PATH, settings, writable=True),
            *arguments["volumes"],
        ],
    )
    inside = url_inside(service, _port(service, placement), arguments["network_mode"])
    arguments["healthcheck"]["test"] = ["CMD", "python3", "-c", _HEALTH_PROBE, inside + "/health"]
    if _several_hosts(placement):
        _join_group(arguments, placement, service, node, config, settings, peers or {})
    return with_operators_wishes(arguments, service)


def frame(placement, service, host, image, model_dir, config, plan=None, settings=None):
    """What the containers of all engines have in common, before what the operator says under `container:`."""
    settings = complete_settings(settings)
    node = _node(placement, service, host)
    network = _network_mode(service, placement, settings)
    arguments = {
        "name": container_name(service, placement, plan),
        "image": image,
        "env": {**settings["env"], **(service.get("env") or {})},
        "volumes": list(settings["volumes"]),
        "network_mode": network,
        "restart_policy": settings["restart_policy"],
        "stop_timeout": settings["stop_timeout"],
        "log_driver": settings["log_driver"],
        "log_options": dict(settings["log_options"]),
        "labels": {
            LABEL + "service": service["name"],
            LABEL + "replica": str(placement.get("replica", 0)),
            LABEL + "model": str(service.get("model") or model_dir),
            LABEL + "config": config["digest"],
            **settings["labels"],
        },
        "healthcheck": {"interval": "10s", "timeout": "10s", "retries": 3, "start_period": settings["start_period"]},
    }
    if network != "host":
        arguments["published_ports"] = [_published(service, _port(service, placement))]
    arguments.update(_hardened(service, plan, placement, node, image, network, settings))
    if service.get("accelerator", "cuda") == "cuda":
        arguments["device_requests"], environment = _gpu_request(node, settings)
        arguments["env"] = {**environment, **arguments["env"]}
    return arguments


container_name = _groups.name


def serve_arguments(model_dir, config):
    """What follows `vllm serve`."""
    return [model_dir, "--config", CONFIG_PATH, *config["arguments"]]


def served_name(service):
    """The first name that clients may call the service by."""
    name = service.get("served_model_name") or service["name"]
    return name[0] if isinstance(name, list) else name


def url(service, placement, head=None):
    """Where the host itself reaches the service; None where it cannot.

    head: the peer that has the API, where that is another host.
    """
    address = service.get("bind_address")
    if address in (None, "", "0.0.0.0", "::"):
        address = head["address"] if head else "127.0.0.1"
    elif head and address in ("127.0.0.1", "::1", "localhost"):
        return None
    scheme = "https" if "ssl-certfile" in {option_name(name) for name in service.get("options") or {}} else "http"
    return f"{scheme}://{f'[{address}]' if ':' in address else address}:{_port(service, placement)}"


def complete_settings(given):
    unknown = set(given or {}) - set(SETTINGS)
    if unknown:
        raise ContainerError(f"unknown settings: {', '.join(sorted(unknown))}; known: {', '.join(SETTINGS)}")
    return {**SETTINGS, **{key: value for key, value in (given or {}).items() if value is not None}}


def _hardened(service, plan, placement, node, image, network, settings):
    """The arguments that keep the container from what this part of the engine does not need."""
    layout = (plan or {}).get("layout") or {}
    ranks = 1
    for key in ("tensor_parallel_size", "pipeline_parallel_size"):
        ranks *= int(service.get(key) or layout.get(key) or 1)
    workers = len(node.get("gpus") or []) or -(-ranks // max(1, len(placement.get("nodes") or [])))
    options = {option_name(name): value for name, value in (service.get("options") or {}).items()}
    ray = _several_hosts(placement) and _backend(service, engine_version_of(service, image)) == "ray"
    # Only on the host's network are the first 1024 ports the privileged ones.
    needs = ["NET_BIND_SERVICE"] if network == "host" and _port(service, placement) < 1024 else []
    return _hardening.arguments(settings, _hardening.shared_memory(workers, options, ray), needs)


def _kind(service, plan):
    return service.get("type") or (plan or {}).get("type") or "chat"


def _port(service, placement):
    port = (placement or {}).get("port") or service.get("port")
    if not port:
        raise ContainerError(f"service {service['name']!r} has no port: set port, or let the plan choose one")
    return int(port)


def _several_hosts(placement):
    return len((placement or {}).get("nodes") or []) > 1


def _backend(service, engine_version):
    try:
        return _groups.backend(service, engine_version)
    except _groups.GroupError as error:
        raise ContainerError(str(error)) from error


def _network_mode(service, placement, settings):
    own = (service.get("container") or {}).get("network_mode")
    if not _several_hosts(placement):
        return own or settings["network_mode"]
    if own not in (None, "host"):
        raise ContainerError(
            f"service {service['name']!r} is placed on several hosts, whose engines need the host's network; "
            f"remove container.network_mode {own!r}"
        )
    return "host"


def _node(placement, service, host):
    for node in placement.get("nodes") or []:
        if node["host"] == host:
            return node
    raise ContainerError(
        f"replica {placement.get('replica', 0)} of service {service['name']!r} is not placed on {host}"
    )


def _join_group(arguments, placement, service, node, config, settings, peers):
    """Make of a container for one host the member of a group, in place."""
    nodes = sorted(placement["nodes"], key=lambda node: node["node_rank"])
    members = [peers.get(node["host"]) for node in nodes]
    unknown = [node["host"] for node, member in zip(nodes, members) if not member]
    if unknown:
        raise ContainerError(
            f"service {service['name']!r} is placed on several hosts, and the addresses of {', '.join(unknown)} are "
            f"not known: run the role peers on all of them first, as playbooks/services.yml does"
        )
    rank, own = node["node_rank"], peers[node["host"]]
    joined_by = _backend(service, engine_version_of(service, arguments["image"]))
    ports = _groups.ports(service, placement, joined_by)
    serve = [*arguments["entrypoint"], *arguments["command"]]
    if joined_by == "mp":
        serve += ["--nnodes", str(len(nodes)), "--node-rank", str(rank)]
        serve += ["--master-addr", members[0]["address"], "--master-port", str(ports["head"]["torch"])]
        serve += ["--headless"] if rank else []
    else:
        serve = _with_ray(serve, rank, own, members[0], ports, placement, node)
        arguments["env"]["RAY_ADDRESS"] = f"{members[0]['address']}:{ports['head']['ray']}"
        _ray.with_token(arguments, f"{settings['ray_tokens']}/{arguments['name']}.token", settings)
    arguments["entrypoint"] = ["python3", MEMBER_PATH]
    arguments["command"] = [
        *("--name", arguments["name"], "--rank", str(rank), "--members", ",".join(m["address"] for m in members)),
        *("--port", str(ports["head"]["group"]), "--", *serve),
    ]
    arguments["volumes"].insert(2, _hardening.volume(settings["group_member"], MEMBER_PATH, settings))
    arguments["labels"] = {LABEL + "rank": str(rank), **arguments["labels"]}
    told = _network.environment(node["host"], {n["host"]: m for n, m in zip(nodes, members)}, service["accelerator"])
    given = {**settings["env"], **(service.get("env") or {})}
    arguments["env"] = {**arguments["env"], **told, **given, **_group_token(service, nodes, config)}
    if own["rdma"]:
        arguments["devices"] = ["/dev/infiniband:/dev/infiniband"]
        arguments["capabilities"] = [*arguments.get("capabilities", []), "IPC_LOCK"]
        arguments["ulimits"] = _hardening.merged("ulimits", arguments.get("ulimits", []), ["memlock:-1:-1"])
    if rank:
        # There is no API here to ask. The member exists as long as its engine and the whole group do.
        arguments["healthcheck"]["test"] = ["CMD", "test", "-e", "/tmp/group-member-runs"]


def _group_token(service, nodes, config):
    if not config["token"]:
        raise ContainerError(
            f"service {service['name']!r} is placed on several hosts, and what they know each other by comes from "
            f"their head, {nodes[0]['host']}, which is not in this run: run it for all hosts of the service"
        )
    return {_container_secrets.GROUP_TOKEN: config["token"]}


def _with_ray(serve, rank, own, head, ports, placement, node):
    """The head starts Ray and then serves; the others are nodes of that Ray."""
    pinned = _groups.ray_ports((placement["port"] - _groups.FIRST_API_PORT) % 1000)
    gpus = len(node.get("gpus") or [])
    if rank:
        return [*_ray.start_arguments(own["address"], pinned, f"{head['address']}:{pinned['ray']}", gpus), "--block"]
    start = " ".join(shlex.quote(word) for word in _ray.start_arguments(own["address"], pinned, gpus=gpus))
    return ["sh", "-ec", start + '; exec "$@"', "sh", *serve]


def _environment(service, plan, settings):
    environment = {
        # Every library keeps what it compiles somewhere below the home directory: that is on the host, and writable.
        "HOME": CACHE_PATH,
        "PYTHONUSERBASE": "/root/.local",  # what an image installed there is still found
        "VLLM_CACHE_ROOT": CACHE_PATH,
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    if service.get("accelerator", "cuda") == "cuda":
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    else:
        # In GiB, and as much as the plan counted with.
        ranks = ((plan or {}).get("estimate") or {}).get("ranks") or [{}]
        environment["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, round(ranks[0].get("kv_cache", 0) / GIB)))
    if _kind(service, plan) == "vision":
        # A redirect would lead the server past allowed-media-domains.
        environment["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] = "0"
    environment.update(settings["env"])
    environment.update(service.get("env") or {})
    return environment


def _gpu_request(node, settings):
    """(device_requests, environment): the GPUs by UUID, through CDI or the NVIDIA runtime hook."""
    devices = [str(gpu.get("uuid") or gpu["index"]) for gpu in node.get("gpus") or []]
    if not devices:
        raise ContainerError(f"no GPUs are placed on {node['host']}: plan again, or set accelerator: cpu")
    injection = settings["gpu_injection"]
    if injection == "auto":
        docker = version_tuple(settings["docker_version"])
        injection = "cdi" if docker and docker >= _CDI_BY_DEFAULT_SINCE else "nvidia"
    if injection == "nvidia":
        return [{"driver": "nvidia", "device_ids": devices, "capabilities": [["gpu"]]}], {}
    if injection != "cdi":
        raise ContainerError(f"gpu_injection is {injection!r}, wanted auto, nvidia or cdi")
    request = {"driver": "cdi", "device_ids": [f"nvidia.com/gpu={device}" for device in devices]}
    # CUDA images say "all" here, and where nvidia is the default runtime that would win over the request.
    return [request], {"NVIDIA_VISIBLE_DEVICES": "void"}


def gpu_run_options(listing, docker_version, gpu_injection="auto"):
    """Options of `docker run` for all GPUs in `nvidia-smi --list-gpus`, in the way in which services get theirs."""
    uuids = [] if "(UUID: MIG-" in listing else re.findall(r"\(UUID: (GPU-[\w-]{1,60})\)", listing)
    node = {"host": "this host", "gpus": [{"uuid": uuid} for uuid in uuids or ["all"]]}
    requests, environment = _gpu_request(node, {"gpu_injection": gpu_injection, "docker_version": docker_version})
    devices = requests[0]["device_ids"]
    if requests[0]["driver"] == "cdi":
        options = [f"--device={device}" for device in devices]
    else:
        # The command line reads this as a line of CSV, where commas inside a field want quotes around it.
        options = [f'--gpus="device={",".join(devices)}",driver={requests[0]["driver"]}']
    return options + [f"--env={name}={value}" for name, value in environment.items()]


def _published(service, port):
    address = service.get("bind_address")
    if address in (None, "", "0.0.0.0", "::"):
        return f"{port}:{port}"
    address = "127.0.0.1" if address.lower() == "localhost" else address
    if not values.is_ip(address):
        raise ContainerError(
            f"service {service['name']!r}: bind_address is {address!r}, and Docker publishes ports on IP addresses "
            f"only: give the address, or set container: {{network_mode: host}}"
        )
    return f"[{address}]:{port}:{port}" if ":" in address else f"{address}:{port}:{port}"


def url_inside(service, port, network):
    """Where the container itself reaches the service."""
    address = service.get("bind_address") if network == "host" else None
    address = "127.0.0.1" if address in (None, "", "0.0.0.0", "::") else address
    scheme = "https" if "ssl-certfile" in {option_name(name) for name in service.get("options") or {}} else "http"
    return f"{scheme}://{f'[{address}]' if ':' in address else address}:{port}"


def with_operators_wishes(arguments, service):
    """`container:` of the service on top: mappings are merged, lists appended, anything else replaced.

    In a list an entry for the same thing (a limit, a path) replaces ours.
    """
    wishes = dict(service.get("container") or {})
    for key in wishes:
        if key in values.CONTAINER_ELSEWHERE:
            instead = values.CONTAINER_ELSEWHERE[key]
            raise ContainerError(f"service {service['name']!r}: container.{key} is set by {instead} of the service")
    _hardening.loosened(arguments, wishes)
    for key, value in wishes.items():
        if key in _MERGED:
            arguments[key] = {**arguments.get(key, {}), **value}
        elif key in _APPENDED:
            arguments[key] = _hardening.merged(key, arguments.get(key, []), value)
        else:
            arguments[key] = value
    return arguments
