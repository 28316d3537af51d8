"""What an attacker would try, and what was found once, one by one."""

from __future__ import annotations

import json
import os
import re
import time

import pytest
from good import QWEN
from test_bounds import OK, answers

from ansible_collections.inferops.gpu_host.plugins.module_utils import (
    _engine_log,
    _inference_check,
    _listening,
    _metrics,
    _service_status,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._config_keys import ConfigError
from ansible_collections.inferops.gpu_host.plugins.module_utils._model import safetensors
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner import model_info
from ansible_collections.inferops.gpu_host.plugins.modules import engine_log_info
from ansible_collections.inferops.gpu_host.plugins.modules import model_info as model_info_module

# --- config.json ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_hidden_layers": 1025}, "num_hidden_layers"),
        ({"num_hidden_layers": -1}, "num_hidden_layers"),
        ({"num_hidden_layers": 28.5}, "num_hidden_layers"),
        ({"num_hidden_layers": float("nan")}, "num_hidden_layers"),
        ({"num_hidden_layers": float("inf")}, "num_hidden_layers"),
        ({"num_hidden_layers": "28"}, "num_hidden_layers"),
        ({"num_hidden_layers": [28]}, "num_hidden_layers"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"hidden_size": 10**39}, "hidden_size"),
        ({"architectures": "x" * 10**6}, None),
        ({"architectures": [["LlamaForCausalLM"]]}, "architectures"),
        ({"architectures": {"a": "LlamaForCausalLM"}}, "architectures"),
        ({"model_type": ["qwen2"]}, "model_type"),
        ({"layer_types": ["full_attention"] * 5000}, "layer_types"),
        ({"layer_types": [{}] * 28}, "layer_types"),
        ({"layer_types": 7}, "layer_types"),
        ({"hybrid_override_pattern": "M" * 10**6}, "hybrid_override_pattern"),
        ({"num_hidden_layers": None, "hybrid_override_pattern": "M*" * 2000}, "num_hidden_layers"),
        ({"num_experts": 8, "num_experts_per_tok": 2, "mlp_only_layers": 7}, "mlp_only_layers"),
        ({"num_experts": 8, "num_experts_per_tok": 2, "moe_layer_freq": [1]}, "moe_layer_freq"),
        ({"num_experts": 8, "num_experts_per_tok": 2, "moe_layers_enum": "1,²," + "9" * 3000}, None),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 1e308}}, "rope_scaling.factor"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": float("inf")}}, "rope_scaling.factor"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": "4"}}, "rope_scaling.factor"),
        ({"rope_scaling": {"rope_type": ["yarn"], "factor": 4}}, None),
        ({"rope_theta": float("inf")}, "rope_theta"),
        ({"partial_rotary_factor": float("nan")}, "partial_rotary_factor"),
        ({"quantization_config": "fp8"}, "quantization_config"),
        ({"quantization_config": ["fp8"]}, "quantization_config"),
        ({"quantization_config": {"quant_method": {}}}, None),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 10**20}}, "group_size"),
        ({"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"g": 7}}}, "config_groups"),
        ({"block_configs": [{"attention": {"n_heads_in_group": 0.5}, "ffn": {}}]}, "block_configs[0]"),
        ({"block_configs": [{"attention": {"no_op": True}, "ffn": {"ffn_mult": 1e308}}]}, "ffn_mult"),
        ({"block_configs": [{"attention": {}}] * 4000}, "block_configs"),
        ({"vision_config": {"depth": 10**9, "hidden_size": 8, "num_heads": 1, "patch_size": 1}}, None),
        ({"id2label": 7}, None),
    ],
)
def test_a_config_that_makes_no_sense_is_an_error_that_names_the_key(change, key):
    begin = time.process_time()
    try:
        model_info.describe({**QWEN, **change})
        assert key is None
    except ConfigError as error:
        assert key is None or key in str(error), str(error)
        assert len(str(error)) < 1000
    assert time.process_time() - begin < 2


@pytest.mark.parametrize(
    "pattern",
    [
        "re:(a+)+$",
        "re:(.*a){20}$",
        "re:(?:x?){50}x{50}",
        "re:.*.*.*.*.*.*.*.*x",
        "re:([a-z]+)*$",
        "re:(a|aa)+$",
        "re:\\w+\\w+\\w+\\w+\\w+x",
        "re:(.)\\1*x",
        "re:(",
        "re:[",
        "re:a{1000000000}",
        "re:" + "a?" * 5000,
        "*a*a*a*a*a*a*a*b",
    ],
)
def test_a_pattern_that_runs_for_years_is_refused(pattern):
    quantization = {"quant_method": "compressed-tensors", "ignore": ["lm_head", pattern]}
    quantization["config_groups"] = {"g": {"weights": {"num_bits": 8, "type": "float"}, "targets": ["Linear"]}}
    begin = time.process_time()
    with pytest.raises(ConfigError, match="ignore"):
        model_info.describe({**QWEN, "quantization_config": quantization})
    assert time.process_time() - begin < 2


def test_many_slow_patterns_are_refused_together_and_those_in_use_pass():
    def ignoring(patterns):
        quantization = {"quant_method": "compressed-tensors", "ignore": patterns}
        quantization["config_groups"] = {"g": {"weights": {"num_bits": 8, "type": "float"}, "targets": ["Linear"]}}
        return model_info.describe({**QWEN, "quantization_config": quantization})

    with pytest.raises(ConfigError, match="tried faster"):
        ignoring([f"re:.*{number}.*{number}.*x" for number in range(50)])
    usual = ["re:.*lm_head", "re:.*self_attn.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*", "re:^(?!.*experts).*$"]
    usual += ["re:model\\.layers\\.[0-9]+\\.mlp\\.gate$", "*.vision.*", "re:vision_tower.*"]
    begin = time.process_time()
    assert ignoring(usual + [f"model.layers.{n}.self_attn.q_proj" for n in range(20_000)])["parameters"]
    assert time.process_time() - begin < 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xef\xbb\xbf{}", "no JSON"),
        (b"\xff\xfe{\x00}\x00", "not in UTF-8"),
        (b"{", "no JSON"),
        (b"[" * 10**6, "nests deeper"),
        (b'{"a":' * 10**5 + b"1" + b"}" * 10**5, "nests deeper"),
        (b'{"num_hidden_layers": ' + b"9" * 5000 + b"}", "5000 digits"),
        (b'{"architectures": ["\\ud800"]}', "surrogate"),
        (b"[1, 2]", "JSON object"),
        (b"null", "JSON object"),
        (json.dumps(QWEN).replace('"hidden_size": 3584', '"hidden_size": 1e400').encode(), "hidden_size"),
        (b" " * (101 << 20), "longer than"),
        (None, "no regular file"),
    ],
)
def test_a_file_that_is_no_config_is_one_clear_error(content, words, tmp_path):
    path = tmp_path / "config.json"
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    options = dict.fromkeys(("model", "revision", "config", "hf_quant_config", "endpoint", "token"))
    options.update(path=str(tmp_path), hub="local", strict=False, timeout=5)
    begin = time.process_time()
    with pytest.raises((ConfigError, model_info.ModelInfoError)) as caught:
        model_info_module.model_info(options)
    assert words in str(caught.value) and len(str(caught.value)) < 1000
    assert time.process_time() - begin < 3


def test_a_directory_of_a_model_may_hold_anything(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    (tmp_path / "nowhere").symlink_to("/nowhere")
    (tmp_path / "itself").symlink_to("itself")
    os.mkfifo(tmp_path / "x.safetensors")
    options = dict.fromkeys(("model", "revision", "config", "hf_quant_config", "endpoint", "token"))
    options.update(path=str(tmp_path), hub="local", strict=False, timeout=5)
    with pytest.raises(safetensors.SafetensorsError, match=r"x\.safetensors is no regular file"):
        model_info_module.model_info(options)
    (tmp_path / "x.safetensors").unlink()
    assert model_info_module.model_info(options)["files"] == 1


@pytest.mark.parametrize(
    "index",
    [
        b"[]",
        b'{"weight_map": []}',
        b'{"weight_map": {"a": 7}}',
        b'{"weight_map": {"a": "../../etc/passwd"}}',
        b"[" * 9999,
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(index, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_bytes(index)
    with pytest.raises(safetensors.SafetensorsError):
        safetensors.read_directory(str(tmp_path))


# --- logs, metrics, processes, labels ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unit", ["(", "a", "1", "1.1", "a.", "args: Namespace(\n", "Free memory on device (", "NCCL INFO "]
)
def test_a_log_of_200_kilobytes_is_read_at_once(unit):
    begin = time.process_time()
    _engine_log.parse((unit * 200_000)[:200_000], 1)
    assert time.process_time() - begin < 4


def test_no_pattern_of_the_log_repeats_without_end():
    patterns = [cause.pattern for cause in _engine_log.CAUSES]
    for value in vars(_engine_log).values():
        for one in value if isinstance(value, tuple) else (value,):
            patterns += [part for part in (one if isinstance(one, tuple) else (one,)) if isinstance(part, re.Pattern)]
    patterns = [pattern.pattern for pattern in patterns if pattern is not _engine_log._REPETITION]
    assert len(patterns) > 60
    for pattern in patterns:
        assert not {"*", "+"} & set(_engine_log._REPETITION.findall(pattern)), pattern


def test_numbers_of_a_log_may_be_absurd_and_its_words_steer_no_terminal():
    lines = [
        "Model loading took " + "9" * 5000 + " GiB and 1.2.3 seconds",
        "GPU KV cache size: ,,, tokens",
        "Maximum concurrency for , tokens per request: 1e400x",
        "Loading safetensors: 5% " + "9" * 5000 + "/" + "9" * 5000,
        "Free memory on device cuda:0 (1.1.1/9" + "9" * 400 + " GiB) on startup",
        "RuntimeError: \x1b]0;owned\x07\u202etxt.exe",
    ]
    found = _engine_log.parse("\n".join(lines), 1)
    assert found["allocated"]["kv_cache_tokens"] is None and found["allocated"]["ranks"] == []
    assert "\x1b" not in found["failure"]["evidence"] and "\u202e" not in found["failure"]["evidence"]


def test_the_log_of_a_container_that_never_stops_printing(tmp_path, monkeypatch, capsys):
    from ansible.module_utils.testing import patch_module_args

    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\ncase $1 in inspect) echo "true 0" ;; logs) exec yes "RuntimeError: x" ;; esac\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with patch_module_args({"container": "chat"}), pytest.raises(SystemExit):
        engine_log_info.main()
    assert json.loads(capsys.readouterr().out)["failure"]["cause"] == "unknown"


@pytest.mark.parametrize("path", ["fifo", "/dev/zero", "directory"])
def test_a_log_that_is_no_file(path, tmp_path, capsys):
    from ansible.module_utils.testing import patch_module_args

    if path == "fifo":
        path = str(tmp_path / "fifo")
        os.mkfifo(path)
    elif path == "directory":
        path = str(tmp_path)
    with patch_module_args({"path": path}), pytest.raises(SystemExit):
        engine_log_info.main()
    assert "no regular file" in json.loads(capsys.readouterr().out)["msg"]


@pytest.mark.parametrize("value", ["1e400", "-1", "1.2.3", "eee", "NaN", "+Inf", "9" * 5000, "-1e308"])
def test_a_sample_that_is_no_count(value):
    assert _metrics.figures(f"vllm:num_requests_running {value}\n")["running"] is None


def test_a_process_may_call_itself_anything(monkeypatch, tmp_path):
    (tmp_path / "comm").write_bytes(b"\xff\x1b[2J\n")
    real, comm = open, tmp_path / "comm"
    monkeypatch.setattr(_listening.glob, "glob", lambda _pattern: ["/proc/7/fd/3"])
    monkeypatch.setattr(_listening.os, "readlink", lambda _link: "socket:[12]")
    monkeypatch.setattr("builtins.open", lambda path, *a, **k: real(comm if "comm" in str(path) else path, *a, **k))
    assert _listening.processes_by_inode() == {"12": ("\ufffd\ufffd[2J", 7)}


@pytest.mark.parametrize("url", ["", "x", "http://h", "http://h:port", "http://h:" + "9" * 5000])
def test_a_label_that_is_no_address_is_shown_without_a_port(url):
    container = {
        "name": "c",
        "ours": True,
        "labels": {"service": "s", "url": url},
        "running": False,
        "status": "exited",
        "exit_code": 0,
        "seconds": 0,
        "image": "i",
        "restarts": 0,
    }
    assert _service_status.status({"h": {"containers": {"c": container}}}, [])["services"][0]["port"] is None


# --- endpoints --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["file:///etc", "ftp://127.0.0.1", "data:,x", "/etc/passwd", "", "http:///x"])
def test_an_address_that_is_no_server_is_not_opened(url):
    reply = _inference_check.Endpoint(url, timeout=1).get("/passwd")
    assert reply.status == 0 and reply.error and not reply.text


EVENT = b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'


@pytest.mark.parametrize(
    ("pieces", "wait"),
    [
        ([OK, b"X-Header: a\r\n"], 0.01),
        ([OK + b"\r\n", b"x"], 0.01),
        ([OK + b"\r\n", b"x" * 65536], 0),
        ([OK + b"\r\n", EVENT], 0),
        ([OK + b"\r\n", b"data: " + b"x" * 65536], 0),
        ([OK + b"\r\ndata: " + b"[" * 100_000 + b"\n", b""], 0),
        ([OK + b"\r\ndata: \xff\n", b""], 0),
        ([OK + b"\r\n", EVENT], 0.01),
        ([b"HTTP/1.1 " + b"9" * 70_000, b""], 0),
        ([b"HTTP/1.1 -1 x\r\n\r\n", b""], 0),
        ([b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", b""], 0),
    ],
)
def test_an_endpoint_that_never_ends_or_never_makes_sense(pieces, wait, monkeypatch):
    monkeypatch.setattr(_inference_check, "PATIENCE", 1)
    monkeypatch.setattr(_inference_check, "LONGEST_ANSWER", 1 << 20)
    for ask in ("get", "stream"):
        endpoint = _inference_check.Endpoint(answers(pieces, wait), timeout=0.3)
        begin = time.monotonic()
        if ask == "get":
            reply = endpoint.get("/v1/models")
            assert reply.status in (0, 302) or reply.data is None
        else:
            stream = endpoint.stream("/v1/chat/completions", {})
            assert not stream.done
        assert time.monotonic() - begin < 5


def test_cosines_of_very_small_and_very_large_numbers():
    assert _inference_check.cosine([1e-200, 0.0], [1e-200, 0.0]) == pytest.approx(1)
    assert _inference_check.cosine([1e300, 1e300], [1e300, -1e300]) == pytest.approx(0)
