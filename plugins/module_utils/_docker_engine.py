# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What files, logs and inspections tell about a Docker engine: its options, why it failed, which containers it runs."""

from __future__ import annotations

import os
import re
import shlex

# dockerd's options whose name is not the daemon.json key (repeatable options are singular on the command line).
_OPTION_TO_KEY = {
    "add-runtime": "runtimes",
    "authorization-plugin": "authorization-plugins",
    "cdi-spec-dir": "cdi-spec-dirs",
    "default-address-pool": "default-address-pools",
    "default-ulimit": "default-ulimits",
    "dns-opt": "dns-opts",
    "exec-opt": "exec-opts",
    "graph": "data-root",
    "host": "hosts",
    "http-proxy": "proxies",
    "https-proxy": "proxies",
    "insecure-registry": "insecure-registries",
    "label": "labels",
    "log-opt": "log-opts",
    "network-control-plane-mtu": "network-control-plane-mtu",
    "no-proxy": "proxies",
    "node-generic-resource": "node-generic-resources",
    "registry-mirror": "registry-mirrors",
    "storage-opt": "storage-opts",
}
_SHORT_TO_KEY = {
    "-D": "debug",
    "-G": "group",
    "-H": "hosts",
    "-b": "bridge",
    "-g": "data-root",
    "-l": "log-level",
    "-p": "pidfile",
    "-s": "storage-driver",
}
# From the most to the least telling.
_FATAL_PHRASES = (
    "unable to configure the docker daemon",
    "failed to start daemon",
    "failed to load listeners",
    "level=fatal",
    "level=error",
)


_LONGEST_LINE = 4096  # what a shell's words are taken from, which takes its time


def environment(text):
    """The assignments of an environment file (/etc/default/docker and the like) as a dict."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)$", line[:_LONGEST_LINE])
        if match and len(line) < _LONGEST_LINE:
            try:
                found[match.group(1)] = " ".join(shlex.split(match.group(2), comments=True))
            except ValueError:  # an unbalanced quote: systemd skips such a line too
                continue
    return found


def _assignments(words):
    return dict(word.split("=", 1) for word in words if "=" in word)


def unit_settings(systemctl_cat):
    """Reads the output of `systemctl cat docker.service`.

    Returns exec_start ({argv, source}, or None), environment (dict) and environment_files (list of paths),
    after the drop-ins have had their say. `source` is the file the command line was read from.
    """
    exec_start, env, env_files = None, {}, []
    source, section = "docker.service", ""
    for line in re.sub(r"\\\n\s*", " ", systemctl_cat).splitlines():
        line = line.strip()
        header = re.match(r"# (/\S+)$", line)
        if header:
            source = header.group(1)
        elif line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and line[0] not in "#;":
            name, value = (part.strip() for part in line.split("=", 1))
            if name == "ExecStart":
                exec_start = {"argv": shlex.split(value.lstrip("-@:+!")), "source": source} if value else None
            elif name == "Environment":
                env = dict(env, **_assignments(shlex.split(value))) if value else {}
            elif name == "EnvironmentFile":
                env_files = [*env_files, value.lstrip("-")] if value else []
    return {"exec_start": exec_start, "environment": env, "environment_files": env_files}


def expand(argv, env):
    """argv as systemd would run it: a word that is only $NAME splits into words, ${NAME} is replaced in place."""
    words = []
    for word in argv:
        alone = re.match(r"\$([A-Za-z_]\w*)$", word)
        if alone:
            words += shlex.split(env.get(alone.group(1), ""))
        else:
            words.append(re.sub(r"\$\{(\w+)\}", lambda match: env.get(match.group(1), ""), word))
    return words


def configured_keys(argv):
    """The daemon.json keys that a dockerd command line already sets: {key: the option as written}."""
    keys = {}
    for word in argv[1:]:
        if word.startswith("--"):
            option = word[2:].split("=", 1)[0]
            keys.setdefault(_OPTION_TO_KEY.get(option, option), "--" + option)
        elif word[:2] in _SHORT_TO_KEY:
            keys.setdefault(_SHORT_TO_KEY[word[:2]], word[:2])
    return keys


def option_value(argv, option):
    """The value of the last `--option value` or `--option=value`; empty when it is not given."""
    value = ""
    for word, following in zip(argv, [*argv[1:], ""]):
        if word == option:
            value = following
        elif word.startswith(option + "="):
            value = word.partition("=")[2]
    return value


def failure_reason(log):
    """The line of a dockerd log that says why it did not start, without its time stamp; empty when there is none."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for phrase in _FATAL_PHRASES:
        for line in reversed(lines):
            if phrase in line.lower():
                message = re.search(r'msg="((?:[^"\\]|\\.)*)"', line)
                return message.group(1).replace('\\"', '"') if message else line
    return lines[-1] if lines else ""


def data_root(config, argv, default):
    """Where an engine with this configuration and command line keeps its data."""
    given = [option_value(argv, option) for option in ("--data-root", "--graph", "-g")]
    return config.get("data-root") or config.get("graph") or next((value for value in given if value), "") or default


def same_root(one, other):
    """Whether two data roots are one; an engine that maps user IDs names a directory below the one asked for."""
    plain = [os.path.realpath(re.sub(r"/\d+\.\d+/?$", "", path)) for path in (one, other)]
    return plain[0] == plain[1]


def impostor(info, version, traces):
    """What is taken for Docker here and is no engine of this host's own, with the way out; empty when all is well.

    `traces` says what lies on the disk: {snap, desktop, podman: bool, users: [names], system: bool}.
    """
    components = [str(part.get("Name", "")) for part in version.get("Components") or []]
    if traces["podman"] or any(name.startswith("Podman") for name in components):
        return (
            "podman answers in Docker's place (package podman-docker). Remove that package, which leaves podman itself "
            "alone (docker_remove_packages: [podman-docker]), or the link /run/docker.sock, if that is all there is."
        )
    if traces["snap"] or str(info.get("DockerRootDir", "")).startswith("/var/snap/"):
        return (
            "Docker is installed as a snap, which is confined and gives containers no GPUs. Save what it holds in "
            "/var/snap/docker/common, remove it (snap remove docker), and run again."
        )
    if traces["desktop"] or str(info.get("OperatingSystem", "")).startswith("Docker Desktop"):
        return (
            "Docker Desktop is installed, whose engine runs in a virtual machine without this host's GPUs. Remove it "
            "(package docker-desktop), and run again."
        )
    if traces["users"] and not traces["system"] and not info:
        return (
            "Docker runs here only without root, for %s, and the system's engine is switched off. Name that user in "
            "docker_rootless_user to have both, or switch the system's engine on: systemctl enable --now docker."
            % ", ".join(traces["users"])
        )
    return ""


def fates(before, after):
    """What became of the containers that ran before, in words."""
    now = {container["id"]: container for container in after}
    told = []
    for container in before:
        found = now.get(container["id"])
        if not found:
            fate = "does not run any more"
        elif found["started_at"] == container["started_at"]:
            fate = "kept running"
        else:
            fate = "was stopped and runs again"
        told.append("%s %s" % (container["name"], fate))
    return ", ".join(told)


def gpu_claim(container):
    """Why this container (as `docker inspect` shows it) is one that uses GPUs; empty when it is not."""
    host = container.get("HostConfig") or {}
    config = container.get("Config") or {}
    for request in host.get("DeviceRequests") or []:
        ids = request.get("DeviceIDs") or []
        capabilities = [name for group in request.get("Capabilities") or [] for name in group]
        cdi = any(device.startswith("nvidia.com/gpu") for device in ids)
        if request.get("Driver") == "nvidia" or "gpu" in capabilities or cdi:
            count = request.get("Count") or 0
            return "asks for GPUs: " + (", ".join(ids) or (str(count) if count > 0 else "all"))
    for device in host.get("Devices") or []:
        if str(device.get("PathOnHost", "")).startswith("/dev/nvidia"):
            return "holds " + device["PathOnHost"]
    if host.get("Runtime") == "nvidia":
        visible = _assignments(config.get("Env") or []).get("NVIDIA_VISIBLE_DEVICES", "")
        if visible not in ("", "void", "none"):
            return "runtime nvidia with NVIDIA_VISIBLE_DEVICES=" + visible
    return ""


def running_containers(containers, labels):
    """Inspected containers as [{name, id, image, reason, started_at, auto_remove}], sorted by name.

    `reason` says why a restart of the engine must not stop the container unasked: it uses GPUs, or carries one of
    `labels`. It is empty for the others.
    """
    listed = []
    for container in containers:
        config = container.get("Config") or {}
        marked = [label for label in labels if label in (config.get("Labels") or {})]
        listed.append(
            {
                "name": container.get("Name", "").lstrip("/"),
                "id": container.get("Id", "")[:12],
                "image": config.get("Image", ""),
                "reason": gpu_claim(container) or ("carries the label " + marked[0] if marked else ""),
                "started_at": (container.get("State") or {}).get("StartedAt", ""),
                "auto_remove": bool((container.get("HostConfig") or {}).get("AutoRemove")),
            }
        )
    return sorted(listed, key=lambda item: item["name"])
