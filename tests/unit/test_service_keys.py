"""The keys that are made: once, by one host, for nobody's eyes, and never a second time."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _key_files, _service_keys, _service_values
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import normalize_services

HOSTS = ("gpu1", "gpu2", "gpu3")


def entry(hosts=("gpu1", "gpu2"), key=None):
    placements = [{"replica": at, "port": 8000, "nodes": [{"host": host}]} for at, host in enumerate(hosts)]
    return {"name": "m", "placements": placements, **({"key": key} if key else {})}


def one(owner="gpu1", held_by=(), host="gpu1"):
    return [{"name": "m", "owner": owner, "held_by": list(held_by), "asks": list(HOSTS), "mine": owner == host}]


def decide(reports, host, **more):
    wanted = one(host=host, **{key: more.pop(key) for key in ("owner", "held_by") if key in more})
    return _service_keys.to_make(wanted, reports), _service_keys.decided(wanted, host, reports, **more)


# Who owns a key


def test_the_plan_names_one_owner_and_keeps_it():
    first = _service_keys.planned(entry(), None, HOSTS)
    assert first == {"owner": "gpu1", "held_by": []}
    in_force = entry(key=first)
    # It moves away from its owner, who stays that as long as it exists; whether it can be reached does not matter.
    moved = _service_keys.planned(entry(("gpu3",)), in_force, HOSTS)
    assert moved == {"owner": "gpu1", "held_by": ["gpu1", "gpu2"]}
    # The owner is no host any more: one that has a copy is next, not one that would make a second key.
    assert _service_keys.planned(entry(("gpu3",)), in_force, ("gpu2", "gpu3")) == {"owner": "gpu2", "held_by": ["gpu2"]}
    assert _service_keys.planned(entry(("gpu3",)), in_force, ("gpu3",)) == {"owner": "gpu3", "held_by": []}
    assert _service_keys.planned(entry(()), None, HOSTS) is None


def test_a_plan_that_was_carried_out_tells_who_may_have_the_key():
    """A later run may have no other plan than this one."""
    kept = _service_keys.carried_out(entry(("gpu1", "gpu2"), key={"owner": "gpu1", "held_by": []}))
    assert kept == {"owner": "gpu1", "held_by": ["gpu1", "gpu2"]}
    wanted = one(held_by=kept["held_by"])
    assert _service_keys.to_make(wanted, {"gpu1": {"m": None}}) == []
    # Planned again, it is the same, so that nothing is written anew.
    again = _service_keys.planned(entry(), entry(key=kept), HOSTS)
    assert _service_keys.carried_out(entry(key=again)) == kept
    assert _service_keys.carried_out(entry()) is None


def test_what_a_host_has_to_know_of():
    services = normalize_services(
        [
            {"name": "m", "model": "a/b"},
            {"name": "own", "model": "a/b", "api_key": "sk-x"},
            {"name": "open", "model": "a/b", "api_key": "none"},
            {"name": "gone", "model": "a/b", "state": "absent"},
        ]
    )
    plan = {"services": [dict(entry(), name=service["name"]) for service in services]}
    assert [item["name"] for item in _service_keys.of_host(plan, services, "gpu2")] == ["m"]
    assert _service_keys.of_host(plan, services, "gpu3") == []
    assert _service_keys.of_host(plan, services, "gpu1", "sk-for-all") == []
    assert _service_keys.of_host(plan, services, "gpu1", "none") == []


# Who gets it from whom


def test_the_owner_makes_it_and_the_others_get_it():
    nobody = {"gpu1": {"m": None}, "gpu2": {"m": None}}
    assert decide(nobody, "gpu1")[0] == ["m"]
    assert decide(nobody, "gpu2")[0] == []
    made = {"gpu1": {"m": "k"}, "gpu2": {"m": None}}
    assert decide(made, "gpu1")[1]["use"] == {"m": "k"}
    told = decide(made, "gpu2")[1]
    assert (told["use"], told["copies"], told["refusals"]) == ({"m": "k"}, {"m": "k"}, [])


def test_another_key_is_changed_after_the_service_has_answered_with_the_new_one():
    rotated = {"gpu1": {"m": "new"}, "gpu2": {"m": "old"}}
    told = decide(rotated, "gpu2")[1]
    assert (told["use"], told["copies"], told["changes"]) == ({"m": "new"}, {}, {"m": "new"})


@pytest.mark.parametrize("reports", [{"gpu2": {"m": None}}, {"gpu2": {"m": None}, "gpu3": {"m": "k"}}])
def test_a_replica_that_cannot_ask_the_owner_is_refused(reports):
    made, told = decide(reports, "gpu2")
    assert made == [] and told["use"] == {}
    assert "its key lies on gpu1" in told["refusals"][0] and "--limit gpu1,gpu2" in told["refusals"][0]


def test_a_replica_with_a_copy_needs_no_owner():
    made, told = decide({"gpu2": {"m": "k"}}, "gpu2")
    assert (made, told["use"], told["refusals"]) == ([], {"m": "k"}, [])


def test_an_owner_that_lost_it_gets_it_back_from_a_copy():
    made, told = decide({"gpu1": {"m": None}, "gpu2": {"m": "k"}}, "gpu1", held_by=["gpu1", "gpu2"])
    assert (made, told["use"], told["copies"]) == ([], {"m": "k"}, {"m": "k"})


def test_an_owner_that_lost_it_asks_nobody_who_is_away_and_makes_none():
    made, told = decide({"gpu1": {"m": None}}, "gpu1", held_by=["gpu1", "gpu2"])
    assert made == [] and "gpu2, which may have it, cannot be asked" in told["refusals"][0]


def test_copies_that_differ_are_for_a_person_to_judge():
    reports = {"gpu1": {"m": None}, "gpu2": {"m": "a"}, "gpu3": {"m": "b"}}
    made, told = decide(reports, "gpu1")
    assert made == [] and "have different ones" in told["refusals"][0]
    assert "'a'" not in str(told["refusals"]) and told["use"] == {}


def test_a_key_that_cannot_be_read_is_not_the_same_as_none():
    read = {"gpu1": {"found": {}, "problems": ["/k/m holds no key"]}, "gpu2": {"found": {"m": None}, "problems": []}}
    reports = _service_keys.reports_of(read)
    assert reports == {"gpu2": {"m": None}}
    assert decide(reports, "gpu2")[1]["refusals"]


def test_a_dry_run_makes_none_and_says_which():
    nobody = {"gpu1": {"m": None}, "gpu2": {"m": None}}
    for host in ("gpu1", "gpu2"):
        _made, told = decide(nobody, host, dry=True)
        assert told["missing"] == {"m": "gpu1"} and told["use"] == {"m": _service_keys.PLACEHOLDER}


def test_no_container_without_a_key_unless_that_is_wanted():
    services = normalize_services([{"name": "m", "model": "a/b"}, {"name": "open", "model": "a/b", "api_key": "none"}])
    items = [{"service": {"name": "m"}}, {"service": {"name": "open"}}]
    known = _service_keys.with_keys(services, None, {"m": "k"})
    assert [service["api_key"] for service in known] == ["k", None]
    assert _service_keys.keyless(known, items) == []
    assert _service_keys.keyless(_service_keys.with_keys(services), items) == ["m"]
    assert [service["api_key"] for service in _service_keys.with_keys(services, "none")] == [None, None]


# The files


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_a_key_is_made_once_and_for_nobody_else(tmp_path):
    path = str(tmp_path / "etc/keys/m")
    before = os.umask(0)
    try:
        key, made = _key_files.make(path)
    finally:
        os.umask(before)
    assert made and _service_values.weak(key) is None and len(key) == 64 and int(key, 16) >= 0
    assert (mode(path), mode(tmp_path / "etc/keys")) == (0o600, 0o700)
    assert _key_files.make(path) == (key, False)
    assert os.listdir(tmp_path / "etc/keys") == ["m"]


def test_whoever_makes_it_at_the_same_time_gets_the_same(tmp_path):
    path, keys = str(tmp_path / "keys/m"), []
    threads = [threading.Thread(target=lambda: keys.append(_key_files.make(path)[0])) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 16 and len(set(keys)) == 1
    assert _key_files.read(path) == (keys[0], False)


@pytest.mark.parametrize("what", ["link", "fifo", "directory", "empty", "two lines", "none", "binary", "huge"])
def test_what_is_no_key_is_neither_read_nor_replaced(tmp_path, what):
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o700)
    path = directory / "m"
    {
        "link": lambda: path.symlink_to("/etc/hostname"),
        "fifo": lambda: os.mkfifo(path),
        "directory": path.mkdir,
        "empty": lambda: path.write_text(""),
        "two lines": lambda: path.write_text("a\nb\n"),
        "none": lambda: path.write_text("none\n"),
        "binary": lambda: path.write_bytes(b"\xff\x00" * 10),
        "huge": lambda: path.write_text("x" * 10**6),
    }[what]()
    with pytest.raises(_key_files.KeyFileError, match="/keys/m"):
        _key_files.read(str(path))
    with pytest.raises(_key_files.KeyFileError):
        _key_files.make(str(path))
    assert os.path.lexists(path)


def test_a_directory_of_somebody_else_holds_no_keys(tmp_path):
    directory = tmp_path / "keys"
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(_key_files.KeyFileError, match="can be written by other accounts"):
        _key_files.make(str(directory / "m"))


def test_a_copy_is_kept_as_it_is(tmp_path):
    path = str(tmp_path / "keys/m")
    assert _key_files.keep(path, "k" * 64)
    assert not _key_files.keep(path, "k" * 64)
    os.chmod(path, 0o644)
    assert _key_files.read(path) == ("k" * 64, True)
    assert _key_files.keep(path, "k" * 64) and mode(path) == 0o600
    assert _key_files.keep(path, "l" * 64) and _key_files.read(path)[0] == "l" * 64
