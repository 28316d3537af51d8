"""What every scenario may rely on, seen after a reboot."""


def name_of(host):
    return host.check_output("hostname")


def test_systemd_is_running(host):
    assert host.check_output("systemctl is-system-running") == "running"


def test_a_container_inside_came_back_and_answers(host):
    if name_of(host) != "isolated":
        assert host.check_output("docker inspect --format '{{.State.Running}}' probe") == "true"
        assert host.run("/usr/bin/busybox wget -q -O /dev/null http://127.0.0.1:8080/busybox").succeeded


def test_the_disk_is_mounted_by_the_name_udev_gave_it(host):
    if name_of(host) != "isolated":
        assert host.mount_point("/data").filesystem == "xfs"
        serial = host.check_output("lsblk --nodeps --noheadings --output SERIAL $(findmnt -no SOURCE /data)")
        assert serial.endswith(f"-testbed-{name_of(host)}-disk1")


def test_hosts_see_each_other(host):
    for other in ("debian12", "debian13", "isolated"):
        assert host.addr(other).is_resolvable


def test_only_the_isolated_host_has_no_internet(host):
    reached = host.run("timeout 5 apt-get update --error-on=any").succeeded
    assert reached == (name_of(host) != "isolated")
