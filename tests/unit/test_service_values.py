"""What an operator, or a model's listing, writes stays data: no option, no second field, no line, no shell."""

from __future__ import annotations

import json

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.inferops.gpu_host.plugins.filter import peers, service_work
from ansible_collections.inferops.gpu_host.plugins.filter.planning import _known_models
from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_weights, _placements
from ansible_collections.inferops.gpu_host.plugins.module_utils import _service_values as values
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.plan import PlanError, plan
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import ServiceError, normalize_services

QWEN = {"name": "qwen", "model": "Qwen/Qwen2.5-7B-Instruct"}


def refusal(**keys):
    with pytest.raises(ServiceError) as error:
        normalize_services([dict(QWEN, **keys)])
    (problem,) = error.value.problems
    return problem


@pytest.mark.parametrize(
    ("key", "bad", "wanted"),
    [
        *(
            ("path", bad, "absolute path")
            for bad in (
                "--trust-remote-code",
                "models/qwen",
                "~/models",
                "/data/../etc/shadow",
                "/data/models:/etc:rw",
                "/data/a\nb",
                "/data/a\x1b[2J",
                "/data/\x00",
                "/data/\u2028x",
            )
        ),
        *(("path", bad, "directory of a model") for bad in ("/", "//", "/etc", "/proc/1/root", "/dev/shm/x", "/usr/")),
        *(
            ("revision", bad, "a branch, a tag")
            for bad in ("--force", "a/../b", "a b", "x?y=1", "/main", "a\nb", "v1..2")
        ),
        *(
            ("image", bad, "an image such as")
            for bad in (
                "--privileged",
                "vllm:latest --rm",
                "a/UPPER",
                "a@sha256:12",
                "x:y:z",
                "img\nx",
                "a/b:t;id",
                "http://a/b",
            )
        ),
        *(
            ("bind_address", bad, "an IP address")
            for bad in (
                "127.0.0.1:80",
                "[::1]",
                "0.0.0.0; id",
                "a b",
                "$(id)",
                "'; id; '",
                "http://x",
                "127.1",
                "0177.0.0.1",
                "fe80::1%eth0",
                "-h",
                "10.0.0.0/8",
                "1.2.3.4.5",
                "\n",
            )
        ),
        *(("served_model_name", bad, "a line of text") for bad in ("--x", "a\nb", "x" * 2000, "", "a\x7f")),
        *(("engine_version", bad, "a version") for bad in ("latest; id", "--x", "main", "0.26.0 ", "0.26\n.0")[:3]),
        *(("quantization", bad, "a method") for bad in ("--fp8", "a b", "fp8;id")),
        *(("kv_cache_dtype", bad, "a method") for bad in ("-x", "fp8 x")),
        *(("hosts", bad, "a list of names") for bad in (["-x"], ["a\nb"])),
        *(("gpus", bad, "a list of GPU indexes") for bad in ([-2], ["GPU 1"], ["GPU-1,all"], ["$(id)"], [10**9])),
        *(("port", bad, "a whole number") for bad in ("9" * 5000, "8000; id", 1.5, "８０００")),
        *(("parameters", bad, "a number of parameters") for bad in (float("inf"), float("nan"), "9" * 400, "1e400")),
        *(("max_model_len", bad, "a number of tokens") for bad in ("9" * 5000, float("inf"), "1e9")),
        ("env", {"A=B": "1"}, "'A=B' is no name"),
        ("env", {"": "1"}, "is no name"),
        ("env", {"A": "x\0y"}, "holds a NUL"),
        ("env", {"VLLM_API_KEY": "sk-1"}, "its `api_key`"),
        ("options", {"seed\n--api-key": 1}, "is no name of an option"),
        ("options", {"a=b": 1}, "is no name of an option"),
        ("options", {"chat-template": "x\0"}, "holds a NUL"),
        ("options", {"config": "/etc/passwd"}, "write under options what that file holds"),
        ("options", {"hostname": "0.0.0.0"}, "`bind_address`"),
        ("options", {"host": "a b"}, "an IP address"),
        ("options", {"revision": "--x"}, "a branch, a tag"),
        ("container", {"image": "x"}, "set by image of the service"),
        ("container", {"ports": ["1:1"]}, "set by port and bind_address"),
        ("container", {"volumes": "/a:/b"}, "volumes is a list"),
        ("container", {"volumes": ["../a:/b"]}, "absolute path or a volume's name"),
        ("container", {"volumes": ["/a:b"]}, "/HOST:/CONTAINER"),
        ("container", {"volumes": ["/a:/b:ro:/c"]}, "/HOST:/CONTAINER"),
        ("container", {"devices": ["-x"]}, "leading dashes"),
        ("container", {"env": {"A": None}}, "not a string"),
        ("container", {"labels": {"io.github.inferops.service": "other"}}, "knows its own"),
        ("container", {"Bad Key": 1}, "arguments of docker_container"),
    ],
)
def test_what_could_become_something_else_is_refused(key, bad, wanted):
    problem = refusal(**{key: bad})
    assert problem.startswith("service 'qwen': " + key)
    assert wanted in problem
    assert "\n" not in problem and "\x1b" not in problem and len(problem) < 1500


@pytest.mark.parametrize(
    "bad",
    [
        *(
            "../../etc",
            "Qwen/..",
            "--local-dir=/etc",
            "Qwen/--include",
            "-Qwen/x",
            "a/b/c",
            "/data/models/x",
            "Qwen/a b",
        ),
        *("Qwen/a?b", "a//b", "/b", "a/", "Qwen/.git", "Qwen/x\ny", "Qwen/x{{ 1 }}", "https://hub/x"),
    ],
)
def test_an_id_of_a_model_is_an_owner_and_a_name(bad):
    problem = refusal(model=bad)
    assert "an id such as Qwen/Qwen2.5-7B-Instruct" in problem and "\n" not in problem


@pytest.mark.parametrize(
    ("key", "good"),
    [
        ("path", "/data/模型/Qwen 7B (v1)"),
        ("path", "/root/models/x/"),
        ("model", "gpt2"),
        ("model", "AI-ModelScope/bge_large.zh-v1.5"),
        ("revision", "refs/pr/1"),
        ("revision", "v1.0.2-rc1+2"),
        ("image", "vllm/vllm-openai:v0.33.0"),
        ("image", "registry.example:5000/a/b__c-d:T_1.2@sha256:" + "0" * 64),
        ("image", "qwenllm/qwenvl:2.5-cu121"),
        ("image", "vllm"),
        ("bind_address", "::1"),
        ("bind_address", "gpu1.example"),
        ("bind_address", "localhost"),
        ("served_model_name", "模型 7B"),
        ("gpus", [0, "3", "GPU-aa-1", "MIG-1/2/3"]),
        ("engine_version", "v0.6.4.post1"),
        ("container", {"volumes": ["/a:/b:ro", "cache:/c"], "network_mode": "host", "shm_size": "1g"}),
        ("options", {"hf-overrides.rope_parameters.factor": 2, "--max_num_seqs": 4, "chat-template": "{{ x }}\n"}),
        ("api_key", "sk-0123456789_-~/+="),
    ],
)
def test_what_is_meant_so_passes(key, good):
    (service,) = normalize_services([dict(QWEN, **{key: good})])
    assert service[key] or key == "options"


@pytest.mark.parametrize("key", ["two words", "line\nline", "clé", "", "-x", 12345678, {"a": 1}, ["sk-planted"]])
def test_a_key_that_is_wrong_is_not_shown(key):
    for declared in ({"api_key": key}, {"options": {"--api_key": key}}):
        problem = refusal(**declared)
        assert (
            "not shown" in problem and "planted" not in problem and "12345678" not in problem and "two" not in problem
        )


def test_a_secret_in_a_mapping_that_is_wrong_elsewhere_is_not_shown():
    problem = refusal(env={"HF_TOKEN": "hf_planted", "bad name": "x"})
    assert "'bad name' is no name" in problem and "hf_planted" not in problem


def test_two_keys_are_a_contradiction_that_shows_neither():
    problem = refusal(api_key="sk-one", options={"api-key": "sk-two"})
    assert "sk-" not in problem and "give one of them" in problem


def test_wanted_open_is_said_in_any_case():
    assert [normalize_services([dict(QWEN, api_key=word)])[0]["api_key"] for word in ("none", "None")] == ["none"] * 2


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST"])
def test_loopback_is_out_of_reach(address):
    assert values.is_loopback(address)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.1", "localhost.example", None, ""])
def test_everything_else_is_in_reach(address):
    assert not values.is_loopback(address)


@pytest.mark.parametrize(
    ("key", "weak"), [("short", True), ("a" * 64, True), ("k3y-of-a-person-who-thinks-32-cha", False)]
)
def test_weak_keys(key, weak):
    assert bool(values.weak(key)) is weak


CONFIG = json.loads(
    '{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": 2,'
    '"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 1024,'
    '"max_position_embeddings": 4096, "torch_dtype": "bfloat16"}'
)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"options": {"max-modl-len": 1}}, ["options.max-modl-len", "did you mean max-model-len?"]),
        ({"options": {"master-addr": "x"}, "engine_version": "0.9.2"}, ["options.master-addr", "vLLM 0.9.2"]),
        ({"quantization": "int4"}, ["quantization is 'int4'", "awq", "Leave it out"]),
        ({"quantization": "aqw"}, ["did you mean 'awq'?"]),
        ({"max_model_len": 10**6}, ["max_model_len is 1000000", "4096", "VLLM_ALLOW_LONG_MAX_MODEL_LEN"]),
    ],
)
def test_what_the_engine_refuses_is_said_by_the_plan(declared, words):
    hosts = [{"name": "g1", "gpus": {"model": "H100", "count": 8}}]
    with pytest.raises(PlanError) as error:
        plan([dict(QWEN, config=CONFIG, **declared)], hosts)
    for word in words:
        assert word in str(error.value)
    assert len(error.value.problems) == 1


def test_an_image_whose_version_nobody_knows_may_have_options_of_any_version():
    hosts = [{"name": "g1", "gpus": {"model": "H100", "count": 8}}]
    declared = dict(QWEN, config=CONFIG, options={"master-addr": "x"}, image="registry.example/own:latest")
    assert plan([declared], hosts)["problems"] == []
    assert plan([dict(declared, max_model_len=8192, env={"VLLM_ALLOW_LONG_MAX_MODEL_LEN": 1})], hosts)["services"]


# The sort of inventory that newcomers write: one error, in words, from the filters and modules that read it.

GPUS = [{"name": "g1", "gpus": {"model": "H100", "count": 8}}]


@pytest.mark.parametrize(
    ("services", "words"),
    [
        (["Qwen/Qwen3-8B"], "service 1 is a str, wanted a mapping with name and model"),
        ([None], "service 1 is a NoneType"),
        ([["a"]], "service 1 is a list"),
        ([{"model": "Qwen/Qwen3-8B"}], "service 1: name is missing"),
        ([{"name": 7, "model": "Qwen/Qwen3-8B"}], "name is 7, wanted letters"),
        ([dict(QWEN, gpus="0,1")], "gpus is '0,1', wanted a list"),
        ([dict(QWEN, container={"image": "x"})], "set by image of the service"),
        ([dict(QWEN, config="/nonexistent/config.json")], "config is '/nonexistent/config.json', wanted a mapping"),
        ([dict(QWEN, engine="sglang")], "wanted one of vllm, text_embeddings_inference"),
        ([{"name": "客服", "model": "Qwen/Qwen3-8B"}], "name is '客服', wanted letters"),
    ],
)
def test_bad_inventories_end_in_one_error(services, words):
    assert isinstance(_known_models(services, [{"item": services[0], "msg": "x"}], {}), dict)
    with pytest.raises((ServiceError, PlanError)) as error:
        plan(services, GPUS)
    assert words in str(error.value) and len(error.value.problems) == 1


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (
            lambda: _placements.image_of(normalize_services([QWEN])[0], {"cuda": "x --rm"}),
            "inference_images: cuda is 'x --rm'",
        ),
        (lambda: service_work._paths({"models": "/data:/etc"}), "the directory for models is '/data:/etc'"),
        (lambda: complete([{"model": "a/b", "url": "file:///etc", "source": "url"}]), "url wanted an address such as"),
        (lambda: complete([{"model": "../b"}]), "model is '../b', wanted an id"),
        (lambda: complete([{"model": "a/b", "directory": "/data/../etc"}]), "directory is '/data/../etc'"),
        (lambda: complete([{"model": "a/b", "include": ["--local-dir=/"]}]), "include is ['--local-dir=/']"),
        (lambda: peers._ray_group({"name": "-x", "hosts": ["a"], "image": "ray"}), "ray_cluster_name is '-x'"),
        (
            lambda: peers._ray_group({"name": "x", "hosts": ["a"], "image": "ray --rm"}),
            "ray_cluster_image is 'ray --rm'",
        ),
        (
            lambda: peers._ray_group({"name": "x", "hosts": ["a"], "image": "ray", "address": "h;id:6379"}),
            "ray_cluster_address is 'h;id:6379'",
        ),
        (
            lambda: peers._ray_group({"name": "x", "hosts": ["a"], "image": "ray", "volumes": ["a:b:c:d"]}),
            "ray_cluster_volumes is ['a:b:c:d']",
        ),
    ],
)
def test_variables_of_roles_are_values_too(read, words):
    with pytest.raises((ServiceError, AnsibleFilterError, _model_weights.ModelError)) as error:
        read()
    assert words in str(error.value)


def complete(models):
    return _model_weights.complete_models(models, "/data/models")
