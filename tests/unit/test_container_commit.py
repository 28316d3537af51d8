from __future__ import annotations

import json

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _container_commit as commit

KEY = "sk-secret"
CONTAINER = {
    "Id": "0123",
    "Config": {
        "Entrypoint": ["vllm", "serve"],
        "Cmd": ["/data/models/a/chat", "--config", "/etc/vllm/config.yaml"],
        "Env": ["PATH=/usr/bin", "HF_HUB_OFFLINE=1", "HF_TOKEN="],
        "Labels": {"io.github.inferops.service": "chat", "maintainer": "somebody"},
    },
    "Mounts": [{"Destination": "/etc/vllm/config.yaml"}, {"Destination": "/root/.cache/vllm"}],
}


def container(**config):
    return dict(CONTAINER, Config=dict(CONTAINER["Config"], **config))


def test_a_container_of_this_collection_exposes_nothing():
    assert commit.exposures(CONTAINER, [KEY]) == []


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"Cmd": ["/m", "--api-key", KEY]}, "its command"),
        ({"Env": ["VLLM_API_KEY=" + KEY]}, "its environment, VLLM_API_KEY"),
        ({"Labels": {"note": "the key is " + KEY}}, "its label note"),
    ],
)
def test_a_secret_is_found(config, place):
    assert commit.exposures(container(**config), [KEY]) == [place]


def test_secrets_among_the_options_are_not_written_out():
    options = {"hf-token": "planted", "api-key": [KEY], "media": "https://me:planted@host/x", "port": 8000}
    words = commit.whole_command(container(Cmd=["/m", "--config", "/etc/vllm/config.yaml"]), options)
    assert words == ["/m", "--media", "https://me:planted@host/x", "--port", "8000"]
    # What has no name that tells it is found by itself, and no image is made.
    assert commit.exposures(CONTAINER, ["planted"], options) == ["its option media"]


def test_what_may_be_a_secret_is_named_when_it_is_set():
    assert commit.suspicious(CONTAINER) == []
    assert commit.suspicious(container(Env=["HF_TOKEN=hf_x", "PATH=/bin"])) == ["HF_TOKEN"]


def test_only_files_of_the_container_itself_are_looked_into():
    paths = ["/etc", "/etc/vllm", "/etc/vllm/config.yaml", "/root", "/root/.cache", "/root/.cache/vllm", "/root/notes"]
    changes = [{"Path": path, "Kind": 1} for path in paths] + [{"Path": "/gone", "Kind": 2}]
    assert commit.own_files(changes, CONTAINER) == ["/root/notes"]


def test_the_image_is_not_taken_for_one_of_our_containers():
    argv = commit.commit_command(CONTAINER, "mine:1", ["/m", "--port", "8000"])
    changes = [argv[at + 1] for at, word in enumerate(argv) if word == "--change"]
    assert 'LABEL io.github.inferops.service=""' in changes
    assert 'CMD ["/m", "--port", "8000"]' in changes
    assert not any("maintainer" in change for change in changes)
    assert argv[-2:] == ["0123", "mine:1"]


def test_the_options_are_written_out_without_the_key():
    options = {
        "api-key": [KEY],
        "enforce-eager": True,
        "max-model-len": 1024,
        "hf-overrides": {"a": 1},
        "served-model-name": ["one", "two"],
    }
    words = commit.whole_command(container(Cmd=[*CONTAINER["Config"]["Cmd"], "--more"]), options)
    assert words[0] == "/data/models/a/chat"
    assert KEY not in json.dumps(words)
    text = " ".join(words[1:])
    assert text == '--enforce-eager --hf-overrides {"a": 1} --max-model-len 1024 --served-model-name one two --more'


def test_any_other_command_stays():
    other = container(Cmd=["sleep", "1"])
    assert commit.whole_command(other, {"port": 8000}) == ["sleep", "1"]
    assert commit.whole_command(CONTAINER) == CONTAINER["Config"]["Cmd"]
