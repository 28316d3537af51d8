"""What holds for anything at all, found by a generator that starts from nothing."""

from __future__ import annotations

import contextlib
import io
import json
import math
import struct

from hostile import SETTINGS
from hypothesis import given
from hypothesis import strategies as st
from readers import READERS

from ansible_collections.inferops.gpu_host.plugins.module_utils import _container_state, _untrusted
from ansible_collections.inferops.gpu_host.plugins.module_utils._model import safetensors

TEXTS = sorted(name for name, reader in READERS.items() if reader.texts)
DOCUMENTS = sorted(name for name, reader in READERS.items() if reader.documents)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@SETTINGS
@given(st.sampled_from(TEXTS), st.text(max_size=300))
def test_any_text_is_read_or_refused(name, text):
    with contextlib.suppress(*READERS[name].errors):
        READERS[name].read(text)


@SETTINGS
@given(st.sampled_from(DOCUMENTS), ANYTHING)
def test_any_document_is_read_or_refused(name, document):
    with contextlib.suppress(*READERS[name].errors):
        READERS[name].read(document)


@SETTINGS
@given(ANYTHING)
def test_what_bounded_json_reads_can_be_written_again_and_is_the_same(document):
    try:
        read = _untrusted.bounded_json(json.dumps(document), "it")
    except _untrusted.UntrustedError:
        return
    assert json.loads(json.dumps(read)) == read == document
    json.dumps(read, ensure_ascii=False, allow_nan=False).encode("utf-8")


@SETTINGS
@given(st.binary(max_size=200), st.integers(0, 300))
def test_any_bytes_are_a_safetensors_file_or_none(data, announced):
    for raw in (data, struct.pack("<Q", announced) + data):
        with contextlib.suppress(safetensors.SafetensorsError):
            found = safetensors.summarize(safetensors.read_header(io.BytesIO(raw), len(raw)))
            assert 0 <= found["bytes"] <= len(raw)


@SETTINGS
@given(st.binary(max_size=300))
def test_any_bytes_are_a_log(data):
    assert len(_container_state.demultiplexed(data)) <= len(data)


@SETTINGS
@given(st.text(max_size=200), st.integers(1, 50))
def test_what_is_printable_is_one_line_of_that_length(text, limit):
    line = _untrusted.printable(text, limit)
    assert len(line) <= limit and len(line.splitlines()) <= 1
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in line)
    line.encode("utf-8")


@SETTINGS
@given(st.text(max_size=30) | st.integers(-(10**30), 10**30).map(str))
def test_a_whole_number_is_what_it_says(text):
    number = _untrusted.whole_number(text)
    assert number is None or (0 <= number <= 10**15 and int(text) == number and math.isfinite(number))
