from __future__ import annotations

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _docker_engine as engine

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
