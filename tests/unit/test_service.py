from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _service
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import ServiceError, normalize_services

QWEN = {"name": "qwen", "model": "Qwen/Qwen2.5-7B-Instruct"}


def one(**keys):
    return normalize_services([dict(QWEN, **keys)])[0]


def test_a_name_and_a_model_are_a_whole_declaration():
    service = one()
    assert set(service) == set(_service.SCHEMA)
    assert (service["hub"], service["state"], service["accelerator"], service["engine"]) == (
        "modelscope",
        "started",
        "cuda",
        "vllm",
    )
    assert service["served_model_name"] == "qwen"
    assert service["max_model_len"] is None and service["port"] is None and service["hosts"] == []


def test_defaults_apply_only_where_the_service_is_silent():
    services = normalize_services(
        [QWEN, dict(QWEN, name="other", accelerator="cuda")],
        {"accelerator": "cpu", "hub": "huggingface", "objective": None},
    )
    assert [service["accelerator"] for service in services] == ["cpu", "cuda"]
    assert services[0]["hub"] == "huggingface"
    assert services[0]["objective"] == "throughput"


def test_services_do_not_share_default_containers():
    first, second = normalize_services([QWEN, dict(QWEN, name="other")])
    first["options"]["seed"] = 1
    assert second["options"] == {} and one()["options"] == {}


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ({"port": "8001"}, "port", 8001),
        ({"host": "gpu1"}, "hosts", ["gpu1"]),
        ({"max_model_len": "32k"}, "max_model_len", 32000),
        ({"max_model_len": "32K"}, "max_model_len", 32768),
        ({"max_model_len": "auto"}, "max_model_len", "auto"),
        ({"dtype": "half"}, "dtype", "float16"),
        ({"dtype": "auto"}, "dtype", None),
        ({"gpus": ["0", "GPU-1"]}, "gpus", [0, "GPU-1"]),
        ({"parameters": "671B"}, "parameters", 671 * 10**9),
        ({"env": {"A": 1, "B": True}}, "env", {"A": "1", "B": "true"}),
        ({"options": {"--max_num_seqs": 64}}, "max_num_seqs", 64),
        ({"options": {"tp": 4}}, "tensor_parallel_size", 4),
        ({"options": {"limit_mm_per_prompt": {"image": 5}}}, "options", {"limit-mm-per-prompt": {"image": 5}}),
        ({"options": {"tensor-parallel-size": 2}, "tensor_parallel_size": 2}, "tensor_parallel_size", 2),
    ],
)
def test_spellings(given, key, value):
    assert one(**given)[key] == value


def test_path_alone_is_a_local_model():
    service = normalize_services([{"name": "own", "path": "/data/models/own"}])[0]
    assert (service["hub"], service["model"], service["path"]) == ("local", "/data/models/own", "/data/models/own")


def test_the_demo_model_needs_no_model_id():
    assert normalize_services([{"name": "demo", "hub": "generated"}])[0]["model"] == "inferops/tiny-random-qwen2"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tensor_paralel_size": 2}, "unknown key 'tensor_paralel_size', did you mean 'tensor_parallel_size'?"),
        ({"zzz": 2}, "unknown key 'zzz', or options: {zzz: …}"),
        ({"port": 70000}, "port is 70000, wanted a whole number from 1 to 65535"),
        ({"port": True}, "port is True, wanted"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size is 0"),
        ({"tensor_parallel_size": 1.5}, "tensor_parallel_size is 1.5"),
        ({"gpu_memory_utilization": 90}, "gpu_memory_utilization is 90, wanted a share"),
        ({"gpus": 2}, "gpus is 2, wanted a list of GPU indexes or UUIDs"),
        ({"gpus": [0, 0]}, "no GPU stands twice"),
        ({"gpus": [0, 1, 2], "tensor_parallel_size": 2}, "gpus names 3 GPUs"),
        ({"hub": "github"}, "hub is 'github', wanted one of modelscope"),
        ({"hub": "local"}, "path must name"),
        ({"max_model_len": "long"}, "max_model_len is 'long'"),
        ({"max_model_len": -1}, "max_model_len is -1"),
        ({"host": "a", "hosts": ["b"]}, "either host or hosts"),
        ({"options": [1]}, "options is [1], wanted a mapping"),
        ({"options": {"tensor-parallel-size": 4}, "tensor_parallel_size": 2}, "give one of them"),
        ({"options": {"data-parallel-size": 4}}, "set the service's key `replicas`"),
        ({"options": {"seed": 1, "--seed": 2}}, "seed is given twice"),
        ({"name": "with space"}, "wanted letters, digits"),
        ({"accelerator": "cpu", "gpus": [0]}, "gpus makes no sense with accelerator cpu"),
    ],
)
def test_refusals(given, message):
    with pytest.raises(ServiceError) as error:
        one(**given)
    assert message in str(error.value)


def test_every_problem_is_reported_at_once():
    with pytest.raises(ServiceError) as error:
        normalize_services([dict(QWEN, prt=1, port="x"), {"model": "m"}, "text"])
    assert len(error.value.problems) == 4


@pytest.mark.parametrize("services", [None, "qwen", {"name": "qwen"}])
def test_not_a_list(services):
    with pytest.raises(ServiceError, match="wanted a list"):
        normalize_services(services)


def test_names_are_unique():
    with pytest.raises(ServiceError, match="two services have the name 'qwen'"):
        normalize_services([QWEN, QWEN])


def test_one_port_on_one_host_names_both():
    pair = [dict(QWEN, name="a", port=8000, host="gpu1"), dict(QWEN, name="b", port=8000, host="gpu1")]
    with pytest.raises(ServiceError, match="'a' and 'b' both want port 8000 on host gpu1"):
        normalize_services(pair)
    pair[1]["host"] = "gpu2"
    assert len(normalize_services(pair)) == 2


def test_the_page_names_every_key():
    page = (Path(__file__).resolve().parents[2] / "docs/services.md").read_text(encoding="utf-8")
    for key in _service.SCHEMA:
        assert f"| `{key}` |" in page


@pytest.mark.parametrize("suffix", [".previous", ".candidate", ".failed"])
def test_the_names_of_containers_beside_a_service_are_reserved(suffix):
    with pytest.raises(ServiceError, match=f"name is 'qwen{suffix}'"):
        one(name="qwen" + suffix)
    assert one(name="qwen" + suffix + "-2")["name"]


@pytest.mark.parametrize(
    ("replicas", "other", "fits"),
    [
        (None, "qwen-1", False),  # the plan may make several
        (2, "qwen-1", False),
        (2, "qwen-0", False),
        (2, "qwen-2", True),
        (1, "qwen-0", True),
        (1, "qwen-1", True),
        (2, "qwen-01", True),
        (None, "qwen-7b", True),
        (None, "qwen2-1", True),
    ],
)
def test_no_service_is_called_as_a_replica_of_another(replicas, other, fits):
    services = [dict(QWEN, replicas=replicas), dict(QWEN, name=other)]
    if fits:
        assert len(normalize_services(services)) == 2
        return
    with pytest.raises(ServiceError, match=f"service '{other}' is called as replica . of service 'qwen'"):
        normalize_services(services)
    assert normalize_services([services[0], dict(services[1], state="absent")])
