# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ray: the command lines of its nodes, and what a cluster says of itself."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils import _hardening, _network
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import (
    UntrustedError,
    bounded_json,
    printable,
)

TOKEN_PATH = "/etc/ray/token"
_OBJECT_STORE = 4 * 1024**3  # vLLM passes little through it; the default takes a third of the memory


def start_arguments(address, ports, head=None, gpus=None, dashboard=False):
    """`ray start …` of one node, with every port pinned. head: what to join; None starts a cluster.

    ports: as _groups.ray_ports returns them.
    """
    arguments = ["ray", "start", f"--node-ip-address={address}"]
    if head:
        arguments.append(f"--address={head}")
    else:
        arguments += [
            "--head",
            f"--port={ports['ray']}",
            f"--include-dashboard={str(bool(dashboard)).lower()}",
            f"--dashboard-port={ports['dashboard']}",
            f"--ray-client-server-port={ports['client']}",
            f"--dashboard-host={address}",
        ]
    arguments += [
        f"--node-manager-port={ports['node manager']}",
        f"--object-manager-port={ports['object manager']}",
        f"--runtime-env-agent-port={ports['runtime env agent']}",
        f"--dashboard-agent-listen-port={ports['dashboard agent']}",
        f"--dashboard-agent-grpc-port={ports['dashboard agent grpc']}",
        f"--metrics-export-port={ports['metrics']}",
        f"--min-worker-port={ports['worker']}",
        f"--max-worker-port={ports['last worker']}",
        f"--object-store-memory={_OBJECT_STORE}",
        "--disable-usage-stats",
    ]
    if gpus is not None:
        arguments.append(f"--num-gpus={gpus}")
    return arguments


def with_token(arguments, token, settings):
    """Let only who has the token ask Ray for anything, in place. token: its file. Ray knows it from 2.52 on."""
    arguments["env"] = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": TOKEN_PATH, **arguments["env"]}
    arguments["volumes"] = [*arguments["volumes"], _hardening.volume(token, TOKEN_PATH, settings)]


# Asked inside a node's container: the content of `ray status` as data. What that prints for people names no addresses
# and changes from release to release.
NODES_SCRIPT = """
import json, sys, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
nodes = [[n["NodeManagerAddress"], n["Alive"], n["Resources"].get("GPU", 0)] for n in ray.nodes()]
print("NODES " + json.dumps(nodes))
"""


def parse_nodes(output):
    """{address: GPUs} of the nodes that are alive, in the output of NODES_SCRIPT; None when there is no answer."""
    for line in output.splitlines():
        if line.startswith("NODES "):
            return _nodes(line[6:])
    return None


def _nodes(text):
    """{address: GPUs} of the answer, or None: whatever runs in the container can print such a line."""
    try:
        told = bounded_json(text, "the answer", limit=MIB)
    except UntrustedError:
        return None
    nodes = {}
    for node in told if isinstance(told, list) else [None]:
        if not isinstance(node, list) or len(node) != 3 or not isinstance(node[0], str):
            return None
        address, alive, gpus = node
        if isinstance(gpus, bool) or not isinstance(gpus, (int, float)) or not 0 <= gpus < 10**6:
            return None
        if alive:
            address = printable(address, 60)
            nodes[address] = nodes.get(address, 0) + int(gpus)
    return nodes


def differences(nodes, expected, strangers=False):
    """What keeps a cluster from being as expected, in words: both are {address: GPUs}. strangers: others may join."""
    if nodes is None:
        return ["the head does not answer"]
    lines = [f"{address} has not joined" for address in expected if address not in nodes]
    lines += [
        f"{address} offers {nodes[address]} GPUs, wanted {gpus}"
        for address, gpus in expected.items()
        if address in nodes and nodes[address] != gpus
    ]
    others = sorted(set(nodes) - set(expected))
    if others and not strangers:
        lines.append(f"{', '.join(others)} joined without being asked")
    return lines


# The container of a node


LABEL = "io.github.inferops.ray"


def container_args(cluster, host, peers, ports, gpus=(), gpu_injection="nvidia"):
    """Arguments of community.docker.docker_container for one node of a cluster that stands alone.

    cluster: {name, hosts, image, address, dashboard, env, volumes, shm_size, settings, token}; address: one to join, or
    None; settings: of _hardening; token: the file with the cluster's token on the host, or None.
    gpus: UUIDs of the GPUs that this node offers.
    """
    settings = _settings(cluster)
    own, head = peers[host], peers[cluster["hosts"][0]]
    leads = not cluster.get("address") and host == cluster["hosts"][0]
    joins = None if leads else cluster.get("address") or f"{head['address']}:{ports['ray']}"
    start = start_arguments(own["address"], ports, joins, len(gpus), cluster.get("dashboard"))
    arguments = {
        "name": cluster["name"],
        "image": cluster["image"],
        "entrypoint": start[:1],
        "command": [*start[1:], "--block"],
        "network_mode": "host",
        "restart_policy": "unless-stopped",
        "labels": {LABEL: cluster["name"]},
        "env": {
            **_network.environment(host, peers, "cuda" if gpus else "cpu"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "HOME": "/tmp",  # beside what Ray keeps there itself
            **(cluster.get("env") or {}),
        },
        "volumes": list(cluster.get("volumes") or []),
        "log_driver": "json-file",
        "log_options": {"max-size": "100m", "max-file": "5"},
    }
    arguments.update(_hardening.arguments(settings, _hardening.shared_memory(len(gpus), ray=True)))
    if cluster.get("token"):
        with_token(arguments, cluster["token"], settings)
    if gpus:
        arguments["device_requests"] = [
            {"driver": "cdi", "device_ids": [f"nvidia.com/gpu={gpu}" for gpu in gpus]}
            if gpu_injection == "cdi"
            else {"driver": "nvidia", "device_ids": list(gpus), "capabilities": [["gpu"]]}
        ]
    if own["rdma"]:
        arguments["devices"] = ["/dev/infiniband:/dev/infiniband"]
        arguments["capabilities"] = [*arguments.get("capabilities", []), "IPC_LOCK"]
        arguments["ulimits"] = _hardening.merged("ulimits", arguments.get("ulimits", []), ["memlock:-1:-1"])
    return arguments


def _settings(cluster):
    given = {key: value for key, value in (cluster.get("settings") or {}).items() if value is not None}
    unknown = sorted(set(given) - set(_hardening.SETTINGS))
    if unknown:
        known = ", ".join(_hardening.SETTINGS)
        raise ValueError(f"unknown in ray_cluster_container_settings: {', '.join(unknown)}; known: {known}")
    return {**_hardening.SETTINGS, **given, "shm_size": cluster.get("shm_size") or given.get("shm_size")}
