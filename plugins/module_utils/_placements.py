# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Views of the plan: what one host has to do."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils import _groups, _tei_container
from ansible_collections.inferops.gpu_host.plugins.module_utils import _service_values as values
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import ServiceError, as_planned
from ansible_collections.inferops.gpu_host.plugins.module_utils._versions import (
    DEFAULT_IMAGES,
    engine_version_of,
    version_tuple,
)

_BUILT = ("ray",)


def on_host(plan, services, host, images=None, options=None):
    """The work of one host: [{service, image, plan, placement, round}], one for each replica that has a node there.

    services: as normalize_services returns them; absent ones are no work.
    images: {accelerator: image} over DEFAULT_IMAGES.
    options: {accelerator: engine options} below what the plan and the service say.
    `round`: when all hosts go through their rounds together, a replica has the same one on each of its hosts, and
    no host has two replicas in one round.
    """
    declared = {service["name"]: service for service in services}
    rounds = {}  # host: how many it has had
    work = []
    for entry in plan.get("services", []):
        service = declared.get(entry["name"])
        if service is None or service["state"] == "absent":
            continue
        service = as_planned(service, entry)
        accelerator = service["accelerator"]
        engine = dict((options or {}).get(accelerator, {}), **(entry.get("engine") or {}))
        for placement in entry.get("placements", []):
            hosts = [node["host"] for node in placement["nodes"]]
            now = max(rounds.get(name, 0) for name in hosts)
            rounds.update(dict.fromkeys(hosts, now + 1))
            if host in hosts:
                work.append(
                    {
                        "round": now,
                        "service": service,
                        "image": image_of(service, images, len(placement["nodes"]), entry.get("gpu")),
                        "plan": dict(entry, engine=engine),
                        "placement": placement,
                    }
                )
    return work


def gpu_services(work, host):
    """The services of one host's work, as on_host() returns it, that will use its GPUs: what gpu_preflight asks for."""
    services = {}
    for item in work:
        if item["service"]["state"] != "started" or item["service"]["accelerator"] != "cuda":
            continue
        entry = services.setdefault(
            item["service"]["name"],
            {
                "name": item["service"]["name"],
                "image": item["image"],
                "engine_version": item["service"]["engine_version"] if item["service"]["engine"] == "vllm" else None,
                "dtype": item["plan"]["engine"].get("dtype"),
                "quantization": item["plan"].get("quantization"),
                "gpus": [],
            },
        )
        nodes = [node for node in item["placement"]["nodes"] if node["host"] == host]
        entry["gpus"] += [gpu["uuid"] for node in nodes for gpu in node["gpus"] if gpu["uuid"]]
    return list(services.values())


def image_of(service, images=None, hosts=1, gpu=None):
    """The image of a normalized service on so many hosts: its own, or that of its engine, accelerator and GPU."""
    if service["image"]:
        return service["image"]
    images = dict(DEFAULT_IMAGES, **(images or {}))
    for key, name in images.items():
        try:
            values.image(name)
        except values.Bad as wanted:
            raise ServiceError([f"inference_images: {key} is {name!r}, wanted {wanted}"]) from None
    if service["engine"] == "text_embeddings_inference":
        return _tei_container.image(images["text_embeddings_inference"], service["accelerator"], gpu)
    image = images[service["accelerator"]]
    if hosts > 1 and service["distributed_executor_backend"] == "ray" and service["accelerator"] == "cuda":
        version = version_tuple(engine_version_of(service, image))
        if not version or version >= _groups.IMAGES_WITHOUT_RAY_SINCE:
            return images["ray"]
    return image


def images_on_host(plan, services, host, images=None):
    """The images that one host needs, without repetition: [{name}], as container_image_images wants them."""
    names = [item["image"] for item in on_host(plan, services, host, images)]
    built = {DEFAULT_IMAGES[key] for key in _BUILT}
    return [{"name": name, "source": "build"} if name in built else {"name": name} for name in dict.fromkeys(names)]


def groups(plan, services, images=None, models_dir="/data/models"):
    """The replicas that several hosts serve together; see _groups.of_plan."""
    return _groups.of_plan(plan, services, lambda service, hosts: image_of(service, images, hosts), models_dir)
