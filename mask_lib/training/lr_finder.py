"""Learning-rate range test: the rate grows step by step until the loss does too (Smith 2015)."""

import itertools
import math

import numpy as np
import pandas as pd
import torch

from mask_lib.base import config, interrupts
from mask_lib.data import store
from mask_lib.models import build, devices, weights
from mask_lib.training import dataset, loop, runs

LOWEST = 1e-6  # rate to begin with
WINDOW = 9  # steps that a smoothed loss is the mean of
DIVERGED = 3.0  # times the lowest smoothed loss: beyond it nothing more can be learned
SAFETY = 0.1  # of the rate at which the loss is lowest, which is nearly too high


@interrupts.released_on_error
def find_rate(
    run: config.Run, splits: dict[int, pd.DataFrame], photos: store.Store, step_count: int = 100, highest: float = 1.0
) -> pd.DataFrame:
    """Columns `learning_rate, loss, smoothed`, a row a step, up to `step_count` or until the loss explodes.

    Trains the run's first weights on its first fold as training does, but no layer is frozen. Nothing is written.
    """
    fold, source = runs.chosen_folds(run, splits)[0], devices.DevicePhotos(photos, devices.pick_device())
    network = build.of_run(run).to(source.device, memory_format=torch.channels_last)
    network.load_state_dict(weights.first_weights(run, dataset.step_seed(run.seed, fold, 0, 0)))
    trial = loop.FoldTraining(run, fold, splits[fold], source)
    trial.start(network, network)
    network.train()
    rates, losses = np.geomspace(LOWEST, highest, step_count), []
    steps = ((epoch, *one) for epoch in itertools.count() for one in enumerate(trial.data.batches(epoch)))
    for rate, (epoch, step, batch) in zip(rates, steps, strict=False):
        seed = trial.seed_of(epoch, step)
        loss = trial.update(trial.data.drawn(batch, seed), seed, rate / run.learning_rate)
        losses.append(loss.item() / len(batch))
        if exploded(losses):
            break
    found = pd.DataFrame({"learning_rate": rates[: len(losses)], "loss": losses})
    found = found[np.isfinite(found["loss"])]
    return found.assign(smoothed=found["loss"].rolling(WINDOW, center=True, min_periods=1).mean())


def exploded(losses: list[float]) -> bool:
    """Whether the last loss is no number, or the last few are far above the lowest few."""
    if len(losses) < 2 * WINDOW or not math.isfinite(losses[-1]):
        return not math.isfinite(losses[-1])
    means = np.convolve(losses, np.full(WINDOW, 1 / WINDOW), mode="valid")
    return bool(means[-1] > DIVERGED * means.min())


def suggestion(found: pd.DataFrame) -> float:
    """A learning rate to begin with: a tenth of that with the lowest smoothed loss. ValueError for an empty table."""
    if found.empty:
        raise ValueError("the loss was no number at the lowest learning rate: try precision: float32")
    return SAFETY * float(found["learning_rate"][found["smoothed"].idxmin()])
