"""Plays of roles and playbooks on this machine, against a stand-in of the Docker engine for each host.

    def test_it(stage):                       # the fixture is in conftest.py
        host = stage.host("gpu1")             # host.engine is its engine; below host.directory are its files
        played = stage.play(stage.role("vllm"), vllm_services=[…], vllm_plan={…})
        assert played.ok, played.output
        assert host.engine.running() == ["demo"]

A play takes about a second, and 0.1 s for each module that it runs: put several cases into one play, as several services
or several hosts.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
for directory in ("stand_ins", "tools"):
    sys.path.insert(0, str(ROOT / "tests" / directory))

import docker_engine
import module_server
from openai_server import free_port

from ansible_collections.inferops.gpu_host.plugins.module_utils import _container_swap, _private_files, _service_work
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import normalize_services

IMAGE = "vllm/vllm-openai:v0.33.0"
CPU_IMAGE = "inferops/vllm-cpu:0.32.0"


class ModuleServer:
    """See tests/tools/module_server.py."""

    def __init__(self, directory):
        self.path = Path(directory) / "modules.sock"
        program = str(ROOT / "tests/tools/module_server.py")
        self.process = subprocess.Popen([sys.executable, program, str(self.path)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.process.kill()
        self.process.wait()


class Host:
    """An inventory host that is this machine, with an engine and directories of its own."""

    def __init__(self, name, directory, modules, variables):
        self.name, self.directory = name, Path(directory)
        self.directory.mkdir()
        self.engine = docker_engine.DockerEngine(self.directory / "docker.sock").__enter__()
        for image in (IMAGE, CPU_IMAGE):
            self.engine.add_image(image, serves=True)
        python = module_server.interpreter(self.directory, modules.path, environment={"DOCKER_HOST": self.engine.url})
        self.variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": python,
            "inference_data_dir": f"{self.directory}/data",
            "inference_state_dir": f"{self.directory}/etc",
            "inference_report_dir": f"{self.directory}/cards",
            "vllm_config_dir": f"{self.directory}/etc/vllm",
            "vllm_cache_dir": f"{self.directory}/cache/vllm",
            "vllm_start_timeout": 5,
            **variables,
        }

    def model(self, name="inferops/tiny", **files):
        """A model's directory, with a config.json that says hardly anything."""
        directory = self.directory / "data/models" / name
        directory.mkdir(parents=True, exist_ok=True)
        for file, content in {"config.json": "{}", **files}.items():
            (directory / file).write_text(content)
        return directory

    def serves(self, service, plan, name=None, running=True, proven=True, **more):
        """A container of a declared service is here, exactly as the role would have made it; its inspection."""
        paths = _service_work.Paths(
            f"{self.directory}/data/models", self.variables["vllm_config_dir"], self.variables["vllm_cache_dir"]
        )
        seal = _private_files.secret(f"{paths.config}/.seal")[0]
        settings = {"docker_version": self.engine.version, "seals": {self.name: seal}, **more.pop("settings", {})}
        options = {"cpu": {"enforce-eager": True}}
        wanted = _service_work.wanted(
            plan, normalize_services([service]), self.name, paths, options=options, settings=settings, **more
        )
        arguments = wanted[0]["arguments"]
        self.model(service["model"])
        config = Path(wanted[0]["config_path"])
        config.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        config.write_text(wanted[0]["config"])
        config.chmod(0o600)
        ports = [published.split(":")[-2:] for published in arguments["published_ports"]]
        container = self.engine.add_container(
            name or arguments["name"],
            arguments["image"],
            arguments["labels"],
            running,
            Env=[f"{key}={value}" for key, value in arguments["env"].items()],
            Cmd=arguments["command"],
            Entrypoint=arguments["entrypoint"],
            StopTimeout=arguments["stop_timeout"],
            HostConfig={
                "Binds": arguments["volumes"],
                "RestartPolicy": {"Name": arguments["restart_policy"]},
                "PortBindings": {f"{inside}/tcp": [{"HostPort": outside}] for outside, inside in ports},
            },
        )
        if proven:
            marker = config.parent / (arguments["name"] + _container_swap.PROVEN)
            marker.write_text(json.dumps({"id": container.id}))
        return container

    def dies(self, modules=None, deeds=None):
        """The next play is cut off from this host after so many modules, or with so many deeds of its engine."""
        lives = self.directory / "lives"
        if modules is not None:
            lives.write_text(str(modules))
        self.engine.lives, self.engine.on_death = deeds, lambda: lives.write_text("0")
        self.variables["ansible_connection"] = "mortal"

    def lives(self):
        """It is there again."""
        (self.directory / "lives").unlink(missing_ok=True)
        self.engine.lives = None

    def files(self, below=""):
        """All that lies in the host's directories, as relative paths."""
        top = self.directory / below
        return sorted(
            str(path.relative_to(top)) for path in top.rglob("*") if not path.is_dir() and not path.is_socket()
        )


class Played:
    """How a play ended: ok, output, and of each host what the recap counts."""

    def __init__(self, done):
        self.code = done.returncode
        self.ok = done.returncode == 0
        self.output = done.stdout + done.stderr
        self.words = " ".join(self.output.split())
        recap = self.output.rpartition("PLAY RECAP")[2]
        self.recap = {
            line.split()[0]: {key: int(count) for key, count in re.findall(r"(\w+)=(\d+)", line)}
            for line in recap.splitlines()
            if "changed=" in line
        }

    def changed(self, host=None):
        return sum(counts["changed"] for name, counts in self.recap.items() if host in (None, name))


class Stage:
    """Hosts, and plays on them."""

    def __init__(self, directory, modules):
        self.directory, self.modules = Path(directory), modules
        self.hosts, self.groups = {}, {}

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        for host in self.hosts.values():
            host.engine.__exit__()

    def host(self, name="gpu1", **variables):
        self.hosts[name] = Host(name, self.directory / name, self.modules, variables)
        return self.hosts[name]

    @staticmethod
    def role(name, **include):
        """A play with one role; include: what include_role takes besides, such as tasks_from."""
        task = {"ansible.builtin.include_role": {"name": "inferops.gpu_host." + name, **include}}
        return {"hosts": "all", "gather_facts": False, "tasks": [task]}

    @staticmethod
    def playbook(name):
        return {"ansible.builtin.import_playbook": str(ROOT / f"playbooks/{name}.yml")}

    def command(self, *plays, arguments=(), **variables):
        """{args, cwd, env} of a play, for subprocess."""
        path = self.directory / "play.yml"
        path.write_text(
            json.dumps(
                [
                    {"hosts": "all", "gather_facts": False, "tasks": play} if isinstance(play, list) else play
                    for play in plays
                ]
            )
        )
        inventory = self.directory / "inventory.json"
        hosts = {name: host.variables for name, host in self.hosts.items()}
        groups = {name: {"hosts": dict.fromkeys(members)} for name, members in self.groups.items()}
        localhost = next(iter(self.hosts.values())).variables["ansible_python_interpreter"]
        inventory.write_text(json.dumps({"all": {"hosts": hosts, "children": groups}}))
        extra = self.directory / "extra.json"
        extra.write_text(json.dumps(variables))
        config = self.directory / "ansible.cfg"
        # Ansible looks for results a thousand times a second otherwise, which is most of what a play costs here.
        text = (ROOT / "ansible.cfg").read_text().replace("[defaults]", "[defaults]\ninternal_poll_interval = 0.02")
        config.write_text(text.replace("collections_path = collections", f"collections_path = {ROOT}/collections"))
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(config),
            "ANSIBLE_CONNECTION_PLUGINS": str(ROOT / "tests/tools/connection_plugins"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_PYTHON_INTERPRETER": localhost,
            "ANSIBLE_LOCAL_TEMP": str(self.directory / "tmp"),
            "ANSIBLE_REMOTE_TEMP": str(self.directory / "tmp"),
            "PWD": str(self.directory),
        }
        args = [str(PLAYBOOK), "-i", str(inventory), "-e", f"@{extra}", *arguments, str(path)]
        return {"args": args, "cwd": ROOT, "env": environment}

    def play(self, *plays, arguments=(), **variables):
        """Runs plays (see role, playbook; a list of tasks is one on all hosts) with these variables."""
        done = subprocess.run(
            **self.command(*plays, arguments=arguments, **variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=400,  # a wait without an end is a failure, too
        )
        return Played(done)


def service(name="demo", host="gpu1", **keys):
    """A declared service that the stand-in serves on the CPU, at a port that nobody has. It is wanted open."""
    declared = {"name": name, "model": "inferops/tiny", "accelerator": "cpu", "port": free_port(), "hosts": [host]}
    return {**declared, "api_key": "none", **keys}


def plan(*services, host="gpu1"):
    """The plan of such services, one replica each."""
    entries = [
        {
            "name": entry["name"],
            "model": entry["model"],
            "type": "chat",
            "state": entry.get("state", "started"),
            "accelerator": "cpu",
            "layout": {"tensor_parallel_size": 1, "pipeline_parallel_size": 1, "replicas": 1},
            "engine": {"max_model_len": 512},
            "placements": [
                {
                    "replica": 0,
                    "port": entry["port"],
                    "nodes": [{"host": (entry.get("hosts") or [host])[0], "node_rank": 0, "gpus": []}],
                }
            ],
            "estimate": None,
        }
        for entry in services
    ]
    return {"services": [entry for entry in entries if entry["state"] == "started"], "problems": [], "gpus": []}
