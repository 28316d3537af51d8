"""What the planner's tests share: published configurations, and services and hosts in few words."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = json.loads((ROOT / "playbooks/files/model_configs.json").read_text())

QWEN_7B = "Qwen/Qwen2.5-7B-Instruct"
QWEN_14B = "Qwen/Qwen2.5-14B-Instruct"
QWEN_32B = "Qwen/Qwen2.5-32B-Instruct"
BGE_M3 = "BAAI/bge-m3"
RERANKER = "BAAI/bge-reranker-large"
DEEPSEEK_R1 = "deepseek-ai/DeepSeek-R1"
DISTILL_70B = "deepseek-ai/DeepSeek-R1-Distill-Llama-70B"


def service(model=QWEN_7B, name=None, **keys):
    return dict({"name": name or model.split("/")[-1].lower(), "model": model, "config": PUBLISHED[model]}, **keys)


def hosts(gpu="H100", gpus=8, count=1):
    return [{"name": f"h{number}", "gpus": {"model": gpu, "count": gpus}} for number in range(count)]


def indexes(entry):
    """[[(host, [GPU index])] for each replica]."""
    return [
        [(node["host"], [gpu["index"] for gpu in node["gpus"]]) for node in p["nodes"]] for p in entry["placements"]
    ]


def shape(entry):
    layout = entry["layout"]
    return layout["tensor_parallel_size"], layout["pipeline_parallel_size"], layout["replicas"]
