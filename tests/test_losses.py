"""The loss is the plain one when all extras are off, and each extra does what it says."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from mask_lib import labels, losses
from mask_lib.config import Run

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


@pytest.mark.parametrize("balance", losses.POWERS)
def test_the_mean_weight_of_the_photos_is_one(balance):
    weights = losses.class_weights(UNEVEN, balance)
    assert (weights.shape, weights.dtype) == ((labels.CLASS_COUNT,), torch.float32)
    assert weights[UNEVEN].mean().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("balance", "ratio"), [("none", 1), ("sqrt", 90**0.5), ("full", 90)])
def test_a_rare_class_weighs_as_much_more_as_the_balance_says(balance, ratio):
    weights = losses.class_weights(UNEVEN, balance)
    assert (weights[17] / weights[0]).item() == pytest.approx(ratio, rel=1e-5)


def test_full_balance_gives_every_class_present_the_same_say():
    weights = losses.class_weights(UNEVEN, "full")
    says = [weights[label].item() * (label == UNEVEN).sum() for label in (0, 4, 17)]
    assert says == pytest.approx([100 / 3] * 3, rel=1e-5)


@pytest.mark.parametrize("balance", losses.POWERS)
def test_a_class_without_photos_weighs_nothing(balance):
    weights = losses.class_weights(UNEVEN, balance)
    assert set(weights.nonzero().flatten().tolist()) == {0, 4, 17}


def test_without_extras_the_loss_is_plain_cross_entropy(logits, target):
    found = losses.loss_of(logits, target, Run(), EVEN)
    torch.testing.assert_close(found, functional.cross_entropy(logits, target))


def test_label_smoothing_is_that_of_torch_and_punishes_certainty(logits, target):
    smoothed = Run(label_smoothing=0.2)
    expected = functional.cross_entropy(logits, target, label_smoothing=0.2)
    torch.testing.assert_close(losses.loss_of(logits, target, smoothed, EVEN), expected)
    sure, right = confident(4), torch.tensor([4])
    assert losses.loss_of(sure, right, smoothed, EVEN) > losses.loss_of(sure, right, Run(), EVEN) + 0.5


def test_a_photo_weighs_the_same_in_every_batch(logits, target):
    weights = losses.class_weights(UNEVEN, "full")
    target = torch.tensor([0, 17] * 6)
    whole = losses.loss_of(logits, target, Run(), weights)
    alone = [losses.loss_of(logits[[row]], target[[row]], Run(), weights) for row in range(12)]
    torch.testing.assert_close(whole, torch.stack(alone).mean())


def test_a_mistake_in_a_rare_class_costs_more(logits):
    weights = losses.class_weights(UNEVEN, "sqrt")
    wrong = confident(9)
    common, rare = (losses.loss_of(wrong, torch.tensor([label]), Run(), weights) for label in (0, 17))
    assert rare > 5 * common


def test_the_attribute_losses_are_those_of_the_marginals(logits, target):
    found = losses.loss_of(logits, target, Run(attribute_loss=0.5), EVEN)
    probabilities = functional.softmax(logits.double(), dim=1).numpy()
    truth = labels.decode_all(target.numpy())
    rows = np.arange(len(target))
    parts = [-np.log(one[rows, truth[name]]).mean() for name, one in labels.marginals(probabilities).items()]
    expected = functional.cross_entropy(logits, target).item() + 0.5 * sum(parts)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_smoothed_attribute_losses_are_those_of_the_smoothed_marginals(logits, target):
    run = Run(attribute_loss=1.0, label_smoothing=0.1)
    alone = losses.loss_of(logits, target, run, EVEN) - functional.cross_entropy(logits, target, label_smoothing=0.1)
    probabilities = functional.softmax(logits.double(), dim=1).numpy()
    expected = 0.0
    for (name, one), size in zip(labels.marginals(probabilities).items(), labels.SHAPE, strict=True):
        wanted = 0.9 * np.eye(size)[labels.decode_all(target.numpy())[name]] + 0.1 / size
        expected -= (wanted * np.log(one)).sum(axis=1).mean()
    assert alone.item() == pytest.approx(expected, rel=1e-4)


def test_the_right_age_under_the_wrong_mask_is_punished_less_than_both_wrong():
    truth = torch.tensor([labels.encode(labels.Mask.WORN, labels.Gender.MALE, labels.AgeGroup.FROM_60)])
    right_age = confident(labels.encode(labels.Mask.NOT_WORN, labels.Gender.MALE, labels.AgeGroup.FROM_60))
    both_wrong = confident(labels.encode(labels.Mask.NOT_WORN, labels.Gender.MALE, labels.AgeGroup.UNDER_30))
    plain = [losses.loss_of(one, truth, Run(), EVEN) for one in (right_age, both_wrong)]
    with_attributes = [losses.loss_of(one, truth, Run(attribute_loss=1.0), EVEN) for one in (right_age, both_wrong)]
    torch.testing.assert_close(plain[0], plain[1])
    assert with_attributes[0] < with_attributes[1] - 1


@pytest.mark.parametrize("scale", [1, 1e4])
def test_the_gradient_is_finite_and_leads_downhill(logits, target, scale):
    run = Run(label_smoothing=0.1, attribute_loss=1.0, class_balance="sqrt")
    weights = losses.class_weights(target.numpy(), "sqrt")
    logits = (logits * scale).requires_grad_()
    loss = losses.loss_of(logits, target, run, weights)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    step = 0.1 * logits.grad
    assert losses.loss_of(logits.detach() - step, target, run, weights) < loss
