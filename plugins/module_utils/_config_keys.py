# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of config.json, read under their several names and within reason; errors name the key."""

from __future__ import annotations

import math
from typing import Mapping

from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import printable

ABSURD = 1 << 30  # no width, count or length of a real model reaches this
MOST_LAYERS = 1024  # the deepest merges that people published have about 300
LONGEST_LIST = 4096  # of entries per layer, or of layers


class ConfigError(ValueError):
    """A configuration that cannot be read: which field, what was found there, what would work."""

    def __init__(self, field, found, wanted):
        self.field, self.found, self.wanted = field, found, wanted
        super().__init__(f"config.json: {field} is {printable(repr(found))}, wanted {printable(wanted)}")


class Keys:
    """A mapping's keys, read under their several names, with errors that name the field."""

    def __init__(self, raw, published_defaults=None, fallback=None):
        """published_defaults: {model type: {key: value}}. fallback: where else the model type may stand."""
        self.raw = raw
        model_type = raw.get("model_type") or (fallback or {}).get("model_type") or ""
        if not isinstance(model_type, str):
            raise ConfigError("model_type", model_type, "a word, such as 'llama'")
        self.defaults = (published_defaults or {}).get(model_type, {})
        self.assumed = []

    def get(self, *names, default=None):
        """The first of `names` that is set, else the model type's published default, else `default`."""
        for name in names:
            value = self.raw.get(name)
            if value is not None:
                if isinstance(value, (list, tuple, str)) and len(value) > LONGEST_LIST:
                    raise ConfigError(name, f"{len(value)} entries", f"at most {LONGEST_LIST}")
                return value
        for name in names:
            if name not in self.raw and self.defaults.get(name) is not None:
                note = f"{name}={self.defaults[name]}"
                if note not in self.assumed:
                    self.assumed.append(note)
                return self.defaults[name]
        return default

    def per_layer(self, index, *names):
        """A count that may be given as a list with one entry per layer."""
        value = self.get(*names)
        if isinstance(value, (list, tuple)):
            value = value[index] if index < len(value) else None
        return None if value is None else whole_number(self.name_of(*names), value)

    def listed(self, *names):
        """A list, empty where there is none."""
        value = self.get(*names, default=())
        if not isinstance(value, (list, tuple)):
            raise ConfigError(self.name_of(*names), value, "a list")
        return value

    def name_of(self, *names):
        return next((n for n in names if self.raw.get(n) is not None), names[0])

    def optional_count(self, *names, minimum=0):
        value = self.get(*names)
        if value is None:
            return None
        return whole_number(self.name_of(*names), value, minimum)

    def count(self, *names, minimum=1):
        value = self.optional_count(*names, minimum=minimum)
        if value is None:
            others = f" (or {', '.join(names[1:])})" if names[1:] else ""
            raise ConfigError(names[0], None, f"an integer of at least {minimum}{others}; the key is missing")
        return value


def whole_number(name, value, minimum=0):
    """`value` as an integer within reason, or a ConfigError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not float(value).is_integer():
        raise ConfigError(name, value, f"an integer of at least {minimum}")
    if not minimum <= value < ABSURD:
        raise ConfigError(name, value, f"an integer from {minimum} to {ABSURD - 1}")
    return int(value)


def positive_number(name, value, most):
    """`value` as a finite number above 0, or a ConfigError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= most:
        raise ConfigError(name, value, f"a number above 0, at most {most}")
    return value


def rounded(name, value):
    """The whole number below a product of the file's figures."""
    if not math.isfinite(value):
        raise ConfigError(name, value, "a finite number")
    return whole_number(name, int(value))


def mapping_or_empty(block):
    return block if isinstance(block, Mapping) else {}
