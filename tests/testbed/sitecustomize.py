"""Keeps compiled Ansible modules on the hosts of the test bed; see tests/bin/testbed-image.

Ansible sends a module as source in a zip file, and Python compiles all of it again for every task, which is half of
what a task costs. Here the compiled code is kept, by content: the same source gives the same code.
"""

import _imp
import marshal
import os
import zipimport

DIRECTORY = "/var/cache/test-bed-bytecode"
compile_source = zipimport._compile_source


def kept_or_compiled(path, source):
    name = f"{DIRECTORY}/{_imp.source_hash(1, source).hex()}"
    try:
        with open(name, "rb") as stream:
            return marshal.loads(stream.read())
    except (OSError, ValueError, EOFError, TypeError):
        code = compile_source(path, source)
    try:
        os.makedirs(DIRECTORY, exist_ok=True)
        with open(f"{name}.{os.getpid()}", "wb") as stream:
            stream.write(marshal.dumps(code))
        os.replace(f"{name}.{os.getpid()}", name)
    except OSError:
        pass  # an account without rights, or a disk that a test has filled
    return code


zipimport._compile_source = kept_or_compiled
