#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: micromamba_environment
short_description: Keep a micromamba environment as declared
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Creates an environment, updates it when its declaration changed or a declared package is gone, and leaves it alone
    otherwise.
  - Packages that a declaration no longer names are left installed; remove the environment to be rid of them.
  - Only one run at a time works below a root prefix.
options:
  name:
    description: The environment's name, a directory below C(envs) of the root prefix.
    type: str
    required: true
  state:
    description: Whether the environment is there.
    type: str
    choices: [present, absent]
    default: present
  root_prefix:
    description: Micromamba's root prefix.
    type: path
    required: true
  executable:
    description: The micromamba binary.
    type: path
    default: /usr/bin/micromamba
  python:
    description: Version of Python, such as V(3.12). Left out, Python comes only as other packages ask for it.
    type: str
  packages:
    description: Packages as micromamba takes them, such as V(numpy>=2).
    type: list
    elements: str
    default: []
  channels:
    description: Channels that replace the configured ones for this environment.
    type: list
    elements: str
    default: []
  pip:
    description: Packages that the environment's own pip installs afterwards.
    type: list
    elements: str
    default: []
  pip_index_url:
    description: Index for O(pip). Left out, pip's own.
    type: str
  lock_timeout:
    description: Seconds to wait for another run.
    type: int
    default: 1800
extends_documentation_fragment:
  - inferops.gpu_host.attributes
attributes:
  check_mode:
    support: full
    details: It also says why.
  diff_mode:
    support: full
    details: The difference is the declaration.
"""

EXAMPLES = r"""
- name: An environment for the hubs' clients
  inferops.gpu_host.micromamba_environment:
    name: hub-client
    root_prefix: /opt/micromamba
    python: "3.12"
    packages: [pip]
    pip: [modelscope-hub==0.5.1, huggingface_hub==2.4.0]
"""

RETURN = r"""
prefix:
  description: Directory of the environment.
  type: str
  returned: always
reasons:
  description: Why it was touched.
  type: list
  elements: str
  returned: always
"""

import fcntl
import glob
import json
import os
import shutil
import time

from ansible_collections.inferops.gpu_host.plugins.module_utils import _micromamba as micromamba
from ansible_collections.inferops.gpu_host.plugins.module_utils import _pip_index
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import UntrustedError, read_json


def last_spec(prefix):
    """The declaration that was carried out last, None when there is no environment."""
    try:
        return read_json(os.path.join(prefix, "conda-meta", micromamba.SPEC_NAME))
    except UntrustedError:
        return {} if os.path.isdir(os.path.join(prefix, "conda-meta")) else None


def listing(pattern):
    return [name for place in glob.glob(pattern) for name in os.listdir(place)]


def lock(module, root_prefix):
    """Held until this process ends; the kernel drops it even when it is killed."""
    os.makedirs(root_prefix, exist_ok=True)
    path = os.path.join(root_prefix, ".inferops.lock")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC  # a link would have root make a file elsewhere
    handle = os.fdopen(os.open(path, flags, 0o600), "r+")
    deadline = time.monotonic() + module.params["lock_timeout"]
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except OSError:
            if time.monotonic() > deadline:
                module.fail_json(msg=f"another run works below {root_prefix}; waited {module.params['lock_timeout']} s")
            time.sleep(0.5)


def written(directory, text):
    """The path of a file with this text in a directory that only we can read; None for no text."""
    if text is None:
        return None
    path = os.path.join(directory, "environment.yml")
    with open(path, "w", encoding="utf-8") as handle:
        os.fchmod(handle.fileno(), 0o600)
        handle.write(text)
    return path


def run(module, command, what, environment=None):
    code, output, errors = module.run_command(command, environ_update=environment)
    if code:
        module.fail_json(msg=f"{what} ended with {code}: {(errors or output).strip()[-1500:]}", command=command)


def main():
    module = RedactingModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "root_prefix": {"type": "path", "required": True},
            "executable": {"type": "path", "default": "/usr/bin/micromamba"},
            "python": {"type": "str"},
            "packages": {"type": "list", "elements": "str", "default": []},
            "channels": {"type": "list", "elements": "str", "default": []},
            "pip": {"type": "list", "elements": "str", "default": []},
            "pip_index_url": {"type": "str"},
            "lock_timeout": {"type": "int", "default": 1800},
        },
        supports_check_mode=True,
    )
    args = module.params
    prefix = os.path.join(args["root_prefix"], "envs", args["name"])
    held = None if module.check_mode else lock(module, args["root_prefix"])
    last = last_spec(prefix)
    if args["state"] == "absent":
        if last is not None and not module.check_mode:
            shutil.rmtree(prefix)
        module.exit_json(changed=last is not None, prefix=prefix, reasons=[])

    wanted = micromamba.wanted_spec(
        args["python"], args["packages"], args["channels"], args["pip"], args["pip_index_url"]
    )
    conda = micromamba.installed_conda(listing(os.path.join(prefix, "conda-meta")))
    pip = micromamba.installed_pip(listing(os.path.join(prefix, "lib", "python*", "site-packages")))
    reasons = micromamba.reasons_to_act(wanted, last, conda, pip)
    if reasons and not module.check_mode:
        file = written(module.tmpdir, micromamba.conda_file(wanted))
        command = micromamba.conda_command(
            args["executable"], args["root_prefix"], prefix, wanted, exists=last is not None, file=file
        )
        if wanted["packages"] or last is None:
            run(module, command, "micromamba")
        if wanted["pip"]:
            pip = micromamba.pip_command(prefix, _pip_index.requirements(module.tmpdir, wanted["pip"]))
            run(module, pip, "pip", _pip_index.environment(module.tmpdir, args["pip_index_url"]))
        os.makedirs(os.path.join(prefix, "conda-meta"), exist_ok=True)
        with open(os.path.join(prefix, "conda-meta", micromamba.SPEC_NAME), "w", encoding="utf-8") as handle:
            json.dump(micromamba.recorded(wanted), handle, indent=1)
    del held
    module.exit_json(
        changed=bool(reasons),
        prefix=prefix,
        reasons=reasons,
        diff={"before": json.dumps(last or {}, indent=1) + "\n", "after": json.dumps(wanted, indent=1) + "\n"},
    )


if __name__ == "__main__":
    main()
