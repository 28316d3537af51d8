# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the files of a model come from: each source lists them and brings them."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from ansible.module_utils.urls import open_url

from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_manifest as manifests
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.demo import write_demo_model
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_manifest import MANIFEST_NAME, FileEntry
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_snapshot import (
    FetchError,
    SnapshotError,
    bytes_on_disk,
    file_size,
    list_directory,
    read_manifest,
)

MODELSCOPE = "https://modelscope.cn"
HUGGING_FACE = "https://huggingface.co"
_COMMIT = re.compile(r"^[0-9a-f]{40}$")
_LISTING_LIMIT = 3000  # where ModelScope cuts a listing without saying so
_CHUNK = 1024 * 1024
# What the clients print besides the reason: bars, tracebacks, advice that is not for us.
_NOISE = re.compile(r"\d+%\||^Traceback|^File \"|^[\^~]+$|^with .*:$|^Suggestion:|^For more information")
_PR_SET_PDEATHSIG = 1


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
            watch(lambda _entry: None)


class GeneratedSource(LocalSource):
    """The demo model, made on this host from nothing."""

    name = "generated"

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


def _open(url, token=None, method="GET", **headers):
    """The answer to a request. The token is for this host alone: a redirect elsewhere does not get it."""
    headers = {"User-Agent": "inferops.gpu_host", **headers}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return open_url(
        url,
        method=method,
        headers=headers,
        unredirected_headers=["Authorization"],
        follow_redirects="all",
        timeout=60,
        decompress=False,
    )


def _retry_after(headers):
    with contextlib.suppress(TypeError, ValueError):
        return min(60, int(headers.get("Retry-After")))
    return None


def get(url, token=None, attempts=5, sleep=time.sleep):
    """(body, headers) of a small answer; waits and tries again where that can help."""
    delay, problem = 1, ""
    for attempt in range(1, attempts + 1):
        retry_after = None
        try:
            with _open(url, token) as answer:
                return answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 429 and error.code < 500:
                raise
            problem, retry_after = f"HTTP {error.code}", _retry_after(error.headers)
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            problem = str(getattr(error, "reason", error))
        if attempt < attempts:
            sleep(retry_after or delay)
            delay *= 2
    raise SnapshotError(f"no answer from {_without_query(url)} in {attempts} attempts: {problem}")


def _without_query(url):
    return url.split("?")[0]


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
            manifest = manifests.parse(body.decode())
            return manifests.entries_of(manifest), manifest["resolved_revision"]
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
        sums = manifests.parse_sha256sums(body.decode())
        return [FileEntry(path, self._length(path), sha256) for path, sha256 in sums.items()], None

    def _length(self, path):
        try:
            with _open(self._url_of(path), self.token, "HEAD") as answer:
                return int(answer.headers["Content-Length"])
        except (OSError, TypeError, ValueError) as error:
            raise SnapshotError(
                f"{self.url} lists {path} in SHA256SUMS but does not tell its length: {error}"
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
        start = file_size(partial) or 0
        if start > entry.size:
            os.unlink(partial)
            start = 0
        if start < entry.size or not entry.size:
            headers = {"Range": f"bytes={start}-"} if start else {}
            try:
                with _open(self._url_of(entry.path), self.token, **headers) as answer:
                    if start and answer.status != 206:
                        start = 0
                    self._write(answer, partial, start, entry)
            except urllib.error.HTTPError as error:
                error.close()
                raise FetchError(
                    f"{self.url} answers HTTP {error.code} for {entry.path}",
                    fatal=error.code in (401, 403, 404),
                    retry_after=_retry_after(error.headers),
                ) from error
            except (http.client.HTTPException, OSError) as error:
                if file_size(partial) is not None and getattr(error, "errno", None):
                    raise FetchError(f"{entry.path}: {error.strerror}") from error
                raise FetchError(f"{entry.path} from {self.url}: {getattr(error, 'reason', error)}") from error
        os.replace(partial, target)

    def _write(self, answer, partial, start, entry):
        with open(partial, "r+b" if start else "wb") as handle:
            handle.seek(start)
            block = memoryview(bytearray(_CHUNK))
            while True:
                length = answer.readinto(block)
                if not length:
                    break
                handle.write(block[:length])
                start += length
        if start != entry.size:
            raise FetchError(f"{entry.path} from {self.url}: the connection ended after {start} of {entry.size} bytes")


# --- official clients ----------------------------------------------------------------------------------------


def _die_with_parent():
    """A client whose module was killed must not go on writing behind the next run's back."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class ClientSource:
    """A hub whose official command-line client does the transfer."""

    may_move = True
    program = ""

    def __init__(self, model, revision, endpoint, token, prefix, places, workers=8, stall_timeout=600):
        self.model = model
        self.revision = revision
        self.endpoint = endpoint.rstrip("/")
        self.token = token
        self.prefix = prefix
        self.places = places
        self.workers = workers
        self.stall_timeout = stall_timeout

    def ask(self, path):
        """(data, headers) of a question to the hub's API."""
        try:
            body, headers = get(self.endpoint + path, self.token)
            return json.loads(body), headers
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
        except ValueError as error:
            raise SnapshotError(f"{self.endpoint}{_without_query(path)} did not answer with JSON: {error}") from error

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
        return dict(os.environ, HOME=self.places.client, PYTHONUNBUFFERED="1")

    def fetch(self, missing, staging, resolved, watch):
        """Run the client until it ends, or until no byte has arrived for `stall_timeout` seconds."""
        os.makedirs(self.places.client, mode=0o700, exist_ok=True)
        log_path = os.path.join(self.places.client, "client.log")
        with open(log_path, "wb") as log:
            process = subprocess.Popen(
                [self.client(), *self.arguments(missing, staging, resolved)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment(),
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
            seen, since, ticks = -1, time.monotonic(), 0
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.25)
                    break
                watch(self.partial_files(staging))
                ticks += 1
                if ticks % 20 == 0:
                    arrived = bytes_on_disk(staging)
                    if arrived != seen:
                        seen, since = arrived, time.monotonic()
                    elif time.monotonic() - since > self.stall_timeout:
                        process.kill()
                        process.wait()
                        raise FetchError(f"{self.name} sent no byte for {self.stall_timeout} s (stall_timeout)")
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
        lines = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line).strip() for line in text.splitlines()]
        lines = [line for line in lines if line and not _NOISE.search(line)]
        telling = [line for line in lines if re.search(r"error|fail|refus|denied|space|HTTP|mismatch", line, re.I)]
        reason = " / ".join((telling or lines)[-2:]).rstrip(".") or "its log is empty"
        return (reason.replace(self.token, "***") if self.token else reason)[-600:]


class ModelScopeSource(ClientSource):
    """modelscope.cn and mirrors of it."""

    name = "modelscope"
    program = "modelscope"

    def listing(self):
        """(entries, the commit when the revision is one): the hub lists a sha256 per file."""
        query = urllib.parse.urlencode({"Revision": self.revision or "master", "Recursive": "True"})
        answer, _headers = self.ask(f"/api/v1/models/{urllib.parse.quote(self.model)}/repo/files?{query}")
        files = ((answer.get("Data") or {}).get("Files")) or []
        if len(files) >= _LISTING_LIMIT:
            raise SnapshotError(
                f"{self.endpoint} lists {len(files)} files for {self.model}, which is where it cuts lists"
            )
        entries = [
            FileEntry(f["Path"], int(f["Size"]), (f.get("Sha256") or "").lower() or None)
            for f in files
            if f.get("Type") != "tree"
        ]
        return entries, self.revision if _COMMIT.match(self.revision or "") else None

    def arguments(self, missing, staging, _resolved):
        # As patterns, not as file names: the client fetches named files one after the other and without a hash.
        patterns = [re.sub(r"([*?[])", r"[\1]", entry.path) for entry in missing]
        return [
            "download",
            self.model,
            "--revision",
            self.revision or "master",
            "--local-dir",
            staging,
            "--max-workers",
            str(self.workers),
            "--include",
            *patterns,
        ]

    def environment(self):
        env = dict(super().environment(), MODELSCOPE_ENDPOINT=self.endpoint, MODELSCOPE_CACHE=self.places.client)
        if self.token:
            env["MODELSCOPE_API_TOKEN"] = self.token
        return env


def _below(directory):
    """The files below a directory, none when it is not there."""
    return [os.path.join(root, name) for root, _directories, names in os.walk(directory) for name in names]


def _hf_partial_files(staging):
    """What `hf` has not finished: HASH_OF_NAME.ETAG.RANDOM.incomplete, where the ETag is a hash of the file."""
    return [p for p in _below(os.path.join(staging, ".cache", "huggingface", "download")) if p.endswith(".incomplete")]


def _etag(path):
    return os.path.basename(path).split(".")[1]


class HuggingFaceSource(ClientSource):
    """huggingface.co and mirrors of it."""

    name = "huggingface"
    program = "hf"

    def listing(self):
        """(entries, commit): large files with their sha256, small ones with the hash git gave them."""
        model = urllib.parse.quote(self.model)
        revision = urllib.parse.quote(self.revision or "main", safe="")
        commit = self.ask(f"/api/models/{model}/revision/{revision}")[0]["sha"]
        entries, page = [], f"/api/models/{model}/tree/{commit}?recursive=true"
        while page:
            files, headers = self.ask(page)
            for file in files:
                if file["type"] == "file":
                    large = file.get("lfs")
                    sha256 = large.get("oid", "").rpartition(":")[2] if large else None
                    size = large["size"] if large else file["size"]
                    entries.append(
                        FileEntry(file["path"], size, sha256 or None, None if large else file.get("oid") or None)
                    )
            following = re.search(r'<([^>]+)>;\s*rel="next"', headers.get("Link") or "")
            page = re.sub(r"^https?://[^/]+", "", following.group(1)) if following else None
        return entries, commit

    def arguments(self, missing, staging, resolved):
        return [
            "download",
            self.model,
            *(entry.path for entry in missing),
            "--revision",
            resolved,
            "--local-dir",
            staging,
            "--max-workers",
            str(self.workers),
        ]

    def fetch(self, missing, staging, resolved, watch):
        """The client starts a file anew in every process: what an earlier one left is finished here first."""
        begun = self.claim_partial(missing, staging)
        if begun:
            base = f"{self.endpoint}/{urllib.parse.quote(self.model)}/resolve/{resolved}"
            with contextlib.suppress(FetchError):  # then the client gets them too
                UrlSource(base, self.token, workers=self.workers).fetch(begun, staging, resolved, watch)
        rest = [e for e in missing if file_size(os.path.join(staging, e.path)) != e.size]
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
        for path in sorted(leftovers, key=os.path.getsize, reverse=True):
            info = os.stat(path)
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
        """Copy the missing files; rsync keeps what a cut connection left and goes on from there."""
        os.makedirs(self.places.client, mode=0o700, exist_ok=True)
        command = ["rsync", "--archive", "--no-owner", "--no-group", "--partial-dir=.rsync-partial", "--files-from=-"]
        try:
            process = subprocess.Popen(
                [*command, f"--rsh={self.rsh}", self.origin, staging],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                preexec_fn=_die_with_parent,
            )
        except FileNotFoundError as error:
            raise FetchError("rsync is not installed on this host", fatal=True) from error
        process.stdin.write("".join(entry.path + "\n" for entry in missing).encode())
        process.stdin.close()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.25)
                break
            watch(lambda _entry: None)
        if process.returncode:
            reason = process.stderr.read().decode("utf-8", "replace").strip().splitlines()[-1:]
            raise FetchError(f"rsync from {self.origin} ended with {process.returncode}: {''.join(reason)}")
