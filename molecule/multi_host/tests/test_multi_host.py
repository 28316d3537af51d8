"""What a client and an operator find on the hosts of one service."""

import json

import pytest
import testinfra

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


# Who may connect to what. The programs of the group listen on ports of the group and on ports that the kernel chose.
LISTENING = """
import glob, json, os
def members(pid):
    return open("/proc/%s/cgroup" % pid).read()
container = os.popen("docker inspect -f '{{.Id}}' demo").read().strip()
inodes = set()
for link in glob.glob("/proc/[0-9]*/fd/*"):
    try:
        if container in members(link.split("/")[2]) and os.readlink(link).startswith("socket:["):
            inodes.add(os.readlink(link)[8:-1])
    except OSError:
        pass
ports = set()
for table in ("/proc/net/tcp", "/proc/net/tcp6"):
    for line in open(table).read().splitlines()[1:]:
        fields = line.split()
        address, port = fields[1].split(":")
        if fields[3] == "0A" and fields[9] in inodes and not address.endswith("0100007F"):
            ports.add(int(port, 16))
print(json.dumps(sorted(ports)))
"""
CONNECT = """
import json, socket, sys
reached = []
for port in json.loads(sys.argv[2]):
    try:
        socket.create_connection((sys.argv[1], port), 2).close()
        reached.append(port)
    except OSError as error:
        pass
print(json.dumps(reached))
"""


def at(host, name):
    return testinfra.get_host(f"ansible://{name}", ansible_inventory=host.backend.ansible_inventory)


def reached(source, address, ports, prefix=""):
    command = prefix + "python3 -c %s %s %s"
    return json.loads(source.check_output(command, CONNECT, address, json.dumps(ports)))


def test_only_the_members_reach_what_the_group_listens_on(host):
    name = name_of(host)
    address = host.check_output("ip -4 -o address show eth0").split()[3].partition("/")[0]
    ports = [port for port in json.loads(host.check_output("python3 -c %s", LISTENING)) if port != 8000]
    assert set(ports) >= ({28501, 29501} if name == "gpu1" else set())
    assert any(port > 30000 for port in ports)  # what the kernel chose for Gloo and ZeroMQ
    # Each can be reached by the member; some listen on one address or accept one connection, so it is not all.
    assert set(reached(at(host, "gpu2" if name == "gpu1" else "gpu1"), address, ports)) & set(ports)
    assert reached(at(host, "gpu3"), address, ports) == []
    # A neighbour: another container on this host, on the network of the engine.
    image = inspect(host)["Image"]
    neighbour = f"docker run --rm --network bridge --entrypoint python3 {image} -c %s %s %s"
    assert json.loads(host.check_output(neighbour, CONNECT, address, json.dumps(ports))) == []


def test_the_api_is_open_and_so_is_what_is_not_ours(host):
    address = host.check_output("ip -4 -o address show eth0").split()[3].partition("/")[0]
    stranger = at(host, "gpu3")
    if name_of(host) == "gpu1":
        assert reached(stranger, address, [8000]) == [8000]
    # A program of somebody else, on a port below those that the kernel chooses from.
    host.run("systemd-run --quiet --unit=another python3 -m http.server 20000")
    host.run("for at in 1 2 3 4 5 6 7 8 9; do ss -ltn sport = :20000 | grep -q LISTEN && break; sleep 0.5; done")
    try:
        assert reached(stranger, address, [20000]) == [20000]
    finally:
        host.run("systemctl stop another")


def test_the_ports_stay_closed_when_others_load_their_rules_anew(host):
    count = "nft list table inet inferops | grep -c 28501"
    before = host.check_output(count)
    assert int(before) >= 2
    host.check_output("cp /etc/nftables.conf /run/kept.conf && echo 'delete table inet inferops' >/etc/nftables.conf")
    try:
        host.check_output("systemctl daemon-reload && systemctl start nftables")
        assert host.check_output(count) == before
        host.check_output("systemctl reload nftables")
        assert host.check_output(count) == before
    finally:
        host.check_output("cp /run/kept.conf /etc/nftables.conf")


def test_the_members_may_do_little(host):
    status = host.check_output("docker exec demo cat /proc/1/status")
    words = dict(line.split(":", 1) for line in status.splitlines())
    assert words["NoNewPrivs"].strip() == "1" and int(words["CapEff"], 16) == 0
    assert inspect(host)["HostConfig"]["ReadonlyRootfs"] and inspect(host)["HostConfig"]["IpcMode"] == "private"
