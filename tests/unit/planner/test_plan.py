from __future__ import annotations

import copy

import pytest
from planning import BGE_M3, PUBLISHED, QWEN_7B, QWEN_14B, QWEN_32B, RERANKER, hosts, indexes, service, shape

from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.fleet import FleetError
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.plan import PlanError, plan
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import ServiceError
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB


def only(services, fleet, **keys):
    planned = plan(services, fleet, **keys)
    assert planned["problems"] == []
    return planned["services"][0]


def problem(services, fleet, **keys):
    planned = plan(services, fleet, **keys)
    assert len(planned["problems"]) == 1
    return planned["problems"][0]


# Objectives


def test_throughput_prefers_replicas_where_one_gpu_is_enough():
    entry = only([service()], hosts("H100", 4))
    assert shape(entry) == (1, 1, 4)
    assert [placement["port"] for placement in entry["placements"]] == [8000, 8001, 8002, 8003]


def test_latency_prefers_width_where_nvlink_joins_the_gpus():
    assert shape(only([service(QWEN_32B, objective="latency")], hosts("H100", 4))) == (4, 1, 1)


def test_fewest_gpus_takes_no_more_than_serve():
    assert shape(only([service(objective="fewest_gpus")], hosts("H100", 4))) == (1, 1, 1)
    assert shape(only([service(QWEN_32B, objective="fewest_gpus")], hosts("RTX-4090", 8)))[:2] in ((4, 1), (2, 2))


def test_wanted_requests_need_more_gpus():
    few = only([service(objective="fewest_gpus", concurrency=4)], hosts("L4", 8))
    many = only([service(objective="fewest_gpus", concurrency=30)], hosts("L4", 8))
    assert len(few["placements"]) * shape(few)[0] * shape(few)[1] < len(many["placements"]) * 8
    assert many["estimate"]["max_concurrency"] * shape(many)[2] >= 30


def test_pipeline_stages_cross_hosts_and_tensor_parallelism_does_not():
    entry = only([service("meta-llama/Llama-3.1-70B-Instruct")], hosts("T4", 4, 4))
    assert entry["layout"]["tensor_parallel_size"] <= 4
    assert all(len(gpus) == 4 for _host, gpus in indexes(entry)[0])
    assert [node["node_rank"] for node in entry["placements"][0]["nodes"]] == [0, 1, 2, 3]


def test_every_alternative_has_its_reason_and_numbers():
    entry = only([service(QWEN_32B)], hosts("H100", 4))
    assert entry["rejected"]
    for item in entry["rejected"]:
        assert item["reason"]
        assert item["verdict"] == "refused" or item["numbers"]["ranks"][0]["weights"] > 0


# What the operator fixes


@pytest.mark.parametrize(
    "keys",
    [
        {"tensor_parallel_size": 2},
        {"pipeline_parallel_size": 2, "tensor_parallel_size": 1},
        {"replicas": 3},
    ],
)
def test_fixed_sizes_are_kept(keys):
    layout = only([service(**keys)], hosts("H100", 4))["layout"]
    assert {key: layout[key] for key in keys} == keys


def test_fixed_share_length_dtype_and_port_are_kept():
    fixed = {"gpu_memory_utilization": 0.5, "max_model_len": 2048, "dtype": "float16", "port": 9000, "replicas": 1}
    entry = only([service(**fixed)], hosts("H100", 4))
    engine = entry["engine"]
    assert (engine["gpu_memory_utilization"], engine["max_model_len"], engine["dtype"]) == (0.5, 2048, "float16")
    assert entry["placements"][0]["port"] == 9000


def test_named_gpus_by_index_and_uuid():
    fleet = [{"name": "a", "gpus": [{"model": "L4", "uuid": f"GPU-{i}"} for i in range(4)]}]
    assert indexes(only([service(gpus=[2])], fleet)) == [[("a", [2])]]
    assert indexes(only([service(gpus=["GPU-3", "GPU-1"], tensor_parallel_size=2)], fleet)) == [[("a", [1, 3])]]
    assert "no host has all the GPUs [7]" in problem([service(gpus=[7])], fleet)


def test_named_hosts():
    entry = only([service(hosts=["h1"])], hosts("L4", 1, 3))
    assert {placement["nodes"][0]["host"] for placement in entry["placements"]} == {"h1"}


@pytest.mark.parametrize(
    ("keys", "fleet", "message"),
    [
        (
            {"tensor_parallel_size": 3},
            hosts("H100", 4),
            "attention heads (28) must be divisible by tensor parallel size (3)",
        ),
        ({"tensor_parallel_size": 16}, hosts("H100", 8, 2), "use tensor_parallel_size 8 and pipeline_parallel_size 2"),
        ({"dtype": "bfloat16"}, hosts("T4", 4), "compute capability of at least 8.0, this one has 7.5: use float16"),
        ({"max_model_len": 32768, "tensor_parallel_size": 1}, hosts("T4", 1), "do not fit"),
        ({"gpu_memory_utilization": 0.1}, hosts("L4", 1), "no memory is left for the KV cache"),
        ({}, hosts("V100-32GB", 1), "compute capability 7; images of vLLM 0.33.0 need 7.5"),
        ({}, [{"name": "a"}], "no GPU in the fleet"),
        ({"replicas": 5}, hosts("L4", 4), "needs 5 × L4"),
    ],
)
def test_what_cannot_be_is_refused_with_what_would_work(keys, fleet, message):
    assert message in problem([service(**keys)], fleet)


def test_an_old_card_runs_with_an_image_of_the_operator():
    assert shape(only([service(image="old:0.8", engine_version="0.8.5")], hosts("V100-32GB", 1)))[0] == 1


def test_float16_where_there_is_no_bfloat16():
    assert only([service(max_model_len=2048)], hosts("T4", 2))["layout"]["dtype"] == "float16"
    assert only([service()], hosts("L4", 1))["layout"]["dtype"] == "bfloat16"


# Length


def test_auto_is_the_longest_that_leaves_the_wanted_requests():
    one = only([service("meta-llama/Llama-3.1-8B-Instruct", max_model_len="auto")], hosts("L4", 1))
    four = only([service("meta-llama/Llama-3.1-8B-Instruct", max_model_len="auto", concurrency=4)], hosts("L4", 1))
    assert one["engine"]["max_model_len"] < 131072
    assert one["estimate"]["max_concurrency"] >= 1
    assert 0 < four["engine"]["max_model_len"] < one["engine"]["max_model_len"] / 3
    assert four["estimate"]["max_concurrency"] >= 4


def test_a_context_that_does_not_fit_is_cut_only_when_nobody_asked_for_it():
    entry = only([service("meta-llama/Llama-3.1-8B-Instruct")], hosts("L4", 1))
    assert entry["engine"]["max_model_len"] < 131072 and "the context is cut" in entry["reason"]
    message = problem([service("meta-llama/Llama-3.1-8B-Instruct", max_model_len=131072)], hosts("L4", 1))
    assert "the longest context that fits is" in message


# Several services


def shares(planned):
    by_name = {entry["name"]: entry["engine"].get("gpu_memory_utilization", 0) for entry in planned["services"]}
    return [sum(by_name[name] for name in row["services"]) for row in planned["gpus"]]


@pytest.mark.parametrize(("gpu", "count"), [("RTX-4090", 1), ("H100", 1), ("L40S", 2), ("H100", 4)])
def test_small_models_share_a_card_with_a_large_one(gpu, count):
    planned = plan([service(BGE_M3), service(RERANKER), service()], hosts(gpu, count))
    assert planned["problems"] == []
    assert max(shares(planned)) <= 1
    pooling = planned["services"][0]
    assert pooling["engine"]["gpu_memory_utilization"] < 0.2
    assert (count == 1) == any(len(row["services"]) == 3 for row in planned["gpus"])


def test_services_that_name_one_gpu_divide_it():
    planned = plan(
        [
            service(gpus=[2]),
            service(QWEN_14B, gpus=[0, 1], tensor_parallel_size=2),
            service(QWEN_32B, gpus=[0, 1, 2, 3], tensor_parallel_size=4),
        ],
        hosts("A100-80GB", 4),
    )
    assert planned["problems"] == [] and max(shares(planned)) <= 1
    assert [indexes(entry)[0][0][1] for entry in planned["services"]] == [[2], [0, 1], [0, 1, 2, 3]]


def test_fixed_shares_that_do_not_add_up_are_refused():
    pair = [service(name=name, gpus=[0], gpu_memory_utilization=0.6) for name in ("a", "b")]
    message = problem(pair, hosts("H100", 1))
    assert "'b'" in message and "goes to a" in message


def test_two_large_services_divide_the_gpus():
    planned = plan([service(name="a"), service(name="b")], hosts("H100", 8))
    assert [shape(entry) for entry in planned["services"]] == [(1, 1, 4), (1, 1, 4)]
    assert all(len(row["services"]) == 1 for row in planned["gpus"])


def test_what_does_not_fit_beside_the_others_says_who_has_the_gpus():
    pair = [service(QWEN_32B, name="big", max_model_len=32768), service(name="small", max_model_len=32768)]
    message = problem(pair, hosts("H100", 1))
    assert "'small'" in message and "goes to big" in message


# Ports


def test_ports_are_unique_on_a_host():
    planned = plan([service(name="a", port=8001), service(name="b"), service(name="c")], hosts("H100", 8))
    ports = [placement["port"] for entry in planned["services"] for placement in entry["placements"]]
    assert len(ports) == len(set(ports)) and 8001 in ports


@pytest.mark.parametrize("accelerator", ["cuda", "cpu"])
def test_one_port_twice_on_the_only_host_names_both(accelerator):
    pair = [service(name=name, port=8000, replicas=1, accelerator=accelerator) for name in ("a", "b")]
    assert "'a' and 'b' both want port 8000 on host h0" in problem(pair, hosts("H100", 8))


@pytest.mark.parametrize("objective", ["throughput", "fewest_gpus"])
def test_one_port_twice_on_two_hosts_is_kept_apart(objective):
    pair = [service(name=name, port=8000, replicas=1, objective=objective) for name in ("a", "b")]
    planned = plan(pair, hosts("H100", 8, 2))
    assert planned["problems"] == []
    assert {entry["placements"][0]["nodes"][0]["host"] for entry in planned["services"]} == {"h0", "h1"}


# Fleets


def test_mixed_gpus_are_never_averaged():
    fleet = [{"name": "a", "gpus": [{"model": "H100", "count": 1}, {"model": "T4", "count": 1}]}]
    entry = only([service(QWEN_14B)], fleet)
    assert (entry["gpu"], shape(entry)) == ("H100-80GB", (1, 1, 1))
    assert not any(item["layout"]["tensor_parallel_size"] > 1 for item in entry["rejected"])


def test_memory_that_others_use_is_not_planned():
    gpu = {"name": "NVIDIA L40S", "memory_total": 46068 * 2**20, "uuid": "GPU-x"}
    free = [dict(gpu, uuid=f"GPU-{i}", memory_free=free) for i, free in enumerate([3 * GIB, 46000 * 2**20])]
    assert indexes(only([service()], [{"name": "a", "gpus": free}])) == [[("a", [1])]]
    part = only([service()], [{"name": "a", "gpus": [dict(gpu, memory_free=30 * GIB)]}])
    assert part["engine"]["gpu_memory_utilization"] * 44.39 <= 30
    assert "needs 1 × L40S" in problem([service()], [{"name": "a", "gpus": free[:1]}])


def test_links_decide_which_gpus_go_together():
    links = {str(a): {str(b): "NODE" if a // 2 == b // 2 else "SYS" for b in range(4) if b != a} for a in range(4)}
    fleet = [{"name": "a", "gpus": [{"model": "T4", "count": 4}], "links": links}]
    busy = service(BGE_M3, gpus=[0], port=8100)
    entry = plan([service(max_model_len=2048, tensor_parallel_size=2, replicas=1), busy], fleet)["services"][0]
    assert indexes(entry) == [[("a", [2, 3])]]


def test_mig_instances_are_gpus_of_their_own():
    size = {"memory_total": 40192 * 2**20, "memory_free": 40000 * 2**20}
    mig = [dict(size, index=index, uuid=f"MIG-{index}") for index in (0, 1)]
    gpu = {"name": "NVIDIA A100-SXM4-80GB", "memory_total": 81920 * 2**20, "mig_enabled": True, "mig_devices": mig}
    entry = only([service()], [{"name": "a", "gpus": [gpu]}])
    assert [node["gpus"][0]["uuid"] for p in entry["placements"] for node in p["nodes"]] == ["MIG-0", "MIG-1"]


def test_a_card_that_the_catalogue_does_not_know():
    fleet = [{"name": "a", "gpus": {"memory": "48 GiB", "compute_capability": 9.5, "name": "X1", "count": 2}}]
    assert only([service()], fleet)["gpu"] == "X1"
    with pytest.raises(FleetError, match="compute_capability is missing"):
        plan([service()], [{"name": "a", "gpus": {"memory": "48 GiB"}}])


@pytest.mark.parametrize(
    ("fleet", "message"),
    [
        ([{"name": "a"}, {"name": "a"}], "two hosts are called 'a'"),
        ([{"name": "a", "gpus": 8}], "gpus holds 8"),
        ([{"name": "a", "gpus": {"model": "H100", "count": -1}}], "gpus.count is -1"),
        ([{"name": "a", "gpus": {"model": "A100"}}], "A100-40GB or A100-80GB"),
        ([{"name": "a", "gpus": {"memory": "much", "compute_capability": 8}}], "memory is 'much'"),
    ],
)
def test_bad_fleets(fleet, message):
    with pytest.raises(FleetError) as error:
        plan([service()], fleet)
    assert message in str(error.value)


# What runs stays


def test_an_unchanged_plan_is_kept():
    services = [service(name="a", replicas=2), service(QWEN_32B, name="b", replicas=1, tensor_parallel_size=2)]
    first = plan(services, hosts("H100", 8))
    # Another service comes first now; what runs does not move for it.
    second = plan([service(name="new", replicas=1), *services], hosts("H100", 8), current=first["services"])
    assert second["problems"] == []
    kept = second["services"][1:]
    assert [entry["placements"] for entry in kept] == [entry["placements"] for entry in first["services"]]
    assert [entry["engine"] for entry in kept] == [entry["engine"] for entry in first["services"]]
    assert all(entry["kept"] for entry in kept) and not second["services"][0]["kept"]


def test_a_full_fleet_gives_up_replicas_for_a_new_service():
    first = plan([service(name="a")], hosts("H100", 4))
    assert shape(first["services"][0]) == (1, 1, 4)
    second = plan([service(name="a"), service(name="b")], hosts("H100", 4), current=first["services"])
    assert second["problems"] == []
    assert second["services"][0]["placements"] == first["services"][0]["placements"][:1]
    assert "3 of 4 replicas make room" in second["services"][0]["notes"][-1]


def test_a_kept_service_may_use_the_memory_that_it_has():
    found = {"name": "NVIDIA L4", "memory_total": 23034 * 2**20, "memory_free": 22500 * 2**20, "uuid": "GPU-a"}
    first = plan([service()], [{"name": "a", "gpus": [found]}])
    running = [{"name": "a", "gpus": [dict(found, memory_free=1 * GIB)]}]
    second = plan([service()], running, current=first["services"])
    assert second["services"][0]["placements"] == first["services"][0]["placements"]


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"tensor_parallel_size": 2}, "tensor_parallel_size is now 2"),
        ({"hosts": ["h1"]}, "hosts names others"),
        ({"model": QWEN_14B, "config": PUBLISHED[QWEN_14B]}, "another model"),
    ],
)
def test_what_is_no_longer_valid_moves(change, note):
    first = plan([service(name="a", replicas=1)], hosts("H100", 4, 2))
    changed = service(**dict({"name": "a", "replicas": 1}, **change))
    entry = plan([changed], hosts("H100", 4, 2), current=first["services"])["services"][0]
    assert not entry["kept"] and note in entry["notes"][-1] and entry["placements"]


def test_a_gpu_that_is_gone():
    first = plan([service(name="a", replicas=1)], hosts("H100", 1, 2))
    entry = plan([service(name="a", replicas=1)], hosts("H100", 1, 2)[1:], current=first["services"])["services"][0]
    assert "gone" in entry["notes"][-1] and indexes(entry) == [[("h1", [0])]]


# Without GPUs, and without knowledge


def cpu(**keys):
    return dict({"name": "demo", "hub": "generated", "accelerator": "cpu"}, **keys)


def test_the_cpu_needs_no_gpu():
    entry = only([cpu()], [{"name": "box", "memory": "24 GiB"}])
    assert entry["placements"] == [{"replica": 0, "port": 8000, "nodes": [{"host": "box", "node_rank": 0, "gpus": []}]}]
    assert "gpu_memory_utilization" not in entry["engine"]


def test_a_host_without_enough_memory():
    fleet = [{"name": "box", "memory": "8 GiB"}]
    assert "the largest host has 8 GiB" in problem([service(accelerator="cpu")], fleet)


def test_ranks_on_the_cpu_of_several_hosts():
    entry = only([cpu(tensor_parallel_size=2, hosts=["h1", "h2"])], [{"name": name} for name in ("h1", "h2")])
    assert [node["host"] for node in entry["placements"][0]["nodes"]] == ["h1", "h2"]


def test_services_that_are_not_started_take_nothing():
    planned = plan([service(name="a", state="absent"), service(name="b", replicas=1)], hosts("L4", 1))
    assert [len(entry["placements"]) for entry in planned["services"]] == [0, 1]


def test_a_stopped_service_is_found_where_it_was():
    first = plan([service(name="a", replicas=1)], hosts("L4", 2))["services"]
    planned = plan([service(name="a", state="stopped"), service(name="b")], hosts("L4", 2), current=first)
    assert planned["services"][0]["placements"] == first[0]["placements"]
    assert len(planned["services"][1]["placements"]) == 2  # and it takes nothing


@pytest.mark.parametrize(
    ("keys", "profile"),
    [
        ({}, "0.26 (extrapolated to 0.33.0)"),
        ({"engine_version": "0.26.1"}, "0.26"),
        ({"image": "registry.example:5000/vllm/vllm-openai:v0.19.1-x86_64"}, "0.19"),
        ({"image": "own/vllm:latest"}, "0.26 (extrapolated to 0.33.0)"),
    ],
)
def test_the_engine_is_that_of_the_image(keys, profile):
    assert only([service(**keys)], hosts("L4", 1))["estimate"]["profile"] == profile


def test_a_parameter_count_alone_is_the_rule_of_thumb():
    entry = only([{"name": "x", "model": "o/x", "parameters": "70B"}], hosts("H100", 8))
    assert entry["estimate"]["basis"] == "parameter_count"
    assert entry["naive"]["bytes"] == 168 * 10**9


def test_nothing_known_and_strict():
    with pytest.raises(PlanError, match="nothing is known of model o/x"):
        plan([{"name": "x", "model": "o/x"}], hosts())
    odd = dict(PUBLISHED[QWEN_7B], architectures=["OddForCausalLM"])
    assert only([{"name": "x", "model": "o/x", "config": odd}], hosts())["estimate"]["basis"] == "generic"
    with pytest.raises(PlanError, match=r"service 'x': config\.json: architectures"):
        plan([{"name": "x", "model": "o/x", "config": odd}], hosts(), strict=True)


def test_unknown_keys_are_refused():
    with pytest.raises(ServiceError, match="did you mean 'tensor_parallel_size'"):
        plan([service(tensor_paralel_size=2)], hosts())


def test_the_input_is_left_alone():
    services, fleet = [service(options={"max-num-seqs": 8})], hosts()
    before = copy.deepcopy((services, fleet))
    plan(services, fleet)
    assert (services, fleet) == before


def test_whole_experts_where_slices_do_not_fit_the_blocks():
    model = "Qwen/Qwen3-30B-A3B-FP8"  # experts of 768: blocks of 128 go six times
    keys = {"tensor_parallel_size": 4, "engine_version": "0.26.0"}
    entry = only([service(model, **keys)], hosts("H100", 4))
    assert entry["layout"]["expert_parallel"] and entry["engine"]["enable_expert_parallel"]
    message = problem([service(model, expert_parallel=False, **keys)], hosts("H100", 4))
    assert "128" in message


@pytest.mark.parametrize(
    ("declared", "arguments", "profile"),
    [
        ({}, {}, "0.33.0"),
        ({}, {"images": {"cuda": "vllm/vllm-openai:v0.19.1@sha256:" + "0" * 64}}, "0.19"),
        ({"image": "registry.example:5000/vllm/vllm-openai:v0.19.1@sha256:" + "0" * 64}, {}, "0.19"),
        ({"engine_version": "0.26.0"}, {"images": {"cuda": "vllm/vllm-openai:v0.19.1"}}, "0.26"),
        ({}, {"engine_version": "0.26.0", "images": {"cuda": "vllm/vllm-openai:v0.19.1"}}, "0.26"),
    ],
)
def test_what_is_planned_for_is_the_version_that_will_run(declared, arguments, profile):
    planned = plan([service(**declared)], hosts("H100-80GB", 1), **arguments)
    assert profile in planned["services"][0]["estimate"]["profile"]


def test_a_mistyped_key_of_a_declared_gpu_is_named():
    with pytest.raises(FleetError, match="host h: inference_gpus: unknown key 'modle', did you mean 'model'"):
        plan([service()], [{"name": "h", "gpus": {"modle": "H100", "count": 2}}])
