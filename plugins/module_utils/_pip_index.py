# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Package indexes for pip, so that no password in their addresses is seen by others.

An index as an argument is for everyone on the host to read, and pip itself hands it as one to the pip that builds a
package. Its environment is read by nobody else, and passwords go where pip looks for them by itself: a netrc file.
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from ansible_collections.inferops.gpu_host.plugins.module_utils._redaction import (
    credentials,
    redacted,
    without_credentials,
)

# What every version of Python reads alike in a netrc file. Another password stays in the address.
_PLAIN = re.compile(r"[A-Za-z0-9!$%&()*+,./:;<=>?@^_{|}~-]+")


def environment(directory, index_url=None, extra_index_urls=()):
    """What pip's process is given; `directory`, which only we can read, holds the passwords."""
    entries, addresses = [], []
    for address in ([index_url] if index_url else []) + list(extra_index_urls):
        said = credentials(address)
        if said and said[1] and all(_PLAIN.fullmatch(word) for word in said):
            address = without_credentials(address)
            entries.append("machine %s login %s password %s\n" % (urlsplit(address).hostname, *said))
        addresses.append(address)
    given = {}
    if index_url:
        given["PIP_INDEX_URL"] = addresses.pop(0)
    if addresses:
        given["PIP_EXTRA_INDEX_URL"] = " ".join(addresses)
    if entries:
        given["NETRC"] = os.path.join(directory, "netrc")
        _write(given["NETRC"], _own_netrc() + "".join(entries))  # of two entries for a host the last one counts
    return given


def requirements(directory, wanted):
    """What is to be installed, as arguments; by way of a file where an address among them has a password."""
    if redacted(list(wanted)) == list(wanted):
        return list(wanted)
    path = os.path.join(directory, "requirements.txt")
    _write(path, "".join("%s\n" % requirement for requirement in wanted))
    return ["--requirement", path]


def _own_netrc():
    """What the account has there already, which pip would otherwise no longer see."""
    try:
        with open(os.environ.get("NETRC") or os.path.expanduser("~/.netrc"), encoding="utf-8") as handle:
            return handle.read(1 << 20) + "\n"
    except (OSError, UnicodeDecodeError):
        return ""


def _write(path, text):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        handle.write(text)
