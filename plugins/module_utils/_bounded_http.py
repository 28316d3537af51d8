# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP with an end: headers and body of an answer come within a time, and a body within a size.

A socket's timeout starts anew with every byte, so a server that drips one a minute is never done. Here the whole answer
has one deadline, its headers included.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
import urllib.request


class AnswerTooLong(OSError):
    """More bytes than were wanted."""


class _UntilDeadline(io.RawIOBase):
    """A socket's file whose reads end at a deadline."""

    def __init__(self, raw, sock, deadline, patience):
        self._raw, self._sock, self._deadline, self._patience = raw, sock, deadline, patience

    def readable(self):
        return True

    def readinto(self, buffer):
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise socket.timeout("the answer took too long")
        self._sock.settimeout(min(left, self._patience))
        return self._raw.readinto(buffer)

    def close(self):
        if not self.closed:
            self._raw.close()
        super().close()


def _connection(base, patience, seconds):
    class Response(http.client.HTTPResponse):
        def __init__(self, sock, *arguments, **keywords):
            super().__init__(sock, *arguments, **keywords)
            until = _UntilDeadline(self.fp.detach(), sock, time.monotonic() + seconds, patience)
            self.fp = io.BufferedReader(until)

    class Connection(base):
        response_class = Response

    return Connection


def connection(host, port, patience, seconds):
    """A connection without TLS for several requests, each with an answer within these bounds; see handlers."""
    return _connection(http.client.HTTPConnection, patience, seconds)(host, port, timeout=patience)


def handlers(patience, seconds, context=None):
    """Handlers for urllib.request.build_opener.

    patience: seconds that a connection, and each next byte, may take; seconds: the whole answer from its first byte to
    its last, headers included. context: of TLS.
    """
    plain = _connection(http.client.HTTPConnection, patience, seconds)
    secure = _connection(http.client.HTTPSConnection, patience, seconds)

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, req):
            return self.do_open(plain, req)

    class Secure(urllib.request.HTTPSHandler):
        def https_open(self, req):
            return self.do_open(secure, req, context=context)

    return [Plain(), Secure(context=context)]


def read(response, limit):
    """The whole body, or AnswerTooLong: nothing is gained from the beginning of one that does not end."""
    pieces, size = [], 0
    while True:
        piece = response.read(min(65536, limit + 1 - size))
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise AnswerTooLong(f"the answer is longer than {limit} bytes")


def lines(response, limit, longest=1 << 20):
    """The lines of a body that may be a stream; AnswerTooLong when one line or all of them are too long."""
    size = 0
    while True:
        line = response.readline(longest + 1)
        size += len(line)
        if not line:
            return
        if len(line) > longest or size > limit:
            raise AnswerTooLong(f"the stream is longer than {longest if len(line) > longest else limit} bytes")
        yield line
