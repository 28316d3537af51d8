from __future__ import annotations

import json

import pytest

from ansible_collections.inferops.gpu_host.plugins.filter.peers import FilterModule
from ansible_collections.inferops.gpu_host.plugins.module_utils import _network
from ansible_collections.inferops.gpu_host.plugins.module_utils._network import NetworkError

FILTERS = FilterModule().filters()

# `ip -j -d address show` of iproute2 6.1, less fields that nobody reads
CAPTURED = [
    {
        "ifname": "lo",
        "flags": ["LOOPBACK", "UP", "LOWER_UP"],
        "mtu": 65536,
        "link_type": "loopback",
        "addr_info": [{"local": "127.0.0.1", "prefixlen": 8, "scope": "host"}],
    },
    {
        "ifname": "eth0",
        "flags": ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"],
        "mtu": 1500,
        "link_type": "ether",
        "addr_info": [
            {"local": "192.0.2.11", "prefixlen": 24, "scope": "global"},
            {"local": "fe80::1", "prefixlen": 64, "scope": "link"},
        ],
    },
    {
        "ifname": "eth1",
        "flags": ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"],
        "mtu": 9000,
        "link_type": "ether",
        "addr_info": [{"local": "10.0.0.11", "prefixlen": 16, "scope": "global"}],
    },
    {
        "ifname": "docker0",
        "flags": ["NO-CARRIER", "BROADCAST", "MULTICAST", "UP"],
        "mtu": 1500,
        "link_type": "ether",
        "linkinfo": {"info_kind": "bridge"},
        "addr_info": [{"local": "172.17.0.1", "prefixlen": 16, "scope": "global"}],
    },
    {
        "ifname": "br0",
        "flags": ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"],
        "mtu": 1500,
        "link_type": "ether",
        "linkinfo": {"info_kind": "bridge"},
        "addr_info": [{"local": "198.51.100.11", "prefixlen": 24, "scope": "global"}],
    },
    {
        "ifname": "ib0",
        "flags": ["BROADCAST", "MULTICAST"],
        "mtu": 2044,
        "link_type": "infiniband",
        "addr_info": [{"local": "10.9.0.11", "prefixlen": 16, "scope": "global"}],
    },
    {},
]


def host(last=11, source="192.0.2.11", peer="gpu2", rdma=(), mtu=None):
    """What network_info says of a host; `last` is the last octet of its addresses."""
    links = json.loads(json.dumps(CAPTURED).replace('.11"', f'.{last}"'))
    for link in links:
        if mtu and link.get("ifname") == "eth0":
            link["mtu"] = mtu
    route = {"source": source} if source else {"reason": "gpu2: Name or service not known"}
    return {"interfaces": _network.parse_interfaces(json.dumps(links)), "routes": {peer: route}, "rdma": list(rdma)}


def pair(one=None, two=None):
    return {"gpu1": one or host(), "gpu2": two or host(12, "192.0.2.12", "gpu1")}


def wanted(**more):
    return {"gpu1": more, "gpu2": {key: value for key, value in more.items() if key != "address"}}


def problems_of(found, wishes=None, waive=()):
    with pytest.raises(NetworkError) as error:
        _network.resolve(found, wishes, waive)
    return error.value.problems


def test_kinds_of_interfaces():
    kinds = {link["name"]: (link["kind"], link["up"]) for link in host()["interfaces"]}
    assert kinds == {
        "lo": ("loopback", True),
        "eth0": ("ether", True),
        "eth1": ("ether", True),
        "docker0": ("engine", False),
        "br0": ("bridge", True),
        "ib0": ("infiniband", False),
    }


@pytest.mark.parametrize("name", ["docker0", "br-5458b5f555dc", "virbr0", "cni0", "cali12", "docker_gwbridge"])
def test_what_engines_make_is_told_from_what_people_make(name):
    (link,) = _network.parse_interfaces(json.dumps([{"ifname": name, "linkinfo": {"info_kind": "bridge"}}]))
    assert link["kind"] == "engine"
    (link,) = _network.parse_interfaces(json.dumps([{"ifname": "br-lan", "linkinfo": {"info_kind": "bridge"}}]))
    assert link["kind"] == "bridge"


@pytest.mark.parametrize(
    ("wishes", "address", "interface", "mtu"),
    [
        ({}, "192.0.2.11", "eth0", 1500),
        ({"network": "10.0.0.0/16"}, "10.0.0.11", "eth1", 9000),
        ({"network": "10.0.3.7/16"}, "10.0.0.11", "eth1", 9000),
        ({"interface": "eth1"}, "10.0.0.11", "eth1", 9000),
        ({"network": "198.51.100.0/24"}, "198.51.100.11", "br0", 1500),
    ],
    ids=["route", "subnet", "subnet by a member", "interface", "a bridge on purpose"],
)
def test_choice(wishes, address, interface, mtu):
    chosen = _network.resolve(pair(), wanted(**wishes))
    assert chosen["gpu1"] == {"address": address, "interface": interface, "mtu": mtu, "rdma": []}
    assert chosen["gpu2"]["address"] == address.replace(".11", ".12")


def test_an_address_that_is_named_wins():
    wishes = {"gpu1": {"network": "192.0.2.0/24", "address": "10.0.0.11"}, "gpu2": {"address": "10.0.0.12"}}
    assert _network.resolve(pair(), wishes)["gpu1"]["interface"] == "eth1"


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"network": "10.77.0.0/16"}, ["gpu1 has no address for inference_network 10.77.0.0/16", "eth1 10.0.0.11/16"]),
        ({"network": "10.0.0"}, ["inference_network is '10.0.0'", "wanted a subnet"]),
        ({"network": "0.0.0.0/0", "interface": "eth9"}, ["inference_interface eth9", "it has eth0"]),
        ({"network": "0.0.0.0/0"}, ["several addresses", "Set inference_address of gpu1"]),
        ({"network": "172.17.0.0/16"}, ["docker0", "leads to no other host"]),
        ({"network": "127.0.0.0/8"}, ["on lo", "leads to no other host"]),
        ({"network": "10.9.0.0/16"}, ["ib0, which is down"]),
        ({"address": "203.0.113.9"}, ["inference_address is 203.0.113.9, which it does not have"]),
    ],
)
def test_wishes_that_cannot_be(wishes, words):
    told = "\n".join(problems_of(pair(), wanted(**wishes)))
    for word in words:
        assert word in told


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (None, ["gpu1 finds no way to gpu2", "Name or service not known", "inference_network"]),
        ("172.17.0.1", ["docker0"]),
        ("198.51.100.11", ["over the bridge br0", "inference_network"]),
        ("203.0.113.5", ["on no interface"]),
    ],
)
def test_ways_that_are_none(source, words):
    told = "\n".join(problems_of(pair(host(source=source))))
    for word in words:
        assert word in told


def test_two_ways_need_a_decision():
    found = {
        "gpu1": host(),
        "gpu2": host(12, "192.0.2.12", "gpu1"),
        "gpu3": host(13, "192.0.2.13", "gpu1"),
    }
    found["gpu1"]["routes"]["gpu3"] = {"source": "10.0.0.11"}
    found["gpu2"]["routes"]["gpu3"] = {"source": "192.0.2.12"}
    found["gpu3"]["routes"]["gpu2"] = {"source": "192.0.2.13"}
    (problem,) = problems_of(found)
    assert "10.0.0.11 to gpu3" in problem and "192.0.2.11 to gpu2" in problem and "inference_network" in problem


def test_what_must_agree():
    (problem,) = problems_of(pair(two=host(mtu=None, peer="gpu1")))
    assert "gpu1 and gpu2 would all be 192.0.2.11" in problem
    (problem,) = problems_of(pair(two=host(12, "192.0.2.12", "gpu1", mtu=9000)))
    assert "gpu1 1500 on eth0, gpu2 9000 on eth0" in problem and "inference_sameness_waive" in problem
    assert _network.resolve(pair(two=host(12, "192.0.2.12", "gpu1", mtu=9000)), waive=["mtu"])


def adapter(name, layer, interface="", state="ACTIVE"):
    return {"name": name, "link_layer": layer, "state": state, "interface": interface}


@pytest.mark.parametrize(
    ("rdma", "wish", "expected"),
    [
        ([], None, []),
        ([adapter("mlx5_0", "InfiniBand", "ib0"), adapter("mlx5_1", "InfiniBand", state="DOWN")], None, ["mlx5_0"]),
        ([adapter("mlx5_0", "Ethernet", "eth0"), adapter("mlx5_1", "Ethernet", "eth1")], None, ["mlx5_0"]),
        ([adapter("mlx5_0", "Ethernet", "eth0"), adapter("mlx5_1", "InfiniBand")], None, ["mlx5_1"]),
        ([adapter("mlx5_0", "InfiniBand")], ["mlx5_7"], ["mlx5_7"]),
        ([adapter("mlx5_0", "InfiniBand")], [], []),
    ],
    ids=["none", "InfiniBand that is up", "RoCE of the interface", "InfiniBand before RoCE", "named", "switched off"],
)
def test_rdma(rdma, wish, expected):
    chosen = _network.resolve(pair(host(rdma=rdma)), {"gpu1": {"rdma": wish}})
    assert chosen["gpu1"]["rdma"] == expected


PEERS = {name: {"address": f"10.0.0.{at}", "interface": "eth0", "rdma": []} for at, name in enumerate("abc", 1)}
GROUP = {"hosts": ["a", "b", "c"], "head": "a", "ports": {"head": {"torch": 29501}, "every": {"ray worker": 11100}}}


def test_every_pair_is_connected_in_both_directions():
    needed = _network.connections([GROUP], PEERS, {"a": 40001, "b": 40002, "c": 40003})
    ways = {(source, way["host"], way["port"]) for source, targets in needed.items() for way in targets}
    pairs = [(one, two) for one in "abc" for two in "abc" if one != two]
    probes = {"a": 40001, "b": 40002, "c": 40003}
    assert ways == (
        {(one, two, 11100) for one, two in pairs}
        | {(one, two, probes[two]) for one, two in pairs}
        | {("b", "a", 29501), ("c", "a", 29501)}
    )


def test_a_host_listens_on_what_the_others_need():
    assert FILTERS["peer_ports"]([GROUP], "a") == {29501: "torch", 11100: "ray worker"}
    assert FILTERS["peer_ports"]([GROUP], "b") == {11100: "ray worker"}
    assert FILTERS["peer_ports"]([GROUP], "elsewhere") == {}


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("timeout", "a firewall drops it"),
        ("refused", "a firewall on gpu1"),
        ("unreachable", "no route"),
        ("odd", "odd"),
    ],
)
def test_a_blocked_connection_names_both_ends(reason, words):
    target = {"host": "gpu1", "address": "10.0.0.1", "port": 29501, "purpose": "torch", "reason": reason}
    (line,) = _network.blocked({"gpu2": [target], "gpu3": []})
    assert line.startswith("gpu2 → gpu1 10.0.0.1:29501 (torch): ") and words in line


def test_groups_that_share_a_host_are_resolved_as_one():
    resolve = FILTERS["resolve_peers"]
    looked_at = {name: {"found": found, "wanted": {}} for name, found in pair().items()}
    result = resolve([{"hosts": ["gpu1", "gpu2"]}, {"hosts": ["gpu2", "gpu1"]}], looked_at)
    assert sorted(result["peers"]) == ["gpu1", "gpu2"] and result["problems"] == []
    result = resolve([{"hosts": ["gpu1", "gpu2"]}, {"hosts": ["gpu2", "gpu3"]}], looked_at)
    assert "gpu3 of gpu1, gpu2, gpu3 has not been looked at" in result["problems"][0]
