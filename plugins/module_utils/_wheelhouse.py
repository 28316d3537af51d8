# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What pip is asked for when wheels are gathered for another Python and another glibc."""

from __future__ import annotations

import re

_NAME = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)")


def normalized_name(requirement):
    """The project name of a requirement or wheel file in its normal form (PEP 503): 'Foo_Bar>=1' → 'foo-bar'.

    Raises ValueError when the text does not begin with a name.
    """
    match = _NAME.match(requirement)
    if not match:
        raise ValueError(f"{requirement!r} does not begin with the name of a Python package")
    return re.sub(r"[-_.]+", "-", match.group(1)).lower()


def wheel_name(file_name):
    """The normalized project name of a wheel file (its part before the first dash)."""
    return normalized_name(file_name.split("-", 1)[0])


def dependencies(metadata, omit=()):
    """The requirements a wheel's METADATA declares without extras, less those named in `omit`."""
    omitted = {normalized_name(name) for name in omit}
    found = []
    for line in metadata.splitlines():
        if not line:
            break  # the headers end at the first empty line; the description may quote anything
        if line.startswith("Requires-Dist:"):
            requirement = line.split(":", 1)[1].strip()
            is_extra = "extra" in requirement.partition(";")[2]
            if not is_extra and normalized_name(requirement) not in omitted:
                found.append(requirement)
    return found


def target_arguments(python_version, architecture, glibc_minor):
    """pip's options that choose wheels for CPython `python_version` on Linux with glibc 2.`glibc_minor`.

    pip matches every platform tag literally, so each glibc from 2.5 (manylinux1) on has to be named.
    """
    abi = "cp" + python_version.replace(".", "")
    arguments = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python_version]
    for tag in (abi, "abi3", "none"):
        arguments += ["--abi", tag]
    for minor in range(glibc_minor, 4, -1):
        arguments += ["--platform", f"manylinux_2_{minor}_{architecture}"]
    for legacy in ("manylinux2014", "manylinux2010", "manylinux1", "linux"):
        arguments += ["--platform", f"{legacy}_{architecture}"]
    return arguments
