"""What a client and an operator find on the hosts of one service."""

import json

import pytest

testinfra_hosts = ["gpu1", "gpu2", "gpu3"]


def name_of(host):
    return host.check_output("hostname")


def inspect(host):
    return json.loads(host.check_output("docker inspect demo"))[0]


@pytest.fixture(autouse=True)
def only_members(host):
    if name_of(host) == "gpu3":
        pytest.skip("not a member")


def test_a_chat_is_answered_through_the_head(host):
    if name_of(host) != "gpu1":
        assert host.run("ss -ltn sport = :8000 | grep LISTEN").rc == 1
        return
    body = {"model": "demo", "messages": [{"role": "user", "content": "Tell me a joke"}], "max_tokens": 8}
    script = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), {"Content-Type": "application/json"})
print(urllib.request.urlopen(request).read().decode())
"""
    url = "http://127.0.0.1:8000/v1/chat/completions"
    answer = json.loads(host.check_output("python3 -c %s %s %s", script, url, json.dumps(body)))
    assert answer["choices"][0]["message"]["content"].strip()


def test_each_rank_runs_on_its_own_host(host):
    rank = {"gpu1": 0, "gpu2": 1}[name_of(host)]
    assert f"VLLM::Worker_TP{rank}" in host.check_output("ps axo args")
    assert inspect(host)["Config"]["Labels"]["io.github.inferops.rank"] == str(rank)


def test_addresses_come_from_one_choice(host):
    env = dict(item.split("=", 1) for item in inspect(host)["Config"]["Env"])
    assert env["GLOO_SOCKET_IFNAME"] == "eth0"
    assert env["VLLM_HOST_IP"] in host.check_output("ip -4 -o address show eth0")
    assert f"host={env['VLLM_HOST_IP']}" not in inspect(host)["Config"]["Cmd"]


def test_containers_are_healthy_or_about_to_be(host):
    assert inspect(host)["State"]["Health"]["Status"] in ("healthy", "starting")


def test_no_listener_of_the_check_was_left(host):
    assert "peer_check" not in host.check_output("ps axo args")
