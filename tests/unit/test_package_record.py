"""Which packages came, are held, and go again: by an apt that only pretends, and (slow) by this machine's own, on layers over
its /etc and /var."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from engine_play import play

from ansible_collections.inferops.gpu_host.plugins.modules import package_record


class Failed(Exception):
    pass


class FakeModule:
    def __init__(self, path, **params):
        self.check_mode = params.pop("check_mode", False)
        self.params = {"path": str(path), "packages": [], "change_held": False, "roots": [], "keep": [], **params}

    def fail_json(self, msg, **_others):
        raise Failed(msg)


class FakePackages:
    """`needs` says which installed package needs which."""

    def __init__(self):
        self.now, self.holds, self.needs = {"base"}, set(), {}

    def installed(self):
        return set(self.now)

    def held(self):
        return set(self.holds)

    def hold(self, names):
        self.holds |= set(names)

    def lift(self, names):
        self.holds -= set(names)

    def settle(self, came, roots):
        pass

    def removable(self, came, keep):
        stays = self.now - came | keep
        return {name for name in came - keep if not any(name in self.needs.get(other, ()) for other in stays)}

    def remove(self, names, keep):
        self.now -= set(names)


@pytest.fixture
def apt(tmp_path):
    packages = FakePackages()

    def act(state, **params):
        module = FakeModule(tmp_path / "record.json", **params)
        record = package_record.Record(module)
        result = getattr(package_record, state)(module, record, packages)
        record.save()
        return result

    act.packages = packages
    act.record = lambda: json.loads((tmp_path / "record.json").read_text())
    act.path = tmp_path / "record.json"
    return act


def installed(apt, *names):
    apt("begun")
    apt.packages.now |= set(names)
    apt("recorded")


def test_what_came_goes_and_nothing_else(apt):
    installed(apt, "engine", "library")
    apt.packages.now.add("editor")
    assert apt("removed")["removed"] == ["engine", "library"]
    assert apt.packages.now == {"base", "editor"}
    assert apt.record() == {}


def test_what_others_came_to_need_stays(apt):
    installed(apt, "engine", "library")
    apt.packages.now.add("kubelet")
    apt.packages.needs["kubelet"] = ["library"]
    result = apt("removed")
    assert (result["removed"], result["needed"]) == (["engine"], ["library"])


def test_an_installation_that_was_killed_is_completed(apt):
    apt("begun")
    apt.packages.now |= {"engine"}
    apt("begun")  # the next run
    apt.packages.now |= {"library"}
    apt("recorded")
    assert apt.record() == {"came": ["engine", "library"]}


def test_an_upgrade_adds_to_what_came(apt):
    installed(apt, "engine")
    installed(apt, "plugin")
    assert apt.record() == {"came": ["engine", "plugin"]}


def test_what_others_hold_is_refused_by_name_unless_it_is_allowed(apt):
    apt.packages.now.add("engine")
    apt.packages.holds = {"engine", "kernel"}
    with pytest.raises(Failed, match=r"^engine: held on this host.*apt-mark unhold.*docker_change_held_packages"):
        apt("lifted", packages=["engine"])
    assert apt.packages.holds == {"engine", "kernel"}
    assert not apt.path.exists()
    apt("lifted", packages=["engine"], change_held=True)
    assert apt.packages.holds == {"kernel"}
    apt("recorded")
    assert apt.packages.holds == {"engine", "kernel"}


def test_what_is_pinned_is_held_until_the_pin_changes_or_goes(apt):
    installed(apt, "engine")
    assert apt("held", packages=["engine", "not-there"])["changed"]
    assert not apt("held", packages=["engine"])["changed"]
    assert apt.packages.holds == {"engine"}
    apt("lifted", packages=["engine"])  # an upgrade, which is killed here
    assert apt.packages.holds == set()
    apt("held", packages=["engine"])
    assert apt.packages.holds == {"engine"}
    apt("held")
    assert apt.packages.holds == set()


def test_a_hold_of_others_is_not_lifted_with_the_pin(apt):
    apt.packages.now.add("engine")
    apt.packages.holds = {"engine"}
    apt("held", packages=["engine"])
    apt("held")
    assert apt.packages.holds == {"engine"}


def test_what_others_hold_is_not_removed_either(apt):
    installed(apt, "engine", "library")
    apt("held", packages=["engine"])
    apt.packages.holds.add("library")
    assert apt("removed")["removed"] == ["engine"]
    assert apt.packages.holds == {"library"}


@pytest.mark.parametrize("text", ["[]", "{", '{"came": 1}', '{"held": [1]}', "[" * 9999])
def test_a_damaged_record_is_named(apt, text):
    apt.path.write_text(text)
    with pytest.raises(Failed, match=r"record\.json (is damaged|cannot be read)"):
        apt("begun")


def test_keys_of_others_stay_in_the_record(apt):
    apt.path.write_text('{"drained": ["served"]}')
    installed(apt, "engine")
    assert apt.record() == {"came": ["engine"], "drained": ["served"]}


class FakeRpm(package_record.Rpm):
    """rpm --erase --test, whose words stand in `answers`, one for each question."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def run(self, argv, fail=True):
        self.asked.append(argv)
        if "--whatprovides" in argv:
            return (
                0,
                {"libengine.so.1": "library\n", "runtime": "runtime\n"}.get(argv[-1].split()[0], "no package\n"),
                "",
            )
        return self.answers.pop(0)


def test_rpm_takes_out_what_others_need_until_it_agrees():
    first = "error: Failed dependencies:\n\tlibengine.so.1 is needed by (installed) kubelet-1-1.x86_64\n"
    second = "error: Failed dependencies:\n\truntime >= 1 is needed by (installed) kubelet-1-1.x86_64\n"
    rpm = FakeRpm((1, "", first), (1, "", second), (0, "", ""))
    assert rpm.removable({"engine", "library", "runtime"}, set()) == {"engine"}


def test_rpm_removes_nothing_when_it_is_not_understood():
    assert FakeRpm((1, "", "error: rpmdb is locked")).removable({"engine"}, set()) == set()


def test_rpm_holds_nothing_and_need_not_when_nothing_is_to_be_held():
    FakeRpm().hold(set())


# --- this machine's apt ----------------------------------------------------------------------------------------------


def package(directory, name, needs=""):
    tree = directory / name
    (tree / "DEBIAN").mkdir(parents=True)
    depends = f"Depends: {needs}\n" if needs else ""
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@example.invalid>\n{depends}"
        "Description: empty\n"
    )
    subprocess.run(["dpkg-deb", "--build", str(tree), str(directory)], check=True, capture_output=True)
    return f"{directory}/{name}_1_all.deb"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("apt-get"), reason="needs apt")
def test_apt_itself_removes_what_came_and_keeps_what_is_needed(tmp_path):
    debs = tmp_path / "debs"
    engine = package(debs, "trial-engine", "trial-library, trial-runtime")
    library, runtime = package(debs, "trial-library"), package(debs, "trial-runtime")
    kubelet = package(debs, "trial-kubelet", "trial-runtime")
    install = "apt-get install --yes --no-install-recommends --option Debug::NoLocking=1 "

    def record(state, **options):
        module = {"path": "/etc/inferops/record.json", "state": state, **options}
        return {"inferops.gpu_host.package_record": module, "register": "told"}

    tasks = [
        record("begun"),
        {"ansible.builtin.command": install + f"{engine} {library} {runtime}"},
        record("recorded", roots=["trial-engine"]),
        record("held", packages=["trial-engine"]),
        {"ansible.builtin.command": install + kubelet},
        record("removed"),
        {"ansible.builtin.copy": {"dest": "/etc/told.json", "content": "{{ told | to_json }}"}},
        {"ansible.builtin.raw": "dpkg-query --show 'trial-*' >/etc/left; apt-mark showmanual 'trial-*' >/etc/manual"},
    ]
    code, output = play(tmp_path, tasks)
    assert code == 0, output
    told = json.loads((tmp_path / "etc/told.json").read_text())
    assert (told["removed"], told["needed"]) == (["trial-engine", "trial-library"], ["trial-runtime"])
    assert (tmp_path / "etc/left").read_text().split() == ["trial-kubelet", "1", "trial-runtime", "1"]
    assert (tmp_path / "etc/manual").read_text().split() == ["trial-kubelet"]
