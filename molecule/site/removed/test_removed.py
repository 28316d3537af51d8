"""What remove.yml leaves: nothing of ours."""


def test_nothing_is_left(host):
    for path in ("/data", "/etc/inferops", "/var/cache/inferops", "/etc/docker", "/var/lib/containerd"):
        assert not host.file(path).exists
    # A volume of the test bed: the directory stays, its content does not.
    assert host.check_output("ls -A /var/lib/docker") == ""


def test_the_engine_that_was_installed_is_gone(host):
    assert not host.exists("dockerd")
    assert not host.package("docker.io").is_installed
    assert not host.package("containerd").is_installed
