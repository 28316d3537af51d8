"""Good documents and texts of every kind that is read, for tests to spoil."""

from __future__ import annotations

import json
import struct
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CAPTURED = ROOT / "tests/captured"
CONFIGS = tuple(
    model["config"] for model in json.loads((ROOT / "tests/oracle/model_configs.json").read_text())["models"].values()
)
QWEN = json.loads((ROOT / "playbooks/files/model_configs.json").read_text())["Qwen/Qwen2.5-7B-Instruct"]
MODELOPT = {
    "producer": {"name": "modelopt", "version": "0.29"},
    "quantization": {
        "quant_algo": "NVFP4",
        "group_size": 16,
        "kv_cache_quant_algo": "FP8",
        "exclude_modules": ["lm_head"],
    },
}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "ignore": ["lm_head", "re:.*mlp.gate$", "*.vision.*"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 128},
            "input_activations": None,
        }
    },
}
QUANTIZED = (
    COMPRESSED,
    {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic", "ignored_layers": ["x"]},
    {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "modules_to_not_convert": ["visual"]},
    {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False},
    {"quant_method": "bitsandbytes", "load_in_4bit": True, "llm_int8_skip_modules": ["lm_head"]},
)
TOKENIZER = {
    "chat_template": "{% for m in messages %}…",
    "added_tokens_decoder": {"1": {"content": "x"}},
    "bos_token": None,
}
HEADER = {
    "__metadata__": {"format": "pt"},
    "a.weight": {"dtype": "BF16", "shape": [4, 8], "data_offsets": [0, 64]},
    "b.weight": {"dtype": "F8_E4M3", "shape": [16], "data_offsets": [64, 80]},
}
RAW_HEADER = struct.pack("<Q", 90).decode("latin-1") + json.dumps({"a": HEADER["a.weight"]}).ljust(90) + "x" * 64
LISTINGS = {
    "modelscope": {
        "Code": 200,
        "Data": {
            "Files": [{"Path": "config.json", "Size": 700, "Type": "blob"}, {"Path": "a", "Size": 0, "Type": "tree"}]
        },
    },
    "huggingface": [
        {"path": "config.json", "size": 700, "type": "file", "oid": "x"},
        {"path": "a", "type": "directory"},
    ],
}
SMI = CAPTURED / "nvidia-smi"
QUERIES = tuple(
    (SMI / case / "query.xml").read_text() for case in ("h200-1", "mig", "lost-beside-good", "vgpu-unlicensed")
)
LOGS = tuple(
    path.read_text(errors="replace")[-60_000:] for path in sorted((CAPTURED / "vllm-0.32.0-cpu").glob("*.log"))[:4]
)
LOGS += (
    "INFO 11-21 08:15:57 [a.py:1] vLLM API server version 0.33.0\n(EngineCore pid=7) INFO 11-21 08:15:57 [b.py:2] "
    "Model loading took 14.25 GiB and 3.1 seconds\nGPU KV cache size: 1,234 tokens\nMaximum concurrency for 4,096 "
    "tokens per request: 2.21x\nCapturing CUDA graphs (PIECEWISE): 45%|### | 3/8 [00:01<00:02]\nValueError: x\n",
)
METRICS = (
    '# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{engine="0",model_name="a"} 3.0\n'
    'vllm:num_requests_waiting{engine="0"} 1.0\nvllm:kv_cache_usage_perc{engine="0"} 0.25\n',
    'te_queue_size 4\nte_request_count{method="batch"} 12\n',
)
INSPECTION = {
    "Id": "a" * 64,
    "Name": "/chat",
    "Image": "sha256:1",
    "RestartCount": 0,
    "State": {
        "Status": "running",
        "Running": True,
        "Restarting": False,
        "ExitCode": 0,
        "StartedAt": "2026-11-21T08:15:57.1Z",
    },
    "Config": {
        "Image": "vllm/vllm-openai:v0.33.0",
        "Labels": {"io.github.inferops.service": "chat", "io.github.inferops.url": "http://127.0.0.1:8000"},
        "Env": ["NVIDIA_VISIBLE_DEVICES=all", "A=b"],
        "Cmd": ["--config", "/etc/x"],
        "Entrypoint": ["vllm", "serve"],
    },
    "HostConfig": {
        "Runtime": "nvidia",
        "DeviceRequests": [{"Driver": "nvidia", "DeviceIDs": ["GPU-1"], "Capabilities": [["gpu"]], "Count": 0}],
        "Devices": [{"PathOnHost": "/dev/nvidia0"}],
    },
}
VECTORS = {"data": [{"embedding": [0.1 * n, 0.2, 1.0]} for n in range(6)]}
ANSWERS = {
    "/v1/models": {"data": [{"id": "m", "max_model_len": 4096}]},
    "/info": {"model_id": "m", "max_input_length": 512, "version": "1.6"},
    "/v1/chat/completions": {
        "choices": [{"message": {"content": "ha", "reasoning": None}, "finish_reason": "stop"}],
        "usage": {"completion_tokens": 3},
    },
    "/v1/completions": {"choices": [{"text": "ha", "finish_reason": "length"}], "usage": {"completion_tokens": 3}},
    "/v1/embeddings": VECTORS,
    "/v1/rerank": {"results": [{"index": 0, "relevance_score": 0.1}, {"index": 1, "relevance_score": 0.9}]},
    "/version": {"version": "0.33.0"},
    "/openapi.json": {"paths": {"/v1/models": {"get": {}}, "/invocations": {"post": {}}}},
    "events": [{"choices": [{"delta": {"content": "h"}}]}, {"choices": [], "usage": {"completion_tokens": 2}}],
}
INTERFACES = [
    {"ifname": "lo", "flags": ["LOOPBACK", "UP"], "link_type": "loopback", "addr_info": []},
    {
        "ifname": "eth0",
        "flags": ["UP", "LOWER_UP"],
        "mtu": 1500,
        "link_type": "ether",
        "linkinfo": {"info_kind": "bond"},
        "addr_info": [{"family": "inet", "local": "10.0.0.1", "prefixlen": 24, "scope": "global"}],
    },
]
LSBLK = {
    "blockdevices": [
        {
            "name": "/dev/sda",
            "kname": "sda",
            "type": "disk",
            "size": 1000204886016,
            "ro": False,
            "maj:min": "8:0",
            "serial": "S1",
            "model": "M",
            "children": [
                {"name": "/dev/sda1", "kname": "sda1", "type": "part", "size": 10, "ro": False, "maj:min": "8:1"}
            ],
        }
    ]
}
WIPEFS = {"signatures": [{"device": "sda", "offset": "0x1fe", "type": "gpt", "uuid": None, "label": None}]}
UNIT = (
    '# /usr/lib/systemd/system/docker.service\n[Service]\nEnvironment=A=b "C=d e"\nEnvironmentFile=-/etc/default/docker\n'
    "ExecStart=/usr/bin/dockerd -H fd:// $DOCKER_OPTS \\\n  --containerd=/run/containerd/containerd.sock\n",
)
DAEMON = (
    '{\n  "log-driver": "json-file",\n  "runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}},\n'
    '  "insecure-registries": ["registry.lan:5000"]\n}\n',
)
SOURCES_LIST = (
    "# of the vendor\ndeb [arch=amd64 signed-by=/etc/apt/keyrings/docker.asc] https://download.docker.com/linux/debian trixie stable\n"
    "deb http://deb.debian.org/debian trixie main contrib\n"
)
DEB822 = (
    "Types: deb\nURIs: https://download.docker.com/linux/debian\n https://other.lan/debian\nSuites: trixie bookworm\n"
    "Components: stable\nSigned-By: /etc/apt/keyrings/docker.asc\n\n# another\nTypes: deb\nEnabled: no\nURIs: x\nSuites: y/\n"
)
