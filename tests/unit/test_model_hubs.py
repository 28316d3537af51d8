"""model_snapshot and the hubs' real clients against a stand-in hub that misbehaves.

After each mishap: no published directory is incomplete, nothing good is fetched twice, the message says what happened.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import hub_clients
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from stand_ins.model_hub import Hub

from ansible_collections.inferops.gpu_host.plugins.module_utils._model_manifest import MANIFEST_NAME
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_snapshot import (
    bytes_on_disk,
    files_below,
)

pytestmark = pytest.mark.slow
MIB = 1024 * 1024
TOKEN = "token-that-nobody-may-see"
HUBS = ["modelscope", "huggingface"]
# hf writes in chunks of 10 MiB, so that an unfinished one comes twice.
SLACK = {"modelscope": MIB, "huggingface": 10 * MIB}
# What the kernel still holds for a client that dies is lost with it, and the more the busier the machine is.
IN_FLIGHT = 8 * MIB


@pytest.fixture(scope="module")
def clients():
    return hub_clients.prefix()


@pytest.fixture
def hub(tmp_path):
    model = tmp_path / "hub/org/name"
    (model / "sub").mkdir(parents=True)
    (model / "config.json").write_text('{"model_type": "test"}')
    (model / "sub/tokenizer.json").write_text("{}")
    for number, size in ((1, 4), (2, 24), (3, 4)):
        (model / f"model-{number}.safetensors").write_bytes(os.urandom(size * MIB + number))
    hub = Hub(tmp_path / "hub")
    hub.model = model
    hub.size = sum(p.stat().st_size for p in model.rglob("*") if p.is_file())
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    yield hub
    hub.stopped.set()
    hub.shutdown()


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "models/org/name"


@pytest.fixture
def start(hub, clients, directory):
    """Starts the module as Ansible would, in a process of its own."""

    def start(source="modelscope", **changes):
        args = {
            "source": source,
            "model": "org/name",
            "directory": str(directory),
            "endpoint": hub.url,
            "client_prefix": str(clients),
            "allow_root_filesystem": True,
            "retry_delay": 0,
            **changes,
        }
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "plugins/modules/model_snapshot.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "collections")},
        )
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": args}))
        process.stdin.close()
        process.stdin = None
        return process

    return start


def outcome(process):
    return json.loads(process.communicate(timeout=120)[0])


@pytest.fixture
def run(start):
    return lambda *args, **changes: outcome(start(*args, **changes))


def await_that(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def whole(hub, directory):
    published = {p: (directory / p).read_bytes() for p in files_below(str(directory))}
    offered = {p: (hub.model / p).read_bytes() for p in files_below(str(hub.model))}
    return published == offered and (directory / MANIFEST_NAME).exists()


def sent(hub):
    return sum(hub.bytes.values())


@pytest.mark.parametrize("source", HUBS)
def test_a_download_and_the_run_after_it(hub, run, directory, source):
    result = run(source, token=TOKEN)
    assert result["changed"], result
    assert result["verified"]
    assert whole(hub, directory)
    assert sent(hub) == hub.size
    assert result["manifest"]["resolved_revision"] == (hub.commit("org/name") if source == "huggingface" else None)
    assert sorted(os.listdir(directory.parent)) == [".name.lock", ".name.progress.json", "name"]
    before = dict(hub.answers)
    again = run(source, state="verified", token=TOKEN)
    assert (again["changed"], again["verified"]) == (False, True)
    assert hub.answers == before


@pytest.mark.parametrize("source", HUBS)
def test_a_token_reaches_the_hub_and_nobody_else(hub, start, directory, source):
    hub.misbehave("slow", "model-1*", 3 * MIB)
    process = start(source, token=TOKEN)
    seen = []
    while process.poll() is None and len(seen) < 20:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.append(entry.read_bytes())
            except OSError:
                continue
        if any(b"org/name" in line and b"download" in line for line in seen):
            break
        seen = []
    assert any(b"org/name" in line for line in seen)
    assert not any(TOKEN.encode() in line for line in seen)
    text = process.communicate(timeout=60)[0]
    assert TOKEN not in text
    assert hub.tokens == {TOKEN}
    assert not any(TOKEN.encode() in p.read_bytes() for p in directory.parent.rglob("*") if p.is_file())


@pytest.mark.parametrize("source", HUBS)
def test_a_connection_cut_at_70_percent(hub, run, directory, source):
    hub.misbehave("cut", "model-2.safetensors", 0.7, times=1)
    assert run(source)["changed"]
    assert whole(hub, directory)
    assert sent(hub) < hub.size + SLACK[source]


@pytest.mark.parametrize("source", HUBS)
def test_a_connection_that_is_always_cut(hub, run, directory, source):
    hub.misbehave("cut", "model-2.safetensors", 0.7)
    failed = run(source, attempts=1)
    assert "4 of 5 files" in failed["msg"]
    assert "missing: model-2.safetensors" in failed["msg"]
    assert not directory.exists()
    hub.reset()
    assert run(source)["changed"]
    assert whole(hub, directory)
    assert sent(hub) < 0.31 * 24 * MIB + SLACK[source]  # only what was missing of the one file


@pytest.mark.parametrize("source", HUBS)
def test_a_slow_hub_is_waited_for(hub, run, directory, source):
    hub.misbehave("slow", "model-1.safetensors", MIB // 2)
    patience = {"modelscope": 5, "huggingface": 12}  # hf writes nothing before 10 MiB or the end are there
    assert run(source, stall_timeout=patience[source])["changed"]  # it takes 8 s, but something comes all the time
    assert whole(hub, directory)
    assert sent(hub) == hub.size


@pytest.mark.parametrize("source", HUBS)
@pytest.mark.parametrize("code", [404, 429])
def test_a_file_that_the_hub_refuses(hub, run, directory, source, code):
    hub.misbehave("status", "model-1.safetensors", code)
    failed = run(source, attempts=1)
    assert "missing: model-1.safetensors" in failed["msg"]
    assert str(code) in failed["msg"]
    assert not directory.exists()
    hub.rules.clear()
    assert run(source)["changed"]
    assert whole(hub, directory)
    assert sent(hub) == hub.size


@pytest.mark.parametrize("source", HUBS)
def test_wrong_bytes(hub, run, directory, source):
    hub.misbehave("wrong", "model-2.safetensors")
    failed = run(source, attempts=2)
    assert "missing: model-2.safetensors" in failed["msg"]
    assert not directory.exists()
    good = sent(hub) - hub.bytes["model-2.safetensors"]
    assert good == hub.size - (24 * MIB + 2)
    hub.reset()
    assert run(source)["changed"]
    assert whole(hub, directory)
    assert set(hub.bytes) == {"model-2.safetensors"}


@pytest.mark.parametrize("source", HUBS)
def test_what_the_hub_does_not_have(run, directory, source):
    failed = run(source, model="org/unknown")
    assert "knows no org/unknown at revision" in failed["msg"]
    assert "HTTP 404" in failed["msg"]
    assert set(os.listdir(directory.parent)) == {".name.lock", ".name.progress.json"}


@pytest.mark.parametrize("source", HUBS)
def test_a_hub_that_asks_to_wait(hub, run, directory, source):
    hub.misbehave("status", "listing", 429, times=1)
    hub.misbehave("status", "model-1.safetensors", 429, times=1)
    assert run(source)["changed"]
    assert whole(hub, directory)
    assert hub.answers[429] == 2
    assert sent(hub) == hub.size


def test_a_private_model(hub, run):
    hub.misbehave("status", "listing", 403)
    assert "needs a token" in run()["msg"]
    assert "the token does not open it" in run(token=TOKEN)["msg"]


@pytest.mark.parametrize("source", HUBS)
def test_a_listing_without_hashes(hub, run, directory, source):
    hub.misbehave("nohash")
    result = run(source)
    assert "5 files could only be checked by size" in result["msg"]
    assert len(result["size_only"]) == 5
    assert whole(hub, directory)
    assert all(len(file["sha256"]) == 64 for file in result["manifest"]["files"])


@pytest.mark.parametrize("source", HUBS)
def test_a_hub_that_sends_nothing_more(hub, run, directory, source):
    hub.misbehave("stall", "model-2.safetensors", 0.6, times=1)
    assert run(source, stall_timeout=5)["changed"]
    assert whole(hub, directory)
    assert sent(hub) < hub.size + SLACK[source]


@pytest.mark.parametrize("source", HUBS)
def test_killed_in_the_middle(hub, start, run, directory, source):
    hub.misbehave("slow", "model-2.safetensors", 6 * MIB)
    process = start(source)
    await_that(lambda: hub.bytes["model-2.safetensors"] > 15 * MIB)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not directory.exists()
    await_that(lambda: not clients_of(directory))
    hub.rules.clear()
    result = run(source)
    assert result["changed"], result
    assert result["reused_bytes"] > 9 * MIB
    assert result["reused_bytes"] + result["downloaded_bytes"] == hub.size
    assert whole(hub, directory)
    assert sent(hub) < hub.size + SLACK[source] + IN_FLIGHT


def clients_of(directory):
    """Processes whose command line names the model's staging directory."""
    name = f".{directory.name}.staging".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(directory.parent).encode() in entry.read_bytes() and name in entry.read_bytes():
                found.append(entry)
        except OSError:
            continue
    return found


def test_two_at_once(hub, start, directory):
    hub.misbehave("slow", "model-1.safetensors", 4 * MIB)
    first, second = start(), start()
    results = [outcome(first), outcome(second)]
    assert sorted(result["changed"] for result in results) == [False, True]
    assert whole(hub, directory)
    assert sent(hub) == hub.size


def test_the_second_does_not_wait_for_ever(hub, start, directory):
    hub.misbehave("slow", "model-1.safetensors", MIB // 2)
    first = start()
    await_that(lambda: hub.bytes["model-1.safetensors"])
    assert f"process {first.pid}" in outcome(start(lock_timeout=0))["msg"]
    assert outcome(first)["changed"]


@pytest.mark.parametrize("source", HUBS)
def test_the_disk_fills_up(hub, start, run, tmp_path, source):
    disk = tmp_path / "disk"
    disk.mkdir()
    image = tmp_path / "image"
    with image.open("wb") as handle:
        handle.truncate(80 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    mounted = subprocess.run(
        ["mount", "-o", "loop", str(image), str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount here: {mounted.stderr.strip()}")
    try:
        directory = disk / "models/org/name"
        hub.misbehave("slow", "model-2.safetensors", 4 * MIB)
        process = start(source, directory=str(directory), allow_root_filesystem=False)
        await_that(lambda: hub.bytes["model-2.safetensors"] > 2 * MIB)
        fill(disk / "filler")
        failed = outcome(process)
        assert "the disk is full" in failed["msg"]
        assert not directory.exists()
        refused = run(source, directory=str(directory), allow_root_filesystem=False)
        assert "not enough space" in refused["msg"]
        (disk / "filler").unlink()
        hub.rules.clear()
        assert run(source, directory=str(directory), allow_root_filesystem=False)["changed"]
        assert whole(hub, directory)
        assert sent(hub) < hub.size + SLACK[source] + IN_FLIGHT
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(path):
    """Write until the disk has no byte left."""
    with path.open("wb", buffering=0) as handle:
        for size in (MIB, 4096):
            with contextlib.suppress(OSError):
                while True:
                    handle.write(b"x" * size)


@pytest.mark.parametrize("source", HUBS)
def test_a_file_truncated_afterwards(hub, run, directory, source):
    run(source)
    hub.reset()
    with (directory / "model-3.safetensors").open("r+b") as handle:
        handle.truncate(MIB)
    result = run(source)
    assert result["quarantined"] == ["model-3.safetensors"]
    assert whole(hub, directory)
    assert set(hub.bytes) == {"model-3.safetensors"}


@pytest.mark.parametrize("source", HUBS)
def test_a_model_updated_at_the_hub(hub, run, directory, source):
    first = run(source)
    hub.reset()
    (hub.model / "model-1.safetensors").write_bytes(os.urandom(MIB))
    assert not run(source)["changed"]
    assert not hub.answers
    second = run(source, update=True)
    assert second["changed"]
    assert whole(hub, directory)
    assert set(hub.bytes) == {"model-1.safetensors"}
    assert first["manifest"]["content_digest"] != second["manifest"]["content_digest"]
    assert not run(source, update=True)["changed"]


def test_a_model_updated_during_the_download(hub, start, directory):
    hub.misbehave("slow", "model-1.safetensors", 2 * MIB)
    process = start(max_workers=1)
    await_that(lambda: hub.bytes["model-1.safetensors"])
    (hub.model / "model-3.safetensors").write_bytes(os.urandom(4 * MIB + 3))
    hub.rules.clear()
    result = outcome(process)
    assert result["changed"], result
    assert whole(hub, directory)


def test_a_directory_filled_by_hand(hub, run, directory):
    shutil.copytree(hub.model, directory)
    (directory / "model-2.safetensors").unlink()
    assert run()["changed"]
    assert whole(hub, directory)
    assert set(hub.bytes) == {"model-2.safetensors"}


def test_a_client_that_is_not_there(run, tmp_path):
    failed = run(client_prefix=str(tmp_path / "nothing"))
    assert "client_prefix must name the environment" in failed["msg"]


def test_progress_while_it_downloads(hub, start, directory):
    hub.misbehave("slow", "*.safetensors", 2 * MIB)
    process = start()
    file = directory.parent / ".name.progress.json"
    await_that(lambda: file.exists() and json.loads(file.read_text())["bytes"] > 3 * MIB)
    figures = json.loads(file.read_text())
    assert (figures["state"], figures["total"]) == ("downloading", hub.size)
    assert 0 < figures["percent"] < 100
    hub.rules.clear()
    hub.stopped.set()
    assert outcome(process)["changed"]
    assert json.loads(file.read_text())["state"] == "done"
    assert bytes_on_disk(str(directory)) > hub.size


# a hub that is an enemy


@pytest.mark.parametrize("source", HUBS)
def test_names_that_are_patterns(hub, run, directory, source):
    for name in (
        "a[1].json",
        "a1.json",
        "b*c.txt",
        "sp ace.json",
        "x?y",
        "=x",
        "[!a]",
        "#x",
        "sub/a.*b",
        "-".join("äß"),
    ):
        (hub.model / name).write_text(f"this is {name}")
    result = run(source, exclude=["a1.json"])
    assert result["changed"], result
    (hub.model / "a1.json").unlink()
    assert whole(hub, directory)
    assert set(hub.bytes) == set(hub.files("org/name"))


@pytest.mark.parametrize("source", HUBS)
def test_a_name_that_is_an_option(hub, run, tmp_path, directory, source):
    evil = {"path": f"--local-dir={tmp_path}/evil", "size": 1, "sha256": "a" * 64}
    hub.misbehave("listed", "listing", [evil])
    assert "could be taken for an option" in run(source)["msg"]
    assert sent(hub) == 0
    assert not (tmp_path / "evil").exists()
    assert run(source, exclude=["--*"])["changed"]


@pytest.mark.parametrize("source", HUBS)
def test_another_list_for_the_client(hub, run, tmp_path, directory, source):
    """Ours is honest; the one that the client is shown has more files, in other places."""
    evil = [
        {"path": path, "size": 5, "sha256": "a" * 64} for path in ("../../evil", f"{tmp_path}/evil", "more.txt", "-x")
    ]
    hub.misbehave("listed", "listing", evil, after=1)
    assert run(source)["changed"]
    assert whole(hub, directory)
    assert not list(tmp_path.rglob("evil"))
    assert set(hub.bytes) == set(hub.files("org/name"))


@pytest.mark.parametrize("source", HUBS)
@pytest.mark.parametrize("length", [{}, {"Content-Length": str(2**40)}])
def test_a_file_without_end(hub, run, directory, source, length):
    header = {"ETag": '"x"', "X-Repo-Commit": hub.commit("org/name"), **length}
    hub.misbehave("answer", "model-1.safetensors", {"repeat": "x", "headers": header})
    failed = run(source, attempts=2)
    assert "missing: model-1.safetensors" in failed["msg"]
    assert bytes_on_disk(str(directory.parent)) < hub.size + 100 * MIB
    assert not directory.exists()


def test_an_etag_that_is_a_path(hub, run, tmp_path, directory):
    """`hf` makes a file name of it, and a directory for each name that is listed."""
    commit = {"X-Repo-Commit": hub.commit("org/name"), "X-Linked-Size": "24"}
    for depth in (3, 6, 9):
        etag = f'"x/{"../" * depth}evil"'
        hub.misbehave("answer", "config.json", {"body": "x" * 24, "headers": {"ETag": etag, **commit}})
        assert "missing: config.json" in run("huggingface", attempts=1)["msg"]
        hub.rules.clear()
    assert not [p for p in tmp_path.rglob("*evil*") if ".name." not in str(p)]
    assert run("huggingface")["changed"]


# a plain mirror, and another host of the fleet


@pytest.mark.parametrize(
    "answer",
    [
        {"repeat": "x"},
        {"body": "x" * 5 * MIB},
        {"code": 302, "headers": {"Location": "file:///etc/passwd"}},
        {"code": 206, "body": "x", "headers": {"Content-Range": "bytes 0-0/-1"}},
    ],
    ids=["endless", "longer", "to a file", "odd range"],
)
def test_a_mirror_that_sends_something_else(hub, run, directory, answer):
    manifest = run()["manifest"]
    copy = directory.parent / "copy"
    hub.misbehave("answer", "model-1.safetensors", answer)
    failed = run("url", url=f"{hub.url}/mirror/org/name", directory=str(copy), manifest=manifest, attempts=2)
    assert "4 of 5 files" in failed["msg"]
    assert f"{hub.url}/mirror/org/name" in failed["msg"]
    assert bytes_on_disk(str(copy.parent)) < 3 * hub.size


def test_a_mirror_with_sha256sums(hub, run, directory):
    url = f"{hub.url}/mirror/org/name"
    assert "neither .model-manifest.json nor SHA256SUMS" in run("url", url=url)["msg"]
    sums = "".join(f"{hub.hash_of(full)[0]}  {path}\n" for path, full in hub.files("org/name").items())
    (hub.model / "SHA256SUMS").write_text(sums)
    hub.reset()
    hub.misbehave("cut", "model-2.safetensors", 0.7, times=1)
    hub.misbehave("status", "model-1.safetensors", 429, times=1)
    assert run("url", url=url)["changed"]
    (hub.model / "SHA256SUMS").unlink()
    assert whole(hub, directory)
    hub.bytes.pop("SHA256SUMS")
    assert sent(hub) == hub.size


def test_a_copy_of_another_host_has_the_same_manifest(hub, run, directory, tmp_path):
    seed = run()
    hub.reset()
    copy = tmp_path / "other/org/name"
    hub.misbehave("wrong", "model-2.safetensors", times=1)
    url = f"{hub.url}/mirror/org/name"
    result = run("url", url=url, directory=str(copy), manifest=seed["manifest"])
    assert result["changed"]
    assert result["quarantined"] == ["model-2.safetensors"]
    assert (copy / MANIFEST_NAME).read_bytes() == (directory / MANIFEST_NAME).read_bytes()
    assert not run("modelscope", directory=str(copy))["changed"]
