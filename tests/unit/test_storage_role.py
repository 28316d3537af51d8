"""The role on hosts whose disks are sparse files: the tools of the system are stand-ins that write down what they were asked.

In a mount namespace of its own, so that /etc/fstab and all mounts are the test's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
UUID = "0a0a0a0a-0000-0000-0000-00000000000"

# lsblk, wipefs, mkfs.ext4, mount and others of one host. Its state is a directory; a disk begins with the name of what it holds.
TOOL = r"""#!/bin/sh
tool=${0##*/}
echo "$tool $*" >>"$STATE/calls"
for last; do :; done
held() { head -c 4 "$1" | tr -d '\0'; }
uuid() { head -c 40 "$1" | tail -c 36 | tr -d '\0'; }
case "$tool $*" in
lsblk*)
    if [ "$(grep -c ^lsblk "$STATE/calls")" = "$(cat "$STATE/somebody_comes_at" 2>/dev/null)" ]; then
        printf XFSB | dd of="$STATE/disk1" conv=notrunc status=none
    fi
    comma=
    printf '{"blockdevices": ['
    for disk in "$STATE"/disk*; do
        printf '%s{"name": "%s", "kname": "%s", "type": "disk", "size": 8388608, "ro": false, "maj:min": "999:%s",
            "serial": "%s"}' "$comma" "$disk" "$disk" "${disk##*disk}" "${disk##*/}"
        comma=,
    done
    echo ']}' ;;
*--no-act*)
    case $(held "$last") in XFSB) kind=xfs ;; EXT4) kind=ext4 ;; *) exit ;; esac
    printf '{"signatures": [{"type": "%s", "uuid": "%s", "label": null}]}' $kind "$(uuid "$last")" ;;
mkfs.ext4*)
    printf 'EXT4UUID%s' "${last##*disk}" | sed 's/UUID/@UUID@/' | dd of="$last" conv=notrunc status=none ;;
findmnt*)
    printf '/old\n   [E] known\n'
    ! grep -q ^mount "$STATE/calls" || printf '/other\n   [E] new\n' ;;
mount*)
    read -r spec target rest <<LINE
$(grep -F " $last " /etc/fstab)
LINE
    for disk in "$STATE"/disk*; do
        [ "UUID=$(uuid "$disk")" != "$spec" ] || exec /bin/mount -t tmpfs "$disk" "$target"
    done
    exit 1 ;;
esac
""".replace("@UUID@", UUID)


def run(tmp_path, hosts, times=1):
    """{host: (calls, …)} and what Ansible said. Each host: its variables, and `held`: {disk: (offset, bytes)}."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("lsblk", "wipefs", "partx", "findmnt", "blkid", "mkfs.ext4", "parted", "mount"):
        (tools / name).write_text(TOOL)
        (tools / name).chmod(0o755)
    inventory = {}
    for name, host in hosts.items():
        state = tmp_path / name
        state.mkdir()
        for disk, (offset, content) in host.pop("held").items():
            with (state / disk).open("wb") as file:
                file.truncate(8 * MIB)
                file.seek(offset)
                file.write(content)
        if "somebody_comes_at" in host:
            (state / "somebody_comes_at").write_text(str(host.pop("somebody_comes_at")))
        inventory[name] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "state": str(state),
            "storage_requirements": [],
            "storage_backup_dir": str(state / "backups"),
            **host,
        }
    (tmp_path / "fstab").write_text("# empty\n")
    (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"hosts": inventory}}))
    environment = {"PATH": f"{tools}:{os.environ['PATH']}", "STATE": "{{ state }}"}
    play = {
        "hosts": "all",
        "gather_facts": False,
        "environment": environment,
        "roles": ["inferops.gpu_host.storage"],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    (tmp_path / "extra.json").write_text(json.dumps({"__storage_packages": []}))  # nothing is installed for a test
    play = f"{PLAYBOOK} -i {tmp_path}/hosts.yml {tmp_path}/play.yml -e @{tmp_path}/extra.json"
    command = " && ".join(
        ["mount -t tmpfs none /mnt", f"mount --bind {tmp_path}/fstab /etc/fstab", *[f"({play} || true)"] * times]
    )
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", command],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_PIPELINING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    calls = {name: (tmp_path / name / "calls").read_text() for name in hosts}
    return calls, done.stdout + done.stderr


def empty(number=1):
    return {f"disk{number}": (0, b"")}


XFS = (0, b"XFSB")


def declared(name, number=1, **more):
    return {
        "serial": f"disk{number}",
        "format": True,
        "filesystem": "ext4",
        "mountpoint": f"/mnt/{name}{number}",
        **more,
    }


def made(calls):
    return [line.split()[0] for line in calls.splitlines() if line.startswith(("mkfs", "parted", "mount"))]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """One play over hosts with one trap each."""
    path = tmp_path_factory.mktemp("storage")
    hosts = {
        "refused": {
            "held": {"disk1": XFS, "disk2": (5 * MIB, b"x"), **empty(3)},
            "storage_disks": [declared("refused", number) for number in (1, 2, 3)],
        },
        "used_before_erasing": {
            "held": empty(),
            "somebody_comes_at": 2,
            "storage_disks": [declared("before")],
        },
        "used_before_mkfs": {
            "held": {"disk1": XFS},
            "somebody_comes_at": 3,
            "storage_disks": [declared("mkfs", erase=["xfs"])],
        },
        "mounted": {
            "held": {"disk1": (0, b"EXT4" + UUID.encode() + b"1")},
            "storage_disks": [declared("mounted", format=False)],
        },
    }
    calls, said = run(path, hosts)
    return path, calls, said


def test_what_is_there_is_mounted_by_its_uuid(result):
    path, calls, said = result
    assert made(calls["mounted"]) == ["mount"], said
    (line,) = [one for one in (path / "fstab").read_text().splitlines() if "mounted1" in one]
    options = "nofail,x-systemd.device-timeout=30s,x-systemd.before=docker.service,x-systemd.before=containerd.service"
    assert line == f"UUID={UUID}1 /mnt/mounted1 ext4 {options} 0 0"


def test_a_table_that_has_become_worse_is_a_failure(result):
    _path, _calls, said = result
    assert "findmnt --verify says of /etc/fstab: {'/other': ['new']}" in said


def test_one_refusal_stops_everything_on_its_host(result):
    _path, calls, said = result
    assert "Nothing was changed on refused" in said
    assert made(calls["refused"]) == [] and "--all" not in calls["refused"]
    assert "`erase: [xfs]` for this disk would give it up" in said
    assert "`erase: [data]` for this disk would give it up" in said


@pytest.mark.parametrize("host", ["used_before_erasing", "used_before_mkfs"])
def test_devices_are_looked_at_again_immediately_before_they_are_written_to(result, host):
    _path, calls, said = result
    assert f"Something has changed on {host} since the plan was made" in said
    assert made(calls[host]) == []


def test_what_is_given_up_is_erased_and_can_be_taken_back(result):
    path, calls, _said = result
    (copy,) = (path / "used_before_mkfs/backups").glob("disk1-*-at-0.bak")
    assert copy.read_bytes()[:4] == XFS[1]
    assert copy.stat().st_mode & 0o77 == 0
    assert "wipefs --all --backup" in calls["used_before_mkfs"]
    assert b"was given up" in (path / "used_before_mkfs/disk1").read_bytes()[:100]


@pytest.mark.slow
def test_a_given_up_disk_becomes_what_is_declared_and_a_second_run_changes_nothing(tmp_path):
    hosts = {"good": {"held": {"disk1": XFS}, "storage_disks": [declared("good", erase=["xfs"])]}}
    calls, said = run(tmp_path, hosts, times=2)
    assert made(calls["good"]) == ["mkfs.ext4", "mount"], said
    assert f"mkfs.ext4 {tmp_path}/good/disk1\n" in calls["good"]
    assert "nothing to do, mounted at /mnt/good1" in said
    assert "changed=0" in said.split("PLAY RECAP")[-1]
