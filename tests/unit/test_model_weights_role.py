"""The role on a host and the controller, with a hub and its client: who sees what, and what lies where afterwards.

The hub is the stand-in, the client a script; everything else is real, the share between the two included.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stand_ins.model_hub import Hub
from stand_ins.openai_server import free_port

from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_snapshot as snapshots
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_sources import LocalSource

TOKEN = "hub-token-that-nobody-may-see"
CLIENT = """#!{python} -S
import os, sys, urllib.parse, urllib.request
given = [a.partition("=") for a in sys.argv[1:] if a.startswith("--")]
directory = [value for key, _, value in given if key == "--local-dir"][0]
for path in [value for key, _, value in given if key == "--include"]:
    url = os.environ["MODELSCOPE_ENDPOINT"] + "/api/v1/models/org/name/repo?FilePath=" + urllib.parse.quote(path)
    asked = urllib.request.Request(url, headers={{"Authorization": "Bearer " + os.environ["MODELSCOPE_API_TOKEN"]}})
    target = os.path.join(directory, path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "wb") as file:
        file.write(urllib.request.urlopen(asked).read())
    os.chmod(target, 0o4777)
"""
# A secret as the role draws one, in an output that knows no other word of this length.
DRAWN = re.compile(r"(?<![A-Za-z0-9])(?=[a-f0-9]*[g-zG-Z])[A-Za-z0-9]{40}(?![A-Za-z0-9])")


@pytest.fixture
def hub(tmp_path):
    model = tmp_path / "hub/org/name/sub"
    model.mkdir(parents=True)
    (model.parent / "config.json").write_text("{}")
    (model.parent / "model.safetensors").write_bytes(os.urandom(5000))
    (model / "t.txt").write_text("t")
    hub = Hub(tmp_path / "hub")
    threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield hub
    hub.stopped.set()
    hub.shutdown()
    hub.server_close()


def files_of(directory):
    """{path: content}, without the manifest, which says when it was written."""
    found = {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    return {path: content for path, content in found.items() if path != snapshots.MANIFEST_NAME}


def publish(source, directory):
    directory.parent.mkdir(parents=True)
    request = {"source": "modelscope", "model": "org/name", "revision": None, "include": [], "exclude": []}
    options = {
        "state": "present", "skip_duplicate_weights": True, "update": False, "repair": True, "fetch": True,
        "allow_root_filesystem": True, "space_margin": 5, "workers": 1, "attempts": 1, "retry_delay": 0,
        "check_mode": False,
    }  # fmt: skip
    places = snapshots.Places(str(directory))
    snapshots.Snapshot(places, LocalSource(str(source)), request, options, snapshots.Progress(None)).ensure()


def test_verified_fetched_by_the_controller_passed_on_and_removed(stage, hub, tmp_path):
    """The host's copy has a damage that only reading shows, and nobody else has the model yet."""
    prefix = tmp_path / "prefix"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/modelscope").write_text(CLIENT.format(python=sys.executable))
    (prefix / "bin/modelscope").chmod(0o755)
    host = stage.host("gpu1")
    directory, controllers = host.directory / "data/models/org/name", tmp_path / "controller"
    variables = {
        "model_weights_models": [{"model": "org/name"}],
        "model_weights_modelscope_endpoint": hub.url,
        "model_weights_modelscope_token": TOKEN,
        "model_weights_client_method": "existing",
        "model_weights_client_prefix": str(prefix),
        "model_weights_allow_root_filesystem": True,
        "model_weights_seed": "localhost",
        "model_weights_controller_directory": str(controllers),
        "model_weights_controller_address": "127.0.0.1",
        "model_weights_fan_out_port": free_port(),
        "model_weights_progress_interval": 1,
    }

    publish(tmp_path / "hub/org/name", directory)
    first = files_of(directory)
    victim = directory / "model.safetensors"
    times = victim.stat()
    victim.write_bytes(b"x" * 5000)
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    (directory / "notes").write_text("mine")
    kept = tmp_path / "kept"
    plays = [
        {**stage.role("model_weights"), "vars": {"model_weights_state": "verified"}},
        [{"ansible.builtin.shell": f"cp -a {directory} {kept}; mkdir {directory.parent}/other"}],
        {**stage.role("model_weights"), "vars": {"model_weights_state": "absent"}},
    ]
    played = stage.play(*plays, arguments=["-vvv", "--diff"], **variables)
    assert played.ok, played.output
    assert TOKEN not in played.output
    assert not DRAWN.search(played.output), DRAWN.search(played.output)

    # the controller had every byte once from the hub, and published it for all to read, whatever the client made of it
    assert hub.tokens == {TOKEN}
    assert dict(hub.requests) == dict.fromkeys(hub.files("org/name"), 1)
    copy = controllers / str(directory)[1:]
    assert files_of(copy) == files_of(tmp_path / "hub/org/name")
    assert {stat.S_IMODE(p.stat().st_mode) for p in copy.rglob("*") if p.is_file()} == {0o644}
    assert {stat.S_IMODE(p.stat().st_mode) for p in (copy, copy / "sub")} == {0o755}

    # the host was given what was damaged, and kept the rest
    assert files_of(kept) == {**first, "notes": b"mine"}
    assert stat.S_IMODE((kept / "model.safetensors").stat().st_mode) == 0o644

    # what belonged to the model is gone, and nothing else
    assert os.listdir(directory.parent) == ["other"]
