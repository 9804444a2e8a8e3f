"""What training minimises."""

import numpy as np
import torch
from torch.nn import functional

from mask_lib import labels
from mask_lib.config import Balance, Run

POWERS: dict[Balance, float] = {"none": 0.0, "sqrt": 0.5, "full": 1.0}
SUMMED_AXES = {"mask": (2, 3), "gender": (1, 3), "age": (1, 2)}  # of (B, mask, gender, age)


def class_weights(train_labels: np.ndarray, balance: Balance) -> torch.Tensor:
    """(18,) float32 weights of the classes: 1 / count^power, scaled so that their mean over photos is 1.

    A class without photos weighs 0. power: none 0, sqrt 1/2, full 1.
    """
    counts = np.bincount(train_labels, minlength=labels.CLASS_COUNT).astype(np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -POWERS[balance], 0.0)
    return torch.from_numpy(weights * counts.sum() / (weights * counts).sum()).float()


def loss_of(logits: torch.Tensor, target: torch.Tensor, run: Run, weights: torch.Tensor) -> torch.Tensor:
    """Scalar loss of (B, 18) float32 logits for (B,) int64 labels.

    Weighted cross-entropy with label smoothing over the 18 classes, plus `attribute_loss` times the
    cross-entropies of the mask, gender and age that the 18 probabilities imply. The second part lets
    a rare class learn its age from all photos of that age.
    """
    # The weights' mean over photos is 1, so the mean over a batch needs no division by their sum,
    # which would give a photo another weight in another batch.
    smoothed = functional.cross_entropy(logits, target, label_smoothing=run.label_smoothing, reduction="none")
    of_photo = weights[target]
    loss = (smoothed * of_photo).mean()
    if run.attribute_loss:
        attributes = sum(_attribute_losses(logits, target, run.label_smoothing).values())
        loss = loss + run.attribute_loss * (attributes * of_photo).mean()
    return loss


def _attribute_losses(logits: torch.Tensor, target: torch.Tensor, smoothing: float) -> dict[str, torch.Tensor]:
    """Per attribute the (B,) cross-entropy of its marginal probabilities."""
    cube = functional.log_softmax(logits, dim=1).view(-1, *labels.SHAPE)
    wanted = torch.unravel_index(target, labels.SHAPE)
    found = {}
    for name, one in zip(labels.ATTRIBUTES, wanted, strict=True):
        # A log-probability is its own logit: cross_entropy's log_softmax leaves it as it is.
        marginal = cube.logsumexp(SUMMED_AXES[name])
        found[name] = functional.cross_entropy(marginal, one, label_smoothing=smoothing, reduction="none")
    return found
