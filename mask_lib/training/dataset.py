"""What a run trains on: its folds' rows, the photos behind them, and the batches of an epoch.

Which photos a step meets, and with what random numbers, are functions of (seed, fold, epoch, step) alone.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mask_lib.base import labels
from mask_lib.base.config import Run
from mask_lib.data import clean_labels, external, photos, store
from mask_lib.models import weights
from mask_lib.training import pseudo_labels

Splits = Mapping[int, pd.DataFrame]  # by fold, as `read_training_splits` gives them
SETTINGS = ("label_source", "pseudo_labels", "pseudo_weight")  # of a run: those that choose its rows


def read_training_splits(output_dir: str | os.PathLike[str], run: Run) -> dict[int, pd.DataFrame]:
    """Each fold's `path, person, label, split`, any `weight` and column of `labels.number()` (float64, NaN: unknown).

    With pseudo_labels those photos are further train rows of the folds that are trained; `weight` (float64) is 1 for
    all others. Raises as `clean_labels.read_clean_splits` and `pseudo_labels.read` do.
    """
    splits = clean_labels.read_clean_splits(output_dir, run.label_source)
    if run.pseudo_labels:
        trained = {fold: split for fold, split in splits.items() if not run.folds or fold in run.folds}
        table = pseudo_labels.read(output_dir, run.pseudo_labels, trained)
        splits |= {fold: pseudo_labels.joined(one, table, fold, run.pseudo_weight) for fold, one in trained.items()}
    if number := labels.number():
        table = external.with_external(photos.read_labeled(output_dir), output_dir)
        known = table.drop_duplicates("path").set_index("path")[number.name].astype("Float64")
        for split in splits.values():
            split[number.name] = split["path"].map(known).to_numpy("float64", na_value=np.nan)
    return splits


def sample_photos(photos: store.Store, count: int) -> torch.Tensor:
    """(count, C, H, W) uint8: photos spread evenly over the store, to look at."""
    rows = np.linspace(0, len(photos.images) - 1, count).astype(int)
    return torch.from_numpy(photos.images[rows].transpose(0, 3, 1, 2).copy())


def is_real(rows: pd.DataFrame) -> pd.Series:
    """(N,) bool: which rows of a split have a label of their own, unlike pseudo-labeled ones."""
    return ~rows["person"].str.startswith(pseudo_labels.PREFIX)


def photo_table(output_dir: str | os.PathLike[str], run: Run) -> pd.DataFrame:
    """Every photo that a run may train on, in any fold: columns `path` and `split` (all train) at least; of those with
    pseudo-labels, which differ by fold, these alone.
    """
    table = external.with_external(photos.read_labeled(output_dir), output_dir)
    if not run.pseudo_labels:
        return table
    paths = pd.Series(sorted(set(pseudo_labels.read(output_dir, run.pseudo_labels, {})["path"])), dtype="str")
    below = pd.DataFrame({"path": paths, "split": "train"}).reindex(columns=list(table))
    return pd.concat([table, below], ignore_index=True) if len(below) else table


def open_photos(
    data_dir: Path, output_dir: Path, table: pd.DataFrame, frame: store.Frame, build: bool = True
) -> store.Store:
    """The store of a photo table's rows (columns path, split), all of them train or all eval photos. Without `build`
    FileNotFoundError where they are not decoded yet.
    """
    images = photos.folder_of(data_dir, table["split"].iloc[0])
    return store.open_store(Path(output_dir) / "store", images, list(table["path"]), frame, build=build)


def open_trainable(data_dir: Path, output_dir: Path, run: Run) -> store.Store:
    """The store of a run's `photo_table`. ValueError, before any photo is decoded, as `weights.require_fits`."""
    weights.require_fits(run)
    return open_photos(data_dir, output_dir, photo_table(output_dir, run), store.Frame.of_run(run))


def step_seed(seed: int, fold: int, epoch: int, step: int) -> int:
    """A seed below 2^63 for one step, unrelated to that of any other."""
    return int(np.random.SeedSequence([seed, fold, epoch, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def step_count(photo_count: int, batch_size: int) -> int:
    """How many batches an epoch has: none of a single photo, which batch normalisation may refuse, if it can be."""
    count = math.ceil(photo_count / batch_size)
    return count if batch_size == 1 or photo_count >= 2 * count else max(photo_count // 2, 1)


def batches(run: Run, fold: int, epoch: int, train_labels: np.ndarray, is_real: np.ndarray) -> list[np.ndarray]:
    """An epoch's batches: positions in the (N,) `train_labels`, N in all, in batches of nearly equal sizes.

    sampling shuffle: each photo exactly once; weighted: drawn with replacement by `sampling_probabilities`.
    """
    generator, count = np.random.default_rng([run.seed, fold, epoch]), len(train_labels)
    if run.sampling == "weighted":
        order = generator.choice(count, size=count, p=sampling_probabilities(train_labels, is_real))
    else:
        order = generator.permutation(count)
    return np.array_split(order, step_count(count, run.photos_a_step()))


def sampling_probabilities(train_labels: np.ndarray, is_real: np.ndarray) -> np.ndarray:
    """(N,) float64 probabilities of being drawn, 1 / count of its class among `is_real`, (N,) bool."""
    counts = np.bincount(train_labels[is_real], minlength=labels.class_count())
    inverse = 1 / np.maximum(counts, 1)[train_labels]
    return inverse / inverse.sum()
