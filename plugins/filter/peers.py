# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about hosts that serve together."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError

from ansible_collections.inferops.gpu_host.plugins.module_utils import _groups, _network, _placements, _ray, _sameness
from ansible_collections.inferops.gpu_host.plugins.module_utils import _service_values as values
from ansible_collections.inferops.gpu_host.plugins.module_utils._service import ServiceError, normalize_services


def _serving_groups(plan, services, images=None, models_dir="/data/models"):
    try:
        return _placements.groups(plan, normalize_services(services), images, models_dir)
    except (ServiceError, _groups.GroupError) as error:
        raise AnsibleFilterError(str(error)) from error


def _resolve_peers(groups, looked_at, waive=()):
    """{peers, problems} over all groups; a host is known to every group by one address."""
    peers, problems = {}, []
    for hosts in _joined(groups):
        absent = [host for host in hosts if not looked_at.get(host)]
        if absent:
            problems.append(
                f"{', '.join(absent)} of {', '.join(hosts)} has not been looked at: it failed before, or is not in "
                f"this play. Hosts that serve together are set up together; check --limit and inference_hosts"
            )
            continue
        wanted = {host: looked_at[host]["wanted"] for host in hosts}
        try:
            peers.update(_network.resolve({host: looked_at[host]["found"] for host in hosts}, wanted, waive))
        except _network.NetworkError as error:
            problems.extend(error.problems)
    return {"peers": peers, "problems": problems}


def _joined(groups):
    """The hosts of the groups, with groups that share a host as one."""
    joined = []
    for group in groups:
        hosts = list(group["hosts"])
        for other in [other for other in joined if set(other) & set(hosts)]:
            joined.remove(other)
            hosts = [*other, *(host for host in hosts if host not in other)]
        joined.append(hosts)
    return joined


def _peer_ports(groups, host):
    """{port: purpose} that the groups of this host will listen on here."""
    mine = [group for group in groups if host in group["hosts"]]
    return {port: purpose for group in mine for purpose, port in _network.ports_of(group, host).items()}


def _peer_targets(groups, peers, probes, host):
    return _network.connections(groups, peers, probes).get(host, [])


def _closed_groups(groups, peers):
    """What peer_firewall closes for these groups; those of which it is not known who belongs to them stay open."""
    return [
        {
            "name": group["name"],
            "service": group.get("service") or group["name"],
            "peers": [peers[host]["address"] for host in group["hosts"]],
            "ports": group["closed"],
        }
        for group in groups
        if group.get("closed")
    ]


def _ray_group(cluster, offset=0):
    """A Ray cluster that stands alone, as a group for the role peers."""
    _check_cluster(cluster, offset)
    ports = _groups.ray_ports(int(offset))
    every = {f"ray {name}": ports[name] for name in ("node manager", "object manager", "worker")}
    return {
        "name": cluster["name"],
        "hosts": list(cluster["hosts"]),
        "head": cluster["hosts"][0],
        "state": "started",
        "image": cluster["image"],
        "backend": "ray",
        "token": not cluster.get("address"),
        # Who else belongs to a cluster that was there before is not known here.
        "closed": [] if cluster.get("address") else _groups.closed_ray_ports(int(offset)),
        "ports": {"head": {} if cluster.get("address") else {"ray": ports["ray"]}, "every": every},
    }


def _check_cluster(cluster, offset):
    """Refuses what would become an option of Ray, a second field of a volume, or a name of something else."""

    def address(value):
        name, _colon, port = str(value).rpartition(":")
        values.address(name.strip("[]"))
        if not port.isdigit() or not 0 < int(port[:6]) < 65536:
            raise values.Bad("ADDRESS:PORT")

    def of_container(key):
        return lambda value: values.container({key: value})

    def number(value):
        if not str(value).isdigit() or not 0 <= int(str(value)[:6]) <= 40:
            raise values.Bad("a whole number from 0 to 40")

    checks = {
        "name": values.container_name,
        "image": values.image,
        "address": address,
        "env": of_container("env"),
        "volumes": of_container("volumes"),
        "shm_size": values.word("a size such as 16g", r"[0-9]{1,15}(\.[0-9]+)?[bBkKmMgGtT]?[bB]?"),
        "port_offset": number,
    }
    for key, check in checks.items():
        value = offset if key == "port_offset" else cluster.get(key)
        try:
            if value not in (None, "", [], {}):
                check(value)
        except values.Bad as wanted:
            shown = "" if key == "env" else f" is {value!r},"
            raise AnsibleFilterError(f"ray_cluster_{key}{shown} wanted {wanted}") from None


def _ray_container_args(cluster, host, peers, gpus=(), offset=0, gpu_injection="nvidia"):
    _check_cluster(cluster, offset)
    try:
        return _ray.container_args(cluster, host, peers, _groups.ray_ports(int(offset)), gpus, gpu_injection)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self):
        return {
            "serving_groups": _serving_groups,
            "resolve_peers": _resolve_peers,
            "peer_ports": _peer_ports,
            "peer_targets": _peer_targets,
            "blocked_connections": _network.blocked,
            "closed_groups": _closed_groups,
            "ray_group": _ray_group,
            "ray_container_args": _ray_container_args,
            "software_differences": _sameness.differences,
            "images_to_compare": _sameness.images_to_compare,
            "image_differences": _sameness.image_differences,
        }
