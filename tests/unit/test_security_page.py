"""docs/security.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/security.md"


def named():
    """(file or scenario, test or None) of everything that the page names."""
    for line in PAGE.read_text().splitlines():
        file = None
        for path, test in re.findall(r"`((?:tests|molecule)/[\w/.-]+)?(?:::(\w+))?`", line):
            file = path or file
            if file:
                yield file, test or None


def test_every_promise_is_held_by_a_test_that_exists():
    entries = list(named())
    assert len(entries) > 100
    missing = [file for file, _test in entries if not (ROOT / file).exists()]
    assert not missing
    lost = [
        f"{file}::{test}"
        for file, test in entries
        if test and (ROOT / file).is_file() and not re.search(rf"^def {test}\(", (ROOT / file).read_text(), re.M)
    ]
    assert not lost
