#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: package_record
short_description: Remembers which packages an installation brought and holds, and gives back exactly these
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Written before an installation and completed after it, so that one that was killed is completed by the next run.
  - Packages that others hold are never touched unless that is asked for.
  - What goes in the end is what came and what nothing that stays needs, by the package manager's own judgement;
    packages that others came to need meanwhile stay.
options:
  path:
    description: The record, a file of JSON. Keys that are not of this module stay in it.
    type: path
    required: true
  state:
    description:
      - V(begun) notes what is installed before something is.
      - V(recorded) notes what came since. With apt, what came and is needed by other packages is marked as installed
        automatically, and what others held is held again.
      - V(lifted) lifts the holds that the record says are ours, for an upgrade; a hold of others on O(packages) stays.
      - V(held) holds those of O(packages) that are installed, and no other packages that the record says we held.
      - V(removed) removes what came and is not needed any more, and with apt its unchanged configuration.
    type: str
    choices: [begun, recorded, lifted, held, removed]
    required: true
  manager:
    description: The package manager.
    type: str
    choices: [apt, rpm]
    default: apt
  packages:
    description: The packages that are to be held, or that will be changed.
    type: list
    elements: str
    default: []
  change_held:
    description: With O(state=lifted), whether packages may be changed that others hold. They are held again afterwards.
    type: bool
    default: false
  roots:
    description: With O(state=recorded), the packages that were wanted for their own sake.
    type: list
    elements: str
    default: []
  keep:
    description: With O(state=removed), packages that stay, with what they need.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - inferops.gpu_host.attributes
attributes:
  check_mode:
    support: full
    details: With O(state=removed) it returns what would be removed.
  diff_mode:
    support: none
    details: What it removes stands in RV(removed).
notes:
  - Holds need apt.
"""

EXAMPLES = r"""
- name: Note what is installed before
  inferops.gpu_host.package_record:
    path: /etc/inferops/docker-engine.json
    state: begun

- name: Keep the version that was asked for
  inferops.gpu_host.package_record:
    path: /etc/inferops/docker-engine.json
    state: held
    packages: [docker-ce, docker-ce-cli]
"""

RETURN = r"""
record:
  description: The record as it is now.
  type: dict
  returned: success
removed:
  description: What was removed, or would be.
  type: list
  elements: str
  returned: when O(state=removed)
needed:
  description: What came and stays, since something else needs it.
  type: list
  elements: str
  returned: when O(state=removed)
"""

import hashlib
import json
import os
import re
import shutil
import tempfile

from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_host import UnreadableFileError, read_text
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule

EXTENDED_STATES = "/var/lib/apt/extended_states"


class Record:
    def __init__(self, module):
        self.module = module
        self.path = module.params["path"]
        try:
            self.content = json.loads(read_text(self.path))
        except FileNotFoundError:
            self.content = {}
        except (OSError, UnreadableFileError, ValueError, RecursionError) as error:
            module.fail_json(msg="the record %s cannot be read: %s" % (self.path, error))
        lists = [self.content.get(key, []) for key in ("before", "came", "held", "rehold")] if self._whole() else [None]
        if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists):
            module.fail_json(msg="the record %s is damaged; move it away, and nothing counts as ours" % self.path)
        self.was = json.dumps(self.content, sort_keys=True)

    def _whole(self):
        return isinstance(self.content, dict)

    def names(self, key):
        return self.content.get(key, [])

    def set(self, key, names):
        self.content[key] = sorted(set(names))
        if not names:
            del self.content[key]

    @property
    def changed(self):
        return json.dumps(self.content, sort_keys=True) != self.was

    def save(self):
        if not self.changed or self.module.check_mode:
            return
        directory = os.path.dirname(self.path)
        os.makedirs(directory, mode=0o755, exist_ok=True)
        descriptor, new = tempfile.mkstemp(prefix=".ansible-", dir=directory)
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(self.content, indent=2, sort_keys=True) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(new, 0o644)
        os.rename(new, self.path)
        self.was = json.dumps(self.content, sort_keys=True)


class Packages:
    """What both package managers can be asked."""

    def __init__(self, module):
        self.module = module

    def run(self, argv, fail=True):
        rc, out, err = self.module.run_command(
            argv, environ_update={"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        )
        if rc and fail:
            self.module.fail_json(msg="%s failed: %s" % (" ".join(argv[:4]), (err or out).strip()[-1500:]))
        return out if fail else (rc, out, err)


class Apt(Packages):
    def installed(self):
        lines = self.run(["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n"]).splitlines()
        return {line.split()[0] for line in lines if line.endswith(" installed")}

    def held(self):
        return {name.split(":")[0] for name in self.run(["apt-mark", "showhold"]).split()}

    def hold(self, names):
        if names:
            self.run(["apt-mark", "hold", *sorted(names)])

    def lift(self, names):
        if names:
            self.run(["apt-mark", "unhold", *sorted(names)])

    def unneeded(self, auto, manual):
        """What apt would remove by itself if these were marked so. Its own marks stay as they are."""
        place = tempfile.mkdtemp(prefix="apt-", dir=self.module.tmpdir)
        try:
            copy = os.path.join(place, "extended_states")
            if os.path.exists(EXTENDED_STATES):
                shutil.copy(EXTENDED_STATES, copy)
            else:
                open(copy, "w", encoding="utf-8").close()
            option = ["--option", "Dir::State::extended_states=" + copy]
            for mark, names in (("auto", auto), ("manual", manual)):
                if names:
                    self.run(["apt-mark", *option, mark, *sorted(names)])
            # Our own holds go first; those of others are among `manual`.
            simulated = self.run(["apt-get", *option, "--ignore-hold", "--simulate", "autoremove"])
            return {name.split(":")[0] for name in re.findall(r"^Remv (\S+)", simulated, re.M)}
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def settle(self, came, roots):
        """Marks what came for the sake of others as such, so that it goes when they go."""
        if not came:
            return
        wanted = set(roots) & came
        lonely = self.unneeded(came, wanted) & came
        manual = self.run(["apt-mark", "showmanual"]).split()
        auto = (came - wanted - lonely) & {name.split(":")[0] for name in manual}
        if auto:
            self.run(["apt-mark", "auto", *sorted(auto)])

    def removable(self, came, keep):
        return self.unneeded(came - keep, keep) & came

    def remove(self, names, keep):
        if keep:
            self.run(["apt-mark", "manual", *sorted(keep)])
        option = ["--option", "Dpkg::Lock::Timeout=60"]
        going = re.findall(r"^Remv (\S+)", self.run(["apt-get", "--simulate", "remove", *sorted(names)]), re.M)
        more = {name.split(":")[0] for name in going} - set(names)
        if more:
            self.module.fail_json(msg="removing %s would take %s along; nothing was removed" % (names, sorted(more)))
        self.run(["apt-get", "--yes", *option, "remove", *sorted(names)])
        # Left by docker.io's removal for its purge, which would then delete all of /var/lib/docker.
        if "docker.io" in names and os.path.exists("/var/lib/docker/nuke-graph-directory.sh"):
            os.unlink("/var/lib/docker/nuke-graph-directory.sh")
        untouched = [name for name in sorted(names) if not self.has_changed_configuration(name)]
        if untouched:
            self.run(["dpkg", "--purge", *untouched])

    def has_changed_configuration(self, name):
        rc, out, _err = self.run(["dpkg-query", "--show", "--showformat", "${Conffiles}\n", name], fail=False)
        for path, digest in re.findall(r"^ (/\S+) ([0-9a-f]{32})", out if not rc else "", re.M):
            try:
                with open(path, "rb") as stream:
                    if hashlib.md5(stream.read(1024 * 1024)).hexdigest() != digest:
                        return True
            except OSError:
                continue
        return False


class Rpm(Packages):
    def installed(self):
        return set(self.run(["rpm", "--query", "--all", "--queryformat", "%{NAME}\n"]).split())

    def held(self):
        return set()

    def hold(self, names):
        if not names:
            return
        self.module.fail_json(msg="holding packages needs apt; use dnf versionlock here")

    def lift(self, names):
        pass

    def settle(self, came, roots):
        pass

    def removable(self, came, keep):
        """Takes packages out until nothing that stays needs one of the others."""
        names = set(came) - set(keep)
        while names:
            rc, out, err = self.run(["rpm", "--erase", "--test", *sorted(names)], fail=False)
            needed = self._providers(re.findall(r"^\s*(\S+(?: [<>=]+ \S+)?) is needed by", out + err, re.M), names)
            if not rc:
                return names
            if not needed:
                return set()
            names -= needed
        return names

    def _providers(self, capabilities, names):
        found = set()
        for capability in capabilities:
            rc, out, _err = self.run(
                ["rpm", "--query", "--whatprovides", "--queryformat", "%{NAME}\n", capability.split()[0]], fail=False
            )
            found |= set(out.split()) & names if not rc else set()
        return found

    def remove(self, names, keep):
        self.run(["rpm", "--erase", *sorted(names)])


def begun(module, record, packages):
    if "before" not in record.content:
        record.set("before", packages.installed())
    return {}


def recorded(module, record, packages):
    now = packages.installed()
    came = set(record.names("came")) | (now - set(record.names("before")) if "before" in record.content else set())
    came &= now
    if not module.check_mode:
        packages.settle(came, module.params["roots"])
        packages.hold(set(record.names("rehold")) & now - packages.held())
    record.set("came", came)
    record.set("before", [])
    record.set("rehold", [])
    return {}


def lifted(module, record, packages):
    held, ours = packages.held(), set(record.names("held"))
    foreign = held & set(module.params["packages"]) - ours
    if foreign and not module.params["change_held"]:
        module.fail_json(
            msg="%s: held on this host (apt-mark hold), and would have to change. Nothing was changed. Lift the hold "
            "(apt-mark unhold), ask for the version that is there, or allow it (docker_change_held_packages, "
            "nvidia_container_toolkit_change_held_packages)." % ", ".join(sorted(foreign))
        )
    record.set("rehold", set(record.names("rehold")) | foreign)
    record.save()  # before the holds go
    if not module.check_mode:
        packages.lift((held & ours) | foreign)
    return {"changed": bool(held & ours or foreign)}


def held(module, record, packages):
    wanted = set(module.params["packages"]) & packages.installed()
    now, ours = packages.held(), set(record.names("held"))
    new, over = wanted - now, (ours - wanted) & now
    record.set("held", (ours & wanted) | new)
    record.save()
    if not module.check_mode:
        packages.hold(new)
        packages.lift(over)
    return {"changed": bool(new or over)}


def removed(module, record, packages):
    came = set(record.names("came")) & packages.installed()
    foreign_holds = packages.held() - set(record.names("held"))
    keep = (set(module.params["keep"]) | foreign_holds) & came
    going = packages.removable(came, keep)
    if not module.check_mode:
        packages.lift(packages.held() & set(record.names("held")))
        if going:
            packages.remove(sorted(going), sorted(keep))
    for key in ("before", "came", "held", "rehold"):
        record.set(key, [])
    return {"changed": bool(going), "removed": sorted(going), "needed": sorted(came - going)}


def main():
    states = {"begun": begun, "recorded": recorded, "lifted": lifted, "held": held, "removed": removed}
    module = RedactingModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": list(states), "required": True},
            "manager": {"type": "str", "choices": ["apt", "rpm"], "default": "apt"},
            "packages": {"type": "list", "elements": "str", "default": []},
            "change_held": {"type": "bool", "default": False},
            "roots": {"type": "list", "elements": "str", "default": []},
            "keep": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    record = Record(module)
    packages = {"apt": Apt, "rpm": Rpm}[module.params["manager"]](module)
    result = states[module.params["state"]](module, record, packages)
    result["changed"] = record.changed or result.get("changed", False)
    record.save()
    module.exit_json(record=json.loads(record.was), **result)


if __name__ == "__main__":
    main()
