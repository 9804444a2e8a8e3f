"""A checkpoint gives back all of its weights, manifest and optimizer state, or is refused."""

import os
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from torch.optim import SGD, AdamW

from mask_lib.models import build, checkpoint, weights

TINY = "test_resnet"


def state_of(seed: int) -> dict[str, torch.Tensor]:
    return weights.initial_state(TINY, "none", seed)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value)


@pytest.mark.parametrize(
    "optimizer",
    [partial(SGD, lr=0.05, momentum=0.9), partial(SGD, lr=0.05), partial(AdamW, lr=0.01)],
    ids=["sgd", "sgd without momentum", "adamw"],
)
def test_weights_and_the_optimizers_state_come_back_bit_for_bit(tmp_path, optimizer):
    path, network = tmp_path / "last.safetensors", build.build_network(TINY)
    stepping = optimizer(network.parameters())
    network(torch.rand(4, 3, 16, 16)).square().sum().backward()
    stepping.step()
    checkpoint.write_checkpoint(path, network.state_dict(), {}, stepping.state_dict())
    assert_same(checkpoint.read_checkpoint(path)[0], network.state_dict())
    found, kept = checkpoint.read_all(path).optimizer_state, stepping.state_dict()["state"]
    assert found.keys() == kept.keys()
    for number, values in kept.items():
        assert_same(found[number], values)


def test_a_checkpoint_keeps_weights_in_any_layout_and_type(tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = {
        "a": torch.randn(2, 3, 4, 5, generator=generator).to(memory_format=torch.channels_last),
        "b": torch.randn(3, generator=generator).bfloat16(),
        "c": torch.tensor(7),
        "d": torch.randn(4, 6, generator=generator)[:, ::2],
    }
    checkpoint.write_checkpoint(tmp_path / "x.safetensors", state, {})
    assert_same(checkpoint.read_checkpoint(tmp_path / "x.safetensors")[0], state)


def test_the_manifest_stands_in_the_weights_own_file(tmp_path):
    path = tmp_path / "deep" / "last.safetensors"
    about = {"run": {"name": "é", "folds": [1]}, "fold": 3, "data": "", "preprocessing": {}}
    checkpoint.write_checkpoint(path, state_of(0), about)
    manifest = checkpoint.read_checkpoint(path)[1]
    assert manifest == checkpoint.read_manifest(path)
    assert manifest["run"] == {"name": "é", "folds": [1]}
    assert (manifest["fold"], manifest["format"]) == (3, checkpoint.MANIFEST_FORMAT)
    assert set(load_file(path)) == set(state_of(0))
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1], ids=["empty", "4 bytes", "100 bytes", "half", "all but one"])
def test_a_checkpoint_that_was_cut_short_is_named(tmp_path, keep):
    path = tmp_path / "last.safetensors"
    checkpoint.write_checkpoint(path, state_of(0), {})
    size = path.stat().st_size
    os.truncate(path, int(size * keep) if 0 < keep < 1 else keep % size)
    for read in (checkpoint.read_manifest, checkpoint.read_checkpoint, checkpoint.read_all):
        with pytest.raises(OSError, match=r"last\.safetensors is no checkpoint that can be read"):
            read(path)
