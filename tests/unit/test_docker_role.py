"""The docker role around an engine with containers that matter: what it refuses, puts back and leaves alone."""

from __future__ import annotations

import json

import pytest
import yaml
from engine_play import ROOT, play

SERVED = {"name": "served", "started": "long ago", "running": True, "labels": ["io.github.inferops.service"]}
FOREIGN = '{ "debug":false, "log-driver":"journald" }'


def attempt(name, wanted, tasks_from="daemon_config", **variables):
    """Merges `wanted` by the role's entry point; what came of it is written down under `name`."""
    facts = "/etc/told-" + name
    include = {
        "ansible.builtin.include_role": {"name": "inferops.gpu_host.docker", "tasks_from": tasks_from},
        "vars": {"docker_daemon_config_wanted": wanted, "docker_daemon_config_owner": "test", **variables},
    }
    look = (
        "{ cat /etc/docker/daemon.json; printf '\\0'; cat $STAND_IN_ENGINE/containers.json; printf '\\0'; "
        "cat /run/docker.pid; printf '\\0%s' {{ SAID | quote }}; } >" + facts
    )
    silent, told = (
        {"ansible.builtin.raw": look, "vars": {"SAID": said}} for said in ("", "{{ ansible_failed_result.msg }}")
    )
    return {"block": [include, silent], "rescue": [told]}


class Told:
    def __init__(self, base, name):
        words = (base / f"etc/told-{name}").read_text().split("\0")
        self.file, self.containers, self.pid, self.message = words[0], json.loads(words[1]), words[2], words[3]
        self.running = {one["name"]: one["started"] for one in self.containers if one["running"]}


RESTART = {"log-level": "warn"}


def played(base, attempts, containers):
    """One play; each attempt finds the engine as the one before left it."""
    code, output = play(base, attempts, containers=containers, daemon_json=FOREIGN)
    assert code == 0, output
    return lambda name: Told(base, name)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    broken = attempt("broken", {"live-restore": True, "log-driver": "nonsense"})
    upgrade = attempt("upgrade", {}, tasks_from="main", docker_version="99.0")
    return played(tmp_path_factory.mktemp("engine"), [attempt("refused", RESTART), upgrade, broken], [SERVED])


@pytest.fixture(scope="module")
def told_slowly(tmp_path_factory):
    attempts = [
        attempt("fleeting", RESTART, docker_restart_policy="drain"),
        {"ansible.builtin.command": "docker --host unix:///run/docker.sock stop fleeting"},
        attempt("deaf", {"registry-mirrors": ["no mirror"]}),
        attempt("drained", RESTART, docker_restart_policy="drain"),
    ]
    rm = {**SERVED, "name": "fleeting", "rm": True}
    return played(tmp_path_factory.mktemp("engine"), attempts, [SERVED, rm])


def test_a_restart_that_would_stop_containers_that_matter_is_refused(told):
    refused = told("refused")
    assert "which stops 1 running containers that matter" in refused.message
    assert "served (image, carries the label io.github.inferops.service)" in refused.message
    assert refused.file == FOREIGN
    assert refused.running == {"served": "long ago"}


def test_an_upgrade_that_would_stop_containers_that_matter_is_refused(told):
    upgrade = told("upgrade")
    assert "would have to restart as 99.0 instead of 28.5.1, which stops 1 running containers" in upgrade.message
    assert (upgrade.file, upgrade.pid) == (FOREIGN, told("refused").pid)
    assert upgrade.running == {"served": "long ago"}


@pytest.mark.slow
def test_a_container_that_would_be_gone_is_not_drained(told_slowly):
    fleeting = told_slowly("fleeting")
    assert "fleeting on gpu1 was started with --rm" in fleeting.message
    assert fleeting.running == {"served": "long ago", "fleeting": "long ago"}
    assert fleeting.file == FOREIGN


@pytest.mark.slow
def test_a_refused_reload_is_noticed_and_put_back(told_slowly):
    deaf = told_slowly("deaf")
    assert "did not take over registry-mirrors: Error reconfiguring the daemon: invalid mirror" in deaf.message
    assert (deaf.file, deaf.pid) == (FOREIGN, told_slowly("fleeting").pid)


def test_an_engine_that_does_not_start_is_put_right_over_running_containers(told):
    broken = told("broken")
    assert "no log driver named 'nonsense'" in broken.message
    assert "from before was put back and the engine runs with it again" in broken.message
    assert "The containers that matter: served kept running." in broken.message
    assert broken.file == FOREIGN
    assert broken.running == {"served": "long ago"}
    assert broken.pid != told("refused").pid


@pytest.mark.slow
def test_a_drained_container_is_started_again(told_slowly):
    drained = told_slowly("drained")
    assert drained.message == ""
    assert json.loads(drained.file) == {**json.loads(FOREIGN), **RESTART}
    assert drained.running["served"] != "long ago"


# --- what no engine is needed for ------------------------------------------------------------------------------------


def tasks_below(tasks):
    for task in tasks:
        yield task
        for part in ("block", "rescue", "always"):
            yield from tasks_below(task.get(part) or [])


def tasks_of(role):
    for path in sorted((ROOT / "roles" / role / "tasks").glob("*.yml")):
        yield from tasks_below(yaml.safe_load(path.read_text()) or [])


def test_tasks_that_write_a_proxy_say_nothing_and_leave_the_file_to_root():
    writing = [
        task for task in tasks_of("docker") if "__docker_proxies" in str(task.get("ansible.builtin.blockinfile"))
    ]
    assert writing
    for task in writing:
        assert task.get("no_log") is True
        assert "0600" in task["ansible.builtin.blockinfile"]["mode"]


def test_whatever_stops_the_engine_asks_the_guard_first():
    texts = {path.name: path.read_text() for path in (ROOT / "roles/docker/tasks").glob("*.yml")}
    stops = {"daemon_config.yml": "restart.yml", "proxy_environment.yml": "restarted", "install.yml": "install_{{"}
    for name, what in stops.items():
        assert "include_tasks: guard.yml" in texts[name].partition(what)[0], name
    known = {*stops, "restart.yml", "remove.yml"}
    assert {name for name, text in texts.items() if "restarted" in text or "state: stopped" in text} <= known
