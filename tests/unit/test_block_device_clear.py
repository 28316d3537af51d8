"""What is cleared is kept, marked and in nobody's use."""

from __future__ import annotations

import errno
import json
import os

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.inferops.gpu_host.plugins.module_utils._device_samples import given_up, is_given_up
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB, MIB
from ansible_collections.inferops.gpu_host.plugins.modules import block_device_clear as clear


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(2 * GIB)
        for offset in (0, 1024, 5 * MIB + 7, 64 * MIB, 70 * MIB, 2 * GIB - 10):
            file.seek(offset)
            file.write(b"old")
    return path


def run(disk, capsys, start=0, size=2 * GIB, **more):
    arguments = {"device": str(disk), "start": start, "size": size, "backup_dir": str(disk.parent), **more}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        clear.main()
    return json.loads(capsys.readouterr().out)


def at(disk, offset, length=3):
    with disk.open("rb") as file:
        return os.pread(file.fileno(), length, offset)


def test_superblocks_are_cleared_kept_and_marked(disk, capsys):
    result = run(disk, capsys)
    assert result["changed"] and len(result["copies"]) == 3
    assert at(disk, 0, MIB) == given_up(2 * GIB)
    assert [at(disk, offset) for offset in (64 * MIB, 2 * GIB - 10)] == [b"\0\0\0"] * 2
    assert at(disk, 70 * MIB) == b"old"  # nobody looks there
    for name in result["copies"]:
        offset = int(name.rsplit("-", 1)[1].split(".")[0])
        with open(name, "rb") as copy, disk.open("r+b") as device:
            assert os.stat(name).st_mode & 0o777 == 0o600
            os.pwrite(device.fileno(), copy.read(), offset)
    assert [at(disk, offset) for offset in (0, 1024, 64 * MIB, 2 * GIB - 10)] == [b"old"] * 4
    assert at(disk, 100, 8) == b"\0" * 8


def test_a_coming_partition_is_cleared_and_nothing_else(disk, capsys):
    result = run(disk, capsys, start=5 * MIB, size=50 * MIB)
    assert result["changed"]
    assert [at(disk, offset) for offset in (0, 64 * MIB, 2 * GIB - 10)] == [b"old"] * 3
    assert at(disk, 5 * MIB, MIB) == given_up(50 * MIB)
    with disk.open("rb") as file:
        assert is_given_up(lambda offset, length: os.pread(file.fileno(), length, offset), 5 * MIB, 50 * MIB)
    assert not run(disk, capsys, start=5 * MIB, size=50 * MIB)["changed"]


def test_check_mode_writes_nothing(disk, capsys):
    before = at(disk, 0, 10 * MIB)
    assert run(disk, capsys, _ansible_check_mode=True)["changed"]
    assert at(disk, 0, 10 * MIB) == before and list(disk.parent.iterdir()) == [disk]


def test_nothing_is_cleared_that_cannot_be_kept(disk, capsys):
    assert "is not cleared" in run(disk, capsys, backup_dir=str(disk.parent / "not/there"))["msg"]
    assert at(disk, 0) == b"old"


@pytest.mark.parametrize(("start", "size"), [(0, 3 * GIB), (2 * GIB, MIB), (-1, MIB), (0, 0)])
def test_a_room_lies_on_its_device(disk, capsys, start, size):
    assert "there is no room" in run(disk, capsys, start=start, size=size)["msg"]


@pytest.mark.parametrize("start", [0, 5 * MIB])
def test_a_device_in_use_is_refused(disk, capsys, monkeypatch, start):
    def busy(path, flags, *mode):
        if flags & os.O_EXCL:
            raise OSError(errno.EBUSY, "Device or resource busy")
        return os_open(path, flags, *mode)

    os_open = os.open
    monkeypatch.setattr(clear.os, "open", busy)
    monkeypatch.setattr(clear, "holders_of", lambda _device: [])
    assert "Device or resource busy" in run(disk, capsys, start=start, size=MIB)["msg"]
    assert at(disk, 0) == b"old"


def test_a_partition_that_is_there_is_never_overlapped(disk, capsys, monkeypatch):
    monkeypatch.setattr(clear, "partitions_of", lambda _device: [("sda1", 6 * MIB, MIB)])
    assert "sda1 lies where" in run(disk, capsys, start=5 * MIB, size=50 * MIB)["msg"]
    assert run(disk, capsys, start=7 * MIB, size=50 * MIB)["changed"]
