# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator may write about a service: the one schema, checked here and nowhere else.

`normalize_services` returns every service with every key of `SCHEMA`. A key that the operator left out holds its
default; `None` stands for "not fixed: the planner, the model or the engine decides".
"""

from __future__ import annotations

import difflib
import math
import re

from ansible_collections.inferops.gpu_host.plugins.module_utils import _service_values as values
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.demo import DEMO_MODEL_ID

HUBS = ("modelscope", "huggingface", "local", "generated")
ENGINES = ("vllm", "text_embeddings_inference")
TYPES = ("chat", "completion", "embedding", "rerank", "vision")
OBJECTIVES = ("throughput", "latency", "fewest_gpus")
ACCELERATORS = ("cuda", "cpu")
STATES = ("started", "stopped", "absent")
BACKENDS = ("auto", "mp", "ray", "uni", "external_launcher")
DTYPES = ("auto", "float16", "bfloat16", "float32")
DTYPE_SPELLINGS = {"half": "float16", "fp16": "float16", "bf16": "bfloat16", "float": "float32", "fp32": "float32"}

# vllm serve: lower-case suffixes are decimal, upper-case ones binary.
_LENGTH_SUFFIXES = {"k": 10**3, "m": 10**6, "K": 2**10, "M": 2**20}
_COUNT_SUFFIXES = {"k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


class ServiceError(ValueError):
    """Everything that is wrong with the declared services, at once."""

    def __init__(self, problems):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


_Bad = values.Bad


def _boolean(value):
    if isinstance(value, str) and value.lower() in ("true", "yes", "false", "no"):
        return value.lower() in ("true", "yes")
    if not isinstance(value, bool):
        raise _Bad("true or false")
    return value


def _integer(minimum, maximum=None):
    wanted = f"a whole number from {minimum}" + (f" to {maximum}" if maximum else " up")

    def check(value):
        # `-e port=8000` and templated values arrive as text.
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,15}", value.strip()):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise _Bad(wanted)
        if value < minimum or (maximum and value > maximum):
            raise _Bad(wanted)
        return value

    return check


def _share(value):
    try:
        share = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        share = None
    if share is None or not 0 < share <= 1:
        raise _Bad("a share above 0 and at most 1, such as 0.9")
    return share


def _choice(choices, spellings=None):
    def check(value):
        value = (spellings or {}).get(value, value) if isinstance(value, str) else value
        if value not in choices:
            raise _Bad("one of " + ", ".join(choices))
        return value

    return check


def _scaled(value, suffixes, wanted):
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([a-zA-Z]?)", value.strip())
    if not match or (match.group(2) and match.group(2) not in suffixes):
        raise _Bad(wanted)
    return round(float(match.group(1)) * suffixes.get(match.group(2), 1))


def _length(value):
    wanted = "a number of tokens (32768, 32K = 32768, 32k = 32000) or auto"
    if value == "auto":
        return value
    if isinstance(value, str):
        value = _scaled(value, _LENGTH_SUFFIXES, wanted)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _Bad(wanted)
    return value


def _parameters(value):
    wanted = "a number of parameters, such as 7.6B"
    if isinstance(value, str):
        value = _scaled(value.lower(), _COUNT_SUFFIXES, wanted)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
        raise _Bad(wanted)
    return int(value)


def _strings(value):
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) and item for item in value):
        raise _Bad("a list of names")
    return [values.one_line(item, "a list of names") for item in value]


def _gpus(value):
    wanted = "a list of GPU indexes or UUIDs, such as [0, 1] (a number of GPUs is tensor_parallel_size)"
    if not isinstance(value, (list, tuple)) or not value:
        raise _Bad(wanted)
    result = []
    for item in value:
        try:
            item = values.gpu(item)
        except _Bad:
            raise _Bad(wanted) from None
        if item in result:
            raise _Bad(f"a list in which no GPU stands twice ({item} does)")
        result.append(item)
    return result


class _Key:
    def __init__(self, check, default, help, option=None):
        self.check = check
        self.default = default
        self.help = help
        self.option = option  # the same thing under its `vllm serve` name


SCHEMA = {
    # what is served
    "name": _Key(values.container_name, None, "unique; also the container's name"),
    "model": _Key(values.model_id, None, "id on the hub, such as Qwen/Qwen2.5-7B-Instruct"),
    "hub": _Key(_choice(HUBS), None, "where the weights come from; `local` when only `path` is given"),
    "revision": _Key(values.revision, None, "branch, tag or commit; None is the hub's default", "revision"),
    "path": _Key(
        values.model_directory, None, "directory of the model on the host, absolute; None is below inference_models_dir"
    ),
    "config": _Key(values.mapping, None, "the model's config.json, inline, for planning without the hub"),
    "parameters": _Key(_parameters, None, "parameter count, the rough fallback where no config.json can be had"),
    "type": _Key(_choice(TYPES), None, "None: detected from config.json"),
    "served_model_name": _Key(values.one_line, None, "what clients call it; default: the name", "served-model-name"),
    "state": _Key(_choice(STATES), "started", "started, stopped or absent"),
    # how it is served
    "engine": _Key(_choice(ENGINES), "vllm", "vllm or text_embeddings_inference"),
    "engine_version": _Key(values.version, None, "for example 0.26.0"),
    "image": _Key(values.image, None, "container image; None is the role's"),
    "options": _Key(values.options, {}, "any option of `vllm serve`, under its own name"),
    "env": _Key(values.environment, {}, "environment of the container"),
    "container": _Key(values.container, {}, "further arguments of community.docker.docker_container, such as shm_size"),
    "api_key": _Key(values.api_key, None, "None: inference_api_key, else one is made; none: open", "api-key"),
    "trust_remote_code": _Key(_boolean, False, "run the model repository's own Python", "trust-remote-code"),
    "trusted_code": _Key(values.digest, None, "digest of that Python, as you have looked at it; the start says which"),
    "allow_pickle": _Key(_boolean, False, "load weights that are pickles, which can run code"),
    # where
    "accelerator": _Key(_choice(ACCELERATORS), "cuda", "cuda or cpu"),
    "port": _Key(_integer(1, 65535), None, "None: the first free one from 8000", "port"),
    "bind_address": _Key(values.address, "0.0.0.0", "address to listen on; 127.0.0.1 behind a proxy", "host"),
    "hosts": _Key(_strings, [], "the inventory hosts it may use; `host` is one; empty is any"),
    "gpus": _Key(_gpus, None, "indexes or UUIDs of exactly the GPUs to use on each host"),
    # the layout, where the operator fixes it
    "tensor_parallel_size": _Key(_integer(1), None, "GPUs that share each layer", "tensor-parallel-size"),
    "pipeline_parallel_size": _Key(_integer(1), None, "stages of layers", "pipeline-parallel-size"),
    "replicas": _Key(_integer(1), None, "independent copies, each with its own port"),
    "distributed_executor_backend": _Key(
        _choice(BACKENDS),
        None,
        "how several hosts are joined; None: mp, or ray before 0.12",
        "distributed-executor-backend",
    ),
    "expert_parallel": _Key(_boolean, None, "whole experts per GPU", "enable-expert-parallel"),
    "dtype": _Key(_choice(DTYPES, DTYPE_SPELLINGS), None, "None and auto: by model and compute capability", "dtype"),
    "quantization": _Key(values.method, None, "None: as the checkpoint says", "quantization"),
    "kv_cache_dtype": _Key(values.method, None, "None: auto; fp8 halves the cache", "kv-cache-dtype"),
    "max_model_len": _Key(_length, None, "tokens; None: the model's own; auto: the longest that fits", "max-model-len"),
    "max_num_seqs": _Key(_integer(1), None, "requests in one batch", "max-num-seqs"),
    "max_num_batched_tokens": _Key(_integer(1), None, "tokens in one batch", "max-num-batched-tokens"),
    "gpu_memory_utilization": _Key(_share, None, "share of each GPU's memory", "gpu-memory-utilization"),
    # what is wanted of it
    "concurrency": _Key(_integer(1), None, "requests of max_model_len tokens at once, wanted"),
    "objective": _Key(_choice(OBJECTIVES), None, "None: inference_objective"),
}

# What `vllm serve` calls otherwise, as short options and old spellings do.
_OPTION_ALIASES = {
    "tp": "tensor-parallel-size",
    "pp": "pipeline-parallel-size",
    "ep": "enable-expert-parallel",
    "q": "quantization",
}
_KEY_OF_OPTION = {key.option: name for name, key in SCHEMA.items() if key.option}
_OPTIONS_ELSEWHERE = {
    "model": "set the service's key `model` (or `path`)",
    "data-parallel-size": "set the service's key `replicas`",
    "model-id": "set the service's key `model` (or `path`)",
    "hostname": "set the service's key `bind_address`",
    "config": "write under options what that file holds",
}
# What they hold is not repeated in a message.
_SECRET_OPTIONS = ("api-key",)


def option_name(name):
    """The one spelling of a `vllm serve` option: `--max_model_len`, `max_model_len` → `max-model-len`.

    What follows a dot is a key inside the option (`hf-overrides.rope_parameters`) and keeps its underscores.
    """
    name, dot, inner = str(name).strip().lstrip("-").partition(".")
    name = name.replace("_", "-")
    return _OPTION_ALIASES.get(name, name) + dot + inner


def _lift_options(service, label, problems):
    """Options that the planner must know become keys of the service; the rest stays, spelled one way."""
    rest = {}
    for spelling, value in service["options"].items():
        option = option_name(spelling)
        key = _KEY_OF_OPTION.get(option)
        if option in _OPTIONS_ELSEWHERE:
            problems.append(f"{label}: options.{spelling}: {_OPTIONS_ELSEWHERE[option]}")
        elif option in rest:
            problems.append(f"{label}: options: {option} is given twice")
        elif key is None:
            rest[option] = value
        else:
            checked = _check(label, f"options.{spelling}", SCHEMA[key].check, value, problems)
            if service.get(key) not in (None, checked) and key in service:
                both = "" if option in _SECRET_OPTIONS else f" is {value!r} but {key} is {service[key]!r}"
                problems.append(f"{label}: options.{spelling}{both or f' and {key} differ'}: give one of them")
            service[key] = checked
    service["options"] = rest


def _check(label, key, check, value, problems):
    try:
        return check(value)
    except _Bad as wanted:
        problems.append(f"{label}: {key} {_shown(key, value)}, wanted {wanted}")
        return None


def _shown(key, value):
    """What was found, without what could be a secret."""
    if option_name(key.rpartition("options.")[2]) in _SECRET_OPTIONS:
        return "is not shown here"
    if isinstance(value, dict):
        return "holds " + ", ".join(repr(str(name)) for name in list(value)[:20])
    text = repr(value)
    return "is " + (text if len(text) <= 200 else text[:199] + "…")


def _normalize(raw, label, defaults, problems):
    raw = {key: value for key, value in raw.items() if value is not None}
    if "host" in raw:
        if "hosts" in raw:
            problems.append(f"{label}: give either host or hosts")
        raw["hosts"] = raw.pop("host")
    given = {}
    for key, value in raw.items():
        if key in SCHEMA:
            given[key] = _check(label, key, SCHEMA[key].check, value, problems)
        else:
            near = difflib.get_close_matches(str(key), [*SCHEMA, "host"], n=1)
            option = ", or options: {%s: …} for an option of the engine" % option_name(key)
            problems.append(f"{label}: unknown key {key!r}" + (f", did you mean {near[0]!r}?" if near else option))
    given.setdefault("options", {})
    if given["options"]:
        _lift_options(given, label, problems)
    service = {}
    for name, key in SCHEMA.items():
        default = defaults.get(name, key.default)
        service[name] = given.get(name, type(default)(default) if isinstance(default, (dict, list)) else default)
    _complete(service, given, label, problems)
    return service


def _complete(service, given, label, problems):
    """The defaults that follow from other keys, and what must go together."""
    if service["name"] is None and "name" not in given:
        problems.append(f"{label}: name is missing")
    if "hub" not in given and "path" in given and "model" not in given:
        service["hub"] = "local"
    service["hub"] = service["hub"] or "modelscope"
    if service["hub"] == "local" and service["path"] is None:
        problems.append(f"{label}: hub is local, so path must name the model's directory on the host")
    if service["model"] is None:
        service["model"] = service["path"] or (DEMO_MODEL_ID if service["hub"] == "generated" else None)
    if service["model"] is None and "model" not in given and "path" not in given:
        problems.append(f"{label}: model is missing (a hub id such as Qwen/Qwen2.5-7B-Instruct, or path)")
    service["served_model_name"] = service["served_model_name"] or service["name"]
    service["objective"] = service["objective"] or "throughput"
    if service["dtype"] == "auto":
        service["dtype"] = None
    if service["kv_cache_dtype"] == "auto":
        service["kv_cache_dtype"] = None
    if service["accelerator"] == "cpu":
        for key in ("gpus", "gpu_memory_utilization"):
            if service[key] is not None:
                problems.append(f"{label}: {key} makes no sense with accelerator cpu")
    gpus, width = service["gpus"], service["tensor_parallel_size"]
    if gpus and width and len(gpus) % width:
        problems.append(f"{label}: gpus names {len(gpus)} GPUs, which tensor_parallel_size {width} does not divide")


def normalize_services(services, defaults=None):
    """The declared services, checked and with every key of `SCHEMA`; raises ServiceError with all problems.

    `defaults` holds fleet-wide values for keys that a service leaves out, such as accelerator or hub.
    """
    if not isinstance(services, (list, tuple)):
        raise ServiceError([f"inference_services is a {type(services).__name__}, wanted a list of services"])
    problems = []
    checked_defaults = {}
    for key, value in (defaults or {}).items():
        if key not in SCHEMA:
            problems.append(f"defaults: unknown key {key!r}")
        elif value is not None:
            checked_defaults[key] = _check("defaults", key, SCHEMA[key].check, value, problems)
    result = []
    for position, raw in enumerate(services):
        if not isinstance(raw, dict):
            problems.append(f"service {position + 1} is a {type(raw).__name__}, wanted a mapping with name and model")
            continue
        label = f"service {raw['name']!r}" if isinstance(raw.get("name"), str) else f"service {position + 1}"
        result.append(_normalize(raw, label, checked_defaults, problems))
    problems.extend(_clashes(result))
    if problems:
        raise ServiceError(problems)
    return result


def as_planned(service, entry):
    """A normalized service with what its entry in the plan took from the defaults of all services."""
    return dict(service, accelerator=entry.get("accelerator") or service["accelerator"])


def _clashes(services):
    names, ports, numbered = {}, {}, []
    for service in services:
        name = service["name"]
        if name is None:
            continue
        if name in names:
            yield f"two services have the name {name!r}: names are unique"
        names[name] = service
        of, _dash, replica = name.rpartition("-")
        if of and re.fullmatch("0|[1-9][0-9]*", replica) and service["state"] != "absent":
            numbered.append((name, of, int(replica)))
        # With several possible hosts the planner can still keep the two apart.
        if service["port"] and len(service["hosts"]) == 1 and service["state"] != "absent":
            place = service["hosts"][0], service["port"]
            other = ports.setdefault(place, name)
            if other != name:
                yield f"services {other!r} and {name!r} both want port {place[1]} on host {place[0]}"
    for name, of, replica in numbered:
        other = names.get(of)
        # A service with one replica is called by its name alone; how many there are is the plan's where it is not said.
        if other and other["state"] != "absent" and (other["replicas"] is None or other["replicas"] > max(replica, 1)):
            yield (
                f"service {name!r} is called as replica {replica} of service {of!r} is or may be: rename it"
                + ("" if other["replicas"] else f", or set replicas of {of!r}")
            )
