"""What remove.yml leaves: nothing of ours."""


def test_nothing_is_left(host):
    assert host.check_output("docker ps --all --quiet") == ""
    assert host.check_output("docker images --quiet") == ""
    for path in ("/data", "/etc/inferops", "/var/cache/inferops"):
        assert not host.file(path).exists


def test_the_engine_still_runs(host):
    assert host.service("docker").is_running
