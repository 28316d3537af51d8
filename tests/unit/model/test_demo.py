from __future__ import annotations

import hashlib
import json
import struct

from ansible_collections.inferops.gpu_host.plugins.module_utils._model import demo


def header_of(content):
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), len(content) - 8 - size


def test_the_weights_are_a_whole_safetensors_file(tmp_path):
    sizes = demo.write_demo_model(str(tmp_path))
    content = (tmp_path / "model.safetensors").read_bytes()
    header, body = header_of(content)
    del header["__metadata__"]
    end = 0
    for entry in sorted(header.values(), key=lambda e: e["data_offsets"]):
        count = 1
        for size in entry["shape"]:
            count *= size
        assert entry["data_offsets"] == [end, end + 2 * count]
        end = entry["data_offsets"][1]
    assert end == body
    assert sizes["model.safetensors"] == len(content)


def test_the_same_seed_gives_the_same_bytes_everywhere():
    # Recorded once: a change here changes every operator's demo model and so must be meant.
    digest = hashlib.sha256(demo.demo_files()["model.safetensors"]).hexdigest()
    assert digest == "122683aba433c8eded172126a869fd54a2d9f713035b2648f1693aabce528d02"
    assert demo.demo_files(seed=1)["model.safetensors"] != demo.demo_files()["model.safetensors"]


def test_the_vocabulary_is_full_and_every_merge_makes_a_token_of_two_tokens():
    tokens, merges, words = demo._vocabulary()
    assert len(tokens) == len(set(tokens)) == demo.demo_config()["vocab_size"]
    for left, right in merges:
        assert {left, right, left + right} <= set(tokens)
    assert len(words) > 60


def test_weights_are_finite_and_small():
    content = demo.demo_files()["model.safetensors"]
    header, _body = header_of(content)
    start = 8 + struct.unpack("<Q", content[:8])[0]
    begin, end = header["model.layers.1.mlp.up_proj.weight"]["data_offsets"]
    raw = struct.unpack(f"<{(end - begin) // 2}H", content[start + begin : start + end])
    values = [struct.unpack("<f", struct.pack("<I", word << 16))[0] for word in raw]
    assert all(2**-5 <= abs(value) < 2**-4 for value in values)
    assert abs(sum(values) / len(values)) < 0.001
