"""What root downloads, checks and installs: nobody else can have made it, know its place or exchange it in between."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.inferops.gpu_host.plugins.module_utils import _private_files
from ansible_collections.inferops.gpu_host.plugins.modules import checked_file, private_directory

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another account, which only root can")


def run(module, capsys, check=False, **arguments):
    with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
        module.main()
    return json.loads(capsys.readouterr().out)


def mode_of(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


# Directories


def test_a_directory_of_ours_is_made_with_those_above_it(tmp_path, capsys):
    path = tmp_path / "a/b"
    assert run(private_directory, capsys, check=True, path=str(path))["changed"]
    assert not path.exists()
    assert run(private_directory, capsys, path=str(path))["changed"]
    assert (mode_of(path), mode_of(path.parent)) == (0o700, 0o755)
    assert not run(private_directory, capsys, path=str(path))["changed"]
    path.chmod(0o750)
    assert run(private_directory, capsys, path=str(path))["changed"]
    assert mode_of(path) == 0o700


def test_a_random_directory_has_another_name_each_time(tmp_path, capsys):
    found = [run(private_directory, capsys, path=str(tmp_path), prefix="x-")["path"] for _ in range(2)]
    assert len(set(found)) == 2
    assert all(mode_of(path) == 0o700 and Path(path).parent == tmp_path for path in found)
    assert run(private_directory, capsys, check=True, path=str(tmp_path), prefix="x-")["path"] == ""


def foreign(path):
    path.mkdir()
    os.chown(path, NOBODY, NOBODY)


def below_a_foreign_one(path):
    path.parent.mkdir()
    path.mkdir()
    os.chown(path.parent, NOBODY, NOBODY)


def a_link(path):
    (path.parent / "elsewhere").mkdir()
    path.symlink_to(path.parent / "elsewhere")


def below_a_foreign_link(path):
    (path.parent.parent / "elsewhere").mkdir()
    path.parent.symlink_to(path.parent.parent / "elsewhere")
    os.lchown(path.parent, NOBODY, NOBODY)


def writable_by_all(path):
    path.mkdir()
    path.chmod(0o777)


def writable_by_a_group(path):
    path.mkdir()
    os.chown(path, 0, NOBODY)
    path.chmod(0o775)


def below_one_that_all_can_write(path):
    path.parent.mkdir()
    path.parent.chmod(0o777)


def sticky(path):
    path.mkdir()
    path.chmod(0o1777)


def a_file(path):
    path.write_text("")


@as_root
@pytest.mark.parametrize(
    ("make", "where", "words"),
    [
        (foreign, "x", "belongs to nobody"),
        (below_a_foreign_one, "y/x", "belongs to nobody"),
        (a_link, "x", "is a symbolic link"),
        (below_a_foreign_link, "y/x", "is a symbolic link of nobody"),
        (writable_by_all, "x", "mode 0777"),
        (writable_by_a_group, "x", "mode 0775"),
        (below_one_that_all_can_write, "y/x", "mode 0777"),
        (sticky, "x", "mode 1777"),
        (a_file, "x", "no directory"),
    ],
)
def test_a_directory_that_others_have_a_hand_in_is_refused(tmp_path, capsys, make, where, words):
    make(tmp_path / where)
    for check in (True, False):
        answer = run(private_directory, capsys, check=check, path=str(tmp_path / where), variable="the_cache_dir")
        assert answer["failed"]
        assert words in answer["msg"]
        assert "set the_cache_dir" in answer["msg"]


@as_root
def test_a_random_directory_below_tmp_is_fine_and_below_a_foreign_one_is_not(tmp_path, capsys):
    sticky(tmp_path / "tmp")
    assert mode_of(run(private_directory, capsys, path=str(tmp_path / "tmp"), prefix="x-")["path"]) == 0o700
    foreign(tmp_path / "foreign")
    assert run(private_directory, capsys, path=str(tmp_path / "foreign"), prefix="x-")["failed"]


@as_root
def test_a_file_that_others_can_exchange_is_refused(tmp_path, capsys):
    (tmp_path / "archive").write_text("")
    assert not run(private_directory, capsys, path=str(tmp_path / "archive"), state="checked")["changed"]
    os.chown(tmp_path / "archive", NOBODY, NOBODY)
    assert "belongs to nobody" in run(private_directory, capsys, path=str(tmp_path / "archive"), state="checked")["msg"]


@as_root
@pytest.mark.slow
def test_images_are_loaded_and_built_only_from_places_of_ours(stage):
    host = stage.host()
    foreign(host.directory / "foreign")
    (host.directory / "foreign/image.tar").write_bytes(GOOD)
    load = {"source": "load", "archive": f"{host.directory}/foreign/image.tar", "archive_sha256": GOOD_SUM}
    recipe = {"dockerfile": "vllm-ray.Dockerfile.j2", "base": "inferops/vllm-cpu:0.32.0", "requirements": ["x"]}
    played = stage.play(
        [{"ansible.builtin.setup": {"gather_subset": ["!all", "min", "distribution"]}}],
        [
            {
                "block": [
                    {
                        "ansible.builtin.include_role": {"name": "inferops.gpu_host.container_image"},
                        "vars": {"container_image_images": [{"name": "inferops/new:1", **image}]},
                    }
                ],
                "rescue": [{"ansible.builtin.debug": {"msg": "{{ ansible_failed_result.msg }}"}}],
            }
            for image in (load, {"source": "build", "recipe": "mine"})
        ],
        container_image_cache_dir=f"{host.directory}/foreign",
        container_image_recipes={"mine": {**recipe, "python_version": "3.12", "glibc_minor": 36}},
    )
    assert f"{host.directory}/foreign belongs to nobody" in played.words, played.output
    assert "set archive of inferops/new:1 to another place" in played.words
    assert "set container_image_cache_dir to another place" in played.words


def test_links_of_root_on_the_way_are_followed(tmp_path):
    (tmp_path / "real/x").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    assert _private_files.why_untrusted(str(tmp_path / "link/x")) is None
    (tmp_path / "loop").symlink_to("loop")
    assert "symbolic link" in _private_files.why_untrusted(str(tmp_path / "loop/x"))


# Files

GOOD = b"#!/bin/sh\necho good\n"
GOOD_SUM = hashlib.sha256(GOOD).hexdigest()


def archive(members, mode="w:bz2"):
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode=mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/shadow"
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content or b""))
    return held.getvalue()


def install(tmp_path, capsys, content, **arguments):
    (tmp_path / "src").write_bytes(content)
    os.chmod(tmp_path / "src", 0o600)
    given = {"src": str(tmp_path / "src"), "dest": str(tmp_path / "dest"), "sha256": GOOD_SUM, **arguments}
    return run(checked_file, capsys, **given)


@pytest.mark.parametrize(
    ("content", "member"),
    [
        (GOOD, None),
        (archive([("info/x", b"1"), ("bin/m", GOOD)]), "bin/m"),
        (archive([("./bin/m", GOOD)], "w"), "bin/m"),
    ],
)
def test_the_wanted_file_is_installed(tmp_path, capsys, content, member):
    given = {"member": member} if member else {}
    assert install(tmp_path, capsys, content, check=True, **given)["changed"]
    assert not (tmp_path / "dest").exists()
    assert install(tmp_path, capsys, content, **given)["changed"]
    assert (tmp_path / "dest").read_bytes() == GOOD
    assert mode_of(tmp_path / "dest") == 0o755
    assert not install(tmp_path, capsys, content, **given)["changed"]
    assert sorted(os.listdir(tmp_path)) == ["dest", "src"]


@pytest.mark.parametrize(
    ("content", "member", "words"),
    [
        (b"evil", None, "brought a file with sha256"),
        (archive([("bin/m", b"evil")]), "bin/m", "brought a file with sha256"),
        (archive([("bin/other", GOOD)]), "bin/m", "holds no file bin/m"),
        (archive([("bin/m", None)]), "bin/m", "holds no file bin/m"),
        (b"no archive", "bin/m", "no archive that can be read"),
        (archive([("bin/m", GOOD)])[:60], "bin/m", "no archive that can be read"),
        (b"", "bin/m", "no archive that can be read"),
    ],
)
def test_another_one_is_refused(tmp_path, capsys, content, member, words):
    told = {"told": "https://me:planted@mirror/x", "remedy": "Check it."}
    answer = install(tmp_path, capsys, content, **({"member": member} if member else {}), **told)
    assert answer["failed"]
    assert words in answer["msg"]
    assert answer["msg"].startswith("https://***@mirror/x")
    assert answer["msg"].endswith("Check it.")
    assert not (tmp_path / "dest").exists()


def test_what_is_too_large_is_not_read_to_its_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_private_files, "MAX_BYTES", 1000)
    assert "larger than" in install(tmp_path, capsys, b"x" * 1001)["msg"]
    assert "larger than" in install(tmp_path, capsys, archive([("m", b"x" * 1001)]), member="m")["msg"]
    many = archive([("%d" % number, b"") for number in range(9)])
    assert "holds no file m" in install(tmp_path, capsys, many, member="m")["msg"]


def test_what_was_checked_is_installed_whatever_happens_to_the_file(tmp_path, capsys, monkeypatch):
    """Somebody exchanges the file right after it was found good."""
    good = _private_files.sha256

    def exchanged(data):
        found = good(data)
        (tmp_path / "src").write_bytes(b"evil")
        return found

    monkeypatch.setattr(_private_files, "sha256", exchanged)
    assert install(tmp_path, capsys, GOOD)["changed"]
    assert (tmp_path / "dest").read_bytes() == GOOD


def test_links_pipes_and_devices_are_not_read(tmp_path, capsys):
    (tmp_path / "real").write_bytes(GOOD)
    (tmp_path / "link").symlink_to("real")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "missing"):
        given = {"src": str(tmp_path / name), "dest": str(tmp_path / "dest"), "sha256": GOOD_SUM}
        assert run(checked_file, capsys, **given)["failed"]
    assert "/dev/zero" in run(checked_file, capsys, **{**given, "src": "/dev/zero"})["msg"]


@as_root
def test_a_file_of_another_account_is_refused(tmp_path, capsys):
    (tmp_path / "src").write_bytes(GOOD)
    os.chown(tmp_path / "src", NOBODY, NOBODY)
    answer = run(checked_file, capsys, src=str(tmp_path / "src"), dest=str(tmp_path / "dest"), sha256=GOOD_SUM)
    assert "belongs to nobody" in answer["msg"]


def test_a_link_in_the_place_of_the_destination_is_replaced_and_not_followed(tmp_path, capsys):
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / "dest").symlink_to("victim")
    install(tmp_path, capsys, GOOD)
    assert (tmp_path / "victim").read_text() == "untouched"
    assert not (tmp_path / "dest").is_symlink()


# Where the collection puts things


def test_nothing_lies_where_everybody_can_write():
    found = set()
    for place in ("roles", "playbooks", "scripts", "plugins/action", "plugins/modules"):
        for path in sorted((ROOT / place).rglob("*")):
            if path.suffix in (".json", ".pyc") or not path.is_file():
                continue
            for word in re.findall(r"(?:/var)?/tmp/[\w.{}-]+|/var/tmp\b|/dev/shm\b|/run/lock\b", path.read_text()):
                found.add((str(path.relative_to(ROOT)), word))
    # In a container, whose /tmp is its own.
    assert found == {("roles/peers/files/group_member.py", "/tmp/group-member-runs")}


@as_root
def test_the_role_takes_nothing_from_a_place_that_others_made(tmp_path):
    """The binary of micromamba, by the role: one host where all is well, one where another account owns the place."""
    binary = ROOT / "tests/stand_ins/micromamba/micromamba"
    cache = {"well": tmp_path / "well", "foreign": tmp_path / "foreign"}
    cache["well"].mkdir()
    foreign(cache["foreign"])
    hosts = {
        name: {"__cache": str(path), "micromamba_executable": str(tmp_path / ("micromamba-" + name))}
        for name, path in cache.items()
    }
    shared = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "micromamba_file": str(binary),
        "micromamba_sha256": hashlib.sha256(binary.read_bytes()).hexdigest(),
    }
    (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"hosts": hosts, "vars": shared}}))
    tasks = [{"include_role": {"name": "inferops.gpu_host.micromamba", "tasks_from": "install"}}]
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    extra = json.dumps({"__micromamba_cache_dir": "{{ __cache }}", "__micromamba_platform": "linux-64"})
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "hosts.yml", "play.yml", "-e", extra],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    output = " ".join(done.stdout.split())
    assert "belongs to nobody: whoever can change it decides what is installed from there" in output, output
    assert (tmp_path / "micromamba-well").read_bytes() == binary.read_bytes()
    assert mode_of(tmp_path / "micromamba-well") == 0o755
    assert not (tmp_path / "micromamba-foreign").exists()
    assert os.listdir(cache["well"]) == []
