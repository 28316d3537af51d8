# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Headers of safetensors files: what tensors a checkpoint holds, without reading one of them.

A file is eight bytes (the header's length, little-endian), the header (JSON), then the tensors.
"""

from __future__ import annotations

import json
import os
import struct

INDEX = "model.safetensors.index.json"
LONGEST_HEADER = 100 * 1000 * 1000  # what the safetensors library itself accepts

BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
BITS.update({"I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32})
BITS.update({"I64": 64, "U64": 64, "F64": 64, "C64": 64})


class SafetensorsError(ValueError):
    """A file that is no whole safetensors file."""


def read_header(stream, size=None, name="file"):
    """The tensors of an open file: {tensor: {"dtype", "shape", "bytes"}}.

    With `size` (the file's) a file that is too short for its tensors is refused.
    """
    prefix = stream.read(8)
    if len(prefix) < 8:
        raise SafetensorsError(f"{name}: {len(prefix)} bytes long, too short for a safetensors file")
    length = struct.unpack("<Q", prefix)[0]
    if not 2 <= length <= LONGEST_HEADER:
        raise SafetensorsError(f"{name}: a header of {length} bytes is announced, so this is no safetensors file")
    raw = stream.read(length)
    if len(raw) < length:
        raise SafetensorsError(f"{name}: ends inside its header")
    try:
        header = json.loads(raw.decode("utf-8"))
    except ValueError as error:
        raise SafetensorsError(f"{name}: its header is no JSON ({error})") from error
    if not isinstance(header, dict):
        raise SafetensorsError(f"{name}: its header is no JSON object")
    tensors, end = {}, 0
    for tensor, entry in header.items():
        if tensor == "__metadata__":
            continue
        try:
            first, last = entry["data_offsets"]
            tensors[tensor] = {"dtype": entry["dtype"], "shape": list(entry["shape"]), "bytes": last - first}
            end = max(end, last)
        except (TypeError, KeyError, ValueError) as error:
            raise SafetensorsError(f"{name}: tensor {tensor} has no dtype, shape and data_offsets") from error
    if size is not None and size < 8 + length + end:
        raise SafetensorsError(f"{name}: {size} bytes long, its tensors need {8 + length + end}: it is cut short")
    return tensors


def read_directory(path):
    """All tensors of the safetensors files in a directory; an index must find all its files there."""
    names = sorted(name for name in os.listdir(path) if name.endswith(".safetensors"))
    index = os.path.join(path, INDEX)
    if os.path.exists(index):
        with open(index, encoding="utf-8") as stream:
            try:
                wanted = sorted(set(json.load(stream)["weight_map"].values()))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise SafetensorsError(f"{INDEX}: no JSON with a weight_map ({error})") from error
        missing = [name for name in wanted if name not in names]
        if missing:
            raise SafetensorsError(f"{INDEX} names {len(missing)} files that are not there: {', '.join(missing[:3])}")
        names = wanted
    tensors = {}
    for name in names:
        file = os.path.join(path, name)
        with open(file, "rb") as stream:
            tensors.update(read_header(stream, os.path.getsize(file), name))
    return tensors


def summarize(tensors):
    """Bytes and elements of a checkpoint, by dtype. Scales and zero points are among the elements."""
    by_dtype = {}
    for tensor in tensors.values():
        entry = by_dtype.setdefault(tensor["dtype"], {"tensors": 0, "elements": 0, "bytes": 0})
        elements = 1
        for extent in tensor["shape"]:
            elements *= extent
        entry["tensors"] += 1
        entry["elements"] += elements
        entry["bytes"] += tensor["bytes"]
    return {
        "tensors": len(tensors),
        "bytes": sum(entry["bytes"] for entry in by_dtype.values()),
        "elements": sum(entry["elements"] for entry in by_dtype.values()),
        "by_dtype": {dtype: by_dtype[dtype] for dtype in sorted(by_dtype)},
    }
