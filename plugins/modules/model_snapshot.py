#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: model_snapshot
short_description: Keep a model at a revision in a directory, whole or not at all
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Brings the files of a model into a directory, verifies every one of them, and publishes the directory in one step,
    so that a directory which exists with its manifest is complete.
  - Files arrive in a hidden directory beside the target. An interrupted run, even a killed one, loses nothing that had
    arrived; the next run goes on from there.
  - A directory that was filled by hand is adopted when its files have the hashes that the source lists.
  - Only one run works on a model at a time; a second one waits and then finds the model in place.
options:
  directory:
    description:
      - The model's own directory. What lies beside it under hidden names (C(.NAME.staging) and others) belongs to it.
    type: path
    required: true
  state:
    description:
      - V(present) trusts the manifest, file sizes and modification times, and takes well under a second.
      - V(verified) also reads every file, in parallel, and compares its sha256. It needs no network while all is well.
      - V(absent) removes the directory and what belongs to it, when it lies below O(below) and holds our manifest.
    type: str
    choices: [present, verified, absent]
    default: present
  below:
    description:
      - With O(state=absent), the directory of all models. A directory that does not lie below it is refused; one that
        links lead out of it, or that holds no manifest of this collection, stays, with a warning.
    type: path
  model:
    description: The model's name at its hub, such as V(Qwen/Qwen2.5-7B-Instruct). Required unless O(state=absent).
    type: str
  source:
    description:
      - With V(modelscope) and V(huggingface) the hub's official client does the transfer, see O(client_prefix).
      - V(url) is a plain HTTP mirror of the model's directory, see O(url).
      - V(share) is another host that offers the model by M(inferops.gpu_host.model_share), see O(url), O(token)
        and O(manifest).
      - V(rsync) is a directory on another host that holds the model, see O(url) and O(manifest).
      - V(local) is a directory on the same host, given by O(path).
      - V(generated) is a tiny random model made on the spot, which proves a serving path without any network.
    type: str
    choices: [modelscope, huggingface, url, share, rsync, local, generated]
    default: modelscope
  revision:
    description:
      - Branch, tag or commit. Left out, the hub's default branch.
      - What a branch stood for when it was fetched is recorded in the manifest, as a commit where the hub tells one and
        as C(content_digest) always. It is not asked for again unless O(update=true).
    type: str
  endpoint:
    description: Base URL of the hub or of a mirror that speaks its API. Left out, the hub's own.
    type: str
  token:
    description:
      - Access token for private and gated models. It is passed on in the client's environment only, never on a
        command line, and appears in no result and no log.
      - With O(source=share), the secret of the share. It is proved, not sent.
    type: str
  client_prefix:
    description: The environment (a venv or a micromamba environment) whose C(bin) holds C(modelscope) or C(hf).
    type: path
  url:
    description:
      - With O(source=url), the address of the model's directory. The mirror offers C(.model-manifest.json) or
        C(SHA256SUMS) in it, unless O(manifest) is given.
      - With O(source=share), C(http://HOST:PORT/).
      - With O(source=rsync), C(HOST:DIRECTORY) as rsync takes it, reached over ssh without a question.
    type: str
  manifest:
    description:
      - The manifest of another host's copy. The same files are fetched and the same manifest is written;
        no listing is asked for. Required with O(source=share) and O(source=rsync).
    type: dict
  path:
    description: With O(source=local), the directory to copy from.
    type: path
  include:
    description: Shell globs on the path of a file; only matching files are wanted. V(dir/) means all below.
    type: list
    elements: str
    default: []
  exclude:
    description: Shell globs on the path of a file; matching files are not wanted.
    type: list
    elements: str
    default: []
  skip_duplicate_weights:
    description:
      - Leave out weights that are there a second time in another format (C(pytorch_model*.bin), C(original/), C(onnx/),
        Mistral's C(consolidated*.safetensors)) when the directory holds safetensors. Has no effect with O(include).
    type: bool
    default: true
  update:
    description: Ask the source whether it offers other files now, although the manifest answers the request.
    type: bool
    default: false
  repair:
    description: Fetch missing and damaged files again. With V(false) damage is a failure, and nothing is touched.
    type: bool
    default: true
  fetch:
    description:
      - With V(false) the module only looks and says whether the model is there (RV(complete)). Nothing is fetched
        or changed, no source is asked, and a model that is not there is no failure.
      - A file that changed since it was published counts as not there unless O(state=verified), which reads it.
    type: bool
    default: true
  allow_root_filesystem:
    description: Allow files to be fetched into a directory on the root filesystem.
    type: bool
    default: false
  space_margin:
    description: Percent of free space wanted beyond what is still to fetch.
    type: int
    default: 5
  workers:
    description: How many files are read at once for verification. Left out, one per processor core.
    type: int
  max_workers:
    description: How many files are fetched at once.
    type: int
    default: 8
  stall_timeout:
    description: Seconds without a byte after which a client is stopped and started again.
    type: int
    default: 600
  attempts:
    description: How often a transfer is started before the module gives up.
    type: int
    default: 5
  retry_delay:
    description: Seconds before the second attempt; doubled for each further one, up to 60.
    type: int
    default: 5
  lock_timeout:
    description: Seconds to wait for another run on the same model.
    type: int
    default: 3600
extends_documentation_fragment:
  - inferops.gpu_host.attributes
attributes:
  check_mode:
    support: full
    details: It also says what would be fetched.
  diff_mode:
    support: full
    details: One line per file.
"""

EXAMPLES = r"""
- name: A model from ModelScope at a commit
  inferops.gpu_host.model_snapshot:
    model: Qwen/Qwen2.5-7B-Instruct
    revision: a09a35458c702b33eeacc393d103063234e8bc28
    directory: /data/models/Qwen/Qwen2.5-7B-Instruct
    client_prefix: /opt/inferops/hub-client

- name: A gated model by way of a mirror of Hugging Face
  inferops.gpu_host.model_snapshot:
    source: huggingface
    endpoint: https://hf-mirror.com
    model: meta-llama/Llama-3.1-8B-Instruct
    token: "{{ vault_hugging_face_token }}"
    directory: /data/models/meta-llama/Llama-3.1-8B-Instruct
    client_prefix: /opt/inferops/hub-client

- name: The demo model, without any network
  inferops.gpu_host.model_snapshot:
    source: generated
    model: inferops/tiny-random-qwen2
    directory: /data/models/inferops/tiny-random-qwen2

- name: A model from a disk that was carried in
  inferops.gpu_host.model_snapshot:
    source: local
    model: Qwen/Qwen2.5-7B-Instruct
    path: /mnt/usb/Qwen2.5-7B-Instruct
    directory: /data/models/Qwen/Qwen2.5-7B-Instruct

- name: See whether it is there, without asking anybody
  inferops.gpu_host.model_snapshot:
    model: Qwen/Qwen2.5-7B-Instruct
    directory: /data/models/Qwen/Qwen2.5-7B-Instruct
    fetch: false
  register: seen

- name: Read every byte again
  inferops.gpu_host.model_snapshot:
    state: verified
    source: local
    model: Qwen/Qwen2.5-7B-Instruct
    path: /mnt/usb/Qwen2.5-7B-Instruct
    directory: /data/models/Qwen/Qwen2.5-7B-Instruct
"""

RETURN = r"""
msg:
  description: One line that says what is there now and how it came.
  type: str
  returned: always
directory:
  description: The model's directory.
  type: str
  returned: always
manifest:
  description: What the directory holds, as in its C(.model-manifest.json).
  type: dict
  returned: when O(state) is not V(absent)
  contains:
    model:
      description: The model's name.
      type: str
    source:
      description: Where it came from.
      type: str
    revision:
      description: The revision that was asked for.
      type: str
    resolved_revision:
      description: The commit that it stood for, where the source tells one.
      type: str
    time:
      description: When the manifest was written, in UTC.
      type: str
    size:
      description: Bytes of all files.
      type: int
    content_digest:
      description: One sha256 over the hashes of all files; equal on hosts that hold the same bytes.
      type: str
    files:
      description: Path, size and sha256 of every file.
      type: list
      elements: dict
complete:
  description: Whether the directory is as wanted now; V(false) only in check mode and with O(fetch=false).
  type: bool
  returned: when O(state) is not V(absent)
verified:
  description: Whether every file was read and had the right sha256 in this run.
  type: bool
  returned: when O(state) is not V(absent)
downloaded_bytes:
  description: Bytes that were fetched in this run.
  type: int
  returned: when O(state) is not V(absent)
reused_bytes:
  description: Bytes that were there already, in whole files or in unfinished ones.
  type: int
  returned: when O(state) is not V(absent)
quarantined:
  description: Files with wrong bytes, moved to C(.NAME.quarantine) beside the directory.
  type: list
  elements: str
  returned: when O(state) is not V(absent)
unmanaged_files:
  description: Files in the directory that the source does not list; they were kept.
  type: list
  elements: str
  returned: when O(state) is not V(absent)
size_only:
  description: Files for which the source lists no hash, so that only their size could be compared with it.
  type: list
  elements: str
  returned: when O(state) is not V(absent)
"""

import json
import os

from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_sources as sources
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_files import NotAFile
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_manifest import (
    MANIFEST_NAME,
    ManifestError,
    entries_of,
    parse,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_share_source import ShareSource
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_snapshot import (
    Places,
    Progress,
    Snapshot,
    SnapshotError,
    absent,
    locked,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._own_files import why_not_removable
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule

OPTIONS = (
    "state",
    "skip_duplicate_weights",
    "update",
    "repair",
    "fetch",
    "allow_root_filesystem",
    "space_margin",
    "workers",
    "attempts",
    "retry_delay",
)


def source_of(module, places):
    """The source object for the module's arguments."""
    args = module.params
    kind = args["source"]
    entries = entries_of(args["manifest"]) if args["manifest"] else None
    if kind == "generated":
        return sources.GeneratedSource(os.path.join(module.tmpdir, "demo-model"), args["workers"])
    if kind == "local":
        return sources.LocalSource(args["path"], args["workers"], args["include"], args["exclude"])
    if kind == "url":
        return sources.UrlSource(args["url"], args["token"], entries, args["max_workers"])
    if kind == "share":
        return ShareSource(args["url"], args["token"], entries, args["max_workers"])
    if kind == "rsync":
        return sources.RsyncSource(args["url"], entries, places)
    hub, endpoint = {
        "modelscope": (sources.ModelScopeSource, sources.MODELSCOPE),
        "huggingface": (sources.HuggingFaceSource, sources.HUGGING_FACE),
    }[kind]
    return hub(
        args["model"],
        args["revision"],
        args["endpoint"] or endpoint,
        args["token"],
        args["client_prefix"],
        places,
        args["max_workers"],
        args["stall_timeout"],
    )


def ensure(module, places):
    """Bring the directory to `present` or `verified`."""
    args = module.params
    request = {name: args[name] for name in ("source", "model", "revision", "include", "exclude")}
    options = {name: args[name] for name in OPTIONS}
    options.update(check_mode=module.check_mode, workers=args["workers"] or None, same_as=args["manifest"])
    if args["manifest"]:
        parse(json.dumps(args["manifest"]))
    source = source_of(module, places)
    reads_all = args["state"] == "verified" and os.path.isdir(places.directory)
    if module.check_mode or not (args["fetch"] or reads_all):
        return Snapshot(places, source, request, options, Progress(None)).ensure()
    os.umask(0o022)  # what is published is for everyone to read, what is not has a closed directory
    os.makedirs(places.parent, exist_ok=True)
    with locked(places, args["lock_timeout"]), Progress(places.progress) as progress:
        return Snapshot(places, source, request, options, progress).ensure()


def check_arguments(module):
    """What a source needs and argument_spec cannot say, because it does not matter for `absent`."""
    needs = {"local": ["path"], "url": ["url"], "share": ["url", "token", "manifest"], "rsync": ["url", "manifest"]}
    for name in needs.get(module.params["source"], []):
        if not module.params[name]:
            module.fail_json(msg=f"source is {module.params['source']}: {name} is missing")


def refuse_what_is_not_ours(module):
    """Before anything is removed: a path that leads elsewhere ends the play, what others brought stays."""
    directory, below = module.params["directory"], module.params["below"]
    reason = why_not_removable(directory, below, MANIFEST_NAME)
    # An operator's link below it to another disk is no mistake.
    if not os.path.abspath(directory).startswith(os.path.abspath(below).rstrip("/") + "/"):
        module.fail_json(msg=f"{reason}, so it stays: correct `directory` of the model, or model_weights_directory")
    if reason:
        module.warn(f"{reason}; it stays")
        module.exit_json(changed=False, directory=directory, msg=f"{reason}; it stays")


def main():
    module = RedactingModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "verified", "absent"], "default": "present"},
            "below": {"type": "path"},
            "model": {"type": "str"},
            "source": {
                "type": "str",
                "choices": ["modelscope", "huggingface", "url", "share", "rsync", "local", "generated"],
                "default": "modelscope",
            },
            "revision": {"type": "str"},
            "endpoint": {"type": "str"},
            "token": {"type": "str", "no_log": True},
            "client_prefix": {"type": "path"},
            "url": {"type": "str"},
            "manifest": {"type": "dict"},
            "path": {"type": "path"},
            "include": {"type": "list", "elements": "str", "default": []},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "skip_duplicate_weights": {"type": "bool", "default": True},
            "update": {"type": "bool", "default": False},
            "repair": {"type": "bool", "default": True},
            "fetch": {"type": "bool", "default": True},
            "allow_root_filesystem": {"type": "bool", "default": False},
            "space_margin": {"type": "int", "default": 5},
            "workers": {"type": "int"},
            "max_workers": {"type": "int", "default": 8},
            "stall_timeout": {"type": "int", "default": 600},
            "attempts": {"type": "int", "default": 5},
            "retry_delay": {"type": "int", "default": 5},
            "lock_timeout": {"type": "int", "default": 3600},
        },
        required_if=[
            ("state", "present", ["model"]),
            ("state", "verified", ["model"]),
            ("state", "absent", ["below"]),
        ],
        supports_check_mode=True,
    )
    try:
        if module.params["state"] == "absent":
            refuse_what_is_not_ours(module)
        places = Places(module.params["directory"])
        if module.params["state"] == "absent":
            changed = absent(places, module.check_mode, module.params["lock_timeout"])
            result = {
                "changed": changed,
                "directory": places.given,
                "msg": f"{places.given} {'removed' if changed else 'was not there'}",
            }
        else:
            if module.params["fetch"]:
                check_arguments(module)
            result = ensure(module, places)
    except (SnapshotError, ManifestError) as error:
        module.fail_json(msg=str(error))
    except NotAFile as error:
        module.fail_json(msg=f"a file of {module.params['directory']} {error}")
    except OSError as error:
        module.fail_json(msg=f"{error.strerror or error}: {error.filename or module.params['directory']}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
