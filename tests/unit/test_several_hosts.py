"""The worked examples of services over several hosts: each declaration must yield containers equal in effect."""

from __future__ import annotations

import shlex

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _groups, _placements, _vllm_container
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import normalize_services
from ansible_collections.inferops.gpu_host.plugins.module_utils._versions import engine_version_of, version_of_image
from ansible_collections.inferops.gpu_host.plugins.module_utils._vllm_container import ContainerError


def peers_of(hosts, rdma=()):
    return {
        host: {"address": f"10.0.0.{at}", "interface": "eth0", "mtu": 1500, "rdma": list(rdma)}
        for at, host in enumerate(hosts, 1)
    }


def containers(declared, hosts, gpus, peers=None, **settings):
    """[(arguments, config)] of the hosts of one service, in the order of their ranks."""
    (service,) = normalize_services([declared])
    nodes = [
        {"host": host, "node_rank": rank, "gpus": [{"uuid": f"GPU-{at}", "index": at} for at in range(gpus)]}
        for rank, host in enumerate(hosts)
    ]
    placement = {"replica": 0, "port": service["port"], "nodes": nodes}
    image = _placements.image_of(service, hosts=len(hosts))
    settings = {"seals": {hosts[0]: "seal"}, **settings}
    config = _vllm_container.config_file(service, None, placement, version_of_image(image), settings)
    rendered = []
    for host in hosts:
        arguments = _vllm_container.container_args(
            *(placement, service, host, image, "/data/models/m", "/etc/inferops/x", "/data/cache", config),
            settings=settings,
            peers=peers_of(hosts) if peers is None else peers,
        )
        rendered.append((arguments, config["config"]))
    return rendered


def inner(arguments):
    """What the member runs, and what it was told about the group."""
    command = arguments["command"]
    cut = command.index("--")
    told = dict(zip(command[:cut:2], command[1:cut:2]))
    return command[cut + 1 :], told


def flags(words):
    return dict(word.partition("=")[::2] for word in words if word.startswith("--"))


R1 = {
    "name": "deepseek-r1",
    "model": "deepseek-ai/DeepSeek-R1",
    "port": 8000,
    "tensor_parallel_size": 8,
    "pipeline_parallel_size": 2,
    "gpu_memory_utilization": 0.9,
    "trust_remote_code": True,
}
T4 = {
    "name": "r1-70b",
    "model": "deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
    "port": 8000,
    "tensor_parallel_size": 4,
    "pipeline_parallel_size": 4,
    "dtype": "float16",
    "image": "vllm/vllm-openai:v0.6.4.post1",
    "container": {"shm_size": "10.24g"},
}


# run_cluster.sh IMAGE HEAD_IP --head DIR -e VLLM_HOST_IP=… -e GLOO_SOCKET_IFNAME=eth0 -e NCCL_SOCKET_IFNAME=eth0, the
# worker with --worker; in the head: vllm serve … --tensor-parallel-size 8 -pp 2 --trust-remote-code --gpu-memory-utilization 0.9
def test_deepseek_r1_on_two_hosts_with_ray():
    (head, config), (worker, _) = containers({**R1, "distributed_executor_backend": "ray"}, ["h20-1", "h20-2"], 8)
    for arguments, address in ((head, "10.0.0.1"), (worker, "10.0.0.2")):
        assert arguments["image"] == "inferops/vllm-ray:0.33.0"  # vLLM's own images hold no Ray from 0.18 on
        assert (arguments["network_mode"], arguments["ipc_mode"], arguments["shm_size"]) == ("host", "private", "15g")
        assert "published_ports" not in arguments
        assert arguments["env"]["VLLM_HOST_IP"] == address
        assert arguments["env"]["GLOO_SOCKET_IFNAME"] == "eth0"
        assert arguments["env"]["NCCL_SOCKET_IFNAME"] == "=eth0"
        assert len(arguments["device_requests"][0]["device_ids"]) == 8
        assert "/data/models/m:/data/models/m:ro" in arguments["volumes"]
        assert arguments["restart_policy"] == "unless-stopped"

    serves, _ = inner(head)
    assert serves[:2] == ["sh", "-ec"]
    start, _, tail = serves[2].partition(";")
    assert shlex.split(tail) == ["exec", "$@"]
    assert shlex.split(start)[:2] == ["ray", "start"]
    started = flags(shlex.split(start))
    assert "--head" in started and "--block" not in started
    assert (started["--node-ip-address"], started["--port"], started["--num-gpus"]) == ("10.0.0.1", "6379", "8")
    assert serves[4:] == ["vllm", "serve", "/data/models/m", "--config", "/etc/vllm/config.yaml"]
    assert head["env"]["RAY_ADDRESS"] == "10.0.0.1:6379"

    joins, _ = inner(worker)
    joined = flags(joins)
    assert joins[:2] == ["ray", "start"] and "--block" in joined and "--head" not in joined
    assert (joined["--address"], joined["--node-ip-address"]) == ("10.0.0.1:6379", "10.0.0.2")

    assert {name: config[name] for name in config if name not in ("served-model-name", "host", "port")} == {
        "distributed-executor-backend": "ray",
        "tensor-parallel-size": 8,
        "pipeline-parallel-size": 2,
        "gpu-memory-utilization": 0.9,
        "trust-remote-code": True,
        "shutdown-timeout": 45,
        "allowed-media-domains": ["none.invalid"],
    }


# The same on four hosts of four T4: v0.6.4.post1, which has Ray, --shm-size 10.24g, TP 4, PP 4, --dtype float16
def test_a_70b_model_on_four_hosts_of_t4():
    hosts = ["t4-1", "t4-2", "t4-3", "t4-4"]
    rendered = containers(T4, hosts, 4)
    for arguments, config in rendered:
        assert arguments["image"] == "vllm/vllm-openai:v0.6.4.post1"
        assert (arguments["shm_size"], arguments["ipc_mode"]) == ("10.24g", "private")
        assert (config["tensor-parallel-size"], config["pipeline-parallel-size"], config["dtype"]) == (4, 4, "float16")
        assert config["distributed-executor-backend"] == "ray"
    assert [flags(inner(arguments)[0]).get("--address") for arguments, _ in rendered[1:]] == ["10.0.0.1:6379"] * 3
    assert "vllm" in inner(rendered[0][0])[0]


def test_vllm_joins_hosts_by_itself():
    (head, config), (worker, _) = containers(R1, ["h20-1", "h20-2"], 8)
    assert head["image"] == "vllm/vllm-openai:v0.33.0"
    assert config["distributed-executor-backend"] == "mp"
    common = ["vllm", "serve", "/data/models/m", "--config", "/etc/vllm/config.yaml", "--nnodes", "2"]
    master = ["--master-addr", "10.0.0.1", "--master-port", "29501"]
    assert inner(head)[0] == [*common, "--node-rank", "0", *master]
    assert inner(worker)[0] == [*common, "--node-rank", "1", *master, "--headless"]


def test_members_find_each_other():
    told = [inner(arguments)[1] for arguments, _ in containers(R1, ["a", "b"], 8)]
    assert [one.pop("--rank") for one in told] == ["0", "1"]
    assert told[0] == told[1]
    assert told[0]["--members"] == "10.0.0.1,10.0.0.2"


def test_only_the_head_is_asked_for_health():
    (head, _), (worker, _) = containers(R1, ["a", "b"], 8)
    assert "8000/health" in head["healthcheck"]["test"][-1]
    assert "health" not in " ".join(worker["healthcheck"]["test"])


def test_rdma_adapters_come_along_with_what_they_need():
    (with_it, _), _ = containers(R1, ["a", "b"], 8, peers_of(["a", "b"], ["mlx5_0", "mlx5_1"]))
    assert with_it["devices"] == ["/dev/infiniband:/dev/infiniband"]
    assert with_it["capabilities"] == ["IPC_LOCK"] and "memlock:-1:-1" in with_it["ulimits"]
    assert with_it["env"]["NCCL_IB_HCA"] == "=mlx5_0,mlx5_1"
    (without, _), _ = containers(R1, ["a", "b"], 8)
    assert (
        not {"devices", "capabilities"} & set(without)
        and without["ulimits"] == ["core:0:0"]
        and "NCCL_IB_HCA" not in without["env"]
    )


def test_what_the_operator_says_of_the_network_wins():
    (head, _), _ = containers({**R1, "env": {"NCCL_SOCKET_IFNAME": "ib0"}}, ["a", "b"], 8, env={"NCCL_DEBUG": "WARN"})
    assert (head["env"]["NCCL_SOCKET_IFNAME"], head["env"]["NCCL_DEBUG"]) == ("ib0", "WARN")
    (head, _), (worker, _) = containers({**R1, "options": {"master-port": 4711}}, ["a", "b"], 8)
    for arguments in (head, worker):
        command = inner(arguments)[0]
        assert command[command.index("--master-port") + 1] == "4711"


def test_peers_are_spoken_to_without_a_proxy():
    (head, _), _ = containers(R1, ["a", "b"], 8, env={"https_proxy": "http://proxy:3128"})
    assert {"10.0.0.1", "10.0.0.2"} <= set(head["env"]["no_proxy"].split(","))
    assert head["env"]["NO_PROXY"] == head["env"]["no_proxy"]


def test_two_services_with_one_head_share_no_port():
    service = {"options": {}}

    def all_ports(port, joined_by):
        found = _groups.ports(service, {"port": port}, joined_by)
        return {*found["head"].values(), *found["every"].values()}

    for joined_by in ("mp", "ray"):
        assert not all_ports(8000, joined_by) & all_ports(8001, joined_by)
    blocks = [set(_groups.ray_ports(offset).values()) for offset in range(8)]
    assert sum(map(len, blocks)) == len(set().union(*blocks))
    assert max(set().union(*blocks)) < 32768  # where the kernel hands out its own


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, "mp"),
        ({"image": "vllm/vllm-openai:v0.11.0"}, "ray"),
        ({"image": "registry.example/own:latest"}, "mp"),
        ({"image": "registry.example/own:latest", "engine_version": "0.8.5"}, "ray"),
        ({"distributed_executor_backend": "ray"}, "ray"),
        ({"options": {"distributed-executor-backend": "ray"}}, "ray"),
    ],
)
def test_backend(more, expected):
    (service,) = normalize_services([{"name": "m", "model": "a/b", **more}])
    image = _placements.image_of(service, hosts=2)
    assert _groups.backend(service, engine_version_of(service, image)) == expected


def test_one_host_needs_none_of_this():
    ((alone, config),) = containers({**R1, "pipeline_parallel_size": 1}, ["a"], 8, peers={})
    assert alone["entrypoint"] == ["vllm", "serve"] and alone["network_mode"] == "bridge"
    assert "distributed-executor-backend" not in config and "VLLM_HOST_IP" not in alone["env"]


@pytest.mark.parametrize(
    ("more", "peers", "words"),
    [
        ({}, {}, "addresses of a, b are not known: run the role peers"),
        ({"container": {"network_mode": "bridge"}}, None, "remove container.network_mode 'bridge'"),
        ({"image": "x:v0.9.1", "distributed_executor_backend": "mp"}, None, "joins hosts with Ray only"),
        ({"distributed_executor_backend": "uni"}, None, "joins none"),
    ],
)
def test_refusals(more, peers, words):
    with pytest.raises(ContainerError, match=words):
        containers({**R1, **more}, ["a", "b"], 8, peers)


def test_the_groups_of_a_plan():
    services = normalize_services([R1, {"name": "small", "model": "a/small", "port": 8001}])
    plan = {
        "services": [
            {
                "name": "deepseek-r1",
                "placements": [
                    {
                        "replica": 0,
                        "port": 8000,
                        "nodes": [{"host": "a", "gpus": [1, 2]}, {"host": "b", "gpus": [1, 2]}],
                    }
                ],
            },
            {"name": "small", "placements": [{"replica": 0, "port": 8001, "nodes": [{"host": "a"}]}]},
        ]
    }
    (group,) = _placements.groups(plan, services, models_dir="/m")
    assert (group["name"], group["hosts"], group["head"], group["backend"]) == ("deepseek-r1", ["a", "b"], "a", "mp")
    assert group["model_dir"] == "/m/deepseek-ai/DeepSeek-R1"
    assert group["ports"] == {"head": {"group": 28501, "torch": 29501}, "every": {}}
    assert _placements.images_on_host(plan, services, "b") == [{"name": "vllm/vllm-openai:v0.33.0"}]


def test_the_image_with_ray_is_built():
    services = normalize_services([{**R1, "distributed_executor_backend": "ray"}])
    nodes = [{"host": "a"}, {"host": "b"}]
    plan = {"services": [{"name": "deepseek-r1", "placements": [{"replica": 0, "port": 8000, "nodes": nodes}]}]}
    assert _placements.images_on_host(plan, services, "b") == [{"name": "inferops/vllm-ray:0.33.0", "source": "build"}]
    own = {"ray": "registry.example/vllm-ray:1"}
    assert _placements.images_on_host(plan, services, "b", own) == [{"name": "registry.example/vllm-ray:1"}]
