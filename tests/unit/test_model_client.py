"""What a hub can make its client do: a client runs as whoever runs the play, and here it does its worst."""

from __future__ import annotations

import os
import stat
import time

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _confinement
from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_snapshot as snapshots
from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_sources as sources
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_manifest import FileEntry
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_snapshot import Places, SnapshotError

CONFIG = FileEntry("config.json", 2, "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a")
WEIGHTS = FileEntry("w.bin", 5, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
GOOD = "printf '{}' > config.json; printf hello > w.bin"


class Source(sources.ModelScopeSource):
    """A hub that lists two files, and a client that does as it is told."""

    def ask_for_listing(self):
        return [CONFIG, WEIGHTS], None


@pytest.fixture
def run(tmp_path):
    def run(script, attempts=1, stall_timeout=30, token="the-token"):
        prefix = tmp_path / "prefix"
        (prefix / "bin").mkdir(parents=True, exist_ok=True)
        client = prefix / "bin/modelscope"
        here = 'for a; do case $a in --local-dir=*) cd "${a#*=}";; esac; done'
        client.write_text(f"#!/bin/sh\n{here}\n{script}\n")
        client.chmod(0o755)
        (tmp_path / "models").mkdir(exist_ok=True)
        places = Places(str(tmp_path / "models/name"))
        source = Source("org/name", None, "http://hub", token, str(prefix), places, stall_timeout=stall_timeout)
        options = {
            "state": "present", "skip_duplicate_weights": True, "update": False, "repair": True, "fetch": True,
            "allow_root_filesystem": True, "space_margin": 5, "workers": 1, "attempts": attempts, "retry_delay": 0,
            "check_mode": False,
        }  # fmt: skip
        request = {"source": "modelscope", "model": "org/name", "revision": None, "include": [], "exclude": []}
        return snapshots.Snapshot(places, source, request, options, snapshots.Progress(None)).ensure()

    run.directory = tmp_path / "models/name"
    run.staging = tmp_path / "models/.name.staging"
    return run


def published(run):
    return sorted(str(p.relative_to(run.directory)) for p in run.directory.rglob("*"))


def test_only_what_was_listed_is_published(run):
    run(
        f"{GOOD}; echo x > more.txt; mkdir -p sub empty .cache; echo x > sub/more; echo x > .cache/y; ln -s /etc/passwd l;"
        "mkfifo pipe; chmod 6777 w.bin; echo x > .model-manifest.json; chmod 600 config.json"
    )
    assert published(run) == [".model-manifest.json", "config.json", "w.bin"]
    assert stat.S_IMODE((run.directory / "w.bin").stat().st_mode) == 0o644
    assert stat.S_IMODE((run.directory / "config.json").stat().st_mode) == 0o644
    assert stat.S_IMODE(run.directory.stat().st_mode) == 0o755


@pytest.mark.parametrize(
    "instead",
    [
        "ln -s /etc/hostname w.bin",
        "printf hello > x; ln -s x w.bin; rm x",
        "mkfifo w.bin",
        "mkdir w.bin",
        "printf hellO > w.bin",
        "printf hell > w.bin",
        "printf hellohello > w.bin",
    ],
)
def test_what_is_not_the_listed_file_is_set_aside(run, instead):
    with pytest.raises(SnapshotError, match=r"1 of 2 files .* missing: w\.bin"):
        run(f"printf '{{}}' > config.json; {instead}")
    assert not run.directory.exists()
    assert not os.path.lexists(run.staging / "w.bin") or (run.staging / "w.bin").is_dir()
    run(GOOD)
    assert published(run) == [".model-manifest.json", "config.json", "w.bin"]


@pytest.mark.skipif(not _confinement.is_available(), reason="this kernel cannot keep a process inside directories")
@pytest.mark.parametrize(
    "way", ["echo x > {0}/f", "mkdir {0}/d", "ln -s x {0}/l", "rm {0}/mine", "(: > {0}/mine)", "mv w.bin {0}/"]
)
def test_a_client_writes_nowhere_else(run, tmp_path, way):
    """As `hf` can be made to by an ETag that is a path."""
    (tmp_path / "mine").write_text("mine")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(SnapshotError, match="ended with 9"):
        run(f"{GOOD}; printf hellO > w.bin; {way.format(tmp_path)} || exit 9")
    assert sorted({*os.listdir(tmp_path)} - {"prefix", "models"}) == sorted({*before} - {"prefix", "models"})
    assert (tmp_path / "mine").read_text() == "mine"
    run(f"{GOOD}; echo x > $HOME/f && mv $HOME/f $TMPDIR/g && echo x > /dev/null")


def test_a_file_without_end_is_cut(run, monkeypatch):
    monkeypatch.setattr(sources, "_CLIENT_EXTRA", 2 * 1024 * 1024)
    with pytest.raises(SnapshotError, match=r"modelscope ended with|more than it lists"):
        run("cat /dev/zero > w.bin")
    assert (run.directory.parent / ".name.quarantine/w.bin").stat().st_size <= 2 * 1024 * 1024


def test_files_without_end_are_cut(run, monkeypatch):
    """Each of them short enough, but more and more of them."""
    monkeypatch.setattr(sources, "_CLIENT_EXTRA", 1024 * 1024)
    began = time.monotonic()
    with pytest.raises(SnapshotError, match=r"more than it lists .* was stopped"):
        run("n=0; while :; do n=$((n+1)); head -c 300000 /dev/zero > more.$n; sleep 0.05; done", attempts=3)
    assert time.monotonic() - began < 20


def test_a_client_that_takes_the_memory_is_stopped(run, monkeypatch):
    monkeypatch.setattr(sources, "_memory_of", lambda pid: 2**60)
    with pytest.raises(SnapshotError, match="of memory for what the hub sent"):
        run("sleep 60")


def test_a_client_to_which_the_hub_drips_is_stopped(run):
    began = time.monotonic()
    with pytest.raises(SnapshotError, match=r"sent .* for 2 s \(stall_timeout\)"):
        run("while :; do printf x >> w.bin.incomplete; sleep 0.2; done", stall_timeout=2)
    assert time.monotonic() - began < 12


def test_what_a_client_says_is_shown_without_the_token_and_on_one_line(run):
    with pytest.raises(SnapshotError) as error:
        run("printf 'error: the-token \\033[2J\\033]0;x\\007 \\342\\200\\256 failed'; exit 3")
    assert "the-token" not in str(error.value)
    assert str(error.value).isprintable()
    with pytest.raises(SnapshotError, match="ended with 3") as error:
        run("head -c 3000000 /dev/zero | tr '\\0' e; exit 3")
    assert len(str(error.value)) < 1500
