"""Two photos in one, with both their labels: mixup, and cutmix in boxes, halves and with a partner of the oldest.

Mixup: Zhang et al. 2018; cutmix: Yun et al. 2019. NumPy draws, so that the same seed mixes alike on any device.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from mask_lib.base import labels
from mask_lib.base.config import Run
from mask_lib.training.loss import BatchTargets, as_probabilities


def photos_of_last_group(train_labels: np.ndarray) -> np.ndarray:
    """Positions in the (N,) `train_labels` of the last group of `labels.number()`. ValueError if there is none."""
    number = labels.number()
    found = np.flatnonzero(labels.decode_all(train_labels)[number.name] == number.size - 1)
    if not len(found):
        raise ValueError(f"mixing = 'cutmix_old': no training photo of {number.name} {number.words[-1]} to mix with")
    return found


def with_partners(batch: np.ndarray, partners: np.ndarray | None, random: Generator) -> tuple[np.ndarray, np.ndarray]:
    """(positions to load, where among them the partner of each of the first B stands), for the (B,) `batch`.

    Partners are the batch itself in another order; or any of `partners`, since a batch may hold none of them.
    """
    count = len(batch)
    if partners is None:
        return batch, random.permutation(count)
    return np.concatenate([batch, random.choice(partners, count)]), np.arange(count, 2 * count)


def mixed(photos: Tensor, targets: BatchTargets, partner: Tensor, kept: Tensor) -> tuple[Tensor, BatchTargets]:
    """The first B of `photos`, (≥ B, C, H, W) float32, each mixed with its partner, and their targets.

    targets: of all `photos`; partner: (B,) int64 places among them; kept: as `as_shares` gives it. Mixed targets are
    (B, C) float32; weights are mixed by the same shares.
    """
    count, shares = len(partner), kept.mean(dim=(1, 2, 3)).view(-1, 1)
    target, weights = as_probabilities(targets.target, labels.class_count()), targets.weights
    blend = target[:count] * shares + target[partner] * (1 - shares)
    # What is not there at all must not count: an unknown border is NaN, and 0 times that is no 0.
    target = torch.where(shares == 1, target[:count], torch.where(shares == 0, target[partner], blend))
    if weights is not None:
        weights = weights[:count] * shares[:, 0] + weights[partner] * (1 - shares[:, 0])
    return photos[:count] * kept + photos[partner] * (1 - kept), BatchTargets(target, weights)


def drawn_parts(run: Run, count: int, height: int, width: int, random: Generator) -> tuple[np.ndarray, ...]:
    """What each of `count` photos keeps of itself, with a row for each: (B,) float32 shares of mixup, or of cutmix the
    `boxes` that its partner fills. A photo that is not among the share `mixing_probability` keeps all.
    """
    chosen = random.random((count, 1)) < run.mixing_probability
    if run.mixing == "mixup":
        share = np.where(chosen, random.beta(run.mixing_alpha, run.mixing_alpha, (count, 1)), 1.0)
        return (share[:, 0].astype(np.float32),)
    down, across = boxes(run, count, height, width, random)
    return down & chosen, across


def as_shares(parts: Sequence[Tensor]) -> Tensor:
    """(B, 1, H, W) or (B, 1, 1, 1) float32 of `drawn_parts`: what each pixel keeps of itself, 0 to 1."""
    if len(parts) == 1:
        return parts[0].view(-1, 1, 1, 1)
    rows, columns = parts
    return 1 - (rows[:, None, :, None] & columns[:, None, None, :]).float()


def boxes(run: Run, count: int, height: int, width: int, random: Generator) -> tuple[np.ndarray, np.ndarray]:
    """(count, H) and (count, W) bool: the rows and columns of each photo that its partner fills.

    cutmix_half: the left or the right half. Else a box of the photo's shape whose share of the area comes from
    Beta(alpha, alpha), centred anywhere and cut at the edges.
    """
    across, down = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    if run.mixing == "cutmix_half":
        left = random.random((count, 1)) < 0.5
        return np.ones((count, height), dtype=bool), (across < 0.5) == left
    side = np.sqrt(random.beta(run.mixing_alpha, run.mixing_alpha, (count, 1)))
    middle_down, middle_across = random.random((count, 1)), random.random((count, 1))
    return np.abs(down - middle_down) < side / 2, np.abs(across - middle_across) < side / 2
