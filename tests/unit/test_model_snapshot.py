from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import shutil

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_snapshot as snapshots
from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_sources as sources
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_manifest import MANIFEST_NAME
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_snapshot import (
    FetchError,
    Places,
    Progress,
    Snapshot,
    SnapshotError,
)

FILES = {
    "config.json": b"{}",
    "model-1.safetensors": b"1" * 5000,
    "model-2.safetensors": b"2" * 7000,
    "sub/t.txt": b"t",
}
OPTIONS = {
    "state": "present",
    "skip_duplicate_weights": True,
    "update": False,
    "repair": True,
    "fetch": True,
    "allow_root_filesystem": True,
    "space_margin": 5,
    "workers": 2,
    "attempts": 2,
    "retry_delay": 0,
    "check_mode": False,
}


class Hub(sources.LocalSource):
    """A local source that remembers what was fetched, and can be told to go wrong."""

    may_move = True

    def __init__(self, path):
        super().__init__(str(path))
        self.fetched = []
        self.listings = 0
        self.go_wrong = lambda staging, missing: None

    def listing(self):
        self.listings += 1
        return super().listing()

    def fetch(self, missing, staging, resolved, watch):
        self.fetched += [e.path for e in missing]
        super().fetch(missing, staging, resolved, lambda _partial: None)
        self.go_wrong(staging, missing)
        watch(lambda _entry: None)


@pytest.fixture
def hub(tmp_path):
    for path, content in FILES.items():
        target = tmp_path / "hub" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return Hub(tmp_path / "hub")


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "models/org").mkdir(parents=True)
    return tmp_path / "models/org/name"


def ensure(hub, directory, revision=None, **options):
    request = {"source": "local", "model": "org/name", "revision": revision, "include": [], "exclude": []}
    hub.fetched, hub.listings = [], 0
    return Snapshot(Places(str(directory)), hub, request, {**OPTIONS, **options}, Progress(None)).ensure()


def content(directory):
    return {p: (directory / p).read_bytes() for p in snapshots.files_below(str(directory))}


def test_first_run_publishes_the_second_asks_nobody(hub, directory):
    first = ensure(hub, directory)
    assert first["changed"]
    assert first["downloaded_bytes"] == sum(map(len, FILES.values()))
    assert content(directory) == FILES
    assert os.listdir(directory.parent) == ["name"]
    second = ensure(hub, directory)
    assert not second["changed"]
    assert (hub.fetched, hub.listings) == ([], 0)
    assert second["manifest"] == first["manifest"] == json.loads((directory / MANIFEST_NAME).read_text())


def test_check_mode_writes_nothing(hub, directory):
    result = ensure(hub, directory, check_mode=True)
    assert result["changed"]
    assert "4 files" in result["msg"]
    assert "model-1.safetensors" in result["diff"]["after"]
    assert os.listdir(directory.parent) == []


@pytest.mark.parametrize("damage", ["truncated", "missing", "flipped"])
def test_only_the_damaged_file_is_fetched_again(hub, directory, damage):
    ensure(hub, directory)
    victim = directory / "model-2.safetensors"
    if damage == "missing":
        victim.unlink()
    else:
        times = os.stat(victim)
        victim.write_bytes(FILES["model-2.safetensors"][:100] if damage == "truncated" else b"x" * 7000)
        os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    if damage == "flipped":  # same length and time: only reading shows it
        assert not ensure(hub, directory)["changed"]
    state = "verified" if damage == "flipped" else "present"
    with pytest.raises(SnapshotError, match=r"damaged: model-2\.safetensors"):
        ensure(hub, directory, state=state, repair=False)
    result = ensure(hub, directory, state=state)
    assert hub.fetched == ["model-2.safetensors"]
    assert result["quarantined"] == ["model-2.safetensors"]
    assert content(directory) == FILES
    assert hub.listings == 0


def test_the_generated_model_is_repaired(tmp_path, directory):
    request = {"source": "generated", "model": "org/name", "revision": None, "include": [], "exclude": []}

    def run(scratch):
        source = sources.GeneratedSource(str(tmp_path / scratch))
        return Snapshot(Places(str(directory)), source, request, OPTIONS, Progress(None)).ensure()

    run("first")
    whole = content(directory)
    (directory / "model.safetensors").write_bytes(b"cut")
    assert run("second")["quarantined"] == ["model.safetensors"]
    assert content(directory) == whole


def test_a_file_written_after_publishing_is_read(hub, directory):
    ensure(hub, directory)
    victim = directory / "model-1.safetensors"
    later = os.stat(directory / MANIFEST_NAME).st_mtime + 5
    os.utime(victim, (later, later))
    assert not ensure(hub, directory)["changed"]
    victim.write_bytes(b"x" * 5000)
    os.utime(victim, (later + 5, later + 5))
    assert ensure(hub, directory)["quarantined"] == ["model-1.safetensors"]
    assert content(directory) == FILES


def test_only_looking(hub, directory):
    def look(**options):
        result = ensure(hub, directory, fetch=False, **options)
        assert not result["changed"]
        assert (hub.fetched, hub.listings) == ([], 0)
        return result["complete"], result["msg"].partition(f"{directory}: ")[2]

    assert look() == (False, "not there")
    ensure(hub, directory)
    assert look()[0]
    assert look(update=True)[0]  # what the source offers by now is another question
    assert look(revision="v2") == (False, "another version than the wanted one: local:org/name @ default branch")
    victim = directory / "model-1.safetensors"
    later = os.stat(directory / MANIFEST_NAME).st_mtime + 5
    os.utime(victim, (later, later))
    for _ in range(2):
        assert look() == (False, "not whole: model-1.safetensors: changed since it was published")
    assert look(state="verified")[0]
    victim.write_bytes(b"x" * 5000)
    assert look(state="verified")[1].startswith("not whole: model-1.safetensors: sha256")
    assert victim.exists()


def test_a_damaged_directory_is_not_left_published_when_the_hub_is_away(hub, directory):
    ensure(hub, directory)
    (directory / "model-1.safetensors").write_bytes(b"short")

    def away(missing, staging, resolved, watch):
        raise FetchError("connection refused")

    good, hub.fetch = hub.fetch, away
    with pytest.raises(SnapshotError, match=r"3 of 4 files .* missing: model-1\.safetensors\. connection refused"):
        ensure(hub, directory)
    assert not directory.exists()
    hub.fetch = good
    ensure(hub, directory)
    assert hub.fetched == ["model-1.safetensors"]
    assert content(directory) == FILES


def test_wrong_bytes_are_never_published_and_good_ones_not_fetched_twice(hub, directory):
    def flip(staging, missing):
        for entry in missing:
            if entry.path == "model-1.safetensors":
                with open(os.path.join(staging, entry.path), "r+b") as handle:
                    handle.write(b"X")

    hub.go_wrong = flip
    with pytest.raises(SnapshotError, match=r"after 2 attempts.*wrong bytes"):
        ensure(hub, directory)
    assert not directory.exists()
    assert hub.fetched.count("model-1.safetensors") == 2
    assert hub.fetched.count("model-2.safetensors") == 1
    hub.go_wrong = lambda *args: None
    result = ensure(hub, directory)
    assert hub.fetched == ["model-1.safetensors"]
    assert result["reused_bytes"] == sum(map(len, FILES.values())) - 5000
    assert content(directory) == FILES


@pytest.fixture
def arriving(tmp_path):
    """A file of 9 bytes on its way, and its watcher: grow(bytes) appends and lets the watcher look."""
    content, partial = b"123456789", tmp_path / "f.incomplete"
    entry = snapshots.FileEntry("f", 9, hashlib.sha256(content).hexdigest())
    arrivals = snapshots._Arrivals([entry], str(tmp_path), 1)

    def grow(more, mode="ab"):
        with partial.open(mode) as handle:
            handle.write(more)
        look()

    def look():
        arrivals.watch(lambda entry: str(partial))
        arrivals.files[0].future.result()

    arrivals.grow, arrivals.look, arrivals.partial, arrivals.final = grow, look, partial, tmp_path / "f"
    arrivals.good = ({}, {"f": entry.sha256})
    return arrivals


def test_a_growing_file_is_read_once(arriving, monkeypatch):
    for part in (b"123", b"456"):
        arriving.grow(part)
    assert arriving.files[0].read == 6
    arriving.grow(b"789")
    arriving.partial.rename(arriving.final)
    monkeypatch.setattr(snapshots, "problem_of", lambda *args, **kwargs: pytest.fail("read a second time"))
    assert arriving.finish() == arriving.good


def test_a_file_that_begins_anew_is_read_anew(arriving):
    arriving.grow(b"abcd")
    arriving.grow(b"12", mode="wb")
    arriving.grow(b"3456789")
    arriving.partial.rename(arriving.final)
    assert arriving.finish() == arriving.good


def test_a_file_in_place_of_another_is_read_anew(arriving):
    arriving.grow(b"abcd")
    arriving.final.write_bytes(b"123456789")
    assert arriving.finish() == arriving.good


def test_a_file_that_changes_after_it_was_read_is_read_again(arriving):
    arriving.grow(b"123456789")
    arriving.partial.rename(arriving.final)
    arriving.look()
    arriving.final.write_bytes(b"12345678X")
    os.utime(arriving.final, (1, 1))
    problems, hashes = arriving.finish()
    assert (list(problems), hashes) == (["f"], {})


def test_a_file_written_out_of_order_is_read_when_it_is_whole(arriving):
    arriving.grow(b"000456789")
    with arriving.partial.open("r+b") as handle:
        handle.write(b"123")
    arriving.partial.rename(arriving.final)
    assert arriving.finish() == arriving.good


def test_a_file_that_is_not_whole_is_no_problem_yet(arriving):
    arriving.grow(b"123")
    assert arriving.finish() == ({}, {})


def test_a_hand_filled_directory_is_adopted_without_a_byte(hub, directory):
    shutil.copytree(hub.path, directory)
    (directory / "notes.txt").write_text("mine")
    result = ensure(hub, directory)
    assert result["changed"]
    assert "adopted" in result["msg"]
    assert (hub.fetched, result["unmanaged_files"]) == ([], ["notes.txt"])
    assert not ensure(hub, directory)["changed"]


def test_a_model_is_adopted_where_it_lies(hub):
    result = ensure(hub, hub.path, allow_root_filesystem=False)
    assert "adopted" in result["msg"]
    assert not ensure(hub, hub.path)["changed"]


def test_a_hand_filled_directory_with_gaps_stays_until_it_is_whole(hub, directory):
    shutil.copytree(hub.path, directory)
    (directory / "model-1.safetensors").write_bytes(b"x" * 5000)
    (directory / "model-2.safetensors").unlink()
    (directory / "notes.txt").write_text("mine")
    (directory / "model-2.safetensors.incomplete").write_text("left by a client")
    (directory / "._____temp").mkdir()

    seen = []
    hub.go_wrong = lambda staging, missing: seen.append((directory / "notes.txt").exists())
    result = ensure(hub, directory)
    assert seen == [True]
    assert sorted(hub.fetched) == ["model-1.safetensors", "model-2.safetensors"]
    assert content(directory) == {**FILES, "notes.txt": b"mine"}
    assert sorted(os.listdir(directory)) == sorted(
        [MANIFEST_NAME, "notes.txt", "sub", *(f for f in FILES if "/" not in f)]
    )
    assert result["quarantined"] == ["model-1.safetensors"]
    assert (directory.parent / ".name.quarantine/model-1.safetensors").read_bytes() == b"x" * 5000


def test_an_update_fetches_the_difference_and_swaps(hub, directory):
    ensure(hub, directory)
    with open(os.path.join(hub.path, "model-2.safetensors"), "wb") as handle:
        handle.write(b"new" * 1000)
    os.unlink(os.path.join(hub.path, "sub/t.txt"))
    assert not ensure(hub, directory)["changed"]
    reader = open(directory / "model-2.safetensors", "rb")  # noqa: SIM115 (an engine that has it mapped)
    result = ensure(hub, directory, update=True)
    assert hub.fetched == ["model-2.safetensors"]
    assert result["reused_bytes"] == 5002
    assert set(content(directory)) == {"config.json", "model-1.safetensors", "model-2.safetensors"}
    assert reader.read() == FILES["model-2.safetensors"]
    reader.close()
    assert not ensure(hub, directory, update=True)["changed"]
    assert os.listdir(directory.parent) == ["name"]


def test_a_branch_that_moves_during_the_download(hub, directory):
    def move(staging, missing):
        hub.go_wrong = lambda *args: None
        with open(os.path.join(hub.path, "model-2.safetensors"), "wb") as handle:
            handle.write(b"new" * 1000)
        shutil.copyfile(handle.name, os.path.join(staging, "model-2.safetensors"))

    hub.go_wrong = move
    ensure(hub, directory)
    assert (directory / "model-2.safetensors").read_bytes() == b"new" * 1000
    assert hub.fetched.count("model-1.safetensors") == 1


def test_a_swap_without_the_kernels_help(hub, directory, monkeypatch):
    ensure(hub, directory)
    with open(os.path.join(hub.path, "config.json"), "wb") as handle:
        handle.write(b"{1}")
    monkeypatch.setattr(snapshots, "exchange", lambda one, other: False)
    ensure(hub, directory, update=True)
    assert (directory / "config.json").read_bytes() == b"{1}"
    assert os.listdir(directory.parent) == ["name"]


def test_no_hard_links_on_the_file_system(hub, directory, monkeypatch):
    def link(*args, **kwargs):
        raise OSError(errno.EPERM, "no links here")

    shutil.copytree(hub.path, directory)
    (directory / "config.json").unlink()
    monkeypatch.setattr(os, "link", link)
    ensure(hub, directory)
    assert hub.fetched == ["config.json"]
    assert content(directory) == FILES


def test_space_is_checked_before_the_first_byte(hub, directory, monkeypatch):
    class Disk:
        f_bavail, f_frsize, f_blocks = 2, 4096, 100

    monkeypatch.setattr(os, "statvfs", lambda path: Disk)
    with pytest.raises(SnapshotError, match=r"not enough space.*11\.7\d KiB are still to fetch.*8 KiB are free"):
        ensure(hub, directory)
    assert hub.fetched == []


def test_the_root_filesystem_is_refused(hub, directory, monkeypatch):
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **k: real(directory.parent if path == "/" else path, **k))
    with pytest.raises(SnapshotError, match="allow_root_filesystem"):
        ensure(hub, directory, allow_root_filesystem=False)
    assert os.listdir(directory.parent) == []


def _hold(lock, held, release):
    with snapshots.locked(lock, 5):
        held.set()
        release.wait(20)


def test_one_run_at_a_time_and_a_killed_one_leaves_no_lock(directory):
    places = Places(str(directory))
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(places, held, release))
    other.start()
    assert held.wait(10)
    with pytest.raises(SnapshotError, match=rf"worked on by process {other.pid}"), snapshots.locked(places, 0):
        pass
    other.kill()
    other.join()
    with snapshots.locked(places, 0):
        pass


def test_absent_removes_all_that_belongs_to_the_model(hub, directory):
    ensure(hub, directory)
    places = Places(str(directory))
    os.makedirs(places.staging)
    assert snapshots.absent(places, check_mode=True)
    assert directory.exists()
    assert snapshots.absent(places, check_mode=False)
    assert os.listdir(directory.parent) == []
    assert not snapshots.absent(places, check_mode=False)


def test_progress_tells_bytes_percent_and_rate(tmp_path):
    path = tmp_path / "progress.json"
    done = [250]
    with Progress(str(path), interval=60) as progress:
        progress.phase("downloading", 1000, lambda: done[0])
        figures = json.loads(path.read_text())
        assert (figures["state"], figures["bytes"], figures["total"], figures["percent"]) == (
            "downloading",
            250,
            1000,
            25.0,
        )
        done[0] = 500
        progress.write()
        figures = json.loads(path.read_text())
        assert figures["rate"] > 0
        assert figures["eta_seconds"] is not None
    assert json.loads(path.read_text())["state"] == "done"


def test_git_hashes_of_small_files(tmp_path):
    # `printf 'hello\n' | git hash-object --stdin`
    (tmp_path / "f").write_bytes(b"hello\n")
    entry = snapshots.FileEntry("f", 6, None, "ce013625030ba8dba906f756967f9e9ca394464a")
    assert snapshots.problem_of(str(tmp_path), entry)[0] is None
    assert "git hash" in snapshots.problem_of(str(tmp_path), entry._replace(git_sha1="0" * 40))[0]
