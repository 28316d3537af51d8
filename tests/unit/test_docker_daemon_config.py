"""The module docker_daemon_config around a host that only pretends to have an engine."""

from __future__ import annotations

import json
import os
import stat

import pytest

from ansible_collections.inferops.gpu_host.plugins.modules import docker_daemon_config as config_module


class Failed(Exception):
    pass


class FakeModule:
    def __init__(self, path, check_mode=False, **params):
        defaults = {
            "config": {},
            "owner": "docker",
            "path": str(path),
            "user": None,
            "backup": False,
            "write_when": "always",
        }
        self.params = dict(defaults, **params)
        self.check_mode = check_mode

    def fail_json(self, msg, **_others):
        raise Failed(msg)

    def get_bin_path(self, _name):
        return None

    def atomic_move(self, source, destination):
        os.chmod(source, stat.S_IMODE(os.stat(destination).st_mode))
        os.replace(source, destination)


class FakeHost:
    """`run` names the run of the engine, empty when it does not run; `hung_up` counts its SIGHUPs."""

    def __init__(self):
        self.run = "boot/1/100"
        self.argv = ["dockerd", "-H", "fd://"]
        self.uid = self.gid = os.geteuid()
        self.hung_up = 0

    def identity(self):
        return self.run

    def pid(self):
        return 1 if self.run else None

    def command_line(self):
        return {"argv": self.argv, "environment": {}, "source": "docker.service"}


@pytest.fixture
def host(monkeypatch):
    fake = FakeHost()

    def hang_up(_host):
        fake.hung_up += 1

    monkeypatch.setattr(config_module, "hand_over", hang_up)
    return fake


@pytest.fixture
def path(tmp_path):
    return tmp_path / "docker/daemon.json"


def merge(host, path, config, **params):
    module = FakeModule(path, config=config, **params)
    return config_module.merge(module, host, config_module.Store(module, host))


def revert(host, path, **params):
    module = FakeModule(path, **params)
    return config_module.revert(module, host, config_module.Store(module, host))


def test_check_mode_predicts_and_writes_nothing(host, path):
    result = merge(host, path, {"log-driver": "local"}, check_mode=True)
    assert (result["changed"], result["restart_required"]) == (True, True)
    assert not path.exists() and not path.parent.exists()


def test_a_restart_is_due_until_the_engine_has_restarted(host, path):
    assert merge(host, path, {"log-driver": "local"})["restart_required"]
    again = merge(host, path, {"log-driver": "local"})
    assert (again["changed"], again["restart_required"], again["unread_keys"]) == (False, True, ["log-driver"])
    host.run = "boot/2/200"
    done = merge(host, path, {"log-driver": "local"})
    assert (done["changed"], done["restart_required"]) == (False, False)


def test_a_change_that_is_taken_back_before_the_restart_needs_none(host, path):
    merge(host, path, {"log-driver": "local"})
    result = merge(host, path, {})
    assert (result["changed"], result["restart_required"]) == (True, False)


def test_an_engine_that_does_not_run_needs_no_restart(host, path):
    host.run = ""
    assert not merge(host, path, {"log-driver": "local"})["restart_required"]


def test_what_can_be_reloaded_is_reloaded_once(host, path):
    result = merge(host, path, {"registry-mirrors": ["https://m"]})
    assert (result["reloaded"], result["restart_required"], host.hung_up) == (True, False, 1)
    again = merge(host, path, {"registry-mirrors": ["https://m"]})
    assert (again["changed"], again["reloaded"], host.hung_up) == (False, False, 1)


def test_live_restore_is_handed_over_before_the_restart_that_something_else_needs(host, path):
    result = merge(host, path, {"live-restore": True, "log-driver": "local"})
    assert (result["reloaded"], result["restart_required"], host.hung_up) == (True, True, 1)


def test_a_rootless_engine_is_restarted_for_everything(host, path):
    result = merge(host, path, {"registry-mirrors": ["https://m"]}, user="alice")
    assert (result["reloaded"], result["restart_required"]) == (False, True)


def test_reverting_puts_back_what_the_engine_last_started_with(host, path):
    path.parent.mkdir()
    path.write_text('{ "debug":true }')
    merge(host, path, {"log-driver": "nonsense"})
    host.run = ""  # it did not come back
    merge(host, path, {"log-driver": "more nonsense"})
    result = revert(host, path)
    assert (result["changed"], result["restart_required"]) == (True, True)
    assert path.read_text() == '{ "debug":true }'
    assert not path.with_name("daemon.json.managed").exists()
    # The refused key is not remembered: nothing foreign is taken for ours later.
    assert merge(host, path, {})["changed"] is False


def test_reverting_the_first_file_ever_removes_it(host, path):
    merge(host, path, {"log-driver": "nonsense"})
    revert(host, path)
    assert not path.exists()


def test_nothing_to_revert(host, path):
    assert revert(host, path)["changed"] is False


def test_a_run_killed_before_the_file_was_written_loses_nothing(host, path, monkeypatch):
    path.parent.mkdir()
    path.write_text('{"debug": true}')
    write = config_module.Store.write

    def killed(store, where, text, mode):
        if where == str(path):
            raise KeyboardInterrupt
        write(store, where, text, mode)

    monkeypatch.setattr(config_module.Store, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        merge(host, path, {"log-driver": "local"})
    monkeypatch.setattr(config_module.Store, "write", write)
    assert path.read_text() == '{"debug": true}'
    assert merge(host, path, {"log-driver": "local"})["restart_required"]
    assert merge(host, path, {})["changed"] is True
    assert path.read_text() == '{"debug": true}'


def test_passwords_stay_out_of_sight(host, path):
    proxy = {"proxies": {"http-proxy": "http://me:secret@proxy:3128"}}
    result = merge(host, path, proxy)
    assert "secret" not in json.dumps(result)
    assert json.loads(path.read_text()) == proxy
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.with_name("daemon.json.managed").stat().st_mode) == 0o600


def test_a_file_keeps_its_mode(host, path):
    path.parent.mkdir()
    path.write_text("{}")
    path.chmod(0o640)
    merge(host, path, {"debug": True})
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("text", ["{}", '{"hosts": ["tcp://0.0.0.0:2375"]}'])
def test_a_key_that_the_unit_sets_is_refused_whoever_wrote_it(host, path, text):
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(Failed, match=r"docker\.service sets hosts \(-H\)"):
        merge(host, path, {"debug": True} if "hosts" in text else {"hosts": ["unix://"]})
    assert path.read_text() == text


def test_a_broken_file_is_left_alone(host, path):
    path.parent.mkdir()
    path.write_text('{\n  "debug": true,\n}\n')
    with pytest.raises(Failed, match="line 2: a comma after the last element"):
        merge(host, path, {"ipv6": True})
    assert path.read_text() == '{\n  "debug": true,\n}\n'


def test_nothing_is_written_that_needs_a_restart_when_only_other_things_may_be(host, path):
    result = merge(host, path, {"live-restore": True, "log-driver": "local"}, write_when="no_restart")
    assert (result["changed"], result["restart_required"], host.hung_up) == (False, True, 0)
    assert not path.exists()
    result = merge(host, path, {"live-restore": True}, write_when="no_restart")
    assert (result["changed"], result["restart_required"], host.hung_up) == (True, False, 1)
    assert json.loads(path.read_text()) == {"live-restore": True}
