from __future__ import annotations

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _docker_engine as engine
from ansible_collections.inferops.gpu_host.plugins.module_utils import _docker_reload as docker_reload

# `systemctl cat docker.service` on Debian 12 (docker.io 20.10), comments shortened, with a drop-in of an operator.
DEBIAN_UNIT = """\
# /lib/systemd/system/docker.service
[Unit]
Description=Docker Application Container Engine
After=network-online.target docker.socket firewalld.service containerd.service time-set.target

[Service]
Type=notify
# the default is not to use systemd for cgroups because the delegate issues still
EnvironmentFile=-/etc/default/docker
ExecStart=/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock $DOCKER_OPTS
ExecReload=/bin/kill -s HUP $MAINPID
TimeoutStartSec=0

[Install]
WantedBy=multi-user.target
"""
DROP_IN = """
# /etc/systemd/system/docker.service.d/override.conf
[Service]
Environment="HTTP_PROXY=http://proxy:3128" NO_PROXY=localhost
ExecStart=
ExecStart=/usr/bin/dockerd -H fd:// \\
  --log-driver=journald --add-runtime nvidia=/usr/bin/nvidia-container-runtime
"""


def test_the_unit_of_debian():
    settings = engine.unit_settings(DEBIAN_UNIT)
    assert settings["exec_start"]["source"] == "/lib/systemd/system/docker.service"
    assert settings["environment_files"] == ["/etc/default/docker"]
    argv = engine.expand(settings["exec_start"]["argv"], {"DOCKER_OPTS": "--log-level=warn --icc=false"})
    assert argv[-2:] == ["--log-level=warn", "--icc=false"]
    assert set(engine.configured_keys(argv)) == {"hosts", "containerd", "log-level", "icc"}


def test_a_drop_in_replaces_the_command_line_and_is_named():
    settings = engine.unit_settings(DEBIAN_UNIT + DROP_IN)
    assert settings["exec_start"]["source"] == "/etc/systemd/system/docker.service.d/override.conf"
    assert settings["environment"] == {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "localhost"}
    assert engine.configured_keys(settings["exec_start"]["argv"]) == {
        "hosts": "-H",
        "log-driver": "--log-driver",
        "runtimes": "--add-runtime",
    }


def test_an_undefined_variable_expands_to_nothing():
    assert engine.expand(["dockerd", "$DOCKER_OPTS", "--label=a=${B}"], {"B": "c"}) == ["dockerd", "--label=a=c"]


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["--exec-opt", "native.cgroupdriver=systemd"], "exec-opts"),
        (["--registry-mirror=https://m"], "registry-mirrors"),
        (["--insecure-registry=r:5000"], "insecure-registries"),
        (["--https-proxy=http://p"], "proxies"),
        (["--graph=/data"], "data-root"),
        (["-g", "/data"], "data-root"),
        (["-Htcp://0.0.0.0"], "hosts"),
        (["--live-restore"], "live-restore"),
    ],
)
def test_options_and_the_keys_they_stand_for(words, key):
    assert list(engine.configured_keys(["dockerd", *words])) == [key]


def test_environment_files():
    text = '# comment\nDOCKER_OPTS="--dns 8.8.8.8"  # trailing\nexport http_proxy=\'http://p:3128/\'\nBROKEN="\n'
    assert engine.environment(text) == {"DOCKER_OPTS": "--dns 8.8.8.8", "http_proxy": "http://p:3128/"}


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (
            'time="2026-11-21T08:00:00Z" level=info msg="Starting up"\n'
            "unable to configure the Docker daemon with file /etc/docker/daemon.json: the following directives are"
            " specified both as a flag and in the configuration file: hosts: (from flag: [fd://], from file: [tcp://])\n",
            "unable to configure the Docker daemon with file /etc/docker/daemon.json: the following directives are"
            " specified both as a flag and in the configuration file: hosts: (from flag: [fd://], from file: [tcp://])",
        ),
        (
            'time="2026-11-21T08:00:00Z" level=error msg="could not open \\"x\\"" error=y\n'
            'time="2026-11-21T08:00:01Z" level=info msg="stopping"\n',
            'could not open "x"',
        ),
        ("docker.service: Main process exited\n\n", "docker.service: Main process exited"),
        ("", ""),
    ],
)
def test_why_the_engine_failed(log, reason):
    assert engine.failure_reason(log) == reason


def container(name="c", runtime="runc", env=(), requests=None, devices=None, labels=None):
    """What `docker inspect` says of a container, as far as it matters here."""
    return {
        "Id": "0123456789abcdef",
        "Name": "/" + name,
        "HostConfig": {"Runtime": runtime, "DeviceRequests": requests, "Devices": devices},
        "Config": {"Env": list(env), "Labels": labels, "Image": "image:1"},
    }


GPUS_ALL = {"Driver": "", "Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}
GPU_BY_UUID = {"Driver": "nvidia", "Count": 0, "DeviceIDs": ["GPU-1", "GPU-2"], "Capabilities": [["gpu"]]}
GPU_BY_CDI = {"Driver": "cdi", "Count": 0, "DeviceIDs": ["nvidia.com/gpu=GPU-1"], "Capabilities": None}
NOT_A_GPU = {"Driver": "cdi", "Count": 0, "DeviceIDs": ["vendor.com/net=0"], "Capabilities": None}


@pytest.mark.parametrize(
    ("inspected", "claim"),
    [
        (container(), ""),
        (container(requests=[GPUS_ALL]), "asks for GPUs: all"),
        (container(requests=[dict(GPUS_ALL, Count=2)]), "asks for GPUs: 2"),
        (container(requests=[GPU_BY_UUID]), "asks for GPUs: GPU-1, GPU-2"),
        (container(requests=[GPU_BY_CDI]), "asks for GPUs: nvidia.com/gpu=GPU-1"),
        (container(requests=[NOT_A_GPU]), ""),
        (container(devices=[{"PathOnHost": "/dev/nvidia0"}]), "holds /dev/nvidia0"),
        (container(devices=[{"PathOnHost": "/dev/fuse"}]), ""),
        (
            container(runtime="nvidia", env=["NVIDIA_VISIBLE_DEVICES=0,1"]),
            "runtime nvidia with NVIDIA_VISIBLE_DEVICES=0,1",
        ),
        (container(runtime="nvidia", env=["NVIDIA_VISIBLE_DEVICES=void"]), ""),
        (container(runtime="nvidia"), ""),
        (container(env=["NVIDIA_VISIBLE_DEVICES=all"]), ""),
    ],
)
def test_which_containers_use_gpus(inspected, claim):
    assert engine.gpu_claim(inspected) == claim


def test_guarded_containers_are_those_with_gpus_or_a_label():
    running = [
        container("z-gpu", requests=[GPUS_ALL]),
        container("plain", labels={"other": "1"}),
        container("a-service", labels={"io.github.inferops.service": "qwen"}),
    ]
    listed = engine.running_containers(running, ["io.github.inferops.service"])
    assert [item["name"] for item in listed] == ["a-service", "plain", "z-gpu"]
    assert [bool(item["reason"]) for item in listed] == [True, False, True]
    assert listed[0]["reason"] == "carries the label io.github.inferops.service"
    assert listed[0]["id"] == "0123456789ab"


# --- what only looks like Docker -------------------------------------------------------------------------------------

NOTHING = {"snap": False, "desktop": False, "podman": False, "users": [], "system": True}
PODMAN = {"Components": [{"Name": "Podman Engine", "Version": "5.0"}]}


@pytest.mark.parametrize(
    ("info", "version", "traces", "words"),
    [
        ({}, {}, {}, []),
        ({"OperatingSystem": "Debian"}, {"Components": [{"Name": "Engine"}]}, {"users": ["alice"]}, []),
        ({}, {}, {"snap": True}, ["snap remove docker", "/var/snap/docker/common"]),
        ({"DockerRootDir": "/var/snap/docker/common/var-lib-docker"}, {}, {}, ["as a snap"]),
        ({"OperatingSystem": "Docker Desktop"}, {}, {}, ["Docker Desktop", "docker-desktop"]),
        ({}, {}, {"desktop": True}, ["Docker Desktop"]),
        ({"OperatingSystem": "debian"}, PODMAN, {}, ["docker_remove_packages: [podman-docker]"]),
        ({}, {}, {"podman": True}, ["podman answers in Docker's place"]),
        ({}, {}, {"users": ["alice"], "system": False}, ["without root, for alice", "docker_rootless_user"]),
    ],
)
def test_what_only_looks_like_docker_is_named_with_the_way_out(info, version, traces, words):
    said = engine.impostor(info, version, {**NOTHING, **traces})
    assert bool(said) == bool(words)
    for word in words:
        assert word in said


def test_what_became_of_containers():
    before = [{"id": i, "name": n, "started_at": "1"} for i, n in (("1", "a"), ("2", "b"), ("3", "c"))]
    after = [{"id": "1", "name": "a", "started_at": "1"}, {"id": "2", "name": "b", "started_at": "2"}]
    assert engine.fates(before, after) == "a kept running, b was stopped and runs again, c does not run any more"


@pytest.mark.parametrize(
    ("config", "argv", "root"),
    [
        ({}, [], "/var/lib/docker"),
        ({"data-root": "/data"}, ["--data-root", "/x"], "/data"),
        ({"graph": "/data"}, [], "/data"),
        ({}, ["--data-root=/x"], "/x"),
        ({}, ["-g", "/x"], "/x"),
    ],
)
def test_where_the_engine_keeps_its_data(config, argv, root):
    assert engine.data_root(config, ["dockerd", *argv], "/var/lib/docker") == root


def test_a_data_root_with_mapped_users_is_the_one_that_was_asked_for():
    assert engine.same_root("/var/lib/docker/165536.165536", "/var/lib/docker/")
    assert not engine.same_root("/var/lib/docker", "/data/docker")


# --- reloads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ('level=info msg="Got signal to reload configuration, reloading from: /etc/docker/daemon.json"', ""),
        ('level=info msg="Reloaded configuration: {\\"debug\\":true}"', ""),
        ('level=error msg="Error reconfiguring the daemon: bad mirror"', "Error reconfiguring the daemon: bad mirror"),
        (
            'level=error msg="Error reconfiguring the daemon" error="invalid mirror: no scheme"',
            "Error reconfiguring the daemon: invalid mirror: no scheme",
        ),
        (
            'level=error msg="unable to configure the Docker daemon with file /etc/docker/daemon.json: EOF"',
            "unable to configure the Docker daemon with file /etc/docker/daemon.json: EOF",
        ),
    ],
)
def test_why_a_reload_was_refused(log, reason):
    assert docker_reload.reload_failure(log) == reason


INFO = {
    "LiveRestoreEnabled": True,
    "Debug": False,
    "DefaultRuntime": "runc",
    "Labels": ["a=b"],
    "RegistryConfig": {
        "Mirrors": ["https://m/"],
        "IndexConfigs": {"docker.io": {"Secure": True}, "r:5000": {"Secure": False}},
        "InsecureRegistryCIDRs": ["127.0.0.0/8"],
    },
    "Runtimes": {"runc": {"path": "runc"}, "nvidia": {"path": "nvidia-container-runtime"}},
}


@pytest.mark.parametrize(
    ("key", "taken", "other"),
    [
        ("live-restore", True, False),
        ("debug", False, True),
        ("default-runtime", "runc", "nvidia"),
        ("labels", ["a=b"], []),
        ("registry-mirrors", ["https://m"], ["https://n"]),
        ("insecure-registries", ["r:5000", "http://r:5000", "127.1.2.3/8"], ["s:5000"]),
        ("runtimes", {"nvidia": {"path": "nvidia-container-runtime", "args": []}}, {"kata": {"path": "kata"}}),
        ("runtimes", {}, {"nvidia": {"path": "/opt/other"}}),
    ],
)
def test_what_the_engine_took_is_read_from_what_it_says(key, taken, other):
    assert docker_reload.untaken_keys({key: taken}, INFO, [key]) == []
    assert docker_reload.untaken_keys({key: other}, INFO, [key]) == [key]
    assert docker_reload.untaken_keys({key: other}, {}, [key]) == []
