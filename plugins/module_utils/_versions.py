# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions: what is installed by default, how a version is read, and which engine an image holds."""

from __future__ import annotations

import re

DEFAULT_ENGINE_VERSION = "0.33.0"  # of vLLM: planned for, and pulled, where nobody says otherwise
DEFAULT_CPU_ENGINE_VERSION = "0.32.0"  # the newest whose CPU build is on PyPI

# The image of a service that names none, by accelerator. `cpu` is built by the container_image role,
# and so is `ray`: what several hosts run that Ray joins, since vLLM's own images hold none any more.
DEFAULT_IMAGES = {
    "cuda": f"vllm/vllm-openai:v{DEFAULT_ENGINE_VERSION}",
    "cpu": f"inferops/vllm-cpu:{DEFAULT_CPU_ENGINE_VERSION}",
    "ray": f"inferops/vllm-ray:{DEFAULT_ENGINE_VERSION}",
    "text_embeddings_inference": "ghcr.io/huggingface/text-embeddings-inference:1.9",
}


def version_tuple(version, parts=0):
    """The leading numbers of a version: 'v0.6.4.post1' → (0, 6, 4), '20.10.24+dfsg1' → (20, 10, 24); () without any.

    parts: at least so many, filled with zeros, so that versions of different lengths compare.
    """
    match = re.match(r"v?(\d{1,9}(?:\.\d{1,9}){0,5})", str(version or "").strip())
    if not match:
        return ()
    numbers = tuple(int(part) for part in match.group(1).split("."))
    return numbers + (0,) * (parts - len(numbers))


def minor_release(version):
    """(0, 26) of '0.26.0'. ValueError where there is none."""
    numbers = version_tuple(version)
    if len(numbers) < 2:
        raise ValueError(f"engine version is {version!r}, wanted one such as 0.26.0")
    return numbers[:2]


def version_of_image(image):
    """The engine version that an image's tag names, or None: 'vllm/vllm-openai:v0.26.0-x86_64' → '0.26.0'.

    A digest behind the tag and a port in the registry's name are no part of it.
    """
    tag = str(image or "").partition("@")[0].rpartition("/")[2].partition(":")[2]
    match = re.match(r"v?(\d{1,9}\.\d{1,9}\.\d{1,9}(?:\.post\d{1,9})?)", tag)
    return match.group(1) if match else None


def default_engine_version(accelerator, images=None):
    """The version in the image of services that name neither a version nor an image.

    images: {accelerator: image} over DEFAULT_IMAGES.
    """
    image = (images or {}).get(accelerator) or DEFAULT_IMAGES.get(accelerator)
    return version_of_image(image) or DEFAULT_ENGINE_VERSION


def engine_version_of(service, image=None, default=None):
    """The engine version of a service: the one it declares, else the one its image's tag names, else `default`.

    image: of a service that names none.
    """
    return service.get("engine_version") or version_of_image(service.get("image") or image) or default
