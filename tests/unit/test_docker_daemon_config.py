"""The module docker_daemon_config around a host that only pretends to have an engine."""

from __future__ import annotations

import json
import os
import shutil
import stat

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _daemon_store as daemon_store
from ansible_collections.inferops.gpu_host.plugins.module_utils import _docker_reload as docker_reload
from ansible_collections.inferops.gpu_host.plugins.modules import docker_daemon_config as config_module


class Failed(Exception):
    pass


class FakeModule:
    def __init__(self, path, check_mode=False, **params):
        defaults = {
            "config": {},
            "defaults": {},
            "abandon_data_root": False,
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

    def backup_local(self, path):
        shutil.copy2(path, str(path) + ".copy~")
        return str(path) + ".copy~"

    def atomic_move(self, source, destination):
        os.chmod(source, stat.S_IMODE(os.stat(destination).st_mode))
        os.replace(source, destination)


class FakeHost:
    """`run` names the run of the engine, empty when it does not run; `hung_up` counts its SIGHUPs.

    On SIGHUP it takes over what `takes` makes of the file, and `log` is what it writes then.
    """

    user = None
    log = ""
    told = True  # whether it has told of a reload; None when it cannot be asked

    def __init__(self, root, path):
        self.run = "boot/1/100"
        self.argv = ["dockerd", "-H", "fd://"]
        self.uid = self.gid = os.geteuid()
        self.hung_up = 0
        self.path = self.config_file = path
        self.default_data_root = str(root)
        self.said = {}
        self.held = {}
        self.swarm = False
        self.takes = lambda config: {"LiveRestoreEnabled": config.get("live-restore", False)}

    def hang_up(self):
        self.hung_up += 1
        self.said = self.takes(json.loads(self.path.read_text() or "{}") if self.path.exists() else {})

    def get(self, _path):
        return {"ServerVersion": "28.5.1", **self.said}

    def log_mark(self):
        return {"time": 0, "size": 0}

    def log_since(self, _mark):
        return self.log

    def reloads_since(self, _moment):
        return self.told

    def holdings(self, _root):
        return self.held

    def is_swarm_member(self, _info, _root):
        return self.swarm

    def identity(self):
        return self.run

    def pid(self):
        return 1 if self.run else None

    def command_line(self):
        return {"argv": self.argv, "environment": {}, "source": "docker.service"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "docker/daemon.json"


@pytest.fixture
def host(monkeypatch, path, tmp_path):
    fake = FakeHost(tmp_path / "root", path)
    monkeypatch.setattr(docker_reload, "hand_over", FakeHost.hang_up)
    monkeypatch.setattr(docker_reload, "RELOAD_TIMEOUT", 0)
    return fake


def merge(host, path, config, **params):
    module = FakeModule(path, config=config, **params)
    return config_module.merge(module, host, daemon_store.Store(module, host))


def revert(host, path, **params):
    module = FakeModule(path, **params)
    return config_module.revert(module, host, daemon_store.Store(module, host))


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
    write = daemon_store.Store.write

    def killed(store, where, text, mode):
        if where == str(path):
            raise KeyboardInterrupt
        write(store, where, text, mode)

    monkeypatch.setattr(daemon_store.Store, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        merge(host, path, {"log-driver": "local"})
    monkeypatch.setattr(daemon_store.Store, "write", write)
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


# --- a running engine has the last word ------------------------------------------------------------------------------

REFUSALS = {
    "its log says so": ({"log": 'level=error msg="Error reconfiguring the daemon: invalid mirror"'}, "invalid mirror"),
    "it runs with something else": (
        {"takes": lambda _config: {"RegistryConfig": {"Mirrors": ["https://old/"]}}},
        "mirror",
    ),
    "it tells of no reload": ({"told": False}, "does not say"),
}


@pytest.mark.parametrize(("engine", "words"), REFUSALS.values(), ids=REFUSALS)
def test_a_refused_reload_puts_the_file_back(host, path, engine, words):
    path.parent.mkdir()
    path.write_text('{ "debug":true }')
    path.chmod(0o640)
    for name, value in engine.items():
        setattr(host, name, value)
    with pytest.raises(Failed, match="did not take over registry-mirrors: .*" + words + ".* was put back"):
        merge(host, path, {"registry-mirrors": ["https://m"], "debug": True})
    assert path.read_text() == '{ "debug":true }'
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not path.with_name("daemon.json.managed").exists()
    assert host.hung_up == 2  # it is told to forget what it may have taken by halves


def test_an_engine_that_ends_on_a_reload_is_no_success(host, path):
    def ends(_config):
        host.run = ""
        return {}

    host.takes = ends
    with pytest.raises(Failed, match="the engine ended"):
        merge(host, path, {"debug": True})
    assert not path.exists()


def test_what_the_engine_does_not_tell_of_itself_needs_its_word(host, path):
    host.told = None
    with pytest.raises(Failed, match="does not say that it took over shutdown-timeout"):
        merge(host, path, {"shutdown-timeout": 20})


def test_a_key_that_goes_is_forgotten_by_a_restart_alone(host, path):
    merge(host, path, {"registry-mirrors": ["https://m"]})
    gone = merge(host, path, {})
    assert (gone["restart_required"], gone["unread_keys"]) == (True, ["registry-mirrors"])


def test_a_file_that_the_engine_does_not_read_is_nothing_to_it(host, path, tmp_path):
    result = merge(host, tmp_path / "other.json", {"debug": True, "log-driver": "local"})
    assert (result["changed"], result["reloaded"], result["restart_required"], host.hung_up) == (True, False, False, 0)


# --- what others wrote -----------------------------------------------------------------------------------------------


def test_a_value_that_gave_way_comes_back(host, path):
    path.parent.mkdir()
    path.write_text('{"log-driver":"journald", "registry-mirrors":[ "https://a" ], "dns": ["10.0.0.2"]}')
    before = path.read_text()
    merge(host, path, {"log-driver": "local", "registry-mirrors": ["https://m"], "dns": ["10.0.0.2"]})
    merge(host, path, {"registry-mirrors": ["https://m"]}, owner="other")
    merge(host, path, {})
    assert json.loads(path.read_text())["registry-mirrors"] == ["https://m"]  # the other still wants it
    merge(host, path, {}, owner="other")
    assert path.read_text() == before


@pytest.mark.parametrize("theirs", [["native.cgroupdriver=systemd"], ["isolation=hyperv"], []])
def test_foreign_exec_options_are_never_replaced(host, path, theirs):
    path.parent.mkdir()
    path.write_text(json.dumps({"exec-opts": theirs}))
    with pytest.raises(Failed, match=r"exec-opts is \[.*others have written.*reload_protection"):
        merge(host, path, {"exec-opts": ["native.cgroupdriver=cgroupfs"]})
    assert json.loads(path.read_text()) == {"exec-opts": theirs}


BOUNDS = {"live-restore": True, "log-driver": "json-file", "log-opts": {"max-size": "50m", "max-file": "3"}}


@pytest.mark.parametrize(
    ("foreign", "asked", "expected"),
    [
        ({}, {}, BOUNDS),
        ({"live-restore": False}, {}, {**BOUNDS, "live-restore": False}),
        ({"log-driver": "journald"}, {}, {"live-restore": True, "log-driver": "journald"}),
        ({"log-opts": {"max-size": "1g"}}, {}, {**BOUNDS, "log-opts": {"max-size": "1g", "max-file": "3"}}),
        ({}, {"log-driver": "syslog"}, {"live-restore": True, "log-driver": "syslog"}),
        ({"log-driver": "journald"}, {"log-driver": "json-file"}, BOUNDS),
    ],
)
def test_defaults_give_way(host, path, foreign, asked, expected):
    path.parent.mkdir()
    path.write_text(json.dumps(foreign))
    merge(host, path, asked, defaults=BOUNDS)
    assert json.loads(path.read_text()) == expected
    again = merge(host, path, asked, defaults=BOUNDS)
    assert again["changed"] is False


def test_live_restore_stays_off_in_a_swarm(host, path):
    host.swarm = True
    merge(host, path, {}, defaults=BOUNDS)
    assert "live-restore" not in json.loads(path.read_text())
    with pytest.raises(Failed, match=r"belongs to a swarm.*docker_live_restore: false"):
        merge(host, path, {"live-restore": True})


@pytest.mark.parametrize("running", [True, False])
def test_a_data_root_that_holds_something_does_not_move_silently(host, path, running):
    host.run = host.run if running else ""
    host.said = {"DockerRootDir": host.default_data_root} if running else {}
    host.held = {"containers": 0, "images": 0, "volumes": 2}
    with pytest.raises(Failed, match=r"keeps 2 volumes in .*root, and its data root would become /data/docker"):
        merge(host, path, {"data-root": "/data/docker"})
    assert not path.exists()
    merge(host, path, {"data-root": "/data/docker"}, abandon_data_root=True)
    host.run, host.said = "", {}
    path.with_name("daemon.json.managed").write_text('{"owners": {"docker": [["data-root"]]}}')
    with pytest.raises(Failed, match="in /data/docker, and its data root would become"):
        merge(host, path, {})  # nor back, when the variable goes


# --- what a daemon.json can be besides a file ------------------------------------------------------------------------


def test_a_link_stays_a_link(host, path, tmp_path):
    target = tmp_path / "managed/daemon.json"
    target.parent.mkdir()
    path.parent.mkdir()
    target.write_text('{"debug": true}')
    path.symlink_to("../managed/daemon.json")
    merge(host, path, {"ipv6": False}, backup=True)
    assert path.is_symlink()
    assert json.loads(target.read_text()) == {"debug": True, "ipv6": False}


def test_a_link_that_leads_nowhere_or_to_a_place_of_others_is_refused(host, path, tmp_path):
    path.parent.mkdir()
    path.symlink_to(tmp_path / "managed/daemon.json")
    with pytest.raises(Failed, match=r"is a link to .*No such file or directory"):
        merge(host, path, {"debug": True})
    (tmp_path / "managed").mkdir()
    (tmp_path / "managed/daemon.json").write_text("{}")
    (tmp_path / "managed").chmod(0o777)
    with pytest.raises(Failed, match="managed can be changed by others than the engine's user"):
        merge(host, path, {"debug": True})
    assert (tmp_path / "managed/daemon.json").read_text() == "{}"


def test_a_byte_order_mark_stays(host, path):
    path.parent.mkdir()
    path.write_bytes(b'\xef\xbb\xbf{"debug": true}\r\n')
    merge(host, path, {"ipv6": False})
    assert path.read_bytes() == b'\xef\xbb\xbf{"debug": true, "ipv6": false}\r\n'


ODD_FILES = {
    "fifo": (os.mkfifo, "is no regular file"),
    "directory": (os.mkdir, "is no regular file"),
    "huge": (lambda path: path.write_text(" " * 1024 * 1024 + "{}"), "is longer than 1"),
    "latin": (lambda path: path.write_bytes(b'{"labels": ["\xe4"]}'), "not UTF-8"),
    "utf-16": (lambda path: path.write_text('{"debug": true}', encoding="utf-16"), "not UTF-8"),
    "duplicate": (lambda path: path.write_text('{"debug": true, "debug": false}'), "debug.* occurs twice"),
    "duplicate in a list": (lambda path: path.write_text('{"labels": [{"a": 1, "a": 2}]}'), '"a" occurs twice'),
    "deep": (lambda path: path.write_text('{"a":' * 5000 + "1" + "}" * 5000), "nested more than 32 levels"),
    "deep lists": (lambda path: path.write_text('{"a":' + "[" * 60 + "]" * 60 + "}"), "nested more than 32 levels"),
    "not a number": (lambda path: path.write_text('{"a": NaN}'), "NaN is not JSON"),
    "infinite": (lambda path: path.write_text('{"a": 1e400}'), "no number that dockerd can read"),
    "long number": (lambda path: path.write_text('{"a": %s}' % ("9" * 5000)), "number that is too long"),
    "half a character": (lambda path: path.write_text('{"a": "\\ud800"}'), "half of a character"),
}


@pytest.mark.parametrize(("make", "words"), ODD_FILES.values(), ids=ODD_FILES)
def test_what_is_no_configuration_is_one_clear_error(host, path, make, words):
    path.parent.mkdir()
    make(path)
    with pytest.raises(Failed, match=words):
        merge(host, path, {"ipv6": False})


@pytest.mark.parametrize(
    "memory",
    ["[]", '{"owners": []}', '{"owners": {"a": [1]}}', '{"unread": 1}', '{"found": [{"path": "x"}]}', "[" * 5000],
)
def test_a_damaged_memory_is_named(host, path, memory):
    path.parent.mkdir()
    path.with_name("daemon.json.managed").write_text(memory)
    with pytest.raises(Failed, match=r"daemon.json.managed is damaged"):
        merge(host, path, {"ipv6": False})


@pytest.mark.parametrize(
    "secret",
    [{"proxies": {"http-proxy": "http://me:pw@proxy:1"}}, {"log-driver": "splunk", "log-opts": {"splunk-token": "t"}}],
)
def test_a_file_that_receives_a_password_is_its_owners_alone(host, path, secret):
    path.parent.mkdir()
    path.write_text("{}")
    path.chmod(0o644)
    merge(host, path, secret)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    copy = merge(host, path, {}, backup=True)["backup_file"]
    assert stat.S_IMODE(os.stat(copy).st_mode) == 0o600


def test_merges_at_the_same_time_lose_nothing(host, path):
    path.parent.mkdir()
    path.write_text('{"x-foreign": 1}')
    host.run = ""
    children = []
    for number in range(12):
        child = os.fork()
        if not child:
            code = 1
            try:
                module = FakeModule(path, owner="owner%d" % number, config={"x-%d" % number: number})
                store = daemon_store.Store(module, host)
                with store.lock():
                    config_module.merge(module, host, store)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 12
    assert json.loads(path.read_text()) == {"x-foreign": 1, **{"x-%d" % number: number for number in range(12)}}


def test_a_lock_that_is_held_is_named_and_nothing_is_changed(host, path, monkeypatch):
    monkeypatch.setattr(daemon_store, "LOCK_TIMEOUT", 0)
    store = daemon_store.Store(FakeModule(path), host)
    with store.lock():
        second = daemon_store.Store(FakeModule(path), host)
        with pytest.raises(Failed, match="another run has held the lock"), second.lock():
            pass
    assert stat.S_IMODE(path.with_name(".daemon.json.lock").stat().st_mode) == 0o600


# --- the way back ----------------------------------------------------------------------------------------------------


def test_live_restore_stays_on_the_way_back(host, path):
    path.parent.mkdir()
    path.write_text('{ "debug":true }')
    merge(host, path, {"live-restore": True, "log-driver": "nonsense"})
    host.run = ""
    first = revert(host, path)
    assert first["live_restore_kept"] is True
    assert json.loads(path.read_text()) == {"debug": True, "live-restore": True}
    host.run = "boot/2/200"
    assert revert(host, path)["live_restore_kept"] is False
    assert path.read_text() == '{ "debug":true }'
    assert not path.with_name("daemon.json.managed").exists()


def test_a_run_killed_on_the_way_back_loses_nothing(host, path):
    path.parent.mkdir()
    path.write_text('{ "debug":true }')
    merge(host, path, {"live-restore": True, "log-driver": "nonsense"})
    host.run = ""
    revert(host, path)
    host.run = "boot/2/200"
    merge(host, path, {"labels": ["a=b"]})
    assert json.loads(path.read_text()) == {"debug": True, "labels": ["a=b"]}
    merge(host, path, {})
    assert path.read_text() == '{ "debug":true }'
