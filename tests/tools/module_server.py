#!/usr/bin/env python3
"""Runs Ansible's modules in forks of one process that has imported everything already, so that plays in tests are fast.

Without it most of a task's time goes into starting Python and importing the same things again. The play's
`ansible_python_interpreter` is a client (see interpreter) that hands its files, environment and arguments to the server
and ends as the fork ends. A module runs as it would otherwise: the same payload, a process of its own, its own
environment.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path

CLIENT = """#!{python} -IS
import array, json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({path!r})
    what = json.dumps([sys.argv[1:], {environment!r} | dict(os.environ), os.getcwd()]).encode()
    files = array.array("i", [0, 1, 2])
    server.sendmsg([len(what).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
    server.sendall(what)
    sys.exit(server.recv(1)[0])
"""

PRELOADED = """
    ansible.module_utils.basic ansible.module_utils.common.respawn ansible.module_utils.urls
    ansible.module_utils.facts ansible.module_utils._internal._ansiballz
    ansible.modules.file ansible.modules.copy ansible.modules.stat ansible.modules.slurp ansible.modules.find
    ansible.modules.command
    ansible_collections.community.docker.plugins.module_utils.common_api
    ansible_collections.community.docker.plugins.module_utils.module_container.docker_api
    ansible_collections.community.docker.plugins.module_utils.module_container.module
    ansible_collections.inferops.gpu_host.plugins.module_utils._docker_host
    ansible_collections.inferops.gpu_host.plugins.module_utils._inference_check
    ansible_collections.inferops.gpu_host.plugins.module_utils._engine_log
    ansible_collections.inferops.gpu_host.plugins.module_utils._metrics
    ansible_collections.inferops.gpu_host.plugins.module_utils._listening
    ansible_collections.inferops.gpu_host.plugins.module_utils._vllm_config_check
    ansible_collections.inferops.gpu_host.plugins.module_utils._container_state
    ansible_collections.inferops.gpu_host.plugins.module_utils._model_share_control
    ansible_collections.inferops.gpu_host.plugins.module_utils._model_share_source
    glob tarfile selectors tempfile zipfile runpy requests
""".split()


def interpreter(directory, path, name="python", environment=None):
    """A file in `directory` that stands for a Python of modules; environment: what its modules find set besides."""
    client = Path(directory) / name
    client.write_text(CLIENT.format(python=sys.executable, path=str(path), environment=environment or {}))
    client.chmod(0o755)
    return str(client)


def serve(path):
    for name in PRELOADED:
        try:
            __import__(name)
        except ImportError as error:
            print("not imported:", name, error, file=sys.stderr)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)
        print("ready", flush=True)
        while True:
            connection, _address = listener.accept()
            if os.fork():
                connection.close()
                _reap()
                continue
            listener.close()
            _run(connection)


def _reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _run(connection):
    """In a fork: another one becomes the module, this one tells the client how it ended."""
    size, ancillary, _flags, _address = connection.recvmsg(4, socket.CMSG_SPACE(3 * 4))
    files = array.array("i", ancillary[0][2])
    what = b""
    while len(what) < int.from_bytes(size, "big"):
        what += connection.recv(1 << 16)
    arguments, environment, directory = json.loads(what)
    child = os.fork()
    if not child:
        connection.close()
        for target, file in enumerate(files):
            os.dup2(file, target)
            os.close(file)
        os.chdir(directory)
        os.environ.clear()
        os.environ.update(environment)
        _become(arguments)
    for file in files:
        os.close(file)
    # A client that is killed takes its module along, as a terminal would.
    threading.Thread(target=_end_with, args=(connection, child), daemon=True).start()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(bytes([status if status >= 0 else 128 - status]))
    os._exit(0)


def _end_with(connection, child):
    try:
        if not connection.recv(1):
            os.kill(child, signal.SIGKILL)
    except OSError:
        pass


def _become(arguments):
    status = 0
    try:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  they live as long as the module
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        if arguments[:1] == ["-c"]:
            source, name, sys.argv = arguments[1], "<string>", ["-c", *arguments[2:]]
        elif arguments:
            source, name, sys.argv = Path(arguments[0]).read_text(), arguments[0], arguments
        else:
            source, name, sys.argv = sys.stdin.read(), "<stdin>", [""]
        main = sys.modules["__main__"]
        main.__dict__.update(__file__=name)
        exec(compile(source, name, "exec"), main.__dict__)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status & 255)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
    import conftest  # noqa: F401  so that the collections are found

    serve(sys.argv[1])
