# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What everybody may see of a value."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils._redaction import redacted


class FilterModule:
    def filters(self):
        return {"redacted": redacted}
