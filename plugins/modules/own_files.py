#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: own_files
short_description: Take away files of known names, and their directory when nothing else is in it
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Removes the files of a directory whose names are known, and the directory when it is empty then.
  - What others put there stays, with the directory. Links are not followed.
extends_documentation_fragment:
  - inferops.gpu_host.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: RV(removed) tells what goes.
options:
  directory:
    description: The directory.
    type: path
    required: true
  names:
    description: Regular expressions for whole names of files that are directly in it.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Remove the plan, and the directory unless others use it
  inferops.gpu_host.own_files:
    directory: /etc/inferops
    names: ['plan\.json']
"""

RETURN = r"""
removed:
  description: What was removed.
  returned: always
  type: list
  elements: str
left:
  description: What is there that is not known.
  returned: always
  type: list
  elements: str
"""

from ansible_collections.inferops.gpu_host.plugins.module_utils import _own_files
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule


def main():
    module = RedactingModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "names": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        removed, left = _own_files.remove(params["directory"], params["names"], module.check_mode)
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")
    module.exit_json(changed=bool(removed), removed=removed, left=left)


if __name__ == "__main__":
    main()
