# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""daemon.json and the memory beside it on the disk: found, locked, read with bounds, written whole. No decisions."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import tempfile
import time

from ansible_collections.inferops.gpu_host.plugins.module_utils import _daemon_json as daemon_json
from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_engine import option_value
from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_host import UnreadableFileError, read_text

MEMORY_COMMENT = "What inferops.gpu_host.docker_daemon_config has set in daemon.json, and for whom. Not read by Docker."
LOCK_TIMEOUT = 60
POLL_INTERVAL = 0.2


class Store:
    """daemon.json and the memory beside it. Every write is atomic and done as the engine's user."""

    def __init__(self, module, host):
        self.module = module
        self.host = host
        read_by_engine = option_value(host.command_line()["argv"], "--config-file") or host.config_file
        self.named = module.params["path"] or read_by_engine
        # Another file is nothing to this engine: it is not told of it, and need not restart for it.
        self.is_read_by_engine = os.path.realpath(self.named) == os.path.realpath(read_by_engine)
        self.path = self._follow(self.named)
        self.memory_path = self.named + ".managed"
        self.lock_path = os.path.join(os.path.dirname(self.path), ".%s.lock" % os.path.basename(self.path))

    def _follow(self, path):
        """The file that is meant: where a link leads, unless somebody else could put there what the engine reads."""
        if not os.path.islink(path):
            return path
        target = os.path.realpath(path)
        with self.as_engine_user():
            try:
                found, directory = os.stat(target), os.stat(os.path.dirname(target))
            except OSError as error:
                self.module.fail_json(
                    msg="%s is a link to %s, which cannot be used: %s. Make that file, or remove the link."
                    % (path, target, os.strerror(error.errno))
                )
        for name, entry in ((target, found), (os.path.dirname(target), directory)):
            if entry.st_uid != self.host.uid or entry.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                self.module.fail_json(
                    msg="%s is a link to %s, and %s can be changed by others than the engine's user. "
                    "Make daemon.json a file of its own, or give them to that user." % (path, target, name)
                )
        return target

    @contextlib.contextmanager
    def as_engine_user(self):
        """A user's directory is not written as root: the user could have put a link there."""
        if os.geteuid() == self.host.uid or os.geteuid() != 0:
            yield
            return
        os.setegid(self.host.gid)
        os.seteuid(self.host.uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)

    @contextlib.contextmanager
    def lock(self):
        """One for all owners and users of this file. Nobody but the engine's user can hold it."""
        if self.module.check_mode:
            yield
            return
        deadline = time.monotonic() + LOCK_TIMEOUT
        descriptor = self._open_lock()
        try:
            while not self._locked(descriptor):
                if time.monotonic() > deadline:
                    self.module.fail_json(
                        msg="another run has held the lock %s for %d s; nothing was changed. Let it end, and run again."
                        % (self.lock_path, LOCK_TIMEOUT)
                    )
                time.sleep(POLL_INTERVAL)
                os.close(descriptor)  # the one who held it may have removed it
                descriptor = self._open_lock()
            yield
        finally:
            os.close(descriptor)

    def _open_lock(self):
        with self.as_engine_user():
            os.makedirs(os.path.dirname(self.lock_path), mode=0o755, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            try:
                return os.open(self.lock_path, flags, 0o600)
            except OSError as error:
                self.module.fail_json(
                    msg="the lock %s cannot be opened: %s" % (self.lock_path, os.strerror(error.errno))
                )

    def remove_lock(self):
        """For the one who holds it and leaves nothing else behind."""
        with self.as_engine_user(), contextlib.suppress(OSError):
            os.unlink(self.lock_path)

    @staticmethod
    def _locked(descriptor):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            return False
        return os.fstat(descriptor).st_nlink > 0  # else it was removed between opening and locking

    def read(self, path):
        """The text of the file; None when there is none."""
        with self.as_engine_user():
            try:
                return read_text(path)
            except FileNotFoundError:
                return None
            except UnreadableFileError as error:
                self.module.fail_json(msg=str(error))
            except OSError as error:
                self.module.fail_json(msg="%s cannot be read: %s" % (path, os.strerror(error.errno)))

    def mode(self):
        """The mode of daemon.json; None when there is none."""
        with self.as_engine_user():
            return stat.S_IMODE(os.stat(self.path).st_mode) if os.path.exists(self.path) else None

    def write(self, path, text, mode):
        """Replaces the file, or removes it for None. What exists keeps its owner and of its mode what `mode` has."""
        with self.as_engine_user():
            if text is None:
                if os.path.lexists(path):
                    os.unlink(path)
                return
            directory = os.path.dirname(path)
            os.makedirs(directory, mode=0o755, exist_ok=True)
            descriptor, new = tempfile.mkstemp(prefix=".ansible-", dir=directory)
            with open(descriptor, "w", encoding="utf-8", newline="") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            if os.path.isfile(path) and not os.path.islink(path):
                os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) & mode)  # before the new text is in it
                self.module.atomic_move(new, path)  # takes over the mode, owner and context of the old file
            else:
                os.chmod(new, mode)
                os.rename(new, path)

    def write_config(self, text, mode=None):
        """daemon.json itself. Nobody else reads a password, and a file without one may be read as before."""
        if text is not None and daemon_json.holds_secret(text):
            self.write(self.path, text, 0o600)
            return
        self.write(self.path, text, 0o777 if os.path.exists(self.path) else 0o644)
        if text is not None and mode is not None:
            with self.as_engine_user():
                os.chmod(self.path, mode)

    def back_up(self, text):
        with self.as_engine_user():
            copy = self.module.backup_local(self.path)
            if copy and daemon_json.holds_secret(text):
                os.chmod(copy, 0o600)
        return copy

    def remembers(self):
        """Whether there is anything that this collection has set, or that is under way."""
        return os.path.lexists(self.memory_path)

    def read_memory(self):
        text = self.read(self.memory_path)
        try:
            memory = json.loads(text) if text else {}
            owners, unread, found = memory.get("owners", {}), memory.get("unread"), memory.get("found", [])
            for name, paths in owners.items():
                _words([name, *(key for path in paths for key in path)])
            for entry in found:
                json.loads(entry["text"])
                _words(entry["path"])
            if unread is not None:
                unread = dict({"found": [], "mode": None, "reverting": False}, **unread)
                _words([unread["engine"], unread["text"] or ""])
                unread["owners"].items()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self.module.fail_json(
                msg="%s is damaged (%s). Remove it; the keys of daemon.json then count as foreign until set again."
                % (self.memory_path, str(error)[:200])
            )
        return {"owners": owners, "found": found, "unread": unread}

    def write_memory(self, memory):
        if memory["owners"] or memory["unread"]:
            content = dict({"comment": MEMORY_COMMENT}, **memory)
            self.write(self.memory_path, json.dumps(content, indent=2, sort_keys=True) + "\n", 0o600)
        else:
            self.write(self.memory_path, None, 0o600)


def _words(values):
    for value in values:
        if not isinstance(value, str):
            raise TypeError("%.40r where a word is wanted" % (value,))
