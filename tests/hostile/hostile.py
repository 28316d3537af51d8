"""What an attacker, a broken tool or a bad disk puts where a reader expects something else."""

from __future__ import annotations

import copy
import gc
import json
import os
import time

from hypothesis import HealthCheck, settings

EVERYTHING = os.environ.get("HOSTILE") == "all"  # `make test`; otherwise the share of the fast suite
EXAMPLES = 80  # of each reader in the fast suite
FACTOR = 8 if EVERYTHING else 1
SETTINGS = settings(
    max_examples=300 * FACTOR,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

DEEP = json.loads("[" * 60 + "]" * 60)
VALUES = (
    None,
    True,
    False,
    0,
    -1,
    1,
    3,
    10**9,
    2**31,
    2**64,
    10**39,
    -(10**30),
    0.5,
    -0.0,
    1e-320,
    1e308,
    float("inf"),
    float("nan"),
    "",
    " ",
    "x",
    "0",
    "-1",
    "1" * 5000,
    "1e400",
    "NaN",
    "../../etc/passwd",
    "/etc/passwd",
    "--local-dir=/etc",
    "a\nb",
    "a\x00b",
    "\x1b]0;owned\x07",
    "\u202etxt.exe",
    "{{ lookup('pipe', 'id') }}",
    "${jndi:x}",
    "A" * 20_000,
    "(" * 2000,
    "re:(a+)+$",
    [],
    {},
    [[]],
    [None],
    [0],
    ["x"],
    {"": None},
    {"x": {"x": {}}},
    [1] * 5000,
    DEEP,
)
FRAGMENTS = (
    "\x00",
    "\n",
    "\r",
    "\t",
    " ",
    '"',
    "'",
    "\\",
    "<",
    "&amp;",
    "]]>",
    "{",
    "}",
    "[",
    ",",
    "=",
    ":",
    "-",
    "#",
    "(",
    "(" * 500,
    " " * 500,
    "9" * 5000,
    "-1",
    "1e400",
    "NaN",
    "inf",
    "1.2.3",
    "²",
    "٣",
    "\x1b[2J",
    "\u202e",
    "\ufeff",
    "\ufffd",
    "é" * 50,
    "A" * 5000,
    "..",
    "%s",
    "{0}",
    "ERR!",
    "[N/A]",
    "N/A",
    "Unknown Error",
)


def altered(chance, documents):
    """One of the documents, with one to three of its values replaced, removed or multiplied."""
    document = copy.deepcopy(chance.choice(documents))
    for _time in range(chance.choice((1, 1, 2, 3))):
        document = _altered_once(chance, document)
    return document


def reworded(chance, documents):
    """One of the documents, with one to three of its texts replaced: where only the words are another's."""
    document = copy.deepcopy(chance.choice(documents))
    for _time in range(chance.choice((1, 1, 2, 3))):
        ways = []
        _collect(document, ways)
        parent, key = chance.choice([way for way in ways if isinstance(way[0][way[1]], str)])
        parent[key] = chance.choice([value for value in VALUES if isinstance(value, str)])
    return document


def _altered_once(chance, document):
    ways = []
    _collect(document, ways)
    if not ways or chance.random() < 0.02:
        return copy.deepcopy(chance.choice(VALUES))
    parent, key = chance.choice(ways)
    action = chance.random()
    if action < 0.1:
        del parent[key]
    elif action < 0.2 and isinstance(parent, list):
        parent.extend([parent[key]] * 50)
    elif action < 0.25 and isinstance(parent, dict):
        parent[chance.choice(("", "x", "../x", "A" * 500))] = parent.pop(key)
    else:
        parent[key] = copy.deepcopy(chance.choice(VALUES))
    return document


def _collect(value, ways):
    """Every (container, key or index) of a document; of long lists only the beginning."""
    keys = list(value) if isinstance(value, dict) else range(min(len(value), 6)) if isinstance(value, list) else ()
    for key in keys:
        ways.append((value, key))
        if len(ways) < 400:
            _collect(value[key], ways)


def garbled(chance, texts):
    """One of the texts, in which one to four times something was inserted, cut out, multiplied or cut off."""
    text = chance.choice(texts)
    for _time in range(chance.choice((1, 1, 2, 4))):
        at, length = chance.randint(0, len(text)), chance.choice((0, 1, 2, 5, 20, 200))
        action = chance.random()
        if action < 0.5:
            text = text[:at] + chance.choice(FRAGMENTS) + text[at + length :]
        elif action < 0.7:
            text = text[:at] + text[at + length :]
        elif action < 0.9:
            text = text[:at] + text[at : at + length] * chance.choice((2, 30)) + text[at + length :]
        else:
            text = text[:at]
    return text


def seconds(function, *arguments):
    """The processor time of a call, without that of collecting what others left."""
    gc.disable()
    try:
        begin = time.process_time()
        function(*arguments)
        return time.process_time() - begin
    finally:
        gc.enable()
