"""Lets plain pytest import `ansible_collections.inferops.gpu_host…` from a bare checkout."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[2]

if not any(isinstance(finder, _AnsibleCollectionFinder) for finder in sys.meta_path):
    _AnsibleCollectionFinder(paths=[str(ROOT / "collections")])._install()


@pytest.fixture(scope="session")
def modules(tmp_path_factory):
    import role_plays

    with role_plays.ModuleServer(tmp_path_factory.mktemp("modules")) as server:
        yield server


@pytest.fixture
def stage(tmp_path, modules):
    """Hosts with stand-ins of a container engine, and plays on them; see role_plays.py."""
    import role_plays

    with role_plays.Stage(tmp_path, modules) as opened:
        yield opened


# The same examples in every run: a counter-example is found by whoever changes the code, and pinned, and is no surprise to others.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
