"""Containers of text-embeddings-inference, against what one would type by hand."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _placements, _service_work, _tei_container
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import normalize_services
from ansible_collections.inferops.gpu_host.plugins.module_utils._service_work import Paths, options_of
from ansible_collections.inferops.gpu_host.plugins.module_utils._vllm_container import ContainerError

BASE = "ghcr.io/huggingface/text-embeddings-inference:1.9"
SERVICE = {
    "name": "bge-reranker-large",
    "model": "BAAI/bge-reranker-large",
    "engine": "text_embeddings_inference",
    "type": "rerank",
    "port": 8007,
}


def item(gpu="A100-80GB", gpus=1, **more):
    nodes = [{"host": "gpu1", "node_rank": 0, "gpus": [{"uuid": f"GPU-{at}", "index": at} for at in range(gpus)]}]
    entry = {
        "name": SERVICE["name"],
        "gpu": gpu,
        "layout": {"dtype": "float16", "replicas": 1},
        "placements": [{"replica": 0, "port": 8007, "nodes": nodes}],
    }
    services = normalize_services([{**SERVICE, **more}])
    (only,) = _service_work.wanted({"services": [entry]}, services, "gpu1", Paths("/data/models", "/etc/tei", "/cache"))
    return only


@pytest.mark.parametrize(
    ("gpu", "tag"),
    [
        ("T4", "turing-1.9"),
        ("A100-80GB", "1.9"),
        ("A10", "86-1.9"),
        ("RTX-4090", "89-1.9"),
        ("H100-80GB", "hopper-1.9"),
        ("B200", "cuda-1.9"),
        ("something new", "cuda-1.9"),
        (None, "cuda-1.9"),
    ],
)
def test_the_image_fits_the_gpu(gpu, tag):
    assert item(gpu)["image"] == f"ghcr.io/huggingface/text-embeddings-inference:{tag}"


def test_the_image_of_the_cpu():
    assert _tei_container.image(BASE, "cpu") == "ghcr.io/huggingface/text-embeddings-inference:cpu-1.9"


@pytest.mark.parametrize(
    "given", ["registry.example:5000/tei", "registry.example/tei:turing-1.9", "registry.example/tei@sha256:abc"]
)
def test_an_image_that_says_more_is_taken_as_it_is(given):
    assert _tei_container.image(given, gpu="T4") == given


def test_a_mirror():
    (service,) = normalize_services([SERVICE])
    images = {"text_embeddings_inference": "registry.example:5000/tei:1.6"}
    assert _placements.image_of(service, images, gpu="A10") == "registry.example:5000/tei:86-1.6"


# docker run --gpus '"device=0"' -p 8007:80 -v DIR:/data ghcr.io/…:1.6 --model-id /data
def test_the_container():
    args = item()["arguments"]
    assert args["command"] == [
        *("--model-id", "/data/models/BAAI/bge-reranker-large", "--port", "8007", "--hostname", "0.0.0.0"),
        "--dtype=float16",
    ]
    assert args["published_ports"] == ["8007:8007"]
    assert args["device_requests"][0]["device_ids"] == ["GPU-0"]
    assert args["volumes"][0] == "/data/models/BAAI/bge-reranker-large:/data/models/BAAI/bge-reranker-large:ro"
    assert args["env"]["HF_HUB_OFFLINE"] == "1"
    assert args["healthcheck"]["test"][:3] == ["CMD", "sh", "-c"]
    assert args["healthcheck"]["test"][-1] == "http://127.0.0.1:8007/health"
    assert (args["restart_policy"], args["labels"]["io.github.inferops.engine"]) == (
        "unless-stopped",
        "text_embeddings_inference",
    )


def test_options_become_arguments():
    command = item(options={"max-batch-tokens": 32768, "auto-truncate": True, "pooling": "cls"})["arguments"]["command"]
    assert command[6:] == ["--auto-truncate", "--dtype=float16", "--max-batch-tokens=32768", "--pooling=cls"]
    # A value that looks like an option stays the value of its own.
    assert item(options={"default-prompt": "--api-key=x"})["arguments"]["command"][6] == "--default-prompt=--api-key=x"


@pytest.mark.parametrize("key", ["sk-secret", 'it\'s"$HOME"', None])
def test_the_key_reaches_the_process_and_nothing_else(key, tmp_path):
    rendered = item(api_key=key)
    if key:
        assert key not in json.dumps(rendered["arguments"])
    assert options_of(rendered["config"]).get("api-key", [None])[0] == key
    secrets, program = tmp_path / "secrets", tmp_path / "text-embeddings-router"
    secrets.write_text(rendered["config"])
    program.write_text('#!/bin/sh\nprintf "%s|%s|%s" "${API_KEY-none}" "$1" "$2"\n')
    program.chmod(0o755)
    shell, flag, script, name = rendered["arguments"]["entrypoint"]
    ran = subprocess.run(
        [shell, flag, script.replace("/etc/tei/secrets", str(secrets)), name, *rendered["arguments"]["command"]],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == f"{key or 'none'}|--model-id|/data/models/BAAI/bge-reranker-large"


@pytest.mark.parametrize(
    ("more", "words"),
    [({"type": "chat"}, "only serves embedding and rerank"), ({"gpus": 2}, "uses one GPU")],
)
def test_refusals(more, words):
    gpus = more.pop("gpus", 1)
    with pytest.raises(ContainerError, match=words):
        item(gpus=gpus, **more)
