# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Groups: the hosts that serve one replica together, how they are joined, and on which ports."""

from __future__ import annotations

from ansible_collections.inferops.gpu_host.plugins.module_utils._service import as_planned, option_name
from ansible_collections.inferops.gpu_host.plugins.module_utils._versions import engine_version_of, version_tuple

# vLLM joins several hosts by itself from here on, and its images hold no Ray any more from there on.
NATIVE_SINCE = (0, 12, 0)
IMAGES_WITHOUT_RAY_SINCE = (0, 18, 0)

MASTER_PORT = 29501  # vLLM's own default for the first service
MEMBER_PORT = 28501  # where the members of a group hold on to each other
RAY_PORT = 6379
DATA_PARALLEL_PORT = 29550  # vLLM's own default
FIRST_API_PORT = 8000


class GroupError(ValueError):
    """A service that cannot be served over several hosts as it is declared."""


def backend(service, engine_version=None):
    """mp or ray: how the hosts of this service are joined."""
    wanted = service.get("distributed_executor_backend") or "auto"
    version = version_tuple(engine_version)
    if wanted == "auto":
        return "ray" if version and version < NATIVE_SINCE else "mp"
    if wanted == "mp" and version and version < NATIVE_SINCE:
        raise GroupError(
            f"service {service['name']!r}: vLLM {engine_version} joins hosts with Ray only; "
            f"leave distributed_executor_backend out, or take an image of 0.12 or newer"
        )
    if wanted not in ("mp", "ray"):
        raise GroupError(
            f"service {service['name']!r} is placed on several hosts, and distributed_executor_backend {wanted} "
            f"joins none: set it to mp, ray or auto"
        )
    return wanted


def ports(service, placement, joined_by):
    """{head: {purpose: port}, every: {purpose: port}}: what the others of the group open connections to.

    They follow from the API's port, which no other service of the head has, so that groups never meet.
    """
    offset = (placement["port"] - FIRST_API_PORT) % 1000
    options = {option_name(name): value for name, value in (service.get("options") or {}).items()}
    head = {"group": MEMBER_PORT + offset}
    if joined_by == "mp":
        head["torch"] = int(options.get("master-port") or MASTER_PORT + offset)
        return {"head": head, "every": {}}
    own = ray_ports(offset)
    head["ray"] = own["ray"]
    return {"head": head, "every": {f"ray {name}": own[name] for name in ("node manager", "object manager", "worker")}}


def closed_ports(service, placement, joined_by):
    """What no one but the members may open connections to, as numbers and ranges, beside what the kernel chooses."""
    offset = (placement["port"] - FIRST_API_PORT) % 1000
    options = {option_name(name): value for name, value in (service.get("options") or {}).items()}
    found = [str(port) for port in ports(service, placement, joined_by)["head"].values()]
    if joined_by == "ray":
        found = [str(MEMBER_PORT + offset), *closed_ray_ports(offset)]
    if any(name.startswith("data-parallel-") for name in options):
        found.append(str(int(options.get("data-parallel-rpc-port") or DATA_PARALLEL_PORT)))
    return found


def closed_ray_ports(offset=0):
    own = ray_ports(offset)
    return [str(own["ray"]), f"{own['node manager']}-{own['last worker']}"]


def ray_ports(offset=0):
    """Every port that a Ray node listens on, below the kernel's own range: one block of 1000 for each cluster."""
    block = 11000 + 1000 * (offset % 9)
    names = (
        "node manager",
        "object manager",
        "runtime env agent",
        "dashboard agent",
        "dashboard agent grpc",
        "metrics",
    )
    found = {name: block + at for at, name in enumerate(names)}
    found.update({"ray": RAY_PORT + offset, "dashboard": block + 10, "client": block + 11})
    # A node takes one worker port for each CPU at once, and more for actors.
    found.update({"worker": block + 100, "last worker": block + 999})
    return found


def of_plan(plan, services, image_of, models_dir):
    """The groups of a plan: [{name, service, hosts, head, backend, ports, image, model_dir, gpus}].

    services: as normalize_services returns them. image_of(service, hosts): the image that it runs.
    """
    declared = {service["name"]: service for service in services}
    groups = []
    for entry in plan.get("services") or []:
        service = declared.get(entry["name"])
        if service is None or service["state"] == "absent":
            continue
        service = as_planned(service, entry)
        for placement in entry.get("placements") or []:
            hosts = [node["host"] for node in placement["nodes"]]
            if len(hosts) < 2:
                continue
            image = image_of(service, len(hosts))
            joined_by = backend(service, engine_version_of(service, image))
            groups.append(
                {
                    "name": name(service, placement, entry),
                    "service": service["name"],
                    "state": service["state"],
                    "hosts": hosts,
                    "head": hosts[0],
                    "backend": joined_by,
                    "ports": ports(service, placement, joined_by),
                    "closed": closed_ports(service, placement, joined_by),
                    "token": joined_by == "ray",
                    "image": image,
                    "model_dir": service["path"] or f"{models_dir}/{service['model']}",
                    "accelerator": service["accelerator"],
                    "gpus": {node["host"]: len(node.get("gpus") or []) for node in placement["nodes"]},
                }
            )
    return groups


def name(service, placement, plan=None):
    """What the containers of one replica are called, on whichever host."""
    replicas = (((plan or {}).get("layout") or {}).get("replicas")) or 1
    return service["name"] if replicas == 1 else f"{service['name']}-{placement.get('replica', 0)}"
