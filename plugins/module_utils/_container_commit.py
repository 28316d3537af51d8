# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image made of a container: what must not get into it, and the command that makes it."""

from __future__ import annotations

import json
import re

from ansible_collections.inferops.gpu_host.plugins.module_utils._container_state import LABEL
from ansible_collections.inferops.gpu_host.plugins.module_utils._redaction import is_secret_name

MADE_OF = LABEL + "made-of"  # the id of the container, so that the same one is not committed twice
_DELETED = 2
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)


def exposures(inspection, secrets, options=None):
    """Where one of the secrets stands in what an image would keep of a container's configuration and of its options."""
    config = inspection.get("Config") or {}
    texts = {"its command": " ".join((config.get("Entrypoint") or []) + (config.get("Cmd") or []))}
    for name, value in (options or {}).items():
        texts[f"its option {name}"] = " ".join(_arguments({name: value}))
    for item in config.get("Env") or []:
        name, _equals, value = item.partition("=")
        texts[f"its environment, {name}"] = value
    for name, value in (config.get("Labels") or {}).items():
        texts[f"its label {name}"] = value
    return [place for place, text in texts.items() if any(secret in text for secret in secrets)]


def suspicious(inspection):
    """Environment variables that look as if they held a secret."""
    pairs = (item.partition("=")[::2] for item in (inspection.get("Config") or {}).get("Env") or [])
    return sorted(name for name, value in pairs if value and _SECRET_NAME.search(name))


def own_files(changes, inspection):
    """The files that a container added or changed; what lies on its mounts is not in an image."""
    mounts = [mount["Destination"].rstrip("/") for mount in inspection.get("Mounts") or []]
    paths = [change["Path"] for change in changes or [] if change["Kind"] != _DELETED]
    directories = {path.rpartition("/")[0] for path in paths}  # of a changed file all directories count as changed
    return [
        path
        for path in paths
        if path not in directories and not any(f"{path}/".startswith(f"{mount}/") for mount in mounts)
    ]


def commit_command(inspection, image, command):
    """`docker commit …`. The labels by which this collection knows its own containers do not go along."""
    labels = dict.fromkeys((inspection.get("Config") or {}).get("Labels") or {}, "")
    changes = [f'LABEL {name}=""' for name in sorted(labels) if name.startswith(LABEL)]
    changes.append(f'LABEL {MADE_OF}="{inspection["Id"]}"')
    changes.append("CMD " + json.dumps(command))
    return ["docker", "commit", *(word for change in changes for word in ("--change", change)), inspection["Id"], image]


def whole_command(inspection, options=None):
    """What follows `vllm serve`, with the options of its configuration file, but for secrets, in the file's place."""
    words = list((inspection.get("Config") or {}).get("Cmd") or [])
    if not options or "--config" not in words:
        return words
    at = words.index("--config")
    return words[:at] + _arguments(options) + words[at + 2 :]


def _arguments(options):
    words = []
    for name, value in sorted(options.items()):
        if is_secret_name(name) or value is None or value is False:
            continue
        words.append("--" + name)
        if isinstance(value, list):
            words += [str(item) for item in value]
        elif isinstance(value, dict):
            words.append(json.dumps(value))
        elif value is not True:
            words.append(str(value))
    return words
