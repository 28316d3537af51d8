# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What vLLM's log says: how far a start has come, what was allocated, or why it failed.

The patterns were read from vLLM's sources from 0.6.4 to 0.33 and tried on real logs in tests/captured.

A log holds what users, models and engines put into it, so the time to read it must grow no faster than its length: its
last MOST_READ characters and MOST_LINES lines count, a line is cut at LONGEST_LINE, and no part of a pattern repeats
without end.
"""

from __future__ import annotations

import re

from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB, MIB, format_bytes
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import printable

MOST_READ = 2 * MIB  # a start writes some 100 KiB, 5,000 lines of a busy engine one MiB
MOST_LINES = 20_000
LONGEST_LINE = 4000
_REPETITION = re.compile(r"\\d\+|\\.|\[(?:\\.|[^\]\\])*\]|[*+]")
_FEW = {"*": "{0,300}", "+": "{1,300}", r"\d+": r"\d{1,15}"}


def _pattern(text, flags=0):
    """`text` compiled, with every `*` and `+` held to 300 repetitions and numbers to 15 digits."""
    return re.compile(_REPETITION.sub(lambda found: _FEW.get(found.group(), found.group()), text), flags)


_PREFIX = _pattern(
    r"^(?:\((?P<process>[\w-]+)(?: rank=\d+)? pid=\d+\) ?)?"
    r"(?:(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d (?:\[[\w./]+:\d+\]|[\w.]+:\d+\]) ?)?"
)
_START = _pattern(r"vLLM API server version|non-default args:|args: Namespace\(")
_READY = _pattern(r"Application startup complete|Uvicorn running on")
_NUMBER = r"(?<![\d.])\d+(?:\.\d+)?(?![\d.])"
_GIB = rf"({_NUMBER}) ?GiB"

# (key, pattern): sizes that each rank reports for itself
_RANK_SIZES = (
    ("weights", _pattern(rf"Model loading took {_GIB}")),
    ("weights", _pattern(rf"Loading model weights took ({_NUMBER}) GB")),
    ("weights", _pattern(rf"model weights take {_GIB}")),
    ("kv_cache", _pattern(rf"Available KV cache memory: {_GIB}")),
    ("kv_cache", _pattern(rf"the rest of the memory reserved for KV Cache is {_GIB}")),
    ("kv_cache", _pattern(rf"kv_cache_size={_GIB}")),
    ("kv_cache", _pattern(rf"Explicitly set \(({_NUMBER})/{_NUMBER}\) GiB for KV cache")),
    ("activation", _pattern(rf"PyTorch activation peak memory takes {_GIB}")),
    ("activation", _pattern(rf"{_GIB} for peak activation")),
    ("non_torch", _pattern(rf"non_torch_memory takes {_GIB}")),
    ("non_torch", _pattern(rf"{_GIB} for non-torch memory")),
    ("non_torch", _pattern(rf"non_torch_memory={_GIB}")),
    ("cuda_graphs", _pattern(rf"Graph capturing finished in \d+ secs, took {_GIB}")),
    ("cuda_graphs", _pattern(rf"{_GIB} for CUDAGraph memory")),
    ("gpu_total", _pattern(rf"Free memory on device \S* ?\({_NUMBER}/({_NUMBER}) GiB\) on startup")),
    ("gpu_free", _pattern(rf"Free memory on device \S* ?\(({_NUMBER})/{_NUMBER} GiB\) on startup")),
)
_SECONDS = (
    ("load", _pattern(rf"Model loading took .* and ({_NUMBER}) seconds")),
    ("load", _pattern(rf"Loading weights took ({_NUMBER}) seconds")),
    ("compile", _pattern(rf"torch\.compile (?:takes|took) ({_NUMBER}) s in total")),
    ("cuda_graphs", _pattern(r"Graph capturing finished in (\d+) secs")),
    ("initialize", _pattern(rf"init engine \(.*\) took ({_NUMBER}) s")),
)
_TOKENS = _pattern(r"(?:GPU|CPU) KV cache size: (\d[\d,]{0,19}) tokens")
_CONCURRENCY = _pattern(rf"Maximum concurrency for (\d[\d,]{{0,19}}) tokens per request: ({_NUMBER})x")
_VERSION = _pattern(r"(?:vLLM API server version|LLM engine \(v|\bversion) ?(\d+\.\d+\.\d+[\w.+]*)")

# (phase, pattern): the furthest one that the log shows is where the start is
_PHASES = (
    ("starting", _START),
    ("loading", _pattern(r"Starting to load model|Loading safetensors|Loading pt checkpoint")),
    ("profiling", _pattern(r"Model loading took|Loading weights took|Loading model weights took")),
    ("compiling", _pattern(r"Using cache directory.*torch.compile|Dynamo bytecode transform|Compiling a graph")),
    ("allocating", _pattern(r"Available KV cache memory|KV cache size:|# GPU blocks")),
    ("capturing", _pattern(r"Capturing (?:CUDA graph|cudagraph)", re.IGNORECASE)),
    ("warming_up", _pattern(r"init engine \(")),
    ("ready", _READY),
)
_BAR = _pattern(
    r"(?:Loading safetensors[\w ]*|Loading pt[\w ]*|Capturing CUDA graph[^:]*):\s+\d+%.*?(?<!\d)(\d+)/(\d+)"
)

_EXCEPTION = _pattern(r"^\s*[\w.]*(?:Error|Exception|Interrupt): .")
_BEYOND_THE_START = (_PHASES[1][1], _EXCEPTION, _READY)
_MEMBER = _pattern(r"\S (waits for \S+ \(rank \d+\))")


class _Cause:
    def __init__(self, name, pattern, message, variable, advice):
        self.name = name
        self.pattern = _pattern(pattern)
        self.message = message
        self.variable = variable
        self.advice = advice


# In order of how much each explains: the first that matches anywhere is the cause. {0}, {1}… are the pattern's groups.
CAUSES = (
    _Cause(
        "kv_cache_too_small",
        r"max seq len \(([\d,]+)\), \(?([\d.]+) ?GiB KV cache is needed, which is larger than the available KV cache "
        r"memory \(([\d.]+) ?GiB\)(?:.*estimated maximum model length is (\d+))?",
        "one request of {0} tokens needs {1} GiB of KV cache, and {2} GiB are left",
        "max_model_len",
        "set max_model_len to {3} or less; or more tensor_parallel_size, kv_cache_dtype fp8, gpu_memory_utilization",
    ),
    _Cause(
        "kv_cache_too_small",
        r"max seq len \(([\d,]+)\) is larger than the maximum number of tokens that can be stored in KV cache "
        r"\((\d+)\)",
        "one request of {0} tokens does not fit into a KV cache of {1}",
        "max_model_len",
        "set max_model_len to {1} or less; or more tensor_parallel_size, kv_cache_dtype fp8, gpu_memory_utilization",
    ),
    _Cause(
        "no_memory_for_kv_cache",
        r"No available memory for the cache blocks",
        "weights and activations leave no memory for the KV cache",
        "gpu_memory_utilization",
        "raise gpu_memory_utilization, or spread the model with tensor_parallel_size, or quantize it",
    ),
    _Cause(
        "gpu_memory_in_use",
        r"Free memory on device \S* ?\(([\d.]+)/([\d.]+) GiB\) on startup is less than desired GPU memory utilization "
        r"\(([\d.]+), ([\d.]+) GiB\)",
        "{0} of {1} GiB are free on the GPU, and gpu_memory_utilization {2} wants {3}",
        "gpu_memory_utilization",
        "free the GPU, choose other gpus, or lower gpu_memory_utilization",
    ),
    _Cause(
        "gpu_out_of_memory",
        r"(?:OutOfMemoryError|CUDA out of memory).*?Tried to allocate ([\d.]+ \w+)\. GPU \d+ has a total capacity of "
        r"([\d.]+ \w+) of which ([\d.]+ \w+) is free",
        "{0} more were wanted of a GPU of {1}, of which {2} were free",
        "tensor_parallel_size",
        "spread the model with tensor_parallel_size, quantize it, or lower max_num_batched_tokens",
    ),
    _Cause(
        "gpu_out_of_memory",
        r"OutOfMemoryError|CUDA out of memory|CUDA error: out of memory",
        "the GPU has too little memory",
        "tensor_parallel_size",
        "spread the model with tensor_parallel_size, quantize it, or lower max_num_batched_tokens",
    ),
    _Cause(
        "bfloat16_unsupported",
        r"Bfloat16 is only supported on GPUs with compute capability of at least 8\.0\. Your (.+?) GPU",
        "{0} has no bfloat16",
        "dtype",
        "set dtype to float16, or leave it out",
    ),
    _Cause(
        "quantization_unsupported",
        r"quantization method (\S+) is not supported for the current GPU\.? Minimum capability: (\d+)",
        "this GPU cannot compute {0}, which needs compute capability {1}",
        "quantization",
        "choose weights in another quantization, or other gpus",
    ),
    _Cause(
        "driver_too_old",
        r"driver on your system is too old|driver version is insufficient|compiled with an? unsupported toolchain|"
        r"forward compatibility was attempted on non supported HW|unsupported display driver / cuda driver combination|"
        r"unsatisfied condition: cuda",
        "the image's CUDA is newer than the NVIDIA driver of the host",
        "image",
        "choose an older image, or update the driver; on data-centre GPUs env VLLM_ENABLE_CUDA_COMPATIBILITY=1 may do",
    ),
    _Cause(
        "gpu_too_old_for_image",
        r"no kernel image is available for execution on the device",
        "the image has no code for this GPU's compute capability",
        "image",
        "choose an image that still supports this GPU",
    ),
    _Cause(
        "no_gpu",
        r"No CUDA GPUs are available|Failed to infer device type|libcuda\.so\.1: cannot open|Found no NVIDIA driver|"
        r"could not select device driver|Failed to initialize NVML",
        "the container sees no GPU",
        "gpus",
        "check nvidia-smi on the host, then the NVIDIA Container Toolkit; a `systemctl daemon-reload` takes GPUs away "
        "from running containers, which must then be recreated",
    ),
    _Cause(
        "no_peer_access",
        r"custom_all_reduce\.cuh.*(?:illegal memory access|error)|peer access is not supported between these",
        "the GPUs cannot reach each other's memory",
        "options",
        "set options: {{disable-custom-all-reduce: true}}",
    ),
    _Cause(
        "shm_too_small",
        r"Insufficient space in /dev/shm|"
        r"unable to (?:allocate|write to) .*shared memory|No space left on device.*(?:shm|psm_|nccl)|/dev/shm.*"
        r"(?:No space|too small)|Bus error",
        "shared memory is too small",
        "container",
        "set container: {{ipc_mode: host}}, or a larger shm_size",
    ),
    _Cause(
        "nccl",
        r"ncclCommInitRank|NCCL error|ncclSystemError|ncclUnhandledCudaError|DistBackendError|ncclInternalError",
        "the GPUs could not be connected by NCCL",
        "env",
        "set env: {{NCCL_DEBUG: INFO}} for the reason; often shared memory, memlock or NCCL_SOCKET_IFNAME",
    ),
    _Cause(
        "too_few_gpus",
        r"(?:Tensor parallel|World) size \((\d+)\) (?:cannot be|is) larger than the (?:number of )?available GPUs "
        r"\((\d+)\)",
        "the layout wants {0} GPUs, the container sees {1}",
        "tensor_parallel_size",
        "lower tensor_parallel_size, or give more gpus",
    ),
    _Cause(
        "layout_impossible",
        r"(Total number of attention heads \(\d+\) must be divisible by tensor parallel size \(\d+\)|"
        r"\d+ is not divisible by \d+|[Pp]ipeline parallelism is not supported for this model)",
        "the model cannot be divided like that: {0}",
        "tensor_parallel_size",
        "leave the layout to the plan",
    ),
    _Cause(
        "max_model_len_beyond_model",
        r"User-specified max_model_len \((\d+)\) is greater than the derived max_model_len \(.*?=(\d+)",
        "the model was made for {1} tokens, {0} are asked for",
        "max_model_len",
        "set max_model_len to {1} or less",
    ),
    _Cause(
        "port_taken",
        r"[Aa]ddress already in use",
        "another program listens on the port",
        "port",
        "set another port, or stop that program",
    ),
    _Cause(
        "trust_remote_code_needed",
        r"(?:contains custom code|requires you to execute|custom code which must be executed).*|"
        r"[Pp]lease pass the argument `?trust_remote_code=True|set the option `?trust_remote_code=True",
        "the model brings its own Python code",
        "trust_remote_code",
        "read that code, then set trust_remote_code to true",
    ),
    _Cause(
        "model_gated",
        r"gated repo|Access to model \S+ is restricted|401 Client Error",
        "the model is gated, and no valid token was there",
        "model_weights_huggingface_token",
        "accept the model's terms and set the token, or place the files yourself and set path",
    ),
    _Cause(
        "tokenizer_missing",
        r"[Cc]an't load tokenizer|[Cc]ouldn't instantiate the backend tokenizer|Unable to load vocabulary from file|"
        r"Tokenizer class \S+ does not exist|requires the SentencePiece library",
        "the tokenizer is missing or cannot be read",
        "model",
        "verify the model's files (tokenizer.json, tokenizer_config.json), or set options: {{tokenizer: …}}",
    ),
    _Cause(
        "architecture_unknown",
        r"[Mm]odel architectures? \[?'?([\w', ]+?)'?\]? (?:are|is|failed)|"
        r"model type `?(\w+)`? but Transformers does not recognize",
        "this engine does not know the architecture {0}{1}",
        "image",
        "choose a newer image, or correct config.json",
    ),
    _Cause(
        "model_incomplete",
        r"Cannot find any model weights|SafetensorError|Error while deserializing header|HeaderTooLarge|"
        r"IncompleteBuffer|does not appear to have a file named \S+|weights were not initialized from checkpoint",
        "files of the model are missing or broken",
        "model",
        "verify the model: playbooks/weights.yml fetches what is broken",
    ),
    _Cause(
        "model_missing",
        r"Invalid repository ID or local directory specified|is not a local folder and is not a valid model identifier|"
        r"Repo id must be in the form|OfflineModeIsEnabled|LocalEntryNotFoundError|couldn't connect to '?https://huggingface",
        "the model is not where the engine looks for it",
        "path",
        "correct path or model of the service; services are offline on purpose",
    ),
    _Cause(
        "option_refused",
        r"(?:vllm(?: serve)?|api_server\.py): error: (.+)",
        "the engine refuses an option: {0}",
        "options",
        "correct the options of the service",
    ),
    _Cause(
        "no_compiler",
        r"aot_compile is not supported|Failed to find C compiler|InvalidCxxCompiler|No working C\+\+ compiler",
        "the image has no compiler for torch.compile",
        "options",
        "set options: {{enforce-eager: true}}, or use an image with a compiler",
    ),
    _Cause(
        "too_many_open_files",
        r"Too many open files",
        "the limit of open files is too low",
        "container",
        "raise nofile in ulimits",
    ),
    _Cause(
        "read_only_root",
        r"Read-only file ?system(?:[^\n/]{0,40}(/[^\s'\"\]:]+))?",
        "it wants to write where its root filesystem is read-only: {0}",
        "container",
        "set container: {{tmpfs: ['DIRECTORY:rw,exec,nosuid,nodev']}} for that directory, or {{read_only: false}}",
    ),
    _Cause(
        "tmpfs_without_exec",
        r"failed to map segment from shared object",
        "a library that was compiled at the start may not be loaded from where it was written",
        "container",
        "give that directory exec in container: tmpfs",
    ),
    _Cause(
        "too_many_processes",
        r"can't start new thread|pthread_create failed|BlockingIOError: \[Errno 11\] Resource temporarily unavailable|"
        r"(?:fork|clone).{0,80}Resource temporarily unavailable",
        "it may not start more threads or processes",
        "container",
        "raise container: {{pids_limit: …}}, or nproc in ulimits",
    ),
    _Cause(
        "capability_missing",
        r"PermissionError: \[Errno 13\] Permission denied:? ?'?([^'\n]*)",
        "it may not open {0}",
        "container",
        "let root read that file (owner or mode); or set container: {{capabilities: [DAC_OVERRIDE]}}",
    ),
    _Cause(
        "capability_missing",
        r"PermissionError: \[Errno 1\] Operation not permitted:? ?'?([^'\n]*)",
        "it lacks a privilege: {0}",
        "container",
        "set container: {{capabilities: […]}} with the one it needs; SYS_NICE for NUMA, SYS_PTRACE for debuggers",
    ),
    _Cause(
        "host_out_of_memory",
        r"DefaultCPUAllocator: (?:can't|not enough) .*memory|Cannot allocate memory|std::bad_alloc",
        "the host has too little memory",
        "VLLM_CPU_KVCACHE_SPACE",
        "give the host more memory, or the service less (VLLM_CPU_KVCACHE_SPACE in its env, on CPUs)",
    ),
    _Cause(
        "group_broken",
        r"(rank \d+|the head) at (\S+) (is gone|has started anew)",
        "{0} of the group, at {1}, ended or was lost, so all of its members start anew",
        "hosts",
        "look for the reason on that host: docker logs, dmesg, its network",
    ),
    _Cause(
        "engine_died",
        r"EngineDeadError|EngineCore encountered an issue",
        "the engine died while it served",
        "options",
        "look above this line in the log for the reason",
    ),
)
# NCCL's own words with NCCL_DEBUG=INFO: the ways of its channels, or at least the network that it chose
_WAY = _pattern(r"NCCL INFO .* via NET/(\w+)/\d+(/GDRDMA)?")
_NETWORK = _pattern(r"NCCL INFO (?:Using network (\w+)|NET/(\w+)\s*: Using)")
_EXIT_CODES = {
    132: ("illegal_instruction", "the CPU lacks an instruction that the image uses", "image"),
    137: ("killed", "the process was killed, mostly because the host ran out of memory", "container"),
}


def parse(text, exit_code=None):
    """{progress, allocated, failure, transport} of a log; failure is None unless the log or the exit code shows one."""
    runs = _runs(text)
    last = runs[-1]
    progress = _progress(last)
    failure = None
    if progress["phase"] != "ready" or exit_code:
        # In a crash loop the newest start has nothing to say yet.
        failure = _failure(last, exit_code) or (_failure(runs[-2], exit_code) if len(runs) > 1 else None)
        failure = failure or _from_exit_code(exit_code)
    return {"progress": progress, "allocated": _allocated(last), "failure": failure, "transport": _transport(last)}


def _transport(run):
    """How NCCL crosses hosts: {network, gpu_direct, text}, or None where the log does not say."""
    ways = [match.groups() for match in (_WAY.search(line) for _process, _level, line in run) if match]
    chosen = [match for match in (_NETWORK.search(line) for _process, _level, line in run) if match]
    if not ways and not chosen:
        return None
    network = ways[0][0] if ways else chosen[-1].group(1) or chosen[-1].group(2)
    gpu_direct = any(way[1] for way in ways)
    if network == "Socket":
        text = "sockets: no RDMA, so expect much less throughput between the hosts"
    else:
        text = f"{'RDMA' if network == 'IB' else network}, {'with' if gpu_direct else 'without'} GPUDirect"
    return {"network": network, "gpu_direct": gpu_direct, "text": text}


def _runs(text):
    """The log as [(process, level, line)], one list for each start: Docker keeps the log over restarts."""
    runs, has_left_the_start = [[]], False
    for raw in re.split(r"[\r\n]+", text[-MOST_READ:])[-MOST_LINES:]:
        match = _PREFIX.match(raw)
        line = raw[match.end() : match.end() + LONGEST_LINE]
        if _START.search(line) and has_left_the_start:
            runs.append([])
            has_left_the_start = False
        runs[-1].append((match.group("process"), match.group("level"), line))
        has_left_the_start = has_left_the_start or any(pattern.search(line) for pattern in _BEYOND_THE_START)
    return runs


def _lines(run):
    return [line for process, level, line in run]


def _progress(run):
    phase, done, total = "created", None, None
    order = [name for name, pattern in _PHASES]
    for line in _lines(run):
        for name, pattern in _PHASES:
            if pattern.search(line) and (phase == "created" or order.index(name) > order.index(phase)):
                phase, done, total = name, None, None
        counted = _BAR.search(line)
        if counted and phase in ("loading", "capturing"):
            done, total = int(counted.group(1)), int(counted.group(2))
    words = {
        "created": "no word from the engine yet",
        "starting": "reading the configuration",
        "loading": "loading weights",
        "profiling": "measuring activations",
        "compiling": "compiling",
        "allocating": "allocating the KV cache",
        "capturing": "capturing CUDA graphs",
        "warming_up": "starting the API server",
        "ready": "ready",
    }
    text = words[phase] + (f", {done} of {total}" if total else "")
    if phase == "created":
        # A member of a group, which waits for the others before it starts the engine.
        text = next((found.group(1) for found in map(_MEMBER.search, reversed(_lines(run))) if found), text)
    return {"phase": phase, "done": done, "total": total, "text": text}


def _rank(process):
    """'Worker_PP0_TP1' → 'PP0_TP1'; what has no rank in its name is the only one."""
    match = re.search(r"(?:PP\d+_?)?TP\d+|(?:PP\d+)", process or "")
    return match.group(0) if match else "TP0"


def _allocated(run):
    """Sizes in bytes for each rank, tokens, concurrency, and how long the steps took."""
    ranks, seconds = {}, {}
    found = {"version": None, "kv_cache_tokens": None, "max_concurrency": None, "max_model_len": None}
    for process, _level, line in run:
        for key, pattern in _RANK_SIZES:
            match = pattern.search(line)
            if match:
                ranks.setdefault(_rank(process), {})[key] = round(float(match.group(1)) * GIB)
        for key, pattern in _SECONDS:
            match = pattern.search(line)
            if match:
                seconds[key] = max(seconds.get(key, 0.0), float(match.group(1)))
        match = _TOKENS.search(line)
        if match:
            # Each data-parallel engine reports its own.
            found["kv_cache_tokens"] = int(match.group(1).replace(",", ""))
        match = _CONCURRENCY.search(line)
        if match:
            found["max_model_len"] = int(match.group(1).replace(",", ""))
            found["max_concurrency"] = float(match.group(2))
        match = _VERSION.search(line)
        if match and not found["version"]:
            found["version"] = match.group(1)
    return dict(found, ranks=[{"rank": name, **sizes} for name, sizes in sorted(ranks.items())], seconds=seconds)


def _failure(run, exit_code):
    for cause in CAUSES:
        for at, (_process, level, line) in enumerate(run):
            # A warning of what might happen is no failure: "this can cause … Too many open files".
            match = None if level in ("DEBUG", "INFO", "WARNING") else cause.pattern.search(line)
            if match:
                return _explained(cause, match, line, _phase_at(run, at))
    if exit_code in _EXIT_CODES:
        return None
    for line in _lines(run):
        match = _EXCEPTION.match(line)
        if match:
            return {
                "cause": "unknown",
                "message": "the engine failed for a reason that is not known here",
                "evidence": printable(line.strip()[:500], 500),
                "variable": None,
                "advice": "read the log from this line on",
                "phase": _progress(run)["phase"],
                "numbers": [],
            }
    return None


def _phase_at(run, at):
    return _progress(run[: at + 1])["phase"]


def _explained(cause, match, line, phase):
    numbers = [printable(group or "") for group in match.groups()]
    advice = cause.advice
    if "{3}" in advice and not numbers[3]:
        advice = advice.replace("set max_model_len to {3} or less; or more", "lower max_model_len; or more")
    return {
        "cause": cause.name,
        "message": cause.message.format(*numbers),
        "evidence": printable(line.strip()[:500], 500),
        "variable": cause.variable,
        "advice": advice.format(*numbers),
        "phase": phase,
        "numbers": [number for number in numbers if number],
    }


def _from_exit_code(exit_code):
    if exit_code not in _EXIT_CODES:
        return None
    cause, message, variable = _EXIT_CODES[exit_code]
    return {
        "cause": cause,
        "message": message,
        "evidence": f"exit code {exit_code}",
        "variable": variable,
        "advice": "see the kernel's log (dmesg) on the host",
        "phase": None,
        "numbers": [],
    }


# Predicted against actual


def compare(estimate, allocated, tolerance=0.05):
    """What the plan predicted against what the engine allocated.

    Sizes are compared for the fullest rank, as a share of its budget; tokens and concurrency as a share of what was
    predicted.
    {terms: [{name, predicted, actual, difference, within}], within, advice, table}
    """
    predicted_ranks, actual_ranks = estimate.get("ranks") or [], allocated.get("ranks") or []
    budget = max([rank.get("budget") or rank.get("total") or 0 for rank in predicted_ranks] or [0])
    terms = []
    for name in ("weights", "kv_cache", "activation", "cuda_graphs", "non_torch"):
        predicted = [rank[name] for rank in predicted_ranks if rank.get(name) is not None]
        actual = [rank[name] for rank in actual_ranks if rank.get(name) is not None]
        if predicted and actual:
            # The smallest cache of all ranks is the one that counts.
            choose = min if name == "kv_cache" else max
            terms.append(_term(name, choose(predicted), choose(actual), budget or choose(predicted), tolerance))
    for name in ("kv_cache_tokens", "max_concurrency"):
        if estimate.get(name) and allocated.get(name):
            terms.append(_term(name, estimate[name], allocated[name], estimate[name], tolerance))
    outside = [term for term in terms if not term["within"]]
    return {
        "terms": terms,
        "within": not outside,
        "advice": [_advice(term) for term in outside],
        "table": [_row(term) for term in terms],
    }


def _shown(name, value):
    return f"{value:,}" if name in ("kv_cache_tokens", "max_concurrency") else format_bytes(value)


def _row(term):
    predicted, actual = (_shown(term["name"], term[key]) for key in ("predicted", "actual"))
    mark = "" if term["within"] else "  !"
    return f"{term['name']:<16} predicted {predicted:>12}   actual {actual:>12}   {term['difference']:+.1%}{mark}"


def _term(name, predicted, actual, scale, tolerance):
    difference = (actual - predicted) / scale if scale else 0.0
    return {
        "name": name,
        "predicted": predicted,
        "actual": actual,
        "difference": round(difference, 4),
        "within": abs(difference) <= tolerance,
    }


def _advice(term):
    name, predicted, actual = term["name"], term["predicted"], term["actual"]
    told = f"{name}: {_shown(name, predicted)} were predicted, {_shown(name, actual)} are there"
    if name.startswith(("kv_cache", "max_concurrency")):
        less = actual < predicted
        return told + ("; lower max_model_len or raise gpu_memory_utilization" if less else "; there is room for more")
    return told + ("; the service needs more than planned" if actual > predicted else "; the plan was too careful")
