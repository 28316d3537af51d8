"""What a client and an operator find on the host after site.yml and a reboot."""

import json


def made_key(host):
    return host.check_output("cat /etc/inferops/keys/demo")


def ask(host, path, body=None, key=None):
    command = f"python3 - http://127.0.0.1:8000{path} {key or made_key(host)}"
    script = """
import json, sys, urllib.request
body = %r
request = urllib.request.Request(sys.argv[1], body and json.dumps(body).encode(), {"Content-Type": "application/json"})
if sys.argv[2] != "none":
    request.add_header("Authorization", "Bearer " + sys.argv[2])
try:
    answer = urllib.request.urlopen(request)
    print(json.dumps([answer.status, answer.read().decode()]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, ""]))
""" % (body,)
    result = host.run(f"{command} <<'END'\n{script}\nEND")
    assert result.rc == 0, result.stderr
    return json.loads(result.stdout)


def test_a_chat_is_answered(host):
    body = {"model": "demo", "messages": [{"role": "user", "content": "Tell me a joke"}], "max_tokens": 16}
    status, text = ask(host, "/v1/chat/completions", body)
    assert status == 200
    assert json.loads(text)["choices"][0]["message"]["content"].strip()


def test_without_the_key_there_is_no_answer(host):
    assert ask(host, "/v1/models", key="none")[0] == 401
    assert ask(host, "/v1/models", key="wrong")[0] == 401


def test_the_key_is_nowhere_to_be_seen(host):
    key = made_key(host)
    assert len(key) == 64
    assert key not in host.check_output("docker inspect demo")
    assert key not in host.check_output("cat /proc/*/cmdline /proc/[0-9]*/environ | tr '\\0' '\\n'")
    assert (host.file("/etc/inferops/keys").mode, host.file("/etc/inferops/keys/demo").mode) == (0o700, 0o600)
    (path,) = host.check_output("ls /etc/inferops/vllm/demo/demo.*.yaml").split()
    config = host.file(path)
    assert config.mode == 0o600
    assert key in config.content_string


def test_logs_are_limited_and_the_model_is_read_only(host):
    container = json.loads(host.check_output("docker inspect demo"))[0]
    assert container["HostConfig"]["LogConfig"]["Config"]["max-size"]
    assert container["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    model = next(m for m in container["Mounts"] if m["Source"].startswith("/data/models/"))
    assert model["RW"] is False
