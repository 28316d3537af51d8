# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host must do so that its containers are those that the plan wants, and why.

Several containers can belong to one replica for a while:

    NAME            serves, or is to serve
    NAME.previous   served until its successor NAME was started; goes when that one has answered, comes back if not
    NAME.candidate  a successor that proves itself beside NAME, on another port and other GPUs
    NAME.failed     a successor that did not answer, kept for a look at its log

Which of them was the last to answer is kept on the host (see _container_swap.py). What has answered is never given up
for what has not: wherever a play ends, the next one finds it.
"""

from __future__ import annotations

import hashlib
import json
import shlex

from ansible_collections.inferops.gpu_host.plugins.module_utils import (
    _container_secrets,
    _container_state,
    _model_code,
    _placements,
    _tei_container,
    _vllm_container,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._container_state import (
    CANDIDATE,
    FAILED,
    PREVIOUS,
    SUFFIXES,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._redaction import Redaction, is_secret_name, redacted
from ansible_collections.inferops.gpu_host.plugins.module_utils._versions import engine_version_of

CANDIDATE_PORTS = range(18000, 19000)


_ENGINES = {"vllm": _vllm_container, "text_embeddings_inference": _tei_container}


def digest_of(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode("utf-8")).hexdigest()[:16]


class Paths:
    """Where the models, configurations and caches of the services lie on a host."""

    def __init__(self, models, config, cache):
        self.models, self.config, self.cache = models, config, cache

    def model(self, service):
        return service["path"] or f"{self.models}/{service['model']}"

    def config_dir(self, name):
        return f"{self.config}/{name}"

    def cache_dir(self, name):
        return f"{self.cache}/{name}"


def questions(plan, services, host, paths, images=None):
    """What service_info must look at before anything can be decided: {containers, images, files, directories}."""
    work = [work for work in _placements.on_host(plan, services, host, images) if work["service"]["state"] == "started"]
    names = [_vllm_container.container_name(item["service"], item["placement"], item["plan"]) for item in work]
    return {
        "containers": [name + suffix for name in names for suffix in ("", *SUFFIXES)],
        "directories": sorted({paths.config_dir(item["service"]["name"]) for item in work}),
        "images": sorted({item["image"] for item in work}),
        "files": sorted({paths.model(item["service"]) + "/config.json" for item in work}),
        "models": sorted({paths.model(item["service"]) for item in work}),
    }


def wanted(plan, services, host, paths, images=None, options=None, settings=None, api_key=None, peers=None):
    """The containers that the plan wants on a host, one item for each; see the filter service_work for their keys."""
    return [
        _item(work, work["placement"], host, paths, settings, api_key, peers)
        for work in _placements.on_host(plan, services, host, images, options)
        if work["service"]["state"] == "started"
    ]


def _item(work, placement, host, paths, settings, api_key, peers=None, suffix=""):
    service, plan = work["service"], work["plan"]
    name = _vllm_container.container_name(service, placement, plan)
    version = engine_version_of(service, work["image"])
    engine = _ENGINES[service["engine"]]
    config = engine.config_file(service, plan, placement, version, settings, api_key)
    path = f"{paths.config_dir(service['name'])}/{name}{suffix}.{config['digest']}.{engine.EXTENSION}"
    arguments = engine.container_args(
        placement,
        service,
        host,
        work["image"],
        paths.model(service),
        path,
        paths.cache_dir(service["name"]),
        config,
        plan=plan,
        settings=settings,
        peers=peers,
    )
    arguments["name"] = name + suffix
    seals = (settings or {}).get("seals")
    secrets_path, secrets = _container_secrets.take_out(arguments, path, placement, seals)
    if redacted(arguments["labels"]) != arguments["labels"]:
        raise _vllm_container.ContainerError(
            f"service {service['name']!r}: labels hold a secret, and everybody may read labels: "
            f"{redacted(arguments['labels'])}. Put it into env"
        )
    head = placement["nodes"][0]["host"]
    url = _vllm_container.url(service, placement, None if head == host else (peers or {}).get(head))
    kind = service["type"] or plan.get("type") or "chat"
    labels = {"engine": service["engine"], "engine-version": version or "", "type": kind}
    if head == host:
        labels["url"] = url
    labels = {**arguments["labels"], **{_container_state.LABEL + key: value for key, value in labels.items()}}
    arguments["labels"] = labels
    labels[_container_state.LABEL + "spec"] = digest_of(arguments)
    # Only for people: a plan that leads to the same container is no reason to replace it.
    labels[_container_state.LABEL + "plan"] = digest_of([plan.get("layout"), plan.get("engine"), placement])
    # The name that it is made with, by which it is known as ours: see _container_state.is_ours.
    labels[_container_state.LABEL + "container"] = name
    mine = [gpu for node in placement["nodes"] if node["host"] == host for gpu in node.get("gpus") or []]
    labels[_container_state.LABEL + "gpus"] = ",".join(str(gpu.get("index")) for gpu in mine)
    return {
        "name": arguments["name"],
        "service": {key: value for key, value in service.items() if key != "api_key"},
        "type": kind,
        "image": work["image"],
        "model_dir": paths.model(service),
        "config_dir": paths.config_dir(service["name"]),
        "cache_dir": paths.cache_dir(service["name"]),
        "config_path": path,
        "config": config["content"],
        "secrets_path": secrets_path,
        "secrets": secrets,
        "api_key": service["api_key"] or api_key or None,
        "warnings": config["warnings"],
        "arguments": arguments,
        "port": placement["port"],
        "round": work["round"],
        "head": head == host,
        "several_hosts": len(placement["nodes"]) > 1,
        "check_command": _vllm_container.serve_arguments(paths.model(service), config),
        "url": url,
        "served": _vllm_container.served_name(service),
        "estimate": plan.get("estimate"),
        "placement": placement,
        "work": work,
    }


def decided(
    items, found, plan, host, paths, settings=None, api_key=None, strategy="in_place", retry_failed=False, leaving=()
):
    """The items with what is to be done: `action`, `why`, and for a replacement side by side its `candidate`.

    found: what service_info returned. leaving: containers that go before these come. Actions:
    none      runs as wanted and answers
    wait      runs as wanted, and does not answer yet
    start     is there as wanted, and does not run
    create    is not there
    replace   is there in another form, which is kept until the new one has answered
    prove     its predecessor is still kept: a play ended before it had answered
    foreign   a container of that name is somebody else's
    refused   this very form failed before, and its predecessor serves
    """
    result = []
    for item in items:
        item = dict(item, **_decision(item, found, retry_failed, leaving), code_refused=_code_refused(item, found))
        if item["action"] == "replace" and strategy == "side_by_side":
            item["candidate"] = _candidate(item, found, plan, host, paths, settings, api_key)
        result.append(item)
    return result


def _code_refused(item, found):
    """Why the model's files must not run here, None when they may; see _model_code."""
    code = (found.get("code") or {}).get(item["model_dir"])
    return _model_code.refusal(item["service"], code, item["work"]["plan"].get("engine"), item["model_dir"])


def _decision(item, found, retry_failed, leaving):
    containers, name, service = found["containers"], item["name"], item["service"]["name"]
    spec = item["arguments"]["labels"][_container_state.LABEL + "spec"]
    now, previous, failed = (containers.get(name + suffix) for suffix in ("", PREVIOUS, FAILED))
    decision = {"recover": False, "now": now, "predecessor": None, "answered": False, "proven": False}
    decision["port_holder"] = _port_holder(item, found, leaving) if item["head"] else None
    for suffix in ("", *SUFFIXES):
        other = containers.get(name + suffix)
        if other and not (other["ours"] and other["labels"].get("service") == service):
            why = f"{name}{suffix} was not made by this collection"
            return dict(decision, action="foreign", foreign=name + suffix, why=why)
    known = found.get("proven", {}).get(name)
    if known not in [container.get("id") for container in (now, previous, failed) if container]:
        known = None  # of a container that is gone
    why = _differences(item, now, spec, found) if now else "it is not there"
    if previous and why and not _is_proven(now, known):
        # What a play left half done counts for nothing: the predecessor is what was proven last.
        decision.update(recover=True, now=previous)
        now, previous = previous, None
        why = _differences(item, now, spec, found)
    if not now:
        return dict(decision, action="create", why=why)
    if why:
        decision.update(predecessor=now, answered=now["healthy"], proven=_is_proven(now, known))
        failed_before = failed and failed["labels"].get("spec") == spec and not retry_failed
        serves = now["running"] or decision["recover"] or decision["proven"]
        return dict(decision, action="refused" if failed_before and serves else "replace", why=why)
    if previous:
        decision.update(predecessor=previous, proven=_is_proven(previous, known) or not _is_proven(now, known))
        return dict(decision, action="prove", why="its predecessor is kept until it has answered")
    if not now["running"]:
        return dict(decision, action="start", why="it does not run")
    if item["head"] and not now["healthy"]:
        return dict(decision, action="wait", why="it does not answer yet")
    return dict(decision, action="none", why="")


def _is_proven(container, known):
    """Whether a container has answered: the host knows, or where it does not, the container does so now."""
    if not container:
        return False
    return container.get("id") == known if known else container["healthy"]


def _port_holder(item, found, leaving):
    """Who else has the port that an item wants, in words; None when it is free or will be."""
    holder = found["listening"].get(str(item["port"]))
    if not holder:
        return None
    container = holder["container"] or _served_at(item["port"], found)
    if container in leaving or container in (item["name"], *(item["name"] + suffix for suffix in SUFFIXES)):
        return None
    if container:
        return f"the container {container}"
    return f"{holder['process']} (process {holder['pid']})" if holder["process"] else "another program"


def _served_at(port, found):
    """Our container that listens on a port by itself, on the host's network."""
    for name, container in found["containers"].items():
        if container["running"] and container["labels"].get("url", "").endswith(f":{port}"):
            return name
    return None


def _differences(item, now, spec, found):
    """Why a container is not the one that is wanted; empty when it is."""
    labels = {
        key[len(_container_state.LABEL) :]: value
        for key, value in item["arguments"]["labels"].items()
        if key.startswith(_container_state.LABEL)
    }
    image = found["images"].get(item["image"])
    told = []
    if now["image"] != item["image"]:
        told.append(f"image {now['image']} → {item['image']}")
    elif image and now["image_id"] != image:
        told.append(f"{item['image']} is another image now")
    if now["labels"].get("spec") != spec:
        if now["labels"].get("config") != labels["config"]:
            told.append("options of the engine")
        if now["labels"].get("plan") != labels["plan"]:
            told.append("the plan")
        told = told or ["settings of the container"]
    return ", ".join(told)


def _candidate(item, found, plan, host, paths, settings, api_key):
    """The same service on a free port and free GPUs of the host; {problem} where there are none."""
    node = next(node for node in item["placement"]["nodes"] if node["host"] == host)
    need = len(node.get("gpus") or [])
    free = [gpu for gpu in plan.get("gpus") or [] if gpu["host"] == host and not gpu["services"]]
    if len(item["placement"]["nodes"]) > 1:
        return {"problem": f"{item['name']} spans several hosts; set vllm_update_strategy to in_place"}
    if len(free) < need:
        return {
            "problem": f"a candidate for {item['name']} needs {need} free GPUs beside the ones in use, "
            f"and {host} has {len(free)}; set vllm_update_strategy to in_place"
        }
    port = next(port for port in CANDIDATE_PORTS if str(port) not in found["listening"])
    gpus = [{"uuid": gpu["uuid"], "index": gpu["index"]} for gpu in free[:need]]
    placement = dict(item["placement"], port=port, nodes=[dict(node, gpus=gpus)])
    candidate = _item(item["work"], placement, host, paths, settings, api_key, suffix=CANDIDATE)
    return dict(candidate, previous=False, recover=False, now=None)


def surplus(found, items, services, plan):
    """What of these services is not wanted here: {stop: [names], remove: [names], retire: [{name, service, hosts}]}.

    stop: at once. remove: at once, since nobody wants it back. retire: replicas that the plan has under another name
    or on other hosts, which go when those answer. A service that nobody declares, or that the plan says nothing of, is
    left alone.
    """
    states = {service["name"]: service["state"] for service in services}
    hosts = {
        entry["name"]: sorted(
            {node["host"] for placement in entry.get("placements") or [] for node in placement["nodes"]}
        )
        for entry in plan.get("services") or []
    }
    kept = {item["name"] + suffix for item in items for suffix in ("", PREVIOUS, FAILED)}
    stop, remove, retire = [], [], []
    for name, container in sorted(found["containers"].items()):
        service = container["labels"].get("service") if container["ours"] else None
        state = states.get(service)
        if state == "absent" or (state == "started" and name.endswith(CANDIDATE) and hosts.get(service)):
            remove.append(name)
        elif state == "stopped" and container["running"]:
            stop.append(name)
        elif state == "started" and name not in kept and hosts.get(service):
            retire.append({"name": name, "service": service, "hosts": hosts[service]})
            if container["running"] and any(_meet(container, item) for item in items):
                stop.append(name)
    return {"stop": stop, "remove": remove, "retire": retire}


def _meet(container, item):
    """Whether a container has the port or a GPU that an item needs."""
    mine = set(filter(None, (container["labels"].get("gpus") or "").split(",")))
    needed = set(filter(None, item["arguments"]["labels"][_container_state.LABEL + "gpus"].split(",")))
    return bool(mine & needed) or container["labels"].get("url", "").endswith(f":{item['port']}")


def unplanned(services, plan):
    """The services that are to run and that the plan says nothing of."""
    known = {entry["name"] for entry in plan.get("services") or []}
    return [service["name"] for service in services if service["state"] == "started" and service["name"] not in known]


def options_of(text):
    """A configuration file of the engine as a mapping; what is no JSON holds the key alone."""
    try:
        return json.loads(text or "{}")
    except ValueError:
        words = shlex.split(text.partition("API_KEY=")[2])
        return {"api-key": words[:1]} if words and words[0] else {}


def option_changes(before, after):
    """What changed between two configuration files of the engine, one line each, without secrets."""
    before, after = options_of(before), options_of(after)
    redaction = Redaction(before, after)
    lines = []
    for name in sorted(set(before) | set(after)):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if is_secret_name(name) or redaction(old) == redaction(new):
            lines.append(f"{name}: " + ("removed" if new is None else "added" if old is None else "changed"))
        else:
            lines.append(f"{name}: {_said(redaction(old))} → {_said(redaction(new))}")
    return lines


def _said(value):
    return (
        "not set" if value is None else json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    )
