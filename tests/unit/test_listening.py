from __future__ import annotations

import os
import socket

from ansible_collections.inferops.gpu_host.plugins.module_utils._listening import listeners, listening_sockets

IPV4 = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11101 1 0000000000000000 100 0 0 10 0
   1: 0100007F:0050 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 11102 1 0000000000000000 20 4 30 10 -1
"""
IPV6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 22201 1 0000000000000000 100 0 0 10 0
"""


def test_only_listening_sockets_count():
    assert listening_sockets(IPV4) == {8000: "11101"}


def test_ipv6_addresses_are_longer_but_end_in_the_port():
    assert listening_sockets(IPV6) == {22: "22201"}


def test_an_empty_table_has_no_sockets():
    assert listening_sockets(IPV4.splitlines()[0] + "\n") == {}


def test_the_process_that_listens_is_found():
    with socket.create_server(("127.0.0.1", 0)) as server:
        owner = listeners()[server.getsockname()[1]]
    assert owner["pid"] == os.getpid()
    assert owner["process"]
