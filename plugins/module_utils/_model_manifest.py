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
import unicodedata
from typing import NamedTuple, Optional

from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB, format_bytes
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import bounded_json, printable

MANIFEST_NAME = ".model-manifest.json"
FORMAT = 1

# What nobody's model exceeds, and what keeps a hostile list from costing more than a moment.
MOST_FILES = 20000
LARGEST_FILE = 2**44
LONGEST_LIST = 16 * MIB
LONGEST_PATH, LONGEST_NAME, DEEPEST_PATH = 1024, 200, 32  # clients add up to 50 bytes to a name
# What the hubs' clients leave among the files of a model. Some find their way into the models that people upload.
CLIENT_LEFTOVERS = (".cache", "._____temp", ".msc", ".mv", ".mdl", ".locks", ".rsync-partial")
# Names that `hf` derives its unfinished files' names from: with a directory of that name a hub could steer them.
_HF_OWN_NAME = re.compile(r"^[A-Za-z0-9_-]{27}=\.")
_SHA256, _SHA1 = re.compile(r"^[0-9a-f]{64}$"), re.compile(r"^[0-9a-f]{40}$")


class FileEntry(NamedTuple):
    """A file as a hub lists it. Hugging Face lists a git hash instead of a sha256 for small files."""

    path: str
    size: int
    sha256: Optional[str] = None
    git_sha1: Optional[str] = None


class ManifestError(ValueError):
    """A manifest or a listing that cannot be trusted."""


def checked_path(path):
    """The path itself, when it can be joined to a directory and given to a program as it stands."""
    if not isinstance(path, str):
        raise ManifestError(f"the listing names a file with a {type(path).__name__} instead of a path")
    reason = _refusal(path)
    if reason:
        raise ManifestError(f"the listing names the file {printable(path, 120)!r}, which {reason}")
    return path


def _refusal(path):
    """Why a path of a listing is not taken, or None."""
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or "." in parts or "" in parts or "\\" in path:
        return "does not stay inside the model's directory"
    if any(unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp") for sign in path):
        return "has control characters in its name"
    if len(path.encode()) > LONGEST_PATH or len(parts) > DEEPEST_PATH:
        return "is longer or deeper than any file of a model"
    for part in parts:
        if part.startswith("-"):
            return "could be taken for an option"
        if part != part.strip():
            return "begins or ends with a blank"
        if len(part.encode()) > LONGEST_NAME:
            return "has a longer name than any file of a model"
        if _is_reserved(part) or _HF_OWN_NAME.match(part):
            return "has a name that this collection or a client uses itself"
    return None


def _is_reserved(name):
    """Whether a name is that of what lies beside or among a model's files but is none."""
    name = name.casefold()
    return name in (MANIFEST_NAME, ".git", *CLIENT_LEFTOVERS) or name.endswith((".incomplete", ".parallel_tmp"))


def checked_entries(entries):
    """The entries of a listing, when they can lie side by side in one directory of any file system."""
    if len(entries) > MOST_FILES:
        raise ManifestError(f"the listing names {len(entries)} files, and no model has more than {MOST_FILES}")
    files, total = {}, 0
    for entry in entries:
        path, size = checked_path(entry.path), entry.size
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= LARGEST_FILE:
            raise ManifestError(f"the listing says that {path} has {printable(repr(size), 40)} bytes")
        for text, form in ((entry.sha256, _SHA256), (entry.git_sha1, _SHA1)):
            if text is not None and not (isinstance(text, str) and form.match(text)):
                raise ManifestError(f"the listing has no hash for {path} but {printable(repr(text), 80)}")
        total += size
        folded = _folded(path)
        if files.get(folded) == path:
            raise ManifestError(f"the listing names {path} twice")
        if folded in files:
            raise ManifestError(
                f"the listing names both {files[folded]} and {path}, which are one file where case or the way "
                "accents are written does not count"
            )
        files[folded] = path
    if total > LARGEST_FILE:
        raise ManifestError(f"the listing names files of {format_bytes(total)}, and no model is that large")
    for folded, path in files.items():
        while "/" in folded:
            folded = posixpath.dirname(folded)
            if folded in files:
                raise ManifestError(f"the listing names {files[folded]} both as a file and, for {path}, as a directory")
    return entries


def _folded(path):
    """Equal for paths that some file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


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
        manifest = bounded_json(text, "it", ManifestError, LONGEST_LIST)
        if manifest["format"] != FORMAT:
            found = printable(manifest["format"], 40)
            raise ManifestError(f"its format is {found}, this version reads format {FORMAT}")
        if content_digest(entries_of(manifest)) != manifest["content_digest"]:
            raise ManifestError("its file list does not match its own content_digest")
        for key in ("model", "source", "time"):
            if not isinstance(manifest[key], str):
                raise ManifestError(f"its {key} is no text")
        for key in ("revision", "resolved_revision"):
            if not isinstance(manifest[key], (str, type(None))):
                raise ManifestError(f"its {key} is no text")
        if manifest["size"] != sum(entry.size for entry in entries_of(manifest)):
            raise ManifestError("its size is not that of its files")
    except (KeyError, TypeError, AttributeError) as error:
        raise ManifestError(f"it is not a manifest ({type(error).__name__}: {printable(error)})") from error
    return manifest


def entries_of(manifest):
    """The files of a manifest as FileEntry."""
    entries = [FileEntry(f["path"], f["size"], f["sha256"]) for f in manifest["files"]]
    for entry in entries:
        if entry.sha256 is None:
            raise ManifestError(f"it has no sha256 for {printable(entry.path, 120)}")
    return checked_entries(entries)


def parse_sha256sums(text):
    """{path: sha256} of a SHA256SUMS file, in text or binary mode."""
    sums = {}
    for line in text.split("\n"):
        match = re.match(r"^([0-9a-fA-F]{64}) [ *](?:\./)?(.+)$", line.rstrip("\r"))
        if match and match.group(2) not in (MANIFEST_NAME, "SHA256SUMS"):
            sums[checked_path(match.group(2))] = match.group(1).lower()
            if len(sums) > MOST_FILES:
                raise ManifestError(f"SHA256SUMS names more than {MOST_FILES} files, and no model has so many")
    return sums


def _matches(path, patterns):
    return any(fnmatch.fnmatchcase(path, p) or (p.endswith("/") and path.startswith(p)) for p in patterns)


def is_wanted(path, include=(), exclude=()):
    """Whether a request asks for this path. Patterns are shell globs on the whole path; `dir/` means all below."""
    return not (include and not _matches(path, include)) and not _matches(path, exclude)


def _is_duplicate(path, safetensors_directories, directories_of_parts):
    """Whether the file repeats, in another format, weights that are there as safetensors."""
    directory, name = posixpath.split(path)
    if path.split("/")[0] in ("original", "onnx", "openvino") and "" in safetensors_directories:
        return True
    if directory not in safetensors_directories:
        return False
    if name.startswith("consolidated") and name.endswith((".safetensors", ".safetensors.index.json")):
        # Mistral ships the same weights twice; the engines read model*.safetensors.
        return directory in directories_of_parts
    return name.startswith("pytorch_model") or name in ("tf_model.h5", "flax_model.msgpack", "rust_model.ot")


def select(entries, include=(), exclude=(), skip_duplicate_weights=True):
    """The listed files that are wanted, checked so that they can be fetched.

    What clients left in an uploaded directory is no part of a model. What is excluded may have any name.
    """
    entries = [e for e in entries if not isinstance(e.path, str) or not any(map(_is_reserved, e.path.split("/")))]
    paths = [entry.path for entry in entries if isinstance(entry.path, str)]
    weights = {posixpath.dirname(p) for p in paths if p.endswith(".safetensors")}
    parts = {posixpath.dirname(p) for p in paths if posixpath.basename(p).startswith("model")}
    selected = []
    for entry in entries:
        if isinstance(entry.path, str):
            if not is_wanted(entry.path, include, exclude):
                continue
            if skip_duplicate_weights and not include and _is_duplicate(entry.path, weights, parts):
                continue
        selected.append(entry)
    return checked_entries(selected)


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
