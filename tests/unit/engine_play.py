"""Plays of the docker role against the stand-in engine, in namespaces of their own: this machine's /etc, /run, /var and its
own Docker engine are out of their reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
STAND_IN = ROOT / "tests/stand_ins/engine"

# /etc and /var are layers over the real ones: what is written there ends in the test's directory.
SCRIPT = """
set -eu
mount -t tmpfs tmpfs /run
for name in etc var; do
  mkdir -p "$BASE/$name" "$BASE/$name.work"
  mount -t overlay overlay -o "lowerdir=/$name,upperdir=$BASE/$name,workdir=$BASE/$name.work" "/$name"
done
rm -rf /etc/docker /etc/inferops /etc/default/docker /var/log/dockerd.log
mkdir -p "$STAND_IN_ENGINE" /etc/docker /var/lib/docker
mount -t tmpfs tmpfs /var/lib/docker
for prepared in "$BASE"/before/*; do [ ! -e "$prepared" ] || cp -a "$prepared" /etc/docker/; done
dockerd 2>/var/log/dockerd.log &
for _ in $(seq 100); do [ -S /run/docker.sock ] && break; sleep 0.02; done
cp "$BASE/containers.json" "$STAND_IN_ENGINE" # it stops what it finds at its start, as dockerd does
exec "$@"
"""


def play(base, tasks, containers=(), daemon_json=None, version="28.5.1", *arguments, **variables):
    """Runs `tasks` and returns (exit code, output). `base` holds etc/ and var/ as they are afterwards."""
    (base / "before").mkdir()
    if daemon_json is not None:
        (base / "before/daemon.json").write_text(daemon_json)
    (base / "containers.json").write_text(json.dumps(list(containers)))
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "docker_start_timeout": 5,
        **variables,
    }
    (base / "hosts.yml").write_text(json.dumps({"all": {"hosts": {"gpu1": variables}}}))
    (base / "play.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    if os.geteuid():
        unshare[1:1] = ["--user", "--map-root-user"]
    done = subprocess.run(
        [
            *unshare,
            "sh",
            "-c",
            SCRIPT,
            "sh",
            str(PLAYBOOK),
            "-i",
            str(base / "hosts.yml"),
            *arguments,
            str(base / "play.yml"),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "BASE": str(base),
            "PATH": f"{STAND_IN}:{os.environ['PATH']}",
            "STAND_IN_ENGINE": "/run/stand-in",
            "STAND_IN_VERSION": version,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_LOCAL_TEMP": str(base / "tmp"),
            "ANSIBLE_REMOTE_TEMP": str(base / "tmp"),
            "TMPDIR": "/tmp",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    return done.returncode, done.stdout + done.stderr
