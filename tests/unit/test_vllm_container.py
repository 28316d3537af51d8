"""The worked examples of hand-started containers: each declaration must yield a container equal in effect."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _vllm_container
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import normalize_services
from ansible_collections.inferops.gpu_host.plugins.module_utils._vllm_container import ContainerError

sys.path.insert(0, str(Path(__file__).parents[1] / "stand_ins"))
from openai_server import StandIn

UUIDS = [f"GPU-0000000{at}" for at in range(8)]
MODELS = "/data/models"


def render(declared, gpus=(), image="vllm/vllm-openai:v0.26.0", version="0.26.0", plan=None, **settings):
    (service,) = normalize_services([declared])
    nodes = [{"host": "gpu1", "node_rank": 0, "gpus": [{"uuid": UUIDS[at], "index": at} for at in gpus]}]
    placement = {"replica": 0, "port": service["port"], "nodes": nodes}
    settings = {"seals": {"gpu1": "seal"}, **settings}
    config = _vllm_container.config_file(service, plan, placement, version, settings)
    paths = {
        "model_dir": f"{MODELS}/{service['model']}",
        "config_path": "/etc/inferops/x/1.yaml",
        "cache_dir": "/data/cache",
    }
    args = _vllm_container.container_args(
        placement, service, "gpu1", image=image, config=config, plan=plan, settings=settings, **paths
    )
    return args, config["config"]


def gpus_of(args):
    (request,) = args["device_requests"]
    return request["device_ids"]


# docker run --runtime nvidia --gpus '"device=2"' -v DIR:DIR -p 8000:8000 --ipc=host vllm/vllm-openai:latest \
#   --model DIR --tensor_parallel_size 1 --served-model-name qwen2.5-7b-instruct
def test_qwen2_5_7b_on_device_2():
    declared = {
        "name": "qwen2.5-7b-instruct",
        "model": "Qwen/Qwen2.5-7B-Instruct",
        "port": 8000,
        "gpus": [2],
        "options": {"tensor_parallel_size": 1},
    }
    args, config = render(declared, [2], "vllm/vllm-openai:latest", None)
    assert args["device_requests"] == [{"driver": "nvidia", "device_ids": [UUIDS[2]], "capabilities": [["gpu"]]}]
    assert args["image"] == "vllm/vllm-openai:latest"
    assert args["published_ports"] == ["8000:8000"]
    assert (args["ipc_mode"], args["shm_size"]) == ("private", "3g")  # in place of --ipc=host
    assert f"{MODELS}/Qwen/Qwen2.5-7B-Instruct:{MODELS}/Qwen/Qwen2.5-7B-Instruct:ro" in args["volumes"]
    assert args["entrypoint"] + args["command"] == [
        "vllm",
        "serve",
        f"{MODELS}/Qwen/Qwen2.5-7B-Instruct",
        "--config",
        "/etc/vllm/config.yaml",
    ]
    assert config["tensor-parallel-size"] == 1
    assert config["served-model-name"] == ["qwen2.5-7b-instruct"]
    assert config["port"] == 8000


# … '"device=0,1"' -p 8001:8000 --tensor_parallel_size 2; '"device=0,1,2,3"' -p 8003:8000 --tensor_parallel_size 4
@pytest.mark.parametrize(
    ("model", "gpus", "port"), [("Qwen2.5-14B-Instruct", [0, 1], 8001), ("Qwen2.5-32B-Instruct", [0, 1, 2, 3], 8003)]
)
def test_tensor_parallel(model, gpus, port):
    plan = {"type": "chat", "layout": {"tensor_parallel_size": len(gpus), "pipeline_parallel_size": 1, "replicas": 1}}
    args, config = render({"name": model.lower(), "model": f"Qwen/{model}", "port": port}, gpus, plan=plan)
    assert gpus_of(args) == [UUIDS[at] for at in gpus]
    assert args["published_ports"] == [f"{port}:{port}"]
    assert config["tensor-parallel-size"] == len(gpus)
    assert config["port"] == port


# Embedding and rerank on one GPU: bge-large-zh-v1.5 (8002), bge-m3 (8003), bge-reranker-large
@pytest.mark.parametrize(
    ("model", "type", "port", "version", "expected"),
    [
        ("BAAI/bge-large-zh-v1.5", "embedding", 8002, "0.26.0", {"runner": "pooling"}),
        ("BAAI/bge-m3", "embedding", 8003, "0.26.0", {"runner": "pooling"}),
        ("BAAI/bge-m3", "embedding", 8003, "0.6.4.post1", {"task": "embed"}),
        ("BAAI/bge-reranker-large", "rerank", 8004, "0.26.0", {"runner": "pooling"}),
        ("BAAI/bge-reranker-large", "rerank", 8004, "0.8.5", {"task": "score"}),
    ],
)
def test_pooling(model, type, port, version, expected):
    args, config = render(
        {"name": model.split("/")[1], "model": model, "type": type, "port": port}, [0], version=version
    )
    assert gpus_of(args) == [UUIDS[0]]
    assert {key: config[key] for key in ("runner", "task") if key in config} == expected


# docker run --gpus all --ipc=host --network=host -v … qwenllm/qwenvl:2.5-cu121 vllm serve … --host 0.0.0.0 --port 8001
#   --dtype bfloat16 --limit-mm-per-prompt image=5,video=5 --tensor-parallel-size 8 --gpu-memory-utilization 0.9
#   --max-model-len 73480
def test_vision_on_eight_gpus_and_the_hosts_network():
    declared = {
        "name": "qwen2.5-vl-72b-instruct",
        "model": "Qwen/Qwen2.5-VL-72B-Instruct",
        "type": "vision",
        "port": 8001,
        "dtype": "bfloat16",
        "tensor_parallel_size": 8,
        "gpu_memory_utilization": 0.9,
        "max_model_len": 73480,
        "options": {"limit-mm-per-prompt": "image=5,video=5"},
        "container": {"network_mode": "host"},
    }
    args, config = render(declared, range(8), "qwenllm/qwenvl:2.5-cu121", "0.7.3")
    assert gpus_of(args) == UUIDS
    assert args["network_mode"] == "host"
    assert "published_ports" not in args
    assert (args["ipc_mode"], args["shm_size"]) == ("private", "10g")
    assert args["entrypoint"] == ["vllm", "serve"]
    expected = {
        "host": "0.0.0.0",
        "port": 8001,
        "dtype": "bfloat16",
        "limit-mm-per-prompt": "image=5,video=5",
        "tensor-parallel-size": 8,
        "gpu-memory-utilization": 0.9,
        "max-model-len": 73480,
        "served-model-name": "qwen2.5-vl-72b-instruct",
    }
    assert config == expected
    assert args["env"]["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"


# QwQ-32B: --tensor-parallel-size 4 --max-num-seqs 64 --max-model-len 2048 --api-key … --gpu-memory-utilization 0.9
def test_qwq_with_a_key_that_docker_does_not_show():
    declared = {
        "name": "qwq-32b",
        "model": "Qwen/QwQ-32B",
        "port": 8000,
        "api_key": "sk-very-secret",
        "options": {
            "tensor-parallel-size": 4,
            "max-num-seqs": 64,
            "max-model-len": 2048,
            "gpu-memory-utilization": 0.9,
        },
    }
    args, config = render(declared, range(4))
    assert config["api-key"] == ["sk-very-secret"]
    assert (config["max-num-seqs"], config["max-model-len"], config["gpu-memory-utilization"]) == (64, 2048, 0.9)
    assert "sk-very-secret" not in json.dumps(args)


@pytest.mark.parametrize(
    ("own", "fleet", "expected"), [("a", "b", ["a"]), (None, "b", ["b"]), (None, "", None), (None, None, None)]
)
def test_key_of_the_service_comes_before_the_one_of_all(own, fleet, expected):
    (service,) = normalize_services([{"name": "m", "model": "a/b", "port": 8000, "api_key": own}])
    assert (
        _vllm_container.config_file(service, engine_version="0.26.0", api_key=fleet)["config"].get("api-key")
        == expected
    )


def test_every_container():
    args, config = render({"name": "m", "model": "a/b", "port": 8000}, [0])
    assert args["restart_policy"] == "unless-stopped"
    assert args["log_options"] == {"max-size": "100m", "max-file": "5"}
    assert args["env"]["HF_HUB_OFFLINE"] == args["env"]["VLLM_NO_USAGE_STATS"] == "1"
    assert 0 < config["shutdown-timeout"] < args["stop_timeout"]
    assert "/data/cache:/root/.cache/vllm" in args["volumes"]
    assert args["healthcheck"]["test"][-1] == "http://127.0.0.1:8000/health"
    assert "runner" not in config


def test_cpu_asks_for_no_gpu():
    args, config = render(
        {"name": "m", "model": "a/b", "port": 8000, "accelerator": "cpu"},
        plan={"estimate": {"ranks": [{"kv_cache": 2 << 30}]}},
    )
    assert "device_requests" not in args
    assert args["env"]["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert "gpu-memory-utilization" not in config


@pytest.mark.parametrize(
    ("docker", "injection", "driver"),
    [
        ("26.1.5", "auto", "nvidia"),
        ("29.2.0", "auto", "cdi"),
        ("29.2.0", "nvidia", "nvidia"),
        ("25.0.0", "cdi", "cdi"),
    ],
)
def test_gpu_injection(docker, injection, driver):
    args, _ = render({"name": "m", "model": "a/b", "port": 8000}, [1], docker_version=docker, gpu_injection=injection)
    assert args["device_requests"][0]["driver"] == driver
    assert args["device_requests"][0]["device_ids"] == [f"nvidia.com/gpu={UUIDS[1]}" if driver == "cdi" else UUIDS[1]]
    assert ("NVIDIA_VISIBLE_DEVICES" in args["env"]) == (driver == "cdi")


TWO = "GPU 0: NVIDIA H200 (UUID: GPU-a1)\nGPU 1: NVIDIA H200 (UUID: GPU-b2)\n"
CUT = "GPU 0: NVIDIA A100 (UUID: GPU-a1)\n  MIG 1g.10gb     Device  0: (UUID: MIG-1)\n"


@pytest.mark.parametrize(
    ("docker", "injection", "listing", "options"),
    [
        ("26.1.5", "auto", TWO, ['--gpus="device=GPU-a1,GPU-b2",driver=nvidia']),
        ("29.2.0", "nvidia", TWO, ['--gpus="device=GPU-a1,GPU-b2",driver=nvidia']),
        (
            "29.2.0",
            "auto",
            TWO,
            ["--device=nvidia.com/gpu=GPU-a1", "--device=nvidia.com/gpu=GPU-b2", "--env=NVIDIA_VISIBLE_DEVICES=void"],
        ),
        ("29.2.0", "auto", CUT, ["--device=nvidia.com/gpu=all", "--env=NVIDIA_VISIBLE_DEVICES=void"]),
        ("26.1.5", "auto", "", ['--gpus="device=all",driver=nvidia']),
        ("26.1.5", "auto", "(UUID: GPU-1 --privileged)", ['--gpus="device=all",driver=nvidia']),
    ],
)
def test_the_proof_asks_for_gpus_as_services_do(docker, injection, listing, options):
    assert _vllm_container.gpu_run_options(listing, docker, injection) == options


def test_operator_has_the_last_word_on_the_container():
    declared = {
        "name": "m",
        "model": "a/b",
        "port": 8000,
        "env": {"NCCL_DEBUG": "INFO", "HF_HUB_OFFLINE": 0},
        "container": {"shm_size": "10.24g", "volumes": ["/lora:/lora:ro"], "labels": {"team": "x"}, "cpus": 8},
    }
    args, _ = render(declared, [0])
    assert (args["ipc_mode"], args["shm_size"]) == ("private", "10.24g")
    assert args["volumes"][-1] == "/lora:/lora:ro" and len(args["volumes"]) == 4
    assert args["labels"]["team"] == "x" and len(args["labels"]) > 1
    assert (args["cpus"], args["env"]["NCCL_DEBUG"], args["env"]["HF_HUB_OFFLINE"]) == (8, "INFO", "0")


def test_bound_address():
    declared = {"name": "m", "model": "a/b", "port": 8000, "bind_address": "127.0.0.1"}
    args, config = render(declared, [0])
    assert args["published_ports"] == ["127.0.0.1:8000:8000"]
    assert config["host"] == "0.0.0.0"  # inside the container
    args, config = render(dict(declared, bind_address="10.0.0.5"), [0], network_mode="host")
    assert config["host"] == "10.0.0.5"
    assert "http://10.0.0.5:8000/health" in args["healthcheck"]["test"][-1]


def test_tls_is_probed_as_tls():
    declared = {"name": "m", "model": "a/b", "port": 8000, "options": {"ssl-certfile": "/c.pem", "ssl-keyfile": "/k"}}
    args, _ = render(declared, [0])
    assert args["healthcheck"]["test"][-1] == "https://127.0.0.1:8000/health"


def test_the_health_probe_takes_its_address_as_data():
    """No shell reads it, and what was declared is an argument of its own."""
    args, _ = render({"name": "m", "model": "a/b", "port": 8000}, [0])
    with StandIn() as engine:
        command = [sys.executable, *args["healthcheck"]["test"][2:4], engine.url + "/health"]
        assert args["healthcheck"]["test"][:2] == ["CMD", "python3"]
        assert subprocess.run(command, check=False).returncode == 0
    gone = subprocess.run(command, check=False, stderr=subprocess.PIPE)
    assert gone.returncode == 1 and b"Traceback" not in gone.stderr


def test_label_changes_with_the_options_and_only_then():
    def label(**more):
        args, _ = render({"name": "m", "model": "a/b", "port": 8000, **more}, [0])
        return args["labels"]["io.github.inferops.config"]

    assert label() == label()
    assert len({label(), label(max_model_len=4096), label(api_key="a"), label(api_key="b")}) == 4


@pytest.mark.parametrize(
    ("more", "gpus", "words"),
    [
        ({"bind_address": "gpu1.example"}, [0], "Docker publishes ports on IP addresses only"),
        ({}, [], "no GPUs are placed on gpu1"),
        ({"port": None}, [0], "has no port"),
    ],
)
def test_refusals(more, gpus, words):
    with pytest.raises(ContainerError, match=words):
        render({"name": "m", "model": "a/b", "port": 8000, **more}, gpus)


def test_unknown_setting():
    with pytest.raises(ContainerError, match="unknown settings: shmsize"):
        render({"name": "m", "model": "a/b", "port": 8000}, [0], shmsize="1g")


def test_replicas_have_names_of_their_own():
    service = {"name": "m"}
    assert _vllm_container.container_name(service, {"replica": 1}, {"layout": {"replicas": 2}}) == "m-1"
    assert _vllm_container.container_name(service, {"replica": 0}, {"layout": {"replicas": 1}}) == "m"
