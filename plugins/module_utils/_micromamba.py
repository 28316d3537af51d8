# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a declared micromamba environment needs: compared with what is there, as commands to run."""

from __future__ import annotations

import json
import re

from ansible_collections.inferops.gpu_host.plugins.module_utils._redaction import redacted

SPEC_NAME = "inferops-environment.json"  # beside conda's own records, in conda-meta


def conda_specs(python, packages):
    """The packages as micromamba takes them; `python` is a version and comes first."""
    return ([f"python={python}"] if python else []) + list(packages)


def conda_name(spec):
    """The name in `conda-forge::numpy>=2.0`."""
    return re.split(r"[\s=<>!~\[]", spec.rpartition("::")[2].strip(), maxsplit=1)[0].lower()


def pip_name(requirement):
    """The name in `vLLM[audio]==0.26`, as installed metadata spell it."""
    return re.sub(r"[-_.]+", "_", re.split(r"[\s=<>!~\[;@]", requirement.strip(), maxsplit=1)[0]).lower()


def wanted_spec(python, packages, channels, pip, pip_index_url):
    """The declaration as data."""
    return {
        "packages": conda_specs(python, packages),
        "channels": list(channels),
        "pip": list(pip),
        "pip_index_url": pip_index_url,
    }


def recorded(wanted):
    """What is kept of it beside the environment, for everyone to read, and compared with the next declaration.

    From where something comes is not another thing when only the password differs.
    """
    return redacted(wanted)


def installed_conda(conda_meta_files):
    """Names of the packages whose records are in conda-meta: NAME-VERSION-BUILD.json."""
    return {
        name.rsplit("-", 2)[0].lower() for name in conda_meta_files if name.endswith(".json") and name.count("-") > 1
    }


def installed_pip(site_packages):
    """Names of the distributions in a site-packages listing: NAME-VERSION.dist-info."""
    return {pip_name(name.split("-")[0]) for name in site_packages if name.endswith(".dist-info")}


def reasons_to_act(wanted, last, conda, pip):
    """Why the environment must be touched; empty when it is as declared. `last` is None when it never was made."""
    if last is None:
        return ["it does not exist"]
    wanted = recorded(wanted)
    reasons = [f"{key} changed" for key in sorted(wanted) if wanted[key] != last.get(key)]
    lost = [s for s in wanted["packages"] if conda_name(s) not in conda] + [
        s for s in wanted["pip"] if pip_name(s) not in pip
    ]
    return reasons + [f"{spec} is missing" for spec in lost]


def conda_command(executable, root_prefix, prefix, wanted, exists, file=None):
    """The command that creates or updates the environment; `file` is where conda_file was written, if it was."""
    command = [executable, "install" if exists else "create", "--yes", "--root-prefix", root_prefix, "--prefix", prefix]
    if file:
        return [*command, "--file", file, "--override-channels"]
    for channel in wanted["channels"]:
        command += ["--channel", channel]
    if wanted["channels"]:
        command.append("--override-channels")
    return command + wanted["packages"]


def conda_file(wanted):
    """Channels and packages as a file, which nobody else reads, where a channel has a password; None where none has."""
    if redacted(wanted["channels"]) == wanted["channels"]:
        return None
    return json.dumps({"channels": wanted["channels"], "dependencies": wanted["packages"]})  # JSON is YAML


def pip_command(prefix, requirements):
    """The command that installs pip packages with the environment's own pip; see _pip_index for what goes with it."""
    return [f"{prefix}/bin/python", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *requirements]
