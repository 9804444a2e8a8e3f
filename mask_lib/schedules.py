"""How fast training learns at each moment, and when it stops: functions of the run and its history alone."""

import math
from collections.abc import Mapping, Sequence

from mask_lib import config

PLATEAU_FACTOR = 0.1  # of the learning rate, after each plateau
History = Sequence[Mapping[str, float]]  # a row an epoch, among others with val_macro_f1


def learning_rate_factor(run: config.Run, progress: float, history: History = ()) -> float:
    """The share of the peak learning rate at `progress`, in epochs since the start.

    history: the epochs before, which only the schedule plateau asks for. It is part of a checkpoint, so
    a run that goes on has the same factor as one that was never interrupted.
    """
    if progress < run.warmup_epochs:
        return (progress + 1e-3) / (run.warmup_epochs + 1e-3)
    share = (progress - run.warmup_epochs) / max(run.epochs - run.warmup_epochs, 1e-9)
    if run.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * share))
    if run.schedule == "one_cycle":  # up over three tenths, down to nearly nothing (Smith & Topin 2018)
        rising = share < 0.3
        return 0.04 + 0.96 * share / 0.3 if rising else 0.5 * (1 + math.cos(math.pi * (share - 0.3) / 0.7)) + 1e-4
    if run.schedule == "step":
        return 0.1 ** int(share * 3)
    if run.schedule == "plateau":
        return PLATEAU_FACTOR ** sum(idle > 0 and idle % run.plateau_epochs == 0 for idle in idle_epochs(history))
    return 1.0


def stopped_early(run: config.Run, history: History) -> bool:
    """Whether a run ended because its macro F1 had not risen for `early_stop_epochs` epochs."""
    return run.early_stop_epochs > 0 and any(idle >= run.early_stop_epochs for idle in idle_epochs(history))


def idle_epochs(history: History) -> list[int]:
    """After each epoch, for how many epochs the macro F1 on the validation fold has not been better than before."""
    best, idle = -math.inf, [0]
    for row in history:
        better = row["val_macro_f1"] > best
        best = max(best, row["val_macro_f1"])
        idle.append(0 if better else idle[-1] + 1)
    return idle[1:]
