"""What a fold's training photos are to be answered with, and how much each counts in the loss."""

import dataclasses
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from mask_lib.base import files
from mask_lib.base.config import Run
from mask_lib.data import splits
from mask_lib.data.external import PARTIAL
from mask_lib.training import ages, dataset, loss


class BatchTargets(NamedTuple):
    """Of the B photos of a batch, as `loss.loss_of` takes it."""

    target: torch.Tensor  # (B,) int64 labels, or (B, 18 or more) float32
    weights: torch.Tensor | None = None  # (B,) float32; None: 1 each
    known: torch.Tensor | None = None  # (B, 3) bool; None: mask, gender and age of all


@dataclasses.dataclass(frozen=True)
class FoldTargets:
    """Of the N train rows of a split."""

    labels: np.ndarray  # (N,) int64 as training counts them, -1 where not every attribute is known
    is_real: np.ndarray  # (N,) bool: whole labels of full weight, by which classes are counted
    wanted: BatchTargets  # of all N, on the CPU

    @property
    def real_labels(self) -> np.ndarray:
        """The labels of the rows by which classes are counted."""
        return self.labels[self.is_real]

    def of(self, positions: np.ndarray, device: torch.device) -> BatchTargets:
        """What is wanted of the photos at `positions`, on a device."""
        rows = torch.from_numpy(positions)
        return BatchTargets(*(None if one is None else one[rows].to(device) for one in self.wanted))


def of_rows(train: pd.DataFrame, run: Run) -> FoldTargets:
    """Those of a split's train rows, as `dataset.read_training_splits` gives them.

    Without a weight or a photo of which not all is known they are `ages.age_targets`. Raises as that does, and
    ValueError for photos of label -1 of which nothing else is told.
    """
    found, target, known = _partial(train, run) if (train["label"] == PARTIAL).any() else _whole(train, run)
    weights = torch.from_numpy(train["weight"].to_numpy(np.float32)) if "weight" in train else None
    return FoldTargets(found, dataset.is_real(train).to_numpy(), BatchTargets(target, weights, known))


def _whole(train: pd.DataFrame, run: Run) -> tuple[np.ndarray, torch.Tensor, None]:
    found, target = ages.age_targets(train, run)
    return found, torch.tensor(target), None


def _partial(train: pd.DataFrame, run: Run) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """(N,) labels, (N, 18 or more) targets and (N, 3) known, of rows some of which have the label -1."""
    if not set(splits.KNOWN.values()) <= set(train):
        raise ValueError(
            f"{(train['label'] == PARTIAL).sum()} photos have the label {PARTIAL}, and nothing tells what is known of "
            "them: read the splits by trainable.read_splits"
        )
    given = train["label"].to_numpy(np.int64)
    years = ages.known_years(train) if ages.needed(run) else np.full(len(train), np.nan)
    attributes = train[list(splits.KNOWN.values())].to_numpy(np.int64, copy=True)  # (N, 3)
    groups = attributes[:, -1] = ages.shifted(attributes[:, -1], years, run.old_from)
    target, known = loss.partial_target(torch.from_numpy(attributes))
    target = torch.from_numpy(ages.refined(target.numpy(), groups, years, run))
    return np.where(given == PARTIAL, PARTIAL, ages.shifted(given, years, run.old_from)), target, known


def years_digest(train: pd.DataFrame, run: Run) -> str | None:
    """Stands for the ages in years that a run's training reads of its train rows; None if it reads none."""
    return files.digest(ages.known_years(train).tolist()) if ages.needed(run) else None
