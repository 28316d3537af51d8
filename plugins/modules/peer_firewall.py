#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: peer_firewall
short_description: Close the ports by which hosts serve together to everyone else
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Keeps one table of nftables, C(inet inferops), which drops connections to the ports of O(groups) and to those
    that the kernel chooses for programs, unless they come from the peers of a group. No other table is read or changed.
  - Ports that programs of others listen on stay open, as do loopback and connections that this host opened.
  - Keeps a record of each group in O(directory), so that a run that knows of one service leaves the others as they are.
  - Removes the table when no group is left.
extends_documentation_fragment:
  - inferops.gpu_host.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  groups:
    description:
      - The groups that this host belongs to, each with C(name), C(service), C(peers) (addresses) and C(ports) (numbers
        and ranges such as V(11000-11999)).
    type: list
    elements: dict
    default: []
  services:
    description: The services of which this run knows whether they are groups here. Records of these that are not among
      O(groups) are removed.
    type: list
    elements: str
    default: []
  left_open:
    description: Ports among those that the kernel chooses which stay open though nobody listens there yet.
    type: list
    elements: int
    default: []
  directory:
    description: Where the records and the table are kept.
    type: path
    default: /etc/inferops/firewall
"""

EXAMPLES = r"""
- name: Close the ports of a group
  inferops.gpu_host.peer_firewall:
    groups:
      - {name: deepseek-r1, service: deepseek-r1, peers: [192.0.2.11, 192.0.2.12], ports: [28501, 29501]}
    services: [deepseek-r1]

- name: Open them again
  inferops.gpu_host.peer_firewall:
    services: [deepseek-r1]
"""

RETURN = r"""
groups:
  description: The names of all groups whose ports are closed on this host now.
  returned: always
  type: list
  elements: str
removed:
  description: The names of groups whose record was removed.
  returned: always
  type: list
  elements: str
left_open:
  description: Ports that stay open because a program of somebody else listens there.
  returned: always
  type: list
  elements: int
"""

import contextlib
import fcntl
import glob
import json
import os
import tempfile

from ansible_collections.inferops.gpu_host.plugins.module_utils import (
    _container_state,
    _listening,
    _peer_firewall,
    _untrusted,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_host import DockerHost
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule

_ADVICE = "Set peers_firewall to false to leave the ports open, and close them in another way."


def text_of(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def listeners_of_others(module, dynamic):
    """The ports in the range that the kernel chooses from on which somebody else listens, beyond loopback."""
    sockets = {}
    for table in ("/proc/net/tcp6", "/proc/net/tcp"):
        sockets.update(_peer_firewall.listening(text_of(table)))
    sockets = {port: sockets[port] for port in _peer_firewall.within(sockets, dynamic)}
    if not sockets:
        return []
    listed = DockerHost(module).get("/containers/json") or []
    ours = [
        item["Id"]
        for item in listed
        if any(name.startswith(_container_state.LABEL) for name in item.get("Labels") or {})
    ]
    owners = _listening.processes_by_inode()
    others = []
    for port, inode in sockets.items():
        pid = owners.get(inode, (None, None))[1]
        cgroup = text_of("/proc/%s/cgroup" % pid) if pid else ""
        if not any(container in cgroup for container in ours):
            others.append(port)
    return sorted(others)


class Firewall:
    def __init__(self, module):
        self.module = module
        self.directory = module.params["directory"]
        self.table = os.path.join(self.directory, "table.nft")
        self.nft = module.get_bin_path("nft", opt_dirs=["/usr/sbin", "/sbin"])

    def records(self):
        """The records of groups on this host; one that cannot be read is named, never skipped."""
        found = []
        for path in sorted(glob.glob(os.path.join(self.directory, "*.json"))):
            try:
                found.append(_peer_firewall.record(_untrusted.read_json(path)))
            except (OSError, ValueError) as error:
                self.module.fail_json(msg="%s is not as it was written: %s. Correct or remove it." % (path, error))
        return found

    def loaded(self):
        """The mark of the table that is in force, or None."""
        if not self.nft:
            return None
        _rc, out, _error = self.module.run_command(
            [self.nft, "list", "table", _peer_firewall.FAMILY, _peer_firewall.TABLE]
        )
        return _peer_firewall.digest_of(out) or ("unknown" if out.strip() else None)

    def load(self, text):
        """All at once, or not at all."""
        if not self.nft:
            self.module.fail_json(msg="nft is not installed, and without it no port can be closed. " + _ADVICE)
        if not text:
            text = "table {0} {1}\ndelete table {0} {1}\n".format(_peer_firewall.FAMILY, _peer_firewall.TABLE)
        rc, _out, error = self.module.run_command([self.nft, "--file", "-"], data=text)
        if rc:
            self.module.fail_json(msg="nft refuses the table of the peers' ports: %s. %s" % (error.strip(), _ADVICE))

    def write(self, path, text):
        handle, temporary = tempfile.mkstemp(dir=self.directory, prefix=".new-")
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
        os.replace(temporary, path)

    def keep(self, records, text):
        """The records first: a table without one would be forgotten, a record without the table is only loaded anew."""
        for path in glob.glob(os.path.join(self.directory, "*.json")):
            if os.path.basename(path)[: -len(".json")] not in [one["name"] for one in records]:
                os.unlink(path)
        for one in records:
            path = os.path.join(self.directory, one["name"] + ".json")
            content = json.dumps(one, indent=2, sort_keys=True) + "\n"
            if text_of(path) != content:
                self.write(path, content)
        if text:
            self.write(self.table, text)
            return
        for name in (self.table, os.path.join(self.directory, ".lock")):
            with contextlib.suppress(OSError):
                os.unlink(name)
        with contextlib.suppress(OSError):
            os.rmdir(self.directory)


def run(module, firewall):
    params = module.params
    records = firewall.records()
    try:
        wanted = _peer_firewall.kept(records, params["groups"], params["services"])
        dynamic = _peer_firewall.range_of_kernel(text_of("/proc/sys/net/ipv4/ip_local_port_range"))
        others = listeners_of_others(module, dynamic) if wanted else []
        left_open = sorted({*others, *_peer_firewall.within(params["left_open"], dynamic)})
        text = _peer_firewall.ruleset(wanted, dynamic, left_open)
    except _peer_firewall.FirewallError as error:
        module.fail_json(msg=str(error))
    before = text_of(firewall.table)
    in_force = firewall.loaded()
    names = [one["name"] for one in wanted]
    changed = records != wanted or before != text or in_force != _peer_firewall.digest_of(text)
    if changed and not module.check_mode:
        if text or in_force:
            firewall.load(text)
        if text or os.path.isdir(firewall.directory):
            firewall.keep(wanted, text)
    module.exit_json(
        changed=changed,
        groups=names,
        removed=[one["name"] for one in records if one["name"] not in names],
        left_open=left_open,
        diff={"before": before, "after": text, "before_header": firewall.table, "after_header": firewall.table},
    )


def main():
    module = RedactingModule(
        argument_spec={
            "groups": {"type": "list", "elements": "dict", "default": []},
            "services": {"type": "list", "elements": "str", "default": []},
            "left_open": {"type": "list", "elements": "int", "default": []},
            "directory": {"type": "path", "default": "/etc/inferops/firewall"},
        },
        supports_check_mode=True,
    )
    firewall = Firewall(module)
    if module.check_mode or not (module.params["groups"] or os.path.isdir(firewall.directory)):
        run(module, firewall)
    os.makedirs(firewall.directory, mode=0o755, exist_ok=True)
    # Two plays at once would each leave out what the other has just added.
    with open(os.path.join(firewall.directory, ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(module, firewall)


if __name__ == "__main__":
    main()
