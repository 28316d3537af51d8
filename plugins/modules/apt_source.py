#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_source
short_description: Enters a repository into apt's sources once it is proven, in place of other entries for the same one
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Fetches the signing key, and lets apt fetch the repository with it in a directory of its own. Only when that works
    anything is written, so that apt works after every failure of this module, and wherever it is killed.
  - Finds other entries for the same repository by content, in any file and form, also with another scheme, key, slash
    or architecture, and turns them into comments, since apt refuses two keys for one repository. Other repositories in
    those files stay. Components that they named beyond O(components) are taken over.
  - With O(state=absent) the entry and its key go, and those that it replaced come back as they were.
options:
  name:
    description: The name of the entry, C(/etc/apt/sources.list.d/NAME.sources); its key is C(/etc/apt/keyrings/NAME-*).
    type: str
    required: true
  state:
    description: Whether apt has it.
    type: str
    choices: [present, absent]
    default: present
  uris:
    description: The addresses. Needed with O(state=present).
    type: list
    elements: str
    default: []
  suite:
    description: The suite; one that ends in a slash means a flat repository.
    type: str
    default: /
  components:
    description: The components; none for a flat repository.
    type: list
    elements: str
    default: []
  key_url:
    description: Where the signing key is. Needed with O(state=present).
    type: str
extends_documentation_fragment:
  - inferops.gpu_host.attributes
attributes:
  check_mode:
    support: partial
    details: It fetches nothing, so that it cannot say whether the key has changed, nor whether the repository works.
  diff_mode:
    support: full
    details: Without the passwords in URLs.
"""

EXAMPLES = r"""
- name: Enter Docker's repository
  inferops.gpu_host.apt_source:
    name: inferops-docker
    uris: [https://download.docker.com/linux/debian]
    suite: bookworm
    components: [stable]
    key_url: https://download.docker.com/linux/debian/gpg
"""

RETURN = r"""
replaced:
  description: The files in which entries of others were turned into comments, or brought back.
  type: list
  elements: str
  returned: success
file:
  description: The file with the entry.
  type: str
  returned: success
"""

import glob
import hashlib
import os
import shutil
import stat
import tempfile
import time

from ansible.module_utils.urls import fetch_url

from ansible_collections.inferops.gpu_host.plugins.module_utils import _apt_sources as apt_sources
from ansible_collections.inferops.gpu_host.plugins.module_utils._daemon_json import without_passwords
from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_host import UnreadableFileError, read_text
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule

APT = "/etc/apt"
MAX_KEY_BYTES = 256 * 1024
FETCH_SECONDS = 60


def other_files(mine):
    """The files that apt reads besides ours, with their texts. What is no readable file apt does not read either."""
    parts = os.path.join(APT, "sources.list.d")
    names = sorted(
        name for name in (os.listdir(parts) if os.path.isdir(parts) else []) if apt_sources.is_read_by_apt(name)
    )
    found = []
    for path in [os.path.join(APT, "sources.list"), *(os.path.join(parts, name) for name in names)]:
        if path == mine:
            continue
        try:
            found.append((path, read_text(path)))
        except (OSError, UnreadableFileError):
            continue
    return found


def write(module, path, text, mode):
    """Replaces the file at once; a link stays one, and a file that exists keeps its mode unless it has to be closer."""
    path = os.path.realpath(path)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    descriptor, new = tempfile.mkstemp(prefix=".ansible-", dir=os.path.dirname(path))
    with open(descriptor, "wb") as stream:
        stream.write(text if isinstance(text, bytes) else text.encode("utf-8"))
        stream.flush()
        os.fsync(stream.fileno())
    os.chmod(new, mode & stat.S_IMODE(os.stat(path).st_mode) if os.path.exists(path) else mode)
    if os.path.exists(path):
        shutil.copystat(new, path)
        module.atomic_move(new, path)
    else:
        os.rename(new, path)


def fetch_key(module, url):
    response, info = fetch_url(module, url, timeout=30)
    if info["status"] != 200:
        module.fail_json(msg="the signing key %s cannot be fetched: %s" % (without_passwords(url), info["msg"]))
    data, deadline = b"", time.monotonic() + FETCH_SECONDS
    while len(data) <= MAX_KEY_BYTES:
        part = response.read1(MAX_KEY_BYTES) if hasattr(response, "read1") else response.read(MAX_KEY_BYTES + 1)
        if not part:
            break
        data += part
        if time.monotonic() > deadline:
            module.fail_json(
                msg="the signing key %s did not come within %d s" % (without_passwords(url), FETCH_SECONDS)
            )
    if len(data) > MAX_KEY_BYTES or not apt_sources.key_ending(data):
        module.fail_json(
            msg="what %s sends is no signing key; it begins with %r. Nothing was changed."
            % (without_passwords(url), data[:60].decode("utf-8", "replace"))
        )
    return data


def prove(module, text, key_file, key):
    """Lets apt fetch the repository, away from its own lists."""
    place = tempfile.mkdtemp(prefix="apt-", dir=module.tmpdir)
    try:
        for name in ("parts", "lists/partial", "cache/archives/partial"):
            os.makedirs(os.path.join(place, name))
        trial_key = os.path.join(place, os.path.basename(key_file))
        with open(trial_key, "wb") as stream:
            stream.write(key)
        with open(os.path.join(place, "parts/trial.sources"), "w", encoding="utf-8") as stream:
            stream.write(text.replace(key_file, trial_key))
        settings = {
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": place + "/parts",
            "Dir::State::lists": place + "/lists",
            "Dir::Cache": place + "/cache",
            "APT::Sandbox::User": "root",  # only root can look into this directory
            "Acquire::Retries": "1",
            "Acquire::http::Timeout": "30",
        }
        argv = ["apt-get", "update", "--quiet"]
        for name, value in settings.items():
            argv += ["--option", "%s=%s" % (name, value)]
        rc, out, err = module.run_command(argv, environ_update={"LC_ALL": "C"})
        wrong = apt_sources.complaints(out + err)
        if rc or wrong:
            said = without_passwords("; ".join(wrong or [err.strip()]))[:1500].replace(trial_key, key_file)
            module.fail_json(msg="apt cannot use this repository, which was not entered: %s" % said)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def present(module, mine, keys):
    params = module.params
    architecture = module.run_command(["dpkg", "--print-architecture"])[1].strip()
    wanted = {apt_sources.repository(uri, params["suite"], architecture) for uri in params["uris"]}
    others, components = [], list(params["components"])
    for path, text in other_files(mine):
        new, found = apt_sources.disabled(text, path.endswith(".sources"), wanted, architecture)
        if new != text:
            others.append((path, text, new))
            components += found if params["components"] else []
    before = read_text(mine) if os.path.isfile(mine) else ""
    ours = apt_sources.fields_of(before)
    if params["components"]:
        components += ours.get("components", "").split()
    components = list(dict.fromkeys(components))

    key, old_key = None, b""
    key_file = ours.get("signed-by") or keys + "-unknown.asc"
    if not module.check_mode:
        # A new key has a new name, so that at no moment an entry stands beside a key that is not its own.
        key = fetch_key(module, params["key_url"])
        digest = hashlib.sha256(key).hexdigest()[:12]
        key_file = "%s-%s.%s" % (keys, digest, apt_sources.key_ending(key))
        if os.path.isfile(key_file):
            with open(key_file, "rb") as stream:
                old_key = stream.read(MAX_KEY_BYTES + 1)
    text = apt_sources.entry(params["uris"], params["suite"], components, key_file)
    changed = bool(others) or text != before or (key is not None and key != old_key)
    if changed and not module.check_mode:
        prove(module, text, key_file, key)
        # Each step leaves apt with one key for the repository, or with no entry for it.
        write(module, key_file, key, 0o644)
        for path, _old, new in others:
            write(module, path, new, 0o644)
        write(module, mine, text, 0o600 if without_passwords(text) != text else 0o644)
        for path in set(glob.glob(keys + "-*")) - {key_file}:
            os.unlink(path)
    return changed, others, before, text


def absent(module, mine, keys):
    others = [(path, text, apt_sources.restored(text)) for path, text in other_files(mine) if apt_sources.MARK in text]
    before = read_text(mine) if os.path.isfile(mine) else ""
    left = [path for path in [mine, *glob.glob(keys + "-*")] if os.path.lexists(path)]
    if not module.check_mode:
        for path in left:
            os.unlink(path)
        for path, _old, new in others:
            write(module, path, new, 0o644)
    return bool(left or others), others, before, ""


def main():
    module = RedactingModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "uris": {"type": "list", "elements": "str", "default": []},
            "suite": {"type": "str", "default": "/"},
            "components": {"type": "list", "elements": "str", "default": []},
            "key_url": {"type": "str", "no_log": False},
        },
        required_if=[("state", "present", ["uris", "key_url"])],
        supports_check_mode=True,
    )
    mine = os.path.join(APT, "sources.list.d", module.params["name"] + ".sources")
    keys = os.path.join(APT, "keyrings", module.params["name"])
    act = present if module.params["state"] == "present" else absent
    try:
        changed, others, before, after = act(module, mine, keys)
    except UnreadableFileError as error:
        module.fail_json(msg=str(error))
    texts = [(mine, before, after), *others]
    module.exit_json(
        changed=changed,
        file=mine,
        replaced=[path for path, _old, _new in others],
        diff=[
            {
                "before_header": path,
                "after_header": path,
                "before": without_passwords(old),
                "after": without_passwords(new),
            }
            for path, old, new in texts
            if old != new
        ],
    )


if __name__ == "__main__":
    main()
