"""The table that closes the ports by which hosts serve together, and the records that it is made of."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import stat

import pytest

from ansible_collections.inferops.gpu_host.plugins.filter.peers import FilterModule
from ansible_collections.inferops.gpu_host.plugins.module_utils import _groups, _peer_firewall
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import normalize_services

DEMO = {"name": "demo", "service": "demo", "peers": ["10.0.0.2", "10.0.0.1"], "ports": [28501, "29501"]}
RAY = {"name": "ray", "peers": ["10.0.0.1", "10.0.0.3"], "ports": ["6379", "11000-11999", "11500-12010"]}
DYNAMIC = "32768-60999"


def record(**more):
    return _peer_firewall.record({**DEMO, **more})


def test_a_record_says_who_may_reach_what():
    assert _peer_firewall.record(DEMO) == {
        "name": "demo",
        "service": "demo",
        "peers": ["10.0.0.1", "10.0.0.2"],
        "ports": ["28501", "29501"],
    }
    assert _peer_firewall.record(RAY)["ports"] == ["6379", "11000-12010"]
    assert _peer_firewall.record(RAY)["service"] == "ray"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"peers": ["10.0.0.1 } accept; #"]}, "does not appear to be an IPv4 or IPv6 address"),
        ({"peers": []}, "no peers"),
        ({"ports": ["1 } accept"]}, "is no port"),
        ({"ports": [0]}, "is no port"),
        ({"ports": ["70000"]}, "is no port"),
        ({"ports": ["12-10"]}, "is no port"),
        ({"name": "../x"}, "cannot be a file's"),
        ({"name": ""}, "cannot be a file's"),
    ],
)
def test_nothing_but_addresses_and_ports_gets_into_the_table(more, words):
    with pytest.raises(_peer_firewall.FirewallError, match=words):
        record(**more)
    with pytest.raises(_peer_firewall.FirewallError):
        _peer_firewall.record("demo")


def test_peers_come_in_and_all_others_are_dropped():
    text = _peer_firewall.ruleset([record()], DYNAMIC)
    lines = [line.strip() for line in text.splitlines()]
    accepted = "ip saddr { 10.0.0.1, 10.0.0.2 } tcp dport { 28501, 29501, 32768-60999 } accept"
    (dropped,) = [line for line in lines if line.startswith("tcp dport") and " drop " in line]
    assert dropped.startswith("tcp dport { 28501, 29501, 32768-60999 } counter drop")
    assert lines.index('iifname "lo" accept') < lines.index(accepted) < lines.index(dropped)
    assert "policy accept" in text and "policy drop" not in text  # whatever is not ours goes its way


def test_only_our_own_table_is_touched_and_at_once():
    text = _peer_firewall.ruleset([record()], DYNAMIC)
    assert text.splitlines()[1:3] == ["table inet inferops", "delete table inet inferops"]
    assert "flush" not in text and text.count("table ") == 3


def test_published_ports_are_closed_too():
    text = _peer_firewall.ruleset([record()], DYNAMIC)
    forward = text.partition("chain forward")[2]
    assert "ct status dnat meta l4proto tcp ct original proto-dst { 28501, 29501 } counter drop" in forward
    assert "32768" not in forward  # containers of others publish what they like


def test_groups_add_up():
    text = _peer_firewall.ruleset([record(), _peer_firewall.record(RAY)], DYNAMIC)
    assert "{ 6379, 11000-12010, 28501, 29501, 32768-60999 } counter drop" in text
    assert "ip saddr { 10.0.0.1, 10.0.0.3 } tcp dport { 6379, 11000-12010, 32768-60999 } accept" in text


def test_addresses_of_ipv6():
    text = _peer_firewall.ruleset([record(peers=["fd00::2", "fd00::1"])], DYNAMIC)
    assert "ip6 saddr { fd00::1, fd00::2 } tcp dport" in text and "ip saddr" not in text


def test_what_others_listen_on_stays_open():
    text = _peer_firewall.ruleset([record()], DYNAMIC, [40000, 40001, 51000])
    at = text.index("tcp dport { 40000-40001, 51000 } accept")
    assert at < text.index("counter drop")


def test_without_groups_there_is_no_table():
    assert _peer_firewall.ruleset([], DYNAMIC) == ""
    assert _peer_firewall.digest_of("") is None


def test_the_mark_changes_with_what_is_closed():
    marks = {
        _peer_firewall.digest_of(_peer_firewall.ruleset(*given))
        for given in (
            ([record()], DYNAMIC),
            ([record(peers=["10.0.0.1"])], DYNAMIC),
            ([record()], "1-2"),
            ([record()], DYNAMIC, [40000]),
        )
    }
    assert len(marks) == 4 and None not in marks


def test_what_a_run_knows_nothing_of_stays_closed():
    demo, ray = record(), _peer_firewall.record(RAY)
    assert _peer_firewall.kept([demo], [RAY], ["ray"]) == [demo, ray]
    assert _peer_firewall.kept([demo, ray], [], ["demo"]) == [ray]
    assert _peer_firewall.kept([demo], [], []) == [demo]
    assert _peer_firewall.kept([demo], [{**DEMO, "peers": ["10.0.0.9"]}], ["demo"])[0]["peers"] == ["10.0.0.9"]
    assert _peer_firewall.kept([demo], [{**DEMO, "ports": []}], ["demo"]) == []


TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:9C40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0200A8C0:9C41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 00000000:9C42 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3 1
   3: 0200A8C0:9C43 0300A8C0:0050 01 00000000:00000000 00:00000000 00000000     0        0 4 1
"""
TABLE6 = """  sl  local_address                         remote_address                        st
   0: 00000000000000000000000001000000:9C44 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 5 1
   1: 00000000000000000000000000000000:9C45 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 6 1
"""


def test_listeners_beyond_loopback():
    assert _peer_firewall.listening(TABLE) == {40001: "2", 40002: "3"}
    assert list(_peer_firewall.listening(TABLE6)) == [40005]
    assert _peer_firewall.within([22, 40001, 61000], DYNAMIC) == [40001]


@pytest.mark.parametrize(
    ("text", "expected"), [("20000\t30000\n", "20000-30000"), ("", DYNAMIC), ("x y", DYNAMIC), (None, DYNAMIC)]
)
def test_the_kernels_range(text, expected):
    assert _peer_firewall.range_of_kernel(text) == expected


# Which ports belong to a group


def ports(backend, port=8000, **options):
    (service,) = normalize_services([{"name": "m", "model": "a/b", "port": port, "options": options}])
    return _groups.closed_ports(service, {"port": port}, backend)


def test_the_ports_of_a_group():
    assert ports("mp") == ["28501", "29501"]
    assert ports("mp", 8007) == ["28508", "29508"]
    assert ports("mp", **{"master-port": 31000}) == ["28501", "31000"]
    assert ports("mp", data_parallel_address="10.0.0.1") == ["28501", "29501", "29550"]
    assert ports("mp", **{"data-parallel-rpc-port": 29999}) == ["28501", "29501", "29999"]
    assert ports("ray") == ["28501", "6379", "11000-11999"]
    ray = _groups.ray_ports(0)
    assert all(port == 6379 or 11000 <= port <= 11999 for port in ray.values())  # each is closed


def test_groups_as_the_firewall_wants_them():
    closed = FilterModule().filters()["closed_groups"]
    peers = {"a": {"address": "10.0.0.1"}, "b": {"address": "10.0.0.2"}}
    group = {"name": "m-0", "service": "m", "hosts": ["a", "b"], "closed": ["28501"]}
    expected = {"name": "m-0", "service": "m", "peers": ["10.0.0.1", "10.0.0.2"], "ports": ["28501"]}
    assert closed([group], peers) == [expected]
    assert closed([{"name": "x", "hosts": ["a"]}, {**group, "closed": []}], peers) == []
    ray_group = FilterModule().filters()["ray_group"]
    cluster = {"name": "ray", "hosts": ["a"], "image": "i"}
    assert ray_group(cluster)["closed"] == ["6379", "11000-11999"] and ray_group(cluster)["token"]
    foreign = ray_group({**cluster, "address": "192.0.2.9:6379"})  # who else belongs to it is not known
    assert foreign["closed"] == [] and not foreign["token"]


# The module against an nft that records what it is asked

NFT = """#!/bin/sh
case "$1" in
  list) cat "$STATE" 2>/dev/null; [ -s "$STATE" ] ;;
  --file) text=$(cat); case "$text" in *refuse*) echo "syntax error" >&2; exit 1 ;; esac
    echo "$text" | grep -q "chain input" && echo "$text" > "$STATE" || rm -f "$STATE" ;;
esac
"""


class Done(Exception):
    pass


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Runs the module on a host: run(**parameters) → its result."""
    module = importlib.import_module("ansible_collections.inferops.gpu_host.plugins.modules.peer_firewall")
    nft = tmp_path / "nft"
    nft.write_text(NFT)
    nft.chmod(0o755)
    monkeypatch.setenv("STATE", str(tmp_path / "loaded"))
    monkeypatch.setattr(module, "listeners_of_others", lambda module, dynamic: [])

    class Fake:
        def __init__(self, argument_spec, supports_check_mode):
            self.params = {key: run.given.get(key, spec.get("default")) for key, spec in argument_spec.items()}
            self.check_mode = run.given.get("_check", False)

        def get_bin_path(self, name, opt_dirs):
            return None if run.given.get("_no_nft") else str(nft)

        def run_command(self, argv, data=None):
            import subprocess

            done = subprocess.run(argv, input=data, capture_output=True, text=True)
            return done.returncode, done.stdout, done.stderr

        def exit_json(self, **result):
            raise Done(result)

        def fail_json(self, **result):
            raise Done(dict(result, failed=True))

    monkeypatch.setattr(module, "RedactingModule", Fake)

    def run(**given):
        run.given = {"directory": str(tmp_path / "firewall"), **given}
        with pytest.raises(Done) as done:
            module.main()
        return done.value.args[0]

    run.directory, run.loaded = tmp_path / "firewall", tmp_path / "loaded"
    return run


def test_closed_once_kept_and_opened_again(host):
    assert host(groups=[DEMO], services=["demo"], _check=True)["changed"]
    assert not host.directory.exists() and not host.loaded.exists()

    first = host(groups=[DEMO], services=["demo"])
    assert first["changed"] and first["groups"] == ["demo"] and "28501" in first["diff"]["after"]
    assert "28501" in host.loaded.read_text()
    assert (host.directory / "table.nft").read_text() == first["diff"]["after"]
    assert not host(groups=[DEMO], services=["demo"])["changed"]

    host.loaded.unlink()  # somebody emptied everything
    assert host(groups=[DEMO], services=["demo"])["changed"] and host.loaded.exists()

    second = host(groups=[RAY], services=["ray"])  # a run that knows nothing of demo
    assert second["groups"] == ["demo", "ray"] and "28501" in host.loaded.read_text()

    assert host(services=["elsewhere"])["groups"] == ["demo", "ray"]
    third = host(services=["demo"])
    assert third["removed"] == ["demo"] and third["groups"] == ["ray"]
    assert "28501" not in host.loaded.read_text()
    assert host(services=["ray"])["changed"]
    assert not host.directory.exists() and not host.loaded.exists()
    assert not host(services=["ray"])["changed"]
    assert not host.directory.exists()


def test_without_nft_it_says_what_to_do(host):
    told = host(groups=[DEMO], services=["demo"], _no_nft=True)
    assert told["failed"] and "nft is not installed" in told["msg"] and "peers_firewall" in told["msg"]
    assert not list(host.directory.glob("*.json"))  # nothing is recorded that is not in force
    assert host(groups=[DEMO], services=["demo"], _no_nft=True, _check=True)["changed"]


def test_a_table_that_is_refused_leaves_the_one_in_force(host, monkeypatch):
    host(groups=[DEMO], services=["demo"])
    before = host.loaded.read_text(), (host.directory / "table.nft").read_text()
    monkeypatch.setattr(_peer_firewall, "ruleset", lambda *given: 'refuse comment "0123456789abcdef"')
    told = host(groups=[RAY], services=["ray"])
    assert told["failed"] and "syntax error" in told["msg"]
    assert before == (host.loaded.read_text(), (host.directory / "table.nft").read_text())
    assert [path.name for path in host.directory.glob("*.json")] == ["demo.json"]


@pytest.mark.parametrize("content", ["", "{", json.dumps({"name": "x", "peers": ["a b"]}), "[]", "9" * 9999])
def test_a_record_that_cannot_be_read_is_named(host, content):
    host(groups=[DEMO], services=["demo"])
    (host.directory / "other.json").write_text(content)
    told = host(groups=[DEMO], services=["demo"])
    assert told["failed"] and "other.json" in told["msg"]
    assert host.loaded.exists()


def test_a_record_that_is_a_pipe_does_not_hold_anything_up(host):
    host(groups=[DEMO], services=["demo"])
    os.mkfifo(host.directory / "pipe.json")
    assert stat.S_ISFIFO((host.directory / "pipe.json").stat().st_mode)
    assert host(groups=[DEMO], services=["demo"])["failed"]
    shutil.rmtree(host.directory)
