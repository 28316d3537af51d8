# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which patterns of module names a checkpoint may bring."""

from __future__ import annotations

import math
import re

MOST_PATTERNS = 100_000  # of a checkpoint that lists every expert of every layer by name
MOST_STEPS = 100_000  # for all expressions together, on one name
LONGEST_EXPRESSION = 400
_NAME = 64  # characters that the names tried here have


def pattern_refusal(patterns):
    """(found, wanted) for a list of module patterns that must not be tried on names; None for one that may.

    Whoever publishes a checkpoint writes these expressions, and Python's run for years on some: those that repeat what
    repeats itself, or that repeat without end many times.
    """
    if len(patterns) > MOST_PATTERNS:
        return f"{len(patterns)} patterns", f"at most {MOST_PATTERNS}"
    steps = 0
    for pattern in patterns:
        if pattern.startswith("re:"):
            again = re.search(r"\\[1-9]|\(\?P=", pattern)  # what was found before
            expression = re.sub(r"\\.|\[(?:\\.|[^\]\\])*\]", "x", pattern[3:][: LONGEST_EXPRESSION + 1])
            repetitions = len(re.findall(r"[*+{]", expression))
            if again or len(expression) > LONGEST_EXPRESSION or re.search(r"\)[*+{]|\{\d*,?\d{3}", expression):
                return pattern, f"a regular expression of at most {LONGEST_EXPRESSION} characters that repeats no group"
            try:
                re.compile(pattern[3:])
            except (re.error, OverflowError, RecursionError) as error:
                return pattern, f"a regular expression ({error})"
        elif any(c in pattern for c in "*?["):
            repetitions = pattern.count("*")
        else:
            continue
        steps += _NAME ** min(repetitions, 9) // math.factorial(min(repetitions, 9))
        if steps > MOST_STEPS or len(pattern) > LONGEST_EXPRESSION + 3:
            return pattern, "patterns that are tried faster: fewer of them, with fewer * and +"
    return None
