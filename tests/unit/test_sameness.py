from __future__ import annotations

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _sameness

SOFTWARE = {
    "architecture": "x86_64",
    "docker": "28.5.1",
    "driver": "580.65.06",
    "image": "sha256:1",
    "toolkit": "1.17.8",
    "weights": "w1",
}


def fleet(**changes):
    """Three equal hosts; changes: {host: {what: value}}"""
    return {
        host: {"software": {**SOFTWARE, **changes.get(host, {})}, "problems": {}} for host in ("gpu1", "gpu2", "gpu3")
    }


def test_equal_hosts_differ_in_nothing():
    assert _sameness.differences(fleet()) == []


@pytest.mark.parametrize("what", sorted(SOFTWARE))
def test_a_difference_names_hosts_and_values_and_can_be_waived(what):
    found = fleet(gpu2={what: "other"})
    (line,) = _sameness.differences(found)
    assert f"{SOFTWARE[what]} on gpu1, gpu3" in line and "other on gpu2" in line
    assert f"add {what} to inference_sameness_waive" in line
    assert _sameness.differences(found, [what]) == []


def test_what_is_missing_on_one_host_differs():
    (line,) = _sameness.differences(fleet(gpu3={"toolkit": None}))
    assert "none on gpu3" in line


def test_broken_files_are_told_even_when_the_manifests_agree():
    found = fleet()
    found["gpu2"]["problems"] = {"weights": "model.safetensors: 12 bytes"}
    assert _sameness.differences(found) == ["the model's files on gpu2: model.safetensors: 12 bytes"]


def test_a_misspelt_waiver_is_no_waiver():
    (line,) = _sameness.differences(fleet(), ["drivers"])
    assert "'drivers'" in line and "driver" in line


@pytest.mark.parametrize(
    ("output", "version"),
    [("NVIDIA Container Toolkit CLI version 1.17.8\ncommit: f202b80a\n", "1.17.8"), ("", None)],
)
def test_version_of_the_toolkit(output, version):
    assert _sameness.parse_toolkit(output) == version


@pytest.mark.parametrize("default,compared", [("pull", ["silent:1", "loaded:1"]), ("build", ["loaded:1"])])
def test_what_a_host_builds_itself_is_not_compared(default, compared):
    images = [{"name": "silent:1"}, {"name": "loaded:1", "source": "load"}, {"name": "built:1", "source": "build"}]
    assert _sameness.images_to_compare(images, default) == compared


def test_an_image_of_one_name_and_two_contents():
    found = {
        "gpu1": {"engine:1": "sha256:1", "other:1": "sha256:7"},
        "gpu2": {"engine:1": "sha256:2", "other:1": None},
        "gpu3": {"engine:1": "sha256:1"},
    }
    assert _sameness.image_differences(found) == ["engine:1 differs: sha256:1 on gpu1, gpu3; sha256:2 on gpu2"]
    assert _sameness.image_differences({}) == []
