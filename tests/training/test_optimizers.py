"""Each layer learns as fast as it should; the last can learn while nothing else moves, and all learn again after it."""

import pytest
import torch
from torch.nn import functional

from mask_lib.base import config
from mask_lib.models import build
from mask_lib.training.optimizer import build_optimizer, frozen_backbone, parameter_groups

SIDE = {"test_resnet": 32, "test_efficientnet": 32, "test_vit": 160}


def trained(network: torch.nn.Module, run: config.Run, side: int, frozen: bool) -> None:
    """Two updates on noise, with whatever moves in training."""
    optimizer = build_optimizer(network, run)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"]
    network.train()
    with frozen_backbone(network, frozen):
        for _ in range(2):
            optimizer.zero_grad()
            functional.cross_entropy(network(torch.rand(4, 3, side, side)), torch.arange(4)).backward()
            optimizer.step()


@pytest.mark.parametrize("architecture", ["test_resnet", "test_efficientnet", "test_vit"])
def test_each_parameter_is_in_one_group_with_the_right_rate_and_decay(architecture):
    network = build.build_network(architecture)
    groups = parameter_groups(network, learning_rate=0.1, head_scale=10, weight_decay=0.01)
    group_of = {id(parameter): group for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(group_of) == len(list(network.parameters()))
    for name, parameter in network.named_parameters():
        in_head = name.startswith(("fc.", "classifier.", "head."))
        assert group_of[id(parameter)]["peak"] == pytest.approx(1.0 if in_head else 0.1)
        assert group_of[id(parameter)]["weight_decay"] == (0.01 if parameter.ndim > 1 else 0.0)


DEEPEST_LAST = {  # one parameter a layer, from the input on
    "test_resnet": ["conv1.0", "layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1", "fc"],
    "test_efficientnet": ["conv_stem", *(f"blocks.{block}.0.bn1" for block in range(5)), "classifier"],
    "test_vit": ["patch_embed.proj", *(f"blocks.{block}.attn.qkv" for block in range(6)), "head"],
}


@pytest.mark.parametrize("architecture", DEEPEST_LAST)
def test_layer_decay_slows_each_layer_by_its_depth(architecture):
    network, layers = build.build_network(architecture), DEEPEST_LAST[architecture]
    groups = parameter_groups(network, 0.1, head_scale=10, weight_decay=0.01, layer_decay=0.5)
    group_of = {id(parameter): group for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(group_of) == len(list(network.parameters()))
    for above, layer in enumerate(reversed(layers)):
        group = group_of[id(network.get_parameter(f"{layer}.weight"))]
        assert group["peak"] == pytest.approx(0.1 * 0.5**above * (1 if above else 10))
    for parameter in network.parameters():
        assert group_of[id(parameter)]["weight_decay"] == (0.01 if parameter.ndim > 1 else 0.0)


def test_frozen_parameters_are_in_no_group():
    network = build.build_network("test_resnet")
    network.conv1[0].weight.requires_grad_(False)
    members = [id(one) for group in parameter_groups(network, 0.1, 1, 0) for one in group["params"]]
    assert id(network.conv1[0].weight) not in members


def test_networks_with_two_last_layers_have_groups_too():
    network = build.build_network("deit_tiny_distilled_patch16_224")
    groups = parameter_groups(network, learning_rate=0.1, head_scale=10, weight_decay=0.0)
    peak_of = {id(parameter): group["peak"] for group in groups for parameter in group["params"]}
    assert {peak_of[id(network.head.weight)], peak_of[id(network.head_dist.weight)]} == {1.0}


@pytest.mark.parametrize("architecture", SIDE)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_frozen_nothing_moves_but_the_last_layer(architecture, optimizer):
    network = build.build_network(architecture)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    run = config.Run(optimizer=optimizer, learning_rate=0.1, weight_decay=0.1)
    trained(network, run, SIDE[architecture], frozen=True)
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith(("fc.", "classifier.", "head."))}
    trained(network, run, SIDE[architecture], frozen=False)
    still = {name for name, value in network.state_dict().items() if torch.equal(value, before[name])}
    assert not {name for name in still if name.endswith((".weight", "running_mean", "num_batches_tracked"))}


def test_frozen_gradients_are_not_even_computed_and_come_back_after_an_error():
    network = build.build_network("test_resnet")
    fixed = network.conv1[0].weight.requires_grad_(False)  # never learns
    network.train()
    with pytest.raises(ZeroDivisionError), frozen_backbone(network):
        assert {name for name, one in network.named_parameters() if one.requires_grad} == {"fc.weight", "fc.bias"}
        assert not any(module.training for module in network.modules() if hasattr(module, "running_mean"))
        raise ZeroDivisionError
    assert all(one.requires_grad for one in network.parameters() if one is not fixed)
    assert not fixed.requires_grad
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_optimizer_is_the_one_asked_for_with_its_groups(name, kind):
    run = config.Run(optimizer=name, momentum=0.8, learning_rate=0.1, head_learning_rate_scale=5.0, weight_decay=0.02)
    found = build_optimizer(build.build_network("test_resnet"), run)
    assert type(found) is kind
    assert {group["peak"] for group in found.param_groups} == {0.1, 0.5}
    assert {group["weight_decay"] for group in found.param_groups} == {0.0, 0.02}
    assert {group.get("momentum", group.get("betas", [None])[0]) for group in found.param_groups} == {0.8}
