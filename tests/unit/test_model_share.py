from __future__ import annotations

import http.client
import socket
import threading

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_manifest as manifests
from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_share as shares
from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_snapshot as snapshots


@pytest.fixture
def model(tmp_path):
    """Makes a published model with one file; returns its directory."""

    def make(name, content):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "weights").write_bytes(content)
        (directory / "secret").write_text("not in the manifest")
        entries = [manifests.FileEntry("weights", len(content), snapshots.hash_file(str(directory), "weights")[0])]
        manifest = manifests.build(entries, "local", name, None, None, [], [], "now")
        (directory / manifests.MANIFEST_NAME).write_text(manifests.dump(manifest))
        return str(directory)

    return make


@pytest.fixture
def offer(tmp_path):
    """Offers a directory on one port, as the module does; returns the port and the server that did not join another."""
    servers = []

    def offer(directory, token, **changes):
        port = servers[0].server_address[1] if servers else 0
        secret = str(tmp_path / "cache/share")
        given = {"limit_rate": 0, "seconds": 60, "secret_path": secret, "patience": 0, **changes}
        server = shares.share(("127.0.0.1", port), token, directory, **given)
        if server:
            servers.append(server)
            server.thread = threading.Thread(target=server.run, daemon=True)
            server.thread.start()
        return servers[0].server_address[1], server

    yield offer
    for server in servers:
        server.shutdown()


def ask(port, path, token, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={"Authorization": f"Bearer {token}", **headers})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_what_the_manifest_names_for_who_knows_the_token(model, offer):
    port, _server = offer(model("a", b"0123456789"), "t")
    assert ask(port, "/", "t") == (204, b"")
    assert ask(port, "/weights", "t") == (200, b"0123456789")
    assert ask(port, "/weights", "t", Range="bytes=7-") == (206, b"789")
    assert ask(port, "/weights", "t", Range="bytes=10-")[0] == 416
    for path in ("/secret", "/../a/weights", "/.model-manifest.json"):
        assert ask(port, path, "t")[0] == 404
    for path in ("/", "/weights"):
        assert ask(port, path, "other")[0] == 403


def test_a_second_offer_joins_the_server_that_has_the_port(model, offer):
    port, first = offer(model("a", b"aaa"), "ta")
    _port, second = offer(model("b", b"bbb"), "tb")
    assert second is None
    assert (ask(port, "/weights", "ta"), ask(port, "/weights", "tb")) == ((200, b"aaa"), (200, b"bbb"))
    assert ask(port, "/join", "ta", "POST")[0] == 403
    assert ask(port, "/stop", "ta", "POST")[0] == 204
    assert ask(port, "/weights", "ta")[0] == 403
    assert ask(port, "/weights", "tb") == (200, b"bbb")  # who ends his offer does not end that of another
    assert ask(port, "/stop", "tb", "POST")[0] == 204
    first.thread.join(10)
    assert not first.thread.is_alive()


def test_an_offer_ends_with_its_time(model, offer):
    _port, server = offer(model("a", b"aaa"), "t", seconds=0)
    server.thread.join(10)
    assert not server.thread.is_alive()


def test_a_port_that_somebody_else_has(model, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        secret = str(tmp_path / "none")
        shares.share(taken.getsockname(), "t", model("a", b"aaa"), 0, 60, secret, patience=0)
