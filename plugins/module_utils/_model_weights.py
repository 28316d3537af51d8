# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which models must lie on which hosts, and who copies from whom."""

from __future__ import annotations

import posixpath

MODEL_DEFAULTS = {
    "name": None,  # the model's own name
    "model": None,
    "source": "modelscope",
    "revision": None,
    "directory": None,  # below the models' directory
    "path": None,  # source local: where to copy from
    "endpoint": None,
    "include": [],
    "exclude": [],
    "skip_duplicate_weights": True,
    "update": False,
    "hosts": [],  # empty: every host of the play
}


class ModelError(ValueError):
    """Everything that is wrong with the declared models, at once."""


def complete_models(models, models_dir):
    """The declared models with every key of MODEL_DEFAULTS; raises ModelError with all problems."""
    result, problems, owners = [], [], {}
    for position, given in enumerate(models):
        label = f"model {given.get('name') or given.get('model') or position + 1!r}"
        unknown = sorted(set(given) - set(MODEL_DEFAULTS))
        if unknown:
            problems.append(f"{label}: unknown key {', '.join(unknown)}; known: {', '.join(MODEL_DEFAULTS)}")
        model = dict(MODEL_DEFAULTS, **{k: v for k, v in given.items() if v is not None})
        model["model"] = model["model"] or model["name"]
        if not model["model"]:
            problems.append(f"{label}: model is missing (an id such as Qwen/Qwen2.5-7B-Instruct)")
            continue
        model["name"] = model["name"] or model["model"]
        model["directory"] = model["directory"] or posixpath.join(models_dir, model["model"].strip("/"))
        if model["source"] == "local" and not model["path"]:
            problems.append(f"{label}: source is local, so path must name the directory to copy from")
        other = owners.setdefault(model["directory"], model)
        if other is not model:
            problems.append(f"{label}: {model['directory']} is also the directory of {other['name']!r}")
        result.append(model)
    if problems:
        raise ModelError("\n".join(problems))
    return result


def models_of_services(services, models_dir, plan=None):
    """The models that normalized services need, one entry per directory; with a plan, only where they are placed."""
    placed = {}
    for service in (plan or {}).get("services", []):
        nodes = [node["host"] for placement in service["placements"] for node in placement["nodes"]]
        placed[service["name"]] = sorted(set(nodes))
    models = {}
    for service in services:
        if service["state"] == "absent":
            continue
        local = service["hub"] == "local"
        directory = service["path"] or posixpath.join(models_dir, service["model"].strip("/"))
        hosts = placed.get(service["name"], service["hosts"])
        model = models.setdefault(
            directory,
            {
                "name": service["model"],
                "model": service["model"],
                "source": service["hub"],
                "revision": service["revision"],
                "directory": directory,
                "path": service["path"] if local else None,
                "hosts": list(hosts),
            },
        )
        # Empty means every host, and stays so whatever another service says.
        model["hosts"] = sorted(set(model["hosts"]) | set(hosts)) if model["hosts"] and hosts else []
    return list(models.values())


def installed_models(results):
    """What `model_snapshot` returned for each model of a loop, short, by the model's name."""
    short = ("directory", "source", "revision", "resolved_revision", "content_digest", "size", "files", "time")
    installed = {}
    for result in results:
        if result.get("manifest"):
            manifest = dict(result["manifest"], directory=result["directory"], files=len(result["manifest"]["files"]))
            installed[manifest["model"]] = {key: manifest[key] for key in short}
    return installed
