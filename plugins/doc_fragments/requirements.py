# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option of modules that say whether something fits."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  requirements:
    description: What has to be stored where.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The directory, which need not exist yet.
        type: path
        required: true
      bytes:
        description: How many bytes it will hold in the end. What lies there already counts.
        type: int
        required: true
      purpose:
        description: What for, for messages.
        type: str
        default: data
      allow_root_filesystem:
        description: Whether it may lie on the root filesystem.
        type: bool
        default: false
      allowed_by:
        description: What the operator would set to allow that, for messages.
        type: str
        default: "allow_root_filesystem: true for it in storage_requirements"
      counted:
        description: Other directories whose content is there already, such as that of an unfinished download.
        type: list
        elements: path
        default: []
"""
