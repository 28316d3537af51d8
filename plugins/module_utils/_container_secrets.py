# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container has to know and `docker inspect`, labels and command lines must not tell.

Secrets of the environment go into a 0600 file on the host, which is mounted; a shell reads it before the engine
starts. Labels carry fingerprints of configurations that hold keys. They are made with a key of the host, the seal,
which lies in a 0600 file there: who sees a label, or an image that was made of the container, cannot try out guesses.
"""

from __future__ import annotations

import hashlib
import hmac
import shlex

from ansible_collections.inferops.gpu_host.plugins.module_utils._redaction import Redaction, is_secret_name, text

SECRETS_PATH = "/etc/inferops/secrets"  # in the container
GROUP_TOKEN = "INFEROPS_GROUP_TOKEN"
# In an image that was made of the container the file is missing, and needless.
_START = f'if [ -r {SECRETS_PATH} ]; then set -a; . {SECRETS_PATH}; set +a; fi; exec "$@"'


def seal_of(placement, seals):
    """That of the head of a placement, so that all members of a group make the same of it. None: unknown."""
    nodes = (placement or {}).get("nodes") or [{}]
    return (seals or {}).get(nodes[0].get("host")) or None


def fingerprint(content, name, placement, seals):
    """Changes with the content, secrets included; without a seal with all but the secrets."""
    seal = seal_of(placement, seals)
    if not seal:
        return hashlib.sha256(f"{name}\0{text(content)}".encode()).hexdigest()[:16]
    return _made_with(seal, "configuration", name, content)[:16]


def group_token(content, name, placement, seals):
    """What the members of a group know each other by; None without a seal. It does not follow from the fingerprint."""
    seal = seal_of(placement, seals)
    return _made_with(seal, "group", name, content) if seal else None


def _made_with(seal, purpose, name, content):
    said = "\0".join((purpose, name, content))
    return hmac.new(seal.encode("utf-8"), said.encode("utf-8"), hashlib.sha256).hexdigest()


def take_out(arguments, config_path, placement, seals):
    """Take the secrets out of a container's environment, in place: (path, content) of their file, or (None, None).

    config_path: the engine's own file; this one lies beside it and is mounted alike.
    """
    redaction = Redaction()
    secret = {
        name: str(value)
        for name, value in arguments.get("env", {}).items()
        if value not in (None, "") and (is_secret_name(name) or redaction(str(value), name) != str(value))
    }
    if not secret:
        return None, None
    content = "".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(secret.items()))
    mark = fingerprint(content, arguments["name"], placement, seals)
    path = f"{config_path.rpartition('.')[0]}.{mark}.env"
    beside = next(volume for volume in arguments["volumes"] if volume.startswith(config_path + ":"))
    arguments["env"] = {name: value for name, value in arguments["env"].items() if name not in secret}
    arguments["volumes"] = [*arguments["volumes"], f"{path}:{SECRETS_PATH}:{beside.rpartition(':')[2]}"]
    arguments["entrypoint"] = ["sh", "-c", _START, "sh", *arguments["entrypoint"]]
    return path, content
