from __future__ import annotations

import copy
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.inferops.gpu_host.plugins.module_utils import _daemon_json as daemon_json
from ansible_collections.inferops.gpu_host.plugins.module_utils import _daemon_merge as daemon_merge


def merge(text, wanted, owners, owner):
    """Text and owners; what was found before has tests of its own."""
    return daemon_merge.merge(text, wanted, owners, owner)[:2]


NVIDIA = {"runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}}}
# As `nvidia-ctk runtime configure` leaves a file: four spaces, keys sorted.
WRITTEN_BY_NVIDIA_CTK = """\
{
    "insecure-registries": ["registry.lan:5000"],
    "runtimes": {
        "nvidia": {
            "args": [],
            "path": "nvidia-container-runtime"
        }
    }
}
"""


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('{\n  "debug": true, // for now\n  "ipv6": false\n}', 2, "comment"),
        ('{\n  # mirrors\n  "debug": true\n}', 2, "comment"),
        ('{\n  "debug": true /* off */\n}', 2, "comment"),
        ('{\n  "debug": true,\n  "ipv6": false,\n}', 3, "comma after the last element"),
        ('{\n  "dns": [\n    "8.8.8.8",\n  ]\n}', 3, "comma after the last element"),
        ('{\n  "debug": true\n  "ipv6": false\n}', 2, "no comma after"),
        ("{\n  'debug': true\n}", 2, "single quotes"),
        ('{\n  "debug": true,\n  "debug": false\n}', 3, "occurs twice"),
        ('{\n  "log-opts": {\n    "a": "1",\n    "a": "2"\n  }\n}', 4, "occurs twice"),
        ('{\n  "debug": true\n', 2, "ends in the middle"),
        ('["debug"]', 1, "not an object"),
        ('{"debug": yes}', 1, "Expecting value"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(text, line, words):
    with pytest.raises(daemon_json.DaemonJsonError) as error:
        daemon_json.parse(text)
    assert str(error.value).startswith("line %d:" % line)
    assert words in str(error.value)


@pytest.mark.parametrize("text", ["", "\n", "  \n\n"])
def test_an_empty_file_is_an_empty_configuration(text):
    assert daemon_json.parse(text) == {}
    assert merge(text, {}, {}, "me") == (text, {})


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [
        ("", {"debug": True}, '{\n  "debug": true\n}\n'),
        ("{}", {"debug": True}, '{\n  "debug": true\n}'),
        # the indentation that is there is kept, and only the new lines are new
        (
            '{\n\t"debug": true\n}\n',
            {"log-opts": {"max-size": "10m"}},
            '{\n\t"debug": true,\n\t"log-opts": {\n\t\t"max-size": "10m"\n\t}\n}\n',
        ),
        # a file on one line stays on one line
        ('{"debug":true}\n', {"ipv6": False}, '{"debug":true, "ipv6": false}\n'),
        # mappings are merged
        (
            '{\n  "runtimes": {\n    "kata": {"path": "kata"}\n  }\n}',
            NVIDIA,
            '{\n  "runtimes": {\n    "kata": {"path": "kata"},\n    "nvidia": {\n'
            '      "args": [],\n      "path": "nvidia-container-runtime"\n    }\n  }\n}',
        ),
        # a list is one value
        ('{"dns": ["1.1.1.1"]}', {"dns": ["8.8.8.8"]}, '{"dns": [\n  "8.8.8.8"\n]}'),
        # true is not 1
        ('{"debug": 1}', {"debug": True}, '{"debug": true}'),
        # a value where a mapping is wanted gives way
        ('{"log-opts": null}', {"log-opts": {"tag": "x"}}, '{"log-opts": {\n  "tag": "x"\n}}'),
    ],
)
def test_merge(text, wanted, expected):
    assert merge(text, wanted, {}, "me")[0] == expected


def test_what_nvidia_ctk_wrote_is_no_change():
    assert merge(WRITTEN_BY_NVIDIA_CTK, NVIDIA, {}, "toolkit")[0] == WRITTEN_BY_NVIDIA_CTK


def test_a_rewrite_with_other_white_space_is_no_effective_change():
    rewritten = json.dumps(json.loads(WRITTEN_BY_NVIDIA_CTK), indent=1)
    assert daemon_json.changed_keys(daemon_json.parse(WRITTEN_BY_NVIDIA_CTK), daemon_json.parse(rewritten)) == []


def test_keys_no_longer_wanted_go_and_foreign_ones_stay():
    foreign = '{\n  "dns": ["10.0.0.2"],\n  "log-opts": {"tag": "x"}\n}\n'
    wanted = {"debug": True, "log-opts": {"max-size": "10m"}, "runtimes": {"nvidia": {"path": "p"}}}
    text, owners = merge(foreign, wanted, {}, "docker")
    assert json.loads(text)["log-opts"] == {"tag": "x", "max-size": "10m"}
    text, owners = merge(text, {"debug": True}, owners, "docker")
    assert json.loads(text) == {"dns": ["10.0.0.2"], "log-opts": {"tag": "x"}, "debug": True}
    text, owners = merge(text, {}, owners, "docker")
    assert text == foreign
    assert owners == {}


def test_owners_do_not_remove_what_another_set():
    text, owners = merge("", {"live-restore": True, "debug": True}, {}, "docker")
    text, owners = merge(text, dict(NVIDIA, debug=True), owners, "toolkit")
    text, owners = merge(text, {}, owners, "docker")
    assert json.loads(text) == dict(NVIDIA, debug=True)
    assert set(owners) == {"toolkit"}


def test_two_owners_that_disagree_are_refused():
    text, owners = merge("", {"exec-opts": ["native.cgroupdriver=systemd"]}, {}, "docker")
    with pytest.raises(daemon_merge.OwnerConflictError, match="by docker, and toolkit wants"):
        merge(text, {"exec-opts": ["native.cgroupdriver=cgroupfs"]}, owners, "toolkit")


def test_a_removed_key_can_be_a_mapping_now():
    text, owners = merge('{"debug": true}', {"features": {}}, {}, "me")
    text, owners = merge(text, {"features": {"cdi": True}}, owners, "me")
    assert json.loads(text) == {"debug": True, "features": {"cdi": True}}
    assert owners == {"me": [["features", "cdi"]]}


def test_passwords_are_blotted_out():
    text = '{"proxies": {"http-proxy": "http://me:secret@proxy:3128"}, "registry-mirrors": ["https://m/"]}'
    assert daemon_json.without_passwords(text) == (
        '{"proxies": {"http-proxy": "http://***@proxy:3128"}, "registry-mirrors": ["https://m/"]}'
    )


# --- a hundred random merges: what was not asked for keeps its bytes -------------------------------------------------

KEYS = ["debug", "dns", "log-opts", "runtimes", "features", "labels", "Ünicode", 'quo"te']
SCALARS = st.one_of(st.booleans(), st.integers(-5, 5), st.text('a"\\{},: \né', max_size=6), st.none())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["a", "b", "nvidia"]), inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)
WANTED = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4)
# Foreign keys beside ours, and foreign keys in a mapping ("shared") that we write into as well.
FOREIGN_KEYS = st.dictionaries(st.sampled_from(["x-" + key for key in KEYS]), VALUES, min_size=1, max_size=4)
SHARED_WANTED = st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3)


@st.composite
def handwritten(draw, config):
    """`config` as text the way people write it: any indentation, odd blanks, one line or many."""
    text = json.dumps(
        config,
        indent=draw(st.sampled_from([None, 1, 2, 4, "\t"])),
        ensure_ascii=draw(st.booleans()),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,", " : ")])),
    )
    return draw(st.sampled_from(["", "\n", " "])) + text + draw(st.sampled_from(["", "\n", "\n\n"]))


def member_texts(text):
    """{key: the bytes of its value} of the object in `text`."""
    members = daemon_json._members(text, text.index("{"))[0]
    return {member.key: text[member.value_start : member.end] for member in members}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_foreign_keys_survive_random_merges_byte_for_byte(data):
    foreign = dict(data.draw(FOREIGN_KEYS), shared=data.draw(FOREIGN_KEYS))
    text = original = data.draw(handwritten(foreign))
    before = member_texts(original)
    before_shared = member_texts(before.pop("shared"))
    owners = {}
    for _step in range(100 if data.draw(st.integers(0, 19)) == 0 else 5):
        wanted = data.draw(WANTED)
        if data.draw(st.booleans()):
            wanted["shared"] = data.draw(SHARED_WANTED)
        text, owners = merge(text, wanted, owners, "me")
        assert json.loads(text) == deep_merge(foreign, wanted)
        now = member_texts(text)
        shared_now = member_texts(now["shared"])
        assert {key: now[key] for key in before} == before
        assert {key: shared_now[key] for key in before_shared} == before_shared
        assert merge(text, wanted, owners, "me") == (text, owners)
    assert merge(text, {}, owners, "me") == (original, {})


def deep_merge(config, wanted):
    result = copy.deepcopy(config)
    for key, value in wanted.items():
        if isinstance(value, dict) and value and isinstance(result.get(key), dict):
            result[key] = deep_merge(result[key], value)
        else:
            result[key] = value
    return result


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_merge_means_what_a_deep_merge_means(data):
    config = data.draw(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
    wanted = data.draw(WANTED)
    merged = merge(data.draw(handwritten(config)), wanted, {}, "me")[0]
    assert json.loads(merged) == deep_merge(config, wanted)


@settings(max_examples=200, deadline=None)
@given(st.text('{}[]",:/#\n a1', max_size=40))
def test_any_text_is_a_configuration_or_an_error_with_a_line(text):
    try:
        assert isinstance(daemon_json.parse(text), dict)
    except daemon_json.DaemonJsonError as error:
        assert re.match(r"line \d+:", str(error))
