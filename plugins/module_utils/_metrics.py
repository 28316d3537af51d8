# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of a service's /metrics page that tell how busy it is."""

from __future__ import annotations

import math
import re

# Up to 0.9 vLLM called the share of the cache in use gpu_cache_usage_perc.
_NAMES = {
    "running": ("vllm:num_requests_running",),
    "waiting": ("vllm:num_requests_waiting", "te_queue_size"),
    "kv_cache_use": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
}
_LINE = re.compile(r"^([a-zA-Z_:][\w:]{0,200})(?:\{.*\})? ([-+\d.eE]{1,40})$")
_WANTED = tuple(name for names in _NAMES.values() for name in names)
LONGEST_LINE = 2000
MOST = 1e15  # requests that nobody has; what is beyond was not written by an engine


def figures(page):
    """{running, waiting, kv_cache_use} of a page in Prometheus' format; None for what it does not tell.

    Engines of one server count separately: requests are added, of the caches the fullest one counts.
    """
    values = {}
    for line in page.splitlines():
        match = _LINE.match(line[:LONGEST_LINE]) if line.startswith(_WANTED) else None
        value = _number(match.group(2)) if match else None
        if value is not None:
            values.setdefault(match.group(1), []).append(value)
    told = {}
    for figure, names in _NAMES.items():
        found = next((values[name] for name in names if name in values), None)
        told[figure] = None if found is None else max(found) if figure == "kv_cache_use" else int(sum(found))
    return told


def _number(text):
    """What a sample says; None for NaN, which an idle engine says too, and for what is no count."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value <= MOST else None
