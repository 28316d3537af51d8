"""Programs among a model's files: nothing of a hub runs that nobody has looked at."""

from __future__ import annotations

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_code
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.refusals import of_code
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import normalize_services

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def service(**keys):
    return normalize_services([{"name": "s", "model": "a/b", **keys}])[0]


@pytest.fixture
def model(tmp_path):
    def files(**content):
        for name, text in content.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return files


def judged(directory, **keys):
    return _model_code.refusal(service(**keys), _model_code.code_of(str(directory)), model_dir=str(directory))


def test_code_runs_when_exactly_this_code_was_accepted(model):
    directory = model(
        config_dot_json="{}", modeling_dot_py="print(1)", kernels__fast_dot_cu="//", model_dot_safetensors=""
    )
    assert judged(directory) is None, "nothing runs it"
    told = judged(directory, trust_remote_code=True, revision=COMMIT)
    digest = _model_code.code_of(str(directory))["digest"]
    assert "kernels/fast.cu, modeling.py" in told and f"trusted_code: {digest}" in told
    assert judged(directory, trust_remote_code=True, revision=COMMIT, trusted_code=digest) is None
    assert judged(directory, options={"trust-remote-code": True}, trusted_code=digest) is None
    for change in ({"modeling_dot_py": "print(2)"}, {"more_dot_py": ""}):
        model(**change)
        assert "that of other files" in judged(directory, trust_remote_code=True, trusted_code=digest)


def test_a_plugin_among_the_models_files_is_its_code_too(model):
    directory = model(config_dot_json="{}", parser_dot_py="print(1)")
    below = {"tool-parser-plugin": f"{directory}/x/../parser.py"}
    assert "options: tool-parser-plugin" in judged(directory, options=below)
    assert judged(directory, options={"tool-parser-plugin": "/opt/site/parser.py"}) is None, "the operator's own"


def test_code_that_the_defaults_of_all_services_would_run(model):
    directory = model(modeling_dot_py="")
    code = _model_code.code_of(str(directory))
    assert "trusted_code" in _model_code.refusal(service(), code, {"trust_remote_code": True}, str(directory))


def test_pickles_are_loaded_only_where_that_is_wanted(model):
    directory = model(pytorch_model_dot_bin="", config_dot_json="{}")
    assert "pytorch_model.bin" in judged(directory) and "allow_pickle: true" in judged(directory)
    assert judged(directory, allow_pickle=True) is None
    model(model_dot_safetensors="")
    assert judged(directory) is None, "the engine takes the safetensors"
    assert "allow_pickle" in judged(directory, options={"load-format": "pt"})
    model(**{"2_Dense__pytorch_model_dot_bin": ""})
    assert "2_Dense/pytorch_model.bin" in judged(directory), "a part that has no safetensors"


def test_code_that_cannot_be_read_is_never_accepted(model, tmp_path):
    directory = model(config_dot_json="{}")
    (tmp_path / "modeling.py").symlink_to("/etc/hostname")
    code = _model_code.code_of(str(directory))
    assert code["problem"] and code["digest"] is None
    assert "cannot be judged" in judged(directory, trust_remote_code=True)
    assert _model_code.code_of(str(tmp_path / "missing")) is None


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"trust_remote_code": True}, "revision is not set"),
        ({"trust_remote_code": True, "revision": "main"}, "revision is main"),
        ({"trust_remote_code": True, "revision": COMMIT}, None),
        ({"options": {"trust-remote-code": True}}, "set revision to the commit"),
        ({"trust_remote_code": True, "hub": "local", "path": "/data/m"}, None),
        ({"trust_remote_code": True, "state": "stopped"}, None),
        ({"revision": "main"}, None),
    ],
)
def test_the_plan_wants_a_commit_where_code_runs(keys, words):
    lines = of_code(service(**keys), {})
    assert (words in lines[0]) if words else lines == []


def test_the_plan_says_that_weights_are_pickles_before_they_are_fetched():
    assert "allow_pickle" in of_code(service(), {"loads": ["pytorch_model.bin"]})[0]
    assert of_code(service(allow_pickle=True), {"loads": ["pytorch_model.bin"]}) == []
    assert of_code(service(), {"loads": ["model.safetensors"]}) == []
    assert of_code(service(), {}) == []


def test_a_digest_is_one():
    with pytest.raises(ValueError, match="trusted_code"):
        service(trusted_code="yes")
