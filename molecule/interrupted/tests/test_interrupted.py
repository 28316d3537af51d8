"""The host after a play that was killed nine times, and two that were not."""

import json


def test_the_disk_is_as_declared_and_holds_what_it_held(host):
    assert host.mount_point("/data").filesystem == "xfs"
    assert host.mount_point("/srv/images").filesystem == "ext4"
    assert host.file("/data/file").content_string == "precious\n"
    assert host.run("findmnt --verify").rc == 0


def test_the_engine_runs_with_what_was_asked_for(host):
    seen = json.loads(host.check_output("docker info --format '{{json .}}'"))
    assert "nvidia" in seen["Runtimes"]
    assert seen["LiveRestoreEnabled"]
    assert host.service("docker").is_enabled


def test_foreign_settings_kept_their_bytes(host):
    text = host.file("/etc/docker/daemon.json").content_string
    assert text.startswith('{\n    "insecure-registries":   ["registry.lan:5000"],\n    "features": {"buildkit":true},')
    assert json.loads(text)["default-ulimits"]["nofile"]["Hard"] == 1024
    assert json.loads(host.file("/etc/docker/daemon.json.managed").content_string)["unread"] is None


def test_what_ran_runs(host):
    assert host.check_output("docker inspect --format '{{.State.Running}} {{.RestartCount}}' served") == "true 0"


def test_dpkg_has_nothing_left_to_do(host):
    assert host.check_output("dpkg --audit") == ""
    assert host.package("nvidia-container-toolkit").version == "1.20.0-1"
