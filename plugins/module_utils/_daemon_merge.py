# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose keys of daemon.json are whose, and what a merge makes of the file.

Each *owner* (a role, say) has its own set of paths in the *memory*. What was *found* at such a path, because others had
written it before us, is remembered as well and comes back when we leave.
"""

from __future__ import annotations

import json

from ansible_collections.inferops.gpu_host.plugins.module_utils._daemon_json import (
    ABSENT,
    BYTE_ORDER_MARK,
    leaf_paths,
    lookup,
    parse,
    put_back,
    remove_value,
    same,
    set_value,
    value_text,
    with_value,
    without_value,
)

# It decides how every container of the engine runs, so what others wrote there is never replaced.
_NEVER_REPLACED = ("exec-opts",)
# Their options are the bounds that the roles set by default; other drivers refuse them.
_BOUNDED_LOG_DRIVERS = ("json-file", "local")


class OwnerConflictError(ValueError):
    """Two owners want different values for one key, or an owner one that others have set for good."""


def _touch(one, other):
    """Whether one path leads to the other, or is it."""
    return one[: len(other)] == other[: len(one)]


def _owned(path, owners):
    return any(_touch(path, tuple(other)) for paths in owners.values() for other in paths)


def _replaced(config, path):
    """The path of the value that gives way when `path` is set: itself, or what stands where a mapping is wanted."""
    for length in range(1, len(path) + 1):
        present = lookup(config, path[:length])
        if present is ABSENT:
            return None
        if length == len(path) or not isinstance(present, dict):
            return path[:length]
    return None


def yielding(defaults, config, asked, owners):
    """Those of our `defaults` that neither what was `asked` for nor what others wrote in `config` speaks against."""
    taken = {}
    for path in leaf_paths(defaults):
        foreign = lookup(config, path) is not ABSENT and not _owned(path, owners)
        if not foreign and lookup(asked, path) is ABSENT:
            taken = with_value(taken, path, lookup(defaults, path))
    driver = asked.get("log-driver", taken.get("log-driver", config.get("log-driver", "json-file")))
    if driver not in _BOUNDED_LOG_DRIVERS:
        taken.pop("log-opts", None)
    return taken


def combined(one, other):
    """Two configurations as one, in which `other` wins."""
    for path in leaf_paths(other):
        one = with_value(one, path, lookup(other, path))
    return one


def merge(text, wanted, owners, owner, found=()):
    """Brings what `owner` wants into `text`.

    `owners` maps every owner to the list of paths it has set so far, `found` lists {path, text} of the values that
    others had written there before. Paths that `owner` no longer wants are removed, unless another owner wants them
    too, and what was found there comes back. Returns (new text, new owners, new found).
    """
    config = parse(text)
    mine = leaf_paths(wanted)
    others = {tuple(path): name for name, paths in owners.items() if name != owner for path in paths}
    found = {tuple(entry["path"]): entry["text"] for entry in found}
    for path in mine:
        present = lookup(config, path)
        if present is ABSENT or same(present, lookup(wanted, path)):
            continue
        words = (".".join(path), json.dumps(present))
        if path in others:
            raise OwnerConflictError(
                "%s is set to %s by %s, and %s wants %s"
                % (*words, others[path], owner, json.dumps(lookup(wanted, path)))
            )
        if path[0] in _NEVER_REPLACED and not _owned(path, owners):
            raise OwnerConflictError(
                "%s is %s, which others have written and which is not replaced; %s wants %s"
                % (*words, owner, json.dumps(lookup(wanted, path)))
            )

    new_text = text if config or text.strip(BYTE_ORDER_MARK + " \t\r\n") else "{}\n"
    expected = config
    for path in mine:
        gives_way = _replaced(config, path)
        if gives_way and not _owned(gives_way, owners):
            found.setdefault(gives_way, value_text(text, gives_way))
    new_owners = {name: [list(path) for path in paths] for name, paths in owners.items() if name != owner and paths}
    if mine:
        new_owners[owner] = [list(path) for path in mine]
    for path in (tuple(path) for path in owners.get(owner, [])):
        still_wanted = any(other[: len(path)] == path for other in [*mine, *others])
        present = lookup(expected, path)
        if still_wanted or present is ABSENT or (isinstance(present, dict) and present):
            continue
        if path in found and not _owned(path, new_owners):
            value = found.pop(path)
            new_text, expected = put_back(new_text, path, value), with_value(expected, path, json.loads(value))
        else:
            new_text, expected = remove_value(new_text, path), without_value(expected, path)
    for path in mine:
        value = lookup(wanted, path)
        new_text, expected = set_value(new_text, path, value), with_value(expected, path, value)
    for path in [path for path in found if not _owned(path, new_owners)]:
        value = found.pop(path)  # it stood where a mapping was wanted, which has gone
        if lookup(expected, path) is ABSENT:
            new_text, expected = put_back(new_text, path, value), with_value(expected, path, json.loads(value))

    if not same(parse(new_text), expected):  # the editor above is wrong; better no change than a wrong one
        raise AssertionError("the edited text does not mean what was intended: " + new_text)
    if not config and not expected:
        new_text = text
    return new_text, new_owners, [{"path": list(path), "text": found[path]} for path in sorted(found)]


def both_owners(one, other):
    """The union of two memories, for the moment in which either may be true."""
    return {
        name: [list(path) for path in sorted({tuple(path) for path in one.get(name, []) + other.get(name, [])})]
        for name in sorted(set(one) | set(other))
    }
