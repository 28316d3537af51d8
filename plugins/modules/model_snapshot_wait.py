#!/usr/bin/python
# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: model_snapshot_wait
short_description: Wait for model_snapshot jobs and show how far they are
version_added: "0.1.0"
author: "The inferops.gpu_host maintainers (@inferops)"
description:
  - Waits until asynchronous M(inferops.gpu_host.model_snapshot) tasks have ended.
  - Meanwhile prints a line per model with percent, bytes, rate and remaining time.
  - It is an action plugin; the work happens on the controller.
options:
  jobs:
    description: The results of the looped asynchronous task.
    type: list
    elements: dict
    required: true
  interval:
    description: Seconds between two lines of progress.
    type: int
    default: 30
  timeout:
    description: Seconds to wait at most.
    type: int
    default: 86400
extends_documentation_fragment:
  - inferops.gpu_host.attributes
attributes:
  check_mode:
    support: full
    details: Asynchronous tasks do not exist in check mode; results that are there already are passed on.
  diff_mode:
    support: none
    details: The differences of the jobs are not shown.
"""

EXAMPLES = r"""
- name: Fetch the models while other things go on
  inferops.gpu_host.model_snapshot:
    model: "{{ item }}"
    directory: "/data/models/{{ item }}"
    client_prefix: /opt/inferops/hub-client
  loop: [Qwen/Qwen2.5-7B-Instruct, BAAI/bge-m3]
  async: 86400
  poll: 0
  register: downloads

- name: Wait for the models
  inferops.gpu_host.model_snapshot_wait:
    jobs: "{{ downloads.results }}"
  register: models
"""

RETURN = r"""
results:
  description: What M(inferops.gpu_host.model_snapshot) returned, in the order of O(jobs).
  type: list
  elements: dict
  returned: always
"""
