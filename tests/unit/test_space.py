from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils._model_weights import (
    models_of_services,
    outside,
    requirements_of_models,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import normalize_services
from ansible_collections.inferops.gpu_host.plugins.module_utils._space import filesystem_of, space_refusals
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB, MIB


def need(path, size, allow=False):
    return {
        "path": path,
        "bytes": size,
        "purpose": "weights",
        "allow_root_filesystem": allow,
        "allowed_by": "the_variable: true",
        "counted": [],
    }


def on(mountpoint, available, present=0):
    return {"mountpoint": mountpoint, "size": 1000 * GIB, "available": available, "present": present}


def test_space_is_added_up_per_filesystem_and_what_is_there_counts():
    filesystems = {"/data/a": on("/data", 100 * GIB, 50 * GIB), "/data/b": on("/data", 100 * GIB)}
    assert space_refusals([need("/data/a", 100 * GIB), need("/data/b", 50 * GIB)], filesystems) == []
    (text,) = space_refusals([need("/data/a", 100 * GIB), need("/data/b", 51 * GIB)], filesystems)
    assert text.startswith("/data has 100 GiB free of 1000 GiB, and 101 GiB more are needed")


def test_the_root_filesystem_is_refused_unless_allowed_or_about_to_be_mounted_over():
    filesystems = {"/data/a": on("/", 900 * GIB)}
    (text,) = space_refusals([need("/data/a", GIB)], filesystems)
    assert "/data/a (weights, 1 GiB) would lie on the root filesystem (1000 GiB, 900 GiB free)" in text
    assert "the_variable: true" in text
    assert space_refusals([need("/data/a", GIB, allow=True)], filesystems) == []
    coming = {"mountpoint": "/data", "size": 4 * GIB, "mounted": False}
    assert space_refusals([need("/data/a", GIB)], filesystems, [coming]) == []
    assert "4 GiB free" in space_refusals([need("/data/a", 5 * GIB)], filesystems, [coming])[0]


def test_what_is_there_to_a_percent_is_there_also_on_a_full_root_filesystem():
    size = 100 * GIB
    assert space_refusals([need("/data/a", size)], {"/data/a": on("/", 0, size - size // 200)}) == []
    assert len(space_refusals([need("/data/a", size)], {"/data/a": on("/", 0, size - size // 50)})) == 2


def test_an_unfinished_download_counts(tmp_path):
    (tmp_path / ".model.staging").mkdir()
    (tmp_path / ".model.staging/weights").write_bytes(b"x" * MIB)
    asked = dict(need(str(tmp_path / "model"), 2 * MIB), counted=[str(tmp_path / ".model.staging")])
    assert filesystem_of(asked)["present"] >= MIB
    assert filesystem_of(dict(asked, counted=[]))["present"] == 0


PLAN = {
    "services": [
        {"name": name, "model": model, "files_bytes": size, "placements": [{"nodes": [{"host": "gpu1"}]}]}
        for name, model, size in (("big", "Org/Big", 15 * GIB), ("again", "Org/Big", 15 * GIB), ("demo", "demo", MIB))
    ]
}
SERVICES = [
    {"name": "big", "model": "Org/Big", "port": 1},
    {"name": "again", "model": "Org/Big", "port": 2},
    {"name": "demo", "hub": "generated", "model": "demo", "port": 3, "accelerator": "cpu"},
]


def requirements(host):
    models = models_of_services(normalize_services(SERVICES), "/data/models", PLAN)
    return requirements_of_models(models, PLAN, host)


def test_a_host_needs_room_once_for_each_model_that_is_brought_to_it():
    (one,) = requirements("gpu1")
    assert (one["path"], one["bytes"]) == ("/data/models/Org/Big", 15 * GIB)
    assert one["counted"] == ["/data/models/Org/.Big.staging"]
    assert requirements("gpu2") == []


def test_what_will_lie_on_declared_disks_is_left_out():
    wanted = requirements("gpu1")
    assert outside(wanted, [{"serial": "a", "mountpoint": "/data"}]) == []
    assert outside(wanted, [{"serial": "a", "partitions": [{"mountpoint": "/data/models/"}]}]) == []
    assert outside(wanted, [{"serial": "a", "mountpoint": "/dat"}, {"serial": "b", "partitions": None}]) == wanted
