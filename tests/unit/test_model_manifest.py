from __future__ import annotations

import json

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_manifest as manifests
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_manifest import FileEntry, ManifestError


def chosen(paths, **options):
    return [e.path for e in manifests.select([FileEntry(p, 1, "0" * 64) for p in paths], **options)]


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", "a//b", "a/./b"])
def test_a_listing_cannot_leave_the_directory(path):
    with pytest.raises(ManifestError, match="does not stay inside"):
        chosen([path])


@pytest.mark.parametrize(
    ("paths", "wanted"),
    [
        # Llama: the same weights as original/*.pth
        (["config.json", "model.safetensors", "original/consolidated.00.pth"], ["config.json", "model.safetensors"]),
        # older repositories: both formats side by side
        (["model.safetensors", "pytorch_model-00001-of-00002.bin", "tf_model.h5"], ["model.safetensors"]),
        # bge-m3 has no safetensors: everything counts
        (["pytorch_model.bin", "colbert_linear.pt", "onnx/model.onnx"], None),
        # sentence-transformers keep a dense layer of their own as .bin
        (["model.safetensors", "2_Dense/pytorch_model.bin"], None),
        # Mistral: one half would be fetched for nothing
        (["consolidated.safetensors", "model-00001-of-00001.safetensors"], ["model-00001-of-00001.safetensors"]),
        (["consolidated.safetensors", "params.json"], None),
    ],
)
def test_weights_in_a_second_format_are_left_out(paths, wanted):
    assert chosen(paths) == (wanted or paths)
    assert chosen(paths, skip_duplicate_weights=False) == paths


def test_patterns():
    paths = ["config.json", "model.Q4.gguf", "model.Q8.gguf", "docs/a.png", "docs/deep/b.png"]
    assert chosen(paths, include=["*.json", "*Q4*"]) == ["config.json", "model.Q4.gguf"]
    assert chosen(paths, exclude=["docs/", "*.gguf"]) == ["config.json"]


def make(entries, **changes):
    given = {"source": "local", "model": "a/b", "revision": None, "resolved_revision": None, "include": []}
    return manifests.build(entries, **dict(given, exclude=[], time="2026-01-01T00:00:00Z", **changes))


def test_a_manifest_survives_its_file_and_notices_an_edit():
    manifest = make([FileEntry("b", 2, "2" * 64), FileEntry("a", 1, "1" * 64)])
    assert manifests.parse(manifests.dump(manifest)) == manifest
    assert [f["path"] for f in manifest["files"]] == ["a", "b"]
    manifest["files"][0]["sha256"] = "3" * 64
    with pytest.raises(ManifestError, match="content_digest"):
        manifests.parse(json.dumps(manifest))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"format": 1}', '{"format": 99, "files": []}'])
def test_what_is_not_a_manifest(text):
    with pytest.raises(ManifestError):
        manifests.parse(text)


def test_the_digest_depends_on_bytes_and_names_only():
    entries = [FileEntry("a", 1, "1" * 64), FileEntry("b", 1, "2" * 64)]
    assert manifests.content_digest(entries) == manifests.content_digest(reversed(entries))
    renamed = [entries[0], FileEntry("c", 1, "2" * 64)]
    assert manifests.content_digest(entries) != manifests.content_digest(renamed)


def test_sha256sums_in_both_modes():
    text = f"{'a' * 64}  ./x/model.safetensors\n{'B' * 64} *config.json\n# no line\n"
    assert manifests.parse_sha256sums(text) == {"x/model.safetensors": "a" * 64, "config.json": "b" * 64}
