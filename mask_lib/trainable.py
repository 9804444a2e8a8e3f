"""What a run trains on: its folds' rows, and the photos behind them.

Training, inference and all that checks a checkpoint read both from here, so that they agree.
"""

import os

import pandas as pd

from mask_lib import ages, clean_labels, external, folds, labels, photos, pseudo_labels
from mask_lib.auditing import refuse
from mask_lib.config import Run
from mask_lib.sources import PARTIAL

SETTINGS = ("label_source", "pseudo_labels", "pseudo_weight", "partial_labels")  # of a run: those that choose its rows


def read_splits(output_dir: str | os.PathLike[str], run: Run) -> dict[int, pd.DataFrame]:
    """Every fold's rows, columns `path, person, label, split, age` and, as the run asks, of `folds.MORE_COLUMNS`.

    Labels are cleaned or given ones; `age` is float64 years, NaN where unknown. With pseudo_labels those
    photos are further train rows of the folds that are trained, and `weight` (float64) is 1 for all others. With
    partial_labels external photos of label -1 are train rows too, and `known_mask, known_gender, known_age` hold
    each photo's numbers (int64), -1 where unknown. The files keep the splits as they are: a photo may have
    another pseudo-label in each fold. Raises as `clean_labels.read_splits` and `pseudo_labels.read` do.
    """
    splits = clean_labels.read_splits(output_dir, run.label_source, partial=run.partial_labels)
    splits = pseudo_labels.joined_splits(splits, output_dir, run.pseudo_labels, run.pseudo_weight, only=run.folds)
    if run.partial_labels:
        outside = external.read(output_dir)
        splits = {fold: with_attributes(split, outside) for fold, split in splits.items()}
    return ages.with_years(splits, output_dir)


def with_attributes(split: pd.DataFrame, outside: pd.DataFrame) -> pd.DataFrame:
    """A split with the columns `folds.KNOWN`: what a photo's label says, or for one without what `outside` does.

    outside: the table of `external.read`. Raises ValueError for photos of label -1 that it lacks.
    """
    is_partial = (split["label"] == PARTIAL).to_numpy()
    absent = set(split["path"][is_partial]) - set(outside["path"])
    refuse(absent, "tables/external.csv lacks photos of the splits (run 00_prepare_data again)")
    told = pd.DataFrame(external.attributes(outside), index=outside["path"]).loc[split["path"][is_partial]]
    found = labels.decode_all(split["label"].mask(is_partial, 0))
    for name, numbers in found.items():
        numbers[is_partial] = told[name]
    return split.assign(**{folds.KNOWN[name]: numbers for name, numbers in found.items()})


def is_real(rows: pd.DataFrame) -> pd.Series:
    """(N,) bool: which rows of a split have a whole label of full weight, neither a pseudo- nor a partial one."""
    is_named = rows["person"].str.startswith(pseudo_labels.PREFIX) if "person" in rows else False
    return (rows["label"] != PARTIAL) & (rows.get("weight", 1.0) == 1) & ~pd.Series(is_named, rows.index, dtype=bool)


def photo_table(output_dir: str | os.PathLike[str], run: Run) -> pd.DataFrame:
    """Every photo that a run may train on, columns `path` and `split` (all train) at least, for the store.

    The labeled ones, the external ones and, as the run asks, those with a pseudo-label, of any fold.
    """
    table = external.with_external(photos.labeled(output_dir), output_dir)
    if not run.pseudo_labels:
        return table
    return pseudo_labels.with_pseudo(table, pseudo_labels.read(output_dir, run.pseudo_labels, {}))
