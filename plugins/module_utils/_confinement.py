# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A child process that may write below some directories only, and no file longer than it should be.

A hub's client runs with the rights of the play, and what it writes where depends on what the hub says. Landlock keeps
it inside whatever it is talked into. Kernels before 5.19 lack what is needed; there the other bounds hold alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on all architectures
_VERSION, _PATH_BENEATH = 1, 1
_NEEDED_VERSION = 2  # without it nothing can be renamed from one directory to another
_WRITE_FILE, _REFER, _TRUNCATE = 1 << 1, 1 << 13, 1 << 14
# Writing, removing and making whatever there is to make; reading and executing stay free.
_WRITING = _WRITE_FILE | sum(1 << bit for bit in range(4, 13)) | _REFER
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_DEVICES = ("/dev/null", "/dev/tty")


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def is_available():
    """Whether this kernel can keep a process inside directories."""
    return _version() >= _NEEDED_VERSION


def _version():
    return ctypes.CDLL(None, use_errno=True).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)


class confine:
    """For `preexec_fn`: the process ends with its parent, writes no longer file, and only below `writable`.

    `writable` is None where it may write anywhere. Afterwards close() it.
    """

    def __init__(self, writable, longest_file):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.longest_file = longest_file
        self.rules = _rules(self.libc, writable) if writable and is_available() else None

    def __call__(self):
        # A client whose module was killed must not go on writing behind the next run's back.
        self.libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.longest_file, self.longest_file))
        os.umask(0o022)
        if self.rules is not None:
            self.libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            if self.libc.syscall(_RESTRICT_SELF, self.rules, 0):
                raise OSError(ctypes.get_errno(), "cannot confine the client")

    def close(self):
        if self.rules is not None:
            os.close(self.rules)
            self.rules = None


def _rules(libc, writable):
    """A descriptor of the rules, closed by the process that it is given to."""
    handled = _WRITING | (_TRUNCATE if _version() >= 3 else 0)
    attributes = ctypes.c_uint64(handled)
    rules = libc.syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(8), 0)
    if rules < 0:
        raise OSError(ctypes.get_errno(), "cannot make rules for the client")
    for path in (*writable, *_DEVICES):
        with contextlib.suppress(FileNotFoundError):
            access = handled if path in writable else handled & (_WRITE_FILE | _TRUNCATE)
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                rule = _PathBeneath(access, place)
                if libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(rule), 0):
                    raise OSError(ctypes.get_errno(), f"cannot allow the client to write to {path}")
            finally:
                os.close(place)
    return rules
