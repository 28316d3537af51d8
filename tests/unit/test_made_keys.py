"""Keys that the role vllm makes: played on two hosts, against engines that answer only to the right key."""

from __future__ import annotations

import json
import os
import stat

import pytest
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
    path = host.directory / f"etc/keys/{NAME}"
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


def test_a_key_is_made_once_for_nobodys_eyes_and_the_same_for_all(stage):
    hosts = [stage.host("gpu1"), stage.host("gpu2")]
    for host in hosts:
        host.model()
    played = stage.play(stage.role("vllm"), arguments=["-vvv", "--diff"], **replicated())
    assert played.ok, played.output
    key = key_of(hosts[0])
    assert key and len(key) == 64 and [key_of(host) for host in hosts] == [key, key]
    for host in hosts:
        assert (mode((host.directory / "etc/keys")), mode((host.directory / f"etc/keys/{NAME}"))) == (0o700, 0o600)
        assert host.engine.running() == [f"{NAME}-{hosts.index(host)}"]
        assert key not in everything_of(host)
    assert key not in played.output


def keys_only(stage):
    """The role's tasks about keys alone."""
    role = stage.role("vllm", tasks_from="keys")
    role["vars"] = {"__vllm_engine": "vllm"}
    return role


def put_key(host, name, key="k" * 64, how=0o600):
    path = host.directory / f"etc/keys/{name}"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(key + "\n")
    path.chmod(how)


def test_a_replica_without_its_owner_gets_no_second_key_and_what_is_open_is_shut(stage):
    """Several services in one play, each in a state of its own, on a host whose neighbour is left out."""
    stage.host("gpu1")
    host = stage.host("gpu2")
    services = [{"name": name, "model": "inferops/tiny", "accelerator": "cpu"} for name in ("mine", "has", "lacks")]
    placements = [{"replica": 0, "port": 8000, "nodes": [{"host": "gpu2", "node_rank": 0, "gpus": []}]}]
    owners = {"mine": "gpu2", "has": "gpu1", "lacks": "gpu1"}
    plan = {
        "services": [
            {"name": name, "placements": placements, "key": {"owner": owner, "held_by": []}}
            for name, owner in owners.items()
        ]
    }
    put_key(host, "has", how=0o644)
    (host.directory / "etc/keys").chmod(0o755)
    wanted = {"vllm_services": services, "vllm_plan": plan, "preflight_services": services, "preflight_plan": plan}
    access = {"ansible.builtin.include_role": {"name": "inferops.gpu_host.preflight", "tasks_from": "access"}}
    said = {"ansible.builtin.debug": {"msg": "{{ ansible_failed_result.msg }}"}}
    refused = [{"block": [access, {"ansible.builtin.fail": {"msg": "NOT REFUSED"}}], "rescue": [said]}]
    played = stage.play(refused, keys_only(stage), arguments=["--limit", "gpu2", "-vvv"], **wanted)
    assert not played.ok
    # The preflight has its say first: nothing that is open against one's will comes into being.
    assert "NOT REFUSED" not in played.output and "mine would listen on 0.0.0.0" in played.words
    preflight = (role_plays.ROOT / "roles/preflight/tasks/main.yml").read_text()
    assert preflight.index("access.yml") < preflight.index("resources.yml")
    assert "lacks: its key lies on gpu1" in played.words and "(--limit gpu1,gpu2)" in played.words, played.output
    assert "k" * 64 not in played.output
    assert sorted(path.name for path in (host.directory / "etc/keys").iterdir()) == ["has", "mine"]
    assert {mode(path) for path in (host.directory / "etc/keys").iterdir()} == {0o600} and mode(
        (host.directory / "etc/keys")
    ) == 0o700
    assert "could be read by other accounts" in played.words and "rotate_key.yml -e service=has" in played.words


@pytest.mark.slow
def test_dry_runs_second_runs_losses_and_absences(stage):
    hosts = [stage.host("gpu1"), stage.host("gpu2")]
    for host in hosts:
        host.model()
    variables = replicated()
    role = stage.role("vllm")

    dry = stage.play(role, arguments=["--check"], **variables)
    assert dry.ok, dry.output
    assert dry.words.count(f"A key would be made for {NAME}") == 2
    assert not any((host.directory / "etc/keys").exists() for host in hosts)

    assert stage.play(role, **variables).ok
    key = key_of(hosts[0])
    again = stage.play(role, **variables)
    assert again.ok and again.changed() == 0, again.output

    # What the owner has lost comes back from a copy.
    (hosts[0].directory / f"etc/keys/{NAME}").unlink()
    healed = stage.play(role, **variables)
    assert healed.ok, healed.output
    assert [key_of(host) for host in hosts] == [key, key]

    # A replica that cannot ask the owner is refused, and serves on as it did.
    (hosts[1].directory / f"etc/keys/{NAME}").unlink()
    before = hosts[1].engine.acted()
    alone = stage.play(role, arguments=["--limit", "gpu2"], **variables)
    assert not alone.ok and "its key lies on gpu1" in alone.words, alone.output
    assert key_of(hosts[1]) is None and hosts[1].engine.acted() == before

    # A service that goes takes its key along.
    gone = [dict(variables["vllm_services"][0], state="absent")]
    assert stage.play(role, vllm_services=gone, vllm_plan={}).ok
    assert [key_of(host) for host in hosts] == [None, None]


@pytest.mark.slow
def test_a_new_key_replaces_the_replicas_one_after_the_other(stage):
    """Also when the first try is killed, or fails: then what was there answers to the key that is in its file."""
    hosts = [stage.host("gpu1"), stage.host("gpu2")]
    for host in hosts:
        host.model()
    variables = replicated()
    declared = {"inference_services": variables["vllm_services"], "inference_plan": variables["vllm_plan"]}
    declared["inference_plan"]["services"][0]["key"] = {"owner": "gpu1", "held_by": []}
    assert stage.play(stage.role("vllm"), **declared).ok
    old = key_of(hosts[0])

    rotate = stage.directory / "rotate.yml"
    text = (role_plays.ROOT / "playbooks/rotate_key.yml").read_text()
    before, _plan, after = text.partition("- name: Plan\n  ansible.builtin.import_playbook: plan.yml\n")
    rotate.write_text(before + after.replace("[vars/services.yml]", f"[{role_plays.ROOT}/playbooks/vars/services.yml]"))
    rotate.write_text(
        rotate.read_text().replace("tasks/declared.yml", f"{role_plays.ROOT}/playbooks/tasks/declared.yml")
    )
    play = {"ansible.builtin.import_playbook": str(rotate)}

    unsaid = stage.play(play, **declared)
    assert not unsaid.ok and "Which service? -e service=NAME; declared are demo" in unsaid.words
    without = stage.play(play, arguments=["--limit", "gpu2"], service=NAME, **declared)
    assert not without.ok and "The key of demo lies on gpu1, which is not in this run" in without.words, without.output

    # The image does not start any more: the first host goes back to what it had, and the second is not touched.
    for host in hosts:
        host.engine.add_image(role_plays.CPU_IMAGE, serves=False)
    failed = stage.play(play, service=NAME, **declared)
    assert not failed.ok
    assert [key_of(host) for host in hosts] == [old, old]
    assert [container["running"] for container in running(hosts)] == [True, True]

    for host in hosts:
        host.engine.add_image(role_plays.CPU_IMAGE, serves=True)
    done = stage.play(play, arguments=["-vvv"], service=NAME, vllm_retry_failed=True, **declared)
    assert done.ok, done.output
    new = key_of(hosts[0])
    assert new != old and [key_of(host) for host in hosts] == [new, new]
    assert "demo wants its new key now and refuses the old one" in done.words
    assert old not in done.output and new not in done.output
    assert not list((hosts[0].directory / "etc/keys").glob(".*"))
    again = stage.play(stage.role("vllm"), **declared)
    assert again.ok and again.changed() == 0, again.output


def running(hosts):
    return [{"running": bool(host.engine.running())} for host in hosts]
