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
    train_labels: np.ndarray, batch_size: int, seed: int, fold: int, epoch: int, sampling: Sampling = "shuffle"
) -> list[np.ndarray]:
    """An epoch's batches: positions in the (N,) `train_labels`, N in all, in batches of nearly equal sizes.

    shuffle: each photo exactly once. weighted: drawn with replacement by `weighted_shares`. Nearly equal,
    since one last batch of a single photo would upset batch normalisation.
    """
    generator, count = np.random.default_rng([seed, fold, epoch]), len(train_labels)
    if sampling == "weighted":
        order = generator.choice(count, size=count, p=weighted_shares(train_labels))
    else:
        order = generator.permutation(count)
    return np.array_split(order, step_count(count, batch_size))


def weighted_shares(train_labels: np.ndarray) -> np.ndarray:
    """(N,) float64 probabilities of drawing each photo, 1 / count of its class: each class present is as likely."""
    counts = np.bincount(train_labels, minlength=labels.CLASS_COUNT)
    shares = 1 / counts[train_labels]
    return shares / shares.sum()
