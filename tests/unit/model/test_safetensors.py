from __future__ import annotations

import io
import json
import struct

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils._model import (
    demo,
    safetensors,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.safetensors import SafetensorsError


def file_of(header, body=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + body


HEADER = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "BF16", "shape": [4, 8], "data_offsets": [0, 64]},
    "b": {"dtype": "F8_E4M3", "shape": [16], "data_offsets": [64, 80]},
}


def test_a_header_is_read_without_the_tensors():
    tensors = safetensors.read_header(io.BytesIO(file_of(HEADER)))
    assert tensors["a"] == {"dtype": "BF16", "shape": [4, 8], "bytes": 64}
    assert safetensors.summarize(tensors) == {
        "tensors": 2,
        "bytes": 80,
        "elements": 48,
        "by_dtype": {
            "BF16": {"tensors": 1, "elements": 32, "bytes": 64},
            "F8_E4M3": {"tensors": 1, "elements": 16, "bytes": 16},
        },
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"abc", "too short"),
        (b"<html><body>404 not found</body></html>", "no safetensors file"),
        (struct.pack("<Q", 100) + b"{}", "ends inside its header"),
        (file_of(b"{'a': 1}"), "header is no JSON"),
        (file_of([1]), "no JSON object"),
        (file_of({"a": {"dtype": "F16"}}), "tensor a has no"),
        (file_of(HEADER, b"x" * 79), "cut short"),
    ],
)
def test_what_is_no_whole_file_is_refused(content, message):
    with pytest.raises(SafetensorsError, match=message):
        safetensors.read_header(io.BytesIO(content), len(content), "model.safetensors")


def test_a_whole_file_passes():
    content = file_of(HEADER, b"x" * 80)
    assert len(safetensors.read_header(io.BytesIO(content), len(content))) == 2


def test_an_index_must_find_its_files(tmp_path):
    (tmp_path / "model-1.safetensors").write_bytes(file_of(HEADER, b"x" * 80))
    index = {"weight_map": {"a": "model-1.safetensors", "c": "model-2.safetensors"}}
    (tmp_path / safetensors.INDEX).write_text(json.dumps(index))
    with pytest.raises(SafetensorsError, match=r"1 files that are not there: model-2\.safetensors"):
        safetensors.read_directory(str(tmp_path))


def test_the_demo_model_is_read_whole(tmp_path):
    demo.write_demo_model(str(tmp_path))
    summary = safetensors.summarize(safetensors.read_directory(str(tmp_path)))
    assert list(summary["by_dtype"]) == ["BF16"]
    assert summary["bytes"] == 2 * summary["elements"]
