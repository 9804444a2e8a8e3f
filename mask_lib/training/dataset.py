"""What a run trains on: its folds' rows, and the photos behind them.

Training, inference and all that checks a checkpoint read both from here, so that they agree.

Which photos a step meets and with what random numbers: functions of (seed, fold, epoch, step) alone.
"""

import math
import os
from pathlib import Path

import numpy as np
import pandas as pd

from mask_lib.base import config, labels
from mask_lib.base.config import Run, Sampling
from mask_lib.data import clean_labels, external, photos, store
from mask_lib.data.external import PARTIAL
from mask_lib.data.splits import KNOWN, refuse
from mask_lib.models import weights
from mask_lib.training import ages, pseudo_labels

SETTINGS = ("label_source", "pseudo_labels", "pseudo_weight", "partial_labels")  # of a run: those that choose its rows


def read_training_splits(output_dir: str | os.PathLike[str], run: Run) -> dict[int, pd.DataFrame]:
    """Every fold's rows, columns `path, person, label, split, age` and, as the run asks, of `splits.MORE_COLUMNS`.

    Labels are cleaned or given ones; `age` is float64 years, NaN where unknown. With pseudo_labels those
    photos are further train rows of the folds that are trained, and `weight` (float64) is 1 for all others. With
    partial_labels external photos of label -1 are train rows too, and `known_mask, known_gender, known_age` hold
    each photo's numbers (int64), -1 where unknown. The files keep the splits as they are: a photo may have
    another pseudo-label in each fold. Raises as `clean_labels.read_clean_splits` and `pseudo_labels.read` do.
    """
    splits = clean_labels.read_clean_splits(output_dir, run.label_source, partial=run.partial_labels)
    splits = pseudo_labels.joined_splits(splits, output_dir, run.pseudo_labels, run.pseudo_weight, only=run.folds)
    if run.partial_labels:
        outside = external.read(output_dir)
        splits = {fold: with_attributes(split, outside) for fold, split in splits.items()}
    return ages.with_years(splits, output_dir)


def with_attributes(split: pd.DataFrame, outside: pd.DataFrame) -> pd.DataFrame:
    """A split with the columns `splits.KNOWN`: what a photo's label says, or for one without what `outside` does.

    outside: the table of `external.read`. Raises ValueError for photos of label -1 that it lacks.
    """
    is_partial = (split["label"] == PARTIAL).to_numpy()
    absent = set(split["path"][is_partial]) - set(outside["path"])
    refuse(absent, "tables/external.csv lacks photos of the splits (run 00_prepare_data again)")
    told = pd.DataFrame(external.attributes(outside), index=outside["path"]).loc[split["path"][is_partial]]
    found = labels.decode_all(split["label"].mask(is_partial, 0))
    for name, numbers in found.items():
        numbers[is_partial] = told[name]
    return split.assign(**{KNOWN[name]: numbers for name, numbers in found.items()})


def is_real(rows: pd.DataFrame) -> pd.Series:
    """(N,) bool: which rows of a split have a whole label of full weight, neither a pseudo- nor a partial one."""
    is_named = rows["person"].str.startswith(pseudo_labels.PREFIX) if "person" in rows else False
    return (rows["label"] != PARTIAL) & (rows.get("weight", 1.0) == 1) & ~pd.Series(is_named, rows.index, dtype=bool)


def photo_table(output_dir: str | os.PathLike[str], run: Run) -> pd.DataFrame:
    """Every photo that a run may train on, columns `path` and `split` (all train) at least, for the store.

    The labeled ones, the external ones and, as the run asks, those with a pseudo-label, of any fold.
    """
    table = external.with_external(photos.read_labeled(output_dir), output_dir)
    if not run.pseudo_labels:
        return table
    return pseudo_labels.with_pseudo(table, pseudo_labels.read(output_dir, run.pseudo_labels, {}))


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


def open_photos(data_dir: Path, output_dir: Path, table: pd.DataFrame, frame: store.Frame) -> store.Store:
    """The store of a photo table's rows (columns path, split), all of them train or all eval photos."""
    images = Path(data_dir) / table["split"].iloc[0] / "images"
    return store.open_store(Path(output_dir) / "store", images, list(table["path"]), frame)


def open_trainable(data_dir: Path, output_dir: Path, run: config.Run) -> store.Store:
    """The store of every photo that a run may train on, external and pseudo-labeled ones too, as its settings ask.

    Raises ValueError, before any photo is decoded, for a network or head that does not take photos of its size.
    """
    weights.require_fits(run)
    return open_photos(data_dir, output_dir, photo_table(output_dir, run), store.Frame.of_run(run))
