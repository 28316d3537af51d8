# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The AnsibleModule of this collection: what it says to anyone has passed through the redaction."""

from __future__ import annotations

import traceback

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.inferops.gpu_host.plugins.module_utils._redaction import Redaction


class RedactingModule(AnsibleModule):
    """Results, failures, warnings, differences and the log of the system come without the secrets of the parameters.

    Options with no_log are covered by Ansible. This adds what lies deeper: passwords in addresses, tokens in mappings.
    """

    def __init__(self, *args, **kwargs):
        self._redaction = None
        super().__init__(*args, **kwargs)

    @property
    def redaction(self):
        """The secrets that this module knows. `module.redaction.add(…)` teaches it more."""
        if self._redaction is None:
            self._redaction = Redaction(getattr(self, "params", None) or {}).add(
                *(value for value in self.no_log_values if isinstance(value, str))
            )
        return self._redaction

    def _log_invocation(self):
        """What the system's log says of the invocation, which Ansible takes from the parameters."""
        params, self.params = self.params, self.redaction(self.params)
        try:
            super()._log_invocation()
        finally:
            self.params = params

    def _return_formatted(self, kwargs):
        """The way of all results, good and bad."""
        kwargs.setdefault("invocation", {"module_args": self.params})
        super()._return_formatted(self.redaction(kwargs))

    def fail_json(self, msg, **kwargs):
        if isinstance(kwargs.get("exception"), BaseException):  # as an object it would take its words along unseen
            kwargs["exception"] = "".join(
                traceback.format_exception_only(type(kwargs["exception"]), kwargs["exception"])
            )
        super().fail_json(self.redaction.text(msg), **kwargs)

    def warn(self, warning, *args, **kwargs):
        super().warn(self.redaction.text(warning), *args, **kwargs)

    def log(self, msg, *args, **kwargs):
        super().log(self.redaction(msg), *args, **kwargs)
