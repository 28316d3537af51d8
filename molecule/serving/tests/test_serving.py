"""What clients and an operator find: after the first run, and again after all that happened since."""

import json
import math
import os
from pathlib import Path

import pytest

PORTS = {"chat": 8000, "embed": 8001, "rank": 8002}
KEY = "a-key-for-tests"
CARDS = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "cards"
ASK = """
import sys, urllib.error, urllib.request
url, body, key = sys.argv[1:]
request = urllib.request.Request(url, body.encode() or None, {"Content-Type": "application/json"})
if key:
    request.add_header("Authorization", "Bearer " + key)
try:
    answer = urllib.request.urlopen(request)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode())
"""


def key_of(host, service):
    """The operator's, the one that was made, or none."""
    made = f"/etc/inferops/keys/{service}"
    return KEY if service == "chat" else host.check_output("cat %s", made) if host.file(made).exists else ""


def ask(host, service, path, body=None, key=None):
    """(status, what the service answers)"""
    key = key_of(host, service) if key is None else key
    url = f"http://127.0.0.1:{PORTS[service]}/v1{path}"
    told = host.check_output("python3 -c %s %s %s %s", ASK, url, json.dumps(body) if body else "", key)
    status, _blank, text = told.partition(" ")
    return int(status), json.loads(text)


def inspect(host, service):
    return json.loads(host.check_output("docker inspect %s", service))[0]


def test_a_chat_is_answered(host):
    body = {"model": "chat", "messages": [{"role": "user", "content": "Tell me a joke"}], "max_tokens": 16}
    status, answer = ask(host, "chat", "/chat/completions", body)
    assert status == 200
    assert answer["choices"][0]["message"]["content"].strip()


@pytest.mark.parametrize("service", ["chat", "embed"])
@pytest.mark.parametrize("key", ["", "another"])
def test_without_the_key_there_is_no_answer(host, service, key):
    assert ask(host, service, "/models", key=key)[0] == 401


def test_only_a_missing_key_was_made(host):
    assert host.check_output("ls /etc/inferops/keys").split() == ["embed"]
    assert len(key_of(host, "embed")) == 64
    assert (host.file("/etc/inferops/keys").mode, host.file("/etc/inferops/keys/embed").mode) == (0o700, 0o600)


def test_texts_become_vectors(host):
    status, answer = ask(host, "embed", "/embeddings", {"model": "embed", "input": ["one text", "another"]})
    assert status == 200
    vectors = [item["embedding"] for item in answer["data"]]
    assert [len(vector) for vector in vectors] == [64, 64]
    assert all(math.isfinite(number) for vector in vectors for number in vector)
    assert vectors[0] != vectors[1]


def test_documents_are_ranked(host):
    body = {"model": "rank", "query": "a question", "documents": ["one text", "another"]}
    status, answer = ask(host, "rank", "/rerank", body)
    assert status == 200
    scores = [item["relevance_score"] for item in answer["results"]]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)


def test_the_key_is_nowhere_to_be_seen(host):
    keys = [KEY, key_of(host, "embed")]
    shown = host.check_output("docker inspect chat embed")
    shown += host.check_output("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
    assert not [key for key in keys if key in shown]


def test_the_key_is_in_a_file_for_root_alone(host):
    for path in host.check_output("ls /etc/inferops/vllm/chat/*.yaml").split():
        assert host.file(path).mode == 0o600
        assert path.endswith(".proven") or KEY in host.file(path).content_string


@pytest.mark.parametrize("service", PORTS)
def test_logs_are_limited_and_the_model_is_read_only(host, service):
    container = inspect(host, service)
    assert container["HostConfig"]["LogConfig"]["Config"]["max-size"]
    assert container["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    (model,) = [mount for mount in container["Mounts"] if mount["Source"].startswith("/data/models/")]
    assert not model["RW"]


@pytest.mark.parametrize("service", PORTS)
def test_each_service_has_a_card_and_a_report(host, service):
    card = (CARDS / f"{service}.md").read_text()
    assert f":{PORTS[service]}/v1" in card
    assert KEY not in card
    if service == "embed":
        assert "`/etc/inferops/keys/embed` on gpu1" in card and key_of(host, "embed") not in card
    report = json.loads((CARDS / f"{service}.json").read_text())
    assert report["ok"]
    assert not report["errors"]


def test_what_was_allocated_is_kept_beside_what_was_planned():
    told = json.loads((CARDS / "chat.memory.json").read_text())
    terms = {term["name"]: term for term in told["terms"]}
    assert terms["kv_cache"]["actual"] == 2**30
    assert terms["kv_cache_tokens"]["actual"] > 0
    assert told["within"]


LOOK = """
import glob, json, os
status = dict(line.split(":", 1) for line in open("/proc/1/status").read().splitlines())
found = {name: status[name].strip() for name in ("NoNewPrivs", "CapEff", "CapBnd", "Seccomp")}
found["mounts"] = {line.split()[1]: line.split()[3].split(",") for line in open("/proc/mounts")}
found["pids"] = [open(path).read().strip() for path in glob.glob("/sys/fs/cgroup/**/pids.max", recursive=True)]
found["ipc"] = os.readlink("/proc/self/ns/ipc")
refused = []
for path in ("/written", "/etc/written", "/root/written", "/usr/written", "/etc/vllm/config.yaml"):
    try:
        open(path, "a").close()
    except OSError as error:
        refused.append([path, error.errno])
for path in ("/tmp/written", "/dev/shm/written", os.path.expanduser("~/written")):
    open(path, "w").close()
    os.unlink(path)
print(json.dumps(dict(found, refused=refused)))
"""


@pytest.mark.parametrize("service", PORTS)
def test_the_container_may_do_little(host, service):
    seen = json.loads(host.check_output("docker exec %s python3 -c %s", service, LOOK))
    assert seen["NoNewPrivs"] == "1"
    assert int(seen["CapEff"], 16) == int(seen["CapBnd"], 16) == 0
    assert seen["Seccomp"] == "2"
    assert "ro" in seen["mounts"]["/"]
    assert "noexec" not in seen["mounts"]["/tmp"]  # what is compiled at the start is loaded from there
    assert {"nosuid", "nodev"} <= set(seen["mounts"]["/tmp"])
    assert len(seen["refused"]) == 5
    assert "16384" in seen["pids"] or inspect(host, service)["HostConfig"]["PidsLimit"] == 16384
    assert seen["ipc"] != host.check_output("readlink /proc/1/ns/ipc")


@pytest.mark.parametrize("service", PORTS)
def test_the_container_has_what_was_asked_for(host, service):
    asked = inspect(host, service)["HostConfig"]
    assert asked["ReadonlyRootfs"] and asked["CapDrop"] == ["ALL"] and asked["IpcMode"] == "private"
    assert asked["ShmSize"] == 3 * 2**30
    assert not asked["Privileged"] and not asked["CapAdd"]
    assert "no-new-privileges:true" in asked["SecurityOpt"]
