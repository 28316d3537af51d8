# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which models must lie on which hosts, and who copies from whom."""

from __future__ import annotations

import posixpath

from ansible_collections.inferops.gpu_host.plugins.module_utils import _service_values as values
from ansible_collections.inferops.gpu_host.plugins.module_utils._redaction import redacted
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import format_bytes

MODEL_DEFAULTS = {
    "name": None,  # the model's own name
    "model": None,
    "source": "modelscope",
    "revision": None,
    "directory": None,  # below the models' directory
    "path": None,  # source local: where to copy from
    "endpoint": None,
    "url": None,  # source url: the address of the model's directory
    "include": [],
    "exclude": [],
    "skip_duplicate_weights": True,
    "update": False,
    "hosts": [],  # empty: every host of the play
    "seed": None,  # the host that fetches it for the others
}

_ADDRESSES = ("endpoint", "url")
_OWN_SOURCES = ("local", "generated")  # what each host makes or has for itself


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
        problems += [f"{label}: {problem}" for problem in _bad_values(model)]
        if model["source"] == "local" and not model["path"]:
            problems.append(f"{label}: source is local, so path must name the directory to copy from")
        if model["source"] == "url" and not model["url"]:
            problems.append(f"{label}: source is url, so url must be the address of the model's directory")
        other = owners.setdefault(model["directory"], model)
        if other is not model:
            problems.append(f"{label}: {model['directory']} is also the directory of {other['name']!r}")
        result.append(model)
    if problems:
        raise ModelError("\n".join(problems))
    return result


def _bad_values(model):
    """What would become an option of a client, another directory or another address."""
    checks = {
        "model": values.model_directory if model["source"] == "local" else values.model_id,
        "revision": values.revision,
        "directory": values.model_directory,
        "path": values.model_directory,
        "endpoint": values.url,
        "url": values.url,
    }
    if model["source"] == "local" and not str(model["model"]).startswith("/"):
        checks["model"] = values.model_id
    for key, check in checks.items():
        try:
            if model[key]:
                check(model[key])
        except values.Bad as wanted:
            # An address may hold a password.
            found = "" if key in ("endpoint", "url") else f" is {model[key]!r},"
            yield f"{key}{found} wanted {wanted}"
    for key in ("include", "exclude"):
        patterns = model[key] if isinstance(model[key], (list, tuple)) else [None]
        if not all(isinstance(pattern, str) and values.is_pattern(pattern) for pattern in patterns):
            yield f"{key} is {model[key]!r}, wanted a list of patterns of file names, such as '*.safetensors'"


def without_secrets(models):
    """Completed models as a loop may show them: passwords in their addresses are blotted out."""
    return [dict(model, **redacted({key: model[key] for key in _ADDRESSES})) for model in models]


def addresses(models):
    """The addresses of completed models, by their directory, with the passwords in them."""
    return {model["directory"]: {key: model[key] for key in _ADDRESSES} for model in models}


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


def requirements_of_models(models, plan, host, allow_root_filesystem=False):
    """What the models that a plan places on `host` take there, as the modules that look at disks want it.

    models: as models_of_services() returns them. One that its host makes or has already takes nothing.
    """
    sizes = {service["model"]: service.get("files_bytes") for service in plan.get("services", [])}
    return [
        {
            "path": model["directory"],
            "bytes": sizes[model["model"]],
            "purpose": f"weights of {model['model']}",
            "allow_root_filesystem": allow_root_filesystem,
            "allowed_by": "model_weights_allow_root_filesystem: true",
            "counted": [staging_of(model["directory"])],
        }
        for model in models
        if model["source"] not in _OWN_SOURCES and host in model["hosts"] and sizes.get(model["model"])
    ]


def outside(requirements, disks):
    """The requirements that lie below no mount point of the declared disks, as in storage_disks."""
    mountpoints = [one.get("mountpoint") for disk in disks for one in [disk, *(disk.get("partitions") or [])]]
    mountpoints = [mountpoint.rstrip("/") + "/" for mountpoint in mountpoints if mountpoint]
    return [one for one in requirements if not any((one["path"] + "/").startswith(it) for it in mountpoints)]


def staging_of(directory):
    """Where a model is gathered until it is complete."""
    parent, name = posixpath.split(directory.rstrip("/"))
    return posixpath.join(parent, f".{name}.staging")


def installed_models(results):
    """What `model_snapshot` returned for each model of a loop, short, by the model's name."""
    short = ("directory", "source", "revision", "resolved_revision", "content_digest", "size", "files", "time")
    installed = {}
    for result in results:
        if result.get("manifest"):
            manifest = dict(result["manifest"], directory=result["directory"], files=len(result["manifest"]["files"]))
            installed[manifest["model"]] = {key: manifest[key] for key in short}
    return installed


CONTROLLER = "localhost"


def distribute(models, play_hosts, fan_out, seed=None, controller_directory="/"):
    """The models with `fetchers` (hosts that ask the source) and `receivers` (hosts that copy from others).

    A controller that is no host of the play can be the seed, too: it keeps its copy in `controller_directory`.
    """
    result = []
    for model in models:
        hosts = [host for host in play_hosts if not model["hosts"] or host in model["hosts"]]
        wanted_seed = model["seed"] or (seed if model["source"] not in _OWN_SOURCES else None)
        if wanted_seed and wanted_seed not in [*play_hosts, CONTROLLER]:
            raise ModelError(
                f"the seed of {model['name']} is {wanted_seed}, which is neither among the hosts of this play "
                f"nor {CONTROLLER}"
            )
        if not hosts or not fan_out or (model["source"] in _OWN_SOURCES and not wanted_seed):
            fetchers, receivers = hosts, []
        else:
            first = wanted_seed or hosts[0]
            fetchers, receivers = [first], [host for host in hosts if host != first]
        on_controller = fetchers == [CONTROLLER] and CONTROLLER not in play_hosts
        kept = posixpath.join(controller_directory, model["directory"].strip("/")) if on_controller else None
        result.append(dict(model, fetchers=fetchers, receivers=receivers, controller_directory=kept))
    return result


def holders_of(model, results):
    """{host: manifest} of the hosts on which `model_snapshot` found or left the model complete, fetchers first."""
    holders = {}
    for host in model["fetchers"] + model["receivers"]:
        directory = model["controller_directory"] if host == CONTROLLER else None
        for result in results.get(host, []):
            if result.get("complete") and result["directory"] == (directory or model["directory"]):
                holders[host] = result["manifest"]
    return holders


def models_to_fetch(models, host, results):
    """Those of the models for which `host` has to ask their source: `results` are what each host holds already.

    With receivers, one host that has the model is enough: the others get it from there.
    """
    wanted = []
    for model in models:
        holders = holders_of(model, results)
        there = holders if model["receivers"] else host in holders
        if host in model["fetchers"] and (model["update"] or not there):
            wanted.append(model)
    return wanted


def fan_out_plan(model, results):
    """The manifest that all hosts shall have, and the rounds in which those get the model that lack it.

    When nobody has it, because who was to fetch it failed, there is no manifest.
    """
    holders = holders_of(model, results)
    if not holders:
        return {"manifest": None, "rounds": []}
    manifest = next(iter(holders.values()))
    same = [host for host in holders if holders[host]["content_digest"] == manifest["content_digest"]]
    hosts = model["receivers"] if model["controller_directory"] else model["fetchers"] + model["receivers"]
    needers = [host for host in hosts if host in results and host not in same]
    return {"manifest": manifest, "rounds": fan_out_rounds(same, needers)}


def fan_out_rounds(holders, needers):
    """Who copies from whom: a list of rounds {receiver: holder}; who has received gives from the next round on.

    The number of holders doubles each round, so N hosts take about log2 N rounds.
    """
    holders, waiting, rounds = list(holders), list(needers), []
    while waiting and holders:
        pairs = dict(zip(waiting, holders))
        rounds.append(pairs)
        waiting = waiting[len(pairs) :]
        holders += list(pairs)
    return rounds


def progress_line(name, figures):
    """A progress file as one line for people."""
    line = f"{name}: {figures['state']}"
    if figures.get("total"):
        line += f" {figures['percent']:.1f} %, {format_bytes(figures['bytes'])} of {format_bytes(figures['total'])}"
    if figures.get("rate"):
        line += f", {format_bytes(figures['rate'])}/s"
    if figures.get("eta_seconds") is not None and figures["state"] == "downloading":
        hours, seconds = divmod(figures["eta_seconds"], 3600)
        line += f", {hours} h {seconds // 60} min left" if hours else f", {seconds // 60} min {seconds % 60} s left"
    if figures.get("message"):
        line += f" ({figures['message']})"
    return line
