from __future__ import annotations

import json

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _micromamba as micromamba


@pytest.mark.parametrize(
    ("spec", "name"),
    [("numpy", "numpy"), ("conda-forge::numpy>=2.0,<3", "numpy"), ("python=3.12", "python"), ("Pillow 11.*", "pillow")],
)
def test_conda_names(spec, name):
    assert micromamba.conda_name(spec) == name


@pytest.mark.parametrize(
    ("requirement", "name"),
    [("modelscope-hub==0.5.1", "modelscope_hub"), ("vLLM[audio]~=0.26", "vllm"), ("x.y @ https://a/b.whl", "x_y")],
)
def test_pip_names(requirement, name):
    assert micromamba.pip_name(requirement) == name


CONDA = ["python-3.12.4-h194_0.json", "scikit-learn-1.5-py312_0.json", "history", micromamba.SPEC_NAME]
SITE = ["modelscope_hub-0.5.1.dist-info", "modelscope_hub", "huggingface_hub-2.4.0.dist-info"]


def act(last, **changes):
    given = {"python": "3.12", "packages": ["scikit-learn"], "channels": [], "pip": ["modelscope-hub==0.5.1"]}
    wanted = micromamba.wanted_spec(**{**given, "pip_index_url": None, **changes})
    last = wanted if last == "same" else last
    conda, pip = micromamba.installed_conda(CONDA), micromamba.installed_pip(SITE)
    return micromamba.reasons_to_act(wanted, last, conda, pip)


def test_an_environment_as_declared_is_left_alone():
    assert act("same") == []
    assert act("same", pip=["huggingface-hub"]) == []


def test_reasons_to_act():
    assert act(None) == ["it does not exist"]
    assert "pip_index_url changed" in act({"pip_index_url": "https://mirror"})
    assert act("same", packages=["numpy"]) == ["numpy is missing"]
    assert act("same", pip=["torch"]) == ["torch is missing"]


def test_commands():
    wanted = micromamba.wanted_spec("3.12", ["numpy"], ["https://mirror/conda-forge"], ["x"], "https://mirror/simple")
    command = micromamba.conda_command("/usr/bin/micromamba", "/r", "/r/envs/e", wanted, exists=False)
    assert command[1] == "create"
    assert command[-4:] == ["https://mirror/conda-forge", "--override-channels", "python=3.12", "numpy"]
    assert micromamba.conda_command("m", "/r", "/r/envs/e", wanted, exists=True)[1] == "install"
    pip = micromamba.pip_command("/r/envs/e", wanted["pip"])
    assert (pip[0], pip[-1]) == ("/r/envs/e/bin/python", "x")
    assert "mirror" not in " ".join(pip)


def test_a_channel_with_a_password_is_no_argument():
    channels = ["https://me:planted@mirror/conda-forge", "bioconda"]
    wanted = micromamba.wanted_spec("3.12", ["numpy"], channels, [], None)
    command = micromamba.conda_command("m", "/r", "/p", wanted, exists=False, file="/private/environment.yml")
    assert command[-3:] == ["--file", "/private/environment.yml", "--override-channels"]
    said = json.loads(micromamba.conda_file(wanted))
    assert said == {"channels": channels, "dependencies": ["python=3.12", "numpy"]}
    assert micromamba.conda_file(micromamba.wanted_spec("3.12", ["numpy"], ["conda-forge"], [], None)) is None


def test_what_is_recorded_for_everyone_holds_no_password_and_another_one_is_no_change():
    def wanted(password):
        return micromamba.wanted_spec(None, [], [f"https://me:{password}@m/c"], ["x"], f"https://me:{password}@m/s")

    record = micromamba.recorded(wanted("planted"))
    assert "planted" not in json.dumps(record)
    assert micromamba.reasons_to_act(wanted("another"), record, set(), {"x"}) == []
