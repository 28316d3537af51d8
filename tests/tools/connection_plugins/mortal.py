"""A local connection that is lost after so many modules: to its host it is as if the play had been killed there."""

from __future__ import annotations

import re
from pathlib import Path

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local

DOCUMENTATION = """
name: mortal
short_description: A local connection that is lost after so many modules
description: The file C(lives) beside the interpreter says how many it still carries; without it there is no end.
author: "The inferops.gpu_host maintainers (@inferops)"
extends_documentation_fragment: [connection_pipelining]
options: {}
"""


class Connection(Local):
    transport = "mortal"

    def exec_command(self, cmd, in_data=None, sudoable=True):
        interpreter = re.search(r"(/\S+)/python\b", cmd)
        lives = Path(interpreter.group(1)) / "lives" if interpreter else None
        if lives and lives.exists():
            left = int(lives.read_text())
            if not left:
                raise AnsibleConnectionFailure("the play was killed here")
            lives.write_text(str(left - 1))
        return super().exec_command(cmd, in_data, sudoable)
