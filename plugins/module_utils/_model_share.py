# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serves published models to the other hosts over HTTP, to those who prove that they know the secret of the copies.

Both sides prove it, by HMAC over numbers that both drew, before a byte of a model goes over the wire; the secret itself
never does. Only files that the model's manifest names are served. Whatever comes is bounded: connections, what they
send, and how long they take. An offer ends when nobody has asked for it for a while, so also when a play was killed.

A port has one server. Who comes while it is taken by a server of ours (of another play, or of one that was killed)
joins that over a socket that only its account can reach (see _model_share_control).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import io
import os
import re
import secrets
import select
import socket
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ansible_collections.inferops.gpu_host.plugins.module_utils._model_files import NotAFile, file_info, open_file
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_snapshot import read_manifest

IDLE = 300  # seconds without a request after which an offer ends; receivers ask for nothing once a minute
_CHUNK = 4 * 1024 * 1024
_LONGEST_REQUEST = 8 * 1024
_MOST_CONNECTIONS = 128
_MOST_STRANGERS = 16  # of those that have proved nothing yet
_FIRST_REQUEST, _NEXT_REQUEST = 10, 60  # seconds until a request is there as a whole
_WRITE_PATIENCE = 60
_NUMBER = re.compile(r"^[0-9a-f]{32}$")


def name_of(secret):
    """What an offer is called where the secret itself must not be said."""
    return hashlib.sha256(b"offer\n" + secret.encode()).hexdigest()[:32]


def proof(secret, side, server_number, client_number, request=""):
    """What only who knows the secret can say, to these two numbers, from this side, about this request."""
    text = "\n".join((side, server_number, client_number, request))
    return hmac.new(secret.encode(), text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def number():
    """A number that was never drawn before."""
    return secrets.token_hex(16)


class Offer:
    """One model, for those who know the secret, until its time is over or nobody asks.

    It may be published meanwhile.
    """

    def __init__(self, secret, directory, limit_rate=0, seconds=86400, idle=IDLE):
        self.secret = secret
        self.directory = directory
        self.limit_rate = limit_rate
        self.ends = time.monotonic() + seconds
        self.idle = idle
        self.busy = 0
        self._manifest = None
        self.touch()

    def touch(self):
        """Somebody who knows the secret has asked."""
        self.asked = time.monotonic()

    def is_over(self):
        now = time.monotonic()
        return now > self.ends or (not self.busy and now - self.asked > self.idle)

    def files(self):
        """{path: size} once the model is published here; a copy may arrive while the share runs."""
        if self._manifest is None:
            self._manifest = read_manifest(self.directory)
        return {f["path"]: f["size"] for f in self._manifest["files"]} if self._manifest else {}


class ModelShare(ThreadingHTTPServer):
    """Only files that a directory's manifest names leave the host, and only to who knows the secret of the offer."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address, offer):
        super().__init__(address, _Handler)
        self.offers = {name_of(offer.secret): offer}
        self.guard = threading.Lock()
        self.connections = self.strangers = 0
        self.bytes_sent = 0

    def join(self, offer):
        """Take a further offer; False when the server is about to end."""
        with self.guard:
            if self.offers:
                self.offers[name_of(offer.secret)] = offer
            return bool(self.offers)

    def withdraw(self, name):
        """End an offer."""
        with self.guard:
            self.offers.pop(name, None)

    def service_actions(self):
        for name, offer in list(self.offers.items()):
            if offer.is_over():
                self.withdraw(name)
        with self.guard:
            if not self.offers:
                threading.Thread(target=self.shutdown, daemon=True).start()

    def process_request(self, request, client_address):
        """Serve a connection, unless there are as many as one server should have."""
        with self.guard:
            full = self.connections >= _MOST_CONNECTIONS or self.strangers >= _MOST_STRANGERS
            if not full:
                self.connections += 1
                self.strangers += 1
        if full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def handle_error(self, request, client_address):
        """Nothing: what a stranger sends is no error of ours, and the job's output is its result."""

    def run(self):
        """Serve until the last offer has ended."""
        self.serve_forever(poll_interval=0.2)
        self.server_close()


class _Bounded(io.RawIOBase):
    """A connection's bytes: no more of them than a request has, and none after the request's time."""

    def __init__(self, connection):
        self.connection = connection
        self.allow(_FIRST_REQUEST)

    def allow(self, seconds):
        self.deadline, self.left = time.monotonic() + seconds, _LONGEST_REQUEST

    def readable(self):
        return True

    def readinto(self, buffer):
        seconds = self.deadline - time.monotonic()
        if seconds <= 0 or not self.left:
            return 0
        self.connection.settimeout(seconds)
        try:
            length = self.connection.recv_into(buffer, min(len(buffer), self.left))
        except socket.timeout:
            return 0
        self.left -= length
        return length


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "share", ""

    def setup(self):
        super().setup()
        self.bounded = _Bounded(self.connection)
        self.rfile = io.BufferedReader(self.bounded, 1024)
        self.number, self.client_number, self.offer, self.is_known = number(), None, None, False

    def handle_one_request(self):
        self.bounded.allow(_NEXT_REQUEST if self.is_known else _FIRST_REQUEST)
        super().handle_one_request()

    def finish(self):
        with self.server.guard:
            self.server.connections -= 1
            self.server.strangers -= not self.is_known
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format, *args):
        """Nothing: the job's output is its result."""

    def send_error(self, code, message=None, explain=None):
        """No page, and no word of what was sent."""
        self.close_connection = True
        self._answer(code)

    def _answer(self, code, **headers):
        self.connection.settimeout(_WRITE_PATIENCE)
        self.send_response_only(code)
        self.send_header("Content-Length", "0")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self):
        """With `Share: OFFER NUMBER` our own proof; with `Share-Proof: PROOF` what was asked for."""
        if self.headers.get("Content-Length") or self.headers.get("Transfer-Encoding"):
            return self.send_error(400)
        greeting = self.headers.get("Share", "").split()
        if greeting and self.offer is None:
            return self._greet(greeting)
        offer = self.offer
        if offer is None or name_of(offer.secret) not in self.server.offers:
            return self.send_error(403)
        asked_range = self.headers.get("Range", "")
        said = self.headers.get("Share-Proof", "")
        wanted = proof(offer.secret, "client", self.number, self.client_number, f"{self.path} {asked_range}")
        if not hmac.compare_digest(said.encode("utf-8", "replace"), wanted.encode()):
            return self.send_error(403)
        if not self.is_known:
            with self.server.guard:
                self.server.strangers -= 1
            self.is_known = True
        offer.touch()
        return self._give(offer, urllib.parse.unquote(self.path), asked_range)

    def _greet(self, greeting):
        """Prove that we are no squatter; whoever asks learns nothing from it."""
        offer = self.server.offers.get(greeting[0])
        if offer is None or len(greeting) != 2 or not _NUMBER.match(greeting[1]):
            return self.send_error(403)
        self.offer, self.client_number = offer, greeting[1]
        ours = proof(offer.secret, "server", self.number, self.client_number)
        return self._answer(401, Share=f"{self.number} {ours}")

    def _give(self, offer, path, asked_range):
        if path == "/":
            return self._answer(204)
        path = path[1:]
        size = offer.files().get(path)
        asked = re.match(r"^bytes=(\d{1,15})-$", asked_range)
        start = int(asked.group(1)) if asked else 0
        if size is None:
            return self._answer(404)
        try:
            if file_info(offer.directory, path).st_size != size:
                return self._answer(404)
            handle = open_file(offer.directory, path)
        except (OSError, NotAFile):
            return self._answer(404)
        try:
            if start >= size and size:
                return self._answer(416)
            self.connection.settimeout(_WRITE_PATIENCE)
            self.send_response_only(206 if asked else 200)
            self.send_header("Content-Length", str(size - start))
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.end_headers()
            with self.server.guard:
                offer.busy += 1
            self._send(handle, start, size, offer)
        finally:
            os.close(handle)
        return None

    def _send(self, handle, start, size, offer):
        began, sent, rate = time.monotonic(), 0, offer.limit_rate
        try:
            while start < size:
                chunk = min(_CHUNK, size - start, rate // 10 or 1 if rate else _CHUNK)
                if not select.select([], [self.connection], [], _WRITE_PATIENCE)[1]:
                    break  # it does not take what it asked for
                try:
                    count = os.sendfile(self.connection.fileno(), handle, start, chunk)
                except BlockingIOError:
                    continue
                if not count:
                    break
                start, sent = start + count, sent + count
                offer.touch()
                if rate:
                    time.sleep(max(0.0, sent / rate - (time.monotonic() - began)))
        except OSError:
            pass  # the other side hung up; it comes back for the rest
        with self.server.guard:
            offer.busy -= 1
            self.server.bytes_sent += sent
        if start < size:
            self.close_connection = True
