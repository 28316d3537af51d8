# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Merging into a daemon.json that others write too: only what was asked for changes, everything else keeps its bytes.

A configuration is a dict; a *path* is the tuple of keys that leads to a value in it. Mappings are merged key by key,
anything else (also a list) is one value. Each *owner* (a role, say) has its own set of paths in the *memory*.
"""

from __future__ import annotations

import json
import re
from json.decoder import scanstring

# What dockerd takes over on SIGHUP; a change of anything else needs a restart.
RELOADABLE_KEYS = frozenset(
    [
        "authorization-plugins",
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
_DEFAULT_INDENT = "  "


class DaemonJsonError(ValueError):
    """The text is not a daemon.json; the message names the line."""


class OwnerConflictError(ValueError):
    """Two owners want different values for one key."""


# --- reading ---------------------------------------------------------------------------------------------------------


def parse(text):
    """The configuration in `text`; an empty file is an empty configuration, as it is for dockerd."""
    if not text.strip():
        return {}
    try:
        config = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise DaemonJsonError(_explain(text, error)) from None
    if not isinstance(config, dict):
        raise DaemonJsonError("line 1: the file holds a %s, not an object in braces" % type(config).__name__)
    _refuse_duplicates(text, text.index("{"))
    return config


def _refuse_constant(name):
    raise DaemonJsonError("%s is not JSON; dockerd does not read it" % name)


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
    return "line %d: %s: %s" % (line, reason, text.split("\n")[line - 1].strip())


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


_ABSENT = object()


def _lookup(config, path):
    for key in path:
        if not isinstance(config, dict) or key not in config:
            return _ABSENT
        config = config[key]
    return config


def _same(one, other):
    """Equality as JSON sees it: true is not 1, and the order of keys does not matter."""
    if one is _ABSENT or other is _ABSENT:
        return one is other
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def changed_keys(before, after):
    """The top-level keys whose value differs, sorted."""
    keys = set(before) | set(after)
    return sorted(key for key in keys if not _same(before.get(key, _ABSENT), after.get(key, _ABSENT)))


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


def _set(text, path, value):
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
        if _same(json.loads(text[member.value_start : member.end]), new):
            return text
        rendered = _render(new, _indent_at(text, member.start), _indent_unit(text))
        return text[: member.value_start] + rendered + text[member.end :]
    return text


def _remove(text, path):
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
            return _remove(text, path[:-1])
        else:
            return text[: start + 1] + text[close:]
    return text


def _merged(config, path, value):
    """A copy of `config` with `value` at `path`."""
    key, rest = path[0], path[1:]
    if not rest:
        return dict(config, **{key: value})
    inner = config.get(key)
    return dict(config, **{key: _merged(inner if isinstance(inner, dict) else {}, rest, value)})


def _without(config, path):
    key, rest = path[0], path[1:]
    if key not in config or (rest and not isinstance(config[key], dict)):
        return config
    inner = _without(config[key], rest) if rest else {}
    if inner:
        return dict(config, **{key: inner})
    return {name: value for name, value in config.items() if name != key}


# --- merging ---------------------------------------------------------------------------------------------------------


def merge(text, wanted, owners, owner):
    """Brings what `owner` wants into `text`.

    `owners` maps every owner to the list of paths it has set so far. Paths that `owner` no longer wants are removed,
    unless another owner wants them too. Returns (new text, new owners).
    """
    config = parse(text)
    mine = leaf_paths(wanted)
    others = {tuple(path): name for name, paths in owners.items() if name != owner for path in paths}
    for path in mine:
        present = _lookup(config, path)
        if path in others and present is not _ABSENT and not _same(present, _lookup(wanted, path)):
            raise OwnerConflictError(
                "%s is set to %s by %s, and %s wants %s"
                % (".".join(path), json.dumps(present), others[path], owner, json.dumps(_lookup(wanted, path)))
            )

    new_text = text if text.strip() else "{}\n"
    expected = config
    for path in (tuple(path) for path in owners.get(owner, [])):
        still_wanted = any(other[: len(path)] == path for other in [*mine, *others])
        present = _lookup(expected, path)
        if still_wanted or present is _ABSENT or (isinstance(present, dict) and present):
            continue
        new_text, expected = _remove(new_text, path), _without(expected, path)
    for path in mine:
        value = _lookup(wanted, path)
        new_text, expected = _set(new_text, path, value), _merged(expected, path, value)

    if not _same(parse(new_text), expected):  # the editor above is wrong; better no change than a wrong one
        raise AssertionError("the edited text does not mean what was intended: " + new_text)
    if not text.strip() and not expected:
        new_text = text
    new_owners = {name: [list(path) for path in paths] for name, paths in owners.items() if name != owner and paths}
    if mine:
        new_owners[owner] = [list(path) for path in mine]
    return new_text, new_owners


def both_owners(one, other):
    """The union of two memories, for the moment in which either may be true."""
    return {
        name: [list(path) for path in sorted({tuple(path) for path in one.get(name, []) + other.get(name, [])})]
        for name in sorted(set(one) | set(other))
    }


def without_passwords(text):
    """`text` with the credentials in URLs (proxies have them) blotted out."""
    return re.sub(r"(\w+://)[^/\s@\"']+@", r"\1***@", text)
