"""What is to be done on a host, from the plan and from what runs there."""

from __future__ import annotations

import json

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _service_work
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import normalize_services
from ansible_collections.inferops.gpu_host.plugins.module_utils._service_work import Paths, option_changes, surplus

PATHS = Paths("/data/models", "/etc/inferops/vllm", "/var/cache/inferops/vllm")
SETTINGS = {"seals": {"gpu1": "of this host"}}
SERVICE = {"name": "chat", "model": "a/chat", "port": 8000, "api_key": "sk-secret"}


def plan_of(service, gpus=(0,), free=()):
    nodes = [{"host": "gpu1", "node_rank": 0, "gpus": [{"uuid": f"GPU-{at}", "index": at} for at in gpus]}]
    return {
        "services": [
            {
                "name": service["name"],
                "type": "chat",
                "layout": {"tensor_parallel_size": len(gpus), "replicas": 1},
                "engine": {"max_model_len": 4096},
                "placements": [{"replica": 0, "port": service["port"], "nodes": nodes}],
            }
        ],
        "gpus": [{"host": "gpu1", "index": at, "uuid": f"GPU-{at}", "services": ["chat"]} for at in gpus]
        + [{"host": "gpu1", "index": at, "uuid": f"GPU-{at}", "services": []} for at in free],
    }


class Host:
    """A host on which the work was carried out."""

    def __init__(self):
        self.found = {"containers": {}, "images": {}, "listening": {}, "engine": "26.1"}

    def wanted(self, service=SERVICE, plan=None):
        services = normalize_services([service])
        return _service_work.wanted(plan or plan_of(service), services, "gpu1", PATHS, settings=SETTINGS)

    def decide(self, service=SERVICE, plan=None, **more):
        plan = plan or plan_of(service)
        items = self.wanted(service, plan)
        (item,) = _service_work.decided(items, self.found, plan, "gpu1", PATHS, SETTINGS, **more)
        return item

    def has(self, item, name=None, **more):
        prefix = "io.github.inferops."
        labels = {key[len(prefix) :]: value for key, value in item["arguments"]["labels"].items()}
        container = {
            "name": name or item["name"],
            "id": "id of " + (name or item["name"]),
            "image": item["image"],
            "image_id": "sha256:1",
            "labels": labels,
            "ours": True,
            "running": True,
            "healthy": True,
            "restarts": 0,
        }
        self.found["containers"][container["name"]] = dict(container, **more)
        return self


@pytest.fixture
def serving():
    host = Host()
    return host.has(host.wanted()[0])


def test_what_runs_as_wanted_is_left_alone(serving):
    assert serving.decide()["action"] == "none"


def test_what_is_not_there_is_made():
    assert Host().decide()["action"] == "create"


@pytest.mark.parametrize(
    ("now", "action"),
    [
        ({"running": False, "healthy": False}, "start"),
        ({"healthy": False}, "wait"),
        ({"ours": False, "labels": {}}, "foreign"),
    ],
)
def test_the_state_of_the_right_container(serving, now, action):
    serving.found["containers"]["chat"].update(now)
    assert serving.decide()["action"] == action


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"max_model_len": 2048}, "options of the engine"),
        ({"api_key": "sk-other"}, "options of the engine"),
        ({"image": "vllm/vllm-openai:v0.32.0"}, "image vllm/vllm-openai:v0.33.0 → vllm/vllm-openai:v0.32.0"),
        ({"env": {"NCCL_DEBUG": "INFO"}}, "settings of the container"),
    ],
)
def test_a_change_replaces_and_says_why(serving, change, why):
    item = serving.decide(dict(SERVICE, **change))
    assert (item["action"], why in item["why"]) == ("replace", True), item["why"]


def test_other_gpus_are_the_plans_doing(serving):
    item = serving.decide(plan=plan_of(SERVICE, gpus=(1,)))
    assert (item["action"], item["why"]) == ("replace", "the plan")


def test_a_plan_that_leads_to_the_same_container_changes_nothing(serving):
    plan = plan_of(SERVICE)
    plan["services"][0]["placements"][0]["nodes"][0]["gpus"][0]["index"] = 5  # the GPU is known by its UUID
    assert serving.decide(plan=plan)["action"] == "none"


def test_a_tag_that_moved_is_another_image(serving):
    serving.found["images"] = {"vllm/vllm-openai:v0.33.0": "sha256:2"}
    item = serving.decide()
    assert (item["action"], item["why"]) == ("replace", "vllm/vllm-openai:v0.33.0 is another image now")


def test_what_does_not_run_is_kept_too_until_its_successor_has_answered(serving):
    serving.found["containers"]["chat"].update(running=False, healthy=False)
    item = serving.decide(dict(SERVICE, max_model_len=2048))
    assert (item["action"], item["predecessor"]["name"], item["proven"]) == ("replace", "chat", False)
    serving.found["proven"] = {"chat": "id of chat"}
    assert serving.decide(dict(SERVICE, max_model_len=2048))["proven"]


def test_what_failed_in_this_form_is_not_tried_again_unless_wanted(serving):
    changed = dict(SERVICE, max_model_len=2048)
    serving.has(serving.wanted(changed)[0], "chat.failed", running=False)
    assert serving.decide(changed)["action"] == "refused"
    assert serving.decide(changed, retry_failed=True)["action"] == "replace"
    assert serving.decide(dict(SERVICE, max_model_len=1024))["action"] == "replace"


def test_what_failed_is_tried_again_where_nothing_serves(serving):
    changed = dict(SERVICE, max_model_len=2048)
    serving.has(serving.wanted(changed)[0], "chat.failed", running=False)
    serving.found["containers"]["chat"].update(running=False, healthy=False)
    assert serving.decide(changed)["action"] == "replace"
    serving.found["proven"] = {"chat": "id of chat"}  # a play was killed while it brought this one back
    assert serving.decide(changed)["action"] == "refused"


@pytest.mark.parametrize("name", ["chat", "chat.previous", "chat.candidate", "chat.failed"])
@pytest.mark.parametrize("other", [{"ours": False}, {"ours": True, "labels": {"service": "chat-0"}}])
def test_a_name_that_we_need_is_never_taken_from_others(serving, name, other):
    serving.has(serving.wanted()[0], name, **other)
    item = serving.decide(dict(SERVICE, max_model_len=2048))
    assert (item["action"], item["foreign"]) == ("foreign", name)


# A play that ended in the middle of a replacement: the host knows which one was proven last.


def interrupted(serving, proven="id of chat.previous", **successor):
    """chat.previous, and its successor if any."""
    serving.found["containers"]["chat.previous"] = dict(
        serving.found["containers"].pop("chat"),
        name="chat.previous",
        id="id of chat.previous",
        running=False,
        healthy=False,
    )
    serving.found["proven"] = {"chat": proven} if proven else {}
    if successor:
        serving.has(serving.wanted(CHANGED)[0], **successor)
    return serving


CHANGED = dict(SERVICE, max_model_len=2048)


@pytest.mark.parametrize("proven", ["id of chat.previous", None])
def test_interrupted_before_the_successor_was_there(serving, proven):
    item = interrupted(serving, proven).decide(CHANGED)
    assert (item["action"], item["recover"], item["predecessor"]["name"]) == ("replace", True, "chat.previous")
    assert serving.decide()["recover"]


@pytest.mark.parametrize("proven", ["id of chat.previous", None])
def test_interrupted_before_the_successor_had_answered(serving, proven):
    interrupted(serving, proven, healthy=False)
    item = serving.decide(CHANGED)
    assert (item["action"], item["predecessor"]["name"], item["proven"]) == ("prove", "chat.previous", True)
    back = serving.decide()  # the change was taken back
    assert (back["action"], back["recover"]) == ("start", True)


def test_interrupted_after_the_successor_had_answered(serving):
    interrupted(serving, "id of chat", running=False, healthy=False)  # and then stopped
    item = serving.decide(dict(SERVICE, max_model_len=1024))
    assert (item["action"], item["recover"], item["predecessor"]["name"]) == ("replace", False, "chat")
    assert serving.decide(CHANGED)["action"] == "prove"


def test_what_is_proven_and_gone_proves_nothing(serving):
    serving.found["proven"] = {"chat": "id of another"}
    serving.found["containers"]["chat"].update(healthy=False)
    assert not serving.decide(CHANGED)["proven"]


def listener(process=None, pid=None, container=None):
    return {"process": process, "pid": pid, "container": container}


@pytest.mark.parametrize(
    ("owner", "named"),
    [
        (listener("python3", 42), "python3 (process 42)"),
        (listener("docker-proxy", 43, "registry"), "the container registry"),
        (listener(), "another program"),
    ],
)
def test_who_has_the_port_is_named(owner, named):
    host = Host()
    host.found["listening"] = {"8000": owner}
    assert host.decide()["port_holder"] == named


@pytest.mark.parametrize("container", ["chat", "chat.previous", None])
def test_a_port_of_its_own_is_free_for_it(serving, container):
    serving.found["listening"] = {"8000": listener("vllm", 44, container)}
    assert serving.decide(dict(SERVICE, max_model_len=2048))["port_holder"] is None


def test_a_port_of_another_service_is_not_free(serving):
    serving.found["listening"] = {"8000": listener("docker-proxy", 45, "chat")}
    other = dict(SERVICE, name="other")
    assert serving.decide(other)["port_holder"] == "the container chat"
    assert serving.decide(other, leaving=["chat"])["port_holder"] is None


# Side by side


def test_a_candidate_has_a_port_and_gpus_of_its_own(serving):
    serving.found["listening"] = {"8000": listener(), "18000": listener()}
    changed = dict(SERVICE, max_model_len=2048)
    plan = plan_of(changed, free=(1, 2))
    candidate = serving.decide(changed, plan, strategy="side_by_side")["candidate"]
    assert candidate["name"] == "chat.candidate"
    assert candidate["url"] == "http://127.0.0.1:18001"
    assert json.loads(candidate["config"])["port"] == 18001
    assert candidate["arguments"]["device_requests"][0]["device_ids"] == ["GPU-1"]
    assert candidate["config_path"] != serving.decide(changed, plan)["config_path"]


def test_no_room_for_a_candidate(serving):
    changed = dict(SERVICE, max_model_len=2048)
    candidate = serving.decide(changed, strategy="side_by_side")["candidate"]
    assert "needs 1 free GPUs" in candidate["problem"] and "vllm_update_strategy" in candidate["problem"]


# What is too much


def test_replicas_that_the_plan_no_longer_has_go_when_the_others_answer(serving):
    other = dict(serving.wanted(plan=plan_of(SERVICE, gpus=(3,)))[0]["arguments"]["labels"])
    labels = {key.rpartition(".")[2]: value for key, value in other.items()} | {"url": "http://127.0.0.1:8001"}
    serving.has(serving.wanted()[0], "chat-1", labels=labels).has(serving.wanted()[0], "chat.previous")
    found = surplus(serving.found, serving.wanted(), normalize_services([SERVICE]), plan_of(SERVICE))
    assert found == {"stop": [], "remove": [], "retire": [{"name": "chat-1", "service": "chat", "hosts": ["gpu1"]}]}


def test_replicas_in_the_way_of_others_are_stopped_and_stay(serving):
    serving.has(serving.wanted()[0], "chat-1")  # on the same GPU
    found = surplus(serving.found, serving.wanted(), normalize_services([SERVICE]), plan_of(SERVICE))
    assert (found["stop"], found["remove"], [entry["name"] for entry in found["retire"]]) == (
        ["chat-1"],
        [],
        ["chat-1"],
    )


NOTHING = {"stop": [], "remove": [], "retire": []}


@pytest.mark.parametrize("plan", [{}, {"services": []}, {"services": [{"name": "chat", "placements": []}]}])
def test_a_service_without_a_place_in_the_plan_is_left_alone(serving, plan):
    services = normalize_services([SERVICE])
    assert surplus(serving.found, [], services, plan) == NOTHING
    assert _service_work.unplanned(services, plan) == ([] if plan.get("services") else ["chat"])


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("stopped", dict(NOTHING, stop=["chat"])),
        ("absent", dict(NOTHING, remove=["chat"])),
    ],
)
def test_states(serving, state, expected):
    assert surplus(serving.found, [], normalize_services([dict(SERVICE, state=state)]), {}) == expected


def test_containers_of_others_are_left_alone(serving):
    others = normalize_services([dict(SERVICE, name="other")])
    assert surplus(serving.found, [], others, {}) == NOTHING
    serving.found["containers"]["chat"]["ours"] = False
    for state in ("absent", "stopped", "started"):
        services = normalize_services([dict(SERVICE, state=state)])
        assert surplus(serving.found, [], services, plan_of(SERVICE, gpus=(1,))) == NOTHING


def test_another_engine_takes_over_what_runs(serving):
    nodes = [{"host": "gpu1", "gpus": [{"uuid": "GPU-0", "index": 0}]}]
    plan = {"services": [{"name": "chat", "type": "embedding", "placements": [{"port": 8000, "nodes": nodes}]}]}
    item = serving.decide(dict(SERVICE, engine="text_embeddings_inference"), plan)
    assert item["action"] == "replace"


def test_the_key_is_in_the_file_and_nowhere_else(serving):
    item = serving.decide()
    assert "sk-secret" in item["config"]
    assert "sk-secret" not in json.dumps([item["arguments"], item["service"], item["why"]])


def test_option_changes_never_show_the_key():
    before = json.dumps({"api-key": ["a"], "max-model-len": 2048, "enforce-eager": True})
    after = json.dumps({"api-key": ["b"], "max-model-len": 4096, "dtype": "float16"})
    assert option_changes(before, after) == [
        "api-key: changed",
        "dtype: not set → float16",
        "enforce-eager: true → not set",
        "max-model-len: 2048 → 4096",
    ]
    assert option_changes(None, after)[0] == "api-key: added"


def test_option_changes_show_no_other_secret_either():
    before = json.dumps({"hf-token": "planted", "media": ["https://me:planted@host/a"], "extra": {"a": "planted"}})
    after = json.dumps({"hf-token": "other", "media": ["https://me:other@host/a"], "extra": {"a": "planted", "b": 1}})
    lines = option_changes(before, after)
    assert lines == ['extra: {"a": "***"} → {"a": "***", "b": 1}', "hf-token: changed", "media: changed"]
