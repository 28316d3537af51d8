#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: serving_software_info
short_description: What a host would serve with, to be compared with its peers
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Tells the identity of an image and of a model's files on this host, and the versions of what runs them.
  - Reads no file of the model, only sizes and times against the manifest.
extends_documentation_fragment:
  - inferops.gpu_host.attributes
  - inferops.gpu_host.attributes.info_module
options:
  image:
    description: The image that would serve.
    type: str
    required: true
  model_dir:
    description: The directory of the model that would be served, if any.
    type: path
"""

EXAMPLES = r"""
- name: Look at what would serve
  inferops.gpu_host.serving_software_info:
    image: vllm/vllm-openai:v0.33.0
    model_dir: /data/models/Qwen/Qwen2.5-7B-Instruct
  register: software
"""

RETURN = r"""
software:
  description:
    - Versions and identities by name, V(null) where there is none.
    - C(image) is the image's ID; an image that was built here is known by what it was built from.
    - C(weights) is the C(content_digest) of the manifest, or a digest of names and sizes where there is no manifest.
  returned: always
  type: dict
  contains:
    architecture: {description: "Such as V(x86_64).", type: str}
    ray: {description: Version of Ray in the image., type: str}
    vllm: {description: Version of vLLM in the image., type: str}
    docker: {description: Version of the engine., type: str}
    driver: {description: Version of the NVIDIA driver., type: str}
    image: {description: Identity of the image., type: str}
    toolkit: {description: Version of the NVIDIA Container Toolkit., type: str}
    weights: {description: Identity of the model's files., type: str}
problems:
  description: What is broken, by the same names.
  returned: always
  type: dict
  sample: {"weights": "model.safetensors: 12 bytes, the manifest says 2883584; run playbooks/weights.yml"}
"""

import hashlib
import os
import platform
import urllib.parse

from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_files, _model_snapshot
from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_host import DockerHost
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule
from ansible_collections.inferops.gpu_host.plugins.module_utils._sameness import parse_toolkit
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import (
    UntrustedError,
    bounded_json,
    printable,
)


def weights(directory):
    """(identity, problem) of a model's files."""
    if not directory or not os.path.isdir(directory):
        return None, None
    manifest = _model_snapshot.read_manifest(directory)
    if manifest is None:
        paths = _model_files.files_below(directory)
        listing = "\n".join("%s %d" % (path, _model_files.size_of(directory, path) or 0) for path in paths)
        return "names and sizes " + hashlib.sha256(listing.encode("utf-8")).hexdigest()[:16], None
    problems, touched = _model_snapshot.quick_check(directory, manifest)
    problems.update({entry.path: "changed since it was verified" for entry in touched})
    told = "; ".join("%s: %s" % item for item in sorted(problems.items())[:3])
    return manifest["content_digest"], told + "; run playbooks/weights.yml" if problems else None


def image_identity(docker, name):
    image = docker.get("/images/%s/json" % urllib.parse.quote(name, safe="/:@"))
    if not image:
        return None
    labels = (image.get("Config") or {}).get("Labels") or {}
    built_from = labels.get("inferops.build.digest")
    return "built from " + built_from if built_from else image["Id"]


# Reads what is installed without importing it, so it needs no GPU and takes a second.
_VERSIONS = """
import importlib.metadata, json
found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
print(json.dumps({name: found.get(name) for name in ("vllm", "ray")}))
"""


def versions_in(docker, image):
    """{vllm, ray} in an image that is here; None where the image has none, or no Python to ask."""
    alone = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "python3"]
    try:
        told = bounded_json(docker.run([*alone, image, "-c", _VERSIONS])[1].strip().splitlines()[-1], "the image")
    except (IndexError, UntrustedError):
        told = None
    told = told if isinstance(told, dict) else {}
    return {name: printable(told[name], 60) if told.get(name) else None for name in ("vllm", "ray")}


def driver():
    try:
        with open("/sys/module/nvidia/version", encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return None


def main():
    module = RedactingModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "model_dir": {"type": "path"},
        },
        supports_check_mode=True,
    )
    docker = DockerHost(module)
    identity, problem = weights(module.params["model_dir"])
    image = image_identity(docker, module.params["image"])
    versions = versions_in(docker, module.params["image"]) if image else {"vllm": None, "ray": None}
    module.exit_json(
        changed=False,
        software={
            "architecture": platform.machine(),
            "docker": (docker.get("/version") or {}).get("Version"),
            "driver": driver(),
            "image": image,
            "ray": versions["ray"],
            "toolkit": parse_toolkit(docker.run(["nvidia-ctk", "--version"])[1]),
            "vllm": versions["vllm"],
            "weights": identity,
        },
        problems={"weights": problem} if problem else {},
    )


if __name__ == "__main__":
    main()
