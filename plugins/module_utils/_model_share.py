# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serves published models to the other hosts over HTTP: ranges, tokens, and an end of its own.

A port has one server. Who comes while it is taken by a server of ours (of another play, or of one that was killed)
joins that: the server's secret lies in a file that only its account can read.
"""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import secrets
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ansible_collections.inferops.gpu_host.plugins.module_utils._model_snapshot import read_manifest

_CHUNK = 4 * 1024 * 1024


class Offer:
    """One model, for those who send the token, until its time is over. It may be published meanwhile."""

    def __init__(self, directory, limit_rate=0, seconds=86400):
        self.directory = directory
        self.limit_rate = limit_rate
        self.ends = time.monotonic() + seconds
        self._manifest = None

    def files(self):
        """{path: size} once the model is published here; a copy may arrive while the share runs."""
        if self._manifest is None:
            self._manifest = read_manifest(self.directory)
        return {f["path"]: f["size"] for f in self._manifest["files"]} if self._manifest else {}


class ModelShare(ThreadingHTTPServer):
    """Only files that a directory's manifest names leave the host, and only to who knows the token of the offer."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address, token, offer):
        super().__init__(address, _Handler)
        self.offers = {token: offer}
        self.secret = secrets.token_hex(20)
        self.guard = threading.Lock()
        self.bytes_sent = 0

    def join(self, token, offer):
        """Take a further offer; False when the server is about to end."""
        with self.guard:
            if self.offers:
                self.offers[token] = offer
            return bool(self.offers)

    def withdraw(self, token):
        """End an offer."""
        with self.guard:
            self.offers.pop(token, None)

    def end_with_last_offer(self):
        with self.guard:
            if not self.offers:
                threading.Thread(target=self.shutdown, daemon=True).start()

    def service_actions(self):
        for token in [token for token, offer in list(self.offers.items()) if offer.ends < time.monotonic()]:
            self.withdraw(token)
        self.end_with_last_offer()

    def run(self):
        """Serve until the last offer has ended."""
        self.serve_forever(poll_interval=0.2)
        self.server_close()


def share(address, token, directory, limit_rate, seconds, secret_path, patience=30):
    """The server that now offers the model, or None when the one that has the port took the offer."""
    deadline = time.monotonic() + patience
    while True:
        try:
            server = ModelShare(address, token, Offer(directory, limit_rate, seconds))
            os.makedirs(os.path.dirname(secret_path), mode=0o700, exist_ok=True)
            handle = os.open(secret_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(handle, "w", encoding="utf-8") as file:
                file.write(server.secret)
            return server
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            terms = {"token": token, "directory": directory, "limit_rate": limit_rate, "seconds": seconds}
            if _joined(address[1], terms, secret_path):
                return None
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def _joined(port, terms, secret_path):
    try:
        with open(secret_path, encoding="utf-8") as file:
            headers = {"Authorization": f"Bearer {file.read()}"}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("POST", "/join", json.dumps(terms), headers)
        return connection.getresponse().status == 204
    except (OSError, http.client.HTTPException):
        return False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        """Nothing: the job's output is its result."""

    def _answer(self, code):
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _token(self):
        return self.headers.get("Authorization", "").partition("Bearer ")[2]

    def do_POST(self):
        """POST /stop ends an offer, /join adds one."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/stop" and self._token() in self.server.offers:
            self.server.withdraw(self._token())
            self._answer(204)
            return self.server.end_with_last_offer()
        if self.path == "/join" and secrets.compare_digest(self._token(), self.server.secret):
            terms = json.loads(body)
            return self._answer(204 if self.server.join(terms.pop("token"), Offer(**terms)) else 503)
        return self._answer(403)

    def do_GET(self):
        """A file of the model, or a part of it; `/` only says that the share is there."""
        offer = self.server.offers.get(self._token())
        if offer is None:
            return self._answer(403)
        if self.path == "/":
            return self._answer(204)
        path = urllib.parse.unquote(self.path).lstrip("/")
        size = offer.files().get(path)
        if size is None:
            return self._answer(404)
        start = 0
        asked = re.match(r"^bytes=(\d+)-$", self.headers.get("Range", ""))
        if asked:
            start = int(asked.group(1))
        if start >= size and size:
            return self._answer(416)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(size - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        self._send(os.path.join(offer.directory, path), start, size, offer.limit_rate)
        return None

    def _send(self, path, start, size, rate):
        began, sent = time.monotonic(), 0
        try:
            with open(path, "rb") as handle:
                while start < size:
                    chunk = min(_CHUNK, size - start, rate // 10 or 1 if rate else _CHUNK)
                    count = os.sendfile(self.connection.fileno(), handle.fileno(), start, chunk)
                    if not count:
                        break
                    start, sent = start + count, sent + count
                    if rate:
                        time.sleep(max(0.0, sent / rate - (time.monotonic() - began)))
        except OSError:
            pass  # the other side hung up; it comes back for the rest
        with self.server.guard:
            self.server.bytes_sent += sent
        if start < size:
            self.close_connection = True
