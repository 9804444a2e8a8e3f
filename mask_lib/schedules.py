"""How fast training learns at each moment, and when it stops: functions of the run and its history alone."""

import math
from collections.abc import Mapping, Sequence

from mask_lib import config

PLATEAU_FACTOR = 0.1  # of the learning rate, after each plateau
ONE_CYCLE_RISE = 0.3  # share of the epochs in which one cycle goes up, unless warmup_epochs says how many do
ONE_CYCLE_END = 1e-4  # share of the peak that is left at its end: nearly nothing (Smith & Topin 2018)
History = Sequence[Mapping[str, float]]  # a row an epoch, among others with val_macro_f1


def learning_rate_factor(run: config.Run, progress: float, history: History = ()) -> float:
    """The share of the peak learning rate at `progress`, in epochs since the start.

    history: the epochs before, which only the schedule plateau asks for. It is part of a checkpoint, so
    a run that goes on has the same factor as one that was never interrupted.
    """
    rising = rising_epochs(run)
    if progress < rising:
        return (progress + 1e-3) / (rising + 1e-3)
    share = (progress - rising) / max(run.epochs - rising, 1e-9)
    falling = 0.5 * (1 + math.cos(math.pi * share))
    if run.schedule == "cosine":
        return falling
    if run.schedule == "one_cycle":
        return ONE_CYCLE_END + (1 - ONE_CYCLE_END) * falling
    if run.schedule == "step":
        return 0.1 ** int(share * 3)
    if run.schedule == "plateau":
        return PLATEAU_FACTOR ** sum(idle > 0 and idle % run.plateau_epochs == 0 for idle in idle_epochs(run, history))
    return 1.0


def rising_epochs(run: config.Run) -> float:
    """For how many epochs the learning rate rises to its peak; a warm-up is one cycle's rise, not one before it."""
    return run.warmup_epochs or (ONE_CYCLE_RISE * run.epochs if run.schedule == "one_cycle" else 0.0)


def stopped_early(run: config.Run, history: History) -> bool:
    """Whether a run ended because its macro F1 had not risen for `early_stop_epochs` epochs."""
    return run.early_stop_epochs > 0 and any(idle >= run.early_stop_epochs for idle in idle_epochs(run, history))


def idle_epochs(run: config.Run, history: History) -> list[int]:
    """After each epoch, for how many epochs the macro F1 on the validation fold has not been better than before.

    0 until the learning rate has risen and the backbone has thawed: before that a standstill means nothing.
    """
    begun = max(run.frozen_epochs, math.ceil(rising_epochs(run)))
    best, idle = -math.inf, [0]
    for epoch, row in enumerate(history, start=1):
        better = row["val_macro_f1"] > best
        best = max(best, row["val_macro_f1"])
        idle.append(0 if better or epoch <= begun else idle[-1] + 1)
    return idle[1:]
