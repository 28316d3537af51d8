"""What is taken away is what we made: everything else is still there afterwards."""

from __future__ import annotations

import os

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils._own_files import remove, why_not_removable

MANIFEST = ".model-manifest.json"


def test_a_directory_with_nothing_else_goes(tmp_path):
    directory = tmp_path / "inferops"
    directory.mkdir()
    (directory / "plan.json").write_text("{}")
    assert remove(str(directory), [r"plan\.json"], dry=True)[0] and directory.exists()
    assert remove(str(directory), [r"plan\.json"]) == ([str(directory / "plan.json"), str(directory)], [])
    assert not directory.exists()
    assert remove(str(directory), [r"plan\.json"]) == ([], [])


def test_what_others_put_there_stays(tmp_path):
    directory = tmp_path / "inferops"
    (directory / "theirs").mkdir(parents=True)
    for name in ("plan.json", "plan.json.bak", "xplan.json", "notes"):
        (directory / name).write_text("")
    removed, left = remove(str(directory), [r"plan\.json"])
    assert removed == [str(directory / "plan.json")]
    assert [os.path.basename(path) for path in left] == ["notes", "plan.json.bak", "theirs", "xplan.json"]


def test_links_lead_nowhere(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "plan.json").write_text("")
    (tmp_path / "link").symlink_to(elsewhere)
    assert remove(str(tmp_path / "link"), [r"plan\.json"]) == ([], [])
    directory = tmp_path / "inferops"
    directory.mkdir()
    (directory / "plan.json").symlink_to(elsewhere / "plan.json")
    (directory / "sub").symlink_to(elsewhere)
    assert remove(str(directory), [r"plan\.json", "sub"])[1] == []
    assert (elsewhere / "plan.json").exists()


@pytest.fixture
def models(tmp_path):
    for name in ("models/org/ours", "models/org/theirs", "outside", "models-too"):
        (tmp_path / name).mkdir(parents=True)
        if name != "models/org/theirs":
            (tmp_path / name / MANIFEST).write_text("{}")
    (tmp_path / "models/org/link").symlink_to(tmp_path / "outside")
    (tmp_path / "models/away").symlink_to(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("directory", "words"),
    [
        ("models/org/ours", None),
        ("models/org/not-there", None),  # what an unfinished fetch left lies beside it
        ("models/org/theirs", "holds no manifest"),
        ("models", "does not lie below"),
        ("models/", "does not lie below"),
        ("models/..", "does not lie below"),
        ("models/../outside", "does not lie below"),
        ("models/org/../../outside", "does not lie below"),
        ("models-too", "does not lie below"),
        ("outside", "does not lie below"),
        ("models/org/link", "outside, does not lie below"),
        ("models/away/outside", "outside, does not lie below"),
        ("models/org", "holds no manifest"),
    ],
)
def test_a_model_is_removed_below_the_models_and_with_our_manifest(models, directory, words):
    reason = why_not_removable(f"{models}/{directory}", f"{models}/models", MANIFEST)
    assert (reason is None) if words is None else words in reason


def test_a_models_directory_may_be_a_link_itself(models):
    (models / "data").symlink_to(models / "models")
    assert why_not_removable(f"{models}/data/org/ours", f"{models}/data", MANIFEST) is None
