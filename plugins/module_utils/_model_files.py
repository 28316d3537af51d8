# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a model, opened so that nobody who can write among them decides what root reads, changes or awaits.

A file of a model is a regular file. A symbolic link counts as the file that it leads to when that lies below the
model's own directory, or among the blobs of the same Hugging Face cache. Everything else (other links, pipes, sockets,
devices) is never opened, and named where it is in the way. See docs/decisions/0025.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import re
import secrets
import stat

from ansible_collections.inferops.gpu_host.plugins.module_utils._model_manifest import CLIENT_LEFTOVERS, MANIFEST_NAME
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB, format_bytes
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import printable

_MOST_HOPS = 8
_CACHE_SNAPSHOT = re.compile(r"/(models|datasets)--[^/]+/snapshots/[^/]+$")
_CACHE_BLOB = re.compile(r"^\.\./\.\./blobs/[0-9a-f]{40,64}$")
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
    stat.S_IFDIR: "a directory",
    stat.S_IFREG: "a file",
}
# No weights of this size are nearly all holes; such a file costs days to read and nothing to make.
_LARGE, _LEAST_SHARE = 64 * GIB, 16


class NotAFile(Exception):
    """What lies there in place of a file, to be read after the file's name."""


def _kind(mode):
    return _KINDS.get(stat.S_IFMT(mode), "no file")


class _Link(Exception):
    pass


def _step(name, directory, wanted_directory):
    """A descriptor (not open for reading) of a name in a directory; _Link with its target when it is one."""
    place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    mode = os.fstat(place).st_mode
    if stat.S_ISREG(mode) if not wanted_directory else stat.S_ISDIR(mode):
        return place
    try:
        if stat.S_ISLNK(mode):
            raise _Link(os.readlink("", dir_fd=place))
        if wanted_directory:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        raise NotAFile(f"is {_kind(mode)}")
    finally:
        os.close(place)


def _descend(directory, path):
    """A descriptor (not open for reading) of the regular file at a path below an open directory, or _Link."""
    parts = path.split("/")
    with contextlib.ExitStack() as stack:
        for position, part in enumerate(parts):
            last = position == len(parts) - 1
            try:
                place = _step(part, directory, not last)
            except _Link as link:
                raise _Link(posixpath.join("/".join(parts[:position]), str(link), *parts[position + 1 :])) from None
            if last:
                return place
            stack.callback(os.close, place)
            directory = place
    return None


def _locate(directory, path):
    """A descriptor (not open for reading) of the regular file that `path` below `directory` is."""
    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        real = os.path.realpath(directory)
        for _hop in range(_MOST_HOPS):
            try:
                return _descend(root, path)
            except _Link as link:
                target = str(link)
            for prefix in (directory, real):
                if target.startswith(prefix.rstrip("/") + "/"):
                    target = target[len(prefix.rstrip("/")) + 1 :]
            path = posixpath.normpath(target)
            if _CACHE_BLOB.match(path) and _CACHE_SNAPSHOT.search(real):
                return _blob(root, path)
            if path.startswith(("/", "../")) or path in (".", ".."):
                raise NotAFile(f"is a symbolic link that leads out of the model's directory ({printable(target, 120)})")
        raise NotAFile("is a symbolic link that leads nowhere")
    except _Link:
        raise NotAFile("is a symbolic link into the cache that leads on") from None
    finally:
        os.close(root)


def _blob(root, path):
    """The same for a blob of a Hugging Face cache, seen from one of its snapshots."""
    up = os.open("../..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    try:
        return _descend(up, path[len("../../") :])
    finally:
        os.close(up)


def open_file(directory, path, flags=os.O_RDONLY):
    """A descriptor of a file of a model. FileNotFoundError, or NotAFile that says what lies there instead."""
    place = _locate(directory, path)
    try:
        return os.open(f"/proc/self/fd/{place}", flags | os.O_CLOEXEC)
    finally:
        os.close(place)


def file_info(directory, path):
    """What stat says of a file of a model; errors as of open_file."""
    place = _locate(directory, path)
    try:
        return os.fstat(place)
    finally:
        os.close(place)


def readers(directory, path, info):
    """The bits of mode that let group and others read a file, as far as the model's directories let them come there."""
    bits = info.st_mode & 0o044
    while path:
        path = posixpath.dirname(path)
        mode = os.stat(os.path.join(directory, path)).st_mode
        bits &= (0o040 if mode & stat.S_IXGRP else 0) | (0o004 if mode & stat.S_IXOTH else 0)
    return bits


def size_of(directory, path):
    """Size of a file of a model, None where there is no such file."""
    try:
        return file_info(directory, path).st_size
    except (OSError, NotAFile):
        return None


def read_text(directory, path, limit):
    """The text of a small file of a model; ValueError when it is longer or no text."""
    with open(open_file(directory, path), "rb") as handle:
        data = handle.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} is longer than {format_bytes(limit)}")
    return data.decode("utf-8")


def names_below(directory, skip=CLIENT_LEFTOVERS, unfinished=False):
    """Relative paths of everything but directories below a directory, whatever it is, without clients' leftovers."""
    found = []
    for root, directories, names in os.walk(directory):
        links = [name for name in directories if os.path.islink(os.path.join(root, name))]
        directories[:] = [name for name in directories if name not in skip and name not in links]
        for name in (*names, *links):
            path = os.path.relpath(os.path.join(root, name), directory)
            if name not in skip and (unfinished or not name.endswith(".incomplete")) and path != MANIFEST_NAME:
                found.append(path)
    return sorted(found)


def files_below(directory):
    """Relative paths of the files of a model below a directory, without what clients and git keep there."""
    return [p for p in names_below(directory, (*CLIENT_LEFTOVERS, ".git")) if size_of(directory, p) is not None]


def kind_of(path):
    """What lies at a path, in words."""
    return _kind(os.lstat(path).st_mode)


def link_of_others(path):
    """The first symbolic link on the way to a path that is another account's, who may lead it anywhere; or None."""
    here, parts = "/", os.path.abspath(path).strip("/").split("/")
    for part in parts:
        here = os.path.join(here, part)
        try:
            info = os.lstat(here)
        except OSError:
            return None
        if stat.S_ISLNK(info.st_mode):
            if info.st_uid not in (0, os.geteuid()):
                return here
            here = os.path.realpath(here)
    return None


def up_to_link(directory, path):
    """The path itself, or that of the link on its way, which is what can be moved without following it."""
    parts = path.split("/")
    for length in range(1, len(parts)):
        above = "/".join(parts[:length])
        if os.path.islink(os.path.join(directory, above)):
            return above
    return path


def strangers(directory, paths):
    """{path: what is wrong} of those paths that a model cannot have as files."""
    found = {}
    for path in paths:
        try:
            info = file_info(directory, path)
        except NotAFile as reason:
            found[path] = str(reason)
        except FileNotFoundError:
            found[path] = "is a symbolic link that leads nowhere"
        else:
            if info.st_size > _LARGE and info.st_blocks * 512 < info.st_size // _LEAST_SHARE:
                size, real = format_bytes(info.st_size), format_bytes(info.st_blocks * 512)
                found[path] = f"has {size} by name and {real} on disk"
    return found


# --- writing -------------------------------------------------------------------------------------------------


def is_ours(info):
    """Whether a directory or file is this account's or root's, and nobody else may change what it holds."""
    return info.st_uid in (0, os.geteuid()) and not _others_may(info)


def _others_may(info):
    group_may = info.st_mode & stat.S_IWGRP and info.st_gid not in (0, os.getegid())
    return bool(group_may or info.st_mode & stat.S_IWOTH)


def _is_us(uid, directory):
    """Whether an account is ours, which on a network's file system may be another one than here."""
    return uid in (0, os.geteuid()) or uid == _account_there(directory)


def _account_there(directory):
    """The account that a file gets which we make in a directory."""
    path = os.path.join(directory, f".{secrets.token_hex(8)}.account")
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        return os.fstat(handle).st_uid
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):
            os.unlink(path)


def open_own(path, mode=0o644):
    """A small file that only we write, opened to be written and made where it is missing; never through a link.

    NotAFile when it is no regular file, has a second name or belongs to somebody else.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise NotAFile(f"is {_kind(os.lstat(path).st_mode)}") from None
        raise
    info = os.fstat(handle)
    if stat.S_ISREG(info.st_mode) and info.st_nlink == 1 and _is_us(info.st_uid, os.path.dirname(path)):
        return handle
    os.close(handle)
    if not stat.S_ISREG(info.st_mode):
        raise NotAFile(f"is {_kind(info.st_mode)}")
    raise NotAFile("has a second name" if info.st_nlink > 1 else f"belongs to uid {info.st_uid}")


def make_own_directory(path):
    """A directory beside a model that only we may enter; NotAFile when what is there is something else."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        info = os.lstat(path)
        if not stat.S_ISDIR(info.st_mode):
            raise NotAFile(f"is {_kind(info.st_mode)}") from None
        if info.st_uid == 0 != os.geteuid() or not _is_us(info.st_uid, os.path.dirname(path)):
            raise NotAFile(f"belongs to uid {info.st_uid}") from None
        os.chmod(path, 0o700)


def others_among(path):
    """(directory, reason) of the first directory on the way to `path` in which others may exchange what we write."""
    here = "/"
    for part in ("", *os.path.realpath(path).strip("/").split("/")):
        here = os.path.join(here, part)
        try:
            info = os.stat(here)
        except FileNotFoundError:
            return None
        sticky = info.st_mode & stat.S_ISVTX and info.st_uid in (0, os.geteuid())
        if not _is_us(info.st_uid, here):
            return here, f"belongs to uid {info.st_uid}"
        if not sticky and _others_may(info):
            return here, f"can be changed by others (mode {stat.S_IMODE(info.st_mode):04o}, gid {info.st_gid})"
    return None


def write_atomically(path, text, durable=True):
    """Replace a small file by one with this text."""
    temporary = f"{path}.{secrets.token_hex(8)}.new"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
