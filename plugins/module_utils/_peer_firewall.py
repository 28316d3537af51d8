# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Closing the ports by which hosts serve together to everyone but these hosts: records of groups → a table of nftables.

The table is ours alone. It only ever drops, so whatever else filters on the host goes on filtering.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re

FAMILY, TABLE = "inet", "inferops"
_PORTS = re.compile(r"^(\d{1,5})(?:-(\d{1,5}))?$")
# ::1, and 127.0.0.1 as IPv6 writes it; the kernel writes each four bytes the other way round.
_LOOPBACK = ("00000000000000000000000001000000", "0000000000000000FFFF00000100007F")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")


class FirewallError(ValueError):
    """A group that cannot be closed as it is described."""


def record(group):
    """What is kept of a group on its hosts: {name, service, peers, ports}, checked."""
    if not isinstance(group, dict):
        raise FirewallError("a group is %r, wanted a mapping with name, peers and ports" % (group,))
    name = str(group.get("name"))
    if not _NAME.match(name):
        raise FirewallError("the group %r has a name that cannot be a file's" % name)
    try:
        peers = sorted({ipaddress.ip_address(str(address)) for address in group.get("peers") or []}, key=_order)
    except ValueError as error:
        raise FirewallError("group %s: %s" % (name, error)) from error
    if not peers:
        raise FirewallError("group %s has no peers: nobody could reach its ports" % name)
    return {
        "name": name,
        "service": str(group.get("service") or name),
        "peers": [str(address) for address in peers],
        "ports": ["%d-%d" % one if one[0] != one[1] else str(one[0]) for one in _merged(group.get("ports") or [])],
    }


def _order(address):
    return address.version, int(address)


def _merged(ports):
    """Numbers and ranges as (first, last), sorted, without overlaps."""
    found = []
    for first, last in sorted(_range(one) for one in ports):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def _range(text):
    match = _PORTS.match(str(text))
    first, last = (int(match.group(1)), int(match.group(2) or match.group(1))) if match else (0, 0)
    if not 0 < first <= last <= 65535:
        raise FirewallError("%r is no port and no range of ports such as 11000-11999" % (text,))
    return first, last


def kept(records, groups, services):
    """The records of a host after a run that knew `groups`, and knew of all `services` whether they are groups here.

    What the run knew nothing of stays as it is.
    """
    found = {one["name"]: one for one in records if one["service"] not in services}
    found.update({one["name"]: one for one in (record(group) for group in groups) if one["ports"]})
    return [found[name] for name in sorted(found)]


def ruleset(records, dynamic, left_open=()):
    """What `nft --file` reads; '' without records. It replaces the whole table at once.

    dynamic: the range from which the kernel chooses ports, as NCCL, Gloo and ZeroMQ let it.
    left_open: ports in there that programs of others listen on.
    """
    if not records:
        return ""
    lines, own, closed = [], [], []
    for one in records:
        ports = [*one["ports"], dynamic]
        closed += ports
        own += one["ports"]
        for family, addresses in _by_family(one["peers"]):
            lines.append("%s saddr { %s } tcp dport { %s } accept" % (family, ", ".join(addresses), _said(ports)))
    if left_open:
        lines.append("tcp dport { %s } accept" % _said(left_open))
    published = [
        "%s saddr { %s } ct status dnat meta l4proto tcp ct original proto-dst { %s } accept"
        % (family, ", ".join(addresses), _said(one["ports"]))
        for one in records
        for family, addresses in _by_family(one["peers"])
    ]
    text = """\
# Ports by which hosts serve together, closed to all others. Written by the role inferops.gpu_host.peers.
table {family} {table}
delete table {family} {table}
table {family} {table} {{
\tchain input {{
\t\ttype filter hook input priority -10; policy accept;
\t\tiifname "lo" accept
\t\tct state established,related accept
\t\t{accepted}
\t\ttcp dport {{ {closed} }} counter drop comment "{digest}"
\t}}
\tchain forward {{
\t\ttype filter hook forward priority -10; policy accept;
\t\tct state established,related accept
\t\t{published}
\t\tct status dnat meta l4proto tcp ct original proto-dst {{ {own} }} counter drop
\t}}
}}
""".replace("{family}", FAMILY).replace("{table}", TABLE)
    parts = {
        "accepted": "\n\t\t".join(lines),
        "closed": _said(closed),
        "own": _said(own),
        "published": "\n\t\t".join(published),
    }
    digest = hashlib.sha256(repr(sorted(parts.items())).encode()).hexdigest()[:16]
    return text.format(digest=digest, **parts)


def _by_family(addresses):
    four = [address for address in addresses if ":" not in address]
    six = [address for address in addresses if ":" in address]
    return [(family, found) for family, found in (("ip", four), ("ip6", six)) if found]


def _said(ports):
    return ", ".join("%d-%d" % (first, last) if first != last else str(first) for first, last in _merged(list(ports)))


def digest_of(text):
    """The mark by which a loaded table is known as the one of this ruleset; None in what is none of ours."""
    match = re.search(r'comment "([0-9a-f]{16})"', text or "")
    return match.group(1) if match else None


# What others listen on


def listening(table):
    """{port: inode} of the sockets in /proc/net/tcp or /proc/net/tcp6 that listen on more than loopback."""
    found = {}
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != "0A":
            continue
        address, _colon, port = fields[1].rpartition(":")
        if address not in _LOOPBACK and not (len(address) == 8 and address.endswith("7F")):
            found[int(port, 16)] = fields[9]
    return found


def within(ports, dynamic):
    """Those of the ports that lie in the range."""
    first, last = _range(dynamic)
    return sorted(port for port in ports if first <= port <= last)


def range_of_kernel(text):
    """'32768-60999' of the content of ip_local_port_range; the kernel's default where that cannot be read."""
    words = (text or "").split()
    return "-".join(words) if len(words) == 2 and all(word.isdigit() for word in words) else "32768-60999"
