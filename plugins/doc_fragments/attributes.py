# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module says of itself in `attributes`; the module adds `support`, and `details` where there are any."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Can run in C(check_mode) and tell whether it would change anything, without changing it.
  diff_mode:
    description: Returns what changes, or in C(check_mode) would change, when in diff mode.
"""

    # For modules that only look.
    INFO_MODULE = r"""
attributes:
  check_mode:
    support: full
    details: Changes nothing in any mode.
  diff_mode:
    support: N/A
    details: Changes nothing in any mode.
"""
