# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one host's part of a service that several hosts serve, and ties the parts together.

    INFEROPS_GROUP_TOKEN=T group_member.py --name NAME --rank N --members ADDRESS,ADDRESS… --port P -- COMMAND…

The member of rank 0 starts COMMAND when all the others are there, and they start theirs at its word. From then on they
hold on to each other: when one ends, vanishes or starts anew, all end with an error, and the container engine's restart
policy brings all of them back. Without this the head would answer /health for ever after a worker had died.

Runs inside the engine's image: Python 3.8, standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import hmac
import os
import select
import signal
import socket
import subprocess
import sys
import time

MARK = "/tmp/group-member-runs"  # health checks of workers look for it
TELL_EVERY = 20  # seconds between two lines while waiting
LAST_WISH = 5  # seconds that the command has to end by itself once the group is broken


class Broken(Exception):
    """The group cannot go on; all its members start anew."""


def tell(text, level="INFO"):
    """As vLLM would say it, so that whoever reads its log reads this too."""
    print("%s %s [group_member.py:1] %s" % (level, time.strftime("%m-%d %H:%M:%S"), text), flush=True)


def keep_alive(connection):
    """A host that lost its power or its cable is found after half a minute."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 30000)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def read_line(connection):
    """A short line, or '' when the other side closed or did not finish it within 5 seconds."""
    deadline, line = time.monotonic() + 5, b""
    with contextlib.suppress(OSError):
        while not line.endswith(b"\n") and len(line) < 500:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            byte = connection.recv(1)
            if not byte:
                return ""
            line += byte
    return line.decode("utf-8", "replace").strip() if line.endswith(b"\n") else ""


class Reminder:
    """Tells why nothing happens, at once and then now and again."""

    def __init__(self):
        self.told = {}

    def __call__(self, text):
        if time.monotonic() >= self.told.get(text, 0) + TELL_EVERY or text not in self.told:
            tell(text)
            self.told[text] = time.monotonic()


class Head:
    def __init__(self, options):
        self.options = options
        self.connections = {}
        self.listener = socket.socket(family_of(options.members[0]), socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((options.members[0], options.port))
        self.listener.listen(16)

    def gather(self):
        remind = Reminder()
        while True:
            missing = [rank for rank in range(1, len(self.options.members)) if rank not in self.connections]
            if not missing:
                break
            told = ", ".join("%s (rank %d)" % (self.options.members[rank], rank) for rank in missing)
            remind("%s waits for %s" % (self.options.name, told))
            for ready in select.select([self.listener, *self.connections.values()], [], [], 1)[0]:
                if ready is self.listener:
                    self.welcome()
                else:
                    self.forget(ready)
        for connection in self.connections.values():
            connection.sendall(b"go\n")
        tell("%s: all %d members are there" % (self.options.name, len(self.options.members)))

    def welcome(self):
        """The rank of a newcomer, or None for one that does not belong here."""
        connection, address = self.listener.accept()
        words = read_line(connection).split()
        ranks = [str(rank) for rank in range(1, len(self.options.members))]
        if len(words) != 3 or words[0] != self.options.name or words[2] not in ranks:
            connection.close()
            return None
        rank = int(words[2])
        if not hmac.compare_digest(words[1].encode(), self.options.token.encode()):
            tell("rank %d at %s was started with other options and has to wait" % (rank, address[0]))
            with contextlib.suppress(OSError):
                connection.sendall(b"the head was started with other options\n")
            connection.close()
            return None
        if rank in self.connections:
            self.forget(self.connections[rank])
        keep_alive(connection)
        self.connections[rank] = connection
        return rank

    def forget(self, connection):
        for rank in [rank for rank, known in self.connections.items() if known is connection]:
            del self.connections[rank]
        connection.close()

    def sockets(self):
        return [self.listener, *self.connections.values()]

    def heard(self, ready):
        if ready is self.listener:
            rank = self.welcome()
            if rank is not None:
                raise Broken("rank %d at %s has started anew" % (rank, self.options.members[rank]))
            return
        rank = next(rank for rank, known in self.connections.items() if known is ready)
        raise Broken("rank %d at %s is gone" % (rank, self.options.members[rank]))


class Worker:
    def __init__(self, options):
        self.options = options
        self.connection = None

    def gather(self):
        remind = Reminder()
        head = (self.options.members[0], self.options.port)
        while True:
            answer = None
            try:
                self.connection = socket.create_connection(head, 5)
                keep_alive(self.connection)
                self.connection.sendall(
                    ("%s %s %d\n" % (self.options.name, self.options.token, self.options.rank)).encode()
                )
                remind("%s waits for the word of the head at %s" % (self.options.name, head[0]))
                select.select([self.connection], [], [])
                answer = read_line(self.connection)
                if answer == "go":
                    return
                remind("the head at %s says: %s" % (head[0], answer or "nothing"))
            except OSError as error:
                remind("%s waits for the head at %s:%d: %s" % (self.options.name, *head, error))
            if self.connection:
                self.connection.close()
            time.sleep(1)

    def sockets(self):
        return [self.connection]

    def heard(self, ready):
        raise Broken("the head at %s is gone" % self.options.members[0])


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def exit_code(status):
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def run(member, command):
    """The exit code of the command; raises Broken when the group breaks before it ends."""
    child = subprocess.Popen(command)
    asked_to_stop = []

    def stop(number, _frame):
        asked_to_stop.append(number)
        child.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with open(MARK, "w"):
        pass
    try:
        while True:
            # Process 1 of a container inherits what others leave behind.
            with contextlib.suppress(ChildProcessError):
                pid = True
                while pid:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                    if pid == child.pid:
                        return exit_code(status)
            ready = select.select([] if asked_to_stop else member.sockets(), [], [], 0.5)[0]
            for one in ready:
                member.heard(one)
    except Broken:
        child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + LAST_WISH
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        if child.poll() is None:
            child.kill()
        raise
    finally:
        with contextlib.suppress(OSError):
            os.unlink(MARK)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--members", type=lambda text: text.split(","), required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    # No argument: everyone on the host can read those. The command has no use for it.
    options.token = os.environ.pop("INFEROPS_GROUP_TOKEN", "")
    if not options.token:
        parser.error("INFEROPS_GROUP_TOKEN is not set")
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    with contextlib.suppress(OSError):
        os.unlink(MARK)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))  # as process 1 it would be ignored
    member = Head(options) if options.rank == 0 else Worker(options)
    member.gather()
    try:
        code = run(member, command)
    except Broken as reason:
        tell("%s: %s; the whole group starts anew" % (options.name, reason), "ERROR")
        return 75
    tell("%s: %s ended with code %d" % (options.name, command[0], code))
    return code


if __name__ == "__main__":
    sys.exit(main())
