# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serves one published model to the other hosts over HTTP: ranges, a token, and an end of its own."""

from __future__ import annotations

import hmac
import os
import re
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ansible_collections.inferops.gpu_host.plugins.module_utils._model_snapshot import read_manifest

_CHUNK = 4 * 1024 * 1024


class ModelShare(ThreadingHTTPServer):
    """Only files that the directory's manifest names leave the host, and only to who knows the token."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, directory, address, token, limit_rate=0):
        super().__init__(address, _Handler)
        self.directory = directory
        self.token = token
        self.limit_rate = limit_rate
        self.bytes_sent = 0
        self.guard = threading.Lock()
        self._manifest = None

    def files(self):
        """{path: size} once the model is published here; a copy may arrive while the share runs."""
        if self._manifest is None:
            self._manifest = read_manifest(self.directory)
        return {f["path"]: f["size"] for f in self._manifest["files"]} if self._manifest else {}

    def run(self, seconds):
        """Serve until told to stop, at most so long. Returns whether it was told."""
        timer = threading.Timer(seconds, self.shutdown)
        timer.daemon = True
        timer.start()
        began = time.monotonic()
        self.serve_forever(poll_interval=0.2)
        timer.cancel()
        self.server_close()
        return time.monotonic() - began < seconds


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        """Nothing: the job's output is its result."""

    def _refuse(self, code):
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _knows_the_token(self):
        return hmac.compare_digest(self.headers.get("Authorization", ""), f"Bearer {self.server.token}")

    def do_POST(self):
        """POST /stop ends the share."""
        if not self._knows_the_token() or self.path != "/stop":
            return self._refuse(403)
        self._refuse(204)
        threading.Thread(target=self.server.shutdown, daemon=True).start()
        return None

    def do_GET(self):
        """A file of the model, or a part of it."""
        if not self._knows_the_token():
            return self._refuse(403)
        path = urllib.parse.unquote(self.path).lstrip("/")
        size = self.server.files().get(path)
        if size is None:
            return self._refuse(404)
        start = 0
        asked = re.match(r"^bytes=(\d+)-$", self.headers.get("Range", ""))
        if asked:
            start = int(asked.group(1))
        if start >= size and size:
            return self._refuse(416)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(size - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        self._send(os.path.join(self.server.directory, path), start, size)
        return None

    def _send(self, path, start, size):
        began, sent, rate = time.monotonic(), 0, self.server.limit_rate
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
