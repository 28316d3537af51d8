import json

import pytest

SIZE = 3 * 8000000 + 6


@pytest.mark.parametrize("model", ["first", "second", "third", "fourth"])
def test_a_complete_model_on_every_host(host, model):
    if host.check_output("hostname") == "hub":
        return
    directory = f"/data/models/org/{model}"
    manifest = json.loads(host.file(f"{directory}/.model-manifest.json").content_string)
    assert manifest["size"] == SIZE
    sums = "".join(f"{file['sha256']}  {directory}/{file['path']}\n" for file in manifest["files"])
    assert host.run("echo %s | sha256sum --check --quiet", sums.strip()).rc == 0


def test_the_hub_sent_each_byte_once(host):
    if host.check_output("hostname") != "hub":
        return
    first = json.loads(host.file("/srv/stats.json").content_string)
    assert sum(first["bytes"].values()) == SIZE
    assert first["tokens"] == ["a-token-for-the-test"]
    fourth = json.loads(
        host.check_output(
            "python3 -c \"import urllib.request as r;print(r.urlopen('http://localhost:8090/_stats').read().decode())\""
        )
    )
    assert sum(fourth["bytes"].values()) == SIZE


def test_bad_bytes_were_set_aside(host):
    bad = host.file("/data/models/org/.first.quarantine/model-2.safetensors")
    assert bad.exists == (host.check_output("hostname") == "gpu2")


def test_no_token_is_left(host):
    assert host.run("grep -r a-token-for-the-test /data /root/.ansible_async /opt/inferops /tmp").rc != 0
