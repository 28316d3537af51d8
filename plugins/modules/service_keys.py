#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_keys
short_description: Make, read and keep the API keys of services
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Holds a key for each service in a file of mode 0600 below a directory of mode 0700. A key that is there is never
    replaced by O(make), whoever else makes one at the same time.
  - Its result holds keys. Use it with C(no_log).
  - What cannot be read or trusted is told in RV(problems) and does not fail the task, since C(no_log) would hide why.
extends_documentation_fragment:
  - inferops.gpu_host.attributes
attributes:
  check_mode:
    support: full
    details: Nothing is made, and RV(made) tells what would be.
  diff_mode:
    support: none
options:
  directory:
    description: Where the keys lie, one file for each service.
    type: path
    required: true
  services:
    description: The services whose keys are wanted.
    type: list
    elements: str
    default: []
  make:
    description: Those of them that get a key when they have none.
    type: list
    elements: str
    default: []
  rotate:
    description: Those that get a new key beside the old one, until O(commit). One that waits already stays.
    type: list
    elements: str
    default: []
  commit:
    description: Those whose new key takes the place of the old one.
    type: list
    elements: str
    default: []
  copies:
    description: Keys to keep here as they are, by service.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Have a key for a service
  inferops.gpu_host.service_keys:
    directory: /etc/inferops/keys
    services: [chat]
    make: [chat]
  register: keys
  no_log: true
"""

RETURN = r"""
found:
  description: The key of each of O(services), or nothing where there is none.
  returned: always
  type: dict
pending:
  description: The new keys of those whose rotation is not over.
  returned: always
  type: dict
made:
  description: The services that got a key now, or would get one in check mode.
  returned: always
  type: list
  elements: str
news:
  description: What was set right, for a person.
  returned: always
  type: list
  elements: str
problems:
  description: What cannot be read or trusted, for a person.
  returned: always
  type: list
  elements: str
"""

import os

from ansible_collections.inferops.gpu_host.plugins.module_utils import _key_files
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule
from ansible_collections.inferops.gpu_host.plugins.module_utils._service_values import Bad, container_name


class Keys:
    def __init__(self, directory, dry):
        self.directory, self.dry = directory, dry
        self.result = {"changed": False, "found": {}, "pending": {}, "made": [], "news": [], "problems": []}

    def each(self, names, act):
        for name in names:
            try:
                act(container_name(name))
            except Bad as wanted:
                self.result["problems"].append("%r is no name of a service, wanted %s" % (name, wanted))
            except (_key_files.KeyFileError, OSError) as error:
                self.result["problems"].append(str(error))

    def close(self):
        """Others may not even look at the names of the files."""
        try:
            if _key_files.directory_is_loose(self.directory):
                self.result["changed"] = True
                self.result["news"].append("%s was open to other accounts; it is 0700 now" % self.directory)
                if not self.dry:
                    _key_files.have_directory(self.directory)
        except (_key_files.KeyFileError, OSError) as error:
            self.result["problems"].append(str(error))

    def read(self, name):
        path, pending = (of(self.directory, name) for of in (_key_files.path_of, _key_files.pending_path_of))
        for where, kind in ((path, "found"), (pending, "pending")):
            key, loose = _key_files.read(where)
            if key or kind == "found":
                self.result[kind][name] = key
            if loose:
                self.result["changed"] = True
                self.result["news"].append(
                    "%s could be read by other accounts; it is 0600 now. If somebody may have read it: "
                    "playbooks/rotate_key.yml -e service=%s" % (where, name)
                )
                if not self.dry:
                    _key_files.close(where)

    def make(self, name):
        if self.result["found"].get(name) or self.result["pending"].get(name):
            return
        self.result["changed"] = True
        self.result["made"].append(name)
        if not self.dry:
            self.result["found"][name], _made = _key_files.make(_key_files.path_of(self.directory, name))

    def rotate(self, name):
        if self.result["pending"].get(name):
            return
        self.result["changed"] = True
        self.result["made"].append(name)
        if not self.dry:
            path = _key_files.pending_path_of(self.directory, name)
            self.result["pending"][name], _made = _key_files.make(path)

    def commit(self, name):
        pending = _key_files.pending_path_of(self.directory, name)
        if os.path.lexists(pending):
            self.result["changed"] = True
            if not self.dry:
                os.replace(pending, _key_files.path_of(self.directory, name))


def main():
    names = {"type": "list", "elements": "str", "default": [], "no_log": False}
    module = RedactingModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "services": names,
            "make": names,
            "rotate": names,
            "commit": names,
            "copies": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    keys = Keys(params["directory"], module.check_mode)
    keys.close()
    keys.each(dict.fromkeys(params["services"] + params["make"] + params["rotate"]), keys.read)
    if not keys.result["problems"]:
        keys.each(params["make"], keys.make)
        keys.each(params["rotate"], keys.rotate)
        keys.each(params["commit"], keys.commit)
        keys.each(params["copies"], lambda name: _keep(keys, name, params["copies"][name]))
    module.exit_json(**keys.result)


def _keep(keys, name, key):
    path = _key_files.path_of(keys.directory, name)
    if keys.dry:
        keys.result["changed"] |= _key_files.read(path)[0] != key
    elif _key_files.keep(path, key):
        keys.result["changed"] = True


if __name__ == "__main__":
    main()
