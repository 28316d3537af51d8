"""One reading of versions, and one default that every place repeats faithfully."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils._versions import (
    DEFAULT_ENGINE_VERSION,
    DEFAULT_IMAGES,
    engine_version_of,
    minor_release,
    version_of_image,
    version_tuple,
)

ROOT = Path(__file__).resolve().parents[2]
DIGEST = "@sha256:" + "0" * 64


@pytest.mark.parametrize(
    "image, version",
    [
        ("vllm/vllm-openai:v0.26.0-x86_64", "0.26.0"),
        ("vllm/vllm-openai:v0.6.4.post1", "0.6.4.post1"),
        ("vllm/vllm-openai:v0.19.1" + DIGEST, "0.19.1"),
        ("registry.example:5000/vllm/vllm-openai:v0.19.1" + DIGEST, "0.19.1"),
        ("registry.example:5000/vllm/vllm-openai", None),
        ("vllm/vllm-openai" + DIGEST, None),
        ("vllm/vllm-openai:latest", None),
        ("qwenllm/qwenvl:2.5-cu121", None),
        ("", None),
        (None, None),
    ],
)
def test_the_version_that_an_image_names(image, version):
    assert version_of_image(image) == version


def test_a_declared_version_beats_the_images_and_that_the_default():
    service = {"engine_version": "0.11.0", "image": "vllm/vllm-openai:v0.19.1" + DIGEST}
    assert engine_version_of(service, default="0.33.0") == "0.11.0"
    assert engine_version_of({**service, "engine_version": None}, default="0.33.0") == "0.19.1"
    assert engine_version_of({}, image="vllm/vllm-openai:v0.20.0", default="0.33.0") == "0.20.0"
    assert engine_version_of({}, default="0.33.0") == "0.33.0"


@pytest.mark.parametrize(
    "text, numbers",
    [("v0.6.4.post1", (0, 6, 4)), ("20.10.24+dfsg1", (20, 10, 24)), ("29", (29,)), ("", ()), (None, ()), ("x", ())],
)
def test_the_numbers_of_a_version(text, numbers):
    assert version_tuple(text) == numbers


def test_versions_of_different_lengths_compare():
    assert version_tuple("0.26", 3) == (0, 26, 0)
    assert minor_release("v0.26.1") == (0, 26)
    with pytest.raises(ValueError, match="wanted one such as"):
        minor_release("latest")


def test_what_roles_and_pages_say_of_the_default_is_the_default():
    """Defaults in YAML cannot be computed, so each place that names the engine's version is held to this one."""
    known = {version_of_image(image) for image in DEFAULT_IMAGES.values()} | {DEFAULT_ENGINE_VERSION}
    files = [
        *ROOT.glob("roles/*/defaults/main.yml"),
        *ROOT.glob("roles/*/vars/*.yml"),
        *ROOT.glob("roles/*/meta/*.yml"),
    ]
    found = {
        (path.relative_to(ROOT).as_posix(), version)
        for path in files
        for version in re.findall(r"vllm-(?:openai:v|cpu:|ray:|cpu-ray:)(\d+\.\d+\.\d+)", path.read_text())
    }
    assert found
    assert {entry for entry in found if entry[1] not in known} == set()
