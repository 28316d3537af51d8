# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions to hubs and mirrors: bounded in bytes and time, and a token that goes nowhere else."""

from __future__ import annotations

import functools
import http.client
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request

from ansible_collections.inferops.gpu_host.plugins.module_utils import _bounded_http
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_manifest import LONGEST_LIST
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_snapshot import SnapshotError
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import printable, whole_number

PATIENCE = 60  # seconds for a connection and for each next byte
SECONDS = 120  # for a small answer, from its first byte to its last
SLOWEST = 16 * 1024  # bytes per second that a file has to come with on average, or it is asked for again
_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_LONGEST_PAUSE = 60


@functools.lru_cache(maxsize=None)
def _certificates():
    return ssl.create_default_context()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments, **_keywords):
        """Nothing: where to go on is decided below, where the token is known."""


def request(url, token=None, method="GET", size=0, **headers):
    """The answer to a request, its body still to be read; size: how many bytes are expected.

    A redirect is followed to http and https only, never from https to http, and without the token when it leads to
    another host.
    """
    for _hop in range(_MOST_REDIRECTS + 1):
        given = {"User-Agent": "inferops.gpu_host", "Accept-Encoding": "identity", **headers}
        if token:
            given["Authorization"] = f"Bearer {token}"
        handlers = _bounded_http.handlers(PATIENCE, SECONDS + size // SLOWEST, _certificates())
        opener = urllib.request.build_opener(_NoRedirect, *handlers)
        try:
            return opener.open(urllib.request.Request(url, method=method, headers=given), timeout=PATIENCE)
        except urllib.error.HTTPError as error:
            if error.code not in _REDIRECTS:
                raise
            error.close()
            following = urllib.parse.urljoin(url, error.headers.get("Location") or "")
        except (UnicodeError, http.client.InvalidURL) as error:
            raise urllib.error.URLError(f"{printable(error)}") from error
        if not _may_follow(url, following):
            raise urllib.error.URLError(f"it redirects to {printable(without_query(following))}, which is not followed")
        if urllib.parse.urlsplit(following)[:2] != urllib.parse.urlsplit(url)[:2]:
            token = None
        url = following
    raise urllib.error.URLError(f"it redirects more than {_MOST_REDIRECTS} times")


def _may_follow(url, following):
    before, after = urllib.parse.urlsplit(url).scheme, urllib.parse.urlsplit(following).scheme
    return after == "https" or (after == "http" and before == "http")


def retry_after(headers):
    """Seconds that a server asks to wait, within reason; None when it does not say."""
    seconds = whole_number(headers.get("Retry-After") or "")
    return min(_LONGEST_PAUSE, seconds) if seconds else None


def get(url, token=None, attempts=5, sleep=time.sleep, limit=LONGEST_LIST):
    """(body, headers) of a small answer; waits and tries again where that can help."""
    delay, problem = 1, ""
    for attempt in range(1, attempts + 1):
        pause = None
        try:
            with request(url, token) as answer:
                body = _bounded_http.read(answer, limit)
                if getattr(answer, "length", None):  # a list that was cut off is no shorter list
                    raise http.client.IncompleteRead(body, answer.length)
                return body, answer.headers
        except _bounded_http.AnswerTooLong as error:
            raise SnapshotError(f"{without_query(url)}: {error}") from error
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 429 and error.code < 500:
                raise
            problem, pause = f"HTTP {error.code}", retry_after(error.headers)
        except (http.client.HTTPException, OSError) as error:
            problem = printable(getattr(error, "reason", None) or error)
        if attempt < attempts:
            sleep(pause or delay)
            delay *= 2
    raise SnapshotError(f"no answer from {without_query(url)} in {attempts} attempts: {problem}")


def without_query(url):
    """An address as messages show it."""
    return url.split("?")[0]
