# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model from another host that offers it (see _model_share), after both have proved that they know the secret."""

from __future__ import annotations

import contextlib
import hmac
import http.client
import re
import threading
import time
import urllib.parse

from ansible_collections.inferops.gpu_host.plugins.module_utils import _bounded_http
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_http import PATIENCE, SECONDS, SLOWEST
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_share import name_of, number, proof
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_snapshot import FetchError, SnapshotError
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_sources import UrlSource

_ASK_EVERY = 60  # seconds; the other side gives up after five times as many
_NUMBER = re.compile(r"^[0-9a-f]{32}$")


class ShareSource(UrlSource):
    """Another host of the fleet. While this one waits or verifies, it asks for nothing, so that the offer stays."""

    name = "share"

    def __init__(self, url, secret, entries, workers=4, ask_every=_ASK_EVERY):
        super().__init__(url, None, entries, workers)
        self.secret = secret
        try:
            address = urllib.parse.urlsplit(url)
            self.host, self.port = address.hostname, address.port
        except ValueError:
            self.host = None
        if not self.host or not self.port or address.scheme != "http":
            raise SnapshotError(f"url is {url}, and a share is at http://HOST:PORT/")
        threading.Thread(target=self._stay, args=(ask_every,), daemon=True).start()

    def _stay(self, pause):
        while True:
            with contextlib.suppress(FetchError, OSError, http.client.HTTPException), self._answer("", 0):
                pass
            time.sleep(pause)

    @contextlib.contextmanager
    def _answer(self, path, size, **headers):
        seconds = SECONDS + size // SLOWEST
        with contextlib.closing(_bounded_http.connection(self.host, self.port, PATIENCE, seconds)) as connection:
            theirs, ours = self._greet(connection)
            where = "/" + urllib.parse.quote(path)
            said = proof(self.secret, "client", theirs, ours, f"{where} {headers.get('Range', '')}")
            connection.request("GET", where, headers={"Share-Proof": said, **headers})
            answer = connection.getresponse()
            if answer.status not in (200, 204, 206):
                raise FetchError(f"{self.url} answers HTTP {answer.status} for {path}", fatal=answer.status == 404)
            yield answer

    def _greet(self, connection):
        """Both sides' numbers, when the other side has proved that it knows the secret."""
        ours = number()
        connection.request("GET", "/", headers={"Share": f"{name_of(self.secret)} {ours}"})
        answer = connection.getresponse()
        answer.read(1024)
        if answer.status == 403:
            raise FetchError(f"{self.url} offers nothing to this play (any more)")
        theirs, proved = [*(answer.headers.get("Share") or "").split(), "", ""][:2]
        wanted = proof(self.secret, "server", theirs, ours)
        if not _NUMBER.match(theirs) or not hmac.compare_digest(proved.encode("utf-8", "replace"), wanted.encode()):
            raise FetchError(
                f"what answers at {self.url} does not know the secret of these copies: another program has the port",
                fatal=True,
            )
        return theirs, ours
