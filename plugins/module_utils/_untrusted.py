# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading what others wrote: hubs, models, engines, drivers, neighbours.

Everything here is bounded in bytes, depth and digits, and fails with one error that says what was read and why it was
refused. Readers pass their own class of error, so that whoever calls them has one kind to catch.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat

from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB, format_bytes

LONGEST_JSON = 8 * MIB  # a config.json with the names of 20,000 labels has one MiB
DEEPEST = 64  # no document that is read here nests deeper than ten
MOST_DIGITS = 40  # twice what 64 bits take; Python's int() refuses, or takes minutes for, the digits of a whole file
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# C0 and C1 control characters, what turns the direction of writing around, and halves of surrogate pairs.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


class UntrustedError(ValueError):
    """What others wrote and cannot be used: what was read, and why it was refused."""


class _Refused(ValueError):
    """Why, without saying yet of what."""


def bounded_json(text, what, error=UntrustedError, limit=LONGEST_JSON, depth=DEEPEST, infinite=False, unique=False):
    """The data in `text` (str or bytes). `what` names it in the message of `error`.

    infinite: let NaN and Infinity pass, which Python writes into configurations of models. A number beyond the range
    of a float is infinite too.
    unique: refuse an object that has a key twice; otherwise the last one counts, as for every engine.
    """
    try:
        return _parse(text, limit, depth, infinite, unique)
    except RecursionError:
        raise error(f"{what} nests deeper than {depth} levels") from None
    except _Refused as reason:
        raise error(f"{what} {reason}") from None
    except ValueError as reason:
        raise error(f"{what} is no JSON ({printable(reason)})") from None


def _parse(text, limit, depth, infinite, unique):
    if len(text) > limit:
        raise _Refused(f"is longer than {format_bytes(limit)}")
    if isinstance(text, (bytes, bytearray)):
        try:
            text = bytes(text).decode("utf-8")
        except UnicodeDecodeError as reason:
            raise _Refused(f"is not in UTF-8 (byte {reason.start})") from None

    def number(digits):
        if len(digits) > MOST_DIGITS:
            raise _Refused(f"holds a number of {len(digits)} digits")
        value = float(digits) if any(sign in digits for sign in ".eE") else int(digits)
        if isinstance(value, float) and not infinite and not math.isfinite(value):
            raise _Refused(f"holds the number {digits}, which no float can hold")
        return value

    def constant(name):
        if not infinite:
            raise _Refused(f"holds {name}, which is no JSON")
        return float(name)

    def once(pairs):
        found = dict(pairs)
        if len(found) < len(pairs):
            seen = set()
            twice = next(key for key, _value in pairs if key in seen or seen.add(key))
            raise _Refused(f"has the key {printable(twice, 80)} twice")
        return found

    hooks = {"object_pairs_hook": once} if unique else {}
    data = json.loads(text, parse_int=number, parse_float=number, parse_constant=constant, **hooks)
    lone = "\\ud" in text or "\\uD" in text or _LONE_SURROGATE.search(text)
    if lone or text.count("[") + text.count("{") > depth:
        _walk(data, depth, lone)
    return data


def _walk(data, depth, lone):
    """Refuses what is nested too deep, and (with `lone`) halves of surrogate pairs, which cannot be written again."""
    todo = [(data, 1)]
    while todo:
        value, level = todo.pop()
        if isinstance(value, (dict, list)):
            if level > depth:
                raise _Refused(f"nests deeper than {depth} levels")
            todo.extend((one, level + 1) for one in (value.values() if isinstance(value, dict) else value))
            if lone and isinstance(value, dict):
                todo.extend((key, level) for key in value)
        elif lone and isinstance(value, str) and _LONE_SURROGATE.search(value):
            raise _Refused("holds half of a surrogate pair, which is no character")


def read_file(path, what=None, error=UntrustedError, limit=LONGEST_JSON, end=False):
    """The bytes of a regular file that has at most `limit` of them. A pipe or a device is never waited for.

    end: of a longer file, its end.
    """
    what = what or path
    data = None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode):
                if end:
                    os.lseek(descriptor, max(0, status.st_size - limit), os.SEEK_SET)
                with open(descriptor, "rb", closefd=False) as stream:
                    data = stream.read(limit if end else limit + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as reason:
        raise error(f"{printable(what)} cannot be read: {getattr(reason, 'strerror', None) or reason}") from None
    if data is None:
        raise error(f"{printable(what)} is no regular file")
    if len(data) > limit:
        raise error(f"{printable(what)} is longer than {format_bytes(limit)}")
    return data


def read_json(path, what=None, error=UntrustedError, limit=LONGEST_JSON, **rules):
    """The data of a JSON file; see read_file and bounded_json."""
    what = what or path
    return bounded_json(read_file(path, what, error, limit), printable(what), error, limit, **rules)


def printable(text, limit=300):
    """`text` as one line that can be shown on a terminal: what could steer it is replaced."""
    line = re.sub(r"[\t\r\n]", " ", str(text)[: limit + 1])
    line = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def whole_number(text, largest=10**15):
    """The number that decimal digits are, or None where `text` is anything else or the number is absurd."""
    text = text.strip() if isinstance(text, str) else ""
    if not 0 < len(text) <= 20 or not (text.isascii() and text.isdigit()):
        return None
    value = int(text)
    return value if value <= largest else None
