# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Headers of safetensors files: what tensors a checkpoint holds, without reading one of them.

A file is eight bytes (the header's length, little-endian), the header (JSON), then the tensors.
"""

from __future__ import annotations

import os
import stat
import struct

from ansible_collections.inferops.gpu_host.plugins.module_utils._units import MIB
from ansible_collections.inferops.gpu_host.plugins.module_utils._untrusted import bounded_json, printable, read_json

INDEX = "model.safetensors.index.json"
LONGEST_HEADER = 32 * MIB  # 140,000 tensors in one file have 20; the safetensors library itself accepts 100 MB
LONGEST_INDEX = 32 * MIB
LARGEST = 1 << 50  # bytes of a file, elements along one axis
MOST_AXES = 16

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
    header = bounded_json(raw, f"{name}: its header", SafetensorsError, LONGEST_HEADER, unique=True)
    if not isinstance(header, dict):
        raise SafetensorsError(f"{name}: its header is no JSON object")
    tensors, end = {}, 0
    for tensor, entry in header.items():
        if tensor == "__metadata__":
            continue
        first, last, shape, dtype = _described(entry)
        if first is None:
            raise SafetensorsError(f"{name}: tensor {printable(tensor, 100)} has no dtype, shape and data_offsets")
        tensors[tensor] = {"dtype": dtype, "shape": shape, "bytes": last - first}
        end = max(end, last)
    if size is not None and size < 8 + length + end:
        raise SafetensorsError(f"{name}: {size} bytes long, its tensors need {8 + length + end}: it is cut short")
    return tensors


def _described(entry):
    """(first byte, last byte, shape, dtype) of a tensor; all None where the entry does not say that."""
    nothing = (None, None, None, None)
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str) or len(entry["dtype"]) > 16:
        return nothing
    offsets, shape = entry.get("data_offsets"), entry.get("shape")
    if not _sizes(offsets) or not _sizes(shape) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return nothing
    return offsets[0], offsets[1], shape, entry["dtype"]


def _sizes(value):
    return (
        isinstance(value, list)
        and len(value) <= MOST_AXES
        and all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one < LARGEST for one in value)
    )


def read_directory(path):
    """All tensors of the safetensors files in a directory; an index must find all its files there."""
    names = sorted(name for name in os.listdir(path) if name.endswith(".safetensors"))
    index = os.path.join(path, INDEX)
    if os.path.exists(index):
        read = read_json(index, INDEX, SafetensorsError, LONGEST_INDEX)
        weights = read.get("weight_map") if isinstance(read, dict) else None
        if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights.values()):
            raise SafetensorsError(f"{INDEX}: no JSON with a weight_map")
        wanted, there = sorted(set(weights.values())), set(names)
        missing = [name for name in wanted if name not in there]
        if missing:
            told = printable(", ".join(missing[:3]))
            raise SafetensorsError(f"{INDEX} names {len(missing)} files that are not there: {told}")
        names = wanted
    tensors = {}
    for name in names:
        tensors.update(_header_of(os.path.join(path, name), printable(name)))
    return tensors


def _header_of(file, name):
    """The tensors of a file, which has to be one: a pipe is not waited for."""
    try:
        with open(file, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise SafetensorsError(f"{name} is no regular file")
            return read_header(stream, status.st_size, name)
    except OSError as error:
        raise SafetensorsError(f"{name} cannot be read: {error.strerror}") from error


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
