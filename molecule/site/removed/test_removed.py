"""What remove.yml leaves: nothing of ours."""


def test_nothing_is_left(host):
    for path in ("/data", "/etc/inferops", "/var/cache/inferops", "/etc/docker"):
        assert not host.file(path).exists
    # Volumes of the test bed: the directories stay, their content does not.
    assert host.check_output("find /var/lib/docker /var/lib/containerd -mindepth 1") == ""


def test_the_engine_that_was_installed_is_gone(host):
    assert not host.exists("dockerd")
    assert not host.package("docker.io").is_installed
    assert not host.package("containerd").is_installed
