# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of made keys: one for each service, made once, and read by nobody but the owner of this program.

NAME         the key that the service wants
.NAME.next   the one that it is going to want: a rotation was begun and is not over
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile

from ansible_collections.inferops.gpu_host.plugins.module_utils import _private_files
from ansible_collections.inferops.gpu_host.plugins.module_utils._service_values import OPEN, Bad, api_key

RANDOM_BYTES = 32
MODE, DIRECTORY_MODE = 0o600, 0o700
_LONGEST_FILE = 1024


class KeyFileError(Exception):
    """A key that cannot be made, read or trusted. What it says never holds the key."""


def path_of(directory, service):
    return os.path.join(directory, service)


def pending_path_of(directory, service):
    return os.path.join(directory, f".{service}.next")


def read(path):
    """(key, loose): the key in a file, None where there is none; loose when others may read the file, or own it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None, False
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read as a key: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"{path} is no regular file, wanted a key")
        reason = _private_files.why_untrusted(path)
        if reason:
            raise KeyFileError(f"{path} is not trusted: {reason}")
        content = os.read(descriptor, _LONGEST_FILE + 1)
    finally:
        os.close(descriptor)
    try:
        key = api_key(content.decode("ascii"))
    except (Bad, UnicodeDecodeError):
        key = None
    if key in (None, OPEN) or len(content) > _LONGEST_FILE:
        raise KeyFileError(f"{path} holds no key: remove it, or put back what was in it")
    return key, bool(stat.S_IMODE(status.st_mode) & ~MODE)


def make(path):
    """(key, made): a new key in a new file; the one that is there already, whoever was faster."""
    directory = os.path.dirname(path)
    have_directory(directory)
    descriptor, new = tempfile.mkstemp(prefix=".new-", dir=directory)  # 0600, and a name that nobody knows
    try:
        key = secrets.token_hex(RANDOM_BYTES)
        with os.fdopen(descriptor, "w") as handle:
            handle.write(key + "\n")
            handle.flush()
            os.fsync(descriptor)
        try:
            os.link(new, path)  # unlike a rename it never takes the place of a key that is there
        except FileExistsError:
            return read(path)[0], False
        _sync(directory)
        return key, True
    finally:
        with contextlib.suppress(OSError):
            os.unlink(new)


def keep(path, key):
    """The file holds this key from now on. True when that is news."""
    have_directory(os.path.dirname(path))
    try:
        now, loose = read(path)
    except KeyFileError:
        now, loose = None, False  # the owner's copy is the right one, whatever lies here
    if now == key and not loose:
        return False
    _private_files.put((key + "\n").encode("ascii"), path, MODE)
    _sync(os.path.dirname(path))
    return True


def close(path):
    os.chmod(path, MODE, follow_symlinks=False) if os.chmod in os.supports_follow_symlinks else os.chmod(path, MODE)


def have_directory(directory):
    try:
        try:
            return _private_files.private_directory(directory, DIRECTORY_MODE)
        except FileExistsError:  # another play has just made it
            return _private_files.private_directory(directory, DIRECTORY_MODE)
    except _private_files.Untrusted as error:
        raise KeyFileError(f"{directory} cannot hold keys: {error}") from error
    except OSError as error:
        raise KeyFileError(f"{directory} cannot be made: {error.strerror}") from error


def directory_is_loose(directory):
    try:
        return bool(stat.S_IMODE(os.lstat(directory).st_mode) & ~DIRECTORY_MODE)
    except FileNotFoundError:
        return False


def _sync(directory):
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
