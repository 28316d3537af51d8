from __future__ import annotations

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _gpu_catalogue as catalogue
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GB, GIB, MIB


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("Tesla T4", "T4"),
        ("NVIDIA H20", "H20-96GB"),
        ("h20-96gb", "H20-96GB"),
        ("H20 96GB", "H20-96GB"),
        ("NVIDIA H20-3e", "H20-141GB"),
        ("NVIDIA H100 80GB HBM3", "H100-80GB"),
        ("NVIDIA H100 PCIe", "H100-PCIE-80GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100 80GB PCIe", "A100-PCIE-80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100-PCIE-40GB"),
        ("Tesla V100-SXM2-32GB", "V100-32GB"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("4090", "RTX-4090"),
        ("RTX4090", "RTX-4090"),
        ("NVIDIA RTX A6000", "RTX-A6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX-6000-Ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000-Server"),
        ("NVIDIA H200", "H200"),
        ("H200-141GB", "H200"),
        ("NVIDIA GH200 480GB", "GH200-96GB"),
        ("NVIDIA B300 SXM6 AC", "B300"),
    ],
)
def test_names_of_nvidia_smi_and_of_buyers(spelling, name):
    assert catalogue.get(spelling).name == name


def test_the_measured_cards():
    assert catalogue.get("H200").usable == int(139.80 * GIB)
    assert catalogue.get("H100-80GB").usable == int(79.19 * GIB)


def test_memory_decides_between_cards_of_one_name():
    assert catalogue.find("A100") is None
    assert catalogue.find("A100", 81920 * MIB).name == "A100-80GB"
    assert catalogue.find("NVIDIA H20", 143771 * MIB).name == "H20-141GB"
    assert catalogue.find("NVIDIA H20", 97871 * MIB).name == "H20-96GB"
    assert catalogue.find("NVIDIA H20", 40000 * MIB) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [("A100", "A100-40GB or A100-80GB"), ("H1000", "did you mean H100"), ("TPU v5", "memory and compute_capability")],
)
def test_unknown_names_are_answered(name, message):
    with pytest.raises(catalogue.UnknownGpu) as error:
        catalogue.get(name)
    assert message in str(error.value)


def test_usable_memory_of_an_unknown_card_is_less_than_reported():
    assert 23 * GIB < catalogue.usable_bytes("NVIDIA Future 1", 24 * GIB) < 24 * GIB


@pytest.mark.parametrize("gpu", catalogue.GPUS, ids=lambda gpu: gpu.name)
def test_every_entry_is_plausible(gpu):
    # CUDA never offers more than nvidia-smi reports, and never less than 94 % of it.
    assert 0.93 * gpu.reported < gpu.usable <= gpu.reported
    assert 5 <= gpu.compute_capability <= 13
    assert gpu.basis in ("measured", "derived")
    assert (gpu.nvlink > 0) == (gpu.nvlink_span > 0)
    assert gpu.bandwidth * GB > gpu.usable  # one pass over the memory takes less than a second
    assert catalogue.get(gpu.name) is gpu
    for alias in gpu.aliases:
        assert catalogue.get(alias) is gpu
