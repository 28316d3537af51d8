# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GPUs by name, so that one can plan for machines that are not bought yet.

`usable` is what cudaMemGetInfo calls total, which is what vLLM takes its share of: less than nvidia-smi's figure and
much less than the label. `basis` says where it comes from:

* measured: read on such a card (the project's own runs, or the "total capacity" of PyTorch's out-of-memory message
  in public reports; the smallest of several, since ECC and driver change it by some ten MiB);
* derived: nvidia-smi's total, less what measured cards of the same generation keep.

`bandwidth` is the vendor's memory bandwidth, `nvlink` all links of one GPU in both directions, `pcie` one direction of
a x16 slot (GB/s), `tflops` dense 16-bit with 32-bit accumulation: data sheets. `nvlink_span` is how many GPUs the links
join: 2 for a bridge, 8 for a baseboard, 0 for none.
"""

from __future__ import annotations

import difflib
import re
from collections import namedtuple

from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB, MIB

Gpu = namedtuple(
    "Gpu",
    "name usable basis reported compute_capability bandwidth nvlink nvlink_span pcie tflops aliases",
)


def _gpu(name, usable, basis, reported, capability, bandwidth, tflops, nvlink=0, span=0, pcie=32, aliases=()):
    return Gpu(
        name, int(usable * GIB), basis, reported * MIB, capability, bandwidth, nvlink, span, pcie, tflops, aliases
    )


# name, usable GiB, basis, nvidia-smi's MiB, compute capability, GB/s, TFLOPs
GPUS = (
    _gpu("T4", 14.56, "measured", 15360, 7.5, 320, 65, pcie=16),
    _gpu("V100-16GB", 15.77, "measured", 16384, 7.0, 900, 125, 300, 8, 16, ("V100-SXM2-16GB",)),
    _gpu("V100-32GB", 31.73, "measured", 32768, 7.0, 900, 125, 300, 8, 16, ("V100-SXM2-32GB", "V100-SXM3-32GB")),
    _gpu("V100-PCIE-16GB", 15.77, "measured", 16384, 7.0, 900, 112, pcie=16),
    _gpu("V100-PCIE-32GB", 31.73, "measured", 32768, 7.0, 900, 112, pcie=16, aliases=("V100S-PCIE-32GB",)),
    _gpu("RTX-2080Ti", 10.57, "derived", 11264, 7.5, 616, 54, pcie=16),
    _gpu("A2", 14.53, "derived", 15356, 8.6, 200, 18, pcie=16),
    _gpu("A10", 22.05, "measured", 23028, 8.6, 600, 125, aliases=("A10-24GB",)),
    _gpu("A10G", 21.98, "measured", 23028, 8.6, 600, 70, aliases=("A10G-24GB",)),
    _gpu("A16", 14.53, "derived", 15356, 8.6, 200, 18),
    _gpu("A30", 23.49, "derived", 24576, 8.0, 933, 165, 200, 2, aliases=("A30-24GB",)),
    _gpu("A40", 44.42, "measured", 46068, 8.6, 696, 150, 112, 2, aliases=("A40-48GB",)),
    _gpu("A100-40GB", 39.38, "measured", 40960, 8.0, 1555, 312, 600, 8, aliases=("A100-SXM4-40GB", "A100-SXM-40GB")),
    _gpu("A100-PCIE-40GB", 39.38, "measured", 40960, 8.0, 1555, 312, aliases=("A100-40GB-PCIE",)),
    _gpu("A100-80GB", 79.14, "measured", 81920, 8.0, 2039, 312, 600, 8, aliases=("A100-SXM4-80GB", "A100-SXM-80GB")),
    _gpu("A100-PCIE-80GB", 79.14, "measured", 81920, 8.0, 1935, 312, aliases=("A100-80GB-PCIE",)),
    _gpu("A800-80GB", 79.14, "derived", 81920, 8.0, 2039, 312, 400, 8, aliases=("A800", "A800-SXM4-80GB")),
    _gpu("A800-PCIE-80GB", 79.14, "derived", 81920, 8.0, 1935, 312, aliases=("A800-80GB-PCIE",)),
    _gpu("L4", 22.03, "measured", 23034, 8.9, 300, 121, aliases=("L4-24GB",)),
    _gpu("L20", 44.39, "derived", 46068, 8.9, 864, 119, aliases=("L20-48GB",)),
    _gpu("L40", 44.39, "derived", 46068, 8.9, 864, 181, aliases=("L40-48GB",)),
    _gpu("L40S", 44.39, "measured", 46068, 8.9, 864, 362, aliases=("L40S-48GB",)),
    _gpu("RTX-3090", 23.57, "measured", 24576, 8.6, 936, 71, 112, 2, aliases=("3090", "RTX-3090-24GB")),
    _gpu("RTX-3090Ti", 23.55, "derived", 24564, 8.6, 1008, 80, 112, 2, aliases=("3090Ti",)),
    _gpu("RTX-4090", 23.52, "measured", 24564, 8.9, 1008, 165, aliases=("4090", "RTX-4090-24GB")),
    _gpu("RTX-4090D", 23.52, "derived", 24564, 8.9, 1008, 147, aliases=("4090D",)),
    _gpu("RTX-4090-48GB", 47.37, "derived", 49140, 8.9, 1008, 165, aliases=("4090-48GB",)),
    _gpu("RTX-5090", 31.36, "measured", 32607, 12.0, 1792, 209, pcie=64, aliases=("5090", "RTX-5090-32GB")),
    _gpu("RTX-5090D", 31.36, "derived", 32607, 12.0, 1792, 209, pcie=64, aliases=("5090D",)),
    _gpu("RTX-A5000", 23.55, "derived", 24564, 8.6, 768, 111, 112, 2, aliases=("A5000",)),
    _gpu("RTX-A6000", 47.40, "measured", 49140, 8.6, 768, 155, 112, 2, aliases=("A6000", "RTX-A6000-48GB")),
    _gpu("RTX-6000-Ada", 47.37, "measured", 49140, 8.9, 960, 182, aliases=("RTX-6000-Ada-Generation", "6000-Ada")),
    _gpu(
        "RTX-PRO-6000",
        94.97,
        "measured",
        97887,
        12.0,
        1792,
        252,
        pcie=64,
        aliases=(
            "RTX-PRO-6000-96GB",
            "PRO-6000",
            "RTX-PRO-6000-Blackwell-Workstation-Edition",
            "RTX-PRO-6000-Blackwell-Max-Q-Workstation-Edition",
        ),
    ),
    _gpu(
        "RTX-PRO-6000-Server",
        94.97,
        "derived",
        97887,
        12.0,
        1597,
        252,
        pcie=64,
        aliases=("RTX-PRO-6000-Blackwell-Server-Edition",),
    ),
    _gpu("H20-96GB", 95.00, "measured", 97871, 9.0, 4000, 148, 900, 8, 64, ("H20",)),
    _gpu("H20-141GB", 139.80, "derived", 143771, 9.0, 4800, 148, 900, 8, 64, ("H20-3e",)),
    _gpu("H100-80GB", 79.19, "measured", 81559, 9.0, 3350, 989, 900, 8, 64, ("H100", "H100-80GB-HBM3", "H100-SXM5")),
    _gpu("H100-PCIE-80GB", 79.19, "derived", 81559, 9.0, 2039, 756, pcie=64, aliases=("H100-PCIE", "H100-80GB-PCIE")),
    _gpu("H100-NVL", 93.00, "measured", 95830, 9.0, 3938, 835, 600, 2, 64, ("H100-NVL-94GB", "H100-94GB")),
    _gpu("H100-96GB", 95.00, "derived", 97871, 9.0, 3350, 989, 900, 8, 64, ("H100-SXM5-96GB",)),
    _gpu("H800-80GB", 79.19, "derived", 81559, 9.0, 3350, 989, 400, 8, 64, ("H800", "H800-SXM5-80GB")),
    _gpu("H800-PCIE-80GB", 79.19, "derived", 81559, 9.0, 2039, 756, pcie=64, aliases=("H800-PCIE", "H800-80GB-PCIE")),
    _gpu("H200", 139.80, "measured", 143771, 9.0, 4800, 989, 900, 8, 64, ("H200-141GB", "H200-SXM")),
    _gpu("H200-NVL", 139.80, "derived", 143771, 9.0, 4800, 835, 900, 4, 64, ("H200-NVL-141GB",)),
    _gpu("GH200-96GB", 94.50, "measured", 97871, 9.0, 4000, 989, 0, 0, 64, ("GH200", "GH200-480GB")),
    _gpu("GH200-144GB", 139.80, "derived", 146831, 9.0, 4900, 989, 0, 0, 64, ("GH200-144G-HBM3e",)),
    _gpu("B200", 178.35, "measured", 183359, 10.0, 8000, 2250, 1800, 8, 64, ("B200-180GB", "B200-192GB")),
    _gpu("GB200", 183.60, "derived", 189471, 10.0, 8000, 2500, 1800, 4, 64, ("GB200-192GB",)),
    _gpu("B300", 267.69, "measured", 275040, 10.3, 8000, 2250, 1800, 8, 64, ("B300-SXM6-AC", "B300-288GB")),
    _gpu("GB300", 276.60, "derived", 284208, 10.3, 8000, 2500, 1800, 4, 64, ("GB300-288GB",)),
)

# Sold with several memory sizes, with one name: say which.
_AMBIGUOUS = {
    "a100": ("A100-40GB", "A100-80GB"),
    "v100": ("V100-16GB", "V100-32GB"),
    "a100pcie": ("A100-PCIE-40GB", "A100-PCIE-80GB"),
    "v100pcie": ("V100-PCIE-16GB", "V100-PCIE-32GB"),
}


class UnknownGpu(ValueError):
    """No such GPU in the catalogue; the message offers the nearest."""


def _fold(name):
    """One spelling: 'NVIDIA A100 80GB PCIe' and 'A100-PCIE-80GB' differ only in order, so words are sorted."""
    name = re.sub(r"(?i)\b(nvidia|tesla|geforce|graphics device)\b", " ", name)
    words = re.findall(r"[a-z0-9]+", name.lower())
    return "".join(sorted(words))


_BY_NAME = {}
for _entry in GPUS:
    for _alias in (_entry.name, *_entry.aliases):
        _BY_NAME.setdefault(_fold(_alias), _entry)
        _BY_NAME.setdefault(_fold(_alias.replace("-", "")), _entry)


def names():
    """The names one may write, in the catalogue's order."""
    return [gpu.name for gpu in GPUS]


def find(name, memory_total=None):
    """The GPU of that name, as nvidia-smi or a buyer says it; None when the catalogue has none.

    `memory_total` (bytes, from nvidia-smi) decides between cards of one name and corrects a name that means another
    size.
    """
    folded = _fold(name)
    gpu = _BY_NAME.get(folded)
    if memory_total is None:
        return gpu
    if gpu is None:
        sizes = [_BY_NAME[_fold(other)] for other in _AMBIGUOUS.get(folded, ())]
    else:
        stem = gpu.name.split("-")[0]
        sizes = [other for other in GPUS if other.name.split("-")[0] == stem] if gpu.name != stem else [gpu]
    close = [other for other in sizes if abs(other.reported - memory_total) < 0.06 * other.reported]
    if gpu in close:
        return gpu
    return close[0] if close else None


def get(name):
    """Like `find`, but a name that is not known is an error with what would work."""
    gpu = find(name)
    if gpu is not None:
        return gpu
    several = _AMBIGUOUS.get(_fold(name))
    if several:
        raise UnknownGpu(f"GPU {name!r} exists with several memory sizes: say {' or '.join(several)}")
    near = difflib.get_close_matches(str(name).upper(), [gpu.name.upper() for gpu in GPUS], n=3, cutoff=0.4)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise UnknownGpu(
        f"GPU {name!r} is not in the catalogue{hint} Declare a mapping with memory and compute_capability for others."
    )


def usable_bytes(name, memory_total):
    """What CUDA will call total on a card of which nvidia-smi says `memory_total`."""
    gpu = find(name, memory_total)
    if gpu is not None:
        return gpu.usable
    # Measured cards keep 450 MiB (T4) to 930 MiB (B300) for the driver and for page tables.
    return max(0, memory_total - max(450 * MIB, int(0.0045 * memory_total)))
