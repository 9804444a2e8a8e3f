"""The cards that `nvidia-smi` lists, and those of them that CUDA_VISIBLE_DEVICES leaves."""

import pytest

from mask_lib.base import gpus

LISTING = """GPU 0: Tesla V100-SXM2-32GB (UUID: GPU-aa11-0)
GPU 1: NVIDIA A100 80GB PCIe (UUID: GPU-aa22-1)
  MIG 3g.40gb     Device  0: (UUID: MIG-ee44-2)
"""
V100, A100 = gpus.Card("Tesla V100-SXM2-32GB", "GPU-aa11-0"), gpus.Card("NVIDIA A100 80GB PCIe", "GPU-aa22-1")


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, [V100, A100]),
        ("1,0", [A100, V100]),
        (" 1", [A100]),
        ("GPU-aa22", [A100]),
        ("0,GPU-aa22-1", [V100, A100]),
        ("MIG-ee44-2", [gpus.Card("MIG 3g.40gb     Device  0", "MIG-ee44-2")]),
        ("", []),
        ("-1", []),
        ("0,-1,1", [V100]),
        ("2", []),
        ("GPU-aa", []),
        ("NoDevFiles", []),
    ],
)
def test_the_visible_cards_are_in_the_order_of_the_variable(nvidia_smi, monkeypatch, visible, found):
    nvidia_smi(LISTING)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus.cards() == found


def test_without_nvidia_smi_or_where_it_fails_there_are_no_cards(nvidia_smi, monkeypatch, tmp_path):
    nvidia_smi(LISTING, status=9)
    assert gpus.cards() == []
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    gpus.asked.cache_clear()
    assert gpus.cards() == []
