"""How fast a run can learn: a trial in which the learning rate grows until the loss does too (Smith 2015)."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch

from mask_lib.base import config
from mask_lib.models import build, devices, weights
from mask_lib.training import dataset, loop

WINDOW = 9  # steps that a smoothed loss is the mean of
DIVERGED = 3.0  # times the lowest smoothed loss: beyond it nothing more can be learned
SAFETY = 0.1  # of the rate at which the loss is lowest, which is nearly too high


def find(
    run: config.Run,
    split: pd.DataFrame,
    source: devices.DevicePhotos,
    fold: int = 0,
    step_count: int = 100,
    low: float = 1e-6,
    high: float = 1.0,
) -> pd.DataFrame:
    """Columns `learning_rate, loss, smoothed`, a row a step, up to `step_count` or until the loss explodes.

    Trains the run's first weights, as that fold would, on its photos as they are sampled, augmented and
    mixed, with a rate that grows from `low` to `high`; no layer is frozen. All of it is thrown away:
    nothing is written, and the run trains as if it had never been.
    """
    network = build.of_run(run).to(source.device, memory_format=torch.channels_last)
    network.load_state_dict(weights.first_weights(run, dataset.step_seed(run.seed, fold, 0, 0)))
    trial = loop.FoldTraining(run, fold, split, source)
    trial.start(network, network)
    network.train()
    rates, losses = np.geomspace(low, high, step_count), []
    for rate, (batch, seed) in zip(rates, _steps(trial), strict=False):
        losses.append(trial.update(batch, seed, rate / run.learning_rate).item() / len(batch))
        if exploded(losses):
            break
    found = pd.DataFrame({"learning_rate": rates[: len(losses)], "loss": losses})
    found = found[np.isfinite(found["loss"])]
    return found.assign(smoothed=found["loss"].rolling(WINDOW, center=True, min_periods=1).mean())


def _steps(trial: loop.FoldTraining) -> Iterator[tuple[np.ndarray, int]]:
    """Batches and seeds of a fold's steps, epoch after epoch without end."""
    for epoch in itertools.count():
        for step, batch in enumerate(trial.batches(epoch)):
            yield batch, dataset.step_seed(trial.run.seed, trial.fold, epoch, step)


def exploded(losses: list[float]) -> bool:
    """Whether the last loss is no number, or the last few are far above the lowest few."""
    if not math.isfinite(losses[-1]):
        return True
    if len(losses) < 2 * WINDOW:
        return False
    means = np.convolve(losses, np.full(WINDOW, 1 / WINDOW), mode="valid")
    return bool(means[-1] > DIVERGED * means.min())


def suggestion(found: pd.DataFrame) -> float:
    """A learning rate to begin with: a tenth of that at which the smoothed loss is lowest.

    Raises ValueError if there is none, since the very first step lost all.
    """
    if found.empty:
        raise ValueError("the loss was no number at the lowest learning rate: try precision: float32")
    return SAFETY * float(found["learning_rate"][found["smoothed"].idxmin()])
