"""Playbooks that are run in part: nothing is removed, moved or restarted because something was not looked at."""

from __future__ import annotations

import pytest
from role_plays import plan, service

from ansible_collections.inferops.gpu_host.plugins.module_utils._model.demo import demo_config
from ansible_collections.inferops.gpu_host.plugins.module_utils._plan_in_force import carried_out, text_of

pytestmark = pytest.mark.slow


@pytest.fixture
def two(stage):
    """Two hosts, of which each serves one service, and the services."""
    declared = [service("one", "a"), service("two", "b")]
    for name, mine in zip("ab", declared):
        host = stage.host(name, inference_services=declared, container_image_images=[], verify_semantic=False)
        host.serves(mine, plan(mine))
    stage.groups["site"] = ["a", "b"]
    return stage, declared


def keep(stage, *declared, hosts="ab"):
    """The plan in force, as a run has left it on these hosts."""
    force = carried_out(
        {"serial": 0, "hosts": {}}, plan(*declared), list("ab"), list("ab"), [s["name"] for s in declared]
    )
    for name in hosts:
        (stage.hosts[name].directory / "etc/plan.json").write_text(text_of(force))


def untouched(stage):
    return [host.engine.running() for host in stage.hosts.values()] == [["one"], ["two"]] and not any(
        host.engine.acted() for host in stage.hosts.values()
    )


def test_without_any_plan_it_refuses_and_nothing_is_touched(two):
    stage, _declared = two
    played = stage.play(stage.playbook("services"))
    assert not played.ok and untouched(stage), played.output
    assert "No plan says where one, two is to run" in played.words
    played = stage.play(stage.playbook("site"), arguments=["--tags", "vllm"])
    assert not played.ok and untouched(stage), played.output


def test_without_a_plan_in_this_run_the_one_in_force_is_gone_by(two):
    stage, declared = two
    keep(stage, *declared)
    for name, arguments in (
        ("services", []),
        ("services", ["--limit", "a"]),
        ("services", ["-e", "service=two"]),
        ("site", ["--tags", "vllm"]),
    ):
        played = stage.play(stage.playbook(name), arguments=arguments)
        assert played.ok and played.changed() == 0 and untouched(stage), (arguments, played.output)


def test_a_service_that_the_plan_in_force_does_not_know_is_refused_and_the_others_stay(two):
    stage, declared = two
    keep(stage, declared[0])
    played = stage.play(stage.playbook("services"), arguments=["--check"])
    assert not played.ok and untouched(stage), played.output
    assert "No plan says where two is to run" in played.words


def test_a_limited_run_and_then_a_full_one_with_another_host_away(stage):
    declared = [service(name, host, config=demo_config()) for name, host in (("one", "a"), ("two", "b"))]
    for name in "ab":
        stage.host(name, container_image_images=[], vllm_report_dir="").model()

    def serve(services, *arguments):
        played = stage.play(stage.playbook("serve"), arguments=arguments, inference_services=services)
        containers = [host.engine.containers for host in stage.hosts.values()]
        return played, *containers

    played, a, b = serve(declared)
    assert played.ok and (list(a), list(b)) == (["one"], ["two"]), played.output

    changed = [{**declared[0], "max_model_len": 256}, declared[1]]
    played, a_changed, b_same = serve(changed, "--limit", "a,localhost")
    assert played.ok and b_same == b, played.output
    assert "two: b is not in this run, so it stays as it is" in played.words
    assert list(a_changed) == ["one"] and a_changed["one"]["Id"] != a["one"]["Id"]

    # Now a is away, and everything is asked for.
    stage.hosts["a"].variables.update(ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1)
    played, a_same, b_same = serve(changed)
    assert "one: a is not in this run, so it stays as it is" in played.words, played.output
    assert (a_same, b_same) == (a_changed, b)

    # And with both again nothing is to be done but for b to learn of a: of each host the newest is known.
    stage.hosts["a"].variables.update(ansible_connection="local")
    kept = (stage.hosts["a"].directory / "etc/plan.json").read_text()
    played, a_same, b_same = serve(changed)
    assert played.ok and played.recap["a"]["changed"] == 0, played.output
    assert [host.directory.joinpath("etc/plan.json").read_text() for host in stage.hosts.values()].count(kept) == 2
    assert (a_same, b_same) == (a_changed, b)
