# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reaching the Docker engine of this machine: its socket, its process, its service manager. All I/O, no decisions."""

from __future__ import annotations

import glob
import http.client
import json
import os
import pwd
import shutil
import socket
import time
from urllib.parse import quote

from ansible_collections.inferops.gpu_host.plugins.module_utils import _bounded_http
from ansible_collections.inferops.gpu_host.plugins.module_utils._docker_engine import environment, expand, unit_settings
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import (
    UntrustedError,
    bounded_json,
    read_file,
)

LONGEST_ANSWER = 64 * MIB  # of a host with a thousand containers

MAX_FILE_BYTES = MIB
MAX_LOG_BYTES = 256 * 1024
# Where the engine keeps what it has; more than this many of a kind need not be counted.
_HOLDINGS = {
    "containers": ["containers/*"],
    "images": ["image/*/imagedb/content/sha256/*"],
    "volumes": ["volumes/*/_data"],
}
_ENOUGH = 1000
# Debian's unit and docker_engine read it at every start of the engine.
ENVIRONMENT_FILE = "/etc/default/docker"


class UnreadableFileError(Exception):
    """What is there is no file of a reasonable size; the message names it."""


def read_text(path, limit=MAX_FILE_BYTES):
    """The text of a file, with byte order mark and line ends. Never waits for a writer, never reads without a bound."""
    os.stat(path)  # that there is none is for the caller to judge
    try:
        return read_file(path, error=UnreadableFileError, limit=limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableFileError("%s is not UTF-8 text: %s" % (path, error)) from None


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class DockerHost:
    """The engine of the system, or the rootless one of `user`."""

    def __init__(self, module, user=None):
        self.module = module
        self.user = user
        if user:
            try:
                account = pwd.getpwnam(user)
            except KeyError:
                module.fail_json(msg="user %s does not exist on this host; create it first, or name another one" % user)
            self.uid, self.gid = account.pw_uid, account.pw_gid
            runtime_dir = "/run/user/%d" % account.pw_uid
            self.config_file = os.path.join(account.pw_dir, ".config/docker/daemon.json")
            self.default_data_root = os.path.join(account.pw_dir, ".local/share/docker")
            self.as_user = ["runuser", "-u", user, "--", "env", "XDG_RUNTIME_DIR=" + runtime_dir]
            self.systemctl = [*self.as_user, "systemctl", "--user"]
            self.unit_directories = ["/etc/systemd/user", os.path.join(account.pw_dir, ".config/systemd/user")]
        else:
            self.uid = self.gid = 0
            runtime_dir = "/run"
            self.config_file = "/etc/docker/daemon.json"
            self.default_data_root = "/var/lib/docker"
            self.as_user = []
            self.systemctl = ["systemctl"]
            self.unit_directories = ["/usr/lib/systemd/system", "/run/systemd/system", "/etc/systemd/system"]
        self.socket = os.path.join(runtime_dir, "docker.sock")
        elsewhere = os.environ.get("DOCKER_HOST", "")
        if not user and elsewhere.startswith("unix://"):
            self.socket = elsewhere[len("unix://") :]  # where Ansible's Docker modules go, too
        self.pid_file = os.path.join(runtime_dir, "docker.pid")
        self.has_systemd = os.path.isdir("/run/systemd/system")
        self.log_file = "/var/log/dockerd.log"  # of an engine that was started without systemd

    def get(self, path, timeout=10):
        """The answer of the engine's API as data; None when it does not answer."""
        try:
            # Labels and environments of containers are in it, which others write.
            return bounded_json(self.get_bytes(path, timeout) or b"null", "the engine's answer", limit=LONGEST_ANSWER)
        except UntrustedError:
            return None

    def get_bytes(self, path, timeout=10):
        """The answer of the engine's API as it came; None when it does not answer."""
        status, body = self.call("GET", path, timeout=timeout)
        return body if status == 200 else None

    def call(self, method, path, body=None, timeout=10):
        """(HTTP status, answer) of the engine's API; the status is 0 when it does not answer, the answer says why."""
        connection = _UnixConnection(self.socket, timeout)
        try:
            headers = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, _bounded_http.read(response, LONGEST_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error).encode("utf-8")
        finally:
            connection.close()

    def run(self, argv):
        """(rc, stdout, stderr) of a command that is allowed to be missing."""
        if not shutil.which(argv[0]):
            return 127, "", argv[0] + " is not installed"
        return self.module.run_command(argv)

    def pid(self):
        """The process id of the running engine, or None."""
        if self.has_systemd:
            shown = self.run([*self.systemctl, "show", "docker.service", "--property", "MainPID"])[1]
            main_pid = shown.strip().partition("=")[2]
            if main_pid not in ("", "0"):
                return int(main_pid)
        try:
            with open(self.pid_file, encoding="ascii") as stream:
                pid = int(stream.read())
        except (OSError, ValueError):
            return None
        return pid if self.process_start(pid) else None

    @staticmethod
    def process_start(pid):
        """When the process started, in clock ticks since boot; empty for none and for a zombie."""
        try:
            with open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as stream:
                fields = stream.read().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] == "Z" else fields[19]

    def identity(self):
        """A name for this very run of the engine, which no other run will have; empty when it is not running."""
        pid = self.pid()
        if not pid:
            return ""
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
                boot = stream.read().strip()
        except OSError:
            boot = "boot"
        return "%s/%d/%s" % (boot, pid, self.process_start(pid))

    # --- what the engine says and keeps ------------------------------------------------------------------------------

    def log_mark(self):
        """A place in the engine's log, for log_since()."""
        try:
            return {"time": time.time(), "size": os.path.getsize(self.log_file)}
        except OSError:
            return {"time": time.time(), "size": 0}

    def log_since(self, mark):
        """What the engine has written since then, as far as it can be found."""
        if self.has_systemd:
            unit = "_SYSTEMD_USER_UNIT=docker.service" if self.user else "_SYSTEMD_UNIT=docker.service"
            since = "@%d" % int(mark["time"])
            argv = ["journalctl", unit, "--since", since, "--no-pager", "--output", "cat", "--lines", "200"]
            return self.run(argv)[1]
        try:
            with open(self.log_file, "rb") as stream:
                stream.seek(mark["size"])
                return stream.read(MAX_LOG_BYTES).decode("utf-8", "replace")
        except OSError:
            return ""

    def reloads_since(self, moment):
        """Whether the engine has told of a reload since then; None when it cannot be asked."""
        filters = quote(json.dumps({"type": {"daemon": True}, "event": {"reload": True}}))
        path = "/events?since=%.9f&until=%.9f&filters=%s" % (moment, time.time() + 0.01, filters)
        answer = self.get_bytes(path, timeout=5)
        return None if answer is None else b'"reload"' in answer

    def holdings(self, root):
        """How many containers, images and volumes lie below a data root, whether or not an engine runs with it."""
        held = {}
        roots = [root, *glob.glob(os.path.join(glob.escape(root), "[0-9]*.[0-9]*"))]  # one per mapping of user IDs
        for kind, patterns in _HOLDINGS.items():
            found = (
                path for base in roots for pattern in patterns for path in glob.iglob(glob.escape(base) + "/" + pattern)
            )
            held[kind] = sum(1 for _path, _number in zip(found, range(_ENOUGH)))
        return held

    def traces(self):
        """Signs on the disk of what impostor() knows."""
        link = os.path.realpath(shutil.which("docker") or "/usr/bin/docker")
        users = []
        for path in glob.glob("/run/user/*/docker.sock"):
            try:
                users.append(pwd.getpwuid(int(path.split("/")[3])).pw_name)
            except (KeyError, ValueError):
                continue
        enabled = self.run([*self.systemctl, "is-enabled", "--quiet", "docker.service"])[0] == 0
        return {
            "snap": os.path.exists("/snap/docker/current") or link.startswith("/snap/"),
            "desktop": os.path.exists("/opt/docker-desktop") or "docker-desktop" in link,
            "podman": os.path.exists("/usr/share/doc/podman-docker") or "podman" in os.path.realpath(self.socket),
            "users": sorted(users),
            "system": bool(self.pid()) or not self.has_systemd or enabled,
        }

    def is_swarm_member(self, info, root):
        """Whether the engine belongs to a swarm; a stopped one has written so below its data root."""
        if info:
            return (info.get("Swarm") or {}).get("LocalNodeState") not in (None, "", "inactive")
        return os.path.exists(os.path.join(root, "swarm/docker-state.json"))

    @staticmethod
    def environment_file(path=ENVIRONMENT_FILE):
        """The variables that the file sets; none when there is no file."""
        try:
            return environment(read_text(path))
        except (OSError, UnreadableFileError):
            return {}

    def _unit(self):
        """The unit and its drop-ins, also those that systemd will only see after its next daemon-reload."""
        rc, text, _error = self.run([*self.systemctl, "cat", "docker.service"])
        if rc != 0:
            return ""
        for directory in self.unit_directories:
            for path in sorted(glob.glob(directory + "/docker.service.d/*.conf")):
                if "# %s\n" % path not in text:
                    try:
                        text += "\n# %s\n%s\n" % (path, read_text(path))
                    except (OSError, UnreadableFileError):
                        continue  # systemd would not read it either
        return text

    def command_line(self):
        """How the engine is started the next time: {argv, environment, source}."""
        if self.has_systemd:
            settings = unit_settings(self._unit())
            if settings["exec_start"]:
                env = dict(settings["environment"])
                for path in settings["environment_files"]:
                    env.update(self.environment_file(path))
                start = settings["exec_start"]
                return {"argv": expand(start["argv"], env), "environment": env, "source": start["source"]}
        env = self.environment_file()
        pid = self.pid()
        if pid:
            with open("/proc/%d/cmdline" % pid, "rb") as stream:
                argv = [word.decode("utf-8", "replace") for word in stream.read().split(b"\0")[:-1]]
            return {"argv": argv, "environment": env, "source": "the running dockerd (process %d)" % pid}
        return {"argv": expand(["dockerd", "$DOCKER_OPTS"], env), "environment": env, "source": ENVIRONMENT_FILE}
