"""Two photos in one, with both their labels: mixup, and cutmix in boxes, halves and with a partner of the oldest.

Sources: mixup, Zhang et al. 2018; cutmix, Yun et al. 2019. Every photo has parameters of its own. All random
numbers come from a NumPy generator, so that the same seed mixes alike on any device.
"""

import numpy as np
import torch
from torch.nn import functional

from mask_lib.base import config, labels
from mask_lib.training.targets import BatchTargets


def oldest(train_labels: np.ndarray) -> np.ndarray:
    """Positions of the photos of people of 60 and over in the (N,) `train_labels`: cutmix_old's partners.

    A photo without a class, of label -1, is none of them. Raises ValueError if there is none.
    """
    group = labels.decode_all(np.maximum(train_labels, 0))["age"]
    found = np.flatnonzero((group == labels.AgeGroup.OLD) & (train_labels >= 0))
    if not len(found):
        raise ValueError("mixing = 'cutmix_old': no training photo shows a person of 60 or over to mix with")
    return found


def with_partners(
    batch: np.ndarray, old: np.ndarray | None, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(positions to load, where among them the partner of each of the first B stands), for the (B,) `batch`.

    Partners are the batch itself in another order; or, of the positions `old`, any photos, which are
    loaded beside it, since a batch may hold nobody of that age.
    """
    count = len(batch)
    if old is None:
        return batch, random.permutation(count)
    return np.concatenate([batch, random.choice(old, count)]), np.arange(count, 2 * count)


def mixed(
    photos: torch.Tensor, wanted: BatchTargets, partner: np.ndarray, run: config.Run, random: np.random.Generator
) -> tuple[torch.Tensor, BatchTargets]:
    """The first B of `photos`, (≥ B, C, H, W) float32, each mixed with its partner, and what is wanted of them.

    wanted: of all `photos`; partner: (B,) as `with_partners` gives them. The target's (B, 18) float32
    probabilities say how much of a photo is whose: rows sum to 1. Weights are mixed by the same shares. An
    attribute is known if it is for both photos. One that is not among the share `mixing_probability` stays as
    it is.
    """
    count = len(partner)
    kept = kept_parts(run, (count, *photos.shape[2:]), photos.device, random)
    shares = kept.mean(dim=(1, 2, 3)).view(-1, 1)
    beside = torch.from_numpy(partner).to(photos.device)
    target, weights, known = wanted
    target = target if target.is_floating_point() else functional.one_hot(target, labels.CLASS_COUNT).float()
    blend = target[:count] * shares + target[beside] * (1 - shares)
    # What is not there at all must not count: an unknown border is NaN, and 0 times that is no 0.
    target = torch.where(shares == 1, target[:count], torch.where(shares == 0, target[beside], blend))
    if weights is not None:
        weights = weights[:count] * shares[:, 0] + weights[beside] * (1 - shares[:, 0])
    if known is not None:  # what is not there at all need not be known
        known = (known[:count] | (shares == 0)) & (known[beside] | (shares == 1))
    return photos[:count] * kept + photos[beside] * (1 - kept), BatchTargets(target, weights, known)


def kept_parts(
    run: config.Run, shape: tuple[int, int, int], device: torch.device, random: np.random.Generator
) -> torch.Tensor:
    """(B, 1, H, W) or (B, 1, 1, 1) float32 for `shape` (B, H, W): what each photo keeps of itself, 0 to 1."""
    count, height, width = shape
    chosen = random.random((count, 1)) < run.mixing_probability
    if run.mixing == "mixup":
        share = np.where(chosen, random.beta(run.mixing_alpha, run.mixing_alpha, (count, 1)), 1.0)
        return torch.from_numpy(share).float().view(-1, 1, 1, 1).to(device)
    down, across = boxes(run, count, height, width, random)
    rows, columns = torch.from_numpy(down & chosen).to(device), torch.from_numpy(across).to(device)
    return 1 - (rows[:, None, :, None] & columns[:, None, None, :]).float()


def boxes(
    run: config.Run, count: int, height: int, width: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(count, H) and (count, W) bool: the rows and columns of each photo that its partner fills.

    cutmix_half: all rows, the left or the right half of the columns. Else a box of the photo's shape
    whose share of the area comes from Beta(alpha, alpha), centred anywhere and cut at the edges.
    """
    across, down = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    if run.mixing == "cutmix_half":
        left = random.random((count, 1)) < 0.5
        return np.ones((count, height), dtype=bool), (across < 0.5) == left
    side = np.sqrt(random.beta(run.mixing_alpha, run.mixing_alpha, (count, 1)))
    middle_down, middle_across = random.random((count, 1)), random.random((count, 1))
    return np.abs(down - middle_down) < side / 2, np.abs(across - middle_across) < side / 2
