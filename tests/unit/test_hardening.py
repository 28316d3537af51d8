"""How little a container may do, and how an operator lets it do more."""

from __future__ import annotations

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _hardening, _tei_container, _vllm_container
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import normalize_services

STRICTEST = {
    "cap_drop": ["ALL"],
    "ipc_mode": "private",
    "pids_limit": 16384,
    "read_only": True,
    "security_opts": ["no-new-privileges:true"],
    "tmpfs": ["/tmp:rw,exec,nosuid,nodev,size=8g"],
    "ulimits": ["core:0:0"],
}
HARDENING = [*STRICTEST, "capabilities", "memory", "shm_size"]


def render(declared=None, engine=_vllm_container, gpus=1, version="0.33.0", plan=None, **settings):
    declared = {"name": "m", "model": "a/b", "port": 8000, **(declared or {})}
    (service,) = normalize_services([declared])
    node = {"host": "h", "node_rank": 0, "gpus": [{"uuid": f"GPU-{at}", "index": at} for at in range(gpus)]}
    placement = {"replica": 0, "port": service["port"], "nodes": [node]}
    config = engine.config_file(service, plan, placement, version, settings)
    given = (placement, service, "h", "i", "/data/m", "/etc/inferops/x", "/data/cache", config)
    return engine.container_args(*given, plan=plan, settings=settings), config


def hardening(arguments):
    return {key: arguments[key] for key in HARDENING if key in arguments}


@pytest.mark.parametrize(
    ("engine", "more"),
    [
        (_vllm_container, {}),
        (_vllm_container, {"accelerator": "cpu"}),
        (_tei_container, {"engine": "text_embeddings_inference", "type": "embedding"}),
    ],
)
def test_every_engine_may_do_as_little_as_possible(engine, more):
    arguments, _ = render(more, engine)
    assert hardening(arguments) == {**STRICTEST, "shm_size": "3g"}
    assert "privileged" not in arguments and "devices" not in arguments


def test_what_an_engine_compiles_has_a_place_and_may_run():
    arguments, _ = render()
    home = arguments["env"]["HOME"]
    assert f"/data/cache:{home}" in arguments["volumes"]  # on the host, writable
    assert arguments["env"]["VLLM_CACHE_ROOT"] == home
    assert all("noexec" not in mount for mount in arguments["tmpfs"])
    assert "exec" in arguments["tmpfs"][0].split(":")[1].split(",")  # Docker's own default is noexec
    tei, _ = render({"engine": "text_embeddings_inference", "type": "embedding"}, _tei_container)
    assert tei["env"]["HOME"] == "/tmp"


@pytest.mark.parametrize(
    ("declared", "gpus", "size"),
    [
        ({}, 1, "3g"),
        ({"tensor_parallel_size": 8}, 8, "10g"),
        ({"tensor_parallel_size": 2, "accelerator": "cpu"}, 0, "4g"),
        ({"options": {"kv_offloading_size": "20.5"}}, 1, "24g"),
        ({"options": {"mm-processor-cache-type": "shm"}}, 1, "7g"),
        ({"options": {"mm-processor-cache-type": "shm", "mm-processor-cache-gb": 10}}, 2, "14g"),
        ({"options": {"kv-offloading-size": "many"}}, 1, "3g"),
    ],
)
def test_shared_memory_is_as_large_as_the_layout_needs(declared, gpus, size):
    assert render(declared, gpus=gpus)[0]["shm_size"] == size


def test_shared_memory_for_ray_holds_its_object_store():
    assert _hardening.shared_memory(8, ray=True) == "15g"


@pytest.mark.parametrize(
    ("settings", "wishes", "ipc", "shm"),
    [
        ({"ipc_mode": "host"}, {}, "host", None),
        ({}, {"ipc_mode": "host"}, "host", None),
        ({"shm_size": "20g"}, {}, "private", "20g"),
        ({"ipc_mode": "host"}, {"shm_size": "20g"}, "private", "20g"),
        ({"ipc_mode": "host", "shm_size": "20g"}, {}, "private", "20g"),
        ({}, {"shm_size": "20g"}, "private", "20g"),
        ({}, {"ipc_mode": "shareable"}, "shareable", "3g"),
    ],
)
def test_ipc_of_the_host_has_no_size_of_ours(settings, wishes, ipc, shm):
    arguments, _ = render({"container": wishes}, **settings)
    assert (arguments["ipc_mode"], arguments.get("shm_size")) == (ipc, shm)


@pytest.mark.parametrize(
    ("settings", "key", "value"),
    [
        ({"no_new_privileges": False}, "security_opts", ["no-new-privileges:false"]),
        ({"cap_drop": []}, "cap_drop", None),
        ({"capabilities": ["SYS_NICE"]}, "capabilities", ["SYS_NICE"]),
        ({"pids_limit": 400}, "pids_limit", 400),
        ({"read_only": False}, "read_only", False),
        ({"read_only": False}, "tmpfs", None),
        ({"tmpfs": ["/x"]}, "tmpfs", ["/x"]),
        ({"ulimits": []}, "ulimits", None),
        ({"memory": "64g"}, "memory", "64g"),
    ],
)
def test_each_is_a_setting_for_all_services(settings, key, value):
    assert render(**settings)[0].get(key) == value


@pytest.mark.parametrize(
    ("wishes", "key", "value"),
    [
        ({"security_opts": ["no-new-privileges:false"]}, "security_opts", ["no-new-privileges:false"]),
        ({"security_opts": ["label=disable"]}, "security_opts", ["no-new-privileges:true", "label=disable"]),
        ({"cap_drop": []}, "cap_drop", []),
        ({"capabilities": ["SYS_PTRACE"]}, "capabilities", ["SYS_PTRACE"]),
        ({"pids_limit": -1}, "pids_limit", -1),
        ({"read_only": False}, "read_only", False),
        ({"read_only": False}, "tmpfs", None),
        ({"tmpfs": ["/opt/x:rw"]}, "tmpfs", [*STRICTEST["tmpfs"], "/opt/x:rw"]),
        ({"tmpfs": ["/tmp:rw,exec"]}, "tmpfs", ["/tmp:rw,exec"]),
        ({"ulimits": ["core:-1:-1", "nofile:9:9"]}, "ulimits", ["core:-1:-1", "nofile:9:9"]),
        ({"memory": "64g"}, "memory", "64g"),
    ],
)
def test_each_can_be_loosened_for_one_service(wishes, key, value):
    assert render({"container": wishes})[0].get(key) == value


@pytest.mark.parametrize(
    ("network", "port", "needed"), [("host", 80, ["NET_BIND_SERVICE"]), ("host", 8000, None), ("bridge", 80, None)]
)
def test_a_privileged_port_of_the_host_needs_a_capability(network, port, needed):
    assert render({"port": port}, network_mode=network)[0].get("capabilities") == needed


@pytest.mark.parametrize(
    ("selinux", "mounts"),
    [(False, ["/data/m:/data/m:ro", "/data/cache:/root/.cache/vllm"]),
     (True, ["/data/m:/data/m:ro,z", "/data/cache:/root/.cache/vllm:z"])],
)  # fmt: skip
def test_what_is_mounted_is_labelled_where_the_engine_labels(selinux, mounts):
    arguments, _ = render({"container": {"volumes": ["/srv/lora:/lora:ro"]}}, selinux=selinux)
    assert set(mounts) <= set(arguments["volumes"])
    assert "/srv/lora:/lora:ro" in arguments["volumes"]  # the operator's own are never relabelled


@pytest.mark.parametrize(
    ("declared", "version", "settings", "domains"),
    [
        ({}, "0.33.0", {}, ["none.invalid"]),
        ({}, "0.99.0", {}, ["none.invalid"]),
        ({}, "0.33.0", {"allowed_media_domains": ["images.example"]}, ["images.example"]),
        ({}, "0.33.0", {"allowed_media_domains": ["*"]}, None),
        ({"options": {"allowed_media_domains": ["own.example"]}}, "0.33.0", {}, ["own.example"]),
        ({}, "0.8.5", {}, None),
        ({}, None, {}, None),
    ],
)
def test_clients_name_pictures_nowhere_but_where_they_may(declared, version, settings, domains):
    arguments, config = render({"type": "vision", **declared}, version=version, **settings)
    assert config["config"].get("allowed-media-domains") == domains
    assert arguments["env"]["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    told = [warning for warning in config["warnings"] if "whatever address a client names" in warning]
    assert bool(told) == (domains is None and not settings)
