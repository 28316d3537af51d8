# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""vLLM's own judgement of a configuration, asked for inside its image: no GPU is needed and nothing is loaded."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils import _engine_log
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import UntrustedError, bounded_json

SIGN = "INFEROPS-LOOKED "

# Runs `vllm serve …` up to the point where the engine would start: options are parsed and validated as vLLM does it,
# then the model's configuration is read. SIGALRM ends it, so that a hanging image does not hang the play.
SCRIPT = (
    """
import json, signal, sys
signal.alarm(int(sys.argv.pop(1)))
looked = {"options": False, "model": ""}
def look(args):
    looked["options"] = True
    if getattr(args, "model_tag", None):
        args.model = args.model_tag
    try:
        from vllm.engine.arg_utils import AsyncEngineArgs
        AsyncEngineArgs.from_cli_args(args).create_model_config()
    except Exception as error:
        looked["model"] = type(error).__name__ + ": " + str(error)
try:
    from vllm.entrypoints.cli import serve
    serve.ServeSubcommand.cmd = staticmethod(look)
    from vllm.entrypoints.cli.main import main
except ImportError:
    from vllm import scripts
    scripts.serve = look
    main = scripts.main
sys.argv[0] = "vllm"
main()
print("%s" + json.dumps(looked))
"""
    % SIGN
)


def host_config(volumes):
    """How little its container may do: a model may bring code that SCRIPT runs. Its own files vanish with it."""
    binds = []
    for volume in volumes:
        source, target, options = (volume + "::").split(":")[:3]
        binds.append("%s:%s:%s" % (source, target, "ro,z" if "z" in options.split(",") else "ro"))
    return {
        "Binds": binds,
        "CapDrop": ["ALL"],
        "LogConfig": {"Type": "json-file"},
        "NetworkMode": "none",
        "PidsLimit": 16384,
        "SecurityOpt": ["no-new-privileges:true"],
    }


# What would go wrong with a GPU just as it does without one.
_CERTAIN = (
    "architecture_unknown",
    "max_model_len_beyond_model",
    "model_incomplete",
    "model_missing",
    "option_refused",
    "tokenizer_missing",
    "trust_remote_code_needed",
)


def judged(rc, output):
    """{ok, checked, problem, advice, note} of a run of SCRIPT.

    checked: how far it came, options and model. ok is False only for what would surely fail on a start, too.
    """
    looked = _looked(output)
    text = output if looked is None else looked["model"]
    failure = _engine_log.parse(text).get("failure") if text.strip() else None
    certain = failure and failure["cause"] in _CERTAIN
    checked = [name for name in ("options", "model") if looked and (name == "options" or not looked["model"])]
    verdict = {"ok": True, "checked": checked, "problem": "", "advice": "", "note": ""}
    if certain:
        verdict.update(ok=False, problem=failure["message"], advice=failure["advice"])
    elif looked is None:
        last = [line for line in output.splitlines() if line.strip()][-1:]
        verdict["note"] = "the image could not be asked (exit code %d): %s" % (rc, "".join(last)[:300])
    elif looked["model"]:
        verdict["note"] = "the model could not be looked at without a GPU: %s" % looked["model"].splitlines()[0][:300]
    return verdict


def _looked(output):
    for line in reversed(output.splitlines()):
        if line.startswith(SIGN):
            try:
                told = bounded_json(line[len(SIGN) :], "the answer", limit=MIB)
            except UntrustedError:
                continue  # the model's own code may print such a line
            if isinstance(told, dict) and isinstance(told.get("model"), str):
                return told
    return None
