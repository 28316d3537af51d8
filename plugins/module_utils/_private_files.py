# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of root's that nobody else may have made, exchanged or led elsewhere by a link.

Whoever can write into a directory can exchange what lies in it, between a look and a use. So a directory is taken only
when it and all above it belong to root or to the account that works here, and nobody else may write there; and a file
is read once, through one descriptor, and what was checked is what is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import secrets
import stat
import tarfile
import tempfile

MAX_BYTES = 512 * 1024 * 1024  # of a program; more is a mistake or an attack


class Untrusted(Exception):
    """A file or directory that somebody else made or can exchange."""


def us():
    return os.geteuid()


def account(uid):
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "the account %d" % uid


def why_untrusted(path, uid=None):
    """Who else can exchange `path`, in words; None when nobody can. What is not there yet has only those above it."""
    uid = os.geteuid() if uid is None else uid
    path, seen = os.path.abspath(path), 0
    walked, rest = "/", [part for part in path.split("/") if part]
    above = os.lstat("/")
    while True:
        reason = _why_not(walked, above, uid, last=not rest)
        if reason or not rest:
            return reason
        walked = os.path.join(walked, rest.pop(0))
        try:
            above = os.lstat(walked)
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            return "%s is no directory" % os.path.dirname(walked)
        if stat.S_ISLNK(above.st_mode):
            seen += 1
            if above.st_uid not in (0, uid):
                return "%s is a symbolic link of %s" % (walked, account(above.st_uid))
            if not rest or seen > 20:
                return "%s is a symbolic link" % walked
            target = os.path.join(os.path.dirname(walked), os.readlink(walked))
            walked, rest = "/", [part for part in os.path.normpath(target).split("/") if part] + rest
            above = os.lstat("/")


def _why_not(path, status, uid, last):
    if status.st_uid not in (0, uid):
        return "%s belongs to %s" % (path, account(status.st_uid))
    others = status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and status.st_gid not in (0, os.getegid()))
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if others and (last or not sticky):
        return "%s can be written by other accounts (mode %04o)" % (path, stat.S_IMODE(status.st_mode))
    return None


def refuse_untrusted(path):
    reason = why_untrusted(path)
    if reason:
        raise Untrusted(reason)


def would_change(path, mode):
    """Whether private_directory would make or set something; refuses what it refuses."""
    refuse_untrusted(path)
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return True
    if not stat.S_ISDIR(status.st_mode):
        raise Untrusted("%s is no directory" % path)
    return stat.S_IMODE(status.st_mode) != mode


def private_directory(path, mode=0o700):
    """Make a directory that only we can change, or take the one that is there. True when something was made or set."""
    if not would_change(path, mode):
        return False
    if not os.path.isdir(path):
        parent = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(parent):
            private_directory(parent, 0o755)
        os.mkdir(path, mode)  # follows no link, and fails on whatever came in between
    os.chmod(path, mode)  # also past the umask
    return True


def random_directory(parent, prefix):
    """A new directory of ours, 0700, with a name that nobody can know beforehand."""
    reason = why_untrusted(parent)
    if reason and not _only_sticky(parent):
        raise Untrusted(reason)
    return tempfile.mkdtemp(prefix=prefix, dir=parent)


def _only_sticky(parent):
    status = os.lstat(parent)
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and status.st_uid == 0
    return sticky and why_untrusted(os.path.dirname(os.path.abspath(parent))) is None


def read_once(path, member=None):
    """The bytes of a file of ours, or of one member of the tar archive that it is, read through one descriptor."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Untrusted("%s cannot be read: %s" % (path, error.strerror)) from error
    with os.fdopen(descriptor, "rb") as handle:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Untrusted("%s is no regular file" % path)
        refuse_untrusted(path)
        if member is None:
            return _bounded(handle, path)
        try:
            with tarfile.open(fileobj=handle) as archive:
                for found in archive:  # in order, so that an archive without end is not listed first
                    if found.name.lstrip("./") == member and found.isreg():
                        return _bounded(archive.extractfile(found), member)
                    if archive.offset > MAX_BYTES:
                        break
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise Untrusted("%s is no archive that can be read: %s" % (path, error)) from error
        raise Untrusted("%s holds no file %s" % (path, member))


def _bounded(handle, name):
    data = handle.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise Untrusted("%s is larger than %d MiB" % (name, MAX_BYTES >> 20))
    return data


def secret(path, make=True):
    """(the random secret that lies in a 0600 file, whether something was changed). Of several makers one wins."""
    changed = False
    if not os.path.lexists(path):
        if not make:
            return secrets.token_hex(32), True
        parent = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(parent):
            private_directory(parent, 0o755)
        descriptor, new = tempfile.mkstemp(prefix=".new-", dir=parent)
        try:
            with os.fdopen(descriptor, "w") as handle:
                handle.write(secrets.token_hex(32) + "\n")
                handle.flush()
                os.fsync(descriptor)
            with contextlib.suppress(FileExistsError):
                os.link(new, path)
                changed = True
        finally:
            os.unlink(new)
    content = read_once(path).decode("utf-8", "replace").strip()
    if len(content) < 16:
        raise Untrusted("it holds %d characters, which can be guessed" % len(content))
    if stat.S_IMODE(os.lstat(path).st_mode) & 0o077:
        raise Untrusted("others may read it (mode %04o)" % stat.S_IMODE(os.lstat(path).st_mode))
    return content, changed


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def put(data, path, mode):
    """`path` becomes a file of ours with this content, at once or not at all."""
    descriptor, new = tempfile.mkstemp(prefix=".new-", dir=os.path.dirname(os.path.abspath(path)))
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
