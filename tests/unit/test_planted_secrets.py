"""A secret in every variable that may hold one; then everything that others can read is searched for it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import threading
from pathlib import Path

import pytest
import secret_variables
from role_plays import free_port, plan, service

ROOT = Path(__file__).resolve().parents[2]
MICROMAMBA = ROOT / "tests/stand_ins/micromamba/micromamba"
MARK = "pLaNtEd"


def planted(name):
    """A value that is found wherever it turns up, and says where it came from."""
    return f"{MARK}-{name}-0123456789"


def address(name, port=1, scheme="http", path="/simple"):
    return f"{scheme}://me:{planted(name)}@127.0.0.1:{port}{path}"


def places(text):
    """Which of them a text gives away."""
    return sorted(set(re.findall(rf"{MARK}-([\w-]+?)-0123456789", text)))


class Watch:
    """What other accounts see while a play runs: command lines, and what lies in directories that it makes."""

    def __init__(self, *directories):
        self.directories = directories
        self.seen, self.looked, self.stop = {}, {}, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_exc):
        self.stop.set()
        self.thread.join()

    def run(self):
        while not self.stop.wait(0.05):
            self.look()

    def look(self):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            # A process may become another program, and does so soon.
            self.looked[pid] = self.looked.get(pid, 0) + 1
            if self.looked[pid] > 3:
                continue
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            for found in places(line):
                self.seen[found] = line[:300]
        for directory in self.directories:
            for found, path in readable_by_others(directory):
                self.seen[found] = str(path)


def readable_by_others(directory, but_not=()):
    """(secret, file) of the files below that hold one and are not 0600."""
    for path in Path(directory).rglob("*"):
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or path.name in but_not or status.st_size > 1 << 20:
                continue
            if not stat.S_IMODE(status.st_mode) & 0o077:
                continue
            for found in places(path.read_text(errors="replace")):
                yield found, path
        except OSError:
            continue


# Nothing is forgotten


def test_every_variable_that_may_hold_a_secret_is_classified():
    """A new one fails here until it is entered in secret_variables.py; what is no more is taken out there."""
    known = secret_variables.SECRET | set(secret_variables.HARMLESS)
    found = secret_variables.variables_of_roles()
    assert {name for name, option in found.items() if secret_variables.is_suspicious(name, option)} - known == set()
    assert {name for name in known - set(found) if not name.startswith("inference_")} == set()
    assert [why for why in secret_variables.HARMLESS.values() if not why] == []


def test_options_of_modules_that_are_secrets_say_no_log():
    for path in sorted((ROOT / "plugins/modules").glob("*.py")):
        for name, options in re.findall(r'"?(\w+)"?(?:: |=)(\{"type"[^{}]*\})', path.read_text()):
            if secret_variables.is_secret_name(name):
                assert '"no_log": True' in options, f"{name} of {path.name}"


def test_options_of_roles_that_are_secrets_say_no_log():
    for name, option in secret_variables.variables_of_roles().items():
        if secret_variables.is_secret_name(name.rpartition(".")[2]):
            assert option.get("no_log"), name


# (task file, task): what takes a secret and shows none, without no_log.
SHOWN_TO_NOBODY = {
    ("roles/container_image/tasks/build_image.yml", "Write the Dockerfile"),  # refused before with a secret in it
    ("roles/verify/tasks/ask.yml", "Find the endpoints of this host"),  # addresses, and which variable holds the key
    ("roles/ray_cluster/tasks/node.yml", "Run the node"),  # refused before with a secret in it
}
OWN = "inferops.gpu_host."


def test_tasks_that_take_a_secret_do_not_show_it():
    """Of what is not ours: its result repeats what it was given. A dropped no_log fails here."""
    found = set()
    for path, tasks in secret_variables.task_files():
        name = str(path.relative_to(ROOT))
        for task in tasks:
            kind = next((key for key in task if "." in key), "")
            given = [task.get(kind), task.get("loop")]
            if kind.startswith(OWN):
                given = [task.get("loop")]  # it is shown beside the result
            if "include_" in kind or "import_" in kind or kind.endswith(".assert"):
                continue
            if secret_variables.secrets_in(given) and not task.get("no_log"):
                found.add((name, task.get("name")))
    assert found - SHOWN_TO_NOBODY == set()


def test_no_task_prints_the_inspection_of_a_container():
    """It holds the environment, also of containers that somebody else made, or an older release of this collection."""
    for path, tasks in secret_variables.task_files():
        for task in tasks:
            given = task.get("community.docker.docker_container")
            told = isinstance(given, str) or (given or {}).get("state", "absent") != "absent"
            known = (str(path.relative_to(ROOT)), task.get("name")) in SHOWN_TO_NOBODY
            if (given and told and not known) or "community.docker.docker_container_info" in task:
                assert task.get("no_log"), (path, task.get("name"))


def test_no_task_has_a_secret_in_its_environment():
    """Ansible makes it a part of the command line, which everyone on the host can read."""
    for path, tasks in secret_variables.task_files():
        for task in tasks:
            assert not secret_variables.secrets_in(task.get("environment")), (path, task.get("name"))


def test_tasks_that_hold_keys_are_not_logged():
    """The items of the work hold keys; only some of what is in them is for everyone."""
    for path, tasks in secret_variables.task_files():
        for task in tasks:
            text = json.dumps({key: value for key, value in task.items() if key not in ("when", "name", "vars")})
            secret = re.search(r"__vllm_(?:item|unit)(?:\.candidate)?\.(?:config|secrets|arguments)\b(?![_.])", text)
            kind = next((key for key in task if "." in key), "")
            if secret and not kind.startswith(OWN) and "include_" not in kind:
                assert task.get("no_log"), (path, task.get("name"))


# Every variable of secret_variables.SECRET, but those that hold others of them (services, models, environments).


def variables(directory, port):
    declared = service(
        name="demo",
        port=port,
        hub="generated",
        bind_address="127.0.0.1",
        api_key=planted("service-api_key"),
        env={"HF_TOKEN": planted("service-env"), "HTTPS_PROXY": address("service-env-proxy")},
        options={"hf-token": planted("service-options"), "max-num-seqs": 4},
        container={
            "env": {"AWS_SECRET_ACCESS_KEY": planted("service-container-env")},
            "log_driver": "splunk",
            "log_options": {"splunk-token": planted("service-container-log_options"), "splunk-url": "http://splunk"},
        },
    )
    return {
        "inference_services": [declared],
        "inference_api_key": planted("inference_api_key"),
        "inference_hub_endpoint": address("inference_hub_endpoint"),
        "vllm_container_settings": {"env": {"WANDB_API_KEY": planted("vllm_container_settings")}},
        "vllm_default_options": {"cpu": {"enforce-eager": True}},
        "micromamba_file": str(MICROMAMBA),
        "micromamba_sha256": hashlib.sha256(MICROMAMBA.read_bytes()).hexdigest(),
        "micromamba_executable": f"{directory}/micromamba",
        "micromamba_root_prefix": f"{directory}/mamba",
        "micromamba_shell_hook": False,
        "micromamba_url": address("micromamba_url", path="/m.tar.bz2"),
        "micromamba_mirror": address("micromamba_mirror", path=""),
        "micromamba_channel_alias": address("micromamba_channel_alias", path="/conda"),
        "micromamba_channels": [address("micromamba_channels", path="/forge")],
        "micromamba_rc": {"proxy_servers": {"http": address("micromamba_rc")}},
        "micromamba_pip_index_url": address("micromamba_pip_index_url"),
        "micromamba_environments": [
            {"name": "one", "packages": ["pip"], "pip": ["nothing"]},
            {
                "name": "two",
                "channels": [address("environment-channels", path="/forge")],
                "pip": ["nothing"],
                "pip_index_url": address("environment-pip_index_url"),
            },
        ],
        "model_weights_directory": f"{directory}/data/models",
        "model_weights_allow_root_filesystem": True,
        "model_weights_client_prefix": f"{directory}/client",
        "model_weights_attempts": 1,
        "model_weights_timeout": 60,
        "model_weights_progress_interval": 1,
        "model_weights_pip_index_url": address("model_weights_pip_index_url"),
        "model_weights_modelscope_endpoint": address("modelscope_endpoint"),
        "model_weights_huggingface_endpoint": address("huggingface_endpoint"),
        "model_weights_modelscope_token": planted("modelscope_token"),
        "model_weights_huggingface_token": planted("huggingface_token"),
        "model_weights_models": [
            {"model": "a/url", "source": "url", "url": address("models-url", path="/a")},
            {"model": "a/modelscope"},
            {"model": "a/huggingface", "source": "huggingface"},
            {"model": "a/endpoint", "source": "huggingface", "endpoint": address("models-endpoint")},
        ],
        "container_image_images": [{"name": "inferops/built:1", "source": "build", "recipe": "mine"}],
        "container_image_recipes": {
            "mine": {
                "dockerfile": "vllm-ray.Dockerfile.j2",
                "base": "inferops/vllm-cpu:0.32.0",
                "requirements": ["nothing"],
                "python_version": "3.12",
                "glibc_minor": 35,
            }
        },
        "container_image_cache_dir": f"{directory}/cache",
        "container_image_pip_index_url": address("container_image_pip_index_url"),
        "container_image_pip_extra_index_urls": [address("container_image_pip_extra_index_urls")],
        "verify_fail_on": "never",
        "vllm_start_timeout": 60,
    }


DAEMON = {
    "log-opts": {"splunk-token": planted("daemon-log-opts"), "max-size": "1m"},
    "proxies": {"http-proxy": address("daemon-proxies"), "https-proxy": f"me:{planted('daemon-proxy')}@proxy:1"},
    "registry-mirrors": [address("daemon-registry-mirrors", path="")],
}


def whatever_happens(*tasks):
    """Tasks that may fail: what they say then is searched like anything else."""
    failed = {"ansible.builtin.debug": {"msg": "it failed: {{ ansible_failed_result.msg }}"}}
    return [{"block": [task], "rescue": [failed]} for task in tasks]


def role(name, **include):
    return {"ansible.builtin.include_role": {"name": "inferops.gpu_host." + name, **include}}


@pytest.fixture
def planted_host(stage):
    host = stage.host("gpu1")
    host.model()
    return host


GIVEN = ("extra.json", "inventory.json", "play.yml")


def search(stage, host, plays, wanted, *arguments, watched=True):
    """Run the plays as talkative as they get, and look where other accounts could look."""
    watch = Watch(host.directory)
    if watched:
        with watch:
            played = stage.play(*plays, arguments=("-vvv", "--diff", *arguments), **wanted)
    else:
        played = stage.play(*plays, arguments=("-vvv", "--diff", *arguments), **wanted)
    (stage.directory / "output.txt").write_text(played.output)
    (stage.directory / "output.txt").chmod(0o600)
    told, task = [], ""
    for line in played.output.splitlines():
        task = line if line.startswith("TASK") else task
        told += [(task.strip("* "), found, line.strip()[:200]) for found in places(line)]
    assert told == []
    assert watch.seen == {}
    assert sorted(readable_by_others(stage.directory, GIVEN)) == []
    for name, container in host.engine.containers.items():
        known = places(json.dumps(container))
        assert known in ([], ["service-container-log_options"]), name  # its log driver is told by the engine itself
    return played


def test_nothing_of_a_service_is_seen(stage, planted_host):
    """The fast part: a service with secrets everywhere, and daemon.json."""
    wanted = variables(planted_host.directory, free_port())
    (planted_host.directory / "daemon.json").write_text(json.dumps({"proxies": {"no-proxy": address("daemon-before")}}))
    daemon = {"path": f"{planted_host.directory}/daemon.json", "config": DAEMON}
    wanted["inference_plan"] = plan(*wanted["inference_services"])
    work = whatever_happens(role("vllm"), {"inferops.gpu_host.docker_daemon_config": daemon})
    played = search(stage, planted_host, [work], wanted, watched=False)
    assert played.ok and "it failed" not in played.output
    assert planted_host.engine.running() == ["demo"]


@pytest.mark.slow
def test_nothing_is_seen_of_changes_failures_and_checks(stage, planted_host, monkeypatch):
    """Everything that fetches, builds and installs, which all fails here; a service that changes; check mode."""
    directory = planted_host.directory
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("ANSIBLE_ASYNC_DIR", str(directory / "async"))
    wanted = variables(directory, free_port())
    gather = {
        "dest": f"{directory}/wheels",
        "requirements": ["nothing", "x @ " + address("requirement", path="/x.whl")],
        "python_version": "3.12",
        "glibc_minor": 36,
        "index_url": wanted["container_image_pip_index_url"],
        "extra_index_urls": wanted["container_image_pip_extra_index_urls"],
    }
    planted_host.variables.update(wanted)
    elsewhere = {f"__micromamba_{name}": f"{directory}/{name}" for name in ("profile", "bashrc", "cache_dir")}
    (directory / "cache_dir").mkdir()
    models = wanted["model_weights_models"]
    again = {"ansible.builtin.set_fact": {"__model_weights_jobs": None}}
    work = whatever_happens(
        {**role("micromamba", tasks_from="install"), "vars": {"micromamba_file": "", "micromamba_sha256": "0" * 64}},
        {
            **role("micromamba", tasks_from="install"),
            "vars": {"micromamba_file": "", "micromamba_sha256": "0" * 64, "micromamba_url": ""},
        },
        role("micromamba"),
        {**role("model_weights"), "vars": {"model_weights_models": models[:1]}},
        again,
        {**role("model_weights"), "vars": {"model_weights_models": models[1:2]}},
        again,
        {
            **role("model_weights"),
            "vars": {"model_weights_models": models[1:], "model_weights_client_method": "existing"},
        },
        {**role("container_image"), "vars": {"container_image_apt_mirror": address("apt_mirror")}},
        {"inferops.gpu_host.wheelhouse": gather},
        role("vllm"),
    )
    system = [{"ansible.builtin.setup": {"gather_subset": ["!all", "min", "network", "distribution", "platform"]}}]
    played = search(stage, planted_host, [stage.playbook("plan"), system + work], elsewhere)
    for words in ("pip could not gather", "would hold a secret", "Connection refused"):
        assert words in played.words

    changed = json.loads(json.dumps(wanted).replace("service-options-0", "service-options2-0"))
    changed["inference_services"][0]["env"]["HF_TOKEN"] = planted("service-env2")
    changed["inference_services"][0]["options"]["max-num-seqs"] = 2
    for arguments in (["--check"], []):
        planted_host.variables.update(changed)
        played = search(stage, planted_host, [stage.playbook("plan"), [role("vllm"), role("verify")]], {}, *arguments)
        assert played.ok, played.output[-2000:]
        assert "hf-token: changed" in played.output
    assert (directory / "cards/demo.md").exists()
