"""The line of progress, of a file that others may have put there."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

from ansible_collections.inferops.gpu_host.plugins.action import model_snapshot_wait
from ansible_collections.inferops.gpu_host.plugins.action.model_snapshot_wait import ActionModule

FIGURES = {"state": "downloading", "total": 10, "bytes": 5, "percent": 50.0, "message": "\x1b[2J"}


@pytest.fixture
def show(tmp_path, monkeypatch):
    class Action(ActionModule):
        def __init__(self):
            pass

        def _low_level_execute_command(self, cmd, sudoable=True):
            return {"stdout": subprocess.run(cmd, shell=True, capture_output=True, text=True, check=False).stdout}

    shown = []
    monkeypatch.setattr(model_snapshot_wait.Display, "display", lambda self, text: shown.append(text))

    def show():
        job = {"item": {"name": "org/name", "directory": str(tmp_path / "it's a name")}, "ansible_loop_var": "item"}
        began = time.monotonic()
        Action()._show(job, {"inventory_hostname": "gpu1"})
        assert time.monotonic() - began < 5
        return shown

    show.file = tmp_path / ".it's a name.progress.json"
    return show


def test_figures_are_shown_without_what_steers_a_terminal(show):
    show.file.write_text(json.dumps(FIGURES))
    (line,) = show()
    assert line.startswith("[gpu1] org/name: downloading 50.0 %")
    assert line.isprintable()


@pytest.mark.parametrize(
    "text", ["", "[", "7", "{}", '{"state": 7}', "[" * 60000, json.dumps({**FIGURES, "percent": "x"})]
)
def test_odd_figures_show_nothing(show, text):
    show.file.write_text(text)
    assert not [line for line in show() if "%" in line]


@pytest.mark.parametrize("kind", ["link", "pipe", "endless", "missing"])
def test_what_is_no_file_is_not_read(show, tmp_path, kind):
    (tmp_path / "secret").write_text(json.dumps(FIGURES))
    if kind == "link":
        show.file.symlink_to(tmp_path / "secret")
    elif kind == "endless":
        show.file.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(show.file)
    assert show() == []
