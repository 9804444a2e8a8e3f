"""Each layer learns as fast as it should, frozen or not; rates rise and fall when they should, and runs stop."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from mask_lib.base.config import Run
from mask_lib.models import build
from mask_lib.training import optimizer

SIDE = {"test_resnet": 32, "test_efficientnet": 32, "test_vit": 160}


def trained(network: torch.nn.Module, side: int, run: Run) -> None:
    """Two updates on noise, with whatever moves in training."""
    stepping = optimizer.build_optimizer(network, Run(optimizer="adamw", learning_rate=0.1, weight_decay=0.1))
    for group in stepping.param_groups:
        group["lr"] = group["peak"]
    network.train()
    with optimizer.frozen(network, run, 0):
        for _ in range(2):
            stepping.zero_grad()
            functional.cross_entropy(network(torch.rand(4, 3, side, side)), torch.arange(4)).backward()
            stepping.step()


FAST_HEAD = {"learning_rate": 0.1, "head_learning_rate_scale": 10.0}
HEADS = ("fc.", "classifier.", "head.")
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
    groups = optimizer.parameter_groups(network, Run(**FAST_HEAD, weight_decay=0.01, layer_decay=decay))
    group_of = {id(parameter): group for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(group_of) == len(list(network.parameters()))
    assert len({(group["peak"], group["weight_decay"]) for group in groups}) == len(groups)
    for above, layer in enumerate(reversed(layers)):
        group = group_of[id(network.get_parameter(f"{layer}.weight"))]
        assert group["peak"] == pytest.approx(0.1 * decay**above * (1 if above else 10))
    for name, parameter in network.named_parameters():
        in_head, decays = name.startswith(HEADS), parameter.ndim > 1 and name not in UNDECAYED
        assert group_of[id(parameter)]["weight_decay"] == (0.01 if decays else 0.0)
        assert decay < 1 or group_of[id(parameter)]["peak"] == pytest.approx(1.0 if in_head else 0.1)


@pytest.mark.parametrize("architecture", SIDE)
def test_frozen_nothing_moves_but_the_last_layer(architecture):
    network = build.build_network(architecture)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trained(network, SIDE[architecture], Run(frozen_epochs=1))
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith(HEADS)}
    trained(network, SIDE[architecture], Run())
    still = {name for name, value in network.state_dict().items() if torch.equal(value, before[name])}
    assert not {name for name in still if name.endswith((".weight", "running_mean", "num_batches_tracked"))}


def test_frozen_gradients_are_not_even_computed_and_come_back_after_an_error_unless_never_wanted():
    network = build.build_network("test_resnet")
    fixed = network.conv1[0].weight.requires_grad_(False)
    network.train()
    with pytest.raises(ZeroDivisionError), optimizer.frozen(network, Run(frozen_epochs=1), 0):
        assert {name for name, one in network.named_parameters() if one.requires_grad} == {"fc.weight", "fc.bias"}
        assert not any(module.training for module in network.modules() if hasattr(module, "running_mean"))
        raise ZeroDivisionError
    assert all(one.requires_grad for one in network.parameters() if one is not fixed)
    assert not fixed.requires_grad
    assert all(module.training for module in network.modules())
    assert not any(fixed is one for group in optimizer.parameter_groups(network, Run()) for one in group["params"])


FIRST = {
    "test_resnet": ["conv1.", "bn1.", "layer1."],
    "test_vit": ["patch_embed.", "cls_token", "reg_", "pos_", "blocks.0."],
}


@pytest.mark.parametrize("architecture", FIRST)
def test_the_first_stages_stand_still_and_the_others_learn(architecture):
    network = build.build_network(architecture)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trained(network, SIDE[architecture], Run(architecture=architecture, frozen_stages=2))
    still = {name for name, value in network.state_dict().items() if torch.equal(value, before[name])}
    assert {name for name in still if name.endswith((".weight", "running_mean"))} == {
        name
        for name in before
        if name.startswith(tuple(FIRST[architecture])) and name.endswith((".weight", "running_mean"))
    }
    assert all(one.requires_grad for one in network.parameters()) and all(one.training for one in network.modules())


def test_more_stages_than_there_are_are_refused():
    run = Run(architecture="test_resnet", frozen_stages=9)
    with pytest.raises(ValueError, match="frozen_stages = 9: test_resnet has 4 before its last: at most that"):
        optimizer.parameters_of_stages(build.build_network("test_resnet"), run)


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_optimizer_is_the_one_asked_for_with_its_groups(name, kind):
    run = Run(optimizer=name, momentum=0.8, learning_rate=0.1, head_learning_rate_scale=5.0, weight_decay=0.02)
    found = optimizer.build_optimizer(build.build_network("test_resnet"), run)
    assert type(found) is kind
    assert {group["peak"] for group in found.param_groups} == {0.1, 0.5}
    assert {group["weight_decay"] for group in found.param_groups} == {0.0, 0.02}
    assert {group.get("momentum", group.get("betas", [None])[0]) for group in found.param_groups} == {0.8}


# Schedules.

STANDSTILL = (0.5, 0.5, 0.5, 0.5, 0.5)


def history(*macro_f1: float) -> list[dict[str, float]]:
    return [{"epoch": epoch, "val_macro_f1": value} for epoch, value in enumerate(macro_f1, start=1)]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle", "step", "plateau"])
def test_schedules_start_warm_peak_at_one_stay_positive_and_look_back_in_a_plateau_alone(schedule):
    run = Run(epochs=10, schedule=schedule, warmup_epochs=1.0, plateau_epochs=1)
    factors = [optimizer.learning_rate_factor(run, progress) for progress in np.linspace(0, 9.99, 400)]
    assert factors[0] < 0.01
    assert max(factors) == pytest.approx(1.0, abs=0.01)
    assert min(factors) > 0
    if schedule not in ("constant", "plateau"):
        assert factors[-1] < 0.02
    before, after = (optimizer.learning_rate_factor(run, 3.5, past) for past in ((), history(0.5, 0.4, 0.3)))
    assert (before == after) == (schedule != "plateau")


@pytest.mark.parametrize(("warmup_epochs", "peak"), [(0.0, 1.8), (0.5, 0.5), (3.0, 3.0)])
def test_one_cycle_rises_once_to_exactly_1_and_then_falls(warmup_epochs, peak):
    run = Run(epochs=6, schedule="one_cycle", warmup_epochs=warmup_epochs)
    progress = np.append(np.arange(0, 6, 0.01), peak)
    progress.sort()
    factors = np.array([optimizer.learning_rate_factor(run, moment) for moment in progress])
    top = int(factors.argmax())
    assert factors.max() == 1 and progress[top] == pytest.approx(peak)
    assert (np.diff(factors[: top + 1]) >= 0).all() and (np.diff(factors[top:]) <= 0).all()
    assert 0 < factors[0] < 0.01 and 0 < factors[-1] < 0.001


@pytest.mark.parametrize(
    ("macro_f1", "changes", "drops"),
    [
        ((), {}, 0),
        ((0.0, 0.0), {}, 0),  # the first is better than nothing
        ((0.5, 0.4, 0.5), {}, 1),  # as good is not better
        ((0.5, 0.4, 0.4, 0.4), {}, 1),
        ((0.5, 0.4, 0.4, 0.4, 0.4), {}, 2),
        ((0.5, 0.4, 0.4, 0.6, 0.7), {}, 1),  # what has fallen stays down
        ((0.5, 0.4, 0.6, 0.4, 0.7, 0.4), {}, 0),
        (STANDSTILL[:4], {"frozen_epochs": 3}, 0),  # frozen or warming up it has not begun in earnest
        (STANDSTILL, {"frozen_epochs": 3, "warmup_epochs": 1.0}, 1),
        (STANDSTILL[:4], {"warmup_epochs": 2.5}, 0),  # an epoch that began warming up is one
        (STANDSTILL, {"warmup_epochs": 2.5, "frozen_epochs": 1}, 1),
    ],
)
def test_after_each_plateau_a_tenth_is_left_or_the_run_stops_if_it_may(macro_f1, changes, drops):
    rows = history(*macro_f1)
    slowing = Run(epochs=10, schedule="plateau", plateau_epochs=2, **changes)
    assert optimizer.learning_rate_factor(slowing, len(rows) + 3.5, rows) == pytest.approx(0.1**drops)
    assert optimizer.stopped_early(Run(epochs=10, early_stop_epochs=2, **changes), rows) == (drops > 0)
    assert not optimizer.stopped_early(Run(epochs=10, early_stop_epochs=0, **changes), rows)


def test_a_run_of_one_cycle_does_not_stop_while_its_rate_rises():
    run = Run(epochs=10, schedule="one_cycle", early_stop_epochs=2)  # of ten epochs three rise
    assert [optimizer.stopped_early(run, history(*STANDSTILL[:past])) for past in (4, 5)] == [False, True]
