"""The loss is the plain one when all extras are off, and each extra does what it says."""

import typing

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch.nn import functional

from mask_lib.base import labels
from mask_lib.base.config import Loss, Run
from mask_lib.training.loss import (
    POWERS,
    AttributeTarget,
    class_weights,
    loss_of,
    macro_f1_loss,
    partial_target,
    smoothed_target,
)

EVEN = torch.ones(labels.CLASS_COUNT)
UNEVEN = np.repeat([0, 4, 17], [90, 9, 1])  # 90 photos of class 0, one of class 17


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(12, labels.CLASS_COUNT, generator=torch.Generator().manual_seed(0)) * 3


@pytest.fixture
def target() -> torch.Tensor:
    return torch.tensor([0, 17, 5, 5, 9, 13, 1, 8, 2, 11, 16, 3])


def confident(label: int) -> torch.Tensor:
    """(1, 18) logits all but sure of one class."""
    return functional.one_hot(torch.tensor([label]), labels.CLASS_COUNT).float() * 8


@pytest.mark.parametrize("balance", POWERS)
def test_the_mean_weight_of_the_photos_is_one(balance):
    weights = class_weights(UNEVEN, balance)
    assert (weights.shape, weights.dtype) == ((labels.CLASS_COUNT,), torch.float32)
    assert weights[UNEVEN].mean().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("balance", "ratio"), [("none", 1), ("sqrt", 90**0.5), ("full", 90)])
def test_a_rare_class_weighs_as_much_more_as_the_balance_says(balance, ratio):
    weights = class_weights(UNEVEN, balance)
    assert (weights[17] / weights[0]).item() == pytest.approx(ratio, rel=1e-5)


def test_full_balance_gives_every_class_present_the_same_say():
    weights = class_weights(UNEVEN, "full")
    says = [weights[label].item() * (label == UNEVEN).sum() for label in (0, 4, 17)]
    assert says == pytest.approx([100 / 3] * 3, rel=1e-5)


@pytest.mark.parametrize("balance", POWERS)
def test_a_class_without_photos_weighs_nothing(balance):
    weights = class_weights(UNEVEN, balance)
    assert set(weights.nonzero().flatten().tolist()) == {0, 4, 17}


def test_without_extras_the_loss_is_plain_cross_entropy(logits, target):
    found = loss_of(logits, target, Run(), EVEN)
    torch.testing.assert_close(found, functional.cross_entropy(logits, target))


def test_label_smoothing_is_that_of_torch_and_punishes_certainty(logits, target):
    smoothed = Run(label_smoothing=0.2)
    expected = functional.cross_entropy(logits, target, label_smoothing=0.2)
    torch.testing.assert_close(loss_of(logits, target, smoothed, EVEN), expected)
    sure, right = confident(4), torch.tensor([4])
    assert loss_of(sure, right, smoothed, EVEN) > loss_of(sure, right, Run(), EVEN) + 0.5


def test_a_photo_weighs_the_same_in_every_batch(logits, target):
    weights = class_weights(UNEVEN, "full")
    target = torch.tensor([0, 17] * 6)
    whole = loss_of(logits, target, Run(), weights)
    alone = [loss_of(logits[[row]], target[[row]], Run(), weights) for row in range(12)]
    torch.testing.assert_close(whole, torch.stack(alone).mean())


def test_a_mistake_in_a_rare_class_costs_more(logits):
    weights = class_weights(UNEVEN, "sqrt")
    wrong = confident(9)
    common, rare = (loss_of(wrong, torch.tensor([label]), Run(), weights) for label in (0, 17))
    assert rare > 5 * common


def test_the_attribute_losses_are_those_of_the_marginals(logits, target):
    found = loss_of(logits, target, Run(attribute_loss=0.5), EVEN)
    probabilities = functional.softmax(logits.double(), dim=1).numpy()
    truth = labels.decode_all(target.numpy())
    rows = np.arange(len(target))
    parts = [-np.log(one[rows, truth[name]]).mean() for name, one in labels.marginals(probabilities).items()]
    expected = functional.cross_entropy(logits, target).item() + 0.5 * sum(parts)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_smoothed_attribute_losses_are_those_of_the_smoothed_marginals(logits, target):
    run = Run(attribute_loss=1.0, label_smoothing=0.1)
    alone = loss_of(logits, target, run, EVEN) - functional.cross_entropy(logits, target, label_smoothing=0.1)
    probabilities = functional.softmax(logits.double(), dim=1).numpy()
    expected = 0.0
    for (name, one), size in zip(labels.marginals(probabilities).items(), labels.SHAPE, strict=True):
        wanted = 0.9 * np.eye(size)[labels.decode_all(target.numpy())[name]] + 0.1 / size
        expected -= (wanted * np.log(one)).sum(axis=1).mean()
    assert alone.item() == pytest.approx(expected, rel=1e-4)


def test_the_right_age_under_the_wrong_mask_is_punished_less_than_both_wrong():
    truth = torch.tensor([labels.encode(labels.Mask.WORN, labels.Gender.MALE, labels.AgeGroup.OLD)])
    right_age = confident(labels.encode(labels.Mask.NOT_WORN, labels.Gender.MALE, labels.AgeGroup.OLD))
    both_wrong = confident(labels.encode(labels.Mask.NOT_WORN, labels.Gender.MALE, labels.AgeGroup.YOUNG))
    plain = [loss_of(one, truth, Run(), EVEN) for one in (right_age, both_wrong)]
    with_attributes = [loss_of(one, truth, Run(attribute_loss=1.0), EVEN) for one in (right_age, both_wrong)]
    torch.testing.assert_close(plain[0], plain[1])
    assert with_attributes[0] < with_attributes[1] - 1


@pytest.mark.parametrize("scale", [1, 1e4])
def test_the_gradient_is_finite_and_leads_downhill(logits, target, scale):
    run = Run(label_smoothing=0.1, attribute_loss=1.0, class_balance="sqrt")
    weights = class_weights(target.numpy(), "sqrt")
    logits = (logits * scale).requires_grad_()
    loss = loss_of(logits, target, run, weights)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    step = 0.1 * logits.grad
    assert loss_of(logits.detach() - step, target, run, weights) < loss


LOSSES = typing.get_args(Loss)


def soft(target: torch.Tensor) -> torch.Tensor:
    """The same labels as (B, 18) probabilities."""
    return functional.one_hot(target, labels.CLASS_COUNT).float()


def cost_of_attributes(logits: torch.Tensor, attributes: torch.Tensor, run: Run) -> torch.Tensor:
    """The loss for (B, 3) mask, gender and age, -1 for unknown."""
    target, known = partial_target(attributes)
    return loss_of(logits, target, run, EVEN, known)


def answers(logits: torch.Tensor, target: torch.Tensor) -> AttributeTarget:
    return AttributeTarget(logits, target, labels.SHAPE, (), None)


@pytest.mark.parametrize("attribute_loss", [0.0, 1.0])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("loss", LOSSES)
def test_labels_and_the_same_as_probabilities_cost_the_same(logits, target, loss, label_smoothing, attribute_loss):
    run = Run(
        loss=loss,
        label_smoothing=label_smoothing,
        attribute_loss=attribute_loss,
        attribute_label_smoothing=(0.0, 0.1, 0.2),
    )
    weights = class_weights(target.numpy(), "sqrt")
    found = loss_of(logits, soft(target), run, weights)
    torch.testing.assert_close(found, loss_of(logits, target, run, weights))


@pytest.mark.parametrize("attribute_loss", [0.0, 1.0])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_focal_loss_with_gamma_0_is_cross_entropy(logits, target, label_smoothing, attribute_loss):
    extras = {"label_smoothing": label_smoothing, "attribute_loss": attribute_loss}
    weights = class_weights(target.numpy(), "full")
    focal = loss_of(logits, target, Run(loss="focal", focal_gamma=0.0, **extras), weights)
    torch.testing.assert_close(focal, loss_of(logits, target, Run(**extras), weights))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_is_cross_entropy_times_what_is_missing_to_the_power_of_gamma(logits, target, gamma):
    chance = functional.softmax(logits, dim=1)[torch.arange(len(target)), target]
    found = loss_of(logits, target, Run(loss="focal", focal_gamma=gamma), EVEN)
    torch.testing.assert_close(found, (-((1 - chance) ** gamma) * chance.log()).mean())


def test_focal_loss_all_but_forgets_what_is_right():
    right, wrong = confident(4), confident(5)
    costs = {loss: [loss_of(one, torch.tensor([4]), Run(loss=loss), EVEN) for one in (right, wrong)]
             for loss in ("cross_entropy", "focal")}  # fmt: skip
    assert costs["focal"][0] < 1e-3 * costs["cross_entropy"][0]
    torch.testing.assert_close(costs["focal"][1], costs["cross_entropy"][1], rtol=0.02, atol=0)


def test_the_f1_loss_of_perfect_answers_is_0_and_of_wholly_wrong_ones_1(target):
    perfect = 200 * soft(target)
    assert macro_f1_loss(answers(perfect, target)).item() == pytest.approx(0, abs=1e-6)
    target = torch.tensor([0, 1, 2, 2, 3])
    assert macro_f1_loss(answers(200 * soft(target + 9), target)).item() == 1


def test_the_f1_loss_of_answers_beyond_doubt_is_the_macro_f1_over_the_classes_there():
    random = np.random.default_rng(0)
    truth = random.integers(0, 12, 200)
    predicted = np.where(random.random(200) < 0.6, truth, random.integers(0, 12, 200))
    found = macro_f1_loss(answers(200 * soft(torch.from_numpy(predicted)), torch.from_numpy(truth)))
    assert found.item() == pytest.approx(1 - f1_score(truth, predicted, average="macro"), abs=1e-5)


def test_the_f1_loss_of_a_mixed_photo_is_least_for_its_shares():
    mixed = 0.7 * soft(torch.tensor([3, 5])) + 0.3 * soft(torch.tensor([9, 11]))
    exact = macro_f1_loss(answers(mixed.clamp_min(1e-9).log(), mixed))
    assert exact.item() == pytest.approx(0, abs=1e-5)
    for share in (0.5, 0.9):
        other = share * soft(torch.tensor([3, 5])) + (1 - share) * soft(torch.tensor([9, 11]))
        assert macro_f1_loss(answers(other.clamp_min(1e-9).log(), mixed)) > 0.1


def test_f1_and_cross_entropy_is_their_sum_and_only_the_second_is_weighted(logits, target):
    weights = class_weights(UNEVEN, "full")
    f1, cross_entropy, both = (
        loss_of(logits, target, Run(loss=loss, attribute_loss=0.5), weights)
        for loss in ("f1", "cross_entropy", "f1_cross_entropy")
    )
    torch.testing.assert_close(both, f1 + cross_entropy)
    torch.testing.assert_close(f1, loss_of(logits, target, Run(loss="f1", attribute_loss=0.5), EVEN))


def test_the_f1_loss_counts_attributes_too(logits, target):
    parts = functional.softmax(logits, dim=1).double().numpy()
    expected = macro_f1_loss(answers(logits, target)).item()
    for name, given in labels.marginals(parts).items():
        wanted = np.eye(given.shape[1])[labels.decode_all(target.numpy())[name]]
        expected += 1 - (2 * (given * wanted).sum(axis=0) / (given + wanted).sum(axis=0)).mean()
    found = loss_of(logits, target, Run(loss="f1", attribute_loss=1.0), EVEN)
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_few_steps_along_any_loss_find_the_labels(target, loss):
    logits = torch.zeros(len(target), labels.CLASS_COUNT, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        loss_of(logits, target, Run(loss=loss, attribute_loss=0.5), EVEN).backward()
        assert logits.grad.isfinite().all()
        optimizer.step()
    assert torch.equal(logits.argmax(dim=1), target)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 3.0])
def test_focal_gradients_are_finite_even_for_answers_beyond_doubt(logits, target, gamma):
    logits = (logits * 1e4).requires_grad_()
    loss_of(logits, target, Run(loss="focal", focal_gamma=gamma, attribute_loss=1.0), EVEN).backward()
    assert logits.grad.isfinite().all()


def test_smoothing_by_attribute_spreads_over_the_values_of_that_attribute():
    target = torch.tensor([labels.encode(labels.Mask.WORN, labels.Gender.FEMALE, labels.AgeGroup.OLD)])
    question = AttributeTarget(torch.zeros(1, 18), target, labels.SHAPE, (0.0, 0.1, 0.3), None)
    cube = smoothed_target(question).view(labels.SHAPE).numpy()
    expected = np.einsum("m,g,a->mga", [1, 0, 0], [0.05, 0.95], [0.1, 0.1, 0.8])
    np.testing.assert_allclose(cube, expected, atol=1e-7)


def test_smoothing_by_attribute_reaches_the_attribute_losses(logits, target):
    run = Run(attribute_loss=1.0, attribute_label_smoothing=(0.0, 0.1, 0.3))
    plain = Run(attribute_label_smoothing=(0.0, 0.1, 0.3))
    alone = loss_of(logits, target, run, EVEN) - loss_of(logits, target, plain, EVEN)
    expected, parts = 0.0, labels.marginals(functional.softmax(logits.double(), dim=1).numpy())
    for (name, given), amount in zip(parts.items(), run.attribute_label_smoothing, strict=True):
        size = given.shape[1]
        wanted = (1 - amount) * np.eye(size)[labels.decode_all(target.numpy())[name]] + amount / size
        expected -= (wanted * np.log(given)).sum(axis=1).mean()
    assert alone.item() == pytest.approx(expected, rel=1e-4)


def test_a_mixed_photo_costs_what_its_shares_cost(logits, target):
    other = target.flip(0)
    mixed, run = 0.7 * soft(target) + 0.3 * soft(other), Run(label_smoothing=0.1)
    parts = [loss_of(logits, one, run, EVEN) for one in (target, other)]
    torch.testing.assert_close(loss_of(logits, mixed, run, EVEN), 0.7 * parts[0] + 0.3 * parts[1])


def test_a_mixed_photo_weighs_what_its_classes_weigh_in_their_shares(logits):
    weights = class_weights(UNEVEN, "full")
    mixed = 0.25 * soft(torch.tensor([0])) + 0.75 * soft(torch.tensor([17]))
    found = loss_of(logits[:1], mixed, Run(), weights)
    plain = loss_of(logits[:1], mixed, Run(), EVEN)
    torch.testing.assert_close(found, plain * (0.25 * weights[0] + 0.75 * weights[17]))


@pytest.mark.parametrize("loss", LOSSES)
def test_of_a_photo_without_age_only_mask_and_gender_teach(loss):
    run = Run(loss=loss, attribute_loss=1.0)
    logits = torch.randn(1, 18, generator=torch.Generator().manual_seed(1)).requires_grad_()
    cost_of_attributes(logits, torch.tensor([[2, 1, -1]]), run).backward()
    cube = functional.softmax(logits.detach(), dim=1).view(labels.SHAPE)
    # A step along the gradient moves mask and gender, but no age within any of them.
    within = logits.grad.view(labels.SHAPE) / cube
    torch.testing.assert_close(within, within[:, :, :1].expand(labels.SHAPE), atol=1e-5, rtol=1e-4)
    assert logits.grad.abs().max() > 1e-3


@pytest.mark.parametrize("loss", LOSSES)
def test_a_photo_of_which_nothing_is_known_teaches_nothing(logits, target, loss):
    run = Run(loss=loss, attribute_loss=1.0, label_smoothing=0.1)
    attributes = torch.stack(torch.unravel_index(target, labels.SHAPE), dim=1)
    attributes[:4] = -1
    logits = logits.requires_grad_()
    cost_of_attributes(logits, attributes, run).backward()
    assert not logits.grad[:4].any()
    assert logits.grad[4:].any(dim=1).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_whole_labels_given_by_their_attributes_cost_the_same(logits, target, loss):
    run = Run(loss=loss, attribute_loss=1.0, label_smoothing=0.1)
    attributes = torch.stack(torch.unravel_index(target, labels.SHAPE), dim=1)
    found = cost_of_attributes(logits, attributes, run)
    torch.testing.assert_close(found, loss_of(logits, target, run, EVEN))


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
        loss_of(leaf, wanted, run, weights, photo_weights=photo_weights).backward()
        gradients.append(leaf.grad)
    whole, half, none = gradients
    torch.testing.assert_close(half[3], whole[3] / 2)
    assert whole[3].abs().max() > 1e-4 and not none[3].any()
    others = torch.arange(len(target)) != 3
    assert torch.equal(half[others], whole[others]) and torch.equal(none[others], whole[others])


@pytest.mark.parametrize("head", ["linear", "three"])
@pytest.mark.parametrize("loss", LOSSES)
def test_weights_of_1_change_no_bit(logits, target, loss, head):
    extras = {"head_loss_weights": (1.0, 1.0, 2.0)} if head == "three" else {"attribute_loss": 0.5}
    run = Run(loss=loss, head=head, **extras)
    found = loss_of(logits, target, run, EVEN, photo_weights=torch.ones(len(target)))
    assert torch.equal(found, loss_of(logits, target, run, EVEN))


def test_the_f1_loss_counts_a_photo_of_weight_2_as_two(logits, target):
    photo_weights = torch.ones(len(target))
    photo_weights[5] = 2
    run, twice = Run(loss="f1", attribute_loss=1.0), [*range(len(target)), 5]
    found = loss_of(logits, target, run, EVEN, photo_weights=photo_weights)
    torch.testing.assert_close(found, loss_of(logits[twice], target[twice], run, EVEN))


OLD_ALONE = torch.tensor([[-1, -1, int(labels.AgeGroup.OLD)]])


@pytest.mark.parametrize("loss", LOSSES)
def test_a_photo_of_which_only_the_age_is_known_teaches_age_and_nothing_through_18_outputs(loss):
    logits = torch.randn(1, 18, generator=torch.Generator().manual_seed(1)).requires_grad_()
    cost_of_attributes(logits, OLD_ALONE, Run(loss=loss)).backward()
    assert not logits.grad.any()
    cost_of_attributes(logits, OLD_ALONE, Run(loss=loss, attribute_loss=1.0)).backward()
    within = logits.grad.view(labels.SHAPE) / functional.softmax(logits.detach(), dim=1).view(labels.SHAPE)
    torch.testing.assert_close(within, within[:1, :1].expand(labels.SHAPE), atol=1e-5, rtol=1e-4)
    assert (logits.grad.view(labels.SHAPE)[:, :, labels.AgeGroup.OLD] < 0).all()


def test_a_partial_photo_weighs_what_the_classes_weigh_that_it_may_be(logits):
    """Of the old there are only photos of class 17: the five other classes, which weigh 0, do not dilute it."""
    run, weights = Run(attribute_loss=1.0), class_weights(UNEVEN, "full")
    target, known = partial_target(OLD_ALONE)
    found = loss_of(logits[:1], target, run, weights, known)
    torch.testing.assert_close(found, weights[17] * loss_of(logits[:1], target, run, EVEN, known))
