# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking away what we made, known by its name, and nothing else.

A directory is never removed with what is in it: files go by name, then what is empty. Nothing here follows a link.
"""

from __future__ import annotations

import contextlib
import os
import re


def remove(directory, patterns, dry=False):
    """(what was removed, what is left) of a directory: files with our names go, and the directory when empty.

    patterns: regular expressions for whole names of files directly in it.
    """
    if os.path.islink(directory) or not os.path.isdir(directory):
        return [], []
    ours = [re.compile(pattern) for pattern in patterns]
    removed, left = [], []
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        known = any(pattern.fullmatch(name) for pattern in ours)
        if known and (os.path.isfile(path) or os.path.islink(path)):
            if not dry:
                os.unlink(path)
            removed.append(path)
        else:
            left.append(path)
    if not left:
        if not dry:
            with contextlib.suppress(OSError):  # somebody was faster, or a disk is mounted here
                os.rmdir(directory)
        removed.append(directory)
    return removed, left


def why_not_removable(directory, below, manifest):
    """Why a model's directory is not ours to remove, in words; None when it is.

    It is when it lies below the models' directory, wherever links lead, and holds our manifest; `manifest` is its name.
    """
    root, real = os.path.realpath(below), os.path.realpath(directory)
    lexical = os.path.abspath(directory).startswith(os.path.abspath(below).rstrip("/") + "/")
    if not (lexical and real.startswith(root.rstrip("/") + "/")):
        elsewhere = "" if real == os.path.abspath(directory) else f", which is {real},"
        return f"{directory}{elsewhere} does not lie below {below}"
    if os.path.lexists(real) and not os.path.isfile(os.path.join(real, manifest)):
        return f"{directory} holds no manifest of this collection, so somebody else brought it"
    return None
