"""What the docker role gives back, and what apt is left with when a repository cannot be used: on layers over this machine's
/etc and /var, with its own apt and dpkg and a stand-in engine."""

from __future__ import annotations

import json
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from engine_play import play
from test_package_record import package

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("apt-get"), reason="needs apt")]

RECORD = "/etc/inferops/docker-engine.json"
REMOVE = {"ansible.builtin.include_role": {"name": "inferops.gpu_host.docker", "tasks_from": "remove"}}
OURS = {"log-driver": "json-file", "dns": ["10.0.0.2"]}
MEMORY = {
    "owners": {"docker": [["log-driver"]], "nvidia_container_toolkit": [["runtimes", "nvidia", "path"]]},
    "found": [{"path": ["log-driver"], "text": '"journald"'}],
}


def run(command):
    return {"ansible.builtin.raw": command}


def told(base, name):
    return (base / "etc/told" / name).read_text().split()


def test_an_engine_that_was_there_runs_on_with_the_file_it_had(tmp_path):
    config = {**OURS, "runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}
    tasks = [
        run("mkdir /etc/told; cat /run/docker.pid >/etc/told/before"),
        {"ansible.builtin.copy": {"dest": "/etc/docker/daemon.json.managed", "content": json.dumps(MEMORY)}},
        REMOVE,
        run("cat /run/docker.pid >/etc/told/after; ls -A /etc/docker >/etc/told/files"),
    ]
    code, output = play(tmp_path, tasks, daemon_json=json.dumps(config))
    assert code == 0, output
    assert "stays: it was here before" in output
    assert told(tmp_path, "before") == told(tmp_path, "after")
    assert json.loads((tmp_path / "etc/docker/daemon.json").read_text()) == {**OURS, "log-driver": "journald"}
    assert told(tmp_path, "files") == ["daemon.json"]


def test_an_engine_of_ours_goes_and_what_others_put_beside_it_stays(tmp_path):
    debs = tmp_path / "debs"
    engine, containerd = package(debs, "docker-engine", "containerd.io"), package(debs, "containerd.io")
    tasks = [
        run(f"mkdir /etc/told /etc/inferops; dpkg --force-all --install {engine} {containerd}"),
        run(f"""echo '{{"came": ["docker-engine", "containerd.io"]}}' >{RECORD}; apt-mark auto containerd.io"""),
        run(
            "mkdir -p /etc/docker/certs.d/r /var/lib/docker/image/overlay2 /var/lib/docker/models /var/lib/containerd/io"
        ),
        run("mkdir -p /var/lib/docker/volumes && touch /var/lib/docker/nuke-graph-directory.sh /etc/docker/key.json"),
        REMOVE,
        run("ls -A /etc/docker >/etc/told/config; ls -A /var/lib/docker >/etc/told/data; ls -d /var/lib/containerd/io"),
        run(
            "dpkg-query --show docker-engine containerd.io >/etc/told/packages; apt-mark showmanual containerd.io >/etc/told/manual"
        ),
        REMOVE,
    ]
    tasks[-2]["failed_when"] = False
    code, output = play(tmp_path, tasks)
    assert code == 0, output
    assert told(tmp_path, "config") == ["certs.d"]
    assert told(tmp_path, "data") == ["models", "nuke-graph-directory.sh"]
    # This containerd does not say whom it serves, so it stays, and is not taken for a leftover either.
    assert told(tmp_path, "packages") == ["containerd.io", "1"]
    assert told(tmp_path, "manual") == ["containerd.io"]
    assert not (tmp_path / "etc/inferops/docker-engine.json").exists()


def test_an_engine_of_ours_that_holds_something_stays(tmp_path):
    debs = tmp_path / "debs"
    tasks = [
        run(f"mkdir /etc/inferops; dpkg --force-all --install {package(debs, 'docker-engine')}"),
        run(f"""echo '{{"came": ["docker-engine"]}}' >{RECORD}; mkdir -p /var/lib/docker/volumes/theirs/_data"""),
        REMOVE,
    ]
    code, output = play(tmp_path, tasks)
    assert code == 0, output
    assert "stays: it holds 0 containers, 0 images and 1 volumes of others" in " ".join(output.split())
    assert json.loads((tmp_path / "etc/inferops/docker-engine.json").read_text()) == {"came": ["docker-engine"]}


def test_a_repository_that_cannot_be_used_changes_nothing(tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "portal").write_text("<html>Sign in to the network</html>")
    (site / "key").write_text("-----BEGIN PGP PUBLIC KEY BLOCK-----\nx\n")
    theirs = "deb [signed-by=/gone] {url}/linux/debian bookworm stable\n"
    handler = partial(SimpleHTTPRequestHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"

        def enter(key, words):
            source = {"name": "trial", "uris": [url + "/linux/debian"], "suite": "bookworm", "components": ["stable"]}
            return {
                "inferops.gpu_host.apt_source": {**source, "key_url": f"{url}/{key}"},
                "register": "entered",
                "failed_when": f"entered is not failed or entered.msg is not search('{words}')",
            }

        tasks = [
            {
                "ansible.builtin.copy": {
                    "dest": "/etc/apt/sources.list.d/theirs.list",
                    "content": theirs.format(url=url),
                }
            },
            run("mkdir /etc/told; find /etc/apt | xargs ls -ld >/etc/told/before"),
            enter("nothing", "cannot be fetched"),
            enter("portal", "no signing key; it begins with .<html>"),
            enter("key", "cannot use this repository, which was not entered"),
            run("find /etc/apt | xargs ls -ld >/etc/told/after"),
        ]
        code, output = play(tmp_path, tasks)
        server.shutdown()
    assert code == 0, output
    assert told(tmp_path, "before") == told(tmp_path, "after")
    assert (tmp_path / "etc/apt/sources.list.d/theirs.list").read_text() == theirs.format(url=url)
