# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model's directory, kept whole: staged beside its place, verified, then published in one step.

Its job is the file system of one host. Where files come from is a source (see _model_sources):
an object with `name`, `listing()` and `fetch(missing, staging, resolved_revision, watch)`, which calls
`watch(partial)` now and then; `partial(entry)` is the path of a file that is not whole yet, or None.

Beside the directory DIR/NAME live, all hidden and on the same file system:
`.NAME.staging` (what has arrived), `.NAME.lock`, `.NAME.progress.json`, `.NAME.client` (log and caches of the
hub's client) and `.NAME.quarantine` (files with wrong bytes, the latest of each path).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_files as model_files
from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_manifest as manifests
from ansible_collections.inferops.gpu_host.plugins.module_utils import _redaction
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_files import (
    NotAFile,
    files_below,
    names_below,
    open_file,
    size_of,
    write_atomically,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_manifest import (
    CLIENT_LEFTOVERS,
    LONGEST_LIST,
    MANIFEST_NAME,
    FileEntry,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import format_bytes

_BLOCK = 1024 * 1024
_SYNC_EVERY = 64 * 1024 * 1024  # so that little is left to be made durable at the end
_FREE_SPACE_FLOOR = 64 * 1024 * 1024
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


class SnapshotError(Exception):
    """Says what was found, what was wanted and what changes it."""


class FetchError(Exception):
    """A transfer that did not bring everything. `fatal`: trying again cannot help."""

    def __init__(self, message, fatal=False, retry_after=None):
        super().__init__(message)
        self.fatal = fatal
        self.retry_after = retry_after


class Places:
    """The directory of a model and the hidden names beside it."""

    def __init__(self, directory):
        self.given = self.directory = os.path.abspath(directory)
        others = model_files.link_of_others(self.given)
        if others:
            raise SnapshotError(f"{others} is a symbolic link of another account, who may lead {self.given} anywhere")
        if os.path.islink(self.given):  # the operator's way to another disk
            self.directory = os.path.realpath(self.given)
            if not os.path.isdir(self.directory):
                raise SnapshotError(f"{self.given} is a symbolic link to {self.directory}, which is no directory")
        elif os.path.lexists(self.given) and not os.path.isdir(self.given):
            raise SnapshotError(f"{self.given} is {model_files.kind_of(self.given)}, and a model needs a directory")
        self.parent, self.name = os.path.split(self.directory)
        if not self.name:
            raise SnapshotError(f"directory is {directory!r}: a model needs a directory of its own below a mount point")
        self.manifest = os.path.join(self.directory, MANIFEST_NAME)
        self.staging = self._beside("staging")
        self.aside = self._beside("staging.old")  # where directories cannot be swapped in one step
        self.lock = self._beside("lock")
        self.progress = self._beside("progress.json")
        self.client = self._beside("client")
        self.quarantine = self._beside("quarantine")

    def _beside(self, suffix):
        return os.path.join(self.parent, f".{self.name}.{suffix}")


# --- reading -------------------------------------------------------------------------------------------------


def git_hash(size):
    """The beginning of the hash that git gives a file of this size."""
    return hashlib.sha1(f"blob {size}\0".encode())


def hash_file(directory, path, size=None, git=False, sync=False, count=None):
    """(sha256, git sha1 or None) of a file of a model in one pass; `sync` also makes it durable."""
    sha256 = hashlib.sha256()
    block = memoryview(bytearray(_BLOCK))
    with open(open_file(directory, path), "rb", buffering=0) as handle:
        sha1 = git_hash(os.fstat(handle.fileno()).st_size if size is None else size) if git else None
        while True:
            length = handle.readinto(block)
            if not length:
                break
            sha256.update(block[:length])
            if sha1:
                sha1.update(block[:length])
            if count:
                count(length)
        if sync:
            os.fsync(handle.fileno())
    return sha256.hexdigest(), sha1.hexdigest() if sha1 else None


def read_manifest(directory):
    """The manifest of a directory; None when there is none or it cannot be trusted."""
    try:
        return manifests.parse(model_files.read_text(directory, MANIFEST_NAME, LONGEST_LIST))
    except (OSError, NotAFile, ValueError):
        return None


def list_directory(directory, paths, workers=None, hashes=None, count=None):
    """These files below a directory as entries; those not named in `hashes` are hashed, in parallel."""
    hashes = hashes or {}
    with ThreadPoolExecutor(workers or cores()) as pool:

        def entry(path):
            size = model_files.file_info(directory, path).st_size
            return FileEntry(path, size, hashes.get(path) or hash_file(directory, path, count=count)[0])

        return list(pool.map(entry, paths))


def cores():
    """The processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def same_file(one, other):
    """Whether two paths are one file or directory."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def bytes_on_disk(directory):
    """Bytes that have arrived below a directory; a preallocated file counts what is really written."""
    total = 0
    for root, _directories, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                info = os.lstat(os.path.join(root, name))
                total += min(info.st_size, info.st_blocks * 512) if name.endswith(".incomplete") else info.st_size
    return total


def quick_check(directory, manifest):
    """(problems by path, files changed since the manifest was written): sizes and times, no reading."""
    published = model_files.file_info(directory, MANIFEST_NAME).st_mtime
    problems, touched = {}, []
    for entry in manifests.entries_of(manifest):
        try:
            info = model_files.file_info(directory, entry.path)
        except FileNotFoundError:
            problems[entry.path] = "missing"
        except NotAFile as reason:
            problems[entry.path] = str(reason)
        else:
            if info.st_size != entry.size:
                problems[entry.path] = f"{info.st_size} bytes, the manifest says {entry.size}"
            elif info.st_mtime > published:
                touched.append(entry)
    return problems, touched


def problem_of(directory, entry, sync=False, count=None):
    """(what is wrong with a file or None, its sha256)."""
    try:
        size = model_files.file_info(directory, entry.path).st_size
        if size != entry.size:
            return f"{size} bytes, expected {entry.size}", None
        git = not entry.sha256 and bool(entry.git_sha1)
        sha256, sha1 = hash_file(directory, entry.path, size, git=git, sync=sync, count=count)
    except FileNotFoundError:
        return "missing", None
    except NotAFile as reason:
        return str(reason), None
    if entry.sha256 and sha256 != entry.sha256:
        return f"sha256 {sha256[:12]}…, expected {entry.sha256[:12]}…", None
    if not entry.sha256 and entry.git_sha1 and sha1 != entry.git_sha1:
        return f"git hash {sha1[:12]}…, expected {entry.git_sha1[:12]}…", None
    return None, sha256


def check_files(directory, entries, workers=None, count=None):
    """({path: problem}, {path: sha256}) of the named files, read in parallel, the largest first."""
    problems, hashes = {}, {}
    ordered = sorted(entries, key=lambda entry: -entry.size)
    with ThreadPoolExecutor(workers or cores()) as pool:
        results = pool.map(lambda e: problem_of(directory, e, count=count), ordered)
        for entry, (problem, sha256) in zip(ordered, results):
            if problem:
                problems[entry.path] = problem
            else:
                hashes[entry.path] = sha256
    return problems, hashes


# --- one at a time, and visibly ------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(places, timeout, progress=None):
    """Hold the model's lock. The kernel drops it with the process, so a killed run leaves nothing to clean."""
    deadline = time.monotonic() + timeout
    while True:
        handle = os.fdopen(_own_file(places.lock), "r+", encoding="utf-8", errors="replace")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(places.lock) and os.fstat(handle.fileno()).st_ino == os.stat(places.lock).st_ino:
                break
        except OSError:
            if time.monotonic() >= deadline:
                holder = handle.read(200).strip() or "another process"
                handle.close()
                raise SnapshotError(
                    f"{places.directory} is being worked on by {holder}; waited {timeout} s (lock_timeout). "
                    f"Its progress: {places.progress}"
                ) from None
        handle.close()
        time.sleep(0.5)
    try:
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same
            os.ftruncate(handle.fileno(), 0)
            os.write(handle.fileno(), f"process {os.getpid()} since {timestamp()}\n".encode())
        yield
    finally:
        handle.close()


def _own_file(path):
    try:
        return model_files.open_own(path)
    except NotAFile as reason:
        raise SnapshotError(f"{path} {reason}: nothing is written to it. Remove it and run again") from None


def timestamp():
    """Now, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Progress:
    """Writes how far the work is into a file, every `interval` seconds, and into the result at the end."""

    def __init__(self, path, interval=5.0):
        self.path = path
        self.interval = interval
        self.state = "starting"
        self.total = 0
        self.measure = lambda: 0
        self.message = ""
        self._samples = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def phase(self, state, total, measure):
        """A new phase, whose bytes done `measure()` tells."""
        self.state, self.total, self.measure = state, total, measure
        self._samples = []
        self.write()

    def counter(self, state, total):
        """A phase that counts what it is told: returns the function to tell it."""
        done, guard = [0], threading.Lock()

        def count(length):
            with guard:
                done[0] += length

        self.phase(state, total, lambda: done[0])
        return count

    def snapshot(self):
        """The figures as plain data."""
        done = min(self.measure(), self.total)
        now = time.monotonic()
        self._samples = [s for s in self._samples if now - s[0] <= 30] + [(now, done)]
        first = self._samples[0]
        rate = max(0.0, (done - first[1]) / (now - first[0])) if now > first[0] else 0.0
        return {
            "state": self.state,
            "bytes": done,
            "total": self.total,
            "percent": round(100.0 * done / self.total, 1) if self.total else 0.0,
            "rate": int(rate),
            "eta_seconds": int((self.total - done) / rate) if rate > 0 else None,
            "message": _redaction.text(self.message),  # everyone may read the file
            "pid": os.getpid(),
            "updated": timestamp(),
        }

    def write(self):
        """Replace the file, so that a reader never sees half of it."""
        if not self.path:
            return
        with contextlib.suppress(OSError):
            write_atomically(self.path, json.dumps(self.snapshot()) + "\n", durable=False)

    def _run(self):
        while not self._stop.wait(self.interval):
            self.write()

    def __enter__(self):
        self.write()
        self._thread.start()
        return self

    def __exit__(self, kind, error, trace):
        self._stop.set()
        self._thread.join()
        self.state = "failed" if kind else "done"
        if error:
            self.message = str(error)
        self.write()


# --- writing -------------------------------------------------------------------------------------------------


def sync_directory(path):
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def link_or_copy(directory, path, target):
    """The same file, link or pipe below another directory, without copying it where the file system allows that."""
    source, target = os.path.join(directory, path), os.path.join(target, path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
        return
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
        return
    with contextlib.suppress(NotAFile):
        copy_file(directory, path, target)


def copy_file(directory, path, target, size=None):
    """Copy a file of a model, at most `size` bytes of it, to a new path, where it appears when it is whole.

    Nobody may read it who could not read the original.
    """
    with open(open_file(directory, path), "rb") as source, open(target + ".incomplete", "wb") as copy:
        os.fchmod(copy.fileno(), 0o600 | model_files.readers(directory, path, os.fstat(source.fileno())))
        left = os.fstat(source.fileno()).st_size if size is None else size
        while left:
            block = source.read(min(_BLOCK, left))
            if not block:
                break
            copy.write(block)
            left -= len(block)
    os.replace(target + ".incomplete", target)


def quarantine(places, directory, paths):
    """Move files with wrong bytes out of the way; the latest of each path is kept for a look."""
    if paths:
        own_directory(places.quarantine)
    for path in paths:
        path = model_files.up_to_link(directory, path)
        source = os.path.join(directory, path)
        if os.path.lexists(source):
            target = os.path.join(places.quarantine, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if os.path.isdir(target) and not os.path.islink(target):
                shutil.rmtree(target)
            os.replace(source, target)


def own_directory(path):
    """Make a hidden directory beside a model, or refuse what lies there in its place."""
    try:
        model_files.make_own_directory(path)
    except NotAFile as reason:
        raise SnapshotError(f"{path} {reason}: nothing is written to it. Remove it and run again") from None


def exchange(one, other):
    """Swap two directories in one step of the file system; False where it cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    return renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0


def publish(places):
    """Put the staged directory in its place. What was there before is then at the staging name."""
    for root, _directories, _names in os.walk(places.staging):
        sync_directory(root)
    mode = 0o755
    if os.path.lexists(places.directory):  # the operator's directory stays as open, or as closed, as it was
        former = os.stat(places.directory)
        mode = former.st_mode & 0o777
        os.chown(places.staging, former.st_uid, former.st_gid)
    os.chmod(places.staging, mode)
    if not os.path.lexists(places.directory):
        os.rename(places.staging, places.directory)
    elif not exchange(places.staging, places.directory):
        os.rename(places.directory, places.aside)
        os.rename(places.staging, places.directory)
        os.rename(places.aside, places.staging)
    sync_directory(places.parent)


def finish_swap(places):
    """Go on where a run was killed that had to swap in three steps: the former directory is put back, or aside."""
    if os.path.lexists(places.aside):
        if not os.path.lexists(places.directory):
            os.rename(places.aside, places.directory)
        elif not os.path.lexists(places.staging):
            os.rename(places.aside, places.staging)


def remove_tree(path):
    """Remove a file or directory; True when there was one."""
    if not os.path.lexists(path):
        return False
    if os.path.isdir(path) and not os.path.islink(path):
        # The manifest goes first: a directory that has one is complete, also while it is being removed.
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(path, MANIFEST_NAME))
        shutil.rmtree(path)
    else:
        os.unlink(path)
    return True


# --- room ----------------------------------------------------------------------------------------------------


def existing_ancestor(path):
    """The nearest directory above (or at) a path that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def refuse_root_filesystem(places):
    """Weights on the system disk fill it sooner or later: fail unless the operator wants it."""
    ancestor = existing_ancestor(places.parent)
    if os.stat(ancestor).st_dev == os.stat("/").st_dev:
        raise SnapshotError(
            f"{places.directory} would lie on the root filesystem, which weights must not fill: mount a data disk "
            "there, choose another directory, or allow it (allow_root_filesystem: true)"
        )


def refuse_others_place(places):
    """Fail where somebody else could exchange what is written: root's writing would go where that account leads it."""
    found = model_files.others_among(places.parent)
    if found:
        where, reason = found
        raise SnapshotError(
            f"{where} {reason}, so that others could lead what is written for {places.directory} elsewhere: "
            "give it to the account that fetches and let only that one write there (chown, chmod go-w), or choose "
            "another directory"
        )


def require_space(places, needed, margin_percent):
    """Fail before the first byte when what is still missing does not fit."""
    if not needed:
        return
    ancestor = existing_ancestor(places.parent)
    disk = os.statvfs(ancestor)
    free = disk.f_bavail * disk.f_frsize
    wanted = needed * (100 + margin_percent) // 100 + (_FREE_SPACE_FLOOR if needed > _FREE_SPACE_FLOOR else 0)
    if free < wanted:
        raise SnapshotError(
            f"not enough space for {places.directory}: {format_bytes(needed)} are still to fetch, "
            f"{format_bytes(wanted)} with the margin of {margin_percent} %, {format_bytes(free)} are free on "
            f"{ancestor}. Free space there, choose another directory, or lower the margin (space_margin)"
        )


# --- the work ------------------------------------------------------------------------------------------------


class _Arrival:
    """Hashes one file while it grows, so that little is left to read when its last byte has come.

    What is read is what lies on the disk, not what a client says. A file that got shorter, was written without
    getting longer, or is another one than before is read anew; one with holes is not read before it is whole.
    """

    def __init__(self, entry, directory):
        self.entry = entry
        self.directory = directory
        self.final = os.path.join(directory, entry.path)
        self.future = None
        self.restart(None)

    def restart(self, inode):
        self.inode = inode
        self.written = None  # the file's modification time when its end was reached
        self.read = self.durable = 0
        self.sha256 = hashlib.sha256()
        self.sha1 = git_hash(self.entry.size) if self.entry.git_sha1 and not self.entry.sha256 else None

    def follow(self, path):
        """Read on to the present end of the file, which is at `path` now."""
        with contextlib.suppress(FileNotFoundError, NotAFile), open(_opened(path), "rb", buffering=0) as handle:
            info = os.fstat(handle.fileno())
            rewritten = info.st_size == self.read and info.st_mtime_ns != self.written
            if info.st_ino != self.inode or info.st_size < self.read or rewritten:
                self.restart(info.st_ino)
            if info.st_blocks * 512 < info.st_size and path != self.final:
                return
            handle.seek(self.read)
            block = memoryview(bytearray(_BLOCK))
            length = -1
            while length and self.read <= self.entry.size:  # one that grows on for ever is not followed
                self.written = os.fstat(handle.fileno()).st_mtime_ns
                length = handle.readinto(block)
                self.read += length
                self.sha256.update(block[:length])
                if self.sha1:
                    self.sha1.update(block[:length])
                if self.read - self.durable >= (_SYNC_EVERY if length else 1):
                    os.fsync(handle.fileno())
                    self.durable = self.read

    def settle(self):
        """(what is wrong with the file or None, its sha256), now that nobody writes any more."""
        if size_of(self.directory, self.entry.path) == self.entry.size:
            self.follow(self.final)
            hashes = (self.sha256.hexdigest(), self.sha1 and self.sha1.hexdigest())
            told = self.entry.sha256 or self.entry.git_sha1
            written = model_files.file_info(self.directory, self.entry.path).st_mtime_ns
            if self.written == written and (not told or told in hashes):
                return None, hashes[0]
        # Perhaps it was not written from its beginning to its end: read it as it lies there.
        return problem_of(self.directory, self.entry, sync=True)


def _opened(path):
    return open_file(*os.path.split(path))


class _Arrivals:
    """Checks files as they arrive, on the spare cores, while others are still on their way."""

    def __init__(self, missing, directory, workers):
        self.files = [_Arrival(entry, directory) for entry in missing]
        self.pool = ThreadPoolExecutor(workers or cores())

    def watch(self, partial):
        """Read on in every file. `partial(entry)` is the path of one that is not whole, or None."""
        for file in self.files:
            if file.read < file.entry.size and (file.future is None or file.future.done()):
                whole = size_of(file.directory, file.entry.path) == file.entry.size
                path = file.final if whole else partial(file.entry)
                if path:
                    file.future = self.pool.submit(file.follow, path)

    def finish(self):
        """({path: problem}, {path: sha256}) of what has arrived."""
        for file in self.files:
            if file.future:
                file.future.result()
        problems, hashes = {}, {}
        for file, (problem, sha256) in zip(self.files, self.pool.map(_Arrival.settle, self.files)):
            if not problem:
                hashes[file.entry.path] = sha256
            elif problem != "missing":
                problems[file.entry.path] = problem
        self.pool.shutdown()
        return problems, hashes


class Snapshot:
    """One model in one directory, brought to a wanted state. Used once."""

    def __init__(self, places, source, request, options, progress):
        self.places = places
        self.source = source
        self.request = request  # source, model, revision, include, exclude
        self.options = options
        self.progress = progress
        self.result = {
            "changed": False,
            "downloaded_bytes": 0,
            "reused_bytes": 0,
            "quarantined": [],
            "unmanaged_files": [],
            "size_only": [],
            "verified": False,
        }

    # -- what is there

    def current(self):
        """(manifest, {path: problem}, {path: sha256}) of the published directory; reads it all for `verified`."""
        manifest = read_manifest(self.places.directory)
        if not manifest:
            return None, {}, {}
        problems, touched = quick_check(self.places.directory, manifest)
        if not self.options["fetch"] and self.options["state"] == "present":
            problems.update({e.path: "changed since it was published" for e in touched})
            touched = []
        entries = manifests.entries_of(manifest)
        hashes = {e.path: e.sha256 for e in entries}
        to_read = entries if self.options["state"] == "verified" else touched
        if to_read:
            count = self.progress.counter("verifying", sum(e.size for e in to_read))
            read_problems, hashes_read = check_files(self.places.directory, to_read, self.options["workers"], count)
            problems.update(read_problems)
            hashes.update(hashes_read)
            if not problems and touched and self.may_write():
                os.utime(self.places.manifest)  # the files are right: do not read them again next time
        self.result["verified"] = self.options["state"] == "verified" and not problems
        return manifest, problems, {p: h for p, h in hashes.items() if p not in problems}

    def ensure(self):
        """Bring the directory to `present` or `verified`; returns the result."""
        if self.may_write():
            finish_swap(self.places)
        manifest, problems, known = self.current()
        if manifest and self.options.get("same_as"):
            asked_for = manifest["content_digest"] == self.options["same_as"]["content_digest"]
        else:
            asked_for = bool(manifest) and manifests.same_request(manifest, **self.request)
        if asked_for and not problems and not (self.options["update"] and self.options["fetch"]):
            if read_manifest(self.places.staging) and self.may_write():
                remove_tree(self.places.staging)  # what an interrupted publishing left: the former version
            return self.done(manifest, "complete" + (", every file verified" if self.result["verified"] else ""))
        if not self.options["fetch"]:
            return self.lacking(manifest, problems)
        if problems and not self.options["repair"]:
            raise SnapshotError(
                f"{self.places.directory} is damaged: {listed(problems)}. repair: true fetches them again"
            )
        if asked_for and problems and not self.options["update"]:
            wanted, resolved = manifests.entries_of(manifest), manifest["resolved_revision"]
        else:
            wanted, resolved = self.listing()
            if getattr(self.source, "path", None) and same_file(self.source.path, self.places.directory):
                known = {e.path: e.sha256 for e in wanted}  # adopted where it lies, just read
        return self.bring(manifest, asked_for, problems, known, wanted, resolved)

    def may_write(self):
        return self.options["fetch"] and not self.options["check_mode"]

    def lacking(self, manifest, problems):
        """The result when the model is not there as wanted and nothing shall be done about it."""
        if problems:
            found = f"not whole: {listed(problems)}"
        elif manifest:
            found = f"another version than the wanted one: {manifests.as_lines(manifest).splitlines()[0]}"
        else:
            found = "not there" + (", unfinished" if os.path.isdir(self.places.staging) else "")
        message = f"{self.request['model']} in {self.places.directory}: {found}"
        self.progress.message = message
        self.result.update(complete=False, directory=self.places.given, manifest=None, msg=message)
        return self.result

    def listing(self):
        """The wanted files as the source lists them."""
        if hasattr(self.source, "size") and not same_file(self.source.path, self.places.directory):
            there = bytes_on_disk(self.places.staging) + bytes_on_disk(self.places.directory)
            require_space(self.places, max(0, self.source.size() - there), self.options["space_margin"])
        entries, resolved = self.source.listing()
        same_as = self.options.get("same_as")
        if same_as:
            return manifests.checked_entries(entries), same_as["resolved_revision"]
        include, exclude = self.request["include"], self.request["exclude"]
        try:
            wanted = manifests.select(entries, include, exclude, self.options["skip_duplicate_weights"])
        except manifests.ManifestError as error:
            raise SnapshotError(
                f"what {self.source.name} lists for {self.request['model']} is not trusted: {error}. "
                "A file can be left out (exclude)"
            ) from error
        if not wanted:
            raise SnapshotError(
                f"{self.source.name} lists {len(entries)} files for {self.request['model']}, none of them wanted: "
                f"check include ({include}) and exclude ({exclude})"
            )
        return wanted, resolved

    def bring(self, manifest, asked_for, problems, known, wanted, resolved):
        """Reuse what is good, fetch the rest, verify, publish."""
        places, options = self.places, self.options
        self.refuse_strangers(wanted, problems)
        good = self.good_in(places.directory, wanted, known, skip=problems)
        in_place = len(good) == len(wanted)
        unmanaged = self.unmanaged(manifest, wanted)
        self.result["diff"] = {
            "before": manifests.as_lines(manifest),
            "after": manifests.as_lines(self.manifest_of(wanted, resolved, good)),
        }
        in_place = in_place and not problems and (not manifest or self.same_content(manifest, good))
        if in_place and asked_for:
            del self.result["diff"]
            return self.done(manifest, f"complete; {self.source.name} still offers the same files")
        self.result["changed"] = True
        fetched = [e for e in wanted if e.path not in good]
        if fetched and not options["allow_root_filesystem"]:
            refuse_root_filesystem(places)
        if not in_place:
            refuse_others_place(places)
        if options["check_mode"]:
            size = format_bytes(sum(e.size for e in fetched))
            return self.done(self.manifest_of(wanted, resolved, good), f"{len(fetched)} files of {size} to fetch")
        if in_place:
            written = self.manifest_of(wanted, resolved, good)
            write_atomically(places.manifest, manifests.dump(written))
            self.tell_unmanaged(unmanaged)
            return self.done(
                written, f"adopted: all files were there and match {self.source.name}{self.changeable(written)}"
            )

        self.stage()
        if problems:
            self.withdraw(manifest, problems)
        for path in good:
            self.take_over(path)
        good.update(self.good_in(places.staging, [e for e in wanted if e.path not in good], {}, move_bad=True))
        self.result["reused_bytes"] = sum(e.size for e in wanted if e.path in good)
        self.prune({e.path for e in wanted}, unmanaged)
        wanted, resolved = self.fetch(wanted, resolved, good)
        self.prune(good, unmanaged)
        self.drop_client_leftovers()
        for path in unmanaged:
            self.take_over(path)
        for root, directories, _names in os.walk(os.path.join(places.directory, ".git")):
            for name in directories:  # git wants its empty directories, too
                here = os.path.relpath(os.path.join(root, name), places.directory)
                os.makedirs(os.path.join(places.staging, here), exist_ok=True)
        self.tell_unmanaged(unmanaged)
        written = self.manifest_of(wanted, resolved, good)
        write_atomically(os.path.join(places.staging, MANIFEST_NAME), manifests.dump(written))
        self.progress.phase("publishing", written["size"], lambda: written["size"])
        publish(places)
        self.retire(wanted, good)
        remove_tree(places.client)
        self.result["verified"] = True
        self.result["downloaded_bytes"] = max(0, self.result["downloaded_bytes"])
        fetched, reused = (format_bytes(self.result[key]) for key in ("downloaded_bytes", "reused_bytes"))
        origin = getattr(self.source, "origin", self.source.name)
        return self.done(
            written, f"published, every file verified: {fetched} fetched from {origin}, {reused} were there already"
        )

    def good_in(self, directory, wanted, known, skip=(), move_bad=False):
        """{path: sha256} of the wanted files that a directory holds with the right bytes."""
        good, to_read = {}, []
        for entry in wanted:
            if entry.path in skip or size_of(directory, entry.path) != entry.size:
                continue
            if entry.sha256 and known.get(entry.path) == entry.sha256:
                good[entry.path] = entry.sha256
            else:
                to_read.append(entry)
        if to_read:
            count = self.progress.counter("verifying", sum(e.size for e in to_read))
            problems, hashes = check_files(directory, to_read, self.options["workers"], count)
            good.update(hashes)
            if move_bad:
                quarantine(self.places, directory, problems)
                self.result["quarantined"] += sorted(problems)
        return good

    def refuse_strangers(self, wanted, problems):
        """Where a file is to be, the operator has put something that is none: that is for the operator to decide."""
        here = self.places.directory
        paths = [e.path for e in wanted if e.path not in problems and os.path.lexists(os.path.join(here, e.path))]
        found = model_files.strangers(here, paths)
        if found:
            raise SnapshotError(
                f"{here} holds what no model can hold: {listed(found)}. Put the file itself there, or take it away"
            )

    def stage(self):
        """Make the staging directory. One that is another account's, as after a swap, is set aside and not trusted."""
        try:
            model_files.make_own_directory(self.places.staging)
        except NotAFile:
            own_directory(self.places.quarantine)
            aside = os.path.join(self.places.quarantine, ".staging")
            remove_tree(aside)
            os.rename(self.places.staging, aside)
            model_files.make_own_directory(self.places.staging)

    def take_over(self, path):
        """Let the staged directory have what the published one has at this path, if it is there."""
        staged, published = (os.path.join(where, path) for where in (self.places.staging, self.places.directory))
        if not os.path.lexists(published):
            return
        if os.path.lexists(staged):
            if os.path.samestat(os.lstat(staged), os.lstat(published)):
                return
            os.unlink(staged)
        link_or_copy(self.places.directory, path, self.places.staging)

    def tell_unmanaged(self, paths):
        self.result["unmanaged_files"] = [p for p in paths if not p.startswith(".git/")]

    def changeable(self, manifest):
        """A remark when accounts other than ours may change files that were taken as they lay there."""
        infos = {f["path"]: model_files.file_info(self.places.directory, f["path"]) for f in manifest["files"]}
        theirs = [path for path, info in infos.items() if not model_files.is_ours(info)]
        return f"; other accounts may change them: {listed(theirs, 3)}" if theirs else ""

    def withdraw(self, manifest, problems):
        """A damaged published directory stops being one: its files become staged ones, what else it holds stays."""
        places = self.places
        os.unlink(places.manifest)
        quarantine(places, places.directory, problems)
        self.result["quarantined"] += sorted(problems)
        for entry in manifests.entries_of(manifest):
            published = os.path.join(places.directory, entry.path)
            if os.path.lexists(published):
                target = os.path.join(places.staging, entry.path)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                os.replace(published, target)
        drop_leftovers(places.directory)
        info = os.stat(places.directory)
        if info.st_uid == os.geteuid() and info.st_mode & 0o7777 == 0o755:
            with contextlib.suppress(OSError):  # it holds what is the operator's
                os.rmdir(places.directory)

    def fetch(self, wanted, resolved, good):
        """Let the source bring what is missing, check it, and try again for what came wrong."""
        options, places = self.options, self.places
        delay, failure = options["retry_delay"], None
        for attempt in range(1, options["attempts"] + 1):
            missing = [e for e in wanted if e.path not in good]
            if not missing:
                break
            partial = self.prepare_room(wanted, missing)
            if attempt == 1:
                self.result["reused_bytes"] += partial
                self.result["downloaded_bytes"] -= partial
            arrivals = _Arrivals(missing, places.staging, options["workers"])
            failure = None
            try:
                self.drop_strangers(good)
                self.source.fetch(missing, places.staging, resolved, arrivals.watch)
            except FetchError as error:
                failure = error
            self.drop_strangers(good)
            problems, hashes = arrivals.finish()
            quarantine(places, places.staging, problems)
            self.result["quarantined"] += sorted(problems)
            good.update(hashes)
            self.open_up(hashes)
            self.result["downloaded_bytes"] += sum(e.size for e in missing if e.path in hashes)
            missing = [e for e in wanted if e.path not in good]
            if not missing:
                break
            origin = getattr(self.source, "origin", self.source.name)
            reason = str(failure or f"{origin} {'brought wrong bytes' if problems else 'did not bring all'}")
            if problems:
                reason += f" ({listed(problems)})"
            self.progress.message = reason
            if attempt == options["attempts"] or (failure and failure.fatal) or self.disk_is_full():
                raise SnapshotError(self.gave_up(wanted, missing, attempt, reason))
            time.sleep(max(delay, (failure and failure.retry_after) or 0))
            delay = min(delay * 2, 60)
            if self.source.may_move and not resolved:
                wanted, resolved = self.relist(wanted, good)
        return wanted, resolved

    def drop_strangers(self, good):
        """No client makes links or pipes: what is none of the operator's goes, before anything is read through it."""
        for path in names_below(self.places.staging, (), True):
            full = os.path.join(self.places.staging, path)
            if path not in good and not stat.S_ISREG(os.lstat(full).st_mode):
                os.unlink(full)

    def open_up(self, paths):
        """Let everyone read what was fetched, whatever rights it came with; a copy keeps those of its original."""
        if not getattr(self.source, "keeps_modes", False):
            for path in paths:
                handle = open_file(self.places.staging, path)
                os.fchmod(handle, 0o644)
                os.close(handle)

    def relist(self, wanted, good):
        """A branch may have moved while it was fetched: what it holds now is what is wanted."""
        listed_now, resolved = self.listing()
        if listed_now != wanted:
            self.progress.message = f"{self.request['model']} changed at {self.source.name} during the download"
            before = {e.path: e for e in wanted}
            for entry in listed_now:
                if before.get(entry.path) != entry:
                    good.pop(entry.path, None)
            for path in set(before) - {e.path for e in listed_now}:
                good.pop(path, None)
        return listed_now, resolved

    def prepare_room(self, wanted, missing):
        """Check the space for what is missing, show the download's progress, and tell what of it is there in part."""
        places = self.places
        arrived = sum(e.size for e in wanted) - sum(e.size for e in missing)
        partial = max(0, bytes_on_disk(places.staging) - arrived)
        require_space(places, max(0, sum(e.size for e in missing) - partial), self.options["space_margin"])
        self.progress.phase("downloading", sum(e.size for e in wanted), lambda: bytes_on_disk(places.staging))
        return partial

    def prune(self, *keep):
        """Remove staged files that belong to neither this version nor the operator."""
        for path in names_below(self.places.staging):
            if not any(path in names for names in keep):
                os.unlink(os.path.join(self.places.staging, path))

    def disk_is_full(self):
        disk = os.statvfs(self.places.staging)
        return disk.f_bavail * disk.f_frsize < 1024 * 1024

    def gave_up(self, wanted, missing, attempts, reason):
        have = sum(e.size for e in wanted) - sum(e.size for e in missing)
        full = "the disk is full: " if self.disk_is_full() else ""
        return (
            f"{self.request['model']} is not complete after {attempts} attempt{'s' if attempts > 1 else ''}: "
            f"{len(wanted) - len(missing)} of {len(wanted)} files ({format_bytes(have)} of "
            f"{format_bytes(sum(e.size for e in wanted))}) are whole, missing: {listed([e.path for e in missing])}. "
            f"{full}{reason}. What has arrived is kept in {self.places.staging}; the next run goes on from there"
        )

    def drop_client_leftovers(self):
        drop_leftovers(self.places.staging)

    def retire(self, wanted, good):
        """After publishing, the former directory lies at the staging name: keep its bad files, drop the rest."""
        places = self.places
        if not os.path.isdir(places.staging):
            return
        if not read_manifest(places.staging):
            sizes = {e.path: e.size for e in wanted}
            bad = []
            for path in files_below(places.staging):
                former, present = (os.path.join(where, path) for where in (places.staging, places.directory))
                if path in good and sizes[path] and not os.path.samestat(os.lstat(former), os.lstat(present)):
                    bad.append(path)
            quarantine(places, places.staging, bad)
            self.result["quarantined"] += bad
        remove_tree(places.staging)

    def unmanaged(self, manifest, wanted):
        """Files in the directory that neither the manifest nor the listing knows: the operator's, kept."""
        if not os.path.isdir(self.places.directory):
            return []
        ours = {e.path for e in wanted} | {f["path"] for f in (manifest or {"files": []})["files"]}
        return [p for p in names_below(self.places.directory) if p not in ours]

    def same_content(self, manifest, good):
        return {f["path"]: f["sha256"] for f in manifest["files"]} == good

    def manifest_of(self, wanted, resolved, good):
        if self.options.get("same_as"):
            return self.options["same_as"]
        self.result["size_only"] = [e.path for e in wanted if not e.sha256 and not e.git_sha1]
        entries = [FileEntry(e.path, e.size, good.get(e.path) or e.sha256) for e in wanted]
        return manifests.build(entries, resolved_revision=resolved, time=timestamp(), **self.request)

    def done(self, manifest, summary):
        self.result.update(
            complete=not (self.options["check_mode"] and self.result["changed"]),
            directory=self.places.given,
            manifest=manifest,
            msg=f"{manifest['model']} in {self.places.directory}: {len(manifest['files'])} files, "
            f"{format_bytes(manifest['size'])}, {summary}",
        )
        if self.result["size_only"] and self.result["changed"]:
            self.result["msg"] += (
                f"; {len(self.result['size_only'])} files could only be checked by size: "
                f"{self.source.name} lists no hash"
            )
        self.progress.message = self.result["msg"]
        return self.result


def drop_leftovers(directory):
    """Remove what clients leave among a model's files, and empty directories."""
    for root, directories, names in os.walk(directory, topdown=False):
        if ".git" in os.path.relpath(root, directory).split(os.sep):
            continue
        for name in directories:
            full = os.path.join(root, name)
            if name in CLIENT_LEFTOVERS:
                remove_tree(full)
            elif name != ".git" and not os.path.islink(full) and not os.listdir(full):
                os.rmdir(full)
        for name in names:
            if name in CLIENT_LEFTOVERS or name.endswith(".incomplete"):
                os.unlink(os.path.join(root, name))


def listed(names, most=5):
    """A few names (or name: problem pairs) as text."""
    texts = [f"{n}: {names[n]}" for n in sorted(names)] if isinstance(names, dict) else sorted(names)
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def absent(places, check_mode, lock_timeout=0):
    """Remove a model and everything beside it; True when there was something."""
    if places.given != places.directory:  # a link to where the operator keeps it: only the link is taken away
        if not check_mode:
            os.unlink(places.given)
        return True
    ours = (places.directory, places.staging, places.aside, places.client, places.quarantine, places.progress)
    there = [path for path in ours if os.path.lexists(path)]
    if there and not check_mode:
        with locked(places, lock_timeout):
            for path in there:
                remove_tree(path)
            os.unlink(places.lock)
    return bool(there)
