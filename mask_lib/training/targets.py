"""Labels, numbers such as ages in years, and weights of a fold's training rows, as the loss takes them.

old_from and age_target: ordinal change what training learns; scores count the groups of `labels` alone.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mask_lib.base import files, labels
from mask_lib.base.config import Run
from mask_lib.training import dataset

BORDER_STEPS = 6  # between the first and the last edge: borders of an ordinal head lie every 5 years from 30 to 60
BORDER_STEPS_BELOW = 2  # so many more lie below the first edge: at 20 and 25 years


class BatchTargets(NamedTuple):
    """Of the B photos of a batch, as `loss.loss_of` takes it."""

    target: Tensor  # (B,) int64 labels, or (B, C) float32 probabilities, or (B, C + K) with `past_borders`
    weights: Tensor | None = None  # (B,) float32, how much each photo counts; None: 1 each


@dataclasses.dataclass(frozen=True)
class FoldTargets:
    """Of the N train rows of a split."""

    labels: np.ndarray  # (N,) int64 as training counts them
    is_real: np.ndarray  # (N,) bool: rows without a pseudo-label, by which classes are counted
    rows: BatchTargets  # of all N, on the device

    def batch(self, positions: Tensor) -> BatchTargets:
        """Those of the photos at (B,) int64 `positions`, on the device."""
        return BatchTargets(*(None if one is None else one[positions] for one in self.rows))


def fold_targets(train: pd.DataFrame, run: Run, device: torch.device | str = "cpu") -> FoldTargets:
    """Those of a split's train rows; (N, C + K) if ordinal. Raises as `reads_numbers` and `known_numbers` do."""
    found = target = train["label"].to_numpy(np.int64)
    if reads_numbers(run):
        numbers = known_numbers(train)
        number, values = labels.number(), labels.decode_all(found)
        is_moved = (numbers >= run.last_edge()) & (numbers < number.edges[-1])  # NaN is neither
        found = target = labels.encode_all(values | {number.name: values[number.name] + is_moved})
        if run.age_target == "ordinal":
            one_hot = np.eye(labels.class_count(), dtype=np.float32)[found]
            target = np.hstack([one_hot, past_borders(found, numbers, run)])
    weights = torch.from_numpy(train["weight"].to_numpy(np.float32)).to(device) if "weight" in train else None
    return FoldTargets(found, dataset.is_real(train).to_numpy(), BatchTargets(torch.tensor(target).to(device), weights))


def reads_numbers(run: Run) -> bool:
    """Whether a run's training reads numbers such as ages in years. ValueError for an ordinal one of one edge."""
    number, ordinal = labels.number(), run.age_target == "ordinal"
    if ordinal and len(number.edges) < 2:  # two logits tell one border, and no line through several
        raise ValueError(f"age_target = 'ordinal': {number.name} must be cut at two edges or more")
    return number is not None and (ordinal or run.last_edge() != number.edges[-1])


def known_numbers(rows: pd.DataFrame) -> np.ndarray:
    """(N,) float64 numbers of a split's rows, NaN where unknown or of another group than the label's.

    Where the two differ a reviewer has changed the label, and the label holds. Raises ValueError without the column.
    """
    number = labels.number()
    if number.name not in rows:
        raise ValueError(f"old_from and age_target: ordinal need a split's column {number.name}, which is not there")
    numbers = rows[number.name].to_numpy("float64", na_value=np.nan)
    groups = labels.decode_all(rows["label"])[number.name]
    return np.where(np.digitize(numbers, number.edges) == groups, numbers, np.nan)


def numbers_digest(train: pd.DataFrame, run: Run) -> str | None:
    """Stands for the numbers that a run's training reads of its train rows; None if it reads none."""
    return files.digest(known_numbers(train).tolist()) if reads_numbers(run) else None


def borders(run: Run) -> tuple[int, ...]:
    """The numbers whose passing an ordinal head learns: the edges that count, and others between and around."""
    first, *between, last = labels.number().edges
    step = max(round((last - first) / BORDER_STEPS), 1)
    return tuple(sorted({*range(first - BORDER_STEPS_BELOW * step, last, step), first, *between, run.last_edge()}))


def past_borders(train_labels: np.ndarray, numbers: np.ndarray, run: Run) -> np.ndarray:
    """(N, K) float32, 1 where a photo's number, or its whole group, is at a border or past it, else 0; NaN: unknown."""
    number, edges = labels.number(), np.array(borders(run))
    groups = labels.decode_all(train_labels)[number.name]
    least, below = np.array([-np.inf, *number.edges])[groups], np.array([*number.edges, np.inf])[groups]
    by_group = np.where(least[:, None] >= edges, 1.0, np.where(below[:, None] <= edges, 0.0, np.nan))
    by_number = (numbers[:, None] >= edges).astype(float)
    return np.where(np.isnan(numbers)[:, None], by_group, by_number).astype(np.float32)


def border_places(run: Run) -> list[float]:
    """Where each border lies on a line on which the first edge is 0 and `run.last_edge()` 1."""
    first, last = labels.number().edges[0], run.last_edge()
    return [(edge - first) / (last - first) for edge in borders(run)]
