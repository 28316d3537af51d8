"""The share between hosts: who gets what, who is believed, and when it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import stat
import tempfile
import threading
import time

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_manifest as manifests
from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_share as shares
from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_share_control as control
from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_snapshot as snapshots
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_share_source import ShareSource
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_snapshot import FetchError, SnapshotError

SECRET = "the secret of these copies"


@pytest.fixture
def model(tmp_path):
    """Makes a published model with these files; returns its directory."""

    def make(name, **files):
        directory = tmp_path / name
        directory.mkdir()
        for path, content in {"secret": b"not in the manifest", **files}.items():
            (directory / path).write_bytes(content)
        entries = [
            manifests.FileEntry(path, len(content), snapshots.hash_file(str(directory), path)[0])
            for path, content in files.items()
        ]
        manifest = manifests.build(entries, "local", name, None, None, [], [], "now")
        (directory / manifests.MANIFEST_NAME).write_text(manifests.dump(manifest))
        return directory

    return make


@pytest.fixture
def offer():
    """Offers a directory on one port, as the module does; returns the port and the server that did not join another."""
    servers, place = [], tempfile.mkdtemp(prefix="share-")

    def offer(directory, secret=SECRET, seconds=60, idle=60, limit_rate=0, patience=0):
        port = servers[0].server_address[1] if servers else 0
        offered = shares.Offer(secret, str(directory), limit_rate, seconds, idle)
        server = control.share(("127.0.0.1", port), offered, offer.control, patience)
        if server:
            servers.append(server)
            server.thread = threading.Thread(target=server.run, daemon=True)
            server.thread.start()
        return servers[0].server_address[1], server

    offer.control = control.control_path(f"{place}/shares", 1)
    yield offer
    for server in servers:
        server.shutdown()
        server.server_close()
    shutil.rmtree(place)


class Receiver(ShareSource):
    """One that asks for itself only when it is told to."""

    def __init__(self, port, secret=SECRET, entries=()):
        super().__init__(f"http://127.0.0.1:{port}/", secret, entries, ask_every=3600)

    def ask(self, path, **headers):
        with self._answer(path, 100, **headers) as answer:
            return answer.status, answer.read()


def code(error):
    return str(error.value)


def entries_of(directory):
    return manifests.entries_of(snapshots.read_manifest(str(directory)))


def test_what_the_manifest_names_for_who_knows_the_secret(model, offer, tmp_path):
    directory = model("a", weights=b"0123456789", linked=b"linked")
    (tmp_path / "outside").write_bytes(b"linked")
    port, _server = offer(directory)
    receiver = Receiver(port)
    assert receiver.ask("") == (204, b"")
    assert receiver.ask("weights") == (200, b"0123456789")
    assert receiver.ask("weights", Range="bytes=7-") == (206, b"789")
    (directory / "linked").unlink()
    (directory / "linked").symlink_to("../outside")  # a link that leads out of the model's directory, of the right size
    for path in ("secret", "../a/weights", ".model-manifest.json", "a/../weights", "linked", "weights/", "/etc/passwd"):
        with pytest.raises(FetchError, match=r"HTTP 40[34]"):
            receiver.ask(path)
    (directory / "weights").unlink()
    os.mkfifo(directory / "weights")
    with pytest.raises(FetchError, match="HTTP 404"):
        receiver.ask("weights")
    (directory / "linked").unlink()
    (directory / "linked").write_bytes(b"linked")
    with pytest.raises(FetchError, match="HTTP 416"):
        receiver.ask("linked", Range="bytes=99-")


def test_nobody_else_gets_a_byte(model, offer):
    port, _server = offer(model("a", weights=b"0123456789"))
    with pytest.raises(FetchError, match="offers nothing to this play"):
        Receiver(port, "another secret").ask("weights")
    greeting = {"Share": f"{shares.name_of(SECRET)} {'0' * 32}"}
    for headers in (
        [],
        [{}],
        [{"Authorization": f"Bearer {SECRET}"}],
        [{"Share-Proof": "x"}],
        [greeting, {}],
        [greeting, {"Share-Proof": "0" * 64}],
        [greeting, {"Share-Proof": "\xff" * 64}],
        [greeting, greeting],
        [{"Share": f"{shares.name_of(SECRET)} x"}],
        [{"Share": "x " * 2000}],
    ):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.suppress(http.client.HTTPException, OSError):
            for given in headers:
                connection.request("GET", "/weights", headers=given)
                answer = connection.getresponse()
                assert answer.status in (400, 401, 403, 414, 431)
                assert b"0123456789" not in answer.read()
        connection.close()


def test_a_proof_holds_for_one_connection_and_one_file(model, offer):
    port, _server = offer(model("a", weights=b"0123456789", other=b"other"))
    receiver = Receiver(port)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    theirs, ours = receiver._greet(connection)
    proof = shares.proof(SECRET, "client", theirs, ours, "/weights ")
    connection.request("GET", "/other", headers={"Share-Proof": proof})
    assert connection.getresponse().status == 403
    again = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    again.request("GET", "/", headers={"Share": f"{shares.name_of(SECRET)} {ours}"})
    again.getresponse().read()
    again.request("GET", "/weights", headers={"Share-Proof": proof})
    assert again.getresponse().status == 403
    assert shares.proof(SECRET, "server", theirs, ours) != shares.proof(SECRET, "client", theirs, ours)


@contextlib.contextmanager
def squatter(answer):
    """Another program on the port, which says `answer` to everything and notes what it is told."""
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _address = listener.accept()
                    with contextlib.suppress(OSError), connection:
                        while True:
                            said = connection.recv(65536)
                            heard.append(said)
                            if not said:
                                break
                            connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], heard


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nShare: " + b"0" * 32 + b" " + b"0" * 64 + b"\r\n\r\n",
        b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nShare: \xff\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 302 Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_squatter_is_not_believed_and_learns_nothing(model, tmp_path, answer):
    directory = model("a", weights=b"0123456789")
    with squatter(answer) as (port, heard):
        receiver = Receiver(port, entries=entries_of(directory))
        with pytest.raises(FetchError, match=f"127.0.0.1:{port}"):
            receiver.fetch(receiver.entries, str(tmp_path), None, lambda partial: None)
    assert not (tmp_path / "weights").exists()
    assert SECRET.encode() not in b"".join(heard)


def test_an_offer_is_not_told_to_a_squatter(model, offer):
    """Neither when a share starts nor when it is awaited: orders go over a socket of our account."""
    directory = model("a", weights=b"aaa")
    with squatter(b"HTTP/1.1 204 No Content\r\n\r\n") as (port, heard):
        with pytest.raises(OSError, match="in use"):
            control.share(("127.0.0.1", port), shares.Offer(SECRET, str(directory)), offer.control, patience=0)
        assert not control.is_offered(offer.control, SECRET)
    assert heard == []


def test_a_second_offer_joins_the_server_that_has_the_port(model, offer):
    port, first = offer(model("a", weights=b"aaa"), "ta")
    _port, second = offer(model("b", weights=b"bbb"), "tb")
    assert second is None
    assert Receiver(port, "ta").ask("weights") == (200, b"aaa")
    assert Receiver(port, "tb").ask("weights") == (200, b"bbb")
    assert control.is_offered(offer.control, "tb")
    assert control.stop(offer.control, "ta")
    with pytest.raises(FetchError, match="offers nothing"):
        Receiver(port, "ta").ask("weights")
    assert Receiver(port, "tb").ask("weights") == (200, b"bbb")  # who ends his offer does not end that of another
    assert not control.stop(offer.control, "unknown")
    assert control.stop(offer.control, "tb")
    first.thread.join(10)
    assert not first.thread.is_alive()


def test_orders_come_from_the_same_account_only(offer, model):
    offer(model("a", weights=b"aaa"))
    assert stat.S_IMODE(os.stat(os.path.dirname(offer.control)).st_mode) == 0o700
    for order in (b"", b"[" * 5000, b"7\n", b'{"do": "join"}\n', b'{"do": "stop"}\n', b'{"do": 1e400}\n', b"x" * 20000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, contextlib.suppress(OSError):
            connection.connect(offer.control)
            connection.sendall(order)
    assert control.is_offered(offer.control, SECRET)


def test_an_offer_ends_with_its_time(model, offer):
    _port, server = offer(model("a", weights=b"aaa"), seconds=0)
    server.thread.join(10)
    assert not server.thread.is_alive()


def test_an_offer_ends_when_nobody_asks(model, offer):
    """As after a play that was killed: no receiver is left that asks."""
    port, server = offer(model("a", weights=b"aaa"), idle=1)
    waiting = ShareSource(f"http://127.0.0.1:{port}/", SECRET, [], ask_every=0.3)
    time.sleep(1.6)
    assert server.thread.is_alive()
    waiting.secret = "gone"
    server.thread.join(10)
    assert not server.thread.is_alive()


def test_strangers_do_not_keep_an_offer(model, offer):
    port, server = offer(model("a", weights=b"aaa"), idle=0.5)
    end = time.monotonic() + 5
    while server.thread.is_alive() and time.monotonic() < end:
        with contextlib.suppress(FetchError, OSError, http.client.HTTPException):
            Receiver(port, "guessed").ask("")
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)  # the name was heard, the secret not
            connection.request("GET", "/", headers={"Share": f"{shares.name_of(SECRET)} {shares.number()}"})
            connection.getresponse()
    assert not server.thread.is_alive()


def ends(port, *pieces, pause=0.05):
    """Seconds until the server ends a connection on which this is said, piece by piece."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection, contextlib.suppress(OSError):
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
        while connection.recv(65536):
            pass
    return time.monotonic() - began


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"G"],
        [b"GET / HTTP/1.1\r\n", *[b"X: y\r\n"] * 40],
        [b"GET /", *[b"x"] * 40],
        [b"x" * 100_000],
        [b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n"],
        [b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20000],
        [b"GET / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 20000],
        [b"POST /stop HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n"],
        [b"\x16\x03\x01" + os.urandom(300)],
    ],
    ids=["idle", "begun", "drips headers", "drips a line", "long", "long line", "many headers", "body", "post", "tls"],
)
def test_a_connection_that_asks_for_nothing_ends(model, offer, monkeypatch, pieces):
    monkeypatch.setattr(shares, "_FIRST_REQUEST", 0.7)
    port, server = offer(model("a", weights=b"aaa"))
    assert ends(port, *pieces) < 4
    assert Receiver(port).ask("weights") == (200, b"aaa")
    assert server.thread.is_alive()


def test_strangers_cannot_take_all_connections(model, offer, monkeypatch):
    monkeypatch.setattr(shares, "_FIRST_REQUEST", 0.7)
    port, server = offer(model("a", weights=b"aaa"))
    crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    time.sleep(0.2)
    assert server.connections <= shares._MOST_STRANGERS
    time.sleep(0.8)
    assert Receiver(port).ask("weights") == (200, b"aaa")
    for one in crowd:
        one.close()


def test_a_neighbour_that_sends_wrong_bytes_is_named(model, offer, tmp_path):
    directory = model("a", weights=b"0123456789")
    manifest = json.loads((directory / manifests.MANIFEST_NAME).read_text())
    (directory / "weights").write_bytes(b"012345678X")
    port, _server = offer(directory)
    (tmp_path / "models").mkdir()
    options = {
        "state": "present", "skip_duplicate_weights": True, "update": False, "repair": True, "fetch": True,
        "allow_root_filesystem": True, "space_margin": 5, "workers": 1, "attempts": 2, "retry_delay": 0,
        "check_mode": False, "same_as": manifest,
    }  # fmt: skip
    request = {"source": "share", "model": "a", "revision": None, "include": [], "exclude": []}
    places = snapshots.Places(str(tmp_path / "models/a"))
    source = Receiver(port, entries=entries_of(directory))
    with pytest.raises(SnapshotError, match=rf"http://127\.0\.0\.1:{port}/ brought wrong bytes \(weights: sha256"):
        snapshots.Snapshot(places, source, request, options, snapshots.Progress(None)).ensure()
    assert not (tmp_path / "models/a").exists()
    (directory / "weights").write_bytes(b"0123456789")
    result = snapshots.Snapshot(places, source, request, options, snapshots.Progress(None)).ensure()
    assert result["manifest"] == manifest


@pytest.mark.parametrize("url", ["file:///etc/passwd", "https://h:1/", "http://h/", "http://h:x/", "h:1", "http://:1/"])
def test_a_share_is_at_a_host_and_a_port(url):
    with pytest.raises(SnapshotError, match="http://HOST:PORT/"):
        ShareSource(url, SECRET, [])
