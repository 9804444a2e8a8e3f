"""What training minimises."""

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from mask_lib.base import labels
from mask_lib.base.config import Balance, Run
from mask_lib.training import ages

POWERS: dict[Balance, float] = {"none": 0.0, "sqrt": 0.5, "full": 1.0}
SUMMED_AXES = {"mask": (2, 3), "gender": (1, 3), "age": (1, 2)}  # of (B, mask, gender, age)


class AttributeTarget(NamedTuple):
    """One of those a network answers: which of the 18 classes, or which mask, gender or age."""

    logits: torch.Tensor  # (B, K) float32
    target: torch.Tensor  # (B,) int64, or (B, K) float32 probabilities
    shape: tuple[int, ...]  # sizes of the attributes whose combinations the K classes are
    smoothing: tuple[float, ...]  # of each of these attributes; empty: none
    counted: torch.Tensor | None  # (B,) float32, a photo's weight, 0 if its answer is not known; None: 1 for all


def class_weights(train_labels: np.ndarray, balance: Balance) -> torch.Tensor:
    """(18,) float32 weights of the classes: 1 / count^power, scaled so that their mean over photos is 1.

    A class without photos weighs 0. power: none 0, sqrt 1/2, full 1.
    """
    counts = np.bincount(train_labels, minlength=labels.CLASS_COUNT).astype(np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -POWERS[balance], 0.0)
    return torch.from_numpy(weights * counts.sum() / (weights * counts).sum()).float()


def loss_of(
    logits: torch.Tensor,
    target: torch.Tensor,
    run: Run,
    weights: torch.Tensor,
    known: torch.Tensor | None = None,
    photo_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scalar loss of (B, 18) float32 logits for (B,) int64 labels or, of mixed photos, (B, 18) probabilities.

    For an ordinal age head the targets have further columns, `ages.past_borders`.

    The run's `loss` over the 18 classes, plus `attribute_loss` times the sum of the same over the mask,
    gender and age that the 18 probabilities imply. The second part lets a rare class learn its age from
    all photos of that age. Three heads have the sum of their own losses, each times its weight, and nothing
    else: for cross-entropy with weights of 1 that is the 18-way one.

    known: (B, 3) bool, which attributes of each photo are, for targets as `partial_target` makes them. A
    photo counts for the attributes that are known, and for the 18 classes if all are. photo_weights: (B,)
    float32, None for 1 each. What photos lose is multiplied by them, summed and divided by B, never by
    the weights' sum, which would give a photo another weight in another batch.
    """
    past = None
    if target.is_floating_point():
        target, past = target[:, : labels.CLASS_COUNT], target[:, labels.CLASS_COUNT :]
    of_photo = target @ weights if target.is_floating_point() else weights[target]
    if known is not None:
        # The classes that a photo may be of, those without photos left out, which weigh 0.
        of_photo = of_photo / (target @ (weights > 0).float()).clamp_min(1e-12)
    smoothing, counted = run.attribute_label_smoothing, _counted(known, photo_weights)
    if run.head == "three":
        return _of_heads(_attributes(logits, target, smoothing, counted), past, run, of_photo)
    of_all = None if counted is None else counted.amin(dim=1)
    loss = _answered([AttributeTarget(logits, target, labels.SHAPE, smoothing, of_all)], run, of_photo)
    if run.attribute_loss:
        loss = loss + run.attribute_loss * _answered(_attributes(logits, target, smoothing, counted), run, of_photo)
    return loss


def _counted(known: torch.Tensor | None, photo_weights: torch.Tensor | None) -> torch.Tensor | None:
    """(B, 3) float32, how much each photo counts for mask, gender and age; None: 1 throughout."""
    if photo_weights is None:
        return None if known is None else known.float()
    whole = photo_weights[:, None].expand(-1, len(labels.SHAPE))
    return whole if known is None else whole * known


def _of_heads(
    questions: list[AttributeTarget], past: torch.Tensor | None, run: Run, of_photo: torch.Tensor
) -> torch.Tensor:
    """The scalar sum of three heads' losses, each times its weight; `past` as `ordinal_losses` takes it.

    An ordinal age head has a loss of its own, so `Run` takes none but cross-entropy beside it.
    """
    parts = [_answered([question], run, of_photo) for question in questions]
    if run.age_target == "ordinal":
        parts[-1] = (ordinal_losses(questions[-1], past, run) * of_photo).mean()
    return sum(weight * part for weight, part in zip(run.head_loss_weights, parts, strict=True))


def ordinal_losses(question: AttributeTarget, past: torch.Tensor, run: Run) -> torch.Tensor:
    """(B,) cross-entropies of being as old as each border, twice their mean over those that are known.

    question: that for age. past: (B, K) float32, 0 to 1, NaN where unknown. As in ordinal regression
    (CORAL, Cao et al. 2020) one line serves all borders: the logit of being past a border falls evenly with
    its years. Three groups tell the logits at the two borders that count, and so the whole line.
    """
    young, middle, old = question.logits.log_softmax(dim=1).unbind(1)
    first, last = torch.logaddexp(middle, old) - young, old - torch.logaddexp(young, middle)
    places = past.new_tensor(ages.border_places(run.old_from))
    logits = first[:, None] + (last - first)[:, None] * places
    kept, known = (1 - run.label_smoothing) * (1 - sum(question.smoothing)), past.isfinite()
    wanted = kept * past.nan_to_num() + (1 - kept) / 2
    losses = functional.binary_cross_entropy_with_logits(logits, wanted, known.float(), reduction="none").sum(dim=1)
    losses = 2 * losses / known.sum(dim=1).clamp_min(1)
    return losses if question.counted is None else losses * question.counted


def partial_target(attributes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, 18) float32 targets and (B, 3) bool `known`, of (B, 3) int64 mask, gender and age, -1 for unknown.

    What is unknown is spread evenly, so that the known attributes' marginals are right.
    """
    known = attributes >= 0
    parts = [
        torch.where(known[:, [place]], functional.one_hot(attributes[:, place].clamp_min(0), size).float(), 1 / size)
        for place, size in enumerate(labels.SHAPE)
    ]
    return torch.einsum("bm,bg,ba->bmga", *parts).flatten(1), known


def _attributes(
    logits: torch.Tensor, target: torch.Tensor, smoothing: tuple[float, ...], counted: torch.Tensor | None
) -> list[AttributeTarget]:
    """Those for mask, gender and age, answered by the marginals of the 18 probabilities."""
    cube, mixed = functional.log_softmax(logits, dim=1).view(-1, *labels.SHAPE), target.is_floating_point()
    wanted = target.view(-1, *labels.SHAPE) if mixed else torch.unravel_index(target, labels.SHAPE)
    found = []
    for place, name in enumerate(labels.ATTRIBUTES):
        # A log-probability is its own logit: a log_softmax leaves it as it is.
        marginal, axes = cube.logsumexp(SUMMED_AXES[name]), SUMMED_AXES[name]
        one = wanted.sum(axes) if mixed else wanted[place]
        of_it = None if counted is None else counted[:, place]
        found.append(
            AttributeTarget(marginal, one, labels.SHAPE[place : place + 1], smoothing[place : place + 1], of_it)
        )
    return found


def _answered(questions: list[AttributeTarget], run: Run, of_photo: torch.Tensor) -> torch.Tensor:
    """The scalar sum of the run's `loss` over questions; `of_photo`, (B,), weighs cross-entropy and focal loss.

    Macro F1 is neither smoothed nor weighted by class: it gives all classes the same say. Its counts are of
    what is there, each photo by its own weight.
    """
    loss = of_photo.new_zeros(())
    if run.loss != "f1":
        # The weights' mean over photos is 1, so the mean over a batch needs no division by their sum,
        # which would give a photo another weight in another batch.
        loss = (sum(photo_losses(question, run) for question in questions) * of_photo).mean()
    if run.loss in ("f1", "f1_cross_entropy"):
        loss = loss + sum(macro_f1_loss(question) for question in questions)
    return loss


def photo_losses(question: AttributeTarget, run: Run) -> torch.Tensor:
    """(B,) cross-entropy or focal loss with the run's label smoothing."""
    logits, target = question.logits, smoothed_target(question)
    if run.loss == "focal":
        losses = focal(logits, as_probabilities(target, logits.shape[1]), run.focal_gamma, run.label_smoothing)
    else:
        losses = functional.cross_entropy(logits, target, label_smoothing=run.label_smoothing, reduction="none")
    return losses if question.counted is None else losses * question.counted


def as_probabilities(target: torch.Tensor, class_count: int) -> torch.Tensor:
    """(B, K) float32 of (B,) int64 labels or of what is already that."""
    return target if target.is_floating_point() else functional.one_hot(target, class_count).float()


def smoothed_target(question: AttributeTarget) -> torch.Tensor:
    """The target with each attribute's share of `smoothing` spread evenly over that attribute's values.

    A photo's mask may be beyond doubt and its age not: smoothing (0, 0, 0.3) makes a class's target 0.8,
    and 0.1 for each of the same mask and gender at another age.
    """
    if not any(question.smoothing):
        return question.target
    cube = as_probabilities(question.target, question.logits.shape[1]).view(-1, *question.shape)
    for axis, amount in enumerate(question.smoothing, start=1):
        cube = (1 - amount) * cube + amount * cube.mean(axis, keepdim=True)
    return cube.flatten(1)


def focal(logits: torch.Tensor, wanted: torch.Tensor, gamma: float, label_smoothing: float) -> torch.Tensor:
    """(B,) focal loss, Lin et al. 2017: each class's cross-entropy times (1 - probability)^gamma.

    wanted: (B, K) float32 probabilities.
    """
    wanted = (1 - label_smoothing) * wanted + label_smoothing / logits.shape[1]
    log_probability = functional.log_softmax(logits, dim=1)
    missing = -torch.expm1(log_probability)  # 1 - probability, exact near 0
    # Below 1e-7 the slope of a gamma below 1 would be infinite.
    return -(wanted * missing.clamp_min(1e-7) ** gamma * log_probability).sum(dim=1)


def macro_f1_loss(question: AttributeTarget) -> torch.Tensor:
    """Scalar 1 - soft macro F1 of a batch, over the classes that are in it: 0 when every answer is right and sure.

    Probabilities are counted as shares of photos. What a class's photo is owed and got is the smaller of
    the two, which for whole labels is their product and for mixed ones is still at its best when both
    agree (Wang et al. 2023, Dice semimetric losses).
    """
    wanted = as_probabilities(question.target, question.logits.shape[1])
    given = functional.softmax(question.logits, dim=1)
    if question.counted is not None:
        wanted, given = wanted * question.counted[:, None], given * question.counted[:, None]
    there = wanted.sum(dim=0)
    f1 = 2 * torch.minimum(given, wanted).sum(dim=0) / (given.sum(dim=0) + there).clamp_min(1e-12)
    present = (there > 0).float()
    return 1 - (f1 * present).sum() / present.sum().clamp_min(1)
