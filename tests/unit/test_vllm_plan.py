from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.inferops.gpu_host.plugins.module_utils._model.demo import demo_config
from ansible_collections.inferops.gpu_host.plugins.modules import vllm_plan

DEMO = {"name": "demo", "hub": "generated", "config": demo_config()}


@pytest.fixture
def run(capsys):
    def call(**arguments):
        with patch_module_args(arguments), pytest.raises(SystemExit):
            vllm_plan.main()
        return json.loads(capsys.readouterr().out)

    return call


def test_a_plan_and_its_report(run):
    result = run(services=[dict(DEMO, api_key="sk-very-secret")], hosts=[{"name": "a", "gpus": "L4"}])
    assert result["changed"] is False
    assert result["plan"]["services"][0]["placements"][0]["nodes"][0]["host"] == "a"
    assert any("chosen: about" in line for line in result["report"])
    assert "sk-very-secret" not in json.dumps(result)


def test_what_cannot_be_placed_fails_but_brings_its_table(run):
    result = run(services=[DEMO], hosts=[{"name": "a", "reason": "nvidia-smi is not installed"}])
    assert result["failed"] and "no GPU" in result["msg"] and "not installed" in result["msg"]
    assert result["report"]
    assert "failed" not in run(services=[DEMO], hosts=[{"name": "a"}], allow_unplaced=True)


@pytest.mark.parametrize(
    ("services", "hosts", "message"),
    [
        ([dict(DEMO, prt=1)], [{"name": "a"}], "did you mean 'port'"),
        ([DEMO], [{"name": "a", "gpus": "H1000"}], "did you mean H100"),
        ([dict(DEMO, config={"architectures": ["X"]})], [{"name": "a"}], "service 'demo': config.json"),
        ([dict(DEMO, host="b")], [{"name": "a"}], "host b is not in the fleet (a)"),
    ],
)
def test_bad_input_is_named(run, services, hosts, message):
    assert message in run(services=services, hosts=hosts)["msg"]
