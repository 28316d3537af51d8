#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: network_info
short_description: A host's interfaces, the ways to its peers, and its RDMA adapters
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Tells which interfaces a host has, with kind, state, MTU and addresses, and from which of its addresses it would
    reach each of its peers.
  - Sends nothing. A way is what the kernel's routing says.
extends_documentation_fragment:
  - inferops.gpu_host.attributes
  - inferops.gpu_host.attributes.info_module
options:
  peers:
    description:
      - The other hosts, each with the names and addresses under which it may be known.
        The first that this host can resolve to something other than itself counts.
    type: dict
    default: {}
requirements:
  - C(ip) of iproute2 4.13 or newer
"""

EXAMPLES = r"""
- name: Look at the network
  inferops.gpu_host.network_info:
    peers:
      gpu2: [192.0.2.12, gpu2]
  register: network
"""

RETURN = r"""
interfaces:
  description: The interfaces.
  returned: always
  type: list
  elements: dict
  contains:
    name: {description: The name., type: str}
    kind:
      description: V(loopback), V(engine) for what container engines and the like made, V(bridge), or the kind of link.
      type: str
    up: {description: Whether it is up and has a carrier., type: bool}
    mtu: {description: The MTU in bytes., type: int}
    addresses: {description: "Addresses with their prefixes, such as V(192.0.2.11/24).", type: list, elements: str}
routes:
  description: For each peer its C(address) and the C(source) address that leads there, or the C(reason) for none.
  returned: always
  type: dict
rdma:
  description: The RDMA ports.
  returned: always
  type: list
  elements: dict
  contains:
    name: {description: "The device, such as V(mlx5_0).", type: str}
    link_layer: {description: V(InfiniBand) or V(Ethernet)., type: str}
    state: {description: "V(ACTIVE), V(DOWN) and so on.", type: str}
    interface: {description: The network interface of the port., type: str}
"""

import glob
import ipaddress
import os
import socket

from ansible_collections.inferops.gpu_host.plugins.module_utils._network import parse_interfaces
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule


def way_to(names):
    """{address, source} of the first name that leads away from this host, or {reason}."""
    reasons = []
    for name in filter(None, names):
        try:
            family, _type, _protocol, _canonical, target = socket.getaddrinfo(name, 9, type=socket.SOCK_DGRAM)[0]
        except OSError as error:
            reasons.append("%s: %s" % (name, error.strerror or error))
            continue
        if ipaddress.ip_address(target[0].partition("%")[0]).is_loopback:
            reasons.append("%s is loopback here" % name)  # Debian's /etc/hosts has 127.0.1.1
            continue
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(target)  # of a datagram socket: only asks the routing
                return {"address": target[0], "source": probe.getsockname()[0]}
        except OSError as error:
            reasons.append("%s: %s" % (name, error.strerror or error))
    return {"reason": "; ".join(reasons) or "no address is known"}


def read(*path):
    try:
        with open(os.path.join(*path), encoding="ascii") as stream:
            return stream.read().strip()
    except (OSError, ValueError):
        return ""


def rdma_ports(root="/sys/class/infiniband"):
    found = []
    for port in sorted(glob.glob(root + "/*/ports/*")):
        found.append(
            {
                "name": port.split("/")[-3],
                "link_layer": read(port, "link_layer"),
                "state": read(port, "state").partition(": ")[2],
                "interface": read(port, "gid_attrs/ndevs/0"),
            }
        )
    return found


def main():
    module = RedactingModule(argument_spec={"peers": {"type": "dict", "default": {}}}, supports_check_mode=True)
    program = module.get_bin_path("ip", required=True, opt_dirs=["/sbin", "/usr/sbin"])
    output = module.run_command([program, "-j", "-d", "address", "show"], check_rc=True)[1]
    module.exit_json(
        changed=False,
        interfaces=parse_interfaces(output),
        routes={peer: way_to(names) for peer, names in module.params["peers"].items()},
        rdma=rdma_ports(),
    )


if __name__ == "__main__":
    main()
