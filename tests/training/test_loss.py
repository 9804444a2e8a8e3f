"""The loss is the plain one when all extras are off, and each extra does what it says."""

import math
import typing

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score
from torch.nn import functional

from mask_lib.base import labels
from mask_lib.base.config import Run
from mask_lib.models import networks
from mask_lib.training.loss import POWERS, borders, class_weights, fold_targets, loss_of

EVEN = torch.ones(18)
UNEVEN = np.repeat([0, 4, 17], [90, 9, 1])  # 90 photos of class 0, one of class 17
LOSSES = typing.get_args(Run.model_fields["loss"].annotation)
UNLIKE = (0.0, 0.1, 0.3)  # smoothing of each attribute
ORDINAL = Run(head="three", age_target="ordinal")
TASKS = {  # two attributes, none of them a number, and one attribute alone
    "two": (labels.Attribute("helmet", ("no", "yes"), "ab"), labels.Attribute("vest", ("a", "b", "c"), "cde")),
    "one": (labels.Attribute("kind", ("rose", "tulip", "daisy"), "abc"),),
}


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(12, 18, generator=torch.Generator().manual_seed(0)) * 3


@pytest.fixture
def head_logits() -> torch.Tensor:
    """(12, 18) what three heads say."""
    features = torch.randn(12, 7, generator=torch.Generator().manual_seed(0)) * 4
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return networks.AttributeHeads(7)(features).detach()


@pytest.fixture
def target() -> torch.Tensor:
    return torch.tensor([0, 17, 5, 5, 9, 13, 1, 8, 2, 11, 16, 3])


def soft(target: torch.Tensor) -> torch.Tensor:
    """The same labels as (B, C) probabilities."""
    return functional.one_hot(target, labels.class_count()).float()


def attribute_losses(logits: torch.Tensor, target: torch.Tensor, smoothing: typing.Sequence[float]) -> list[float]:
    """The mean cross-entropy of each attribute alone, by NumPy and the marginals of `labels`."""
    found, truth = [], labels.decode_all(target.numpy())
    parts = labels.marginals(functional.softmax(logits.double(), dim=1).numpy())
    for (name, part), amount in zip(parts.items(), smoothing, strict=True):
        size = part.shape[1]
        wanted = (1 - amount) * np.eye(size)[truth[name]] + amount / size
        found.append(-(wanted * np.log(part)).sum(axis=1).mean())
    return found


# Weights of classes and photos.


@pytest.mark.parametrize(("balance", "ratio"), [("none", 1), ("sqrt", 90**0.5), ("full", 90)])
def test_a_rare_class_weighs_as_much_more_as_the_balance_says(balance, ratio):
    weights = class_weights(UNEVEN, balance)
    assert (weights.shape, weights.dtype) == ((18,), torch.float32)
    assert (weights[17] / weights[0]).item() == pytest.approx(ratio, rel=1e-5)
    assert weights[UNEVEN].mean().item() == pytest.approx(1, abs=1e-6)
    assert set(weights.nonzero().flatten().tolist()) == {0, 4, 17}
    assert set(POWERS) == set(typing.get_args(Run.model_fields["class_balance"].annotation))


def test_a_photo_weighs_the_same_in_every_batch(logits):
    weights, target = class_weights(UNEVEN, "full"), torch.tensor([0, 17] * 6)
    whole = loss_of(logits, target, Run(), weights)
    alone = [loss_of(logits[[row]], target[[row]], Run(), weights) for row in range(12)]
    torch.testing.assert_close(whole, torch.stack(alone).mean())


@pytest.mark.parametrize("soft_target", [False, True])
@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
def test_a_weight_of_a_half_halves_a_photos_gradient_and_no_others(logits, target, loss, soft_target):
    run, weights = Run(loss=loss, attribute_loss=0.5), class_weights(target.numpy(), "sqrt")
    wanted = soft(target) if soft_target else target
    gradients = []
    for weight in (1.0, 0.5, 0.0):
        photo_weights = torch.ones(len(target))
        photo_weights[3] = weight
        leaf = logits.clone().requires_grad_()
        loss_of(leaf, wanted, run, weights, photo_weights).backward()
        gradients.append(leaf.grad)
    whole, half, none = gradients
    torch.testing.assert_close(half[3], whole[3] / 2)
    assert whole[3].abs().max() > 1e-4 and not none[3].any()
    others = torch.arange(len(target)) != 3
    assert torch.equal(half[others], whole[others]) and torch.equal(none[others], whole[others])


def test_the_f1_loss_counts_a_photo_of_weight_2_as_two(logits, target):
    photo_weights = torch.ones(len(target))
    photo_weights[5] = 2
    run, twice = Run(loss="f1", attribute_loss=1.0), [*range(len(target)), 5]
    found = loss_of(logits, target, run, EVEN, photo_weights)
    torch.testing.assert_close(found, loss_of(logits[twice], target[twice], run, EVEN))


# Cross-entropy, attributes, smoothing.


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_without_extras_the_loss_is_the_cross_entropy_of_torch(logits, target, label_smoothing):
    expected = functional.cross_entropy(logits, target, label_smoothing=label_smoothing)
    torch.testing.assert_close(loss_of(logits, target, Run(label_smoothing=label_smoothing), EVEN), expected)


@pytest.mark.parametrize(
    ("smoothing", "of_each"),
    [({}, (0, 0, 0)), ({"label_smoothing": 0.1}, (0.1, 0.1, 0.1)), ({"attribute_label_smoothing": UNLIKE}, UNLIKE)],
)
def test_the_attribute_losses_are_those_of_the_marginals(logits, target, smoothing, of_each):
    both, plain = (loss_of(logits, target, Run(attribute_loss=much, **smoothing), EVEN) for much in (0.5, 0.0))
    assert (both - plain).item() == pytest.approx(0.5 * sum(attribute_losses(logits, target, of_each)), rel=1e-4)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("mixed", [False, True])
def test_other_attributes_have_losses_of_their_own(task, mixed):
    with labels.using(TASKS[task]):
        logits = torch.randn(7, labels.class_count(), generator=torch.Generator().manual_seed(0))
        target, weights = torch.arange(7) % labels.class_count(), torch.ones(labels.class_count())
        found = soft(target) if mixed else target
        alone = attribute_losses(logits, target, (0.0,) * len(labels.names()))
        cross_entropy = functional.cross_entropy(logits, target).item()
        both = loss_of(logits, found, Run(attribute_loss=0.5), weights)
        assert both.item() == pytest.approx(cross_entropy + 0.5 * sum(alone), rel=1e-5)
        heads = loss_of(logits, found, Run(head="three"), weights)
        assert heads.item() == pytest.approx(sum(alone), rel=1e-5)
        smoothing = (0.1,) * len(labels.names())
        for loss in LOSSES:
            run = Run(loss=loss, attribute_loss=1.0, attribute_label_smoothing=smoothing)
            assert loss_of(logits, found, run, weights).isfinite()


def test_smoothing_by_attribute_spreads_over_the_values_of_that_attribute(logits):
    target = torch.tensor([labels.encode(mask=0, gender=1, age=2)])
    wanted = np.einsum("m,g,a->mga", [1, 0, 0], [0.05, 0.95], [0.1, 0.1, 0.8]).ravel()
    found = loss_of(logits[:1], target, Run(attribute_label_smoothing=UNLIKE), EVEN)
    assert found.item() == pytest.approx(-wanted @ functional.log_softmax(logits[0], dim=0).numpy(), rel=1e-5)


# Every loss.


@pytest.mark.parametrize("attribute_loss", [0.0, 1.0])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("loss", LOSSES)
def test_labels_and_the_same_as_probabilities_cost_the_same(logits, target, loss, label_smoothing, attribute_loss):
    smoothing = {"label_smoothing": label_smoothing, "attribute_label_smoothing": (0.0, 0.1, 0.2)}
    run, weights = Run(loss=loss, attribute_loss=attribute_loss, **smoothing), class_weights(target.numpy(), "sqrt")
    found = loss_of(logits, soft(target), run, weights)
    torch.testing.assert_close(found, loss_of(logits, target, run, weights))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_few_steps_along_any_loss_find_the_labels(target, loss):
    logits = torch.zeros(len(target), 18, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        loss_of(logits, target, Run(loss=loss, attribute_loss=0.5), EVEN).backward()
        assert logits.grad.isfinite().all()
        optimizer.step()
    assert torch.equal(logits.argmax(dim=1), target)


@pytest.mark.parametrize(
    "extras", [{"label_smoothing": 0.1}, *({"loss": "focal", "focal_gamma": g} for g in (0.3, 3.0))]
)
@pytest.mark.parametrize("scale", [1, 1e4])
def test_the_gradient_is_finite_however_sure_the_answer(logits, target, extras, scale):
    logits = (logits * scale).requires_grad_()
    loss = loss_of(logits, target, Run(attribute_loss=1.0, **extras), class_weights(target.numpy(), "sqrt"))
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


def test_a_mixed_photo_costs_what_its_shares_cost_and_weighs_what_its_classes_weigh(logits, target):
    other, run = target.flip(0), Run(label_smoothing=0.1)
    parts = [loss_of(logits, one, run, EVEN) for one in (target, other)]
    found = loss_of(logits, 0.7 * soft(target) + 0.3 * soft(other), run, EVEN)
    torch.testing.assert_close(found, 0.7 * parts[0] + 0.3 * parts[1])
    weights, mixed = class_weights(UNEVEN, "full"), 0.25 * soft(torch.tensor([0])) + 0.75 * soft(torch.tensor([17]))
    plain, found = (loss_of(logits[:1], mixed, Run(), one) for one in (EVEN, weights))
    torch.testing.assert_close(found, plain * (0.25 * weights[0] + 0.75 * weights[17]))


# Focal loss and macro F1.


@pytest.mark.parametrize("attribute_loss", [0.0, 1.0])
def test_focal_loss_with_gamma_0_is_cross_entropy(logits, target, attribute_loss):
    extras = {"label_smoothing": 0.1, "attribute_loss": attribute_loss}
    weights = class_weights(target.numpy(), "full")
    focal = loss_of(logits, target, Run(loss="focal", focal_gamma=0.0, **extras), weights)
    torch.testing.assert_close(focal, loss_of(logits, target, Run(**extras), weights))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_is_cross_entropy_times_what_is_missing_to_the_power_of_gamma(logits, target, gamma):
    chance = functional.softmax(logits, dim=1)[torch.arange(len(target)), target]
    found = loss_of(logits, target, Run(loss="focal", focal_gamma=gamma), EVEN)
    torch.testing.assert_close(found, (-((1 - chance) ** gamma) * chance.log()).mean())


def test_the_f1_loss_of_answers_beyond_doubt_is_the_macro_f1_over_the_classes_there():
    random = np.random.default_rng(0)
    truth = random.integers(0, 9, 200)
    predicted = np.where(random.random(200) < 0.6, truth, random.integers(0, 12, 200))
    found = loss_of(200 * soft(torch.from_numpy(predicted)), torch.from_numpy(truth), Run(loss="f1"), EVEN)
    expected = f1_score(truth, predicted, average="macro", labels=range(9))
    assert found.item() == pytest.approx(1 - expected, abs=1e-5)


def test_the_f1_loss_of_a_mixed_photo_is_least_for_its_shares():
    target, other = soft(torch.tensor([3, 5])), soft(torch.tensor([9, 11]))
    costs = {}
    for share in (0.5, 0.7, 0.9):
        given = (share * target + (1 - share) * other).clamp_min(1e-9).log()
        costs[share] = loss_of(given, 0.7 * target + 0.3 * other, Run(loss="f1"), EVEN).item()
    assert costs[0.7] == pytest.approx(0, abs=1e-5)
    assert min(costs[0.5], costs[0.9]) > 0.1


def test_f1_and_cross_entropy_is_their_sum_and_only_the_second_is_weighted(logits, target):
    weights = class_weights(UNEVEN, "full")
    f1, cross_entropy, both = (
        loss_of(logits, target, Run(loss=loss, attribute_loss=0.5), weights)
        for loss in ("f1", "cross_entropy", "f1_cross_entropy")
    )
    torch.testing.assert_close(both, f1 + cross_entropy)
    torch.testing.assert_close(f1, loss_of(logits, target, Run(loss="f1", attribute_loss=0.5), EVEN))


def test_the_f1_loss_counts_attributes_too(logits, target):
    expected = loss_of(logits, target, Run(loss="f1"), EVEN).item()
    for name, given in labels.marginals(functional.softmax(logits, dim=1).double().numpy()).items():
        wanted = np.eye(given.shape[1])[labels.decode_all(target.numpy())[name]]
        expected += 1 - (2 * (given * wanted).sum(axis=0) / (given + wanted).sum(axis=0)).mean()
    found = loss_of(logits, target, Run(loss="f1", attribute_loss=1.0), EVEN)
    assert found.item() == pytest.approx(expected, rel=1e-5)


# Heads apart.


@pytest.mark.parametrize("kind", LOSSES)
def test_three_heads_sum_whatever_loss_they_have_with_their_weights(head_logits, target, kind):
    run = Run(head="three", loss=kind, label_smoothing=0.1, head_loss_weights=(2.0, 0.0, 0.5))
    alone = [loss_of(head_logits, target, run.replace(head_loss_weights=one), EVEN) for one in np.eye(3).tolist()]
    if kind == "cross_entropy":
        assert [one.item() for one in alone] == pytest.approx(attribute_losses(head_logits, target, (0.1,) * 3))
    head_logits = head_logits.requires_grad_()
    found = loss_of(head_logits, target, run, EVEN)
    torch.testing.assert_close(found, 2 * alone[0] + 0.5 * alone[2])
    found.backward()
    assert head_logits.grad.isfinite().all()


@pytest.mark.parametrize("smoothing", [(), UNLIKE])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_cross_entropies_of_three_heads_are_in_sum_the_joint_one(
    head_logits, target, mixed, label_smoothing, smoothing
):
    run = Run(label_smoothing=label_smoothing, attribute_label_smoothing=smoothing)
    weights = class_weights(target.numpy(), "sqrt")
    wanted = 0.7 * soft(target) + 0.3 * soft(target.flip(0)) if mixed else target
    found = loss_of(head_logits, wanted, run.replace(head="three"), weights)
    torch.testing.assert_close(found, loss_of(head_logits, wanted, run, weights))


def test_auxiliary_logits_have_the_same_loss_as_often_as_the_run_says(logits, target):
    run = Run(aux_loss=0.4, attribute_loss=0.5)
    main, auxiliary = (loss_of(one, target, run, EVEN) for one in (logits, logits.flip(0)))
    torch.testing.assert_close(
        loss_of(torch.stack([logits, logits.flip(0)], dim=1), target, run, EVEN), main + 0.4 * auxiliary
    )


# An ordinal head.


def aged(*years: float) -> torch.Tensor:
    """Targets of an ordinal run for men with a mask of these ages."""
    groups = [labels.attribute("age").value_of(one) for one in years]
    return fold_targets(pd.DataFrame({"person": "a", "label": groups, "age": map(float, years)}), ORDINAL).rows.target


def of_years(middle: torch.Tensor, spread: float) -> torch.Tensor:
    """(B, 18) log-probabilities of heads sure of a man with a mask whose age is logistic around `middle` years."""
    past = torch.sigmoid((middle[:, None] - torch.tensor([30.0, 60.0])) / spread).double()
    groups = torch.stack([1 - past[:, 0], past[:, 0] - past[:, 1], past[:, 1]], dim=1)
    sure = torch.full((len(middle), 6), 1e-12, dtype=torch.float64)
    sure[:, 0] = 1
    return (sure[:, :, None] * groups[:, None]).flatten(1).log().float()


def test_the_ordinal_loss_is_that_of_each_border_on_the_line_through_the_two_that_count():
    middle = torch.tensor([22.0, 35.0, 52.0, 64.0])
    targets = aged(25, 41, 59, 60)
    found = loss_of(of_years(middle, 4.0), targets, ORDINAL, EVEN)
    edges = torch.tensor(borders(ORDINAL), dtype=torch.float32)
    each = functional.binary_cross_entropy_with_logits((middle[:, None] - edges) / 4.0, targets[:, 18:])
    torch.testing.assert_close(found, 2 * each, atol=1e-4, rtol=1e-4)


def test_unknown_borders_count_for_nothing():
    guess = of_years(torch.tensor([45.0]), 4.0).requires_grad_()
    targets = aged(50)
    known = loss_of(guess, targets, ORDINAL, EVEN).item()
    targets[:, 18] = math.nan  # one of them, which the guess had right
    assert known < loss_of(guess, targets, ORDINAL, EVEN).item() < 1.2 * known
    targets[:, 18:] = math.nan
    loss = loss_of(guess, targets, ORDINAL, EVEN)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5) and guess.grad.isfinite().all()
