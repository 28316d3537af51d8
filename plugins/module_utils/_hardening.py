# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How little a container of a service may do, as arguments of community.docker.docker_container.

Each is a setting, and the defaults are the strictest that engines serve with. An operator loosens one for all services
in `vllm_container_settings`, or for one service under `container:`.
"""

from __future__ import annotations

SETTINGS = {
    "cap_drop": ["ALL"],
    "capabilities": [],
    "ipc_mode": "private",
    "memory": None,  # no limit: what an engine needs of the host's memory while it loads is not planned
    "no_new_privileges": True,
    "pids_limit": 16384,  # threads count; Ray starts a process for each core
    "read_only": True,
    "selinux": False,  # whether the container engine labels files; service_info tells
    "shm_size": None,  # what the layout needs, see shared_memory
    # Engines compile at start, and what they compile is loaded from there: no noexec.
    "tmpfs": ["/tmp:rw,exec,nosuid,nodev,size=8g"],
    "ulimits": ["core:0:0"],  # a core file would hold keys and prompts
}
_NO_NEW_PRIVILEGES = "no-new-privileges"
_PRIVATE_IPC = ("private", "shareable", "none")
# vLLM's queues take 240 MiB for each worker, and two more for the whole engine; NCCL some for each pair.
_SHM_BASE, _SHM_PER_WORKER, _SHM_RAY = 2, 1, 5


def arguments(settings, shm_size, needs=()):
    """The arguments for these settings.

    shm_size: what the engine needs where the operator says nothing. needs: capabilities that it cannot do without.
    """
    found = {
        "cap_drop": list(settings["cap_drop"]),
        "capabilities": list(dict.fromkeys([*settings["capabilities"], *needs])),
        "ipc_mode": settings["ipc_mode"],
        "pids_limit": settings["pids_limit"],
        "read_only": bool(settings["read_only"]),
        "security_opts": [f"{_NO_NEW_PRIVILEGES}:{'true' if settings['no_new_privileges'] else 'false'}"],
        "tmpfs": list(settings["tmpfs"]) if settings["read_only"] else [],
        "ulimits": list(settings["ulimits"]),
    }
    if settings["ipc_mode"] in _PRIVATE_IPC or settings["shm_size"]:
        found["shm_size"] = str(settings["shm_size"] or shm_size)
    if settings["shm_size"] and settings["ipc_mode"] not in _PRIVATE_IPC:
        found["ipc_mode"] = "private"  # the host's has a size of its own
    if settings["memory"]:
        found["memory"] = settings["memory"]
    return {key: value for key, value in found.items() if value != [] or key == "security_opts"}


def shared_memory(workers, options=None, ray=False):
    """How much /dev/shm one host's part of an engine needs, as `shm_size` wants it."""
    options = options or {}
    gib = _SHM_BASE + _SHM_PER_WORKER * max(1, workers) + (_SHM_RAY if ray else 0)
    if options.get("mm-processor-cache-type") == "shm":
        gib += _whole(options.get("mm-processor-cache-gb"), 4)
    gib += _whole(options.get("kv-offloading-size"), 0)  # the offloaded blocks lie there
    return f"{gib}g"


def _whole(value, default):
    try:
        return int(-(-float(value) // 1))
    except (TypeError, ValueError, OverflowError):
        return default


def volume(source, target, settings, writable=False):
    """A mount of ours. Where the engine labels files for SELinux, it is told to let containers read them."""
    options = [] if writable else ["ro"]
    if settings["selinux"]:
        options.append("z")
    return ":".join([source, target, *([",".join(options)] if options else [])])


def merged(key, ours, theirs):
    """A list of arguments with the operator's entries, which replace ours for the same thing."""
    separator = {"tmpfs": ":", "ulimits": ":"}.get(key)
    if key == "security_opts" and any(str(one).startswith(_NO_NEW_PRIVILEGES) for one in theirs):
        ours = [one for one in ours if not one.startswith(_NO_NEW_PRIVILEGES)]
    if separator is None:
        return [*ours, *(one for one in theirs if one not in ours)]
    return list({str(one).partition(separator)[0]: one for one in [*ours, *theirs]}.values())


def loosened(container, wishes):
    """Make of the shared memory in the arguments what the operator's wishes mean, in place."""
    if "shm_size" in wishes and "ipc_mode" not in wishes and container.get("ipc_mode") not in _PRIVATE_IPC:
        container["ipc_mode"] = "private"
    if "ipc_mode" in wishes and wishes["ipc_mode"] not in _PRIVATE_IPC and "shm_size" not in wishes:
        container.pop("shm_size", None)
    if wishes.get("read_only") is False and "tmpfs" not in wishes:
        container.pop("tmpfs", None)
