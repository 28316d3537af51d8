"""What lies in place of a model's files: links, pipes, sockets, devices. Nothing is read, changed or waited for through it."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import sys

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_files as files
from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_snapshot as snapshots
from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_sources as sources
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_files import NotAFile
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_manifest import MANIFEST_NAME, entries_of
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_snapshot import Places, SnapshotError

SECRET = b"root's own"
OPTIONS = {
    "state": "present",
    "skip_duplicate_weights": True,
    "update": False,
    "repair": True,
    "fetch": True,
    "allow_root_filesystem": True,
    "space_margin": 5,
    "workers": 2,
    "attempts": 1,
    "retry_delay": 0,
    "check_mode": False,
}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do that")


@pytest.fixture
def source(tmp_path):
    """A directory with a model, and a secret beside it."""
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "secret").chmod(0o600)
    directory = tmp_path / "source"
    (directory / "sub").mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    (directory / "sub/t.txt").write_text("t")
    return directory


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "models").mkdir()
    return tmp_path / "models/name"


def ensure(source, directory, hub=None, **options):
    request = {"source": "local", "model": "org/name", "revision": None, "include": [], "exclude": []}
    hub = hub or sources.LocalSource(str(source), 2)
    progress = snapshots.Progress(None)
    return snapshots.Snapshot(Places(str(directory)), hub, request, {**OPTIONS, **options}, progress).ensure()


def put(kind, path):
    """Something that is no file."""
    secret = path.parent.parent / "secret"
    if kind == "link out":
        path.symlink_to("../secret")
    elif kind == "absolute link out":
        path.symlink_to(secret)
    elif kind == "link through a link":
        (path.parent / "way").symlink_to("..")
        path.symlink_to("way/secret")
    elif kind == "link to nothing":
        path.symlink_to("nothing")
    elif kind == "link to itself":
        path.symlink_to(path.name)
    elif kind == "link to a directory":
        path.symlink_to("sub")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        here = socket.socket(socket.AF_UNIX)
        os.chdir(path.parent)
        here.bind(path.name)
    elif kind == "device":
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    elif kind == "holes":
        with path.open("wb") as handle:
            handle.truncate(2**40)


STRANGERS = [
    "link out",
    "absolute link out",
    "link through a link",
    "link to nothing",
    "link to itself",
    "link to a directory",
    "pipe",
    "socket",
    "holes",
    pytest.param("device", marks=needs_root),
]


@pytest.mark.parametrize("kind", STRANGERS)
def test_what_is_no_file_is_named_and_never_opened(source, directory, kind):
    put(kind, source / "weights")
    with pytest.raises(SnapshotError, match=r"weights: (is|has|leads) "):
        ensure(source, directory)
    assert not directory.exists()
    (source / "SHA256SUMS").write_text(f"{'a' * 64}  weights\n")
    with pytest.raises(SnapshotError, match="weights: "):
        ensure(source, directory)
    hub = sources.LocalSource(str(source), 2, exclude=["w*y", "weights", "SHA256SUMS"])
    hub.exclude = ["way", "weights", "SHA256SUMS"]
    result = ensure(source, directory, hub)
    assert [f["path"] for f in result["manifest"]["files"]] == ["config.json", "sub/t.txt"]


@pytest.mark.parametrize("kind", STRANGERS)
def test_it_is_not_adopted_either_and_stays(source, directory, kind):
    """The operator's own directory, filled by hand, in which one of the listed files is none."""
    (source / "weights").write_bytes(b"w" * 10)
    (directory / "sub").mkdir(parents=True)
    put(kind, directory / "weights")
    before = os.lstat(directory / "weights")
    with pytest.raises(SnapshotError, match="weights: "):
        ensure(source, directory)
    assert os.path.samestat(before, os.lstat(directory / "weights"))
    assert (directory.parent.parent / "secret").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", STRANGERS)
@pytest.mark.parametrize("state", ["present", "verified"])
def test_in_a_published_directory_it_is_damage(source, directory, kind, state):
    (source / "weights").write_bytes(b"w" * 10)
    ensure(source, directory)
    (directory / "weights").unlink()
    put(kind, directory / "weights")
    with pytest.raises(SnapshotError, match="is damaged: weights"):
        ensure(source, directory, repair=False)
    assert not ensure(source, directory, fetch=False)["complete"]
    assert ensure(source, directory, state=state)["quarantined"] == ["weights"]
    assert (directory / "weights").read_bytes() == b"w" * 10
    assert not (directory / "weights").is_symlink()
    set_aside = directory.parent / ".name.quarantine/weights"
    assert os.path.lexists(set_aside)
    assert stat.S_IMODE(set_aside.parent.stat().st_mode) == 0o700
    secret = directory.parent.parent / "secret"
    assert (secret.read_bytes(), stat.S_IMODE(secret.stat().st_mode)) == (SECRET, 0o600)


@pytest.mark.parametrize("state", ["present", "verified"])
def test_a_directory_that_became_a_link_is_set_aside_and_not_what_it_leads_to(source, directory, tmp_path, state):
    ensure(source, directory)
    (directory / "sub").rename(tmp_path / "elsewhere")
    (directory / "sub").symlink_to(tmp_path / "elsewhere")
    ensure(source, directory, state=state)
    assert (tmp_path / "elsewhere/t.txt").exists()
    assert (directory / "sub/t.txt").exists()
    assert not (directory / "sub").is_symlink()


def test_a_link_below_the_directory_counts_as_its_file(source, directory):
    (source / "model.safetensors").symlink_to("sub/real")
    (source / "sub/real").write_bytes(b"weights")
    (source / "absolute").symlink_to(source / "sub/real")
    result = ensure(source, directory)
    assert {f["path"] for f in result["manifest"]["files"]} == {
        "absolute", "config.json", "model.safetensors", "sub/real", "sub/t.txt",
    }  # fmt: skip
    assert not (directory / "model.safetensors").is_symlink()
    assert (directory / "model.safetensors").read_bytes() == b"weights"
    assert not ensure(source, source)["downloaded_bytes"]  # and where it lies it is adopted


def cache_of(tmp_path):
    """A model as Hugging Face's cache keeps it."""
    cache = tmp_path / "hub/models--org--name"
    snapshot = cache / "snapshots" / ("c" * 40)
    (cache / "blobs").mkdir(parents=True)
    (snapshot / "sub").mkdir(parents=True)
    for name, blob in (("config.json", "a" * 40), ("model.safetensors", "b" * 64), ("sub/t.txt", "d" * 40)):
        (cache / "blobs" / blob).write_text(name)
        (snapshot / name).symlink_to("../" * name.count("/") + f"../../blobs/{blob}")
    return snapshot


def test_a_snapshot_in_the_cache_of_hugging_face(tmp_path, directory):
    snapshot = cache_of(tmp_path)
    ensure(snapshot, directory)
    assert {p: (directory / p).read_text() for p in files.files_below(str(directory))} == {
        p: p for p in ("config.json", "model.safetensors", "sub/t.txt")
    }
    assert not any(p.is_symlink() for p in directory.rglob("*"))


@pytest.mark.parametrize(
    "target", ["../../blobs/../../../secret", "../../secret", "../../blobs/x", "../../../../secret"]
)
def test_the_cache_leads_to_its_own_blobs_only(tmp_path, directory, target):
    snapshot = cache_of(tmp_path)
    (tmp_path / "secret").write_bytes(SECRET)
    (snapshot.parent.parent / "secret").write_bytes(SECRET)
    (snapshot.parent.parent / "blobs/x").symlink_to("/etc/passwd")
    (snapshot / "more.txt").symlink_to(target)
    with pytest.raises(SnapshotError, match=r"more\.txt: is a symbolic link"):
        ensure(snapshot, directory)


def test_a_blob_that_is_a_link_leads_nowhere(tmp_path, directory):
    snapshot = cache_of(tmp_path)
    blob = snapshot.parent.parent / "blobs" / ("a" * 40)
    blob.unlink()
    blob.symlink_to("/etc/passwd")
    with pytest.raises(SnapshotError, match=r"config\.json: is a symbolic link into the cache"):
        ensure(snapshot, directory)


def test_outside_of_a_cache_such_a_link_leads_out(tmp_path, directory):
    snapshot = cache_of(tmp_path)
    moved = tmp_path / "hub/models--org--name/other/x"
    moved.parent.mkdir()
    snapshot.rename(moved)
    with pytest.raises(SnapshotError, match="leads out of"):
        ensure(moved, directory)


@pytest.mark.parametrize(
    ("file", "above", "published"), [(0o600, 0o755, 0o600), (0o4755, 0o755, 0o644), (0o640, 0o755, 0o640), (0o666, 0o755, 0o644), (0o644, 0o700, 0o600)]
)  # fmt: skip
def test_a_copy_can_be_read_by_those_who_could_read_the_original(source, directory, file, above, published):
    (source / "sub/t.txt").chmod(file)
    (source / "sub").chmod(above)
    ensure(source, directory)
    assert stat.S_IMODE((directory / "sub/t.txt").stat().st_mode) == published
    assert stat.S_IMODE((directory / "config.json").stat().st_mode) == 0o644
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755


def test_the_operators_files_and_directory_keep_their_modes(source, directory):
    """Adopted with a gap: only what is fetched gets the modes of a published file."""
    directory.mkdir(mode=0o750)
    (directory / "sub").mkdir()
    (directory / "sub/t.txt").write_text("t")
    (directory / "sub/t.txt").chmod(0o600)
    (directory / "notes").write_text("mine")
    (directory / "notes").chmod(0o640)
    (directory / "elsewhere").symlink_to("/etc/hostname")
    (directory / ".git/refs").mkdir(parents=True)
    (directory / ".git/HEAD").write_text("ref")
    os.mkfifo(directory / "pipe")
    result = ensure(source, directory)
    assert result["unmanaged_files"] == ["elsewhere", "notes", "pipe"]
    modes = {p: stat.S_IMODE(os.lstat(directory / p).st_mode) for p in ("", "sub/t.txt", "notes", "config.json")}
    assert modes == {"": 0o750, "sub/t.txt": 0o600, "notes": 0o640, "config.json": 0o644}
    assert os.readlink(directory / "elsewhere") == "/etc/hostname"
    assert stat.S_ISFIFO(os.lstat(directory / "pipe").st_mode)
    assert (directory / ".git/HEAD").read_text() == "ref"
    assert (directory / ".git/refs").is_dir()


def test_what_the_operator_put_there_survives_a_repair_that_is_killed(source, directory, monkeypatch):
    ensure(source, directory)
    (directory / "notes").write_text("mine")
    (directory / "config.json").write_text("bad")

    def killed(*_args):
        raise KeyboardInterrupt

    hub = sources.LocalSource(str(source), 2)
    monkeypatch.setattr(hub, "fetch", killed)
    with pytest.raises(KeyboardInterrupt):
        ensure(source, directory, hub)
    assert not (directory / MANIFEST_NAME).exists()
    ensure(source, directory)
    assert (directory / "notes").read_text() == "mine"
    assert (directory / "config.json").read_text() == "{}"


@pytest.mark.parametrize("moment", ["first", "second"])
def test_a_swap_in_three_steps_that_is_killed_loses_nothing(source, directory, monkeypatch, moment):
    ensure(source, directory)
    (directory / "notes").write_text("mine")
    (source / "config.json").write_text("{1}")
    monkeypatch.setattr(snapshots, "exchange", lambda one, other: False)
    rename, left = os.rename, [1 if moment == "first" else 2]

    def dies(one, other):
        if str(directory.parent) in str(one):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        rename(one, other)

    monkeypatch.setattr(os, "rename", dies)
    with pytest.raises(KeyboardInterrupt):
        ensure(source, directory, update=True)
    monkeypatch.setattr(os, "rename", rename)
    ensure(source, directory, update=True)
    assert (directory / "notes").read_text() == "mine"
    assert (directory / "config.json").read_text() == "{1}"
    ensure(source, directory)
    assert os.listdir(directory.parent) == ["name"]


# --- who else writes there -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lock", "progress.json"])
@pytest.mark.parametrize("trap", ["link", "second name", "pipe"])
def test_nothing_is_written_through_what_lies_beside_the_model(source, directory, tmp_path, name, trap):
    victim = tmp_path / "victim"
    victim.write_bytes(SECRET)
    place = directory.parent / f".name.{name}"
    if trap == "link":
        place.symlink_to(victim)
    elif trap == "second name":
        os.link(victim, place)
    else:
        os.mkfifo(place)
    places = Places(str(directory))
    if name == "lock":
        with pytest.raises(SnapshotError, match=r"\.name\.lock .*nothing is written to it"), snapshots.locked(
            places, 0
        ):
            pass
    else:
        with snapshots.Progress(places.progress):
            pass
        assert stat.S_ISREG(os.lstat(place).st_mode)
    assert victim.read_bytes() == SECRET


def test_a_manifest_is_not_written_through_a_link_that_waits_for_it(source, tmp_path, monkeypatch):
    """In a directory of somebody else's who knows how temporary files are called."""
    victim = tmp_path / "victim"
    victim.write_bytes(SECRET)
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "guessed")
    for name in (f"{MANIFEST_NAME}.guessed.new", f"{MANIFEST_NAME}.{os.getpid()}.new"):
        (source / name).symlink_to(victim)
    with pytest.raises(OSError, match="exists"):
        files.write_atomically(str(source / MANIFEST_NAME), "text")
    assert victim.read_bytes() == SECRET


@needs_root
@pytest.mark.parametrize(
    ("owner", "mode", "words"),
    [
        (12345, 0o755, "belongs to uid 12345"),
        (0, 0o777, "can be changed by others"),
        (0, 0o775, "can be changed by others"),
    ],
)
def test_root_fetches_nothing_where_others_may_exchange_it(source, directory, owner, mode, words):
    os.chown(directory.parent, owner, 54321)
    directory.parent.chmod(mode)
    for check_mode in (True, False):
        with pytest.raises(SnapshotError, match=words):
            ensure(source, directory, check_mode=check_mode)
    assert os.listdir(directory.parent) == []
    result = ensure(source, source)  # what lies there already is adopted nevertheless
    assert "adopted" in result["msg"]
    directory.parent.chmod(0o1777)
    if owner == 0:
        assert ensure(source, directory)["changed"]


@needs_root
def test_files_that_others_may_change_are_told(source):
    os.chown(source / "config.json", 12345, 12345)
    (source / "sub/t.txt").chmod(0o666)
    assert "other accounts may change them: config.json, sub/t.txt" in ensure(source, source)["msg"]


@needs_root
def test_a_staging_directory_of_somebody_else_is_not_trusted(source, directory):
    staging = directory.parent / ".name.staging"
    staging.mkdir()
    (staging / "config.json").write_text("{}")
    os.chown(staging, 12345, 12345)
    result = ensure(source, directory)
    assert result["reused_bytes"] == 0
    assert directory.stat().st_uid == 0
    assert (directory.parent / ".name.quarantine/.staging/config.json").exists()


def test_a_staging_directory_that_is_a_link(source, directory, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (directory.parent / ".name.staging").symlink_to(tmp_path / "elsewhere")
    ensure(source, directory)
    assert os.listdir(tmp_path / "elsewhere") == []
    assert not directory.is_symlink()


def test_a_models_directory_may_be_a_link_of_the_operators(source, directory, tmp_path):
    real = tmp_path / "disk/name"
    real.mkdir(parents=True)
    directory.symlink_to(real)
    result = ensure(source, directory)
    assert result["directory"] == str(directory)
    assert directory.is_symlink()
    assert (real / "config.json").exists()
    assert os.listdir(directory.parent) == ["name"]
    assert snapshots.absent(Places(str(directory)), check_mode=False)
    assert (real / "config.json").exists()
    assert not directory.is_symlink()
    directory.symlink_to("nowhere")
    with pytest.raises(SnapshotError, match="which is no directory"):
        Places(str(directory))


@needs_root
def test_a_link_of_another_account_is_not_followed(source, directory, tmp_path):
    """Neither to a source nor to the model's own directory: it may lead anywhere by the time root comes."""
    theirs = tmp_path / "theirs"
    theirs.symlink_to(source)
    os.chown(theirs, 12345, 12345, follow_symlinks=False)
    for path in (theirs, theirs / "sub"):
        with pytest.raises(SnapshotError, match="theirs is a symbolic link of another account"):
            ensure(path, directory)
        with pytest.raises(SnapshotError, match="theirs is a symbolic link of another account"):
            Places(str(path))
    ours = tmp_path / "ours"
    ours.symlink_to(source)
    assert ensure(ours, directory)["changed"]


@pytest.mark.parametrize("kind", ["pipe", "file", "socket"])
@pytest.mark.parametrize("check_mode", [True, False])
def test_what_is_no_directory_is_neither_replaced_nor_removed(directory, kind, check_mode):
    directory.write_text("mine") if kind == "file" else put(kind, directory)
    before = os.lstat(directory)
    with pytest.raises(SnapshotError, match=r"is a .*, and a model needs a directory"):
        snapshots.absent(Places(str(directory)), check_mode)
    assert os.path.samestat(before, os.lstat(directory))


@pytest.mark.parametrize("name", ["client", "quarantine"])
def test_a_link_in_place_of_a_hidden_directory_is_refused(source, directory, tmp_path, name):
    (tmp_path / "elsewhere").mkdir()
    (directory.parent / f".name.{name}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SnapshotError, match=rf"\.name\.{name} is a symbolic link: nothing is written to it"):
        snapshots.own_directory(str(directory.parent / f".name.{name}"))


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not here; molecule/model_weights has it")
def test_a_neighbour_over_rsync_sends_contents_and_nothing_else(source, directory):
    odd = source.rename(source.parent / "a b;touch x")
    (odd / "link").symlink_to("sub/t.txt")
    (odd / "config.json").chmod(0o4755)
    manifest = ensure(odd, odd)["manifest"]
    hub = sources.RsyncSource(str(odd), entries_of(manifest), Places(str(directory)))
    ensure(odd, directory, hub, same_as=manifest)
    assert not (directory / "link").is_symlink()
    assert stat.S_IMODE((directory / "config.json").stat().st_mode) == 0o644
    (odd / "sub/t.txt").unlink()
    os.mkfifo(odd / "sub/t.txt")
    (directory / "sub/t.txt").unlink()
    with pytest.raises(SnapshotError, match=r"missing: sub/t\.txt\. .*a b;touch x/ did not bring all"):
        ensure(odd, directory, hub, same_as=manifest)


def test_a_copy_that_grows_is_cut_where_the_list_ends_it(source, directory):
    hub = sources.LocalSource(str(source), 2)
    entries, _ = hub.listing()
    (source / "config.json").write_text("{" * 5000)
    directory.mkdir()
    hub.fetch(entries, str(directory), None, lambda partial: None)
    assert (directory / "config.json").stat().st_size == 2


def test_size_is_asked_before_a_byte_is_read(source, directory, monkeypatch):
    monkeypatch.setattr(files, "_LARGE", 2**60)
    with (source / "weights").open("wb") as handle:
        handle.truncate(2**43)
    with pytest.raises(SnapshotError, match="not enough space"):
        ensure(source, directory)


def test_the_share_opens_files_the_same_way(source):
    with pytest.raises(NotAFile):
        (source / "w").symlink_to("../secret")
        files.open_file(str(source), "w")
    with pytest.raises(FileNotFoundError):
        files.open_file(str(source), "nothing/there")
    with pytest.raises(NotAFile, match="is a directory"):
        files.open_file(str(source), "sub")
    assert os.read(files.open_file(str(source), "config.json"), 9) == b"{}"


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are looked at in /proc")
def test_no_descriptor_is_left_open(source):
    (source / "w").symlink_to("../secret")
    (source / "v").symlink_to("sub/t.txt")
    before = len(os.listdir("/proc/self/fd"))
    for path in ("config.json", "sub/t.txt", "w", "v", "nothing", "sub"):
        assert files.size_of(str(source), path) is not None or path in ("w", "nothing", "sub")
    assert len(os.listdir("/proc/self/fd")) == before
