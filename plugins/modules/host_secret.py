#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_secret
short_description: A random secret of a host, made once
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Reads a secret from a file that only its owner may read. Where there is none, one is made, at once and for good,
    also when several plays ask at the same time.
  - The result holds the secret, so whoever keeps it sets C(no_log).
options:
  path:
    description: The file. Its directory is made when it is missing.
    type: path
    required: true
extends_documentation_fragment:
  - inferops.gpu_host.attributes
attributes:
  check_mode:
    support: full
    details: Returns the secret that is there. Where there is none, it returns one that nobody keeps.
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Read what this host makes fingerprints with
  inferops.gpu_host.host_secret:
    path: /etc/inferops/vllm/.seal
  register: seal
  no_log: true
"""

RETURN = r"""
content:
  description: The secret, 64 hexadecimal digits when it was made here.
  type: str
  returned: success
"""

from ansible_collections.inferops.gpu_host.plugins.module_utils import _private_files
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule


def main():
    module = RedactingModule(argument_spec={"path": {"type": "path", "required": True}}, supports_check_mode=True)
    path = module.params["path"]
    try:
        content, changed = _private_files.secret(path, make=not module.check_mode)
    except (_private_files.Untrusted, OSError) as error:
        module.fail_json(
            msg="The secret in %s cannot be used: %s. Wanted a file of %s in a directory of the same, that no other "
            "account can read or write. Remove it, and a new one is made."
            % (path, error, _private_files.account(_private_files.us()))
        )
    module.exit_json(changed=changed, content=content)


if __name__ == "__main__":
    main()
