# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a model on disk: which files, how long, which sha256, from where.

A directory that holds a manifest is complete: the manifest is written last, before the directory appears.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import posixpath
import re
from typing import NamedTuple, Optional

MANIFEST_NAME = ".model-manifest.json"
FORMAT = 1


class FileEntry(NamedTuple):
    """A file as a hub lists it. Hugging Face lists a git hash instead of a sha256 for small files."""

    path: str
    size: int
    sha256: Optional[str] = None
    git_sha1: Optional[str] = None


class ManifestError(ValueError):
    """A manifest or a listing that cannot be trusted."""


def checked_path(path):
    """The path itself, when it stays inside the directory it is joined to."""
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or "\0" in path or posixpath.normpath(path) != path:
        raise ManifestError(f"the listing names the file {path!r}, which does not stay inside the model's directory")
    return path


def content_digest(entries):
    """One sha256 for all files: equal on every host that holds the same bytes."""
    lines = sorted(f"{entry.sha256}  {entry.path}\n" for entry in entries)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def build(entries, source, model, revision, resolved_revision, include, exclude, time):
    """The manifest as plain data; every entry has its sha256 by now."""
    return {
        "format": FORMAT,
        "model": model,
        "source": source,
        "revision": revision,
        "resolved_revision": resolved_revision,
        "include": list(include),
        "exclude": list(exclude),
        "time": time,
        "size": sum(entry.size for entry in entries),
        "content_digest": content_digest(entries),
        "files": [{"path": e.path, "size": e.size, "sha256": e.sha256} for e in sorted(entries)],
    }


def dump(manifest):
    """Text of a manifest: the same bytes on every host that got the same one."""
    return json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def parse(text):
    """The manifest in `text`, checked so far that its entries can be used."""
    try:
        manifest = json.loads(text)
        if manifest["format"] != FORMAT:
            raise ManifestError(f"its format is {manifest['format']}, this version reads format {FORMAT}")
        if content_digest(entries_of(manifest)) != manifest["content_digest"]:
            raise ManifestError("its file list does not match its own content_digest")
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ManifestError(f"it is not a manifest ({type(error).__name__}: {error})") from error
    return manifest


def entries_of(manifest):
    """The files of a manifest as FileEntry."""
    return [FileEntry(checked_path(f["path"]), int(f["size"]), f["sha256"]) for f in manifest["files"]]


def parse_sha256sums(text):
    """{path: sha256} of a SHA256SUMS file, in text or binary mode."""
    sums = {}
    for line in text.splitlines():
        match = re.match(r"^([0-9a-fA-F]{64}) [ *](?:\./)?(.+)$", line)
        if match:
            sums[checked_path(match.group(2))] = match.group(1).lower()
    return sums


def _matches(path, patterns):
    return any(fnmatch.fnmatchcase(path, p) or (p.endswith("/") and path.startswith(p)) for p in patterns)


def _is_duplicate(path, paths, safetensors_directories):
    """Whether the file repeats, in another format, weights that are there as safetensors."""
    directory, name = posixpath.split(path)
    if path.split("/")[0] in ("original", "onnx", "openvino") and "" in safetensors_directories:
        return True
    if directory not in safetensors_directories:
        return False
    if name.startswith("consolidated") and name.endswith((".safetensors", ".safetensors.index.json")):
        # Mistral ships the same weights twice; the engines read model*.safetensors.
        return any(posixpath.split(p)[0] == directory and posixpath.basename(p).startswith("model") for p in paths)
    return name.startswith("pytorch_model") or name in ("tf_model.h5", "flax_model.msgpack", "rust_model.ot")


def select(entries, include=(), exclude=(), skip_duplicate_weights=True):
    """The listed files that are wanted. Patterns are shell globs on the whole path; `dir/` means all below."""
    paths = [entry.path for entry in entries]
    directories = {posixpath.dirname(p) for p in paths if p.endswith(".safetensors")}
    selected = []
    for entry in entries:
        checked_path(entry.path)
        if include and not _matches(entry.path, include):
            continue
        if _matches(entry.path, exclude):
            continue
        if skip_duplicate_weights and not include and _is_duplicate(entry.path, paths, directories):
            continue
        selected.append(entry)
    return selected


def same_request(manifest, source, model, revision, include, exclude):
    """Whether the manifest is what this request would have produced."""
    wanted = (source, model, revision, list(include), list(exclude))
    return wanted == tuple(manifest.get(k) for k in ("source", "model", "revision", "include", "exclude"))


def as_lines(manifest):
    """A manifest as lines for --diff: one per file."""
    if not manifest:
        return ""
    revision = manifest["resolved_revision"] or manifest["revision"] or "default branch"
    head = f"{manifest['source']}:{manifest['model']} @ {revision}\n"
    return head + "".join(f"{f['sha256'] or '?':64}  {f['size']:>14}  {f['path']}\n" for f in manifest["files"])
