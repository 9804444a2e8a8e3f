"""The last layer can learn while nothing else moves, and everything learns again afterwards."""

import pytest
import torch
from torch.nn import functional

from mask_lib import config, models, optimizers

SIDE = {"test_resnet": 32, "test_efficientnet": 32, "test_vit": 160}


def trained(network: torch.nn.Module, run: config.Run, side: int, frozen: bool) -> None:
    """Two updates on noise, with whatever moves in training."""
    optimizer = optimizers.build(network, run)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"]
    network.train()
    with optimizers.frozen_backbone(network, frozen):
        for _ in range(2):
            optimizer.zero_grad()
            functional.cross_entropy(network(torch.rand(4, 3, side, side)), torch.arange(4)).backward()
            optimizer.step()


@pytest.mark.parametrize("architecture", SIDE)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_frozen_nothing_moves_but_the_last_layer(architecture, optimizer):
    network = models.build(architecture)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    run = config.Run(optimizer=optimizer, learning_rate=0.1, weight_decay=0.1)
    trained(network, run, SIDE[architecture], frozen=True)
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith(("fc.", "classifier.", "head."))}
    trained(network, run, SIDE[architecture], frozen=False)
    still = {name for name, value in network.state_dict().items() if torch.equal(value, before[name])}
    assert not {name for name in still if name.endswith((".weight", "running_mean", "num_batches_tracked"))}


def test_frozen_gradients_are_not_even_computed_and_come_back_after_an_error():
    network = models.build("test_resnet")
    fixed = network.conv1[0].weight.requires_grad_(False)  # never learns
    network.train()
    with pytest.raises(ZeroDivisionError), optimizers.frozen_backbone(network):
        assert {name for name, one in network.named_parameters() if one.requires_grad} == {"fc.weight", "fc.bias"}
        assert not any(module.training for module in network.modules() if hasattr(module, "running_mean"))
        raise ZeroDivisionError
    assert all(one.requires_grad for one in network.parameters() if one is not fixed)
    assert not fixed.requires_grad
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_optimizer_is_the_one_asked_for_with_its_groups(name, kind):
    run = config.Run(optimizer=name, momentum=0.8, learning_rate=0.1, head_learning_rate_scale=5.0, weight_decay=0.02)
    found = optimizers.build(models.build("test_resnet"), run)
    assert type(found) is kind
    assert {group["peak"] for group in found.param_groups} == {0.1, 0.5}
    assert {group["weight_decay"] for group in found.param_groups} == {0.0, 0.02}
    assert {group.get("momentum", group.get("betas", [None])[0]) for group in found.param_groups} == {0.8}
