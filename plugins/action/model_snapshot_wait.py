# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits for asynchronous model_snapshot tasks and shows their progress."""

from __future__ import annotations

import contextlib
import posixpath
import shlex
import time

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.inferops.gpu_host.plugins.module_utils._model_weights import progress_line
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import bounded_json, printable

_LONGEST = 64 * 1024  # bytes of a progress file
_FIRST_PAUSES = (0.2, 0.3, 0.5, 1, 2)  # a model that is there already should not cost an interval


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = True

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            argument_spec={
                "jobs": {"type": "list", "elements": "dict", "required": True},
                "interval": {"type": "int", "default": 30},
                "timeout": {"type": "int", "default": 86400},
            }
        )
        jobs = args["jobs"]
        results = [None if job.get("ansible_job_id") else job for job in jobs]
        began, pauses, shown = time.monotonic(), list(_FIRST_PAUSES), time.monotonic()
        while True:
            for position, job in enumerate(jobs):
                if results[position] is None:
                    results[position] = self._outcome(job, task_vars)
            waiting = [job for job, result in zip(jobs, results) if result is None]
            if not waiting:
                break
            if time.monotonic() - began > args["timeout"]:
                names = ", ".join(self._name(job) for job in waiting)
                return {
                    "failed": True,
                    "results": [r for r in results if r],
                    "msg": f"{names}: not there after {args['timeout']} s (timeout). The jobs go on on the host; "
                    "run the play again to wait for them",
                }
            if time.monotonic() - shown >= args["interval"]:
                shown = time.monotonic()
                for job in waiting:
                    self._show(job, task_vars)
            time.sleep(pauses.pop(0) if pauses else min(5, args["interval"]))
        answer = {"changed": any(r.get("changed") for r in results)}
        failed = [r.get("msg", "") for r in results if r.get("failed")]
        if failed:  # without the results, which would bury the message
            return {**answer, "failed": True, "msg": "\n".join(failed)}
        return {**answer, "results": results, "msg": "\n".join(r.get("msg", "") for r in results)}

    def _outcome(self, job, task_vars):
        """The job's result when it has ended, None before."""
        arguments = {"jid": job["ansible_job_id"], "mode": "status", "_async_dir": self._async_dir()}
        status = self._execute_module("ansible.legacy.async_status", arguments, task_vars=task_vars)
        if not status.get("finished"):
            if status.get("failed"):
                status["msg"] = f"{self._name(job)}: its job is lost: {status.get('msg')}. Run the play again"
                return status
            return None
        arguments["mode"] = "cleanup"
        self._execute_module("ansible.legacy.async_status", arguments, task_vars=task_vars)
        if status.get("failed") and not status.get("msg"):
            status["msg"] = (
                f"{self._name(job)}: its job ended without a result, as if it was killed. Run the play again"
            )
        return status

    def _async_dir(self):
        return self.get_shell_option("async_dir", default="~/.ansible_async")

    @staticmethod
    def _item(job):
        return job.get(job.get("ansible_loop_var", "item")) or {}

    def _name(self, job):
        item = self._item(job)
        return item.get("name", "model") if isinstance(item, dict) else str(item)

    def _show(self, job, task_vars):
        """Print a line of progress; a file that is not there yet says nothing."""
        item = self._item(job)
        directory = item.get("directory") if isinstance(item, dict) else None
        if not directory:
            return
        parent, name = posixpath.split(directory)
        path = posixpath.join(parent, f".{name}.progress.json")
        # Others may write there, too: no link is followed, no pipe waited for, and not more read than a line needs.
        read = f"dd if={shlex.quote(path)} bs={_LONGEST} count=1 iflag=nofollow,nonblock status=none"
        answer = self._low_level_execute_command(read, sudoable=True)
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            figures = bounded_json(answer.get("stdout", ""), path, limit=_LONGEST)
            line = printable(progress_line(self._name(job), figures))
            Display().display(f"[{task_vars['inventory_hostname']}] {line}")
