# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hubs answer when they are asked for a model's files → entries. Every answer may be hostile.

Only the form is looked at here; paths, sizes and hashes are checked where the wanted files are selected.
"""

from __future__ import annotations

import re
import urllib.parse

from ansible_collections.inferops.gpu_host.plugins.module_utils._model_manifest import (
    MOST_FILES,
    FileEntry,
    ManifestError,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import printable

_COMMIT = re.compile(r"^[0-9a-f]{40}([0-9a-f]{24})?$")
_NEXT = re.compile(r'<([^<>\s]{1,4096})>;\s*rel="next"')


def _a(kind, value, what):
    """The value, when it is of that kind."""
    if not isinstance(value, kind):
        raise ManifestError(f"{what} is {printable(repr(value), 80)}, which is no {kind.__name__}")
    return value


def is_commit(text):
    """Whether a revision names a commit, which never moves."""
    return bool(isinstance(text, str) and _COMMIT.match(text))


def modelscope_entries(answer):
    """The files in ModelScope's answer."""
    data = _a(dict, _a(dict, answer, "the listing").get("Data") or {}, "its Data")
    entries = []
    for file in _a(list, data.get("Files") or [], "its Files"):
        kind = _a(dict, file, "a file of the listing").get("Type")
        if kind != "tree":
            sha256 = _a(str, file.get("Sha256") or "", "a Sha256 of the listing").lower()
            entries.append(FileEntry(file.get("Path"), file.get("Size"), sha256 or None))
    return entries


def huggingface_commit(answer, revision):
    """The commit that a revision stands for now."""
    commit = _a(dict, answer, "the answer").get("sha")
    if not is_commit(commit):
        raise ManifestError(f"it names no commit for {revision} but {printable(repr(commit), 80)}")
    if is_commit(revision) and commit != revision:
        raise ManifestError(f"it answers with commit {commit} when asked for {revision}")
    return commit


def huggingface_entries(answer):
    """The files of one page of Hugging Face's listing."""
    entries = []
    for file in _a(list, answer, "the listing"):
        if _a(dict, file, "a file of the listing").get("type") == "file":
            large = _a(dict, file.get("lfs") or {}, "an lfs of the listing")
            oid = _a(str, (large or file).get("oid") or "", "an oid of the listing").rpartition(":")[2].lower()
            sha256, git_sha1 = (oid or None, None) if large else (None, oid or None)
            entries.append(FileEntry(file.get("path"), (large or file).get("size"), sha256, git_sha1))
    return entries


def next_page(headers):
    """Path and query of the following page, or None: the host is the one that was asked, whatever the link says."""
    found = _NEXT.search(headers.get("Link") or "")
    if not found:
        return None
    try:
        link = urllib.parse.urlsplit(found.group(1))
    except ValueError:
        link = urllib.parse.urlsplit("")
    start = link.path.find("/api/models/")
    if link.scheme not in ("http", "https", "") or start < 0 or ".." in link.path.split("/"):
        raise ManifestError(f"the listing goes on at {printable(found.group(1), 120)}, which is no listing of a model")
    return link.path[start:] + (f"?{link.query}" if link.query else "")


def huggingface_listing(ask, model, revision):
    """(entries, commit) of a model; ask(path) → (data, headers)."""
    quoted = urllib.parse.quote(model)
    answer = ask(f"/api/models/{quoted}/revision/{urllib.parse.quote(revision, safe='')}")[0]
    commit = huggingface_commit(answer, revision)
    entries, page, seen = [], f"/api/models/{quoted}/tree/{commit}?recursive=true", set()
    while page:
        seen.add(page)
        answer, headers = ask(page)
        more = huggingface_entries(answer)
        entries += more
        page = next_page(headers)
        if page in seen or (page and not answer):
            raise ManifestError("the listing goes on with a page that was there already, so that it never ends")
        if len(entries) > MOST_FILES or len(seen) > MOST_FILES // 10:
            raise ManifestError(f"the listing does not end after {len(entries)} files, and no model has so many")
    return entries, commit
