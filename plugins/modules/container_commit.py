#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: container_commit
short_description: Make an image of a container, unless a secret would get into it
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Does what C(docker commit) does, after it has looked for O(secrets) in the container's command, environment, labels
    and in every file that the container added or changed.
  - The container goes on running; it is paused for the moment of the copy. What lies on its volumes is not copied.
  - A container that O(image) was already made of is left alone.
extends_documentation_fragment:
  - inferops.gpu_host.attributes
options:
  container:
    description: Name or id of the container.
    type: str
    required: true
  image:
    description: Name of the image, with tag.
    type: str
    required: true
  options:
    description:
      - What is in the configuration file of vLLM that lies on a volume of the container. It is written out into the
        command of the image, so that the image starts without that file.
    type: dict
  secrets:
    description:
      - Texts that must not be found in the image.
      - Secrets in O(options), such as a token or a password in an address, must not be there either.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    details: Looks for the secrets too.
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Make an image of a service
  inferops.gpu_host.container_commit:
    container: qwen2.5-7b-instruct
    image: registry.example/qwen2.5-7b-instruct:1
    secrets: ["{{ inference_api_key }}"]
"""

RETURN = r"""
id:
  description: The id of the image; nothing in check mode.
  returned: always
  type: str
warnings:
  description: Environment variables that look as if they held a secret that was not named.
  returned: when there are any
  type: list
  elements: str
"""

import re
from urllib.parse import quote

from ansible_collections.inferops.gpu_host.plugins.module_utils import _container_commit
from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_host import DockerHost
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule
from ansible_collections.inferops.gpu_host.plugins.module_utils._redaction import Redaction


def main():
    module = RedactingModule(
        argument_spec={
            "container": {"type": "str", "required": True},
            "image": {"type": "str", "required": True},
            "options": {"type": "dict"},
            "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    docker = DockerHost(module)
    inspection = docker.get("/containers/%s/json" % quote(params["container"]))
    if not inspection:
        module.fail_json(msg="There is no container %s on this host." % params["container"])
    there = docker.get("/images/%s/json" % params["image"])
    if there and ((there.get("Config") or {}).get("Labels") or {}).get(_container_commit.MADE_OF) == inspection["Id"]:
        module.exit_json(changed=False, id=there["Id"])

    # Also those that the options hold under such names, or in addresses.
    secrets = sorted({secret for secret in params["secrets"] if secret} | Redaction(params["options"]).secrets)
    places = _container_commit.exposures(inspection, secrets, params["options"])
    changes = docker.get("/containers/%s/changes" % inspection["Id"], timeout=120)
    for path in _container_commit.own_files(changes, inspection) if secrets else []:
        content = docker.get_bytes("/containers/%s/archive?path=%s" % (inspection["Id"], quote(path)), timeout=120)
        if any(secret.encode("utf-8") in (content or b"") for secret in secrets):
            places.append("its file " + path)
    if places:
        module.fail_json(
            msg="An image of %s would hold a secret, in %s. Take it out of there first, or make the image without it."
            % (params["container"], ", ".join(places))
        )
    for name in _container_commit.suspicious(inspection):
        module.warn(
            "%s sets %s, which the image will hold: make sure that it is no secret" % (params["container"], name)
        )
    if module.check_mode:
        module.exit_json(changed=True, id=None)
    command = _container_commit.whole_command(inspection, params["options"])
    argv = _container_commit.commit_command(inspection, params["image"], command)
    rc, out, err = module.run_command(argv)
    if rc:
        module.fail_json(msg="docker commit failed: %s" % err.strip())
    module.exit_json(changed=True, id=re.sub(r"\s", "", out))


if __name__ == "__main__":
    main()
