# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One server of shares per port, and how further offers reach it: over a Unix socket in a directory of its account's.

So no secret goes to whoever happens to have the port.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time

from ansible_collections.inferops.gpu_host.plugins.module_utils._model_files import (
    NotAFile,
    make_own_directory,
    others_among,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_share import ModelShare, Offer, name_of
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import bounded_json

_LONGEST_ORDER = 16 * 1024
_PATIENCE = 5


def control_path(directory, port):
    """Where the server of a port takes orders. The directory is made, and ours alone."""
    os.makedirs(os.path.dirname(directory), exist_ok=True)
    make_own_directory(directory)
    found = others_among(directory)
    if found:
        raise NotAFile(f"cannot be ours alone: {found[0]} {found[1]}")
    return os.path.join(directory, f"share-{port}")


def share(address, offer, control, patience=30):
    """The server that now offers the model, or None when one of ours that has the port took the offer."""
    deadline = time.monotonic() + patience
    while True:
        try:
            server = ModelShare(address, offer)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            terms = {"secret": offer.secret, "directory": offer.directory, "limit_rate": offer.limit_rate}
            if _ask(control, {"do": "join", **terms, "seconds": offer.ends - time.monotonic(), "idle": offer.idle}):
                return None
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            _listen(server, control)
            return server


def _listen(server, control):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(control)
    listener.bind(control)
    listener.listen(8)
    threading.Thread(target=_take_orders, args=(server, listener), daemon=True).start()


def _take_orders(server, listener):
    while True:
        connection, _address = listener.accept()
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError), connection:
            connection.settimeout(_PATIENCE)
            order = bounded_json(_line(connection), "the order", limit=_LONGEST_ORDER)
            connection.sendall(b"yes\n" if _obey(server, order) else b"no\n")


def _obey(server, order):
    if not isinstance(order, dict):
        return False
    action = order.pop("do")
    if action == "join":
        return server.join(Offer(**order))
    there = order["name"] in server.offers
    if action == "stop":
        server.withdraw(order["name"])
    return there


def _ask(control, order):
    """Whether the server says yes; no when there is none."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(control)
            connection.sendall(json.dumps(order).encode() + b"\n")
            return _line(connection) == b"yes"
    except OSError:
        return False


def _line(connection):
    text = b""
    while not text.endswith(b"\n") and len(text) < _LONGEST_ORDER:
        more = connection.recv(4096)
        if not more:
            break
        text += more
    return text.strip()


def is_offered(control, secret):
    """Whether a server of ours offers a model for this secret now."""
    return _ask(control, {"do": "look", "name": name_of(secret)})


def stop(control, secret):
    """End the offer for this secret; True when there was one."""
    return _ask(control, {"do": "stop", "name": name_of(secret)})
