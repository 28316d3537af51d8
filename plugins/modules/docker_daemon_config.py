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
    A key that is no longer in O(config) is removed again; keys that others wrote stay, and a value of theirs that gave
    way to ours comes back. Their C(exec-opts) never give way.
  - One lock holds for all owners, so that no key is lost when several plays merge at once.
  - Refuses a file that is not JSON, naming the line, and a key that dockerd's command line sets too, naming the unit
    file, since dockerd would not start with either.
  - Before the new file replaces the old, C(dockerd --validate) checks it where the engine has that (23.0 and newer).
  - What the engine can take over while it runs (runtimes, registry mirrors, live-restore and others) is handed to it
    with SIGHUP, which no container notices. Whether it took it is read from what the engine then says of itself and
    writes to its log; when it did not, the file is put back as it was and the module fails with the engine's reason.
  - Everything else needs a restart, which this module never does. That holds for a key that goes, too.
    It says so in RV(restart_required), and goes on saying so in later runs until the engine was restarted.
  - A file that is a symbolic link stays one; the file it leads to is written, if nobody but the engine's user may.
  - A file that holds a password gets the mode 0600, and so does its copy.
options:
  config:
    description:
      - The settings, in the names and shapes of daemon.json. Mappings are merged key by key, a list is one value.
      - Required with O(state=merged).
    type: dict
  defaults:
    description:
      - The same for settings that give way to O(config) and to what others wrote in the file. C(live-restore) also
        gives way on a member of a swarm, whose engine does not start with it.
    type: dict
    default: {}
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
        When that change had switched live-restore on, the file keeps this one key, so that the engine does not stop the
        containers when it starts; call it again when the engine answers, and the key goes as well.
      - V(absent) takes away what all owners have set, brings back what others had there, and forgets everything. The
        engine is told nothing; it reads the file when it starts.
    type: str
    choices: [merged, reverted, absent]
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
  abandon_data_root:
    description: Whether C(data-root) may change although the old place holds containers, images or volumes.
    type: bool
    default: false
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
live_restore_kept:
  description: Whether the file that was put back still has our live-restore, until the module is called again.
  type: bool
  returned: when O(state=reverted)
running:
  description: Whether the engine runs.
  type: bool
  returned: success
reloaded:
  description: Whether the running engine has taken over on SIGHUP (or would be told to, in check mode) what it can.
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
import tempfile

from ansible_collections.inferops.gpu_host.plugins.module_utils import _daemon_json as daemon_json
from ansible_collections.inferops.gpu_host.plugins.module_utils import _daemon_merge as daemon_merge
from ansible_collections.inferops.gpu_host.plugins.module_utils import _docker_engine as docker_engine
from ansible_collections.inferops.gpu_host.plugins.module_utils import _docker_reload as docker_reload
from ansible_collections.inferops.gpu_host.plugins.module_utils._daemon_store import Store
from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_host import DockerHost
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule
from ansible_collections.inferops.gpu_host.plugins.module_utils._redaction import redacted


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


def refuse_conflicts(module, start, config, path):
    """A key that the command line sets as well keeps dockerd from starting, and so does live-restore in a swarm."""
    options = docker_engine.configured_keys(start["argv"])
    twice = sorted(set(config) & set(options))
    if twice:
        module.fail_json(
            msg="dockerd would not start: %s sets %s, and so would %s. Remove the option there, or the key here."
            % (start["source"], ", ".join("%s (%s)" % (key, options[key]) for key in twice), path),
            conflicting_keys=twice,
        )


def refuse_swarm(module, config, asked, owners, path):
    """dockerd does not start with live-restore when it belongs to a swarm."""
    ours = any(tuple(key) == ("live-restore",) for paths in owners.values() for key in paths)
    if config.get("live-restore") is True:
        module.fail_json(
            msg="this engine belongs to a swarm, and does not start with live-restore, which %s. "
            "Switch it off (docker_live_restore: false), or leave the swarm."
            % ("is asked for" if asked.get("live-restore") or ours else "%s sets" % path)
        )


def refuse_abandoned_data(module, root, wanted, held):
    """Docker moves nothing when its data root changes: what the old one holds is out of sight."""
    kept = ", ".join("%d %s" % (number, kind) for kind, number in held.items() if number)
    if kept and not docker_engine.same_root(root, wanted) and not module.params["abandon_data_root"]:
        module.fail_json(
            msg="the engine keeps %s in %s, and its data root would become %s, where they would not be seen. Nothing "
            "was changed. Move them first (stop Docker, copy the directory), keep docker_data_root as it was, or set "
            "docker_data_root_abandon to start empty." % (kept, root, wanted)
        )


def merge(module, host, store):
    text = store.read(store.path)
    memory = store.read_memory()
    owner = module.params["owner"]
    start = host.command_line()
    engine = host.identity() if store.is_read_by_engine else ""
    info = (host.get("/info") or {}) if engine else {}
    # What was true before the first change that this run of the engine has not read, or that no run has started with.
    unread = memory["unread"]
    on_disk = text
    if unread and unread["reverting"]:  # a run was killed while it put the file back
        text, memory = unread["text"], dict(memory, owners=unread["owners"], found=unread["found"])
    if unread and engine and unread["engine"] != engine:
        unread = None
    base = unread or {
        "engine": engine,
        "text": text,
        "owners": memory["owners"],
        "found": memory["found"],
        "mode": store.mode(),
        "reverting": False,
    }
    try:
        before = daemon_json.parse(text or "")
        base_config = daemon_json.parse(base["text"] or "")
        root = info.get("DockerRootDir") or docker_engine.data_root(base_config, start["argv"], host.default_data_root)
        in_swarm = host.is_swarm_member(info, root)
        defaults = module.params["defaults"]
        if in_swarm:
            defaults = {key: value for key, value in defaults.items() if key != "live-restore"}
        asked = module.params["config"]
        wanted = daemon_merge.combined(daemon_merge.yielding(defaults, before, asked, memory["owners"]), asked)
        new_text, new_owners, new_found = daemon_merge.merge(
            text or "", wanted, memory["owners"], owner, memory["found"]
        )
        after = daemon_json.parse(new_text)
    except daemon_json.DaemonJsonError as error:
        module.fail_json(msg="%s is not valid and was left as it is: %s" % (store.path, error))
    except daemon_merge.OwnerConflictError as error:
        module.fail_json(
            msg="%s: %s. Variables that speak of it are docker_cgroup_driver, docker_daemon_options and "
            "nvidia_container_toolkit_reload_protection; what others wrote is for them to remove."
            % (store.path, daemon_json.without_passwords(str(error)))
        )
    refuse_conflicts(module, start, after, store.path)
    if in_swarm:
        refuse_swarm(module, after, asked, memory["owners"], store.path)
    wanted_root = docker_engine.data_root(after, start["argv"], host.default_data_root)
    if store.is_read_by_engine and not docker_engine.same_root(root, wanted_root):
        refuse_abandoned_data(module, root, wanted_root, host.holdings(root))

    unread_keys = daemon_json.changed_keys(base_config, after) if engine else []
    # The engine forgets nothing on SIGHUP: what goes from the file it keeps until it starts anew.
    reloadable = [key for key in unread_keys if key in daemon_json.RELOADABLE_KEYS and key in after]
    reload = bool(reloadable) and not module.params["user"]
    restart = bool(unread_keys) and not (reload and len(reloadable) == len(unread_keys))
    file_changes = new_text != (on_disk or "")

    result = {
        "changed": file_changes or (reload and not restart),
        "changed_keys": daemon_json.changed_keys(before, after),
        "unread_keys": unread_keys,
        "restart_required": restart,
        "running": bool(engine),
        "reloaded": reload,
        "validated": validate(module, new_text, store.path) if file_changes else False,
        "file": store.path,
        "config": redacted(after),
        "diff": {
            "before_header": store.path,
            "after_header": store.path,
            "before": daemon_json.without_passwords(on_disk or ""),
            "after": daemon_json.without_passwords(new_text),
        },
    }
    if restart and module.params["write_when"] == "no_restart":
        return dict(result, changed=False, changed_keys=[], diff={})
    if module.check_mode:
        return result

    # The memory goes first and claims what was and what will be true, so that a run killed here loses nothing.
    if file_changes:
        claimed = daemon_merge.both_owners(memory["owners"], new_owners)
        found = new_found + [entry for entry in memory["found"] if entry not in new_found]
        store.write_memory({"owners": claimed, "found": found, "unread": base})
        if on_disk is not None and module.params["backup"]:
            result["backup_file"] = store.back_up(on_disk)
        store.write_config(new_text)
    if reload:
        reason = docker_reload.refusal(host, after, reloadable)
        if reason:
            put_back = base if on_disk == new_text else {**base, "text": text, **pick(memory, "owners", "found")}
            store.write_config(put_back["text"], put_back["mode"])
            store.write_memory({**pick(put_back, "owners", "found"), "unread": None if put_back is base else unread})
            docker_reload.hand_over(host)  # what it may have taken by halves
            module.fail_json(
                msg="the running engine did not take over %s: %s. %s was put back as it was; no container was touched."
                % (", ".join(reloadable), daemon_json.without_passwords(reason), store.path)
            )
    still_unread = base if restart or (not engine and (file_changes or unread)) else None
    remembered = {"owners": new_owners, "found": new_found, "unread": still_unread}
    if file_changes or remembered != memory:
        store.write_memory(remembered)
    return result


def pick(values, *keys):
    return {key: values[key] for key in keys}


def nothing_to_do(_module, host, store):
    return {
        "changed": False,
        "changed_keys": [],
        "unread_keys": [],
        "restart_required": False,
        "running": bool(host.identity()) and store.is_read_by_engine,
        "reloaded": False,
        "validated": False,
        "file": store.path,
        "config": {},
    }


def revert(module, host, store):
    memory = store.read_memory()
    unread = memory["unread"]
    text = store.read(store.path)
    if not unread:
        return {"changed": False, "restart_required": False, "file": store.path, "live_restore_kept": False}
    back = unread["text"]
    if not unread["reverting"]:
        back = with_live_restore(text, back)
    kept = back != unread["text"]
    backup = {}
    if not module.check_mode and text != back:
        if text is not None and module.params["backup"]:
            backup = {"backup_file": store.back_up(text)}
        # Until the engine runs the memory goes on knowing the whole way back.
        going = dict(unread, reverting=True) if kept else unread
        store.write_memory({"owners": unread["owners"], "found": unread["found"], "unread": going})
        store.write_config(back, unread["mode"])
    if not module.check_mode and not kept:
        store.write_memory({"owners": unread["owners"], "found": unread["found"], "unread": None})
    return {
        "changed": text != back,
        "restart_required": host.identity() != unread["engine"] and not unread["reverting"],
        "file": store.path,
        "live_restore_kept": kept,
        **backup,
        "diff": {
            "before_header": store.path,
            "after_header": store.path,
            "before": daemon_json.without_passwords(text or ""),
            "after": daemon_json.without_passwords(back or ""),
        },
    }


def absent(module, host, store):
    """The file as if this collection had never been here."""
    memory, text = store.read_memory(), store.read(store.path)
    new, owners, found = text or "", memory["owners"], memory["found"]
    if memory["unread"] and memory["unread"]["reverting"]:
        new, owners, found = memory["unread"]["text"] or "", memory["unread"]["owners"], memory["unread"]["found"]
    try:
        for owner in sorted(owners):
            new, owners, found = daemon_merge.merge(new, {}, owners, owner, found)
        new = new if not memory["owners"] or daemon_json.parse(new) else None
    except daemon_json.DaemonJsonError as error:
        module.fail_json(msg="%s is not valid and was left as it is: %s" % (store.path, error))
    changed = new != text and bool(memory["owners"] or memory["unread"])
    if not module.check_mode:
        if changed:
            store.write_config(new)
        store.write_memory({"owners": {}, "found": [], "unread": None})
        store.remove_lock()
    return {
        "changed": changed,
        "file": store.path,
        "diff": {
            "before_header": store.path,
            "after_header": store.path,
            "before": daemon_json.without_passwords(text or ""),
            "after": daemon_json.without_passwords(new or ""),
        },
    }


def with_live_restore(failed, back):
    """The text to put back, with live-restore when the failed one had it: a start without would stop the containers."""
    try:
        if daemon_json.parse(failed or "").get("live-restore") is not True:
            return back
        return daemon_json.set_value(back if back and back.strip() else "{}\n", ("live-restore",), True)
    except (
        daemon_json.DaemonJsonError,
        ValueError,
    ):  # somebody has broken a file meanwhile: there is nothing to add to
        return back


def main():
    module = RedactingModule(
        argument_spec={
            "config": {"type": "dict"},
            "defaults": {"type": "dict", "default": {}},
            "owner": {"type": "str", "default": "default"},
            "state": {"type": "str", "choices": ["merged", "reverted", "absent"], "default": "merged"},
            "path": {"type": "path"},
            "user": {"type": "str"},
            "backup": {"type": "bool", "default": True},
            "abandon_data_root": {"type": "bool", "default": False},
            "write_when": {"type": "str", "choices": ["always", "no_restart"], "default": "always"},
        },
        required_if=[("state", "merged", ["config"])],
        supports_check_mode=True,
    )
    host = DockerHost(module, module.params["user"])
    store = Store(module, host)
    if module.params["state"] == "reverted":
        act = revert
    elif module.params["state"] == "absent":
        act = absent
    elif module.params["config"] or module.params["defaults"] or store.remembers():
        act = merge
    else:  # nobody wants anything of this file, so nobody judges it
        act = nothing_to_do
    with store.lock() if act is not nothing_to_do else contextlib.nullcontext():
        result = act(module, host, store)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
