# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the files of a model come from: each source lists them and brings them."""

from __future__ import annotations

import os
import shutil

from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_manifest as manifests
from ansible_collections.inferops.gpu_host.plugins.module_utils._demo_model import write_demo_model
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_snapshot import (
    FetchError,
    SnapshotError,
    list_directory,
    read_manifest,
)


class LocalSource:
    """A directory on this host: a USB disk, an NFS mount, a bundle."""

    name = "local"
    may_move = False

    def __init__(self, path, workers=None):
        self.path = path
        self.workers = workers

    def listing(self):
        """(entries, None): from its manifest, from SHA256SUMS, or by hashing what is there."""
        if not os.path.isdir(self.path):
            raise SnapshotError(f"path is {self.path}, which is not a directory on this host")
        manifest = read_manifest(self.path)
        if manifest:
            return manifests.entries_of(manifest), manifest["resolved_revision"]
        sums = {}
        with_sums = os.path.join(self.path, "SHA256SUMS")
        if os.path.isfile(with_sums):
            with open(with_sums, encoding="utf-8") as handle:
                sums = manifests.parse_sha256sums(handle.read())
        return [e for e in list_directory(self.path, self.workers, sums) if e.path != "SHA256SUMS"], None

    def fetch(self, missing, staging, _resolved, watch):
        """Copy file by file; each appears under its name when it is whole."""
        for entry in missing:
            target = os.path.join(staging, entry.path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            try:
                shutil.copyfile(os.path.join(self.path, entry.path), target + ".incomplete")
                os.replace(target + ".incomplete", target)
            except OSError as error:
                raise FetchError(f"copying {entry.path} from {self.path}: {error.strerror}") from error
            watch()


class GeneratedSource(LocalSource):
    """The demo model, made on this host from nothing."""

    name = "generated"

    def __init__(self, scratch, workers=None):
        super().__init__(scratch, workers)

    def listing(self):
        os.makedirs(self.path, exist_ok=True)
        write_demo_model(self.path)
        return super().listing()
