# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps by which one container takes the place of another, so that each moment in between can be gone on from.

    NAME answers                      → proven: the host keeps its id in NAME.proven, beside its options
    NAME is to be replaced            → aside: it is stopped and called NAME.previous
    its successor NAME answers        → proven, then settled: NAME.previous and what failed before go
    its successor does not            → recovered: that is called NAME.failed, and NAME.previous has its name back

Nothing here removes a container before the one that comes after it is proven, and the order of the calls is such that
whatever is found after a call, or in the middle of one, is told apart: _service_work.py decides what is next.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from urllib.parse import quote

from ansible_collections.inferops.gpu_host.plugins.module_utils import _container_state
from ansible_collections.inferops.gpu_host.plugins.module_utils._container_state import FAILED, PREVIOUS
from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_host import LONGEST_ANSWER
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import (
    UntrustedError,
    bounded_json,
    read_json,
)

PROVEN = ".proven"
OPTIONS_FILE = r"(?:\.candidate)?(?:\.[0-9a-f]{8,64}){1,2}\.(?:yaml|sh|env)"
PATIENCE = 30  # seconds beyond what a container has to stop


class SwapError(Exception):
    """Why a step was not taken, in words for an operator."""


class Swap:
    """The containers of one replica on one host.

    docker: a DockerHost. directory: where the options of the service lie. dry: only say what would change.
    """

    def __init__(self, docker, name, directory, dry=False):
        self.docker, self.name, self.directory, self.dry = docker, name, directory, dry
        self.marker = os.path.join(directory, name + PROVEN)

    # The steps; each says whether it changed something.

    def proven(self):
        """The host keeps that NAME has answered."""
        now = self._there(self.name)
        if now["Id"] == proven_id(self.marker):
            return False
        if not self.dry:
            _write_durably(self.marker, json.dumps({"id": now["Id"], "image": now["Config"]["Image"]}) + "\n")
        return True

    def aside(self, answered=False):
        """NAME is stopped and becomes NAME.previous. answered: it did so a moment ago, so that counts as a proof."""
        now, previous = self._look(self.name), self._look(self.name + PREVIOUS)
        if not now:
            return False
        if answered:
            self.proven()
        if previous:
            if now["Id"] != proven_id(self.marker) and not self.dry:
                raise SwapError(f"{self.name}{PREVIOUS} is kept because {self.name} has not answered yet")
            self._remove(previous)
        self._stop(now)
        self._rename(now, self.name + PREVIOUS)
        return True

    def recovered(self, start=False):
        """NAME.previous is NAME again; what had its name is kept as NAME.failed."""
        now, previous = self._look(self.name), self._look(self.name + PREVIOUS)
        if previous:
            if now:
                self._remove(self._look(self.name + FAILED))
                self._stop(now)
                self._rename(now, self.name + FAILED)
            self._rename(previous, self.name)
            now = previous
        starts = start and now and not _runs(now)
        if starts:
            self._call("POST", f"/containers/{now['Id']}/start", "start", now)
        return bool(previous or starts)

    def settled(self, options):
        """What NAME replaces goes, with its options and with what failed before. options: the files that NAME uses."""
        now = self._there(self.name)
        if now["Id"] != proven_id(self.marker) and not self.dry:
            raise SwapError(f"{self.name} has not answered yet, so what was there before it stays")
        changed = self._remove(self._look(self.name + FAILED))
        for path in leftovers(self.directory, self.name, options):
            if not self.dry:
                os.unlink(path)
            changed = True
        # Last of all, since it is what tells that this step is not finished.
        return self._remove(self._look(self.name + PREVIOUS)) or changed

    # The engine

    def _look(self, name):
        status, answer = self.docker.call("GET", f"/containers/{quote(name)}/json")
        if status == 404:
            return None
        if status != 200:
            raise SwapError(f"the engine does not say what {name} is: {_told(status, answer)}")
        container = bounded_json(answer, "the engine's answer", SwapError, LONGEST_ANSWER)
        if not _container_state.described(container)["ours"]:
            raise SwapError(
                f"the container {name} was not made by this collection under that name, so it is not touched; "
                f"rename or remove it, or rename the service"
            )
        return container

    def _there(self, name):
        container = self._look(name)
        if not container:
            raise SwapError(f"there is no container {name}")
        return container

    def _stop(self, container):
        if _runs(container):
            patience = (container["Config"].get("StopTimeout") or 10) + PATIENCE
            self._call("POST", f"/containers/{container['Id']}/stop", "stop", container, patience)

    def _rename(self, container, name):
        self._call("POST", f"/containers/{container['Id']}/rename?name={quote(name)}", f"rename to {name}", container)

    def _remove(self, container):
        if not container:
            return False
        self._stop(container)
        self._call("DELETE", f"/containers/{container['Id']}?v=1", "remove", container, 120)
        return True

    def _call(self, method, path, deed, container, patience=60):
        if self.dry:
            return
        status, answer = self.docker.call(method, path, timeout=patience)
        if status not in (200, 201, 204, 304):
            name = container["Name"].lstrip("/")
            raise SwapError(f"the engine did not {deed} the container {name}: {_told(status, answer)}")


def _runs(container):
    return bool(container["State"].get("Running") or container["State"].get("Restarting"))


def _told(status, answer):
    with contextlib.suppress(ValueError, AttributeError):
        answer = json.loads(answer).get("message") or answer
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer)
    return f"{text.strip()[:500]} (HTTP {status})" if status else f"no answer, {text.strip()[:200]}"


# The marker, and the options


def proven_id(marker):
    """The id of the container that was the last to answer; None where that is not known."""
    try:
        kept = read_json(marker, limit=4096)
    except (OSError, UntrustedError):
        return None
    return kept.get("id") if isinstance(kept, dict) else None


def proven_in(directory):
    """{name: id} of the containers that the directory of a service knows as proven."""
    names = [file[: -len(PROVEN)] for file in _files(directory) if file.endswith(PROVEN)]
    found = {name: proven_id(os.path.join(directory, name + PROVEN)) for name in names}
    return {name: container for name, container in found.items() if container}


def leftovers(directory, name, options):
    """The files with options of former containers of NAME."""
    mine = re.compile(re.escape(name) + OPTIONS_FILE)
    paths = [os.path.join(directory, file) for file in _files(directory) if mine.fullmatch(file)]
    return [path for path in paths if path not in options]


def _files(directory):
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _write_durably(path, text):
    """It is there after a power cut, whole, before anything is done that relies on it."""
    temporary = path + ".new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
