"""Reading takes a time that grows with the length of the text, whatever is in it."""

from __future__ import annotations

import contextlib

import pytest
from hostile import EVERYTHING, seconds
from readers import READERS

UNITS = ("(", "a", "1", " ", "\n", "\t", '"', "\\", "<", "{", "[", "-", "=", "1.", "a.", "x y ", "a=b ", "\x1b[", "A: ")
LONGEST = 1_000_000 if EVERYTHING else 160_000
SAME_AGAIN = ("engine's log, running", "engine's check", "nvidia-smi, judged", "nvidia-smi, health")
TEXTS = [name for name, reader in READERS.items() if reader.texts and name not in SAME_AGAIN]


def pieces(text):
    """What the reader knows: the beginnings of the lines of a good text."""
    lines = [line for line in text.splitlines() if line.strip()]
    step = max(1, len(lines) // (40 if EVERYTHING else 5))
    for line in lines[::step]:
        yield line + "\n"
        yield line[: max(1, len(line) * 2 // 3)]


@pytest.mark.parametrize("name", TEXTS)
def test_the_time_grows_no_faster_than_the_text(name):
    reader = READERS[name]

    def read(unit, length):
        with contextlib.suppress(*reader.errors):
            reader.read((unit * (length // len(unit) + 1))[:length])

    for unit in [*UNITS, *pieces(reader.texts[0])]:
        short = seconds(read, unit, LONGEST // 16)
        # A quarter first: what grows with the square is found before it takes minutes.
        middle = seconds(read, unit, LONGEST // 4)
        assert middle < 6 * short + 0.3, f"{unit[:60]!r}: {short:.3f} s, then {middle:.3f} s for four times as much"
        if middle > 0.005:
            long = seconds(read, unit, LONGEST)
            assert long < 6 * middle + 0.3, f"{unit[:60]!r}: {middle:.3f} s, then {long:.3f} s for four times as much"


@pytest.mark.parametrize("name", TEXTS)
def test_a_good_text_with_something_long_in_its_middle(name):
    """A pattern that has begun to match meets a run that never ends."""
    reader = READERS[name]

    def read(text):
        with contextlib.suppress(*reader.errors):
            reader.read(text)

    text = reader.texts[0][:2000]
    for at in range(0, len(text), max(1, len(text) // 8)):
        for run in ("1", "a", " ", "("):
            took = seconds(read, text[:at] + run * 40_000 + text[at:])
            assert took < 1.5, f"{run!r} at {at}: {took:.1f} s"
