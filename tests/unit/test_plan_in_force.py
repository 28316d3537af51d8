"""What the hosts keep of the plan, and what a run that reaches only some of them makes of it."""

from __future__ import annotations

import json

import pytest
from role_plays import plan, service

from ansible_collections.inferops.gpu_host.plugins.module_utils._plan_in_force import (
    PlanFileError,
    around,
    carried_out,
    entries,
    merged,
    read,
    services,
    text_of,
)

NOTHING = {"serial": 0, "hosts": {}}


def entry(name, *hosts, port=8000):
    """A service with one replica over these hosts."""
    nodes = [
        {"host": host, "node_rank": at, "gpus": [{"uuid": f"GPU-{host}", "index": 0}]} for at, host in enumerate(hosts)
    ]
    return {"name": name, "model": "m", "placements": [{"replica": 0, "port": port, "nodes": nodes}]}


def where(force):
    return {item["name"]: [n["host"] for p in item["placements"] for n in p["nodes"]] for item in services(force)}


def kept(force, plan_, hosts, names, inventory=("a", "b", "c")):
    """What the files hold after a run, read again as the next run does."""
    return read(
        text_of(carried_out(force, {"services": plan_}, hosts, inventory, names)) or '{"serial": 0, "hosts": {}}'
    )


def test_a_limited_run_and_then_a_full_one_with_another_host_away():
    first = kept(NOTHING, [entry("one", "a"), entry("two", "b")], ["a", "b"], ["one", "two"])
    on_a = on_b = first
    assert where(first) == {"one": ["a"], "two": ["b"]}
    # Limited to a: its service is another one now. b keeps the old file.
    on_a = kept(on_a, [entry("one", "a", port=9000), entry("two", "b")], ["a"], ["one", "two"])
    assert (on_a["serial"], on_a["hosts"]["a"]["serial"], on_a["hosts"]["b"]["serial"]) == (2, 2, 1)
    # All hosts, and a is away: what b knows of a is old.
    on_b = kept(on_b, [entry("one", "a"), entry("two", "b", port=9001)], ["b"], ["one", "two"])
    assert on_b["hosts"]["a"]["serial"] == 1
    # Both again: of each the newest.
    both = merged([on_b, on_a])
    ports = {item["name"]: item["placements"][0]["port"] for item in services(both)}
    assert ports == {"one": 9000, "two": 9001}
    assert merged([on_a, on_b])["hosts"] == both["hosts"]


def test_the_same_again_keeps_its_serial():
    plan_ = [entry("one", "a"), entry("two", "b")]
    first = kept(NOTHING, plan_, ["a", "b"], ["one", "two"])
    assert kept(first, plan_, ["a", "b"], ["one", "two"]) == first
    assert kept(first, plan_, ["b"], ["two"]) == first


def test_only_what_was_carried_out_is_kept():
    first = kept(NOTHING, [entry("one", "a"), entry("two", "a", port=8001)], ["a"], ["one"])
    assert where(first) == {"one": ["a"]}
    moved = kept(first, [entry("one", "b"), entry("two", "a")], ["a", "b"], ["two"])
    assert where(moved) == {"one": ["a"], "two": ["a"]}
    assert where(kept(moved, [], ["a", "b"], ["one"])) == {"two": ["a"]}
    assert text_of(carried_out(moved, {}, ["a"], ["a"], ["one", "two"])) == ""


def test_hosts_that_left_the_inventory_are_forgotten():
    first = kept(NOTHING, [entry("one", "a"), entry("two", "b")], ["a", "b"], ["one", "two"])
    assert where(kept(first, [entry("one", "a")], ["a"], ["one"], inventory=["a"])) == {"one": ["a"]}


def test_a_replica_over_several_hosts_stands_in_the_sections_of_all():
    force = kept(NOTHING, [entry("big", "a", "b")], ["a", "b"], ["big"])
    assert where({"serial": 1, "hosts": {"b": force["hosts"]["b"]}}) == {"big": ["a", "b"]}


def test_an_older_file_is_a_list_of_services():
    assert where(read(json.dumps([entry("one", "a"), entry("big", "a", "b")]))) == {"one": ["a"], "big": ["a", "b"]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "7",
        "null",
        '{"serial": 1}',
        '{"serial": "x", "hosts": {}}',
        '[{"name": 1}]',
        '{"serial": 1, "hosts": []}',
    ],
)
def test_a_file_that_says_nothing_is_refused_and_not_taken_for_an_empty_plan(text):
    with pytest.raises(PlanFileError, match=r"plan\.json holds no plan"):
        read(text)


# Planning around hosts that are away


def looked_at(*names):
    return [
        {"name": name, "gpus": [{"uuid": f"GPU-{name}", "index": 0}, {"uuid": f"GPU-{name}-1", "index": 1}]}
        for name in names
    ]


def test_what_runs_on_a_host_that_is_away_is_not_planned_anew():
    force = kept(
        NOTHING, [entry("one", "a"), entry("big", "a", "b"), entry("two", "b")], ["a", "b"], ["one", "big", "two"]
    )
    declared = [{"name": "one"}, {"name": "big"}, {"name": "two"}, {"name": "new"}]
    found = around(declared, force, looked_at("a"), ["a", "b"])
    assert [item["name"] for item in found["services"]] == ["one", "new"]
    assert {item["name"]: item["reason"] for item in found["left"]} == {
        "big": "b is not in this run, so it stays as it is",
        "two": "b is not in this run, so it stays as it is",
    }
    assert all(item["placements"] and item["kept"] for item in found["left"])
    # The part of it that is on this host keeps its GPU.
    assert [gpu["uuid"] for gpu in found["hosts"][0]["gpus"]] == ["GPU-a-1"]
    everybody = around(declared, force, looked_at("a", "b"), ["a", "b"])
    assert (everybody["services"], everybody["left"]) == (declared, [])


def test_services_for_hosts_that_are_away_wait():
    declared = [
        {"name": "one", "host": "b"},
        {"name": "two", "hosts": ["a", "b"]},
        {"name": "gone", "host": "b", "state": "absent"},
    ]
    found = around(declared, NOTHING, looked_at("a"), ["a", "b"])
    assert [(item["name"], item.get("hosts")) for item in found["services"]] == [("two", ["a"])]
    assert [(item["name"], item["placements"]) for item in found["left"]] == [("one", []), ("gone", [])]
    assert around([{"name": "typo", "host": "x"}], NOTHING, looked_at("a"), ["a"])["services"] == [
        {"name": "typo", "host": "x"}
    ]


def test_what_is_kept_is_enough_to_make_the_same_containers():
    declared = service()
    assert services(kept(NOTHING, plan(declared)["services"], ["gpu1"], ["demo"], ["gpu1"])) == entries(plan(declared))


@pytest.mark.parametrize(
    "odd", ["Qwen/Qwen3-8B", None, 7, {"model": "m"}, {"name": ["a"]}, {"name": "a", "hosts": {"h": 1}}]
)
def test_a_declaration_that_makes_no_sense_is_left_to_the_planner(odd):
    assert around([odd], NOTHING, [{"name": "h"}], ["h", "away"])["services"] == [odd]
