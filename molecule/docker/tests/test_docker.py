"""What an operator sees after the role has run and after all that side_effect.yml did."""

import json

import pytest


@pytest.fixture(autouse=True)
def only_docker_hosts(host, request):
    """From `vendor` the engine was removed in the end."""
    has_none = ["repository"] if request.node.name.startswith("test_removal") else ["repository", "vendor"]
    if host.check_output("hostname") in has_none:
        pytest.skip("has no Docker")


def name_of(host):
    return host.check_output("hostname")


def only(host, *names):
    if name_of(host) not in names:
        pytest.skip("of other hosts")


def info(host):
    return json.loads(host.check_output("docker info --format '{{json .}}'"))


def test_the_engine_runs_with_what_was_asked_for(host):
    seen = info(host)
    assert seen["LoggingDriver"] == ("local" if name_of(host) == "distro13" else "json-file")
    assert seen["LiveRestoreEnabled"] == (name_of(host) != "distro13")
    if name_of(host) != "distro13":
        assert "https://mirror.lan/" in seen["RegistryConfig"]["Mirrors"]


def test_the_operator_may_use_it(host):
    assert "docker" in host.user("operator").groups


def test_removal_took_the_engine_and_nothing_of_others(host):
    only(host, "vendor")
    assert not host.exists("dockerd")
    assert not host.package("docker-ce").is_installed
    assert host.check_output("apt-mark showhold") == ""
    assert host.check_output("ls -A /etc/docker /var/lib/docker") == "/etc/docker:\ncerts.d\n\n/var/lib/docker:"
    assert host.file("/etc/docker/certs.d/registry.lan/ca.crt").exists
    assert not host.file("/etc/inferops/docker-engine.json").exists


def test_removal_leaves_containerd_while_it_serves_others(host):
    only(host, "vendor")
    assert "k8s.io" in host.check_output("ctr namespaces list --quiet")
    assert "containerd.io" in host.check_output("apt-mark showmanual").split()


def test_removal_gives_back_the_sources(host):
    only(host, "vendor")
    assert host.file("/etc/apt/sources.list.d/company.list").content_string == (
        "deb [trusted=yes] file:/srv/other ./\ndeb [arch=amd64 signed-by=/usr/share/keyrings/gone.gpg] "
        "http://repository:8000/docker/linux/debian/ trixie stable\n"
    )
    assert host.check_output("ls /etc/apt/sources.list.d /etc/apt/keyrings").count("inferops") == 0


def test_the_offline_host_got_its_engine_from_files(host):
    only(host, "offline")
    assert host.package("docker.io").is_installed
    assert not host.file("/var/cache/inferops-gpu-host/packages").exists


def test_an_engine_before_23_has_its_proxy_from_the_environment(host):
    only(host, "distro12")
    assert info(host)["HttpProxy"].endswith("@proxy.lan:3128")
    assert host.file("/etc/default/docker").mode == 0o600
    assert "proxies" not in host.file("/etc/docker/daemon.json").content_string


def test_without_systemd_the_engine_runs_on_its_own(host):
    only(host, "distro12")
    assert host.run("systemctl is-active docker.service").stdout.strip() == "inactive"
    assert host.check_output("pgrep --exact --count dockerd") == "1"


def test_foreign_settings_kept_their_bytes(host):
    only(host, "existing")
    text = host.file("/etc/docker/daemon.json").content_string
    assert text.startswith(
        '{\n    "insecure-registries":   ["registry.lan:5000"],\n    "features": {"buildkit":true},\n    "'
    )


def test_the_served_model_never_stopped(host):
    """The engine was restarted several times and once failed to start; live-restore was taken over before the first."""
    only(host, "existing")
    started = host.check_output("docker inspect --format '{{.State.StartedAt}}' served")
    assert started == host.file("/root/served").content_string.strip()
    assert host.check_output("docker inspect --format '{{.State.Running}}' served") == "true"


def test_the_interrupted_change_is_in_force(host):
    only(host, "existing")
    assert json.loads(host.file("/etc/docker/daemon.json").content_string)["log-level"] == "warn"


def test_the_drained_container_runs_again(host):
    only(host, "distro13")
    assert host.check_output("docker inspect --format '{{.State.Running}}' drained") == "true"
    limits = json.loads(host.file("/etc/docker/daemon.json").content_string)["default-ulimits"]
    assert limits == {"nofile": {"Name": "nofile", "Soft": 1024, "Hard": 1024}}


def as_operator(host, command):
    return host.check_output("runuser --login operator --command %s", command)


def test_the_operator_has_an_engine_without_root(host):
    only(host, "distro13")
    seen = json.loads(as_operator(host, "docker info --format '{{json .}}'"))
    assert "name=rootless" in seen["SecurityOptions"]
    assert seen["LoggingDriver"] == "json-file"


def test_a_container_runs_without_root(host):
    only(host, "distro13")
    host.check_output("docker save sleeper --output /tmp/sleeper.tar && chmod 644 /tmp/sleeper.tar")
    as_operator(host, "docker load --quiet --input /tmp/sleeper.tar")
    assert as_operator(host, "docker run --rm --network none sleeper /usr/bin/sleep 0 && echo ran").endswith("ran")
    assert host.check_output("stat --format=%U /home/operator/.config/docker/daemon.json") == "operator"
