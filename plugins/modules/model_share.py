#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: model_share
short_description: Offer a published model to other hosts for a while
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Serves the files of a model's directory over HTTP to hosts that prove that they know the secret of these copies.
    It proves the same to them, so that another program that has the port is not believed.
  - Only files that the directory's manifest names are served. The directory may be published while the share runs.
  - It blocks as long as it serves, so it is started with C(async) and C(poll=0), awaited with O(state=answering)
    and ended with O(state=stopped). It ends by itself when no receiver has asked for anything for O(idle_timeout),
    so also when a play was killed.
  - Where a share of the same account has the port already, that one offers this model as well, and the task ends.
    So two plays do not disturb each other, and a share that a killed play left is no obstacle.
  - The traffic is not encrypted. It belongs on the private network of the hosts.
options:
  state:
    description:
      - V(started) offers the model and blocks as long as it does.
      - V(answering) waits until a share of this account offers it, and fails when there is none.
      - V(stopped) ends the offer.
    type: str
    choices: [started, answering, stopped]
    default: started
  directory:
    description: The model's directory, as in M(inferops.gpu_host.model_snapshot). Required with O(state=started).
    type: path
  address:
    description: Address to listen on.
    type: str
    default: 0.0.0.0
  port:
    description: Port to listen on.
    type: int
    required: true
  token:
    description: The secret of these copies. It never goes over the network.
    type: str
    required: true
  timeout:
    description: Seconds after which the share ends in any case; with O(state=answering), seconds to wait.
    type: int
    default: 86400
  idle_timeout:
    description:
      - Seconds after which it ends when no receiver has asked for anything. Receivers that wait ask once a minute.
    type: int
    default: 300
  limit_rate:
    description: Bytes per second of each connection; V(0) is without limit.
    type: int
    default: 0
extends_documentation_fragment:
  - inferops.gpu_host.attributes
attributes:
  check_mode:
    support: full
    details: Nothing is served then.
  diff_mode:
    support: none
    details: There is nothing to compare.
"""

EXAMPLES = r"""
- name: Offer the model to the other hosts
  inferops.gpu_host.model_share:
    directory: /data/models/Qwen/Qwen2.5-7B-Instruct
    port: 8909
    token: "{{ share_token }}"
  async: 86400
  poll: 0

- name: Wait until it is offered
  inferops.gpu_host.model_share:
    state: answering
    port: 8909
    token: "{{ share_token }}"
    timeout: 30

- name: End the share
  inferops.gpu_host.model_share:
    state: stopped
    port: 8909
    token: "{{ share_token }}"
"""

RETURN = r"""
bytes_sent:
  description: Bytes that went to other hosts.
  type: int
  returned: when it has served
"""

import os
import pwd
import time

from ansible_collections.inferops.gpu_host.plugins.module_utils._model_files import NotAFile
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_share import Offer
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_share_control import (
    control_path,
    is_offered,
    share,
    stop,
)
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule


def start(module, control):
    """Offer the model until the offer has ended."""
    args = module.params
    offer = Offer(args["token"], args["directory"], args["limit_rate"], args["timeout"], args["idle_timeout"])
    try:
        server = share((args["address"], args["port"]), offer, control)
    except OSError as error:
        module.fail_json(
            msg=f"cannot listen on {args['address']}:{args['port']}: {error.strerror}; choose another port"
        )
    if server is None:
        module.exit_json(changed=False, bytes_sent=0)
    server.run()
    module.exit_json(changed=False, bytes_sent=server.bytes_sent)


def wait(module, control):
    """Wait until the model is offered."""
    deadline = time.monotonic() + module.params["timeout"]
    while not is_offered(control, module.params["token"]):
        if time.monotonic() > deadline:
            module.fail_json(
                msg=f"no share of this play answers at port {module.params['port']}: another program has the port, "
                "or the share could not start; choose another port"
            )
        time.sleep(0.1)


def main():
    module = RedactingModule(
        argument_spec={
            "state": {"type": "str", "choices": ["started", "answering", "stopped"], "default": "started"},
            "directory": {"type": "path"},
            "address": {"type": "str", "default": "0.0.0.0"},
            "port": {"type": "int", "required": True},
            "token": {"type": "str", "required": True, "no_log": True},
            "timeout": {"type": "int", "default": 86400},
            "idle_timeout": {"type": "int", "default": 300},
            "limit_rate": {"type": "int", "default": 0},
        },
        required_if=[("state", "started", ["directory"])],
        supports_check_mode=True,
    )
    args = module.params
    if module.check_mode:
        module.exit_json(changed=False)
    try:
        home = pwd.getpwuid(os.geteuid()).pw_dir  # the account's own, which HOME may not be after a change of accounts
        control = control_path(os.path.join(home, ".cache/inferops/shares"), args["port"])
    except NotAFile as error:
        module.fail_json(msg=f"~/.cache/inferops/shares {error}: remove it")
    if args["state"] == "started":
        start(module, control)
    elif args["state"] == "answering":
        wait(module, control)
    else:
        stop(control, args["token"])
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
