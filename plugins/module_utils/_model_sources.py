# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the files of a model come from: each source lists them and brings them."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_files as model_files
from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_listing as listings
from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_manifest as manifests
from ansible_collections.inferops.gpu_host.plugins.module_utils._confinement import confine
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.demo import write_demo_model
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_files import NotAFile, size_of
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_http import (
    get,
    request,
    retry_after,
    without_query,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_manifest import (
    LARGEST_FILE,
    LONGEST_LIST,
    MANIFEST_NAME,
    FileEntry,
    ManifestError,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_snapshot import (
    FetchError,
    SnapshotError,
    copy_file,
    list_directory,
    listed,
    own_directory,
    read_manifest,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB, MIB, format_bytes
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import bounded_json, printable, whole_number

MODELSCOPE = "https://modelscope.cn"
HUGGING_FACE = "https://huggingface.co"
_LISTING_LIMIT = 3000  # where ModelScope cuts a listing without saying so
_LISTING_SECONDS = 900
_CHUNK = 1024 * 1024
# What the clients print besides the reason: bars, tracebacks, advice that is not for us.
_NOISE = re.compile(r"\d+%\||^Traceback|^File \"|^[\^~]+$|^with .*:$|^Suggestion:|^For more information")
# What a client may write beside the files it was sent for: logs, locks, caches, beginnings that it gave up.
_CLIENT_EXTRA = 64 * MIB
_CLIENT_MEMORY = 4 * GIB
_LONGEST_ARGUMENTS = 64 * 1024
_SLOWEST = 1024  # bytes per second; who sends less for stall_timeout seconds sends nothing


class LocalSource:
    """A directory on this host: a USB disk, an NFS mount, a bundle, a snapshot in a hub's cache."""

    name = "local"
    may_move = False
    keeps_modes = True

    def __init__(self, path, workers=None, include=(), exclude=()):
        self.path = path
        self.workers = workers
        self.include, self.exclude = include, exclude

    def listing(self):
        """(entries, None): from its manifest, from SHA256SUMS, or by hashing what is there."""
        if not os.path.isdir(self.path):
            raise SnapshotError(f"path is {self.path}, which is not a directory on this host")
        others = model_files.link_of_others(self.path)
        if others:
            raise SnapshotError(f"path is {self.path}, where {others} is a symbolic link of another account")
        manifest = read_manifest(self.path)
        if manifest:
            return manifests.entries_of(manifest), manifest["resolved_revision"]
        paths = self.wanted_paths()
        sums = {}
        if "SHA256SUMS" in paths:
            paths.remove("SHA256SUMS")
            try:
                sums = manifests.parse_sha256sums(model_files.read_text(self.path, "SHA256SUMS", LONGEST_LIST))
            except ValueError as error:
                raise SnapshotError(f"{self.path}/SHA256SUMS cannot be used: {printable(error)}") from error
        return list_directory(self.path, paths, self.workers, sums), None

    def wanted_paths(self):
        """The paths that are asked for; fails when one of them is nothing that a model can have."""
        skip = (*manifests.CLIENT_LEFTOVERS, ".git")
        there = [p for p in model_files.names_below(self.path, skip) if p == "SHA256SUMS" or self.wants(p)]
        for path in there:
            manifests.checked_path(path)
        strange = model_files.strangers(self.path, there)
        if strange:
            raise SnapshotError(
                f"{self.path} holds what no model can hold: {listed(strange)}. Put the files themselves there, "
                "or leave them out (exclude)"
            )
        return there

    def wants(self, path):
        return manifests.is_wanted(path, self.include, self.exclude)

    def size(self):
        """Bytes of what would have to be read to list it; too many for the disk are refused before that."""
        if not os.path.isdir(self.path) or read_manifest(self.path):
            return 0
        return sum(model_files.file_info(self.path, path).st_size for path in self.wanted_paths())

    def fetch(self, missing, staging, _resolved, watch):
        """Copy file by file; each appears under its name when it is whole."""
        for entry in missing:
            target = os.path.join(staging, entry.path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            try:
                copy_file(self.path, entry.path, target, entry.size)
            except (OSError, NotAFile) as error:
                raise FetchError(
                    f"copying {entry.path} from {self.path}: {getattr(error, 'strerror', None) or error}"
                ) from error
            watch(lambda _entry: None)


class GeneratedSource(LocalSource):
    """The demo model, made on this host from nothing."""

    name = "generated"
    keeps_modes = False

    def __init__(self, scratch, workers=None):
        super().__init__(scratch, workers)

    def listing(self):
        self.generate()
        return super().listing()

    def fetch(self, missing, staging, _resolved, watch):
        self.generate()  # a repair goes by the manifest and asks for no listing
        super().fetch(missing, staging, _resolved, watch)

    def generate(self):
        os.makedirs(self.path, exist_ok=True)
        write_demo_model(self.path)


# --- over HTTP -----------------------------------------------------------------------------------------------


class UrlSource:
    """A plain HTTP mirror of a model's directory, with a manifest or SHA256SUMS, or another host of the fleet."""

    name = "url"
    may_move = False

    def __init__(self, url, token=None, entries=None, workers=4):
        self.url = self.origin = url.rstrip("/") + "/"
        self.token = token
        self.entries = entries  # when the list is known already
        self.workers = workers

    def _url_of(self, path):
        return self.url + urllib.parse.quote(path)

    def listing(self):
        """(entries, resolved revision): from .model-manifest.json, or SHA256SUMS and the length of each file."""
        if self.entries is not None:
            return self.entries, None
        try:
            body, _headers = get(self._url_of(MANIFEST_NAME), self.token)
            manifest = manifests.parse(body)
            return manifests.entries_of(manifest), manifest["resolved_revision"]
        except ManifestError as error:
            raise SnapshotError(f"{self.url}{MANIFEST_NAME} cannot be used: {error}") from error
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise SnapshotError(f"{self.url} answers HTTP {error.code}") from error
        try:
            body, _headers = get(self._url_of("SHA256SUMS"), self.token)
        except urllib.error.HTTPError as error:
            raise SnapshotError(
                f"{self.url} offers neither {MANIFEST_NAME} nor SHA256SUMS (HTTP {error.code}), "
                "so nothing could be verified: add one of them to the mirror"
            ) from error
        sums = manifests.parse_sha256sums(body.decode("utf-8", "replace"))
        deadline = time.monotonic() + _LISTING_SECONDS
        return [FileEntry(path, self._length(path, deadline), sha256) for path, sha256 in sums.items()], None

    def _length(self, path, deadline):
        try:
            if time.monotonic() > deadline:
                raise OSError(f"{_LISTING_SECONDS} s were not enough to ask for all lengths")
            with request(self._url_of(path), self.token, "HEAD") as answer:
                length = whole_number(answer.headers["Content-Length"], LARGEST_FILE)
                if length is None:
                    raise OSError(f"its Content-Length is {printable(repr(answer.headers['Content-Length']), 60)}")
                return length
        except (http.client.HTTPException, OSError) as error:
            raise SnapshotError(
                f"{self.url} lists {path} in SHA256SUMS but does not tell its length: {printable(error)}"
            ) from error

    def fetch(self, missing, staging, _resolved, watch):
        """Download several files at a time; what a cut connection left is continued."""
        with ThreadPoolExecutor(self.workers) as pool:
            running = {pool.submit(self._download, entry, staging) for entry in missing}
            failures = []
            while running:
                finished, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                failures += [f.exception() for f in finished if f.exception()]
                watch(lambda entry: os.path.join(staging, entry.path) + ".incomplete")
        for failure in failures:
            if not isinstance(failure, FetchError):
                raise failure
        if failures:
            raise FetchError(
                str(failures[0]),
                fatal=any(f.fatal for f in failures),
                retry_after=max([f.retry_after or 0 for f in failures]),
            )

    def _download(self, entry, staging):
        target = os.path.join(staging, entry.path)
        partial = target + ".incomplete"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        start = size_of(staging, entry.path + ".incomplete") or 0
        if start > entry.size:
            os.unlink(partial)
            start = 0
        if start < entry.size or not entry.size:
            headers = {"Range": f"bytes={start}-"} if start else {}
            try:
                with self._answer(entry.path, entry.size - start, **headers) as answer:
                    if start and answer.status != 206:
                        start = 0
                    self._write(answer, partial, start, entry)
            except urllib.error.HTTPError as error:
                error.close()
                raise FetchError(
                    f"{self.url} answers HTTP {error.code} for {entry.path}",
                    fatal=error.code in (401, 403, 404),
                    retry_after=retry_after(error.headers),
                ) from error
            except (http.client.HTTPException, OSError) as error:
                reason = printable(getattr(error, "strerror", None) or getattr(error, "reason", None) or error)
                raise FetchError(f"{entry.path} from {self.url}: {reason}") from error
        os.replace(partial, target)

    def _answer(self, path, size, **headers):
        return request(self._url_of(path), self.token, size=size, **headers)

    def _write(self, answer, partial, start, entry):
        with open(partial, "r+b" if start else "wb") as handle:
            handle.seek(start)
            block = memoryview(bytearray(_CHUNK))
            while True:
                length = answer.readinto(block)
                if not length:
                    break
                if start + length > entry.size:
                    raise FetchError(f"{entry.path} from {self.url} is longer than the {entry.size} bytes listed")
                handle.write(block[:length])
                start += length
        if start != entry.size:
            raise FetchError(f"{entry.path} from {self.url}: the connection ended after {start} of {entry.size} bytes")


# --- official clients ----------------------------------------------------------------------------------------


class ClientSource:
    """A hub whose official command-line client does the transfer."""

    may_move = True
    program = ""

    def __init__(self, model, revision, endpoint, token, prefix, places, workers=8, stall_timeout=600):
        self.model = _as_argument("model", model)
        self.revision = _as_argument("revision", revision)
        self.endpoint = endpoint.rstrip("/")
        self.token = token
        self.prefix = prefix
        self.places = places
        self.workers = workers
        self.stall_timeout = stall_timeout
        self.deadline = None

    def ask(self, path):
        """(data, headers) of a question to the hub's API."""
        where = self.endpoint + without_query(path)
        if self.deadline and time.monotonic() > self.deadline:
            raise SnapshotError(f"{where}: the list of files was not complete after {_LISTING_SECONDS} s")
        try:
            body, headers = get(self.endpoint + path, self.token)
            return bounded_json(body, f"the answer of {where}", SnapshotError, LONGEST_LIST), headers
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                raise SnapshotError(
                    f"{self.endpoint} refuses {self.model} (HTTP {error.code}): it is private or gated; "
                    + ("the token does not open it" if self.token else "it needs a token")
                ) from error
            raise SnapshotError(
                f"{self.endpoint} knows no {self.model} at revision {self.revision or 'default'} (HTTP {error.code}): "
                "check model, revision, source and endpoint; a private model needs a token"
            ) from error

    def listing(self):
        """(entries, the commit when one is known), whatever the hub answers: within bounds of time and size."""
        self.deadline = time.monotonic() + _LISTING_SECONDS
        try:
            return self.ask_for_listing()
        except ManifestError as error:
            raise SnapshotError(f"what {self.endpoint} lists for {self.model} is not trusted: {error}") from error
        finally:
            self.deadline = None

    def client(self):
        """Full path of the client's command."""
        path = os.path.join(self.prefix or "", "bin", self.program)
        if self.prefix and os.access(path, os.X_OK):
            return path
        found = None if self.prefix else shutil.which(self.program)
        if not found:
            raise FetchError(
                f"the client {self.program} is not at {path if self.prefix else 'any place in PATH'}: "
                "client_prefix must name the environment that has it",
                fatal=True,
            )
        return found

    def environment(self):
        """The client's environment: the token is here and nowhere else."""
        return dict(
            os.environ,
            HOME=self.places.client,
            TMPDIR=self.places.client,
            PYTHONUNBUFFERED="1",
            PYTHONDONTWRITEBYTECODE="1",
        )

    def fetch(self, missing, staging, resolved, watch):
        """Run the client for all that is missing, in as many runs as fit on command lines."""
        for entries in _portions(missing, self.name):
            self.run(entries, staging, resolved, watch)

    def run(self, entries, staging, resolved, watch):
        """Run the client until it ends, or until it does what a hub must not make it do."""
        own_directory(self.places.client)
        log_path = os.path.join(self.places.client, "client.log")
        longest = max(_CLIENT_EXTRA, *(entry.size for entry in entries))
        confinement = confine([staging, self.places.client], longest)
        with open(log_path, "wb") as log:
            process = subprocess.Popen(
                [self.client(), *self.arguments(entries, staging, resolved)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment(),
                cwd=self.places.client,
                start_new_session=True,
                preexec_fn=confinement,
            )
        confinement.close()
        guard = _Guard(self, process, entries, staging)
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.25)
                    break
                watch(self.partial_files(staging))
                guard.look()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # and whoever works for it
                process.wait()
        if process.returncode:
            raise FetchError(f"{self.program} ended with {process.returncode}: {self.reason(log_path)}")

    def partial_files(self, staging):
        """A function that tells where the client keeps a file that is not whole yet."""
        return lambda entry: os.path.join(staging, entry.path) + ".incomplete"

    def reason(self, log_path):
        """The last lines of the client's log that say something, without the token."""
        with open(log_path, "rb") as handle:
            handle.seek(max(0, os.path.getsize(log_path) - 16384))
            text = handle.read().decode("utf-8", "replace").replace("\r", "\n")
        lines = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line).strip()[:1000] for line in text.splitlines()]
        lines = [line for line in lines if line and not _NOISE.search(line)]
        telling = [line for line in lines if re.search(r"error|fail|refus|denied|space|HTTP|mismatch", line, re.I)]
        reason = " / ".join((telling or lines)[-2:]).rstrip(".") or "its log is empty"
        return printable((reason.replace(self.token, "***") if self.token else reason)[-600:], 600)


class _Guard:
    """What a client takes of the host while it runs, and when that is too much."""

    def __init__(self, source, process, entries, staging):
        self.source, self.process = source, process
        self.places = (staging, source.places.client)
        self.began = self.arrived()
        self.most = self.began + sum(entry.size for entry in entries) + _CLIENT_EXTRA
        self.seen, self.since = self.began, time.monotonic()
        self.looked = time.monotonic()

    def arrived(self):
        """Bytes of all files, each once, however many names it has."""
        seen = {}
        for place in self.places:
            for path in _below(place):
                with contextlib.suppress(OSError):
                    info = os.lstat(path)
                    seen[info.st_dev, info.st_ino] = min(info.st_size, info.st_blocks * 512)
        return sum(seen.values())

    def look(self):
        """Fail, after which the client is stopped, when nothing comes or more than is wanted."""
        memory = _memory_of(self.process.pid)
        if memory > max(_CLIENT_MEMORY, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE") // 4):
            raise FetchError(f"{self.source.program} took {format_bytes(memory)} of memory for what the hub sent")
        now = time.monotonic()
        if now - self.looked < 1:
            return
        self.looked, arrived = now, self.arrived()
        if arrived > self.most:
            more = format_bytes(arrived - self.began)
            raise FetchError(
                f"{self.source.name} sent {more}, more than it lists for what is missing ({self.source.program} "
                "was stopped)",
                fatal=True,
            )
        patience = self.source.stall_timeout
        if abs(arrived - self.seen) > _SLOWEST * patience:
            self.seen, self.since = arrived, now
        elif now - self.since > patience:
            came = format_bytes(max(0, arrived - self.seen)) if arrived > self.seen else "no byte"
            raise FetchError(f"{self.source.name} sent {came} for {patience} s (stall_timeout)")


def _memory_of(pid):
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    return 0


def _as_argument(name, value):
    """A value of the operator's that stands alone on a command line."""
    if value and (value.startswith("-") or "://" in value or not value.isprintable() or ".." in value.split("/")):
        raise SnapshotError(f"{name} is {value!r}, which is not the name of one")
    return value


def _as_pattern(path):
    """A shell glob that this path alone matches."""
    return re.sub(r"([*?[])", r"[\1]", path)


def _portions(entries, hub):
    """The entries in portions that fit on one command line each."""
    portion, length = [], 0
    for entry in entries:
        if hub == "modelscope" and "," in entry.path:
            raise FetchError(
                f"{entry.path} has a comma in its name, where the client modelscope divides names: "
                "leave it out (exclude)",
                fatal=True,
            )
        size = len(os.fsencode(_as_pattern(entry.path))) + 12
        if portion and length + size > _LONGEST_ARGUMENTS:
            yield portion
            portion, length = [], 0
        portion.append(entry)
        length += size
    if portion:
        yield portion


class ModelScopeSource(ClientSource):
    """modelscope.cn and mirrors of it."""

    name = "modelscope"
    program = "modelscope"

    def ask_for_listing(self):
        """(entries, the commit when the revision is one): the hub lists a sha256 per file."""
        query = urllib.parse.urlencode({"Revision": self.revision or "master", "Recursive": "True"})
        answer, _headers = self.ask(f"/api/v1/models/{urllib.parse.quote(self.model)}/repo/files?{query}")
        entries = listings.modelscope_entries(answer)
        if len(entries) >= _LISTING_LIMIT:
            raise SnapshotError(
                f"{self.endpoint} lists {len(entries)} files for {self.model}, which is where it cuts lists"
            )
        return entries, self.revision if listings.is_commit(self.revision) else None

    def arguments(self, missing, staging, _resolved):
        # As patterns, not as file names: the client fetches named files one after the other and without a hash.
        return [
            "download",
            self.model,
            f"--revision={self.revision or 'master'}",
            f"--local-dir={staging}",
            f"--max-workers={self.workers}",
            *(f"--include={_as_pattern(entry.path)}" for entry in missing),
        ]

    def environment(self):
        env = dict(super().environment(), MODELSCOPE_ENDPOINT=self.endpoint, MODELSCOPE_CACHE=self.places.client)
        if self.token:
            env["MODELSCOPE_API_TOKEN"] = self.token
        return env


def _below(directory):
    """The files below a directory, none when it is not there."""
    return [os.path.join(directory, path) for path in model_files.names_below(directory, (), True)]


def _hf_partial_files(staging):
    """What `hf` has not finished: HASH_OF_NAME.ETAG.RANDOM.incomplete, where the ETag is a hash of the file."""
    return [p for p in _below(os.path.join(staging, ".cache", "huggingface", "download")) if p.endswith(".incomplete")]


def _etag(path):
    """The hash in the name of an unfinished file; the hub sends it, so it may be anything."""
    return [*os.path.basename(path).split("."), ""][1]


class HuggingFaceSource(ClientSource):
    """huggingface.co and mirrors of it."""

    name = "huggingface"
    program = "hf"

    def ask_for_listing(self):
        """(entries, commit): large files with their sha256, small ones with the hash git gave them."""
        return listings.huggingface_listing(self.ask, self.model, self.revision or "main")

    def arguments(self, missing, staging, resolved):
        return [
            "download",
            self.model,
            f"--revision={resolved}",
            f"--local-dir={staging}",
            f"--max-workers={self.workers}",
            *(f"--include={_as_pattern(entry.path)}" for entry in missing),
        ]

    def fetch(self, missing, staging, resolved, watch):
        """The client starts a file anew in every process: what an earlier one left is finished here first."""
        begun = self.claim_partial(missing, staging)
        if begun:
            base = f"{self.endpoint}/{urllib.parse.quote(self.model)}/resolve/{resolved}"
            with contextlib.suppress(FetchError):  # then the client gets them too
                UrlSource(base, self.token, workers=self.workers).fetch(begun, staging, resolved, watch)
        rest = [e for e in missing if size_of(staging, e.path) != e.size]
        if rest:
            super().fetch(rest, staging, resolved, watch)

    def partial_files(self, staging):
        partial = {}
        for path in _hf_partial_files(staging):
            self.keep(path)
            partial[_etag(path)] = path
        return lambda entry: partial.get(entry.sha256 or entry.git_sha1)

    def keep(self, path):
        """Give an unfinished file a second name: a client that fails, unlike one that is killed, deletes it."""
        kept = os.path.join(self.places.client, "kept", os.path.basename(path))
        with contextlib.suppress(OSError):  # finished by now, kept already, or a file system without hard links
            os.makedirs(os.path.dirname(kept), exist_ok=True)
            os.link(path, kept)

    def claim_partial(self, missing, staging):
        """The entries of which an earlier process left a beginning, now under `PATH.incomplete`."""
        begun = []
        wanted = {entry.sha256 or entry.git_sha1: entry for entry in missing}
        leftovers = _hf_partial_files(staging) + _below(os.path.join(self.places.client, "kept"))
        for path in sorted(leftovers, key=lambda path: os.lstat(path).st_size, reverse=True):
            info = os.lstat(path)
            entry = wanted.get(_etag(path))
            # Parallel writers leave holes, which are no beginning; what is whole and was not taken is not good.
            if entry and 0 < info.st_size < entry.size and info.st_blocks * 512 >= info.st_size:
                wanted.pop(_etag(path))
                target = os.path.join(staging, entry.path) + ".incomplete"
                os.makedirs(os.path.dirname(target), exist_ok=True)
                os.replace(path, target)
                begun.append(entry)
            else:
                os.unlink(path)
        return begun

    def environment(self):
        env = dict(super().environment(), HF_ENDPOINT=self.endpoint, HF_HOME=self.places.client)
        env["HF_HUB_DISABLE_TELEMETRY"] = "1"
        env["HF_XET_CHUNK_CACHE_SIZE_BYTES"] = "0"  # nothing is fetched twice that a cache could help with
        if self.endpoint != HUGGING_FACE:
            env.setdefault("HF_HUB_DISABLE_XET", "1")  # mirrors lack it
        if self.token:
            env["HF_TOKEN"] = self.token
        return env


class RsyncSource:
    """Another host of the fleet that has the model, by rsync over ssh."""

    name = "rsync"
    may_move = False

    def __init__(self, origin, entries, places, rsh="ssh -o BatchMode=yes"):
        self.origin = origin.rstrip("/") + "/"
        self.entries = entries
        self.places = places
        self.rsh = rsh

    def listing(self):
        return self.entries, None

    def fetch(self, missing, staging, _resolved, watch):
        """Copy the missing files; rsync keeps what a cut connection left and goes on from there.

        Contents only: no link, device or right of the other host comes along, and no file that is too long.
        """
        own_directory(self.places.client)
        longest = max([entry.size for entry in missing])
        confinement = confine(None, max(longest, _CLIENT_EXTRA))
        log_path = os.path.join(self.places.client, "rsync.log")
        log = open(log_path, "wb")  # noqa: SIM115 (closed below, when rsync has it)
        try:
            process = subprocess.Popen(
                [
                    "rsync",
                    "--times",
                    "--copy-links",
                    "--chmod=D0755,F0644",
                    "--protect-args",
                    f"--max-size={longest}",
                    "--partial-dir=.rsync-partial",
                    "--from0",
                    "--files-from=-",
                    f"--rsh={self.rsh}",
                    "--",
                    self.origin,
                    staging,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                preexec_fn=confinement,
            )
        except FileNotFoundError as error:
            raise FetchError("rsync is not installed on this host", fatal=True) from error
        finally:
            log.close()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"".join(os.fsencode(entry.path) + b"\0" for entry in missing))
            process.stdin.close()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.25)
                break
            watch(lambda _entry: None)
        if process.returncode:
            with open(log_path, "rb") as handle:
                reason = handle.read(65536).decode("utf-8", "replace").strip().splitlines()[-1:]
            raise FetchError(f"rsync from {self.origin} ended with {process.returncode}: {printable(''.join(reason))}")
