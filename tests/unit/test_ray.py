from __future__ import annotations

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _groups, _ray

PEERS = {
    host: {"address": f"10.0.0.{at}", "interface": "eth0", "rdma": []} for at, host in enumerate(("a", "b", "c"), 1)
}
CLUSTER = {"name": "ray", "hosts": ["a", "b"], "image": "ray:1"}
# What NODES_SCRIPT printed on Ray 2.60 for a head and a node that had left and come back
OUTPUT = """2026-11-21 11:55:01,123 INFO worker.py:1879 -- Connecting to existing Ray cluster at address: 10.0.0.1:6379...
NODES [["10.0.0.1", true, 8.0], ["10.0.0.2", false, 8.0], ["10.0.0.2", true, 8.0]]
"""


def words(cluster=CLUSTER, host="a", **more):
    arguments = _ray.container_args(cluster, host, PEERS, _groups.ray_ports(), **more)
    return arguments, dict(word.partition("=")[::2] for word in arguments["command"] if word.startswith("--"))


def test_the_first_host_is_the_head_and_the_others_join_it():
    head, said = words()
    assert head["entrypoint"] == ["ray"] and head["command"][0] == "start"
    assert "--head" in said and "--block" in said and said["--port"] == "6379"
    _, said = words(host="b")
    assert "--head" not in said and said["--address"] == "10.0.0.1:6379" and said["--node-ip-address"] == "10.0.0.2"


def test_an_existing_cluster_is_joined_by_all():
    for host in ("a", "b"):
        _, said = words({**CLUSTER, "address": "192.0.2.9:6379"}, host)
        assert "--head" not in said and said["--address"] == "192.0.2.9:6379"


def test_every_port_is_pinned():
    _, said = words()
    pinned = [value for name, value in said.items() if name.endswith("port")]
    assert len(pinned) == len(set(pinned)) == 11
    assert int(said["--max-worker-port"]) - int(said["--min-worker-port"]) > 500


@pytest.mark.parametrize(("injection", "ids"), [("nvidia", ["GPU-1"]), ("cdi", ["nvidia.com/gpu=GPU-1"])])
def test_gpus(injection, ids):
    arguments, said = words(gpus=["GPU-1"], gpu_injection=injection)
    assert arguments["device_requests"][0]["device_ids"] == ids and said["--num-gpus"] == "1"
    arguments, said = words()
    assert "device_requests" not in arguments and said["--num-gpus"] == "0"


def test_shared_memory():
    assert (words()[0]["ipc_mode"], words()[0]["shm_size"]) == ("private", "8g")  # the object store alone takes 4
    arguments, _ = words({**CLUSTER, "shm_size": "10.24g"})
    assert (arguments["shm_size"], arguments["ipc_mode"]) == ("10.24g", "private")
    arguments, _ = words({**CLUSTER, "settings": {"ipc_mode": "host"}})
    assert arguments["ipc_mode"] == "host" and "shm_size" not in arguments


def test_a_node_may_do_little():
    arguments, _ = words()
    assert arguments["cap_drop"] == ["ALL"] and "capabilities" not in arguments and arguments["read_only"]
    assert arguments["security_opts"] == ["no-new-privileges:true"]
    loose, _ = words({**CLUSTER, "settings": {"read_only": False, "capabilities": ["SYS_PTRACE"]}})
    assert not loose["read_only"] and loose["capabilities"] == ["SYS_PTRACE"] and "tmpfs" not in loose
    with pytest.raises(ValueError, match="unknown in ray_cluster_container_settings: readonly"):
        words({**CLUSTER, "settings": {"readonly": False}})


def test_only_who_has_the_token_may_ask():
    arguments, _ = words({**CLUSTER, "token": "/etc/inferops/ray/ray.token"})
    assert (arguments["env"]["RAY_AUTH_MODE"], arguments["env"]["RAY_AUTH_TOKEN_PATH"]) == ("token", _ray.TOKEN_PATH)
    assert f"/etc/inferops/ray/ray.token:{_ray.TOKEN_PATH}:ro" in arguments["volumes"]
    assert "RAY_AUTH_MODE" not in words()[0]["env"]  # a cluster that was there before has its own


def test_nodes_that_left_do_not_count():
    assert _ray.parse_nodes(OUTPUT) == {"10.0.0.1": 8, "10.0.0.2": 8}
    assert _ray.parse_nodes("ray.exceptions.RpcError: Timed out") is None


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ({"10.0.0.1": 8, "10.0.0.2": 8}, []),
        (None, ["the head does not answer"]),
        ({"10.0.0.1": 8}, ["10.0.0.2 has not joined"]),
        ({"10.0.0.1": 8, "10.0.0.2": 7}, ["10.0.0.2 offers 7 GPUs, wanted 8"]),
        ({"10.0.0.1": 8, "10.0.0.2": 8, "172.17.0.2": 8}, ["172.17.0.2 joined without being asked"]),
    ],
)
def test_differences(nodes, expected):
    assert _ray.differences(nodes, {"10.0.0.1": 8, "10.0.0.2": 8}) == expected


def test_a_cluster_that_was_there_before_may_have_others():
    assert _ray.differences({"10.0.0.1": 8, "10.0.0.9": 8}, {"10.0.0.1": 8}, strangers=True) == []
