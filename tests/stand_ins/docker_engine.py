#!/usr/bin/env python3
"""Stand-in for a Docker engine: its real API over a unix socket, containers that are only threads.

A container of an image that was added with `serves=True` is a stand-in of vLLM: it reads the configuration file that is
mounted into it, listens on its port within milliseconds, answers as openai_server.py does and writes the log that vLLM
wrote once. Its environment may say STAND_IN to have it misbehave:

    dies            its process ends while it starts, with the log of a failure that was captured once
    dies:NAME       the same with tests/captured/vllm-0.32.0-cpu/NAME.log
    never_healthy   it runs and never answers
    FAULT           a fault of openai_server.py: it starts, and lies

In a test:

    with DockerEngine(tmp_path / "docker.sock") as engine:
        engine.add_image("vllm/vllm-openai:v0.33.0", serves=True)
        …                               # a play with DOCKER_HOST=engine.url
        engine.containers["demo"]       # as `docker inspect` says it
        engine.acted()                  # what was done to which container, in order

As a program: docker_engine.py --socket /run/docker.sock --image vllm/vllm-openai:v0.33.0
"""

from __future__ import annotations

import argparse
import copy
import fnmatch
import hashlib
import json
import os
import re
import socket
import socketserver
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

sys.path.insert(0, str(Path(__file__).parent))

import openai_server

CAPTURED = Path(__file__).resolve().parents[1] / "captured/vllm-0.32.0-cpu"
VERSION, API_VERSION = "28.5.1", "1.51"
CONFIG_PATH = "/etc/vllm/config.yaml"
NEVER = "0001-01-01T00:00:00Z"
SCHEDULING_POLICIES = ("fcfs", "priority")


class ApiError(Exception):
    """What the engine answers in place of a result."""

    def __init__(self, status, message=""):
        super().__init__(message)
        self.status = status


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() % 10**9:09d}Z"


def digest(*words):
    return hashlib.sha256("\0".join(map(str, words)).encode()).hexdigest()


class Image:
    def __init__(self, name, serves=False, labels=None, content=None):
        self.id = "sha256:" + digest("image", content or name)
        self.tags = [name if ":" in name.rpartition("/")[2] or "@" in name else name + ":latest"]
        self.serves = serves
        self.labels = dict(labels or {})

    def inspected(self):
        config = {"Labels": self.labels or None, "Env": ["PATH=/usr/bin"], "Entrypoint": ["vllm", "serve"], "Cmd": None}
        return {
            "Id": self.id,
            "RepoTags": self.tags,
            "RepoDigests": [],
            "Created": "2026-11-01T00:00:00Z",
            "Architecture": "amd64",
            "Os": "linux",
            "Size": 1000,
            "Config": config,
            "Labels": self.labels or None,
        }


class Container:
    """One container: what was asked for, how it is, and the server that it is when it runs."""

    def __init__(self, name, body, image):
        self.id = digest("container", name, time.time_ns())
        self.name = name
        self.image = image
        self.host = dict(
            {"RestartPolicy": {"Name": "no"}, "NetworkMode": "default"}, **(body.pop("HostConfig", None) or {})
        )
        self.networking = body.pop("NetworkingConfig", None) or {}
        self.config = dict({"Env": [], "Labels": {}, "Cmd": None, "Entrypoint": None}, **body)
        self.config["Labels"] = {**image.labels, **(self.config["Labels"] or {})}
        self.log = b""
        self.server = None
        self.restarts = 0
        self.state = {
            "Status": "created",
            "Running": False,
            "Paused": False,
            "Restarting": False,
            "OOMKilled": False,
            "Dead": False,
            "Pid": 0,
            "ExitCode": 0,
            "Error": "",
            "StartedAt": NEVER,
            "FinishedAt": NEVER,
        }

    def inspected(self):
        ports = {
            port: bindings if self.state["Running"] else None
            for port, bindings in (self.host.get("PortBindings") or {}).items()
        }
        return copy.deepcopy(
            {
                "Id": self.id,
                "Name": "/" + self.name,
                "Created": "2026-11-01T00:00:00Z",
                "Path": "",
                "Args": [],
                "Image": self.image.id,
                "RestartCount": self.restarts,
                "State": self.state,
                "Config": self.config,
                "HostConfig": self.host,
                "Mounts": [],
                "NetworkSettings": {
                    "Ports": ports,
                    "Networks": {self.host["NetworkMode"]: {"NetworkID": "", "Links": None}},
                },
            }
        )

    def listed(self):
        published = [
            {
                "IP": "0.0.0.0",
                "PrivatePort": int(port.partition("/")[0]),
                "PublicPort": int(binding["HostPort"]),
                "Type": "tcp",
            }
            for port, bindings in (self.host.get("PortBindings") or {}).items()
            for binding in bindings or []
        ]
        return {
            "Id": self.id,
            "Names": ["/" + self.name],
            "Image": self.config["Image"],
            "ImageID": self.image.id,
            "Labels": self.config["Labels"],
            "State": self.state["Status"],
            "Status": self.state["Status"],
            "Ports": published if self.state["Running"] else [],
        }

    @property
    def published(self):
        return [
            int(binding["HostPort"])
            for bindings in (self.host.get("PortBindings") or {}).values()
            for binding in bindings or []
        ]

    def say(self, text):
        """Adds to the log, in the frames of the engine's API."""
        data = text.encode()
        self.log += b"\1\0\0\0" + len(data).to_bytes(4, "big") + data

    def start(self):
        self.state.update(
            Status="running", Running=True, Restarting=False, Pid=os.getpid(), StartedAt=now(), ExitCode=0
        )
        try:
            if not self.image.serves:
                return
            if (self.config["Entrypoint"] or [""])[0] == "python3":
                self._check()
            else:
                self._serve()
        except Exception as error:  # whatever is wrong ends the process, as in a container
            self.say(f"{type(error).__name__}: {error}\n")
            self.end(1)

    def stop(self, exit_code=0):
        if self.state["Running"]:
            self.end(exit_code, for_good=True)

    def end(self, exit_code, for_good=False):
        """The process is gone; its restart policy would have it die again and again."""
        if self.server:
            self.server.__exit__()
            self.server = None
        again = (
            not for_good
            and self.host["RestartPolicy"].get("Name") in ("always", "unless-stopped", "on-failure")
            and exit_code
        )
        self.restarts += 1 if again else 0
        status = "restarting" if again else "exited"
        self.state.update(
            Status=status, Running=bool(again), Restarting=bool(again), Pid=0, ExitCode=exit_code, FinishedAt=now()
        )

    def _options(self):
        """The configuration file, as the process in the container finds it."""
        sources = {bind.split(":")[1]: bind.split(":")[0] for bind in self.host.get("Binds") or []}
        if CONFIG_PATH not in sources:
            raise FileNotFoundError(f"no {CONFIG_PATH} is mounted")
        return json.loads(Path(sources[CONFIG_PATH]).read_text())

    def _check(self):
        """What vllm_config_check asks for: the parser's judgement, and no server."""
        sign = re.search(r"INFEROPS-\w+ ", " ".join(self.config["Cmd"])).group()
        policy = self._options().get("scheduling-policy", "fcfs")
        if policy in SCHEDULING_POLICIES:
            self.say(sign + json.dumps({"options": True, "model": ""}) + "\n")
            return self.end(0)
        choices = "(choose from 'fcfs', 'priority')"
        self.say(f"vllm serve: error: argument --scheduling-policy: invalid choice: '{policy}' {choices}\n")
        return self.end(2)

    def _serve(self):
        options = self._options()
        environment = dict(entry.partition("=")[::2] for entry in self.config["Env"] or [])
        wish, _colon, log = environment.get("STAND_IN", "").partition(":")
        if wish == "dies":
            self.say((CAPTURED / f"{log or 'no-compiler'}.log").read_text())
            return self.end(1)
        ready = (CAPTURED / "ready.log").read_text().partition("INFO:     127.0.0.1:")[0]
        self.say(ready.replace("18123", str(options["port"])))
        if wish == "never_healthy":
            return None
        names = options["served-model-name"]
        keys = options.get("api-key")
        self.server = openai_server.StandIn(
            options["port"],
            names[0] if isinstance(names, list) else names,
            keys[0] if isinstance(keys, list) else keys,
            [wish] if wish else [],
        )
        return threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64
    allow_reuse_address = True


class DockerEngine:
    """The engine behind one socket. What it has is in memory, and stays there from one play to the next."""

    def __init__(self, path, version=VERSION):
        self.path = str(path)
        self.url = "unix://" + self.path
        self.version = version
        self.images, self.by_id, self.networks = {}, {}, {"bridge": digest("bridge"), "host": digest("host")}
        self.pullable = {}  # name: Image, what a registry would give
        self.calls = []  # (method, path) of everything that was asked
        self.lock = threading.RLock()
        self.server = None
        self.lives = None  # after so many deeds it is as if the play had been killed: no answer, to nobody
        self.on_death = None

    def __enter__(self):
        self.server = _Server(self.path, _Handler)
        self.server.engine = self
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        return self

    def __exit__(self, *_exc):
        for container in list(self.by_id.values()):
            container.stop(137)
        self.server.shutdown()
        self.server.server_close()
        if os.path.exists(self.path):
            os.unlink(self.path)

    # What tests look at and bring about

    @property
    def containers(self):
        """By name, as `docker inspect` says it."""
        return {container.name: container.inspected() for container in self.by_id.values()}

    def running(self):
        return sorted(container.name for container in self.by_id.values() if container.state["Running"])

    def acted(self):
        """What was done to which container, such as ("stop", "demo"), in order."""
        return [call[2] for call in self.calls if call[2]]

    def add_image(self, name, serves=False, labels=None, content=None):
        image = Image(name, serves, labels, content)
        self.images[image.tags[0]] = image
        return image

    def add_container(self, name, image, labels=None, running=True, **config):
        """A container that somebody made by hand."""
        made = self.create(name, {"Image": image, "Labels": labels or {}, **config})
        if running:
            self.by_id[made["Id"]].start()
        return self.by_id[made["Id"]]

    def reboot(self):
        """Everything that runs dies, and what has a restart policy comes back, as after a power cut."""
        for container in self.by_id.values():
            policy = container.host["RestartPolicy"].get("Name")
            again = container.state["Running"] and policy in ("always", "unless-stopped")
            container.stop(137)
            if again:
                container.start()

    # What the API does

    def image(self, name):
        name = unquote(name)
        for image in self.images.values():
            if image.id in (name, "sha256:" + name) or name in image.tags or name + ":latest" in image.tags:
                return image
        raise ApiError(404, f"No such image: {name}")

    def container(self, name):
        for container in self.by_id.values():
            if name == container.name or (len(name) >= 12 and container.id.startswith(name)):
                return container
        raise ApiError(404, f"No such container: {name}")

    def create(self, name, body):
        body = dict(body)
        name = name or "unnamed_" + digest(time.time_ns())[:8]
        if any(container.name == name for container in self.by_id.values()):
            raise ApiError(409, f'Conflict. The container name "/{name}" is already in use')
        try:
            image = self.image(body["Image"])
        except ApiError as error:
            raise ApiError(404, f"No such image: {body['Image']}") from error
        container = Container(name, body, image)
        self.by_id[container.id] = container
        return {"Id": container.id, "Warnings": []}

    def start(self, container):
        if container.state["Running"] and not container.state["Restarting"]:
            raise ApiError(304)
        for port in container.published:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    message = f"failed to bind host port for 0.0.0.0:{port}: address already in use"
                    container.state.update(Error=message, ExitCode=128)
                    raise ApiError(500, "driver failed programming external connectivity: " + message) from error
        container.start()

    def rename(self, container, name):
        if any(other.name == name for other in self.by_id.values()):
            raise ApiError(409, f'Conflict. The container name "/{name}" is already in use')
        container.name = name

    def remove(self, container, force):
        if container.state["Running"] and not force:
            raise ApiError(
                409,
                f"cannot remove container {container.name!r}: container is running: stop it or force",
            )
        container.stop(137)
        del self.by_id[container.id]

    def info(self):
        running = len(self.running())
        return {
            "ID": "stand-in",
            "Name": socket.gethostname(),
            "ServerVersion": self.version,
            "Containers": len(self.by_id),
            "ContainersRunning": running,
            "Images": len(self.images),
            "Driver": "overlay2",
            "DockerRootDir": "/var/lib/docker",
            "CgroupDriver": "systemd",
            "LiveRestoreEnabled": False,
            "Runtimes": {"runc": {"path": "runc"}},
            "DefaultRuntime": "runc",
            "SecurityOptions": [],
            "Swarm": {"LocalNodeState": "inactive"},
        }

    def load(self, archive):
        """The images of an archive that `docker save` wrote: their names alone."""
        with tarfile.open(fileobj=archive, mode="r|*") as tar:
            names = []
            for member in tar:
                if member.name == "manifest.json":
                    names = [tag for entry in json.load(tar.extractfile(member)) for tag in entry["RepoTags"]]
        for name in names:
            self.add_image(name, serves=True)
        return "".join(json.dumps({"stream": f"Loaded image: {name}\n"}) + "\r\n" for name in names)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args):
        pass

    def address_string(self):
        return "socket"

    def handle_one_request(self):
        # A client whose play was killed is gone in the middle of a request.
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def do_GET(self):
        self._answer()

    do_HEAD = do_POST = do_DELETE = do_GET

    def _answer(self):
        parts = urlsplit(self.path)
        path = re.sub(r"^/v\d+\.\d+(?=/)", "", parts.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        raw = self._body()
        engine = self.server.engine
        if engine.lives == 0:
            self.close_connection = True
            return
        try:
            with engine.lock:
                for method, pattern, name in _ROUTES:
                    match = re.fullmatch(pattern, path)
                    if match and method == self.command.replace("HEAD", "GET"):
                        words = [unquote(word) for word in match.groups()]
                        engine.calls.append((method, path, self._deed(name, words, query)))
                        status, data = getattr(self, name)(engine, *words, query=query, raw=raw)
                        if name.startswith("do_") and engine.lives is not None:
                            engine.lives -= 1
                            if engine.lives == 0:
                                engine.on_death()
                                self.close_connection = True
                                return
                        break
                else:
                    raise ApiError(404, f"page not found: {self.command} {path}")
        except ApiError as error:
            status, data = error.status, {"message": str(error)}
        self._send(status, data)

    def _deed(self, name, words, query):
        engine = self.server.engine
        deed = name.partition("_")[2]
        if not name.startswith("do_") or deed in ("GET", "HEAD", "POST", "DELETE"):
            return None
        if deed == "create":
            return deed, query.get("name", "")
        try:
            target = engine.container(words[0]).name
        except ApiError:
            target = words[0]
        return (deed, target, query["name"]) if deed == "rename" else (deed, target)

    def _body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            pieces = []
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
                if not size:
                    return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status, data):
        kind = "application/json"
        if isinstance(data, str):
            data, kind = data.encode(), "text/plain; charset=utf-8"
        elif isinstance(data, bytes):
            kind = "application/vnd.docker.multiplexed-stream"
        elif data is not None:
            data = json.dumps(data).encode()
        data = b"" if status in (204, 304) else data or b""
        self.send_response(status)
        self.send_header("Api-Version", API_VERSION)
        self.send_header("Docker-Experimental", "false")
        self.send_header("Ostype", "linux")
        if status not in (204, 304):
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    # the engine

    def ping(self, _engine, query, raw):
        return 200, "OK"

    def version(self, engine, query, raw):
        about = {
            "Version": engine.version,
            "ApiVersion": API_VERSION,
            "MinAPIVersion": "1.24",
            "Os": "linux",
            "Arch": "amd64",
        }
        return 200, dict(about, Components=[{"Name": "Engine", "Version": engine.version, "Details": {}}])

    def info(self, engine, query, raw):
        return 200, engine.info()

    # containers

    def list_containers(self, engine, query, raw):
        everything = query.get("all", "0").lower() in ("1", "true")
        filters = json.loads(query.get("filters", "{}"))
        found = [c for c in engine.by_id.values() if everything or c.state["Running"]]
        for wanted in filters.get("label") or []:
            key, equals, value = wanted.partition("=")
            found = [c for c in found if key in c.config["Labels"] and (not equals or c.config["Labels"][key] == value)]
        if filters.get("status"):
            found = [c for c in found if c.state["Status"] in filters["status"]]
        for wanted in filters.get("name") or []:
            found = [c for c in found if re.search(wanted, "/" + c.name)]
        return 200, [container.listed() for container in found]

    def do_create(self, engine, query, raw):
        return 201, engine.create(query.get("name"), json.loads(raw))

    def inspect_container(self, engine, name, query, raw):
        return 200, engine.container(name).inspected()

    def do_start(self, engine, name, query, raw):
        engine.start(engine.container(name))
        return 204, None

    def do_stop(self, engine, name, query, raw):
        container = engine.container(name)
        if not container.state["Running"]:
            return 304, None
        container.stop()
        return 204, None

    def do_kill(self, engine, name, query, raw):
        container = engine.container(name)
        if not container.state["Running"]:
            raise ApiError(409, f"cannot kill container: {name}: container is not running")
        container.stop(137)
        return 204, None

    def do_restart(self, engine, name, query, raw):
        container = engine.container(name)
        container.stop()
        engine.start(container)
        return 204, None

    def do_rename(self, engine, name, query, raw):
        engine.rename(engine.container(name), query["name"])
        return 204, None

    def do_remove(self, engine, name, query, raw):
        engine.remove(engine.container(name), query.get("force", "0").lower() in ("1", "true"))
        return 204, None

    def do_update(self, engine, name, query, raw):
        engine.container(name).host.update(json.loads(raw))
        return 200, {"Warnings": []}

    def wait(self, engine, name, query, raw):
        return 200, {"StatusCode": engine.container(name).state["ExitCode"]}

    def logs(self, engine, name, query, raw):
        container = engine.container(name)
        return 200, container.log or b""

    def changes(self, engine, name, query, raw):
        engine.container(name)
        return 200, []

    # images

    def list_images(self, engine, query, raw):
        wanted = json.loads(query.get("filters", "{}")).get("reference")
        wanted = list(wanted) if wanted else ["*"]

        def matches(tag):
            return any(fnmatch.fnmatch(tag, name) or fnmatch.fnmatch(tag.rpartition(":")[0], name) for name in wanted)

        return 200, [image.inspected() for image in engine.images.values() if any(map(matches, image.tags))]

    def inspect_image(self, engine, name, query, raw):
        return 200, engine.image(name).inspected()

    def pull(self, engine, query, raw):
        name = query["fromImage"] + ("@" if query["tag"].startswith("sha256:") else ":") + query["tag"]
        if name not in engine.pullable:
            return 404, {"message": f"manifest for {name} not found: manifest unknown"}
        engine.images[name] = engine.pullable[name]
        return 200, json.dumps({"status": f"Status: Downloaded newer image for {name}"}) + "\r\n"

    def load(self, engine, query, raw):
        import io

        return 200, engine.load(io.BytesIO(raw))

    def tag(self, engine, name, query, raw):
        image = engine.image(name)
        tag = f"{query['repo']}:{query.get('tag', 'latest')}"
        image.tags.append(tag)
        engine.images[tag] = image
        return 201, None

    def remove_image(self, engine, name, query, raw):
        image = engine.image(name)
        users = [c.name for c in engine.by_id.values() if c.image is image]
        if users and query.get("force", "0").lower() not in ("1", "true"):
            raise ApiError(409, f"conflict: unable to remove {name}: container {users[0]} is using it")
        engine.images = {tag: other for tag, other in engine.images.items() if other is not image}
        return 200, [*({"Untagged": tag} for tag in image.tags), {"Deleted": image.id}]

    # networks

    def list_networks(self, engine, query, raw):
        return 200, [self._network(name, key) for name, key in engine.networks.items()]

    def inspect_network(self, engine, name, query, raw):
        for known, key in engine.networks.items():
            if name in (known, key):
                return 200, self._network(known, key)
        raise ApiError(404, f"network {name} not found")

    def create_network(self, engine, query, raw):
        name = json.loads(raw)["Name"]
        engine.networks[name] = digest("network", name)
        return 201, {"Id": engine.networks[name], "Warning": ""}

    def remove_network(self, engine, name, query, raw):
        engine.networks = {known: key for known, key in engine.networks.items() if name not in (known, key)}
        return 204, None

    def connect(self, engine, name, query, raw):
        return 200, None

    @staticmethod
    def _network(name, key):
        driver = name if name == "host" else "bridge"
        return {
            "Name": name,
            "Id": key,
            "Driver": driver,
            "Scope": "local",
            "Containers": {},
            "Options": {},
            "Labels": {},
        }


_ROUTES = (
    ("GET", "/_ping", "ping"),
    ("GET", "/version", "version"),
    ("GET", "/info", "info"),
    ("GET", "/containers/json", "list_containers"),
    ("POST", "/containers/create", "do_create"),
    ("GET", "/containers/([^/]+)/json", "inspect_container"),
    ("POST", "/containers/([^/]+)/start", "do_start"),
    ("POST", "/containers/([^/]+)/stop", "do_stop"),
    ("POST", "/containers/([^/]+)/kill", "do_kill"),
    ("POST", "/containers/([^/]+)/restart", "do_restart"),
    ("POST", "/containers/([^/]+)/rename", "do_rename"),
    ("POST", "/containers/([^/]+)/update", "do_update"),
    ("POST", "/containers/([^/]+)/wait", "wait"),
    ("GET", "/containers/([^/]+)/logs", "logs"),
    ("GET", "/containers/([^/]+)/changes", "changes"),
    ("DELETE", "/containers/([^/]+)", "do_remove"),
    ("GET", "/images/json", "list_images"),
    ("POST", "/images/create", "pull"),
    ("POST", "/images/load", "load"),
    ("GET", "/images/(.+)/json", "inspect_image"),
    ("POST", "/images/(.+)/tag", "tag"),
    ("DELETE", "/images/(.+)", "remove_image"),
    ("GET", "/networks", "list_networks"),
    ("POST", "/networks/create", "create_network"),
    ("GET", "/networks/([^/]+)", "inspect_network"),
    ("POST", "/networks/([^/]+)/(?:connect|disconnect)", "connect"),
    ("DELETE", "/networks/([^/]+)", "remove_network"),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--socket", required=True)
    parser.add_argument("--image", action="append", default=[], help="an image that serves as vLLM does")
    args = parser.parse_args()
    with DockerEngine(args.socket) as engine:
        for name in args.image:
            engine.add_image(name, serves=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
