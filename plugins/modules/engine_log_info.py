#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_log_info
short_description: Read from vLLM's log how far it is, what it allocated, or why it failed
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Reads the log of a container, a file, or a text. Of several starts in one log, the last one counts; in a crash loop
    the failure of the start before is reported.
  - With O(estimate), compares what the plan predicted with what the engine allocated.
extends_documentation_fragment:
  - inferops.gpu_host.attributes
  - inferops.gpu_host.attributes.info_module
options:
  container:
    description: Name of a container whose log is read with C(docker logs).
    type: str
  path:
    description: A file with the log.
    type: path
  log:
    description: The log itself.
    type: str
  exit_code:
    description: How the process ended, if it did. With O(container), it is looked up.
    type: int
  lines:
    description: How much of the container's log is read, from its end.
    type: int
    default: 5000
  estimate:
    description: The C(estimate) of the service in C(inference_plan).
    type: dict
  tolerance:
    description:
      - How far predicted and actual may be apart. Sizes as a share of the rank's budget, tokens and concurrency as a
        share of the prediction.
    type: float
    default: 0.05
"""

EXAMPLES = r"""
- name: See how far a start has come
  inferops.gpu_host.engine_log_info:
    container: qwen2.5-7b-instruct
  register: engine

- name: Fail with the reason
  ansible.builtin.fail:
    msg: "{{ engine.failure.message }}. {{ engine.failure.advice }} ({{ engine.failure.evidence }})"
  when: engine.failure is not none

- name: Compare with the plan
  inferops.gpu_host.engine_log_info:
    container: qwen2.5-7b-instruct
    estimate: "{{ plan.estimate }}"
"""

RETURN = r"""
transport:
  description: >-
    How NCCL crosses hosts, C(network) such as V(IB) or V(Socket), C(gpu_direct) and C(text).
    Only with V(NCCL_DEBUG=INFO), which services on several hosts have.
  returned: when the log says it
  type: dict
progress:
  description: How far the last start has come.
  returned: always
  type: dict
  contains:
    phase:
      description: C(created), C(starting), C(loading), C(profiling), C(compiling), C(allocating), C(capturing),
        C(warming_up) or C(ready).
      type: str
    done:
      description: Shards loaded or graphs captured so far.
      type: int
    total:
      description: All shards or graphs.
      type: int
    text:
      description: The same for a person.
      type: str
  sample: {phase: loading, done: 3, total: 8, text: "loading weights, 3 of 8"}
allocated:
  description: What the engine says it allocated. Sizes in bytes.
  returned: always
  type: dict
  contains:
    version:
      description: Version of the engine.
      type: str
    ranks:
      description: For each rank C(rank), C(weights), C(kv_cache), C(activation), C(non_torch), C(cuda_graphs),
        C(gpu_total), C(gpu_free), as far as the log tells.
      type: list
      elements: dict
    kv_cache_tokens:
      description: Tokens in the KV cache.
      type: int
    max_concurrency:
      description: Requests of C(max_model_len) tokens at once.
      type: float
    max_model_len:
      description: The longest request.
      type: int
    seconds:
      description: How long C(load), C(compile), C(cuda_graphs) and C(initialize) took.
      type: dict
failure:
  description: Why the start failed, or nothing.
  returned: always
  type: dict
  contains:
    cause:
      description: One word for it, such as C(kv_cache_too_small); C(unknown) for an exception that is not known here.
      type: str
    message:
      description: What happened.
      type: str
    evidence:
      description: The line of the log that shows it.
      type: str
    variable:
      description: The variable to change.
      type: str
    advice:
      description: What to change it to.
      type: str
    phase:
      description: The phase in which it happened.
      type: str
    numbers:
      description: The figures of the message.
      type: list
      elements: str
comparison:
  description: Predicted against actual; only with O(estimate).
  returned: with O(estimate)
  type: dict
  contains:
    terms:
      description: Each with C(name), C(predicted), C(actual), C(difference) and C(within).
      type: list
      elements: dict
    within:
      description: Whether all terms are within O(tolerance).
      type: bool
    advice:
      description: A line for each term that is not.
      type: list
      elements: str
    table:
      description: The terms as lines that a person reads.
      type: list
      elements: str
"""

from ansible_collections.inferops.gpu_host.plugins.module_utils import _bounded_command, _engine_log
from ansible_collections.inferops.gpu_host.plugins.module_utils._redacting_module import RedactingModule
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import (
    UntrustedError,
    printable,
    read_file,
)


def _docker(module, *arguments):
    """What a docker command says; a container decides how much that is."""
    answer = _bounded_command.run(["docker", *arguments], seconds=60, limit=8 * _engine_log.MOST_READ)
    if answer.fault not in (None, "too long") or answer.rc:
        module.fail_json(msg=f"no log of container {arguments[-1]}: {printable(answer.err or answer.fault)}")
    return answer


def _of_container(module, name, lines):
    """(log, exit code or None while it runs)"""
    running, code = _docker(module, "inspect", "--format", "{{.State.Running}} {{.State.ExitCode}}", name).out.split()
    answer = _docker(module, "logs", "--tail", str(lines), name)
    # The engine writes to both streams; which came first does not matter here.
    half = _engine_log.MOST_READ // 2
    return answer.out[-half:] + "\n" + answer.err[-half:], None if running == "true" else int(code)


def main():
    module = RedactingModule(
        argument_spec={
            "container": {"type": "str"},
            "path": {"type": "path"},
            "log": {"type": "str"},
            "exit_code": {"type": "int"},
            "lines": {"type": "int", "default": 5000},
            "estimate": {"type": "dict"},
            "tolerance": {"type": "float", "default": 0.05},
        },
        mutually_exclusive=[("container", "path", "log")],
        required_one_of=[("container", "path", "log")],
        supports_check_mode=True,
    )
    params = module.params
    exit_code = params["exit_code"]
    if params["container"]:
        log, found = _of_container(module, params["container"], params["lines"])
        exit_code = found if exit_code is None else exit_code
    elif params["path"]:
        try:
            log = read_file(params["path"], limit=_engine_log.MOST_READ, end=True).decode("utf-8", "replace")
        except UntrustedError as error:
            module.fail_json(msg=str(error))
    else:
        log = params["log"]

    result = _engine_log.parse(log, exit_code)
    if params["estimate"] is not None:
        result["comparison"] = _engine_log.compare(params["estimate"], result["allocated"], params["tolerance"])
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
