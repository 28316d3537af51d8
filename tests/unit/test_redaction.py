"""What everybody may see of a value, and that every module of this collection shows nothing else."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args

from ansible_collections.inferops.gpu_host.plugins.module_utils import _redaction
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule
from ansible_collections.inferops.gpu_host.plugins.module_utils._redaction import Redaction, redacted

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "name",
    """password PASSWORD db_password passwd api-key api_key apiKey API_KEY VLLM_API_KEY hf-token HF_TOKEN HFToken hftoken
    splunk-token gcp-credentials AWS_SECRET_ACCESS_KEY secret client-secret Authorization Proxy-Authorization auth
    X-Api-Key MODELSCOPE_API_TOKEN ssh-private-key api_keys passphrase Cookie""".split(),
)
def test_names_of_secrets(name):
    assert _redaction.is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    """max_tokens max-num-batched-tokens tokens tokenizer tokenizer-mode kv_cache_tokens tokens_per_second eos_token
    pad_token image_token eos_token_id key_variable keyring ssl-keyfile docker_mirror_key hub key cache_key kv-cache-dtype
    author authority password_file api_key_file milliseconds_per_token secrets_checked passno""".split(),
)
def test_names_of_other_things(name):
    assert not _redaction.is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("https://user:pa55@host/x", "https://***@host/x"),
        ("https://tok3n@host", "https://***@host"),
        ("see http://u:p@proxy:3128, and https://a.b/c", "see http://***@proxy:3128, and https://a.b/c"),
        ("http://u:p@ss@host:80/", "http://***@host:80/"),
        ("http://u:pa/ss@host/", "http://***@host/"),
        ("http://u:p%40ss@[::1]:80/x", "http://***@[::1]:80/x"),
        ("git+https://u:p@host/r@v1", "git+https://***@host/r@v1"),
        ("-ihttp://u:p@host", "-ihttp://***@host"),
        ("https://registry/npm/@scope/x", "https://registry/npm/@scope/x"),
        ("https://host:5000/img@v1", "https://host:5000/img@v1"),
        ("ssh://git@host/r", "ssh://git@host/r"),
        ("vllm/vllm-openai:v0.33.0@sha256:abc", "vllm/vllm-openai:v0.33.0@sha256:abc"),
        ("https://h/x?a=1&access_token=s3cr3t&b=2", "https://h/x?a=1&access_token=***&b=2"),
        ("https://h/x?X-Amz-Signature=abcdef", "https://h/x?X-Amz-Signature=***"),
        ("curl -H 'Authorization: Bearer abcdefgh1'", "curl -H 'Authorization: ***'"),
        ("Proxy-Authorization: Basic dXNlcjpw\nHost: x", "Proxy-Authorization: ***\nHost: x"),
        ("vllm serve x --api-key s3cr3t --port 1", "vllm serve x --api-key *** --port 1"),
        ("--hf-token=s3cr3t", "--hf-token=***"),
        ("HF_TOKEN=s3cr3t vllm", "HF_TOKEN=*** vllm"),
        ('{"splunk-token": "s3c r3t", "max-size": "1m"}', '{"splunk-token": "***", "max-size": "1m"}'),
        ('{"api-key": ["a", "b"]}', '{"api-key": ["***"]}'),
        ('{"https-proxy": "me:p4ss@proxy:1"}', '{"https-proxy": "***@proxy:1"}'),
        ("HTTP_PROXY=me:p4ss@proxy:1", "HTTP_PROXY=***@proxy:1"),
        ("{'token': 'abc'}", "{'token': '***'}"),
        (r'"{\"token\": \"abc\"}"', '"{\\"token\\": ***}"'),
        ("hf_token: s3cr3t\nport: 1", "hf_token: ***\nport: 1"),
        ("refused hf_abcdefghijklmnopqrstuvwxyz", "refused ***"),
        ("api-key: changed", "api-key: changed"),
        ("token: added", "token: added"),
        ("max_tokens=100 prompt_tokens: 5", "max_tokens=100 prompt_tokens: 5"),
        ("the token is wrong: ask for another one", "the token is wrong: ask for another one"),
    ],
)
def test_texts(text, seen):
    assert _redaction.text(text) == seen
    assert _redaction.text(seen) == seen


def test_values_of_any_shape():
    value = {
        "config": {"log-opts": {"splunk-token": "s3cr3t", "max-size": "1m"}, "proxies": {"http-proxy": "u:p4ss@h:1"}},
        "options": {"hf-token": "s3cr3t", "max-num-seqs": 8},
        "command": ["vllm", "--api-key", "other", "--port", "1", "--token", "--x", "y"],
        "password": 123456,
        "credentials": {"user": "me", "list": ["x"]},
        "flags": (True, None, 1.5, {"token": None, "secret": False}),
        "empty": {"token": ""},
    }
    seen = redacted(value)
    assert seen == {
        "config": {"log-opts": {"splunk-token": "***", "max-size": "1m"}, "proxies": {"http-proxy": "***@h:1"}},
        "options": {"hf-token": "***", "max-num-seqs": 8},
        "command": ["vllm", "--api-key", "***", "--port", "1", "--token", "--x", "y"],
        "password": "***",
        "credentials": {"user": "***", "list": ["***"]},
        "flags": (True, None, 1.5, {"token": None, "secret": False}),
        "empty": {"token": ""},
    }
    assert redacted(seen) == seen


@pytest.mark.parametrize(
    "known",
    [
        {"api_key": "pa$$ w0rd"},
        {"options": {"hf-token": "pa$$ w0rd"}},
        {"mirrors": ["https://me:pa$$%20w0rd@host/x"]},
        {"proxies": {"http-proxy": "me:pa$$ w0rd@host"}},
        {"url": "https://host/?token=pa%24%24%20w0rd"},
        {"passwords": ["x", "pa$$ w0rd"]},
    ],
)
def test_a_known_secret_is_found_in_every_form(known):
    """Other programs repeat what they were given: as it is, decoded, encoded, inside of JSON."""
    redaction = Redaction(known)
    for form in ("pa$$ w0rd", "pa%24%24%20w0rd"):
        assert "w0rd" not in redaction("it said %s!" % form)
        assert "w0rd" not in json.dumps(redaction({"x": [json.dumps({"y": form})], form: 1}))


def test_a_short_word_is_not_blotted_out_everywhere():
    redaction = Redaction({"password": "on", "url": "http://a:b@host"})
    assert redaction("one button on a table") == "one button on a table"
    assert redaction({"password": "on"}) == {"password": "***"}


def test_it_is_fast_on_whatever_comes():
    for piece in (
        "a",
        "x-",
        "--a",
        "a.",
        '"',
        "=",
        "://",
        "a=",
        " ",
        "\n",
        ":",
        "@",
        "?a",
        "\\",
        "'a':",
        "Bearer ",
        "[",
    ):
        began = time.process_time()
        _redaction.text(piece * (200_000 // len(piece)))
        assert time.process_time() - began < 1, piece


def test_credentials_of_an_address():
    assert _redaction.credentials("https://me:p%40ss@host/x") == ("me", "p@ss")
    assert _redaction.credentials("https://host/x") is None
    assert _redaction.without_credentials("https://me:p%40ss@host/x") == "https://host/x"


def test_every_module_redacts():
    """A module that is made in another way would print what it was given."""
    for path in sorted((ROOT / "plugins/modules").glob("*.py")):
        text = path.read_text()
        if not re.search(r"^def main", text, re.MULTILINE):
            continue  # its work is done by an action plugin
        assert "RedactingModule(" in text, path.name
        assert "AnsibleModule" not in text.replace("RedactingModule", ""), path.name


SPEC = {
    "config": {"type": "dict"},
    "url": {"type": "str"},
    "settings": {"type": "list", "elements": "dict"},
    "words": {"type": "list", "elements": "str", "no_log": True},
}
GIVEN = {
    "config": {"log-opts": {"splunk-token": "planted-1"}, "proxies": {"https-proxy": "http://me:planted-2@proxy:3128"}},
    "url": "https://me:planted-3@hub/x?sig=planted-4",
    "settings": [{"name": "x", "env": {"HF_TOKEN": "planted-5"}, "args": ["--api-key", "planted-6"]}],
    "words": ["planted-7"],
}


def said_by_module(capsys, monkeypatch, act):
    """What a module prints and logs that was given secrets everywhere."""
    logged = []
    monkeypatch.setattr(basic.AnsibleModule, "log", lambda self, msg, log_args=None: logged.append((msg, log_args)))
    with patch_module_args(GIVEN):
        module = RedactingModule(argument_spec=SPEC, supports_check_mode=True)
        assert module.params["config"]["log-opts"]["splunk-token"] == "planted-1"  # it works with what it was given
        with pytest.raises(SystemExit):
            act(module)
    return capsys.readouterr().out, logged


def test_results_warnings_failures_and_logs_of_modules(capsys, monkeypatch):
    everything = json.dumps(GIVEN)

    def succeed(module):
        module.warn("could not reach " + everything)
        module.log("asked " + everything)
        module.exit_json(
            changed=True,
            count=3,
            planned=GIVEN,
            msg=everything,
            diff={"before": "", "after": json.dumps(GIVEN, indent=1)},
        )

    def fail(module):
        try:
            raise ValueError(everything)
        except ValueError as error:
            module.fail_json(msg="it said " + str(error), exception=error)

    for act in (succeed, fail):
        out, logged = said_by_module(capsys, monkeypatch, act)
        assert "planted" not in out
        assert "planted" not in str(logged)
        answer = json.loads(out)
        assert answer["invocation"]["module_args"]["config"]["proxies"]["https-proxy"] == "http://***@proxy:3128"
        assert answer.get("count", 3) == 3
