#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: Facts of a host that decide whether it can serve
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Tells what C(setup) does not. How much space there is below paths that may not exist yet,
    whether O(requirements) fit, which TCP ports are listened on and by which program,
    and which Python modules can be imported.
extends_documentation_fragment:
  - inferops.gpu_host.attributes
  - inferops.gpu_host.attributes.info_module
  - inferops.gpu_host.requirements
options:
  paths:
    description:
      - Paths whose file system is looked at. A path that does not exist is judged by its nearest existing parent.
    type: list
    elements: path
    default: []
  python_modules:
    description: Names of Python modules that are tried in the interpreter that runs this module.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Look at the disk and the ports
  inferops.gpu_host.host_info:
    paths: [/data, /var/lib/docker]
    python_modules: [requests]
  register: host
"""

RETURN = r"""
paths:
  description: What lies below each path.
  returned: always
  type: dict
  contains:
    exists:
      description: Whether the path itself exists.
      type: bool
    free_bytes:
      description: Bytes that root can still write.
      type: int
    total_bytes:
      description: Size of the file system in bytes.
      type: int
    root_filesystem:
      description: Whether it is the file system of C(/).
      type: bool
space_refusals:
  description: Why O(requirements) do not fit, with the figures.
  returned: always
  type: list
  elements: str
listening:
  description: The TCP ports that are listened on, as strings, each with C(process) and C(pid) where they can be seen.
  returned: always
  type: dict
python_modules:
  description: Whether each module can be imported.
  returned: always
  type: dict
"""

import importlib.util
import os

from ansible_collections.inferops.gpu_host.plugins.module_utils._listening import listeners
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule
from ansible_collections.inferops.gpu_host.plugins.module_utils._space import (
    REQUIREMENT_SPEC,
    filesystem_of,
    space_refusals,
)


def space_below(path):
    exists = os.path.exists(path)
    while not os.path.exists(path):
        path = os.path.dirname(path) or "/"
    status = os.statvfs(path)
    return {
        "exists": exists,
        "free_bytes": status.f_bfree * status.f_frsize,
        "total_bytes": status.f_blocks * status.f_frsize,
        "root_filesystem": os.stat(path).st_dev == os.stat("/").st_dev,
    }


def importable(name):
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def main():
    module = RedactingModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "default": []},
            "python_modules": {"type": "list", "elements": "str", "default": []},
            "requirements": {"type": "list", "elements": "dict", "default": [], "options": REQUIREMENT_SPEC},
        },
        supports_check_mode=True,
    )
    requirements = module.params["requirements"]
    module.exit_json(
        changed=False,
        paths={path: space_below(path) for path in module.params["paths"]},
        space_refusals=space_refusals(requirements, {one["path"]: filesystem_of(one) for one in requirements}),
        listening={str(port): owner for port, owner in listeners().items()},
        python_modules={name: importable(name) for name in module.params["python_modules"]},
    )


if __name__ == "__main__":
    main()
