# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model's files and configuration → what an operator and the planner want to know about it."""

from __future__ import annotations

from urllib.parse import quote

from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.weights import parameter_counts
from ansible_collections.inferops.gpu_host.plugins.module_utils._model import safetensors as _safetensors
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.config import parse_model_config, sense
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import bounded_json, printable

ENDPOINTS = {"modelscope": "https://www.modelscope.cn", "huggingface": "https://huggingface.co"}
REVISIONS = {"modelscope": "master", "huggingface": "main"}

# Small files that say what a model is for, beside config.json.
DETAILS = ("hf_quant_config.json", "tokenizer_config.json")
TYPES_BY_KIND = {"embedding": "embedding", "rerank": "rerank", "classify": "rerank"}


LONGEST_JSON = 16 * MIB  # of tokenizer_config.json, which lists added tokens
LONGEST_LISTING = 32 * MIB
MOST_FILES = 100_000


class ModelInfoError(ValueError):
    """What is missing or wrong, and what would help."""


def file_url(hub, endpoint, model, revision, name):
    """Where a hub serves one small file."""
    endpoint = (endpoint or ENDPOINTS[hub]).rstrip("/")
    revision = revision or REVISIONS[hub]
    if hub == "modelscope":
        return (
            f"{endpoint}/api/v1/models/{model}/repo?Revision={quote(revision, safe='')}&FilePath={quote(name, safe='')}"
        )
    return f"{endpoint}/{model}/resolve/{quote(revision, safe='')}/{quote(name)}"


def listing_url(hub, endpoint, model, revision):
    """Where a hub lists a model's files."""
    endpoint = (endpoint or ENDPOINTS[hub]).rstrip("/")
    revision = quote(revision or REVISIONS[hub], safe="")
    if hub == "modelscope":
        return f"{endpoint}/api/v1/models/{model}/repo/files?Revision={revision}&Recursive=True"
    return f"{endpoint}/api/models/{model}/tree/{revision}?recursive=true"


def parse_listing(hub, text):
    """A hub's answer → {path: bytes}."""
    answer = parse_json(text, "the hub's file listing", LONGEST_LISTING)
    names = ("Path", "Size", "Type") if hub == "modelscope" else ("path", "size", "type")
    if hub == "modelscope":
        data = answer.get("Data") if isinstance(answer, dict) else None
        answer = data.get("Files") if isinstance(data, dict) else None
    if not isinstance(answer, list) or len(answer) > MOST_FILES:
        raise ModelInfoError(f"the hub's file listing has an unexpected form (no list of at most {MOST_FILES} files)")
    files = {}
    for item in answer:
        path, size, kind = (item.get(name) for name in names) if isinstance(item, dict) else (None, None, None)
        if kind in ("tree", "directory"):
            continue
        size = size or 0
        if not isinstance(path, str) or isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 1 << 60:
            raise ModelInfoError(f"the hub's file listing has an unexpected form ({printable(item, 100)})")
        files[path] = size
    return files


def parse_json(text, what, limit=LONGEST_JSON):
    """JSON, or an error that names the file. Configurations may hold Infinity, as Python writes it."""
    return bounded_json(text, what, ModelInfoError, limit, infinite=True)


MOST_NAMED = 20  # weights that are named in an answer; what they are called is much the same


def weight_files(files):
    """The files that vLLM would load: safetensors, else the older formats; never both, as it does."""
    safetensors = [name for name in files if name.endswith(".safetensors")]
    # Some repositories carry a second, consolidated copy of the same weights.
    plain = [name for name in safetensors if "/" not in name and not name.startswith("consolidated")]
    others = [name for name in files if name.endswith((".bin", ".pt", ".gguf")) and "/" not in name]
    return plain or safetensors or [name for name in others if not name.startswith(("training_args", "optimizer"))]


def detect_type(spec, model="", files=(), tokenizer_config=None):
    """chat, completion, embedding, rerank or vision."""
    if spec.kind in TYPES_BY_KIND:
        return TYPES_BY_KIND[spec.kind]
    name = str(model).lower()
    if "modules.json" in files or "1_Pooling/config.json" in files or "embed" in name.rsplit("/", 1)[-1]:
        return "embedding"
    if "rerank" in name:
        return "rerank"
    if spec.vision is not None:
        return "vision"
    tokenizer_config = tokenizer_config if isinstance(tokenizer_config, dict) else {}
    template = tokenizer_config.get("chat_template") or [f for f in files if f.startswith("chat_template")]
    if files and not template:
        return "completion"
    return "completion" if name.endswith("-base") else "chat"


def layer_counts(spec):
    """Layers by kind, as the KV cache sees them, and mixtures of experts."""
    counts = {}
    for layer in spec.layers:
        kinds = [layer.attention.kind] if layer.attention else []
        kinds += [layer.state.kind] if layer.state else []
        kinds += ["moe"] if layer.moe else []
        for kind in kinds or ["feed_forward"]:
            counts[kind] = counts.get(kind, 0) + 1
    return counts


def describe(config, model="", files=None, hf_quant_config=None, tokenizer_config=None, tensors=None, strict=False):
    """The module's answer for one model. ConfigError says which key of config.json is wrong."""
    spec = parse_model_config(config, hf_quant_config, strict)
    with sense():
        parameters = dict(zip(("total", "active"), parameter_counts(spec)))
    files = files or {}
    loaded = {name: files[name] for name in weight_files(files)}
    headers = _safetensors.summarize(tensors) if tensors else None
    quantization = spec.quantization
    return {
        "config": config,
        "hf_quant_config": hf_quant_config,
        "type": detect_type(spec, model, files, tokenizer_config),
        "architecture": spec.architecture,
        "basis": spec.basis,
        "dtype": spec.dtype,
        "quantization": quantization.method if quantization else None,
        "layers": layer_counts(spec),
        "hidden_size": spec.hidden_size,
        "vocab_size": spec.vocab_size,
        "heads": spec.heads,
        "kv_heads": spec.kv_heads,
        "max_model_len": spec.max_model_len,
        "parameters": parameters,
        "files": len(files) or None,
        "loads": sorted(loaded)[:MOST_NAMED] or None,
        "files_bytes": sum(files.values()) or None,
        "weights_bytes": headers["bytes"] if headers else sum(loaded.values()) or None,
        "safetensors": headers,
        "assumed": list(spec.assumed),
    }
