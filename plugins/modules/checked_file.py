#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: checked_file
short_description: Install a file that has the wanted checksum
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Reads a file once, compares its checksum, and installs exactly what it read. Nothing can come between the two.
  - Refuses a file, a symbolic link or a directory above them that another account could exchange.
options:
  src:
    description: The file on the host. Left out in check mode when it was not fetched.
    type: path
    required: true
  member:
    description: The file inside of O(src), when that is a tar archive, compressed or not.
    type: str
  sha256:
    description: The checksum that the content must have.
    type: str
    required: true
  dest:
    description: Where it is installed.
    type: path
    required: true
  mode:
    description: Its permissions.
    type: str
    default: "0755"
  told:
    description: What the content came from, for the refusal.
    type: str
  remedy:
    description: What to change when it is another one, for the refusal.
    type: str
    default: Check the checksum, and where the file came from.
extends_documentation_fragment:
  - inferops.gpu_host.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: The checksums.
"""

EXAMPLES = r"""
- name: Install the binary
  inferops.gpu_host.checked_file:
    src: "{{ room.path }}/micromamba.tar.bz2"
    member: bin/micromamba
    sha256: 366cd9cd8be14df1ab8ed50352a82111082a36686b2d389fdb79a92c3fafb3e3
    dest: /usr/bin/micromamba
"""

RETURN = r"""
checksum:
  description: SHA-256 of what was found.
  type: str
  returned: success
"""

from ansible_collections.inferops.gpu_host.plugins.module_utils import _private_files, _redaction
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule


def main():
    module = RedactingModule(
        argument_spec={
            "src": {"type": "path", "required": True},
            "member": {"type": "str"},
            "sha256": {"type": "str", "required": True},
            "dest": {"type": "path", "required": True},
            "mode": {"type": "str", "default": "0755"},
            "told": {"type": "str"},
            "remedy": {"type": "str", "default": "Check the checksum, and where the file came from."},
        },
        supports_check_mode=True,
    )
    params = module.params
    told = _redaction.text(params["told"] or params["src"])
    try:
        data = _private_files.read_once(params["src"], params["member"])
    except _private_files.Untrusted as error:
        module.fail_json(msg="%s: %s. %s" % (told, error, params["remedy"]))
    found = _private_files.sha256(data)
    if found != params["sha256"]:
        module.fail_json(
            msg="%s brought a file with sha256 %s, wanted %s. %s" % (told, found, params["sha256"], params["remedy"])
        )
    before = module.sha256(params["dest"])
    if before != found and not module.check_mode:
        _private_files.put(data, params["dest"], int(params["mode"], 8))
    module.exit_json(
        changed=before != found,
        checksum=found,
        diff={"before": (before or "nothing") + "\n", "after": found + "\n"},
    )


if __name__ == "__main__":
    main()
