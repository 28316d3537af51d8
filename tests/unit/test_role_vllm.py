"""What the role vllm does to services that run, in plays against a stand-in of the engine. One host for each case."""

from __future__ import annotations

import socket

from role_plays import plan, service

KEY = "sk-planted-in-a-test"
DIES, SILENT = {"env": {"STAND_IN": "dies"}}, {"env": {"STAND_IN": "never_healthy"}}


def host_with(stage, name, old, new, serves=True, **more):
    """A host that serves `old` and whose operator has made `new` of it; the id of the container that serves."""
    host = stage.host(name, inference_services=[new], inference_plan=plan(new), vllm_report_dir="", **more)
    host.model()
    return host.serves(old, plan(old)).id if serves else None


def deeds(host):
    """What was done to the containers of the service, but for the one in which the parser is asked."""
    return [deed for deed in host.engine.acted() if deed[1].startswith("demo")]


def test_nothing_is_lost_when_a_change_goes_wrong(stage):
    before = {}
    # It dies. Its key is nowhere but in files that only root reads.
    old = service(host="dies", api_key=KEY)
    before["dies"] = host_with(stage, "dies", old, {**old, **DIES, "max_model_len": 256})
    # It never answers, and the play before was killed between stopping the one that serves and the next step.
    old = service(host="silent", api_key=KEY)
    before["silent"] = host_with(stage, "silent", old, {**old, **SILENT}, vllm_start_timeout=0)
    stage.hosts["silent"].engine.by_id[before["silent"]].stop()
    # It failed before; another one is somebody else's; a third one's port is taken.
    old = service(host="refused")
    before["refused"] = host_with(stage, "refused", old, {**old, **DIES})
    stage.hosts["refused"].serves({**old, **DIES}, plan({**old, **DIES}), "demo.failed", running=False, proven=False)
    host_with(stage, "foreign", None, service(host="foreign"), serves=False)
    stage.hosts["foreign"].engine.add_container("demo", "vllm/vllm-openai:v0.33.0", running=False)
    # Its model brings a program that nobody has accepted.
    code = service(host="code", trust_remote_code=True)
    before["code"] = host_with(stage, "code", service(host="code", port=code["port"]), code)
    stage.hosts["code"].model(**{"modeling.py": "import os", "pytorch_model.bin": ""})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        host_with(stage, "taken", None, service(host="taken", port=port), serves=False)
        played = stage.play(stage.role("vllm"), arguments=["-vvv", "--diff"])

    assert KEY not in played.output
    for name, container in before.items():
        engine = stage.hosts[name].engine
        assert engine.containers["demo"]["Id"] == container, played.output
        assert sorted(engine.containers) == (["demo"] if name == "code" else ["demo", "demo.failed"]), played.output
        assert engine.running() == ["demo"], name
    for name in ("refused", "foreign", "taken", "code"):
        assert deeds(stage.hosts[name]) == [], name
    for words in (
        "The previous container is back, and it answers: demo",
        "it did not answer within vllm_start_timeout, 0 s",
        "with exactly this image and these options before, and failed",
        "A container named demo is on foreign already and was not made by this collection",
        f"Port {port} on taken is taken by",
        "Look at modeling.py in",
    ):
        assert words in played.words
    options = stage.hosts["dies"].directory / "etc/vllm/demo"
    assert options.stat().st_mode & 0o777 == 0o700
    written = [path for path in options.iterdir() if path.suffix == ".yaml"]
    assert len(written) == 2
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in written)
