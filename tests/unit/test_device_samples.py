"""Whether data without a signature is found wherever it lies, in constant time."""

from __future__ import annotations

import random

import pytest
from disks import Bytes

from ansible_collections.inferops.gpu_host.plugins.module_utils import _device_samples as samples
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB, MIB

TIB = 1024 * GIB
FULL = b"\xff" * MIB


def found(held, size=4 * TIB, extents=None):
    read = Bytes({"/dev/x": held})
    return samples.first_data(lambda offset, length: read("/dev/x", offset, length), extents or [(0, size)])


@pytest.mark.parametrize("size", [1, 4096, 10 * MIB, 36 * MIB, 37 * MIB, GIB, 4 * TIB + 512, 100 * TIB])
def test_places_are_the_same_each_time_in_order_inside_and_few(size):
    places = samples.places(size)
    assert places == samples.places(size)
    assert all(one[0] + one[1] <= two[0] for one, two in zip(places, places[1:]))
    assert places[0][0] == 0 and sum(places[-1]) == size
    assert sum(length for _offset, length in places) == min(size, 2 * 16 * MIB + 1024 * 4096) or size < 37 * MIB


def test_the_ends_are_read_whole_and_at_least_1024_places_between():
    places = samples.places(4 * TIB)
    assert sum(length for offset, length in places if offset < 16 * MIB) == 16 * MIB
    assert sum(length for offset, length in places if offset >= 4 * TIB - 16 * MIB) == 16 * MIB
    assert len([one for one in places if one[1] == 4096]) >= 1024


@pytest.mark.parametrize("at", [0, 32, 512 * 1024, MIB, 16 * MIB - 1, 4 * TIB - 16 * MIB, 4 * TIB - 1])
def test_a_single_byte_at_either_end_is_found(at):
    assert found({at: b"x"}) == at


def test_one_piece_over_two_neighbouring_parts_is_always_found():
    size = 64 * GIB
    part = size // 1024
    for number in range(0, 1022, 97):
        start = 16 * MIB + number * part
        places = samples.places(size)
        assert any(start <= offset < start + 2 * part for offset, _length in places), number


def test_nothing_is_found_where_nothing_is():
    assert found({}) is None


def test_half_a_percent_scattered_is_found_as_often_as_stated():
    """docs/storage.md: 99.4 %."""
    assert samples.detection(0.005) == pytest.approx(0.9941, abs=1e-4)
    size, block = 16 * GIB, 64 * 1024  # data in pieces of 64 KiB
    places = [offset for offset, length in samples.places(size) if length == samples.SAMPLE]
    hits = 0
    for seed in range(300):
        filled = set(random.Random(seed).sample(range(size // block), size // block // 200))
        hits += any(offset // block in filled for offset in places)
    assert hits / 300 >= 0.98


def test_extents_are_read_as_one_room_and_offsets_are_those_of_the_device():
    extents = [(MIB, 2 * GIB), (10 * GIB, 5 * MIB)]
    assert found({10 * GIB + 7: b"x"}, extents=extents) == 10 * GIB + 7
    assert found({2 * GIB + 2 * MIB: FULL}, extents=extents) is None  # between them
    assert found({MIB: b"x"}, extents=extents) == MIB


def test_a_device_that_ends_early_is_an_error():
    with pytest.raises(OSError, match="ends before"):
        samples.first_data(lambda _offset, length: b"\0" * (length - 1), [(0, GIB)])


def test_a_mark_counts_only_whole_and_for_its_size():
    mark = samples.given_up(5 * GIB)
    assert len(mark) == MIB
    read = Bytes({"/dev/x": {MIB: mark}})
    assert samples.is_given_up(lambda *place: read("/dev/x", *place), MIB, 5 * GIB)
    assert not samples.is_given_up(lambda *place: read("/dev/x", *place), MIB, 6 * GIB)
    read.held["/dev/x"][MIB + 4096] = b"x"
    assert not samples.is_given_up(lambda *place: read("/dev/x", *place), MIB, 5 * GIB)


@pytest.mark.parametrize("size", [MIB // 2, MIB, MIB + 512, 64 * MIB, 65 * MIB, 300 * GIB])
def test_what_is_cleared_lies_inside_and_reaches_the_end(size):
    places = samples.to_clear(size)
    assert all(offset >= MIB and offset + length <= size for offset, length in places)
    assert not places or sum(places[-1]) == size
    assert ((64 * MIB, 4096) in places) == (size > 65 * MIB + 4096)
