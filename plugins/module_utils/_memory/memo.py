# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers remembered per ModelSpec object: hashing a spec of many layers costs more than most answers."""

from __future__ import annotations


class SpecMemo:
    """A bounded memory of what was computed for a ModelSpec and a key."""

    def __init__(self, size=512):
        self.size, self.values = size, {}

    def get(self, spec, key, compute):
        """What `compute()` answered for this very spec and key."""
        full = (id(spec), key)
        hit = self.values.get(full)
        if hit is not None:
            return hit[1]
        if len(self.values) >= self.size:
            self.values.clear()
        value = compute()
        self.values[full] = (spec, value)  # the spec is kept, so that its id stays its own
        return value
