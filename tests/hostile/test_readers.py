"""Every reader of what others write, given good documents with bad things in them: it reads or refuses them.

The generator's seed is the reader's name and the case's number, so that a case that fails can be asked for again. What
failed once is pinned, in a shape that a person reads, in test_pinned.py.
"""

from __future__ import annotations

import random

import pytest
from hostile import EXAMPLES, FACTOR, altered, garbled, reworded
from readers import READERS


def case_of(name, number):
    """Case `number` of a reader."""
    reader, chance = READERS[name], random.Random(f"{name} {number}")
    if reader.texts:
        return garbled(chance, reader.texts)
    return altered(chance, reader.documents) if reader.documents else reworded(chance, reader.words)


@pytest.mark.parametrize("name", list(READERS))
def test_a_reader_reads_or_refuses(name):
    reader = READERS[name]
    for number in range(EXAMPLES * FACTOR):
        problem = ""
        try:
            reader.read(case_of(name, number))
        except reader.errors as error:
            told = str(error).strip()
            problem = "" if 0 < len(told) < 3000 else f"an error of {len(told)} characters"
        except Exception as error:
            problem = f"{type(error).__name__}: {str(error)[:300]}"
        assert not problem, f"{name}, case {number}: {problem}"


def test_what_was_not_touched_is_read():
    for name, reader in READERS.items():
        for good in (reader.documents or reader.texts or reader.words)[:12]:
            try:
                reader.read(good)
            except reader.errors as error:
                raise AssertionError(f"{name}: {error}") from error


def test_there_are_enough_cases():
    assert len(READERS) * EXAMPLES >= 2000
