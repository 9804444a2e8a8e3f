"""A checkpoint gives back all of its weights, manifest and optimizer state, or is refused."""

import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from mask_lib.models import build, checkpoint, weights

TINY = "test_resnet"


def state_of(seed: int) -> dict[str, torch.Tensor]:
    return weights.initial_state(TINY, "none", seed)


OPTIMIZERS = {
    "sgd": lambda network: torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01),
    "sgd without momentum": lambda network: torch.optim.SGD(network.parameters(), lr=0.05),
    "adamw": lambda network: torch.optim.AdamW(network.parameters(), lr=0.01),
}


def take_steps(network: torch.nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    for number in numbers:
        batch = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        functional.cross_entropy(network(batch), torch.arange(4)).backward()
        optimizer.step()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_training_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path, kind):
    whole = build.build_network(TINY)
    whole.load_state_dict(state_of(0))
    optimizer = OPTIMIZERS[kind](whole)
    take_steps(whole, optimizer, range(2))
    path = tmp_path / "last.safetensors"
    checkpoint.write_checkpoint(path, whole.state_dict(), {"epoch": 1}, optimizer.state_dict())
    take_steps(whole, optimizer, range(2, 4))

    resumed = build.build_network(TINY)
    state, manifest = checkpoint.read_checkpoint(path)
    resumed.load_state_dict(state, strict=True)
    again = OPTIMIZERS[kind](resumed)
    again.load_state_dict({**again.state_dict(), "state": checkpoint.read_optimizer_state(path)})
    take_steps(resumed, again, range(2, 4))
    ended = whole.state_dict()
    assert all(torch.equal(value, ended[name]) for name, value in resumed.state_dict().items())
    assert manifest["epoch"] == 1


def test_a_checkpoint_keeps_weights_in_any_layout_and_type(tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = {
        "a": torch.randn(2, 3, 4, 5, generator=generator).to(memory_format=torch.channels_last),
        "b": torch.randn(3, generator=generator).bfloat16(),
        "c": torch.tensor(7),
        "d": torch.randn(4, 6, generator=generator)[:, ::2],
    }
    checkpoint.write_checkpoint(tmp_path / "x.safetensors", state, {})
    found, _ = checkpoint.read_checkpoint(tmp_path / "x.safetensors")
    assert {name: value.dtype for name, value in found.items()} == {name: state[name].dtype for name in found}
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_the_manifest_stands_in_the_weights_own_file(tmp_path):
    path = tmp_path / "deep" / "last.safetensors"
    checkpoint.write_checkpoint(path, state_of(0), {"run": {"name": "é", "folds": [1]}, "fold": 3})
    manifest = checkpoint.read_manifest(path)
    assert manifest["run"] == {"name": "é", "folds": [1]}
    assert (manifest["fold"], manifest["format"]) == (3, checkpoint.MANIFEST_FORMAT)
    assert set(load_file(path)) == set(state_of(0))
    assert list(path.parent.iterdir()) == [path]


def test_a_file_of_bare_weights_has_an_empty_manifest(tmp_path):
    save_file(state_of(0), tmp_path / "bare.safetensors")
    assert checkpoint.read_manifest(tmp_path / "bare.safetensors") == {}
    assert checkpoint.read_optimizer_state(tmp_path / "bare.safetensors") == {}


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1], ids=["empty", "4 bytes", "100 bytes", "half", "all but one"])
def test_a_checkpoint_that_was_cut_short_is_named(tmp_path, keep):
    path = tmp_path / "last.safetensors"
    checkpoint.write_checkpoint(path, state_of(0), {})
    size = path.stat().st_size
    os.truncate(path, int(size * keep) if 0 < keep < 1 else keep % size)
    for read in (checkpoint.read_manifest, checkpoint.read_checkpoint, checkpoint.read_optimizer_state):
        with pytest.raises(OSError, match=r"last\.safetensors is no checkpoint that can be read"):
            read(path)


def test_a_failed_write_leaves_the_checkpoint_before_it(tmp_path):
    path = tmp_path / "last.safetensors"
    checkpoint.write_checkpoint(path, state_of(0), {"epoch": 1})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        checkpoint.write_checkpoint(path, state_of(1), {"epoch": {1, 2}})
    with pytest.raises(AttributeError):
        checkpoint.write_checkpoint(path, {"weight": "no tensor"}, {"epoch": 2})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
