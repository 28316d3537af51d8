"""What an operator sees after the role has run, and after the upgrade on debian13."""

import json

import pytest

PACKAGES = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)


@pytest.fixture(autouse=True)
def only_gpu_hosts(host):
    if host.check_output("hostname") == "repository":
        pytest.skip("not a GPU host")


def is_rocky(host):
    return host.check_output("hostname") == "rocky9"


def test_all_packages_have_the_version_that_was_asked_for(host):
    for package in PACKAGES:
        if is_rocky(host):
            assert host.check_output(f"rpm --query --queryformat '%{{VERSION}}' {package}") == "1.20.0"
        else:
            assert host.check_output(f"dpkg-query --show --showformat='${{Version}}' {package}") == "1.20.0-1"


def test_the_engine_took_the_runtime_over_without_a_restart(host):
    runtimes = json.loads(host.check_output("docker info --format '{{json .Runtimes}}'"))
    assert {"nvidia", "other", "runc"} <= set(runtimes)
    before = host.file("/root/engine").content_string.strip()
    assert host.check_output("systemctl show docker.service --property MainPID") == before


def test_foreign_settings_kept_their_bytes(host):
    text = host.file("/etc/docker/daemon.json").content_string
    assert text.startswith('{\n    "insecure-registries": ["registry.lan:5000"],\n    "runtimes": {\n')
    assert '        "other": {"path":   "/usr/sbin/runc"},\n' in text
    assert json.loads(text)["runtimes"]["nvidia"] == {"path": "nvidia-container-runtime", "args": []}


def test_a_container_goes_through_the_runtime(host):
    host.check_output("docker inspect probe >/dev/null 2>&1 || tar -C / -c usr/bin/busybox | docker import - probe")
    command = "docker run --rm --net none --runtime nvidia probe /usr/bin/busybox echo hello"
    assert host.check_output(command) == "hello"
    assert "create" in host.file("/var/log/nvidia-container-runtime.stand-in").content_string


def test_the_old_entry_no_longer_stops_apt(host):
    if host.check_output("hostname") == "debian13":
        assert not host.file("/etc/apt/sources.list.d/libnvidia-container.list").exists
        assert host.run("apt-get update --error-on=any").succeeded
