"""What training minimises: the targets of a fold's training rows, and the loss of a network's answers to them.

Targets are labels, numbers such as ages, weights. old_from and age_target change what is learned, not what is scored.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from mask_lib.base import labels
from mask_lib.base.config import Run
from mask_lib.models import devices
from mask_lib.training import dataset

POWERS = {"none": 0.0, "sqrt": 0.5, "full": 1.0}
BORDER_STEPS = 6  # between the first and the last edge: borders of an ordinal head lie every 5 years from 30 to 60
BORDER_STEPS_BELOW = 2  # so many more lie below the first edge: at 20 and 25 years


class BatchTargets(NamedTuple):
    """Of the B photos of a batch, as `loss_of` takes it."""

    target: Tensor  # (B,) int64 labels, or (B, C) float32 probabilities, or (B, C + K) with `past_borders`
    weights: Tensor | None = None  # (B,) float32, how much each photo counts; None: 1 each


class FoldTargets(NamedTuple):
    """Of the N train rows of a split."""

    labels: np.ndarray  # (N,) int64 as training counts them
    is_real: np.ndarray  # (N,) bool: rows without a pseudo-label, by which classes are counted
    rows: BatchTargets  # of all N, on the device


def fold_targets(train: pd.DataFrame, run: Run, device: torch.device | str = "cpu") -> FoldTargets:
    """Those of a split's train rows; (N, C + K) if ordinal. Raises as `reads_numbers` and `known_numbers` do."""
    found = target = train["label"].to_numpy(np.int64)
    if reads_numbers(run):
        numbers = known_numbers(train)
        number, values = labels.number(), labels.decode_all(found)
        is_moved = (numbers >= run.last_edge()) & (numbers < number.edges[-1])  # NaN is neither
        found = target = labels.encode_all(values | {number.name: values[number.name] + is_moved})
        if run.age_target == "ordinal":
            one_hot = np.eye(labels.class_count(), dtype=np.float32)[found]
            target = np.hstack([one_hot, past_borders(found, numbers, run)])
    weights = torch.from_numpy(train["weight"].to_numpy(np.float32)).to(device) if "weight" in train else None
    return FoldTargets(found, dataset.is_real(train).to_numpy(), BatchTargets(torch.tensor(target).to(device), weights))


def reads_numbers(run: Run) -> bool:
    """Whether a run's training reads numbers such as ages in years. ValueError for an ordinal one of one edge."""
    number, ordinal = labels.number(), run.age_target == "ordinal"
    if ordinal and len(number.edges) < 2:  # two logits tell one border, and no line through several
        raise ValueError(f"age_target = 'ordinal': {number.name} must be cut at two edges or more")
    return number is not None and (ordinal or run.last_edge() != number.edges[-1])


def known_numbers(rows: pd.DataFrame) -> np.ndarray:
    """(N,) float64 numbers of a split's rows, NaN where unknown or of another group than the label's.

    Where the two differ a reviewer has changed the label, and the label holds. Raises ValueError without the column.
    """
    number = labels.number()
    if number.name not in rows:
        raise ValueError(f"old_from and age_target: ordinal need a split's column {number.name}, which is not there")
    numbers = rows[number.name].to_numpy("float64", na_value=np.nan)
    groups = labels.decode_all(rows["label"])[number.name]
    return np.where(np.digitize(numbers, number.edges) == groups, numbers, np.nan)


def borders(run: Run) -> tuple[int, ...]:
    """The numbers whose passing an ordinal head learns: the edges that count, and others between and around."""
    first, *between, last = labels.number().edges
    step = max(round((last - first) / BORDER_STEPS), 1)
    return tuple(sorted({*range(first - BORDER_STEPS_BELOW * step, last, step), first, *between, run.last_edge()}))


def past_borders(train_labels: np.ndarray, numbers: np.ndarray, run: Run) -> np.ndarray:
    """(N, K) float32, 1 where a photo's number, or its whole group, is at a border or past it, else 0; NaN: unknown."""
    number, edges = labels.number(), np.array(borders(run))
    groups, ends = labels.decode_all(train_labels)[number.name], np.array([-np.inf, *number.edges, np.inf])
    bounds = ends[groups], ends[groups + 1]  # of the group, or of a number that is known both this number
    least, below = (np.where(np.isnan(numbers), one, numbers)[:, None] for one in bounds)
    return np.where(least >= edges, 1.0, np.where(below <= edges, 0.0, np.nan)).astype(np.float32)


def border_places(run: Run) -> list[float]:
    """Where each border lies on a line on which the first edge is 0 and `run.last_edge()` 1."""
    first, last = labels.number().edges[0], run.last_edge()
    return [(edge - first) / (last - first) for edge in borders(run)]


class AttributeTarget(NamedTuple):
    """What a network says, and should say, of one attribute or of the classes, which are all attributes at once."""

    logits: Tensor  # (B, K) float32
    target: Tensor  # (B,) int64, or (B, K) float32 probabilities
    shape: tuple[int, ...]  # sizes of the attributes whose combinations the K classes are
    smoothing: tuple[float, ...]  # of each of these attributes; empty: none
    photo_weights: Tensor | None  # (B,) float32; None: 1 for all


def class_weights(train_labels: np.ndarray, balance: str) -> Tensor:
    """(C,) float32: 1 / count^`POWERS[balance]`, scaled to a mean of 1 over photos; 0 for classes without photos."""
    counts = np.bincount(train_labels, minlength=labels.class_count()).astype(np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -POWERS[balance], 0.0)
    return torch.from_numpy(weights * counts.sum() / (weights * counts).sum()).float()


def loss_of(logits: Tensor, target: Tensor, run: Run, weights: Tensor, photo_weights: Tensor | None = None) -> Tensor:
    """Scalar loss of (B, C) float32 logits for (B,) int64 labels or, of mixed photos, (B, C) probabilities.

    The run's `loss` over the C classes, plus `attribute_loss` times the sum of the same over the attributes that
    the class probabilities imply: so a rare class learns its age from all photos of that age. Of head three only
    the attributes' losses, each times its weight; of cross-entropy with weights of 1 they are in sum the one over
    classes. For an ordinal run the targets have further columns, `past_borders`.

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
        heads = attribute_targets(joint)
        parts = [_summed_loss([head], run, weight_of_photo) for head in heads]
        if run.age_target == "ordinal":  # `Run` takes no loss but cross-entropy beside it
            place = labels.names().index(labels.number().name)
            parts[place] = (ordinal_losses(heads[place], past_borders, run) * weight_of_photo).mean()
        return sum(weight * part for weight, part in zip(run.attribute_weights(), parts, strict=True))
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
    places = devices.constant(tuple(border_places(run)), past_borders.device)
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

    A photo's mask may be beyond doubt and its age not: smoothing (0, 0, 0.3) makes a class's target 0.8, and 0.1 for
    each that differs in its age alone. Axis by axis that gives the product of the attributes' smoothed targets.
    """
    if not any(part.smoothing):
        return part.target
    cube = as_probabilities(part.target, part.logits.shape[1]).view(-1, *part.shape)
    for axis, amount in enumerate(part.smoothing, start=1):
        cube = (1 - amount) * cube + amount * cube.mean(axis, keepdim=True)
    return cube.flatten(1)


def focal(logits: Tensor, wanted: Tensor, gamma: float, label_smoothing: float) -> Tensor:
    """(B,) focal loss (Lin et al. 2017) for (B, K) float32 probabilities: cross-entropy x (1 - probability)^gamma."""
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
