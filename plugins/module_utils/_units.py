# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes in, words out: the two unit systems that sizing always confuses, kept apart by name."""

from __future__ import annotations

KIB = 1024
MIB = 1024**2
GIB = 1024**3
GB = 1000**3  # what vendors print on a card and disk makers on a disk


def ceil_div(a, b):
    """Smallest integer not below a / b, for integers and b > 0."""
    return -(-a // b)


def round_up(value, multiple):
    """The smallest multiple of `multiple` that is not below `value`."""
    return ceil_div(value, multiple) * multiple


def gib(value):
    """Bytes as GiB (float)."""
    return value / GIB


def format_bytes(value):
    """Bytes as a short text in binary units: 1536 → '1.5 KiB'."""
    value = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024 or unit == "GiB":
            break
        value /= 1024
    if unit == "GiB" and abs(value) >= 1024:
        value, unit = value / 1024, "TiB"
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.4g} {unit}"
