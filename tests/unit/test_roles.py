"""Every role has the one skeleton, and what argument_specs says of a default is what defaults/main.yml holds."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import role_pages

ROLES = sorted(path for path in (Path(__file__).resolve().parents[2] / "roles").iterdir() if path.is_dir())
IDS = [role.name for role in ROLES]


def load(path):
    return yaml.safe_load(path.read_text())


def defaults_of(role):
    return load(role / "defaults/main.yml") or {}


def options_of(role):
    return load(role / "meta/argument_specs.yml")["argument_specs"]["main"].get("options") or {}


def folded(value):
    """Templates compare by content: how they are wrapped does not matter."""
    if isinstance(value, str):
        return re.sub(r"\s+", "", value)
    if isinstance(value, dict):
        return {key: folded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [folded(item) for item in value]
    return value


@pytest.mark.parametrize("role", ROLES, ids=IDS)
def test_every_default_is_documented_with_its_value(role):
    defaults, options = defaults_of(role), options_of(role)
    assert sorted(defaults) == sorted(options)
    for name, value in defaults.items():
        # The documentation tools want a list, a dict or a bool in its own form, so a template cannot stand there.
        if isinstance(value, str) and "{{" in value and options[name]["type"] in ("list", "dict", "bool"):
            assert "default" not in options[name], name
        else:
            assert folded(options[name].get("default")) == folded(value), name


@pytest.mark.parametrize("role", ROLES, ids=IDS)
def test_its_page_says_what_its_specification_says(role):
    assert (role / "README.md").read_text() == role_pages.page(role), "run `make docs`"


@pytest.mark.parametrize("role", ROLES, ids=IDS)
def test_public_variables_carry_the_name_of_the_role(role):
    for name in defaults_of(role):
        assert name.startswith(role.name + "_"), name


@pytest.mark.parametrize("role", ROLES, ids=IDS)
def test_internal_variables_carry_the_name_of_the_role_too(role):
    for path in sorted((role / "tasks").glob("*.yml")):
        for name in re.findall(r"^\s+(?:register|loop_var): (\S+)", path.read_text(), re.M):
            assert f"{name}_".startswith(f"__{role.name}_"), f"{path.name}: {name}"


@pytest.mark.parametrize("role", ROLES, ids=IDS)
def test_the_skeleton_is_whole(role):
    for path in ("defaults/main.yml", "meta/main.yml", "meta/argument_specs.yml", "tasks/main.yml"):
        assert (role / path).is_file(), path


@pytest.mark.parametrize("role", ROLES, ids=IDS)
def test_templates_refer_to_groups_with_one_backslash(role):
    """Ansible doubles the backslashes of a template's strings: with two of them the result holds a literal \\1."""
    for path in sorted(role.rglob("*.yml")):
        assert not re.search(r"'[^'\n]*\\\\\d", path.read_text()), path
