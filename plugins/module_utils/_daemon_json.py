# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading and editing the text of a daemon.json: only what was asked for changes, everything else keeps its bytes.

A configuration is a dict; a *path* is the tuple of keys that leads to a value in it. Mappings are merged key by key,
anything else (also a list) is one value.
"""

from __future__ import annotations

import json
import re
from json.decoder import scanstring

from ansible_collections.inferops.gpu_host.plugins.module_utils import _redaction
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import printable

# What dockerd takes over on SIGHUP; a change of anything else needs a restart. Authorization plugins are missing on
# purpose: a wrong one ends the engine on SIGHUP, and only a restart is watched and taken back.
RELOADABLE_KEYS = frozenset(
    [
        "debug",
        "default-runtime",
        "insecure-registries",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "registry-mirrors",
        "runtimes",
        "shutdown-timeout",
    ]
)
MAX_BYTES = 1024 * 1024
_MAX_DEPTH = 32
BYTE_ORDER_MARK = "\ufeff"  # engines from 23.0 on read a file that begins with one
_DEFAULT_INDENT = "  "


class DaemonJsonError(ValueError):
    """The text is not a daemon.json; the message names the line."""


# --- reading ---------------------------------------------------------------------------------------------------------


def parse(text):
    """The configuration in `text`; an empty file is an empty configuration, as it is for dockerd."""
    body = text[len(BYTE_ORDER_MARK) :] if text.startswith(BYTE_ORDER_MARK) else text
    if not body.strip():
        return {}
    twice = []

    def members(pairs):
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _value in pairs]
            twice.append(next(key for key in keys if keys.count(key) > 1))
        return found

    try:
        config = json.loads(body, parse_constant=_refuse_constant, parse_float=_finite_float, object_pairs_hook=members)
    except json.JSONDecodeError as error:
        raise DaemonJsonError(_explain(body, error)) from None
    except RecursionError:
        raise DaemonJsonError("line 1: it is nested more than %d levels deep" % _MAX_DEPTH) from None
    except DaemonJsonError:
        raise
    except ValueError:  # a number of thousands of digits
        raise DaemonJsonError("line 1: it holds a number that is too long") from None
    if not isinstance(config, dict):
        raise DaemonJsonError("line 1: the file holds a %s, not an object in braces" % type(config).__name__)
    if _deeper_than(config, _MAX_DEPTH):
        raise DaemonJsonError("line 1: it is nested more than %d levels deep" % _MAX_DEPTH)
    try:
        json.dumps(config, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise DaemonJsonError("line 1: it holds one half of a character (\\ud800 to \\udfff)") from None
    if twice:
        _refuse_duplicates(text, text.index("{"))
        raise DaemonJsonError("line 1: the key %s occurs twice in one object" % json.dumps(twice[0]))
    return config


def _refuse_constant(name):
    raise DaemonJsonError("line 1: %s is not JSON; dockerd does not read it" % name)


def _finite_float(text):
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise DaemonJsonError("line 1: %s is no number that dockerd can read" % text[:40])
    return number


def _deeper_than(value, limit):
    level = [value]
    for _depth in range(limit):
        level = [
            inner
            for item in level
            for inner in (item.values() if isinstance(item, dict) else item)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def _line(text, position):
    return text.count("\n", 0, position) + 1


def _explain(text, error):
    position = error.pos
    last = max(len(text[:position].rstrip()) - 1, 0)  # the last character of what could still be read
    rest = text[position:]
    if rest.startswith(("//", "/*", "#")):
        reason = "a comment, which JSON does not have"
    elif text[last] == "," and rest[:1] in ("}", "]"):
        position, reason = last, "a comma after the last element"
    elif rest.startswith(",") and rest[1:].lstrip()[:1] in ("}", "]"):
        reason = "a comma after the last element"
    elif rest.startswith("'"):
        reason = "single quotes where JSON wants double quotes"
    elif not rest.strip():
        position, reason = last, "the file ends in the middle"
    elif error.msg.startswith("Expecting ','"):
        position, reason = last, "no comma after this element"
    else:
        reason = error.msg
    line = _line(text, position)
    return "line %d: %s: %s" % (line, reason, printable(text.split("\n")[line - 1].strip(), 200))


def _refuse_duplicates(text, start):
    seen = set()
    for member in _members(text, start)[0]:
        if member.key in seen:
            raise DaemonJsonError(
                "line %d: the key %s occurs twice" % (_line(text, member.start), json.dumps(member.key))
            )
        seen.add(member.key)
        if text[member.value_start] == "{":
            _refuse_duplicates(text, member.value_start)


# --- values ----------------------------------------------------------------------------------------------------------


def leaf_paths(config):
    """The paths of all values in `config`, sorted."""
    found = []
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found += [(key, *path) for path in leaf_paths(value)]
        else:
            found.append((key,))
    return sorted(found)


ABSENT = object()


def lookup(config, path):
    for key in path:
        if not isinstance(config, dict) or key not in config:
            return ABSENT
        config = config[key]
    return config


def same(one, other):
    """Equality as JSON sees it: true is not 1, and the order of keys does not matter."""
    if one is ABSENT or other is ABSENT:
        return one is other
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def changed_keys(before, after):
    """The top-level keys whose value differs, sorted."""
    keys = set(before) | set(after)
    return sorted(key for key in keys if not same(before.get(key, ABSENT), after.get(key, ABSENT)))


# --- editing ---------------------------------------------------------------------------------------------------------


class _Member:
    """One `"key": value` of an object, by its positions in the text."""

    def __init__(self, key, start, value_start, end):
        self.key = key
        self.start = start
        self.value_start = value_start
        self.end = end


_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def _skip_space(text, position):
    return _SPACE.match(text, position).end()


def _members(text, start):
    """The members of the object that opens at `start`, and the position of its closing brace. `text` is valid JSON."""
    members = []
    position = _skip_space(text, start + 1)
    while text[position] != "}":
        key, colon = scanstring(text, position + 1, True)
        value_start = _skip_space(text, _skip_space(text, colon) + 1)
        end = _DECODER.raw_decode(text, value_start)[1]
        members.append(_Member(key, position, value_start, end))
        position = _skip_space(text, end)
        if text[position] == ",":
            position = _skip_space(text, position + 1)
    return members, position


def _indent_at(text, position):
    """The white space that starts the line of `position`."""
    line_start = text.rfind("\n", 0, position) + 1
    return _SPACE.match(text, line_start, position).group()


def _own_line(text, position):
    return "\n" in text[:position] and not text[text.rfind("\n", 0, position) + 1 : position].strip()


def _indent_unit(text):
    members = _members(text, text.index("{"))[0]
    if members and _own_line(text, members[0].start):
        return _indent_at(text, members[0].start) or _DEFAULT_INDENT
    return _DEFAULT_INDENT


def _render(value, indent, unit):
    return json.dumps(value, indent=unit, ensure_ascii=False).replace("\n", "\n" + indent)


def _nest(path, value):
    for key in reversed(path):
        value = {key: value}
    return value


def _insert(text, start, key, value):
    """`text` with a new member at the end of the object that opens at `start`."""
    name = json.dumps(key, ensure_ascii=False)
    unit = _indent_unit(text)
    members, close = _members(text, start)
    if not members:
        outer = _indent_at(text, start)
        inner = outer + unit
        added = "{\n" + inner + name + ": " + _render(value, inner, unit) + "\n" + outer
        return text[:start] + added + text[close:]
    if _own_line(text, members[0].start):
        indent = _indent_at(text, members[0].start)
        added = ",\n" + indent + name + ": " + _render(value, indent, unit)
    else:
        added = ", " + name + ": " + json.dumps(value, ensure_ascii=False)
    end = members[-1].end
    return text[:end] + added + text[end:]


def set_value(text, path, value):
    start = text.index("{")
    for depth, key in enumerate(path):
        member = next((item for item in _members(text, start)[0] if item.key == key), None)
        rest = path[depth + 1 :]
        if member is None:
            return _insert(text, start, key, _nest(rest, value))
        if rest and text[member.value_start] == "{":
            start = member.value_start
            continue
        new = _nest(rest, value)
        if same(json.loads(text[member.value_start : member.end]), new):
            return text
        rendered = _render(new, _indent_at(text, member.start), _indent_unit(text))
        return text[: member.value_start] + rendered + text[member.end :]
    return text


def remove_value(text, path):
    """`text` without the member at `path`; a mapping that becomes empty goes with it."""
    start = text.index("{")
    for depth, key in enumerate(path):
        members, close = _members(text, start)
        index = next((i for i, item in enumerate(members) if item.key == key), None)
        if index is None:
            return text
        member = members[index]
        if depth < len(path) - 1:
            if text[member.value_start] != "{":
                return text
            start = member.value_start
        elif len(members) > 1:
            if index + 1 < len(members):
                return text[: member.start] + text[members[index + 1].start :]
            return text[: members[index - 1].end] + text[member.end :]
        elif depth:
            return remove_value(text, path[:-1])
        else:
            return text[: start + 1] + text[close:]
    return text


def with_value(config, path, value):
    """A copy of `config` with `value` at `path`."""
    key, rest = path[0], path[1:]
    if not rest:
        return dict(config, **{key: value})
    inner = config.get(key)
    return dict(config, **{key: with_value(inner if isinstance(inner, dict) else {}, rest, value)})


def without_value(config, path):
    key, rest = path[0], path[1:]
    if key not in config or (rest and not isinstance(config[key], dict)):
        return config
    inner = without_value(config[key], rest) if rest else {}
    if inner:
        return dict(config, **{key: inner})
    return {name: value for name, value in config.items() if name != key}


def value_text(text, path):
    """The bytes of the value at `path`, which is there."""
    start = text.index("{")
    for key in path:
        member = next(item for item in _members(text, start)[0] if item.key == key)
        start = member.value_start
    return text[member.value_start : member.end]


def put_back(text, path, bytes_of_value):
    """`text` with the bytes `bytes_of_value` as the value at `path`."""
    text = set_value(text, path, None)
    start = text.index("{")
    for key in path:
        member = next(item for item in _members(text, start)[0] if item.key == key)
        start = member.value_start
    return text[: member.value_start] + bytes_of_value + text[member.end :]


# --- secrets ---------------------------------------------------------------------------------------------------------


def holds_secret(text):
    """Whether `text` should be nobody's but its owner's: a password in an address, or a value whose name says so."""
    return without_passwords(text) != text


def without_passwords(text):
    """`text` as everybody may see it."""
    return _redaction.text(text)
