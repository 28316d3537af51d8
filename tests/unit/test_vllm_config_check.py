"""What is made of vLLM's own judgement. The outputs are those of vLLM 0.32 in its CPU image."""

from __future__ import annotations

import json

from ansible_collections.inferops.gpu_host.plugins.module_utils import _vllm_config_check
from ansible_collections.inferops.gpu_host.plugins.module_utils._vllm_config_check import SIGN, judged

BEFORE = "W1121 11:49:22.633000 1 torch/_library/triton.py:53] Triton not available, find_triton_kernels = []\n"


def looked(model=""):
    return BEFORE + SIGN + json.dumps({"options": True, "model": model}) + "\n"


def test_good():
    assert judged(0, looked()) == {
        "ok": True,
        "checked": ["options", "model"],
        "problem": "",
        "advice": "",
        "note": "",
    }


def test_an_option_that_the_parser_refuses():
    output = (
        "usage: vllm [-h] [-v]\n            {chat,complete,serve}\n            ...\n"
        "vllm: error: unrecognized arguments: --max-modl-len 12\n"
    )
    verdict = judged(2, BEFORE + output)
    assert not verdict["ok"] and "--max-modl-len 12" in verdict["problem"]


def test_a_context_that_the_model_does_not_have():
    model = (
        "ValidationError: 1 validation error for ModelConfig\n  Value error, User-specified max_model_len (99999) is "
        "greater than the derived max_model_len (max_position_embeddings=2048.0 or model_max_length=None in model's "
        "config.json). To allow overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1."
    )
    verdict = judged(0, looked(model))
    assert not verdict["ok"]
    assert verdict["advice"] == "set max_model_len to 2048 or less"


def test_what_only_lacks_a_gpu_is_no_refusal():
    verdict = judged(0, looked("RuntimeError: Failed to infer device type\nmore"))
    assert verdict["ok"] and verdict["checked"] == ["options"]
    assert "Failed to infer device type" in verdict["note"]


def test_an_image_that_cannot_be_asked_is_no_refusal():
    verdict = judged(125, "Unable to find image 'x:1' locally\ndocker: Error response from daemon: no such image.\n")
    assert verdict["ok"] and verdict["checked"] == [] and "no such image" in verdict["note"]


def test_the_script_is_python():
    compile(_vllm_config_check.SCRIPT, "script", "exec")


def test_what_reads_a_model_may_do_nothing_else():
    config = _vllm_config_check.host_config(["/data/m:/data/m", "/c:/root/.cache/vllm:z", "/x:/x:ro"])
    assert config["Binds"] == ["/data/m:/data/m:ro", "/c:/root/.cache/vllm:ro,z", "/x:/x:ro"]
    assert config["NetworkMode"] == "none" and config["CapDrop"] == ["ALL"] and config["PidsLimit"] > 0
    assert config["SecurityOpt"] == ["no-new-privileges:true"]
