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
  - Serves the files of a model's directory over HTTP until it is told to stop, to those who send the token.
  - Only files that the directory's manifest names are served. The directory may be published while the share runs.
  - It blocks as long as it serves, so it is started with C(async) and C(poll=0) and ended with C(POST /stop).
    C(GET /) answers 204 as soon as the model is offered.
  - Where a share of the same account has the port already, that one offers this model as well, and the task ends.
    So two plays do not disturb each other, and a share that a killed play left is no obstacle.
  - The traffic is not encrypted. It belongs on the private network of the hosts.
options:
  directory:
    description: The model's directory, as in M(inferops.gpu_host.model_snapshot).
    type: path
    required: true
  address:
    description: Address to listen on.
    type: str
    default: 0.0.0.0
  port:
    description: Port to listen on.
    type: int
    required: true
  token:
    description: What the others send as bearer token.
    type: str
    required: true
  timeout:
    description: Seconds after which the share ends in any case.
    type: int
    default: 86400
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

- name: End the share
  ansible.builtin.uri:
    url: http://127.0.0.1:8909/stop
    method: POST
    headers:
      Authorization: "Bearer {{ share_token }}"
    status_code: 204
"""

RETURN = r"""
bytes_sent:
  description: Bytes that went to other hosts.
  type: int
  returned: when it has served
"""

from pathlib import Path

from ansible_collections.inferops.gpu_host.plugins.module_utils._model_share import share
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule


def main():
    module = RedactingModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "address": {"type": "str", "default": "0.0.0.0"},
            "port": {"type": "int", "required": True},
            "token": {"type": "str", "required": True, "no_log": True},
            "timeout": {"type": "int", "default": 86400},
            "limit_rate": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    args = module.params
    if module.check_mode:
        module.exit_json(changed=False)
    secret = str(Path.home() / ".cache" / "inferops" / f"model-share-{args['port']}")
    try:
        server = share(
            (args["address"], args["port"]),
            args["token"],
            args["directory"],
            args["limit_rate"],
            args["timeout"],
            secret,
        )
    except OSError as error:
        module.fail_json(
            msg=f"cannot listen on {args['address']}:{args['port']}: {error.strerror}; choose another port"
        )
    if server is None:
        module.exit_json(changed=False, bytes_sent=0)
    server.run()
    module.exit_json(changed=False, bytes_sent=server.bytes_sent)


if __name__ == "__main__":
    main()
