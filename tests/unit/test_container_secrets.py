"""What containers know and nobody reads in `docker inspect`, in labels or on command lines."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.inferops.gpu_host.plugins.module_utils import _container_secrets, _private_files
from ansible_collections.inferops.gpu_host.plugins.module_utils import _service_work as work
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import normalize_services
from ansible_collections.inferops.gpu_host.plugins.modules import host_secret

ENVIRONMENT = {
    "HF_TOKEN": "planted 'quoted' $HOME `x`",
    "AWS_SECRET_ACCESS_KEY": "planted-2",
    "HTTPS_PROXY": "http://me:planted-3@proxy:3128",
    "http_proxy": "me:planted-4@proxy:3128",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer planted-5",
    "NCCL_DEBUG": "INFO",
    "EMPTY_TOKEN": "",
}
PLACEMENT = {"nodes": [{"host": "a"}, {"host": "b"}]}


def item_of(host="a", hosts=("a",), seals=None, engine="vllm", **keys):
    declared = {"name": "demo", "model": "a/b", "port": 8000, "accelerator": "cpu", "engine": engine, **keys}
    nodes = [{"host": name, "node_rank": rank, "gpus": []} for rank, name in enumerate(hosts)]
    plan = {
        "services": [
            {
                "name": "demo",
                "type": "embedding" if engine != "vllm" else "chat",
                "layout": {"tensor_parallel_size": 1, "replicas": 1},
                "engine": {},
                "placements": [{"replica": 0, "port": 8000, "nodes": nodes}],
            }
        ]
    }
    peers = {name: {"address": f"10.0.0.{at}", "interface": "eth0", "rdma": False} for at, name in enumerate(hosts, 1)}
    settings = {"seals": {hosts[0]: "the seal"} if seals is None else seals}
    paths = work.Paths("/models", "/etc/vllm", "/cache")
    (item,) = work.wanted(plan, normalize_services([declared]), host, paths, settings=settings, peers=peers)
    return item


@pytest.mark.parametrize("engine", ["vllm", "text_embeddings_inference"])
@pytest.mark.parametrize("where", ["env", "container"])
def test_secrets_of_the_environment_go_into_a_file(engine, where):
    keys = {"env": ENVIRONMENT} if where == "env" else {"container": {"env": ENVIRONMENT}}
    item = item_of(engine=engine, **keys)
    assert "planted" not in json.dumps(item["arguments"])
    assert item["arguments"]["env"]["NCCL_DEBUG"] == "INFO"
    assert item["secrets"].count("\n") == 5
    mounts = [volume.split(":") for volume in item["arguments"]["volumes"]]
    assert [item["secrets_path"], _container_secrets.SECRETS_PATH, "ro"] in mounts
    assert item["secrets_path"].startswith(f"/etc/vllm/demo/demo.{item['config_path'].split('.')[1]}.")
    other = item_of(engine=engine, **json.loads(json.dumps(keys).replace("planted-2", "changed")))
    assert other["secrets_path"] != item["secrets_path"]


def test_the_shell_gives_them_to_the_engine_and_to_nobody_else(tmp_path):
    arguments = {"name": "demo", "env": dict(ENVIRONMENT), "entrypoint": ["python3"], "volumes": ["/c.yaml:/x:ro,z"]}
    path, content = _container_secrets.take_out(arguments, "/c.yaml", PLACEMENT, {"a": "seal"})
    assert arguments["volumes"][1] == f"{path}:{_container_secrets.SECRETS_PATH}:ro,z"
    (tmp_path / "secrets").write_text(content)
    words = [
        word.replace(_container_secrets.SECRETS_PATH, str(tmp_path / "secrets")) for word in arguments["entrypoint"]
    ]
    command = [*words, "-c", "import json, os, sys; print(json.dumps([dict(os.environ), sys.argv[1:]]))", "a b", "$c"]
    environment, given = json.loads(subprocess.check_output(command, env=arguments["env"]))
    assert {name: environment[name] for name in ENVIRONMENT} == ENVIRONMENT
    assert given == ["a b", "$c"]
    (tmp_path / "secrets").unlink()  # as in an image that was made of the container
    assert "HF_TOKEN" not in subprocess.check_output(command, env=arguments["env"], text=True)


def test_without_secrets_the_container_starts_as_it_would():
    item = item_of(env={"NCCL_DEBUG": "INFO"})
    assert (item["secrets_path"], item["secrets"]) == (None, None)
    assert item["arguments"]["entrypoint"] == ["vllm", "serve"]


@pytest.mark.parametrize("labels", [{"team-token": "planted"}, {"docs": "https://me:planted@host"}])
def test_a_secret_in_a_label_is_refused(labels):
    with pytest.raises(work._vllm_container.ContainerError, match="everybody may read labels") as refused:
        item_of(container={"labels": labels})
    assert "planted" not in str(refused.value)


def test_labels_do_not_tell_who_guessed_the_key():
    """The seal decides, so that nobody without it can compare a label with a guess."""
    labels = [item_of(api_key="summer", seals={"a": seal})["arguments"]["labels"] for seal in ("one", "two")]
    assert labels[0]["io.github.inferops.config"] != labels[1]["io.github.inferops.config"]
    one, two = (item_of(api_key=key, seals={"a": "one"})["arguments"]["labels"] for key in ("summer", "winter"))
    assert one != two  # a changed key is noticed
    one, two = (item_of(api_key=key, seals={})["arguments"]["labels"] for key in ("summer", "winter"))
    assert one == two  # without a seal the key is not in it at all


def test_members_of_a_group_know_each_other_by_what_nobody_sees():
    one, two = (item_of(host, ("a", "b"), accelerator="cpu") for host in ("a", "b"))
    assert one["secrets"] == two["secrets"]
    token = one["secrets"].partition("=")[2].strip()
    assert len(token) == 64
    for item in (one, two):
        assert token not in json.dumps(item["arguments"])
        assert token[:12] not in json.dumps(item["arguments"])  # it does not follow from a label either
        assert "--token" not in item["arguments"]["command"]
    with pytest.raises(work._vllm_container.ContainerError, match="run it for all hosts"):
        item_of("b", ("a", "b"), seals={"b": "another"})


# The seal


def read(path, capsys, check=False):
    with patch_module_args({"path": str(path), "_ansible_check_mode": check}), pytest.raises(SystemExit):
        host_secret.main()
    return json.loads(capsys.readouterr().out)


def test_a_secret_is_made_once(tmp_path, capsys):
    path = tmp_path / "etc/vllm/.seal"
    assert read(path, capsys, check=True)["changed"]
    assert not path.parent.exists()
    made = read(path, capsys)
    assert made["changed"] and len(made["content"]) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = read(path, capsys)
    assert (again["changed"], again["content"]) == (False, made["content"])
    assert read(path, capsys, check=True)["content"] == made["content"]
    assert os.listdir(path.parent) == [".seal"]


def test_of_many_makers_one_wins(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _n: _private_files.secret(str(tmp_path / ".seal")), range(64)))
    assert len({content for content, _changed in found}) == 1
    assert [changed for _content, changed in found].count(True) == 1


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.chmod(0o644), "others may read it (mode 0644)"),
        (lambda path: path.write_text("short"), "can be guessed"),
        (lambda path: (path.rename(f"{path}.x"), path.symlink_to(f"{path}.x")), "cannot be read"),
        (lambda path: os.chown(path, 65534, 65534), "belongs to nobody"),
    ],
)
def test_a_secret_that_others_know_is_refused(tmp_path, capsys, spoil, words):
    path = tmp_path / ".seal"
    read(path, capsys)
    spoil(path)
    for check in (True, False):
        answer = read(path, capsys, check)
        assert answer["failed"] and words in answer["msg"] and "Remove it, and a new one is made" in answer["msg"]
