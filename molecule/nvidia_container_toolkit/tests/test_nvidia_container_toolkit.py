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


def only(host, name):
    if host.check_output("hostname") != name:
        pytest.skip("of another host")


def test_the_engine_has_the_runtime(host):
    runtimes = json.loads(host.check_output("docker info --format '{{json .Runtimes}}'"))
    assert {"nvidia", "other", "runc"} <= set(runtimes)


def test_the_engine_that_ran_before_the_toolkit_has_found_its_hook(host):
    only(host, "offline")
    before = host.file("/root/engine").content_string.strip()
    assert host.check_output("systemctl show docker.service --property MainPID") != before
    # As services ask for GPUs; an engine that has not looked for the hook could not select a driver.
    assert "prestart" in host.file("/var/log/nvidia-container-runtime-hook.stand-in").content_string


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


def test_the_old_entry_no_longer_stops_apt_and_can_come_back(host):
    only(host, "debian13")
    old = host.file("/etc/apt/sources.list.d/libnvidia-container.list").content_string
    assert old.startswith("#inferops.gpu_host: deb [signed-by=/usr/share/keyrings/libnvidia-container.asc] http://")
    assert host.run("apt-get update --error-on=any").succeeded


def test_what_was_pinned_is_held(host):
    only(host, "debian13")
    assert set(host.check_output("apt-mark showhold").split()) == set(PACKAGES)


def test_an_engine_that_was_there_got_nothing_but_what_gpus_need(host):
    if is_rocky(host):
        pytest.skip("its engine came with the role")
    config = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert set(config) <= {"insecure-registries", "runtimes", "features", "exec-opts"}


def test_docker_itself_came_by_dnf_signed_and_pinned(host):
    only(host, "rocky9")
    assert host.check_output("rpm --query --queryformat '%{EPOCH}:%{VERSION}' docker-ce") == "3:26.1.5"
    repository = host.file("/etc/yum.repos.d/inferops-docker-ce.repo").content_string
    assert "baseurl = http://repository:8000/docker/linux/centos/$releasever/$basearch/stable" in repository
    assert "gpgcheck = 1" in repository
    assert host.service("docker").is_enabled


def test_no_image_of_the_proof_is_left(host):
    assert host.check_output("docker images --quiet inferops-gpu-host-probe") == ""


def test_cdi_and_the_protection_are_in_force(host):
    only(host, "debian13")
    host.check_output("mkdir -p /etc/cdi")
    specification = {
        "cdiVersion": "0.6.0",
        "kind": "nvidia.com/gpu",
        "devices": [{"name": "all", "containerEdits": {"env": ["SEEN=by-cdi"]}}],
    }
    host.check_output("echo %s >/etc/cdi/nvidia.json", json.dumps(specification))
    command = "docker run --rm --net none --device nvidia.com/gpu=all probe /usr/bin/busybox env"
    assert "SEEN=by-cdi" in host.check_output(command)
    assert host.check_output("docker info --format '{{.CgroupDriver}}'") == "cgroupfs"
    assert json.loads(host.file("/etc/docker/daemon.json").content_string)["exec-opts"] == [
        "native.cgroupdriver=cgroupfs"
    ]


def test_a_user_without_root_has_the_runtime_too(host):
    only(host, "debian13")
    as_operator = "runuser --login operator --command "
    assert "no-cgroups = true" in host.file("/etc/nvidia-container-runtime/config.toml").content_string
    host.check_output("docker save probe --output /tmp/probe.tar && chmod 644 /tmp/probe.tar")
    host.check_output(as_operator + "'docker load --quiet --input /tmp/probe.tar'")
    gpus = "--runtime nvidia --env NVIDIA_VISIBLE_DEVICES=all"
    command = f"'docker run --rm --net none {gpus} probe /usr/bin/busybox ls /usr/bin/nvidia-smi'"
    host.check_output(as_operator + command)
