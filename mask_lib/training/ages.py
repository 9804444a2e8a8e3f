"""What training makes of ages in years: another border for the old, blurred borders, or all of them in order.

Scores never read this: they count three groups, cut at `labels.AGE_EDGES`.
"""

import math
import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from mask_lib.base import labels
from mask_lib.base.config import Run
from mask_lib.data import external, photos
from mask_lib.data.splits import KNOWN

MIDDLE, OLDEST = labels.AGE_EDGES
YEARS_BETWEEN = 5  # of the borders that an ordinal head learns beside the two that count
LOWEST, HIGHEST = 20, 55  # years: the first and the last of them


def with_years(splits: dict[int, pd.DataFrame], output_dir: str | os.PathLike[str]) -> dict[int, pd.DataFrame]:
    """The splits with the column `age`, float64 years, NaN where an external photo's is unknown."""
    table = external.with_external(photos.read_labeled(output_dir), output_dir)
    years = table.drop_duplicates("path").set_index("path")["age"].astype("Float64")
    return {
        fold: split.assign(age=split["path"].map(years).to_numpy("float64", na_value=np.nan))
        for fold, split in splits.items()
    }


def needed(run: Run) -> bool:
    """Whether a run's training reads ages in years."""
    return run.old_from != OLDEST or run.age_softness > 0 or run.age_target == "ordinal"


def known_years(split: pd.DataFrame) -> np.ndarray:
    """(N,) float64 years of a split's rows, NaN where they are unknown or belong to another group than the label's.

    Where the two differ a reviewer has changed the label, and the label holds. Raises ValueError for a
    split without ages.
    """
    if "age" not in split:
        raise ValueError(
            "old_from, age_softness and age_target: ordinal need ages in years, which these splits lack: "
            "give them to ages.with_years first"
        )
    years = split["age"].to_numpy("float64", na_value=np.nan)
    return np.where(np.digitize(years, labels.AGE_EDGES) == groups_of(split), years, np.nan)


def groups_of(split: pd.DataFrame) -> np.ndarray:
    """(N,) int64 age groups of a split's rows, -1 where a split with partial labels does not know it."""
    known = split.get(KNOWN["age"])
    return labels.decode_all(split["label"])["age"] if known is None else known.to_numpy(np.int64)


def shifted(train_labels: np.ndarray, years: np.ndarray, old_from: int) -> np.ndarray:
    """(N,) int64 labels, or age groups, in which people of `old_from` years and more, below 60, are the oldest."""
    older = (years >= old_from) & (years < OLDEST)  # NaN is neither
    return train_labels + older * (labels.AgeGroup.OLD - labels.AgeGroup.MIDDLE)


def age_targets(train: pd.DataFrame, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """(N,) int64 labels that training counts and weighs classes by, and its targets.

    train: a split's train rows, all with a label. The targets are the labels themselves; with blurred
    borders (N, 18) float32 probabilities; for an ordinal head (N, 18 + K) float32, the labels one-hot and
    then `past_borders`.
    """
    found = train["label"].to_numpy(np.int64)
    if not needed(run):
        return found, found
    years = known_years(train)
    found = shifted(found, years, run.old_from)
    if run.age_target == "classes" and not run.age_softness:
        return found, found
    one_hot = np.eye(labels.CLASS_COUNT, dtype=np.float32)[found]
    return found, refined(one_hot, labels.decode_all(found)["age"], years, run)


def refined(one_hot: np.ndarray, groups: np.ndarray, years: np.ndarray, run: Run) -> np.ndarray:
    """(N, 18) float32 probabilities as a run's settings blur them, or (N, 18 + K) with an ordinal head's borders.

    groups: (N,) int64 age groups, as `past_borders` takes them.
    """
    if run.age_target == "ordinal":
        return np.hstack([one_hot, past_borders(groups, years, run.old_from)])
    return blurred(one_hot, years, run.age_softness, run.old_from) if run.age_softness else one_hot


def blurred(one_hot: np.ndarray, years: np.ndarray, softness: float, old_from: int = OLDEST) -> np.ndarray:
    """(N, 18) float32 probabilities that follow a person's age across the borders; unknown years stay one-hot.

    The chance to be past a border is logistic in the years beyond it, a half at the border itself, with
    `softness` years as its scale. An age of 60 lies between 60 and 61, so it counts as 60.5.
    """
    edges = np.array([MIDDLE, old_from])
    past = 0.5 * (1 + np.tanh((years[:, None] + 0.5 - edges) / (2 * softness)))  # (N, 2)
    groups = np.stack([1 - past[:, 0], past[:, 0] - past[:, 1], past[:, 1]], axis=1)  # (N, 3)
    sides = one_hot.reshape(-1, *labels.SHAPE).sum(axis=3, keepdims=True)  # (N, 3, 2, 1)
    soft = (sides * groups[:, None, None, :]).reshape(len(one_hot), -1)
    return np.where(np.isnan(years)[:, None], one_hot, soft).astype(np.float32)


def borders(old_from: int = OLDEST) -> tuple[int, ...]:
    """The ages in years whose passing an ordinal head learns: the two that count and others between and around."""
    return tuple(sorted({*range(LOWEST, HIGHEST + 1, YEARS_BETWEEN), MIDDLE, old_from}))


def past_borders(groups: np.ndarray, years: np.ndarray, old_from: int = OLDEST) -> np.ndarray:
    """(N, K) float32, 1 where a person is as old as a border or older, else 0; NaN where nobody knows.

    groups: (N,) int64 age groups, -1 where unknown. Of a person without years the group still tells the
    borders that it lies wholly on one side of.
    """
    edges = np.array(borders(old_from))
    # The last entries, which -1 takes too, are those of an unknown group.
    least = np.array([-math.inf, MIDDLE, OLDEST, -math.inf])[groups]
    most = np.array([MIDDLE, OLDEST, math.inf, math.inf])[groups]
    by_group = np.where(least[:, None] >= edges, 1.0, np.where(most[:, None] <= edges, 0.0, np.nan))
    by_years = (years[:, None] >= edges).astype(float)
    return np.where(np.isnan(years)[:, None], by_group, by_years).astype(np.float32)


def border_places(old_from: int = OLDEST) -> Sequence[float]:
    """Where each border lies on a line on which 30 years are 0 and `old_from` years 1."""
    return [(edge - MIDDLE) / (old_from - MIDDLE) for edge in borders(old_from)]
