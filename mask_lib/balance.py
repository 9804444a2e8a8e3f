"""People spread over parts, each kept whole, so that every class is divided as evenly as that allows."""

import itertools
import warnings
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

ROUNDING = 1e-9  # what a smaller distance must gain before it counts as smaller


def class_counts(photos: pd.DataFrame) -> pd.DataFrame:
    """How many photos of each label (columns) a person (index, sorted) has, int64."""
    return pd.crosstab(photos["person"], photos["label"])


def spread(photos: pd.DataFrame, part_count: int, seed: int) -> pd.Series:
    """A part 0 … part_count-1 for each person (index), the classes of their photos spread evenly.

    photos: columns `person, label`, in any order. Raises ValueError when there are fewer people than parts.
    """
    counts = class_counts(photos)
    if len(counts) < part_count:
        raise ValueError(f"{len(counts)} people cannot fill {part_count} parts: lower fold_count or add people")
    parts = exchanged(counts, first_parts(counts, part_count, seed), [1 / part_count] * part_count)
    return pd.Series(parts, index=counts.index, name="part")


def held_out(photos: pd.DataFrame, share: float, seed: int) -> pd.Index:
    """The people who stand apart: about `share` of them and of every class, at least one.

    photos: columns `person, label`. Raises ValueError for a share that is less than half a person.
    """
    counts = class_counts(photos)
    if share * len(counts) < 0.5:
        raise ValueError(f"test_val_share = {share}: that is less than one person; raise it or give 0")
    # A fraction of few parts to start from; the exchange then meets the share itself.
    start = Fraction(share).limit_denominator(20) or Fraction(1, min(len(counts), round(1 / share)))
    start = start.limit_denominator(len(counts)) or Fraction(1, len(counts))
    parts = first_parts(counts, start.denominator, seed) >= start.numerator
    return counts.index[exchanged(counts, parts.astype(np.int64), [share, 1 - share]) == 0]


def first_parts(counts: pd.DataFrame, part_count: int, seed: int) -> np.ndarray:
    """(N,) int64 parts of the people of `counts`, from scikit-learn's stratified grouped folds.

    They are greedy: a person once placed stays, and rare classes weigh no more than others.
    """
    person, column = (each.repeat(counts.to_numpy().ravel()) for each in np.indices(counts.shape).reshape(2, -1))
    if counts.to_numpy().sum(axis=0).max() < part_count:  # a toy set: no class reaches every part
        column = np.zeros_like(column)
    splitter = StratifiedGroupKFold(part_count, shuffle=True, random_state=seed)
    parts = np.empty(len(counts), dtype=np.int64)
    with warnings.catch_warnings():
        # A class with fewer photos than parts is still spread as far as it goes; the notebook's plot shows it.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for part, (_, members) in enumerate(splitter.split(column, column, groups=person)):
            parts[person[members]] = part
    return parts


def distance(counts: pd.DataFrame, parts: np.ndarray, shares: Sequence[float]) -> float:
    """How far parts are from their shares of every class and of the people: the sum of (count - share·total)² / total.

    For equal shares that is the chi-square statistic over the number of parts. A class weighs the more the
    rarer it is: a photo too many of twenty is worse than one of a thousand.
    """
    brought = _with_heads(counts)
    total = brought.sum(axis=0)
    found = np.array([brought[parts == part].sum(axis=0) for part in range(len(shares))])
    return float(((found - np.outer(shares, total)) ** 2 / total).sum())


def exchanged(counts: pd.DataFrame, parts: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """`parts` after the best swaps and moves of people between two parts, until none lessens the `distance`.

    What comes out of equal shares is no farther from even than a random grouped split is on average,
    whatever the table: were it farther, then moving some person would lessen the distance, since the
    mean over all moves does.
    """
    parts, brought = parts.copy(), _with_heads(counts)
    pairs = list(itertools.combinations(range(len(shares)), 2))
    while sum(_improve(brought, parts, pair, shares) for pair in pairs):
        pass
    return parts


def _with_heads(counts: pd.DataFrame) -> np.ndarray:
    """(N, classes + 1) float64: what each person brings, the last column being the person alone."""
    return np.column_stack([counts.to_numpy(np.float64), np.ones(len(counts))])


def _improve(brought: np.ndarray, parts: np.ndarray, pair: tuple[int, int], shares: Sequence[float]) -> bool:
    """Make the best exchanges between two parts, in place, while there is one; whether there was any."""
    first, second = pair
    improved = False
    while True:
        here, there = np.flatnonzero(parts == first), np.flatnonzero(parts == second)
        one, other = _best_exchange(brought, here, there, shares[first] - shares[second])
        if one is None and other is None:
            return improved
        if one is not None:
            parts[one] = second
        if other is not None:
            parts[other] = first
        improved = True


def _best_exchange(
    brought: np.ndarray, here: np.ndarray, there: np.ndarray, wider: float
) -> tuple[int | None, int | None]:
    """Who of `here` and who of `there` should change places; None for nobody, twice if nothing is better.

    wider: by how much the share of `here` exceeds that of `there`.
    """
    total = brought.sum(axis=0)
    # A last row of nothing stands for nobody: a swap with nobody is a move.
    ours, theirs = (np.vstack([brought[members], np.zeros_like(total)]) / np.sqrt(total) for members in (here, there))
    surplus = ours.sum(axis=0) - theirs.sum(axis=0) - wider * np.sqrt(total)
    # Taking d = theirs - ours changes half the distance by d·surplus + d·d.
    change = (theirs @ surplus)[None, :] - (ours @ surplus)[:, None] - 2 * ours @ theirs.T
    change += (ours**2).sum(axis=1)[:, None] + (theirs**2).sum(axis=1)[None, :]
    if len(here) == 1:
        change[0, -1] = 0  # a part is not left empty
    if len(there) == 1:
        change[-1, 0] = 0
    one, other = np.unravel_index(change.argmin(), change.shape)
    if change[one, other] > -ROUNDING:
        return None, None
    return (int(here[one]) if one < len(here) else None), (int(there[other]) if other < len(there) else None)
