"""Which photos a step meets and with what random numbers: functions of (seed, fold, epoch, step) alone."""

import math

import numpy as np

from mask_lib import labels
from mask_lib.config import Sampling


def step_seed(seed: int, fold: int, epoch: int, step: int) -> int:
    """A seed below 2^63 for one step, unrelated to that of any other."""
    return int(np.random.SeedSequence([seed, fold, epoch, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def step_count(photo_count: int, batch_size: int) -> int:
    """How many batches an epoch has."""
    return math.ceil(photo_count / batch_size)


def batches(
    train_labels: np.ndarray,
    batch_size: int,
    seed: int,
    fold: int,
    epoch: int,
    sampling: Sampling = "shuffle",
    is_real: np.ndarray | None = None,
) -> list[np.ndarray]:
    """An epoch's batches: positions in the (N,) `train_labels`, N in all, in batches of nearly equal sizes.

    shuffle: each photo exactly once. weighted: drawn with replacement by `weighted_shares`, which also says
    what is_real means. Nearly equal, since one last batch of a single photo would upset batch normalisation.
    """
    generator, count = np.random.default_rng([seed, fold, epoch]), len(train_labels)
    if sampling == "weighted":
        order = generator.choice(count, size=count, p=weighted_shares(train_labels, is_real))
    else:
        order = generator.permutation(count)
    return np.array_split(order, step_count(count, batch_size))


def weighted_shares(train_labels: np.ndarray, is_real: np.ndarray | None = None) -> np.ndarray:
    """(N,) float64 probabilities of drawing each photo, 1 / count of its class: each class present is as likely.

    is_real: (N,) bool, which photos are counted; None: all. Another one is drawn as often as one of its class
    that is, and one without a class, of label -1, as often as those that are on average.
    """
    real = train_labels if is_real is None else train_labels[is_real]
    counts = np.bincount(real, minlength=labels.CLASS_COUNT)
    shares = 1 / np.maximum(counts, 1)[train_labels]
    shares[train_labels < 0] = (counts > 0).sum() / len(real)
    return shares / shares.sum()
