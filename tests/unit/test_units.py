from __future__ import annotations

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _units


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (150 * 1024**2, "150 MiB"),
        (805 * 10**9, "749.7 GiB"),
        (2 * 1024**4, "2 TiB"),
    ],
)
def test_format_bytes(value, text):
    assert _units.format_bytes(value) == text


@pytest.mark.parametrize(("a", "b", "quotient", "rounded"), [(0, 4, 0, 0), (1, 4, 1, 4), (4, 4, 1, 4), (5, 4, 2, 8)])
def test_ceil_div_and_round_up(a, b, quotient, rounded):
    assert _units.ceil_div(a, b) == quotient
    assert _units.round_up(a, b) == rounded
