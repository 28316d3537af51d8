#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: inference_check
short_description: Prove that an inference endpoint answers as a client expects
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Talks to any OpenAI-compatible endpoint as a client does and judges the answers, not only the status codes.
    A broken deployment can answer 200 on C(/health) and die on the first request; only a completion proves it.
  - Every type is asked for its list of models, its C(/docs) and C(/metrics) pages, and, with O(api_key), whether every
    guarded route refuses a missing and a wrong key.
  - Then every route of the served OpenAPI document, and of what vLLM's version is known to have, is judged. Routes that
    do the model's work are asked without a key, with a body that cannot be parsed. Routes that change the engine are
    never asked.
  - V(chat) is asked for a joke in one piece, streamed, and as a plain completion, and must end by length and by
    stop string. V(completion) is the same without the chat. V(vision) is V(chat), and names the colour of a picture.
    V(embedding) must give finite vectors of one length, related texts closer than unrelated ones.
    V(rerank) must put the related document first.
  - It changes nothing, so it also runs in check mode. It does not wait for a starting server; use C(until) for that.
extends_documentation_fragment:
  - inferops.gpu_host.attributes
  - inferops.gpu_host.attributes.info_module
options:
  endpoint:
    description: Base URL, with or without C(/v1) at its end.
    type: str
    required: true
  model:
    description: The served name. Without it, the first model that the endpoint lists.
    type: str
  type:
    description: What the model does.
    type: str
    choices: [chat, completion, embedding, rerank, vision]
    default: chat
  api_key:
    description: The key, sent as C(Authorization) header of type C(Bearer). It never appears in the result.
    type: str
  semantic:
    description:
      - Also judge the meaning of the answers.
      - V(false) for models with random weights, whose jokes, vectors and orders mean nothing.
    type: bool
    default: true
  max_tokens:
    description: How long the joke may be.
    type: int
    default: 100
  dimension:
    description: The length that embeddings must have.
    type: int
  brief:
    description: Only whether it does its work at all. The list of models and one answer of its O(type).
    type: bool
    default: false
  exposed:
    description:
      - Whether others than its own host reach the endpoint. By default, whether O(endpoint) is no address of loopback.
      - Routes that do work or change the engine without the key are an error then, unless O(open_routes) accepts them.
    type: bool
  open_routes:
    description: What such routes are where others reach them. V(accept) makes a note of them.
    type: str
    choices: [refuse, accept]
    default: refuse
  fail_on:
    description: The least severe failed check that fails the task.
    type: str
    choices: [error, warning, never]
    default: error
  timeout:
    description: Seconds without a byte after which a request is given up.
    type: int
    default: 60
  validate_certs:
    description: Whether an C(https) endpoint must show a valid certificate.
    type: bool
    default: true
  ca_path:
    description: A file with the certificates of the authority that signed the endpoint's certificate.
    type: path
  use_proxy:
    description: Whether the proxy variables of the environment count. Serving hosts are usually reached directly.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Prove a chat model
  inferops.gpu_host.inference_check:
    endpoint: http://127.0.0.1:8000
    model: qwen2.5-7b-instruct
    api_key: "{{ inference_api_key }}"

- name: Prove an embedding model, strictly
  inferops.gpu_host.inference_check:
    endpoint: http://gpu1:8003/v1
    type: embedding
    dimension: 1024
    fail_on: warning

- name: Report on an endpoint of somebody else, whatever it answers
  inferops.gpu_host.inference_check:
    endpoint: https://models.example.com
    api_key: "{{ example_api_key }}"
    fail_on: never
"""

RETURN = r"""
ok:
  description: Whether no check of severity C(error) failed.
  returned: always
  type: bool
endpoint:
  description: The base URL that an OpenAI client wants, C(/v1) included.
  returned: always
  type: str
  sample: http://127.0.0.1:8000/v1
model:
  description: The served name that was asked.
  returned: always
  type: str
  sample: qwen2.5-7b-instruct
type:
  description: The O(type) that was checked.
  returned: always
  type: str
  sample: chat
checks:
  description: Every check, in the order made.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The name of the check.
      type: str
    ok:
      description: Whether it passed.
      type: bool
    severity:
      description: What it means when it did not pass, C(error), C(warning) or C(info).
      type: str
    detail:
      description: What was found.
      type: str
  sample: [{name: chat, ok: true, severity: error, detail: "100 tokens in 0.71 s: Why did the GPU cross the bus?"}]
errors:
  description: Names of the failed checks of severity C(error).
  returned: always
  type: list
  elements: str
  sample: []
doubts:
  description: Names of the failed checks of severity C(warning).
  returned: always
  type: list
  elements: str
  sample: [unguarded_routes]
unasked:
  description: Checks that could not be made or were not wanted, each with C(name) and C(reason).
  returned: always
  type: list
  elements: dict
  sample: [{name: rerank_order, reason: semantic is false}]
figures:
  description:
    - What was measured. C(max_model_len), C(engine_version), C(embedding_dimension) belong to the endpoint;
      C(time_to_first_token_seconds) and C(tokens_per_second) of a single request are for information and always differ.
  returned: always
  type: dict
  sample: {max_model_len: 32768, engine_version: 0.26.0, time_to_first_token_seconds: 0.041, tokens_per_second: 143.2}
summary:
  description: The result as lines that a person reads.
  returned: always
  type: list
  elements: str
  sample: ["qwen2.5-7b-instruct (chat) at http://127.0.0.1:8000/v1", "  ok    models               qwen2.5-7b-instruct"]
"""

from urllib.parse import urlsplit

from ansible_collections.inferops.gpu_host.plugins.module_utils import _inference_check
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule
from ansible_collections.inferops.gpu_host.plugins.module_utils._service_values import is_loopback


def main():
    module = RedactingModule(
        argument_spec={
            "endpoint": {"type": "str", "required": True},
            "model": {"type": "str"},
            "type": {"type": "str", "choices": list(_inference_check.TYPES), "default": "chat"},
            "api_key": {"type": "str", "no_log": True},
            "semantic": {"type": "bool", "default": True},
            "max_tokens": {"type": "int", "default": 100, "no_log": False},
            "dimension": {"type": "int"},
            "brief": {"type": "bool", "default": False},
            "exposed": {"type": "bool"},
            "open_routes": {"type": "str", "choices": ["refuse", "accept"], "default": "refuse"},
            "fail_on": {"type": "str", "choices": ["error", "warning", "never"], "default": "error"},
            "timeout": {"type": "int", "default": 60},
            "validate_certs": {"type": "bool", "default": True},
            "ca_path": {"type": "path"},
            "use_proxy": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = dict(module.params)
    fail_on = params.pop("fail_on")
    names = ("model", "type", "semantic", "max_tokens", "dimension", "brief", "exposed", "open_routes")
    wanted = {name: params.pop(name) for name in names}
    if wanted["exposed"] is None:
        wanted["exposed"] = not is_loopback(urlsplit(params["endpoint"]).hostname or "")
    found = _inference_check.check(_inference_check.Endpoint(params.pop("endpoint"), **params), **wanted)
    result = dict(found, changed=False, summary=_inference_check.summary(found))

    fatal = {"error": found["errors"], "warning": found["errors"] + found["doubts"], "never": []}[fail_on]
    if fatal:
        details = "; ".join(
            f"{check['name']}: {check['detail']}" for check in found["checks"] if check["name"] in fatal
        )
        module.fail_json(msg=f"{found['endpoint']} does not do what a client expects. {details}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
