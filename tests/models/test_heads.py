"""Runs with other heads, other ages and other normalisation train, resume and predict as all do."""

import itertools
import math
import typing

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from torch.nn import functional

from mask_lib.base import config, labels
from mask_lib.data import store
from mask_lib.ensemble import inference
from mask_lib.models import build, devices, networks, predict
from mask_lib.models.weights import first_weights
from mask_lib.training import loop
from mask_lib.training.loss import class_weights, loss_of
from mask_lib.training.targets import borders, fold_targets

EVEN = torch.ones(labels.CLASS_COUNT)
LOSSES = typing.get_args(config.Run.model_fields["loss"].annotation)
ORDINAL = config.Run(head="three", age_target="ordinal")


@pytest.fixture
def logits() -> torch.Tensor:
    """(12, 18) what three heads say."""
    features = torch.randn(12, 7, generator=torch.Generator().manual_seed(0)) * 4
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return networks.ThreeHeads(7)(features).detach()


@pytest.fixture
def target() -> torch.Tensor:
    return torch.tensor([0, 17, 5, 5, 9, 13, 1, 8, 2, 11, 16, 3])


def attribute_losses(logits: torch.Tensor, target: torch.Tensor) -> list[torch.Tensor]:
    """The mean cross-entropies of mask, gender and age alone."""
    parts = labels.marginals(logits.softmax(dim=1).numpy())
    wanted = torch.unravel_index(target, labels.SHAPE)
    return [
        functional.nll_loss(torch.from_numpy(part).log(), one) for part, one in zip(parts.values(), wanted, strict=True)
    ]


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (2.0, 0.0, 0.5), (0.0, 0.0, 1.0)])
def test_the_losses_of_three_heads_are_summed_with_their_weights(logits, target, weights):
    run = config.Run(head="three", head_loss_weights=weights)
    expected = sum(weight * part for weight, part in zip(weights, attribute_losses(logits, target), strict=True))
    torch.testing.assert_close(loss_of(logits, target, run, EVEN), expected)


def test_a_head_of_weight_0_learns_nothing():
    head = networks.ThreeHeads(7)
    run = config.Run(head="three", head_loss_weights=(1.0, 0.0, 1.0))
    loss_of(head(torch.randn(12, 7)), torch.arange(12), run, EVEN).backward()
    assert head.heads["mask"].weight.grad.abs().sum() > 0
    assert head.heads["gender"].weight.grad.abs().max() < 1e-6


@pytest.mark.parametrize("kind", LOSSES)
def test_three_heads_sum_their_losses_whatever_these_and_their_weights_are(logits, target, kind):
    """A weight of 1 is no other case than one of nearly 1."""
    run = config.Run(head="three", loss=kind, label_smoothing=0.1)
    alone = [config.Run(**{**run.settings(), "head_loss_weights": one}) for one in np.eye(3).tolist()]
    found = loss_of(logits, target, run, EVEN)
    torch.testing.assert_close(found, sum(loss_of(logits, target, one, EVEN) for one in alone))
    nearly = config.Run(**{**run.settings(), "head_loss_weights": (1.0, 1.0, 1.0 + 1e-6)})
    torch.testing.assert_close(loss_of(logits, target, nearly, EVEN), found, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("smoothing", [(), (0.0, 0.1, 0.3)])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_cross_entropies_of_three_heads_are_in_sum_the_joint_one(logits, target, mixed, label_smoothing, smoothing):
    settings = {"label_smoothing": label_smoothing, "attribute_label_smoothing": smoothing}
    weights = class_weights(target.numpy(), "sqrt")
    wanted = 0.7 * functional.one_hot(target, 18) + 0.3 * functional.one_hot(target.flip(0), 18) if mixed else target
    found = loss_of(logits, wanted, config.Run(head="three", **settings), weights)
    torch.testing.assert_close(found, loss_of(logits, wanted, config.Run(**settings), weights))


@pytest.mark.parametrize("kind", ["focal", "f1", "f1_cross_entropy"])
def test_weighted_heads_take_every_loss(logits, target, kind):
    run = config.Run(head="three", head_loss_weights=(2.0, 1.0, 1.0), loss=kind, class_balance="sqrt")
    logits = logits.requires_grad_()
    loss = loss_of(logits, target, run, class_weights(target.numpy(), "sqrt"))
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


def aged(*years: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets of an ordinal run for men with a mask of these ages, and the labels in them."""
    table = pd.DataFrame({"label": [int(labels.age_group(int(one))) for one in years], "age": map(float, years)})
    found = fold_targets(table, ORDINAL)
    return found.rows.target, torch.from_numpy(found.labels)


def of_years(middle: torch.Tensor, spread: float) -> torch.Tensor:
    """(B, 18) log-probabilities of heads sure of a man with a mask whose age is logistic around `middle` years."""
    past = torch.sigmoid((middle[:, None] - torch.tensor([30.0, 60.0])) / spread).double()
    groups = torch.stack([1 - past[:, 0], past[:, 0] - past[:, 1], past[:, 1]], dim=1)
    sure = torch.full((len(middle), 6), 1e-12, dtype=torch.float64)
    sure[:, 0] = 1
    return (sure[:, :, None] * groups[:, None]).flatten(1).log().float()


def test_the_ordinal_loss_is_that_of_each_border_on_the_line_through_the_two_that_count():
    middle = torch.tensor([22.0, 35.0, 52.0, 64.0])
    targets, _ = aged(25, 41, 59, 60)
    found = loss_of(of_years(middle, 4.0), targets, ORDINAL, EVEN)
    edges = torch.tensor(borders(ORDINAL), dtype=torch.float32)
    each = functional.binary_cross_entropy_with_logits((middle[:, None] - edges) / 4.0, targets[:, 18:])
    torch.testing.assert_close(found, 2 * each, atol=1e-4, rtol=1e-4)


def test_an_ordinal_head_hears_how_far_off_it_is_and_classes_do_not():
    """One of 31 and one of 55 are the same class; a guess of 45 years is as right for both to three classes."""
    guess = of_years(torch.tensor([52.0]), 4.0)
    near, far = (aged(years)[0] for years in (54, 31))
    assert loss_of(guess, far, ORDINAL, EVEN) > loss_of(guess, near, ORDINAL, EVEN) + 1
    plain = config.Run(head="three")
    assert loss_of(guess, aged(31)[1], plain, EVEN) == loss_of(guess, aged(54)[1], plain, EVEN)


def test_unknown_borders_count_for_nothing():
    guess = of_years(torch.tensor([45.0]), 4.0).requires_grad_()
    targets, _ = aged(50)
    targets[:, 18:] = math.nan
    loss = loss_of(guess, targets, ORDINAL, EVEN)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5) and guess.grad.isfinite().all()
    targets[:, 18:] = aged(50)[0][:, 18:]
    known = loss_of(guess, targets, ORDINAL, EVEN).item()
    targets[:, 18] = math.nan  # one of them, which the guess had right
    assert known < loss_of(guess, targets, ORDINAL, EVEN).item() < 1.2 * known


def test_ages_are_learned_in_order_from_years_alone():
    """Features that tell the age linearly: trained on years, the three groups come out right."""
    years = torch.arange(18, 71).float()
    features = torch.stack([(years - 45) / 15, torch.ones_like(years)], dim=1)
    targets, truth = aged(*years.tolist())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = networks.ThreeHeads(2)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        loss_of(head(features), targets, ORDINAL, EVEN).backward()
        optimizer.step()
    assert (head(features).argmax(dim=1) == truth).float().mean() > 0.95


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    toys.write_photos(folder, toys.table())
    return folder


YEARS = {0: 24, 1: 58, 2: 60}


def with_ages(splits: dict[int, pd.DataFrame], years: dict[int, float] | None = None) -> dict[int, pd.DataFrame]:
    """Everybody of a group has the same age."""
    groups = {fold: labels.decode_all(split["label"])["age"] for fold, split in splits.items()}
    return {
        fold: split.assign(age=[float((years or YEARS)[group]) for group in groups[fold]])
        for fold, split in splits.items()
    }


@pytest.fixture
def aged_toys(monkeypatch):
    """The toy's splits carry ages: everybody in the middle group is 58."""
    plain = toys.splits
    monkeypatch.setattr(toys, "splits", lambda photos: with_ages(plain(photos)))


RECIPES = {
    "attention": {"head": "attention"},
    "attention, photos normalised one by one": {"head": "attention", "per_image_norm": True},
    "three": {"head": "three"},
    "three, weighted": {"head": "three", "head_loss_weights": (0.5, 1.0, 2.0)},
    "three, ordinal": {"head": "three", "age_target": "ordinal", "old_from": 58},
    "three, ordinal, mixed": {"head": "three", "age_target": "ordinal", "mixing": "mixup", "mixing_probability": 1.0},
    "the old from 58 on, mixed": {"old_from": 58, "mixing": "cutmix_old", "mixing_probability": 1.0},
    "custom": {"architecture": networks.CUSTOM},
}


@pytest.mark.usefixtures("aged_toys")
@pytest.mark.parametrize("name", RECIPES)
def test_a_run_resumes_to_the_same_bits_and_its_checkpoint_alone_predicts(data, tmp_path, name):
    settings = {"folds": (0,), "attribute_loss": 0.0, **RECIPES[name]}
    whole = toys.train(data, tmp_path / "whole", **settings)
    assert whole.history["train_loss"].map(math.isfinite).all()
    with pytest.MonkeyPatch.context() as stopping:
        steps, train_step = iter(range(3)), loop.FoldTraining.train_step
        stopping.setattr(loop.FoldTraining, "train_step", lambda self, *rest: (next(steps), train_step(self, *rest))[1])
        with pytest.raises(StopIteration):
            toys.train(data, tmp_path / "broken", 0, **settings)
    resumed = toys.train(data, tmp_path / "broken", 0, **settings)
    pd.testing.assert_frame_equal(whole.out_of_fold, resumed.out_of_fold, check_exact=True)

    opened = store.open_store(data / "store", data / "train" / "images", list(toys.table()["path"]), toys.FRAME)
    source = devices.DevicePhotos(opened, torch.device("cpu"))
    path = tmp_path / "whole" / "runs" / "toy" / "fold0" / "checkpoint" / "best.safetensors"
    paths, columns = list(whole.out_of_fold["path"]), list(labels.PROBABILITY_COLUMNS)
    predicted = inference.mean_over_folds({0: path}, source, paths, predict.ONE_VIEW, tmp_path, "val")
    np.testing.assert_allclose(predicted, whole.out_of_fold[columns].to_numpy(), atol=1e-6)
    if settings.get("head") == "three":
        product = labels.joint(labels.marginals(predicted))
        np.testing.assert_allclose(product, predicted, atol=1e-6)


def test_a_toy_is_learned_by_three_heads_of_which_one_is_ordinal(tmp_path, monkeypatch):
    plain = toys.splits
    monkeypatch.setattr(toys, "splits", lambda photos: with_ages(plain(photos), {0: 24, 1: 45, 2: 64}))
    toys.write_photos(tmp_path, toys.table(people=48))
    changes = {"head": "three", "age_target": "ordinal", "attribute_loss": 0.0}
    result = toys.train(tmp_path, tmp_path, people=48, epochs=15, augmentation="none", dropout=0.0, **changes)
    truth, predicted = result.truth_and_prediction()
    assert (truth == predicted).mean() > 0.9


@pytest.mark.usefixtures("aged_toys")
def test_only_training_counts_people_of_58_as_old(data, tmp_path):
    """In the toy everybody of the middle group is 58: a network told so finds them old, and is scored wrong."""
    opened = store.open_store(data / "store", data / "train" / "images", list(toys.table()["path"]), toys.FRAME)
    run = config.Run(**{**toys.SETTINGS, "old_from": 58})
    split = toys.splits(toys.table())[0]
    fold = loop.FoldTraining(run, 0, split, devices.DevicePhotos(opened, torch.device("cpu")))
    groups = {part: set(labels.decode_all(found)["age"]) for part, found in fold.labels.items()}
    assert labels.AgeGroup.MIDDLE not in groups["train"]
    assert labels.AgeGroup.MIDDLE in groups["val"]
    assert set(fold.targets.rows.target.tolist()) == set(fold.labels["train"])
    result = toys.train(data, tmp_path, old_from=58)
    assert sorted(result.out_of_fold["label"].unique()) == sorted(toys.CLASSES)


def test_other_ages_refuse_to_resume_where_they_matter(data, tmp_path, monkeypatch):
    plain, years = toys.splits, itertools.cycle([{0: 24, 1: 58, 2: 60}, {0: 24, 1: 40, 2: 60}])
    monkeypatch.setattr(toys, "splits", lambda photos: with_ages(plain(photos), next(years)))
    toys.train(data, tmp_path, folds=(0,), run="shifted", old_from=58)
    with pytest.raises(config.ChangedSettingsError, match="the ages in years"):
        toys.train(data, tmp_path, folds=(0,), run="shifted", old_from=58)
    toys.train(data, tmp_path, folds=(0,))
    toys.train(data, tmp_path, folds=(0,))  # nobody asked for ages


def test_a_network_of_three_heads_is_built_from_its_settings_alone():
    run = config.Run(architecture="test_resnet", head="three", image_channels=4, dropout=0.5, weights="none")
    network = build.of_run(run)
    network.load_state_dict(first_weights(run, seed=3), strict=True)
    assert isinstance(network.get_classifier(), networks.ThreeHeads)
