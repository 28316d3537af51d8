#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_daemon_config
short_description: Merges settings into Docker's daemon.json without touching anything else
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Brings O(config) into daemon.json. What was not asked about keeps every byte, order and white space included.
  - Remembers, in a file beside daemon.json with the ending C(.managed), what each O(owner) has set.
    A key that is no longer in O(config) is removed again; keys that others wrote stay.
  - Refuses a file that is not JSON, naming the line, and a key that dockerd's command line sets too, naming the unit
    file, since dockerd would not start with either.
  - Before the new file replaces the old, C(dockerd --validate) checks it where the engine has that (23.0 and newer).
  - What the engine can take over while it runs (runtimes, registry mirrors, live-restore and others) is handed to it
    with SIGHUP, which no container notices. Everything else needs a restart, which this module never does.
    It says so in RV(restart_required), and goes on saying so in later runs until the engine was restarted.
options:
  config:
    description:
      - The settings, in the names and shapes of daemon.json. Mappings are merged key by key, a list is one value.
      - Required with O(state=merged).
    type: dict
  owner:
    description:
      - On whose behalf. Each owner has its own set of remembered keys.
      - Two owners that want different values for one key are refused.
    type: str
    default: default
  state:
    description:
      - V(merged) makes O(config) so.
      - V(reverted) puts back the file that the engine last started with, after a change that it does not start with.
    type: str
    choices: [merged, reverted]
    default: merged
  path:
    description: The file, when it is not C(/etc/docker/daemon.json) or, with O(user), C(~/.config/docker/daemon.json).
    type: path
  user:
    description: The user whose rootless engine is meant, in place of the engine of the system.
    type: str
  backup:
    description: Whether to keep a copy of the old file.
    type: bool
    default: true
  write_when:
    description:
      - V(always) writes what was asked for.
      - V(no_restart) writes it unless the engine would have to be restarted to read it; then nothing is changed
        and RV(restart_required) says so, for a playbook that first looks what a restart would stop.
    type: str
    choices: [always, no_restart]
    default: always
extends_documentation_fragment:
  - inferops.gpu_host.attributes
attributes:
  check_mode:
    support: full
    details: It predicts everything it would return.
  diff_mode:
    support: full
    details: Without the passwords in URLs.
seealso:
  - module: inferops.gpu_host.docker_engine
  - name: dockerd reference
    description: The keys of daemon.json.
    link: https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file
"""

EXAMPLES = r"""
- name: Bounded logs, and containers that survive a restart of the engine
  inferops.gpu_host.docker_daemon_config:
    owner: docker
    config:
      live-restore: true
      log-driver: json-file
      log-opts: {max-size: 50m, max-file: "3"}
  register: daemon_config

- name: Let the engine read it
  inferops.gpu_host.docker_engine:
    state: restarted
  when: daemon_config.restart_required
"""

RETURN = r"""
restart_required:
  description: Whether the running engine has not read something that only a restart makes it read.
  type: bool
  returned: success
unread_keys:
  description: The keys whose value the running engine does not know yet.
  type: list
  elements: str
  returned: success
  sample: [log-driver, log-opts]
running:
  description: Whether the engine runs.
  type: bool
  returned: success
reloaded:
  description: Whether the running engine was told with SIGHUP (or would be, in check mode) to take over what it can.
  type: bool
  returned: success
changed_keys:
  description: The keys of daemon.json whose value this run changed.
  type: list
  elements: str
  returned: success
validated:
  description: Whether dockerd itself found the new file good; false when it cannot, being older than 23.0 or absent.
  type: bool
  returned: success
backup_file:
  description: The copy of the old file.
  type: str
  returned: when a file was replaced and O(backup) is set
file:
  description: The daemon.json that was meant.
  type: str
  returned: success
  sample: /etc/docker/daemon.json
config:
  description: The whole configuration as it is now, without the passwords in URLs.
  type: dict
  returned: success
"""

import contextlib
import json
import os
import signal
import tempfile

from ansible_collections.inferops.gpu_host.plugins.module_utils import _daemon_json as daemon_json
from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_engine import configured_keys, option_value
from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_host import DockerHost
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule

MEMORY_COMMENT = "What inferops.gpu_host.docker_daemon_config has set in daemon.json, and for whom. Not read by Docker."


class Store:
    """daemon.json and the memory beside it. Every write is atomic and done as the engine's user."""

    def __init__(self, module, host):
        self.module = module
        self.host = host
        self.path = (
            module.params["path"] or option_value(host.command_line()["argv"], "--config-file") or host.config_file
        )
        self.memory_path = self.path + ".managed"

    @contextlib.contextmanager
    def as_engine_user(self):
        """A user's directory is not written as root: the user could have put a link there."""
        if os.geteuid() == self.host.uid or os.geteuid() != 0:
            yield
            return
        os.setegid(self.host.gid)
        os.seteuid(self.host.uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)

    def read(self, path):
        """The text of the file; None when there is none."""
        with self.as_engine_user():
            try:
                with open(path, encoding="utf-8", newline="") as stream:
                    return stream.read()
            except FileNotFoundError:
                return None
            except UnicodeDecodeError as error:
                self.module.fail_json(msg="%s is not UTF-8 text: %s" % (path, error))

    def write(self, path, text, mode):
        """Replaces the file, or removes it for None. A file that exists keeps its mode."""
        with self.as_engine_user():
            if text is None:
                if os.path.exists(path):
                    os.unlink(path)
                return
            directory = os.path.dirname(path)
            os.makedirs(directory, mode=0o755, exist_ok=True)
            descriptor, new = tempfile.mkstemp(prefix=".ansible-", dir=directory)
            with open(descriptor, "w", encoding="utf-8", newline="") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(new, mode)
            if os.path.exists(path):
                self.module.atomic_move(new, path)  # takes over the mode, owner and context of the old file
            else:
                os.rename(new, path)

    def read_memory(self):
        text = self.read(self.memory_path)
        try:
            memory = json.loads(text) if text else {}
        except ValueError as error:
            self.module.fail_json(
                msg="%s is damaged (%s). Remove it; the keys of daemon.json then count as foreign until set again."
                % (self.memory_path, error)
            )
        return {"owners": memory.get("owners", {}), "unread": memory.get("unread")}

    def write_memory(self, memory):
        if memory["owners"] or memory["unread"]:
            content = dict({"comment": MEMORY_COMMENT}, **memory)
            self.write(self.memory_path, json.dumps(content, indent=2, sort_keys=True) + "\n", 0o600)
        else:
            self.write(self.memory_path, None, 0o600)


def validate(module, text, path):
    """Whether dockerd found `text` good; False when it cannot say. Fails when it found it bad."""
    dockerd = module.get_bin_path("dockerd")
    if not dockerd:
        return False
    with tempfile.NamedTemporaryFile("w", suffix=".json", dir=module.tmpdir, encoding="utf-8") as candidate:
        candidate.write(text)
        candidate.flush()
        rc, out, err = module.run_command([dockerd, "--validate", "--config-file", candidate.name])
        said = (out + err).replace(candidate.name, path).strip()
    if rc and "unknown flag: --validate" in said:
        return False
    if rc:
        module.fail_json(msg="dockerd would not start with this %s, which was not written: %s" % (path, said))
    return True


def refuse_conflicts(module, host, config, path):
    start = host.command_line()
    options = configured_keys(start["argv"])
    twice = sorted(set(config) & set(options))
    if twice:
        module.fail_json(
            msg="dockerd would not start: %s sets %s, and so would %s. Remove the option there, or the key here."
            % (start["source"], ", ".join("%s (%s)" % (key, options[key]) for key in twice), path),
            conflicting_keys=twice,
        )


def hand_over(host):
    """Makes the running engine read what it can while running."""
    pid = host.pid()
    if pid:
        os.kill(pid, signal.SIGHUP)


def merge(module, host, store):
    text = store.read(store.path)
    memory = store.read_memory()
    owner = module.params["owner"]
    try:
        before = daemon_json.parse(text or "")
        new_text, new_owners = daemon_json.merge(text or "", module.params["config"], memory["owners"], owner)
        after = daemon_json.parse(new_text)
    except daemon_json.DaemonJsonError as error:
        module.fail_json(msg="%s is not valid and was left as it is: %s" % (store.path, error))
    except daemon_json.OwnerConflictError as error:
        module.fail_json(msg="%s: %s" % (store.path, daemon_json.without_passwords(str(error))))
    refuse_conflicts(module, host, after, store.path)

    engine = host.identity()
    # What was true before the first change that this run of the engine has not read, or that no run has started with.
    unread = memory["unread"]
    if unread and engine and unread["engine"] != engine:
        unread = None
    base = unread or {"engine": engine, "text": text, "owners": memory["owners"]}
    unread_keys = daemon_json.changed_keys(daemon_json.parse(base["text"] or ""), after) if engine else []
    reload = not module.params["user"] and not daemon_json.RELOADABLE_KEYS.isdisjoint(unread_keys)
    restart = bool(unread_keys) and not (reload and daemon_json.RELOADABLE_KEYS.issuperset(unread_keys))
    file_changes = new_text != (text or "")

    result = {
        "changed": file_changes or (reload and not restart),
        "changed_keys": daemon_json.changed_keys(before, after),
        "unread_keys": unread_keys,
        "restart_required": restart,
        "running": bool(engine),
        "reloaded": reload,
        "validated": validate(module, new_text, store.path) if file_changes else False,
        "file": store.path,
        "config": json.loads(daemon_json.without_passwords(json.dumps(after))),
        "diff": {
            "before_header": store.path,
            "after_header": store.path,
            "before": daemon_json.without_passwords(text or ""),
            "after": daemon_json.without_passwords(new_text),
        },
    }
    if restart and module.params["write_when"] == "no_restart":
        return dict(result, changed=False, changed_keys=[], diff={})
    if module.check_mode:
        return result

    # The memory goes first and claims what was and what will be true, so that a run killed here loses nothing.
    if file_changes:
        claimed = daemon_json.both_owners(memory["owners"], new_owners)
        store.write_memory({"owners": claimed, "unread": base})
        if text is not None and module.params["backup"]:
            with store.as_engine_user():
                result["backup_file"] = module.backup_local(store.path)
        store.write(store.path, new_text, 0o600 if daemon_json.without_passwords(new_text) != new_text else 0o644)
    if reload:
        hand_over(host)
    still_unread = base if restart or (not engine and (file_changes or unread)) else None
    remembered = {"owners": new_owners, "unread": still_unread}
    if file_changes or remembered != memory:
        store.write_memory(remembered)
    return result


def revert(module, host, store):
    memory = store.read_memory()
    unread = memory["unread"]
    text = store.read(store.path)
    if not unread:
        return {"changed": False, "restart_required": False, "file": store.path}
    if not module.check_mode:
        store.write(store.path, unread["text"], 0o644)
        store.write_memory({"owners": unread["owners"], "unread": None})
    return {
        "changed": text != unread["text"],
        "restart_required": host.identity() != unread["engine"],
        "file": store.path,
        "diff": {
            "before_header": store.path,
            "after_header": store.path,
            "before": daemon_json.without_passwords(text or ""),
            "after": daemon_json.without_passwords(unread["text"] or ""),
        },
    }


def main():
    module = RedactingModule(
        argument_spec={
            "config": {"type": "dict"},
            "owner": {"type": "str", "default": "default"},
            "state": {"type": "str", "choices": ["merged", "reverted"], "default": "merged"},
            "path": {"type": "path"},
            "user": {"type": "str"},
            "backup": {"type": "bool", "default": True},
            "write_when": {"type": "str", "choices": ["always", "no_restart"], "default": "always"},
        },
        required_if=[("state", "merged", ["config"])],
        supports_check_mode=True,
    )
    host = DockerHost(module, module.params["user"])
    store = Store(module, host)
    act = merge if module.params["state"] == "merged" else revert
    module.exit_json(**act(module, host, store))


if __name__ == "__main__":
    main()
