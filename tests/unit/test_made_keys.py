"""Keys that the role vllm makes: played on two hosts, against engines that answer only to the right key."""

from __future__ import annotations

import json
import os
import stat

import role_plays
from openai_server import free_port

NAME = "demo"


def replicated(**keys):
    """A service with a replica on each of two hosts, and its plan."""
    ports = [free_port(), free_port()]
    service = {"name": NAME, "model": "inferops/tiny", "accelerator": "cpu", "replicas": 2, **keys}
    plan = role_plays.plan(dict(service, port=ports[0]))
    (entry,) = plan["services"]
    entry["layout"]["replicas"] = 2
    entry["placements"] = [
        {"replica": at, "port": port, "nodes": [{"host": f"gpu{at + 1}", "node_rank": 0, "gpus": []}]}
        for at, port in enumerate(ports)
    ]
    return {"vllm_services": [service], "vllm_plan": plan}


def key_of(host):
    path = host.file(f"etc/keys/{NAME}")
    return path.read_text().strip() if path.exists() else None


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def everything_of(host):
    """What others than root could see: inspections, command lines, and files that they can read."""
    shown = json.dumps(host.engine.containers)
    for path in host.directory.rglob("*"):
        if path.is_file() and not path.is_symlink() and mode(path) & 0o077:
            shown += path.read_text(errors="replace")
    return shown


def test_a_key_is_made_once_and_is_the_same_for_all_replicas(stage):
    hosts = [stage.host("gpu1"), stage.host("gpu2")]
    for host in hosts:
        host.model()
    variables = replicated()
    role = stage.role("vllm")

    dry = stage.play(role, arguments=["--check"], **variables)
    assert dry.ok, dry.output
    assert dry.words.count(f"A key would be made for {NAME}") == 2
    assert not any(host.file("etc/keys").exists() for host in hosts)

    played = stage.play(role, arguments=["-vvv", "--diff"], **variables)
    assert played.ok, played.output
    key = key_of(hosts[0])
    assert key and len(key) == 64 and [key_of(host) for host in hosts] == [key, key]
    for host in hosts:
        assert (mode(host.file("etc/keys")), mode(host.file(f"etc/keys/{NAME}"))) == (0o700, 0o600)
        assert host.engine.running() == [f"{NAME}-{hosts.index(host)}"]
        assert key not in everything_of(host)
    assert key not in played.output

    again = stage.play(role, **variables)
    assert again.ok and again.changed() == 0, again.output

    # What others could read is shut and told; what the owner has lost comes back from a copy.
    hosts[1].file(f"etc/keys/{NAME}").chmod(0o644)
    hosts[1].file("etc/keys").chmod(0o755)
    hosts[0].file(f"etc/keys/{NAME}").unlink()
    healed = stage.play(role, **variables)
    assert healed.ok, healed.output
    assert "could be read by other accounts" in healed.words and "rotate_key.yml -e service=demo" in healed.words
    assert [key_of(host) for host in hosts] == [key, key]
    assert (mode(hosts[1].file("etc/keys")), mode(hosts[1].file(f"etc/keys/{NAME}"))) == (0o700, 0o600)

    # A replica that cannot ask the owner is refused, and serves on as it did.
    hosts[1].file(f"etc/keys/{NAME}").unlink()
    before = hosts[1].engine.acted()
    alone = stage.play(role, arguments=["--limit", "gpu2"], **variables)
    assert not alone.ok and "its key lies on gpu1" in alone.words, alone.output
    assert key_of(hosts[1]) is None and hosts[1].engine.acted() == before
