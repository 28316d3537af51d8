"""A replacement that is killed at any moment: after each module, and with each deed of the engine. Whatever is found then,
the next run has the new service answer, or the old one, and the run after that changes nothing.

One play is cut off from each of its hosts at another moment; the next one finds them all.
"""

from __future__ import annotations

import itertools

import pytest
from role_plays import plan, service

pytestmark = pytest.mark.slow
DEEDS = {"in_place": 9, "dies": 9, "removed": 3}
MODULES = 18  # of a whole replacement; the last ones are not reached


def prepared(stage, case, name, **moment):
    old = service(host=name)
    new = {**old, "image": "vllm/vllm-openai:v0.32.0", "max_model_len": 256}
    new.update({"env": {"STAND_IN": "dies"}} if case == "dies" else {})
    host = stage.host(name, inference_plan=plan(old), inference_services=[new], vllm_report_dir="")
    host.engine.add_image("vllm/vllm-openai:v0.32.0", serves=True)
    host.old, host.before = old, host.serves(old, plan(old)).id
    if case == "removed":
        host.variables.update(inference_services=[{**old, "state": "absent"}], inference_plan={})
    host.dies(**moment)
    return host


def state(host):
    """What the next play can find, without names that are chance."""
    containers = sorted(
        (c.name, c.config["Image"], c.id == host.before, c.state["Status"]) for c in host.engine.by_id.values()
    )
    marker = host.directory / "etc/vllm/demo/demo.proven"
    proven = marker.read_text() if marker.exists() else ""
    names = [file for file in host.files("etc") if not file.endswith(".proven")]
    return str((containers, host.before in proven, len(names)))


@pytest.mark.parametrize("case", list(DEEDS))
def test_the_old_or_the_new_service_answers_in_the_end(stage, case):
    moments = [{"deeds": number} for number in range(1, DEEDS[case] + 1)]
    if case == "in_place":
        moments += [{"modules": number} for number in range(0, MODULES + 1, 2)]
    for number, moment in enumerate(moments):
        prepared(stage, case, f"h{number}", **moment)
    killed = stage.play(stage.role("vllm"))
    assert not killed.ok
    # What was proven is there as long as nothing else is.
    if case != "removed":
        for host in stage.hosts.values():
            marker = (host.directory / "etc/vllm/demo/demo.proven").read_text()
            assert any(container in marker for container in host.engine.by_id), state(host)

    # Hosts that were left in the same state go on in the same way: one of each is enough.
    hosts = sorted(stage.hosts.values(), key=state)
    left = {key: list(group) for key, group in itertools.groupby(hosts, state)}
    stage.hosts, others = {group[0].name: group[0] for group in left.values()}, stage.hosts
    try:
        assert len(stage.hosts) >= {"in_place": 7, "dies": 5, "removed": 1}[case]
        for host in stage.hosts.values():
            host.lives()
        # Every second operator has gone back to the old service meanwhile.
        back = [host for host in stage.hosts.values() if case == "in_place" and int(host.name[1:]) % 2]
        for host in back:
            host.variables["inference_services"] = [host.old]
        again = stage.play(stage.role("vllm"))
        for host in stage.hosts.values():
            # In a container without a name vllm's parser was asked; the next check clears it away.
            containers = {name: it for name, it in host.engine.containers.items() if not name.startswith("unnamed_")}
            if case == "removed":
                assert not containers, again.output
            elif case == "dies":
                assert containers["demo"]["Id"] == host.before, (state(host), again.output)
                assert host.engine.running() == ["demo"], (state(host), again.output)
            else:
                wanted = host.old if host in back else {"image": "vllm/vllm-openai:v0.32.0"}
                assert host.engine.running() == ["demo"], (state(host), again.output)
                if "image" in wanted:
                    assert containers["demo"]["Config"]["Image"] == wanted["image"], (state(host), again.output)
                assert set(containers) <= {"demo", "demo.failed"}, (state(host), again.output)
        if case == "in_place":
            assert again.ok, again.output
            third = stage.play(stage.role("vllm"))
            assert third.ok and third.changed() == 0, third.output
    finally:
        stage.hosts = others
