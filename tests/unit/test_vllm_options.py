from __future__ import annotations

import json

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _vllm_option_table as table
from ansible_collections.inferops.gpu_host.plugins.module_utils import _vllm_options
from ansible_collections.inferops.gpu_host.plugins.module_utils._vllm_options import OptionError, config_file

NOW = "0.26.0"
T4 = "0.6.4.post1"  # the image of the four hosts with Tesla T4


def config(version=NOW, **options):
    return config_file(options, version)["config"]


def problems(version=NOW, **options):
    with pytest.raises(OptionError) as caught:
        config_file(options, version)
    return caught.value.problems


# What vLLM 0.32.0's own parser (make_arg_parser) said about these.
@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("enable-prefix-caching", "b"),
        ("enable-chunked-prefill", "b"),
        ("headless", "s"),
        ("middleware", "a"),
        ("served-model-name", "l"),
        ("limit-mm-per-prompt", "j"),
        ("logging-config", "j"),
        ("allowed-origins", "j"),
        ("max-model-len", "v"),
        ("shutdown-timeout", "v"),
        ("task", None),
        ("swap-space", None),
    ],
)
def test_table_agrees_with_the_real_parser(option, kind):
    known, exact = _vllm_options.known_options("0.32.0")
    assert exact
    assert known.get(option) == kind


def test_table_has_the_size_of_the_real_parser():
    known, _ = _vllm_options.known_options("0.32.0")
    assert len(known) == 317  # 316 of 0.32.0's parser, less --help, with the second names of two
    assert len(set(map(len, table.OPTIONS.values()))) == 1


def test_false_is_not_dropped():
    assert config(**{"enable-prefix-caching": False}) == {"no-enable-prefix-caching": True}
    assert config(**{"no-enable-prefix-caching": True}) == {"no-enable-prefix-caching": True}
    assert config(**{"enable-prefix-caching": "true"}) == {"enable-prefix-caching": True}
    assert config(T4, **{"enable-chunked-prefill": False}) == {"enable-chunked-prefill": "false"}
    assert config(T4, **{"enable-prefix-caching": False}) == {}


@pytest.mark.parametrize("spelling", ["image=5,video=5", {"image": 5, "video": 5}, '{"image": 5, "video": 5}'])
def test_multimodal_limits_in_every_spelling(spelling):
    assert json.loads(config(limit_mm_per_prompt=spelling)["limit-mm-per-prompt"]) == {"image": 5, "video": 5}
    assert config(T4, limit_mm_per_prompt=spelling) == {"limit-mm-per-prompt": "image=5,video=5"}


def test_bad_multimodal_limits():
    assert problems(limit_mm_per_prompt="image:5") == [
        "options.limit-mm-per-prompt is 'image:5', wanted image=5,video=5 or a mapping"
    ]


@pytest.mark.parametrize(
    ("version", "options", "expected"),
    [
        ("0.12.0", {"task": "embed"}, {"task": "embed"}),
        ("0.13.0", {"task": "embed"}, {"runner": "pooling"}),
        ("0.13.0", {"task": "classify"}, {"runner": "pooling", "convert": "classify"}),
        ("0.13.0", {"task": "generate"}, {"runner": "generate"}),
        (T4, {"runner": "pooling"}, {"task": "embed"}),
        (T4, {"runner": "pooling", "convert": "classify"}, {"task": "classify"}),
        ("0.9.2", {"disable-log-requests": True}, {"disable-log-requests": True}),
        (NOW, {"disable-log-requests": True}, {}),
        (NOW, {"disable-log-requests": False}, {"enable-log-requests": True}),
        (T4, {"enable-log-requests": False}, {"disable-log-requests": True}),
        (T4, {"swap-space": 4}, {"swap-space": 4}),
        (NOW, {"swap-space": 4}, {}),
        (T4, {"worker-use-ray": True}, {"worker-use-ray": True}),
        (NOW, {"worker-use-ray": True}, {"distributed-executor-backend": "ray"}),
        (NOW, {"enable-reasoning": True, "reasoning-parser": "qwen3"}, {"reasoning-parser": "qwen3"}),
        (T4, {"structured-outputs-config": {"backend": "outlines"}}, {"guided-decoding-backend": "outlines"}),
    ],
)
def test_names_follow_the_version(version, options, expected):
    assert config(version, **options) == expected


@pytest.mark.parametrize(
    "option", ["device", "num-scheduler-steps", "use-v2-block-manager", "max-seq-len-to-capture", "preemption-mode"]
)
def test_dropped_with_a_warning(option):
    result = config_file({option: "1"}, NOW)
    assert result["config"] == {}
    assert option in result["warnings"][0]


def test_translated_into_one_mapping():
    got = config(**{"guided-decoding-backend": "xgrammar:no-fallback", "guided-decoding-disable-any-whitespace": True})
    assert json.loads(got["structured-outputs-config"]) == {"backend": "xgrammar", "disable_any_whitespace": True}
    got = config(**{"speculative-model": "[ngram]", "num-speculative-tokens": 3, "ngram-prompt-lookup-max": 4})
    wanted = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}
    assert json.loads(got["speculative-config"]) == wanted


@pytest.mark.parametrize(
    ("version", "option", "words"),
    [
        (NOW, "rope-scaling", "hf-overrides"),
        (NOW, "rope-theta", "hf-overrides"),
        (NOW, "enable-reasoning", "reasoning-parser"),
        (T4, "speculative-config", "speculative-model"),
        (NOW, "max-modl-len", "did you mean max-model-len?"),
        (T4, "async-scheduling", "it exists in vLLM 0.10.0 to"),
        (NOW, "qlora-adapter-name-or-path", "it exists in vLLM 0.6.4.post1 to 0.9.2"),
        (NOW, "config", "the role writes this file"),
    ],
)
def test_refused_with_what_to_do(version, option, words):
    (problem,) = problems(version, **{option: "x"})
    assert f"options.{option}" in problem
    assert words in problem


def test_all_problems_at_once():
    assert len(problems(**{"max-modl-len": 1, "rope-theta": 1, "enforce-eager": "perhaps", "api-key": "-k"})) == 4


def test_unknown_version_passes_unknown_options_on():
    for version in (None, "99.1.0", "latest"):
        result = config_file({"brand-new": 1}, version)
        assert result["config"] == {"brand-new": 1}
        assert "brand-new" in result["warnings"][0]


def test_lists():
    assert config(served_model_name=["a", "b"]) == {"served-model-name": ["a", "b"]}
    assert config(served_model_name="a") == {"served-model-name": ["a"]}
    old = config_file({"served-model-name": ["a", "b"]}, T4)
    assert old["config"] == {}
    assert old["arguments"] == ["--served-model-name", "a", "b"]
    assert config_file({"middleware": ["m.A", "m.B"]}, NOW)["arguments"] == ["--middleware=m.A", "--middleware=m.B"]
    assert config(**{"allowed-origins": ["*"]}) == {"allowed-origins": '["*"]'}


def test_dots_are_folded_into_the_mapping():
    got = config(
        **{
            "--structured_outputs_config.disable_any_whitespace": True,
            "guided-decoding-backend": "xgrammar",
            "hf_overrides": {"rope_parameters": {"rope_type": "yarn"}},
            "hf_overrides.rope_parameters.factor": 2,
        }
    )
    assert json.loads(got["structured-outputs-config"]) == {"backend": "xgrammar", "disable_any_whitespace": True}
    assert json.loads(got["hf-overrides"]) == {"rope_parameters": {"rope_type": "yarn", "factor": 2}}


def test_nearest_recorded_version_stands_in():
    assert _vllm_options.known_options("0.26.1")[1]
    assert "task" in _vllm_options.known_options("0.10.1")[0]
    assert _vllm_options.known_options("0.15.0") == (_vllm_options.known_options("0.14.1")[0], False)
    assert _vllm_options.known_options("0.1.0") == (_vllm_options.known_options(T4)[0], False)
