# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What among a model's files is a program: code that `trust_remote_code` runs, and weights that are pickles.

Whoever publishes a model can put anything there, and a branch can hold something else tomorrow. So such code runs only
from a commit, after somebody has looked at it: the service names the digest of exactly these files. A pickle runs what
it likes when it is read, and is refused unless the service asks for it.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re

from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_files

# What a repository's Python brings along or compiles, besides itself.
CODE = (".py", ".pyc", ".so", ".cpp", ".cc", ".cu", ".cuh", ".h", ".hpp")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_READ_PICKLES = ("pt", "npcache")  # values of load-format that take a pickle though there are safetensors
_PLUGINS = ("tool-parser-plugin", "reasoning-parser-plugin")  # options that name a file of Python
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LONGEST_CODE = 64 * 2**20  # bytes of one file of code


def code_of(directory):
    """{code, digest, pickles, spare_pickles, problem} of a model's directory on this host; None where there is none.

    digest: of the code's names and contents; None without code. spare_pickles: those that lie beside safetensors, and
    are not read. problem: why it could not be read; then nothing in it counts as accepted.
    """
    if not os.path.isdir(directory):
        return None
    found = {"code": [], "digest": None, "pickles": [], "spare_pickles": [], "problem": None}
    names = sorted(_model_files.names_below(directory))
    safe = {posixpath.dirname(name) for name in names if name.endswith(".safetensors")}
    for name in names:
        if name.lower().endswith(PICKLES):
            found["spare_pickles" if posixpath.dirname(name) in safe else "pickles"].append(name)
    digest = hashlib.sha256()
    for name in names:
        if name.lower().endswith(CODE):
            try:
                content = _hash(directory, name)
            except (OSError, ValueError, _model_files.NotAFile) as error:
                return dict(found, problem=f"{name}: {error}")
            digest.update(f"{content} {name}\n".encode("utf-8", "surrogateescape"))
            found["code"].append(name)
    if found["code"]:
        found["digest"] = "sha256:" + digest.hexdigest()
    return found


def _hash(directory, name):
    with os.fdopen(_model_files.open_file(directory, name), "rb") as stream:
        content = stream.read(_LONGEST_CODE + 1)
    if len(content) > _LONGEST_CODE:
        raise ValueError(f"more than {_LONGEST_CODE} bytes of code")
    return hashlib.sha256(content).hexdigest()


def runs_code(service, options=None, model_dir=None):
    """Why a service runs code of its model's repository, in words of its declaration; '' when it does not.

    options: what its engine gets besides, under the engine's names.
    """
    options = {**(options or {}), **(service.get("options") or {})}
    options = {str(name).replace("_", "-"): value for name, value in options.items()}
    if service.get("trust_remote_code") or options.get("trust-remote-code"):
        return "trust_remote_code"
    for name in _PLUGINS:
        below = str(options.get(name) or "")
        if model_dir and posixpath.normpath(below).startswith(model_dir.rstrip("/") + "/"):
            return f"options: {name}"
    return ""


def unpinned(service):
    """Why the revision of a service whose model's code runs is not good enough; '' when it is."""
    if not runs_code(service) or service["hub"] not in ("modelscope", "huggingface"):
        return ""
    if service["revision"] and _COMMIT.fullmatch(service["revision"]):
        return ""
    return (
        f"trust_remote_code runs the Python of {service['model']}, and revision is {service['revision'] or 'not set'}, "
        "which can be other code tomorrow: set revision to the commit that you have looked at (40 hexadecimal digits). "
        "Many models do not need trust_remote_code any more, since the engine has their classes itself"
    )


def refusal(service, code, options=None, model_dir=None):
    """Why a service must not be started with these files; None when it may. code: what code_of returned."""
    if code is None:
        return None
    name, where = service["name"], model_dir or service["model"]
    reason = runs_code(service, options, model_dir)
    if reason and code["problem"]:
        return f"Service {name} runs code of its model ({reason}), which cannot be judged: {where}/{code['problem']}"
    if reason and code["digest"] and service["trusted_code"] != code["digest"]:
        accepted = "its trusted_code is that of other files" if service["trusted_code"] else "none is accepted"
        files = ", ".join(code["code"][:10]) + (f" and {len(code['code']) - 10} more" if len(code["code"]) > 10 else "")
        return (
            f"Service {name} runs code of its model ({reason}), and {accepted}. Look at {files} in {where}; "
            f"if you trust them, set in the service: trusted_code: {code['digest']}"
        )
    load_format = str((service.get("options") or {}).get("load-format") or "")
    pickles = code["pickles"] + (code["spare_pickles"] if load_format in _READ_PICKLES else [])
    if pickles and not service["allow_pickle"]:
        return f"Service {name}: {_about_pickles(pickles, where)}"
    return None


def _about_pickles(pickles, where):
    return (
        f"the weights in {where} are pickles ({', '.join(pickles[:3])}), which can run code when they are read. Take a "
        "model with safetensors, or set allow_pickle: true in the service if you trust who published them"
    )


def refused_pickles(service, weights):
    """The same before anything is downloaded. weights: the names of the files that would be loaded."""
    pickles = [name for name in weights or () if name.lower().endswith(PICKLES)]
    if not pickles or service["allow_pickle"]:
        return ""
    return _about_pickles(pickles, service["model"])
