"""What the role peers leaves on hosts that serve together: closed ports and tokens. Real plays on two hosts of this machine."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
ROLE = ROOT / "roles" / "peers"
NFT = """#!/bin/sh
state=$(dirname "$0")/loaded
case "$1" in
  --version) echo nftables v1.1 ;;
  list) cat "$state" 2>/dev/null; [ -s "$state" ] ;;
  --file) cat > "$state.new"; grep -q "chain input" "$state.new" && mv "$state.new" "$state" || rm -f "$state" ;;
esac
"""
GROUP = {
    "name": "demo",
    "service": "demo",
    "hosts": ["a", "b"],
    "head": "a",
    "closed": ["28501", "11000-11999"],
    "token": True,
}
ADDRESSES = {"a": {"address": "10.0.0.1"}, "b": {"address": "10.0.0.2"}}


class Hosts:
    def __init__(self, directory):
        self.directory = directory
        (directory / "bin").mkdir()
        nft = directory / "bin" / "nft"
        nft.write_text(NFT)
        nft.chmod(0o755)

    def play(self, steps, *arguments, **variables):
        """The output of a play with these files of the role's tasks, told as loudly as it can be. steps: {file: hosts}."""
        here = f"{self.directory}/{{{{ inventory_hostname }}}}"
        given = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "peers_addresses": ADDRESSES,
            "peers_groups": [GROUP],
            "peers_ray_token_dir": here + "/ray",
            "__peers_mine": "{{ peers_groups }}",
            "__peers_group": GROUP,
            "__peers_firewall_dir": f"{self.directory}/firewall",
            "__peers_units": {name: f"{here}/units/{name}" for name in ("inferops-firewall.service", "nftables.conf")},
            "__peers_unit_link": here + "/units/wants/inferops-firewall.service",
            **variables,
        }
        plays = [
            {
                "hosts": where,
                "gather_facts": False,
                "tasks": [{"ansible.builtin.include_role": {"name": "inferops.gpu_host.peers", "tasks_from": name}}],
            }
            for name, where in steps.items()
        ]
        play = self.directory / "play.yml"
        play.write_text(json.dumps(plays))
        values = self.directory / "values.json"
        values.write_text(json.dumps(given))
        done = subprocess.run(
            [str(PLAYBOOK), "-i", "a,b,", "-e", f"@{values}", "-vvv", "--diff", *arguments, str(play)],
            cwd=ROOT,
            env={**os.environ, "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def tree(self):
        found = sorted(path for path in self.directory.rglob("*") if path.parent.name != "bin")
        return [str(path.relative_to(self.directory)) for path in found if path.is_file() or path.is_symlink()]


def changed(output):
    return [int(number) for number in re.findall(r"changed=(\d+)", output.partition("PLAY RECAP")[2])]


ALL = {"firewall": "a", "ray_token": "all"}


def test_ports_are_closed_and_tokens_shared(tmp_path):
    hosts = Hosts(tmp_path)
    code, output = hosts.play(ALL)
    assert code == 0, output[-3000:]
    tokens = [(tmp_path / host / "ray" / "demo.token").read_text() for host in ("a", "b")]
    assert tokens[0] == tokens[1] and re.fullmatch(r"[0-9a-fA-F]{64}", tokens[0])
    assert tokens[0] not in output and base64.b64encode(tokens[0].encode()).decode() not in output
    for host in ("a", "b"):
        assert (tmp_path / host / "ray" / "demo.token").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / host / "ray").stat().st_mode & 0o777 == 0o700
    unit = tmp_path / "a" / "units" / "inferops-firewall.service"
    assert "/etc/inferops/firewall/table.nft" in unit.read_text()
    assert (tmp_path / "a" / "units" / "wants" / unit.name).resolve() == unit
    loaded = (tmp_path / "bin" / "loaded").read_text()
    assert "ip saddr { 10.0.0.1, 10.0.0.2 } tcp dport { 11000-11999, 28501, " in loaded and "counter drop" in loaded


@pytest.mark.slow
def test_looking_changes_nothing_and_what_is_there_stays(tmp_path):
    hosts = Hosts(tmp_path)
    nothing = sorted([*hosts.tree(), "play.yml", "values.json"])
    code, output = hosts.play(ALL, "--check")
    assert code == 0, output[-3000:]
    assert hosts.tree() == nothing

    hosts.play(ALL)
    there, token = hosts.tree(), (tmp_path / "b" / "ray" / "demo.token").read_text()
    code, output = hosts.play(ALL)
    assert code == 0 and changed(output) == [0, 0], output[-3000:]
    assert token not in output and (tmp_path / "a" / "ray" / "demo.token").read_text() == token
    assert hosts.tree() == there

    code, output = hosts.play({"firewall": "a"}, peers_firewall=False)  # the operator closes them in another way
    assert code == 0, output[-3000:]
    assert not (tmp_path / "bin" / "loaded").exists() and not (tmp_path / "firewall").exists()

    hosts.play({"firewall": "a"})
    code, output = hosts.play({"open": "all"}, peers_gone=["demo"])
    assert code == 0, output[-3000:]
    assert hosts.tree() == nothing, "something of ours was left"


def tasks_of(name):
    return yaml.safe_load((ROLE / "tasks" / f"{name}.yml").read_text())


def test_ports_are_closed_before_it_is_proven_that_peers_pass():
    order = [(task.get("ansible.builtin.include_tasks") or {}).get("file") for task in tasks_of("main")]
    assert order.index("network.yml") < order.index("firewall.yml") < order.index("reach.yml")
    assert order.index("ray_token.yml") < len(order)
    (closing,) = [task for task in tasks_of("main") if "firewall.yml" in str(task)]
    assert "when" not in closing  # a host that is no member any more has ports to open


@pytest.mark.parametrize("name", ["keep_closed", "remove_unit", "open", "firewall"])
def test_no_unit_is_read_again_while_containers_run(name):
    text = (ROLE / "tasks" / f"{name}.yml").read_text()
    assert "ansible.builtin.systemd" not in text and "daemon_reload" not in text


def test_what_is_removed_opens_its_ports():
    (play,) = yaml.safe_load((ROOT / "playbooks" / "remove.yml").read_text())
    opened = [task for task in play["tasks"] if "tasks_from" in str(task) and "open" in str(task)]
    assert opened and "peers_gone" in opened[0]["vars"]
    assert "tasks_from: open" in (ROOT / "roles" / "ray_cluster" / "tasks" / "remove.yml").read_text()
