"""The hosts after refusals, a killed run, a grown disk and a reboot."""

import pytest

STALE = "5ca1ab1e"
MOUNTS = {
    "/data": "xfs",
    "/data/scratch": "xfs",
    "/srv/images": "ext4",
    "/precious": "ext4",
    "/reused": "xfs",
}


@pytest.mark.parametrize("path", MOUNTS)
def test_mounted_after_the_reboot(host, path):
    assert host.mount_point(path).exists
    assert host.mount_point(path).filesystem == MOUNTS[path]


def test_fstab_knows_filesystems_by_uuid_and_lets_the_host_boot_without_them(host):
    lines = {
        line.split()[1]: line.split() for line in host.file("/etc/fstab").content_string.splitlines() if "UUID" in line
    }
    assert set(lines) >= set(MOUNTS)
    assert lines["/data"][3:] == [
        "noatime,nofail,x-systemd.device-timeout=30s,"
        "x-systemd.before=docker.service,x-systemd.before=containerd.service",
        "0",
        "0",
    ]
    assert lines["/srv/images"][3:] == ["defaults", "0", "2"]
    assert all(lines[path][0].startswith("UUID=") for path in MOUNTS)


def test_findmnt_finds_no_fault(host):
    assert host.run("findmnt --verify").rc == 0


def test_what_was_precious_is_there(host):
    assert host.file("/precious/file").content_string == "precious\n"


def test_owner_and_mode(host):
    assert host.file("/data").group == "games"
    assert host.file("/data").mode == 0o750


def test_the_filesystem_has_grown_with_its_disk(host):
    assert int(host.check_output("findmnt --bytes --noheadings --output SIZE /data")) > 1400 * 1024**2


def test_partitions_are_aligned_and_sized(host):
    disk = host.check_output("lsblk --noheadings --paths --output PKNAME $(findmnt -no SOURCE /data/scratch)")
    starts = host.check_output(f"partx --noheadings --output START {disk}").split()
    sizes = host.check_output(f"partx --noheadings --bytes --output SIZE {disk}").split()
    assert all(int(start) % 2048 == 0 for start in starts)
    assert int(sizes[0]) / (2 * 1024**3) == pytest.approx(0.6, abs=0.01)


def test_what_was_given_up_can_be_taken_back(host):
    assert host.check_output("ls /var/backups/inferops-storage | grep -c -e at-0.bak") == "1"


def test_the_killed_run_has_converged(host):
    if host.check_output("hostname") == "debian12":
        assert host.mount_point("/first").filesystem == "ext4"
        assert host.mount_point("/second").filesystem == "ext4"
        assert STALE not in host.check_output("findmnt --noheadings --output UUID /second")


def test_nothing_can_be_written_below_a_mount(host):
    host.check_output("mkdir -p /mnt/below && mount --bind / /mnt/below")
    flags = host.check_output("lsattr -d /mnt/below/data").split()[0]
    left = host.check_output("ls -A /mnt/below/data")
    host.check_output("umount /mnt/below")
    assert "i" in flags
    assert left == ""


def test_the_engine_started_on_its_disk(host):
    assert host.file("/data/docker/started").exists
