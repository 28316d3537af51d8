#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: private_directory
short_description: A directory that nobody else can change
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Makes a directory, or takes the one that is there, and refuses one that another account made, can write to, leads
    elsewhere by a symbolic link, or can exchange because it may write to a directory above it.
  - For what root downloads, checks and then installs or runs.
options:
  path:
    description: The directory.
    type: path
    required: true
  state:
    description:
      - V(present) makes it.
      - V(checked) only looks whether another account could change or exchange it; then it may be a file, too.
    type: str
    choices: [present, checked]
    default: present
  prefix:
    description:
      - Makes a new directory of a random name below O(path), which begins with this. The caller removes it.
    type: str
  mode:
    description: Its permissions. A new directory of a random name is always V(0700).
    type: str
    default: "0700"
  variable:
    description: What an operator would set to have it elsewhere; the refusal names it.
    type: str
    default: path
extends_documentation_fragment:
  - inferops.gpu_host.attributes
attributes:
  check_mode:
    support: full
    details: A directory of a random name has no name then.
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Make room for a download
  inferops.gpu_host.private_directory:
    path: /var/cache
    prefix: download-
  register: room
"""

RETURN = r"""
path:
  description: The directory. Empty in check mode for one of a random name.
  type: str
  returned: success
"""

from ansible_collections.inferops.gpu_host.plugins.module_utils import _private_files
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule


def main():
    module = RedactingModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "checked"], "default": "present"},
            "prefix": {"type": "str"},
            "mode": {"type": "str", "default": "0700"},
            "variable": {"type": "str", "default": "path"},
        },
        supports_check_mode=True,
    )
    path, prefix = module.params["path"], module.params["prefix"]
    try:
        mode = int(module.params["mode"], 8)
    except ValueError:
        module.fail_json(msg="mode is %s, wanted octal permissions such as 0700" % module.params["mode"])
    try:
        if module.params["state"] == "checked":
            _private_files.refuse_untrusted(path)
            module.exit_json(changed=False, path=path)
        if prefix is not None:
            made = "" if module.check_mode else _private_files.random_directory(path, prefix)
            module.exit_json(changed=True, path=made)
        if module.check_mode:
            changed = _private_files.would_change(path, mode)
        else:
            changed = _private_files.private_directory(path, mode)
    except _private_files.Untrusted as error:
        module.fail_json(
            msg="%s: whoever can change it decides what is installed from there. Wanted a place of %s that no "
            "other account can write to; give it to that account and take the others' rights away, or set %s to "
            "another place." % (error, _private_files.account(_private_files.us()), module.params["variable"])
        )
    except OSError as error:
        module.fail_json(msg="%s cannot be made a directory: %s. Set %s." % (path, error, module.params["variable"]))
    module.exit_json(changed=changed, path=path)


if __name__ == "__main__":
    main()
