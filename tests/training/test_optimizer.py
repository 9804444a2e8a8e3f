"""Each layer learns as fast as it should, frozen or not; rates rise and fall when they should, and runs stop."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from mask_lib.base.config import Run
from mask_lib.models import build
from mask_lib.training.optimizer import (
    build_optimizer,
    frozen_backbone,
    idle_epochs,
    learning_rate_factor,
    parameter_groups,
    stopped_early,
)

SIDE = {"test_resnet": 32, "test_efficientnet": 32, "test_vit": 160}


def trained(network: torch.nn.Module, run: Run, side: int, frozen: bool) -> None:
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


UNDECAYED = {"pos_embed", "cls_token", "reg_token"}  # as timm's transformers list them
DEEPEST_LAST = {  # one parameter a layer, from the input on
    "test_resnet": ["conv1.0", "layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1", "fc"],
    "test_efficientnet": ["conv_stem", *(f"blocks.{block}.0.bn1" for block in range(5)), "classifier"],
    "test_vit": ["patch_embed.proj", *(f"blocks.{block}.attn.qkv" for block in range(6)), "head"],
}


@pytest.mark.parametrize("decay", [1.0, 0.5])
@pytest.mark.parametrize("architecture", DEEPEST_LAST)
def test_each_parameter_is_in_one_group_with_the_right_rate_and_decay(architecture, decay):
    network, layers = build.build_network(architecture), DEEPEST_LAST[architecture]
    groups = parameter_groups(network, 0.1, head_scale=10, weight_decay=0.01, layer_decay=decay)
    group_of = {id(parameter): group for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(group_of) == len(list(network.parameters()))
    assert len({(group["peak"], group["weight_decay"]) for group in groups}) == len(groups)
    for above, layer in enumerate(reversed(layers)):
        group = group_of[id(network.get_parameter(f"{layer}.weight"))]
        assert group["peak"] == pytest.approx(0.1 * decay**above * (1 if above else 10))
    for name, parameter in network.named_parameters():
        in_head, decays = name.startswith(("fc.", "classifier.", "head.")), parameter.ndim > 1 and name not in UNDECAYED
        assert group_of[id(parameter)]["weight_decay"] == (0.01 if decays else 0.0)
        assert decay < 1 or group_of[id(parameter)]["peak"] == pytest.approx(1.0 if in_head else 0.1)


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
    run = Run(optimizer=optimizer, learning_rate=0.1, weight_decay=0.1)
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
    run = Run(optimizer=name, momentum=0.8, learning_rate=0.1, head_learning_rate_scale=5.0, weight_decay=0.02)
    found = build_optimizer(build.build_network("test_resnet"), run)
    assert type(found) is kind
    assert {group["peak"] for group in found.param_groups} == {0.1, 0.5}
    assert {group["weight_decay"] for group in found.param_groups} == {0.0, 0.02}
    assert {group.get("momentum", group.get("betas", [None])[0]) for group in found.param_groups} == {0.8}


# Schedules.

SCHEDULES = ["constant", "cosine", "one_cycle", "step", "plateau"]


def history(*macro_f1: float) -> list[dict[str, float]]:
    return [{"epoch": epoch, "val_macro_f1": value} for epoch, value in enumerate(macro_f1, start=1)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_start_warm_peak_at_one_and_stay_positive(schedule):
    run = Run(epochs=10, schedule=schedule, warmup_epochs=1.0)
    factors = [learning_rate_factor(run, progress) for progress in np.linspace(0, 9.99, 400)]
    assert factors[0] < 0.01
    assert max(factors) == pytest.approx(1.0, abs=0.01)
    assert min(factors) > 0
    if schedule not in ("constant", "plateau"):
        assert factors[-1] < 0.02


@pytest.mark.parametrize(("warmup_epochs", "peak"), [(0.0, 1.8), (0.5, 0.5), (3.0, 3.0)])
def test_one_cycle_rises_once_to_exactly_1_and_then_falls(warmup_epochs, peak):
    run = Run(epochs=6, schedule="one_cycle", warmup_epochs=warmup_epochs)
    progress = np.append(np.arange(0, 6, 0.01), peak)
    progress.sort()
    factors = np.array([learning_rate_factor(run, moment) for moment in progress])
    top = int(factors.argmax())
    assert factors.max() == 1 and progress[top] == pytest.approx(peak)
    assert (np.diff(factors[: top + 1]) >= 0).all() and (np.diff(factors[top:]) <= 0).all()
    assert 0 < factors[0] < 0.01 and 0 < factors[-1] < 0.001


@pytest.mark.parametrize(
    ("macro_f1", "idle"),
    [
        ([], []),
        ([0.0], [0]),  # better than nothing
        ([0.3, 0.4, 0.5], [0, 0, 0]),
        ([0.3, 0.3, 0.2, 0.31, 0.31], [0, 1, 2, 0, 1]),  # as good is not better
    ],
)
def test_idle_epochs_are_those_since_the_best(macro_f1, idle):
    assert idle_epochs(Run(), history(*macro_f1)) == idle


STANDSTILL = (0.5, 0.5, 0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("changes", "idle"),
    [
        ({"frozen_epochs": 2}, [0, 0, 1, 2, 3]),
        ({"warmup_epochs": 2.5}, [0, 0, 0, 1, 2]),  # an epoch that began warming up is one
        ({"frozen_epochs": 1, "warmup_epochs": 2.0}, [0, 0, 1, 2, 3]),
        ({"schedule": "one_cycle"}, [0, 0, 0, 1, 2]),  # of ten epochs three rise
    ],
)
def test_idle_epochs_are_counted_from_the_last_that_was_frozen_or_warming_up(changes, idle):
    assert idle_epochs(Run(epochs=10, **changes), history(*STANDSTILL)) == idle


def test_a_run_neither_slows_down_nor_stops_before_it_has_begun_in_earnest():
    run = Run(epochs=10, schedule="plateau", plateau_epochs=2, early_stop_epochs=2, frozen_epochs=3)
    for past, drops in ((3, 0), (4, 0), (5, 1)):
        rows = history(*STANDSTILL[:past])
        assert learning_rate_factor(run, past + 0.5, rows) == pytest.approx(0.1**drops)
        assert stopped_early(run, rows) == (drops > 0)


@pytest.mark.parametrize(
    ("macro_f1", "drops"),
    [
        ([0.5], 0),
        ([0.5, 0.4], 0),
        ([0.5, 0.4, 0.4], 1),
        ([0.5, 0.4, 0.4, 0.4], 1),
        ([0.5, 0.4, 0.4, 0.4, 0.4], 2),
        ([0.5, 0.4, 0.4, 0.6, 0.7], 1),  # what has fallen stays down
        ([0.5, 0.4, 0.6, 0.4, 0.7, 0.4], 0),
    ],
)
def test_after_each_plateau_a_tenth_is_left(macro_f1, drops):
    run = Run(epochs=10, schedule="plateau", plateau_epochs=2)
    factor = learning_rate_factor(run, len(macro_f1) + 0.5, history(*macro_f1))
    assert factor == pytest.approx(0.1**drops)


@pytest.mark.parametrize("schedule", SCHEDULES[:-1])
def test_other_schedules_do_not_look_back(schedule):
    run = Run(epochs=10, schedule=schedule, plateau_epochs=1)
    with_history = learning_rate_factor(run, 3.5, history(0.5, 0.4, 0.3))
    assert with_history == learning_rate_factor(run, 3.5)


@pytest.mark.parametrize(
    ("macro_f1", "stopped"),
    [([], False), ([0.5], False), ([0.5, 0.4], False), ([0.5, 0.4, 0.5], True), ([0.5, 0.4, 0.6, 0.5], False)],
)
def test_a_run_stops_after_so_many_epochs_without_a_better_macro_f1(macro_f1, stopped):
    assert stopped_early(Run(early_stop_epochs=2), history(*macro_f1)) == stopped
    assert not stopped_early(Run(early_stop_epochs=0), history(*macro_f1))
