from __future__ import annotations

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils._metrics import figures

PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="demo"} 3.0
vllm:num_requests_running{engine="1",model_name="demo"} 2.0
vllm:num_requests_waiting{engine="0",model_name="demo"} 0.0
vllm:kv_cache_usage_perc{engine="0",model_name="demo"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="demo"} 0.5
vllm:num_requests_waiting_by_reason{reason="capacity"} 7.0
"""


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (PAGE, {"running": 5, "waiting": 0, "kv_cache_use": 0.5}),
        ("vllm:gpu_cache_usage_perc{} 0.1\n", {"running": None, "waiting": None, "kv_cache_use": 0.1}),
        ("te_queue_size 4\n", {"running": None, "waiting": 4, "kv_cache_use": None}),
        ("<html>", {"running": None, "waiting": None, "kv_cache_use": None}),
    ],
)
def test_figures(page, expected):
    assert figures(page) == expected
