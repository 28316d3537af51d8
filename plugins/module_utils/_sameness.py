# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must be the same on all hosts that serve together, compared."""

from __future__ import annotations

import re

# what: (how it is called, how to make it the same)
SAME = {
    "weights": ("the model's files", "run playbooks/weights.yml, which brings the same to all"),
    "image": ("the image", "pull it by digest, or load the same archive everywhere"),
    "docker": ("the Docker engine", "set docker_version"),
    "toolkit": ("the NVIDIA Container Toolkit", "set nvidia_container_toolkit_version"),
    "driver": ("the NVIDIA driver", "install the same one"),
    "vllm": ("vLLM in the image", "use the same image"),
    "ray": ("Ray in the image", "use the same image"),
    "architecture": ("the processor's architecture", "choose hosts of one kind"),
}
WAIVABLE = (*SAME, "mtu")


def parse_toolkit(output):
    """The version in the output of `nvidia-ctk --version`, or None."""
    found = re.search(r"version (\S+)", output)
    return found.group(1) if found else None


def differences(found, waive=()):
    """What keeps hosts from serving together, one line each: [] when nothing does.

    found: {host: {software: {what: value}, problems: {what: text}}} as serving_software_info returns it.
    waive: names of SAME that may differ.
    """
    lines = [
        f"inference_sameness_waive names {name!r}, which is nothing that is compared; known are {', '.join(WAIVABLE)}"
        for name in waive
        if name not in WAIVABLE
    ]
    for what, (label, remedy) in SAME.items():
        if what in waive:
            continue
        broken = {host: facts["problems"][what] for host, facts in found.items() if facts["problems"].get(what)}
        for host, problem in broken.items():
            lines.append(f"{label} on {host}: {problem}")
        values = {}
        for host, facts in found.items():
            values.setdefault(facts["software"].get(what) or "none", []).append(host)
        if len(values) > 1:
            told = "; ".join(f"{value} on {', '.join(hosts)}" for value, hosts in values.items())
            lines.append(f"{label} differs: {told}. Please {remedy}, or add {what} to inference_sameness_waive")
    return lines


def images_to_compare(images, default_source):
    """The names of images that must be the same on all hosts: what a host builds itself never is, to the byte."""
    return [image["name"] for image in images if image.get("source", default_source) != "build"]


def image_differences(found):
    """Images that have one name and several contents, one line each. found: {host: {image: id, None where missing}}"""
    hosts_of = {}
    for host, images in found.items():
        for image, content in images.items():
            if content:
                hosts_of.setdefault(image, {}).setdefault(content, []).append(host)
    return [
        f"{image} differs: " + "; ".join(f"{content} on {', '.join(hosts)}" for content, hosts in contents.items())
        for image, contents in sorted(hosts_of.items())
        if len(contents) > 1
    ]
