"""What training minimises."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mask_lib.base import labels
from mask_lib.base.config import Run
from mask_lib.models import devices
from mask_lib.training import targets

POWERS = {"none": 0.0, "sqrt": 0.5, "full": 1.0}


class AttributeTarget(NamedTuple):
    """What a network says, and should say, of one attribute or of the classes, which are all attributes at once."""

    logits: Tensor  # (B, K) float32
    target: Tensor  # (B,) int64, or (B, K) float32 probabilities
    shape: tuple[int, ...]  # sizes of the attributes whose combinations the K classes are
    smoothing: tuple[float, ...]  # of each of these attributes; empty: none
    photo_weights: Tensor | None  # (B,) float32; None: 1 for all


def class_weights(train_labels: np.ndarray, balance: str) -> Tensor:
    """(C,) float32 weights of the classes: 1 / count^power, scaled so that their mean over photos is 1.

    A class without photos weighs 0. balance: none, sqrt or full, whose power is 0, 1/2 or 1.
    """
    counts = np.bincount(train_labels, minlength=labels.class_count()).astype(np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -POWERS[balance], 0.0)
    return torch.from_numpy(weights * counts.sum() / (weights * counts).sum()).float()


def loss_of(logits: Tensor, target: Tensor, run: Run, weights: Tensor, photo_weights: Tensor | None = None) -> Tensor:
    """Scalar loss of (B, C) float32 logits for (B,) int64 labels or, of mixed photos, (B, C) probabilities.

    The run's `loss` over the C classes, plus `attribute_loss` times the sum of the same over the attributes that
    the class probabilities imply: so a rare class learns its age from all photos of that age. Of head three only
    the attributes' losses, each times its weight; of cross-entropy with weights of 1 they are in sum the one over
    classes. For an ordinal run the targets have further columns, `targets.past_borders`.

    weights: (C,) of `class_weights`. photo_weights: (B,) float32, None for 1 each. Losses of photos are multiplied
    by both and averaged over B; over the sum of weights, a photo's weight would depend on its batch.
    logits: or (B, 2, C), with those of an auxiliary classifier, whose loss is the same and counts `aux_loss` times.
    """
    if logits.ndim == 3:
        main, auxiliary = (loss_of(one, target, run, weights, photo_weights) for one in logits.unbind(1))
        return main + run.aux_loss * auxiliary
    past_borders = None
    if target.is_floating_point():
        target, past_borders = target[:, : labels.class_count()], target[:, labels.class_count() :]
    weight_of_photo = target @ weights if target.is_floating_point() else weights[target]
    joint = AttributeTarget(logits, target, labels.shape(), run.attribute_label_smoothing, photo_weights)
    if run.by_attribute:
        return _heads_loss(attribute_targets(joint), past_borders, run, weight_of_photo)
    loss = _summed_loss([joint], run, weight_of_photo)
    if run.attribute_loss:
        loss = loss + run.attribute_loss * _summed_loss(attribute_targets(joint), run, weight_of_photo)
    return loss


def attribute_targets(joint: AttributeTarget) -> list[AttributeTarget]:
    """One for each attribute, from the marginals of class probabilities."""
    shape, mixed = joint.shape, joint.target.is_floating_point()
    log_probability, found = functional.log_softmax(joint.logits, dim=1), []
    for place, size in enumerate(shape):
        before, after = math.prod(shape[:place]), math.prod(shape[place + 1 :])
        sides = (-1, before, size, after)
        # A log-probability is its own logit: a log_softmax leaves it as it is.
        logits = log_probability.view(sides).logsumexp((1, 3))
        # By hand: unravel_index would copy the sizes to the GPU, which the host waits for.
        target = joint.target.view(sides).sum((1, 3)) if mixed else joint.target // after % size
        found.append(AttributeTarget(logits, target, (size,), joint.smoothing[place : place + 1], joint.photo_weights))
    return found


def _heads_loss(heads: list[AttributeTarget], past_borders: Tensor | None, run: Run, weight_of_photo: Tensor) -> Tensor:
    """Scalar sum of the heads' losses, each times its weight; `past_borders` as `ordinal_losses` takes it."""
    parts = [_summed_loss([head], run, weight_of_photo) for head in heads]
    if run.age_target == "ordinal":  # `Run` takes no loss but cross-entropy beside it
        place = labels.names().index(labels.number().name)
        parts[place] = (ordinal_losses(heads[place], past_borders, run) * weight_of_photo).mean()
    return sum(weight * part for weight, part in zip(run.attribute_weights(), parts, strict=True))


def ordinal_losses(head: AttributeTarget, past_borders: Tensor, run: Run) -> Tensor:
    """(B,) cross-entropies of being past each border, twice their mean over those that are known.

    head: that of the number. past_borders: (B, K) float32, 0 to 1, NaN where unknown. As in ordinal regression
    (CORAL, Cao et al. 2020) the logit of being past a border falls on a line as the border rises. The head has
    but a logit for each group; those of being past the first and the last edge follow from them, and these two
    points fix the line for all borders. Twice the mean, as three groups are two borders.
    """
    groups = head.logits.log_softmax(dim=1).unbind(1)
    first = functools.reduce(torch.logaddexp, groups[1:]) - groups[0]
    last = groups[-1] - functools.reduce(torch.logaddexp, groups[:-1])
    places = devices.constant(tuple(targets.border_places(run)), past_borders.device)
    logits = first[:, None] + (last - first)[:, None] * places
    # What both smoothings take from the label is spread over past and not past.
    kept, known = (1 - run.label_smoothing) * (1 - sum(head.smoothing)), past_borders.isfinite()
    wanted = kept * past_borders.nan_to_num() + (1 - kept) / 2
    losses = functional.binary_cross_entropy_with_logits(logits, wanted, known.float(), reduction="none").sum(dim=1)
    losses = 2 * losses / known.sum(dim=1).clamp_min(1)
    return losses if head.photo_weights is None else losses * head.photo_weights


def _summed_loss(parts: Sequence[AttributeTarget], run: Run, weight_of_photo: Tensor) -> Tensor:
    """The scalar sum of the run's `loss` over targets; `weight_of_photo`, (B,), weighs all but macro F1.

    Macro F1 is neither smoothed nor weighted by class: it counts what is there, and gives all classes the same say.
    """
    loss = weight_of_photo.new_zeros(())
    if run.loss != "f1":
        loss = (sum(photo_losses(part, run) for part in parts) * weight_of_photo).mean()
    if run.loss in ("f1", "f1_cross_entropy"):
        loss = loss + sum(macro_f1_loss(part) for part in parts)
    return loss


def photo_losses(part: AttributeTarget, run: Run) -> Tensor:
    """(B,) cross-entropy or focal loss with the run's label smoothing."""
    logits, target = part.logits, smoothed_target(part)
    if run.loss == "focal":
        losses = focal(logits, as_probabilities(target, logits.shape[1]), run.focal_gamma, run.label_smoothing)
    else:
        losses = functional.cross_entropy(logits, target, label_smoothing=run.label_smoothing, reduction="none")
    return losses if part.photo_weights is None else losses * part.photo_weights


def as_probabilities(target: Tensor, class_count: int) -> Tensor:
    """(B, K) float32 of (B,) int64 labels or of what is already that."""
    return target if target.is_floating_point() else functional.one_hot(target, class_count).float()


def smoothed_target(part: AttributeTarget) -> Tensor:
    """The target with each attribute's share of `smoothing` spread evenly over that attribute's values.

    A photo's mask may be beyond doubt and its age not: smoothing (0, 0, 0.3) makes a class's target 0.8, and 0.1
    for each that differs in its age alone. One axis after the other gives of a label the product of
    the attributes' own smoothed targets.
    """
    if not any(part.smoothing):
        return part.target
    cube = as_probabilities(part.target, part.logits.shape[1]).view(-1, *part.shape)
    for axis, amount in enumerate(part.smoothing, start=1):
        cube = (1 - amount) * cube + amount * cube.mean(axis, keepdim=True)
    return cube.flatten(1)


def focal(logits: Tensor, wanted: Tensor, gamma: float, label_smoothing: float) -> Tensor:
    """(B,) focal loss, Lin et al. 2017: each class's cross-entropy times (1 - probability)^gamma.

    wanted: (B, K) float32 probabilities.
    """
    wanted = (1 - label_smoothing) * wanted + label_smoothing / logits.shape[1]
    log_probability = functional.log_softmax(logits, dim=1)
    missing = -torch.expm1(log_probability)  # 1 - probability, exact near 0
    # Below 1e-7 the slope of a gamma below 1 would be infinite.
    return -(wanted * missing.clamp_min(1e-7) ** gamma * log_probability).sum(dim=1)


def macro_f1_loss(part: AttributeTarget) -> Tensor:
    """Scalar 1 - soft macro F1 of a batch, over the classes that are in it: 0 when every answer is right and sure.

    Probabilities are counted as shares of photos, of which the smaller of target and answer is right. For whole
    labels that is their product; for mixed ones the product is largest for an answer sure of the larger share,
    the smaller of both where they agree (Wang et al. 2023, Dice semimetric losses).
    """
    wanted = as_probabilities(part.target, part.logits.shape[1])
    given = functional.softmax(part.logits, dim=1)
    if part.photo_weights is not None:
        wanted, given = wanted * part.photo_weights[:, None], given * part.photo_weights[:, None]
    there = wanted.sum(dim=0)
    f1 = 2 * torch.minimum(given, wanted).sum(dim=0) / (given.sum(dim=0) + there).clamp_min(1e-12)
    present = (there > 0).float()
    return 1 - (f1 * present).sum() / present.sum().clamp_min(1)
