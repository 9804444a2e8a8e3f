"""Folds in which no person stands on both sides, with each class spread as evenly as that allows."""

import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from mask_lib import config, files

SPLIT_COLUMNS = ["path", "person", "label", "split"]
TRAIN, VAL, TEST_VAL = "train", "val", "test_val"


def rarest_class(photos: pd.DataFrame) -> pd.Series:
    """For each person (index), that one of their labels which the fewest photos of the set carry.

    A person's photos stay together, so one class must speak for all of them; the rarest is the one
    that a fold could run out of.
    """
    counts = photos["label"].map(photos["label"].value_counts())
    rarest_first = photos.assign(count=counts).sort_values(["count", "label"], kind="stable")
    return rarest_first.groupby("person")["label"].first()


def spread(photos: pd.DataFrame, part_count: int, seed: int) -> pd.Series:
    """A part 0 … part_count-1 for each person (index), stratified by their rarest class.

    Raises ValueError when there are fewer people than parts.
    """
    strata = rarest_class(photos)
    if len(strata) < part_count:
        raise ValueError(f"{len(strata)} people cannot fill {part_count} parts: lower fold_count or add people")
    if (
        strata.value_counts().max() < part_count
    ):  # a toy set: no class reaches every part, so there is nothing to balance
        strata = strata * 0
    splitter = StratifiedGroupKFold(part_count, shuffle=True, random_state=seed)
    parts = pd.Series(-1, index=strata.index, name="part")
    with warnings.catch_warnings():
        # A class with fewer people than parts is still spread as far as it goes; the notebook's plot shows it.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for part, (_, members) in enumerate(splitter.split(strata, strata, groups=strata.index)):
            parts.iloc[members] = part
    return parts


def make_splits(
    photos: pd.DataFrame, fold_count: int = 5, test_val_share: float = 0.1, seed: int = 0
) -> dict[int, pd.DataFrame]:
    """One table a fold, columns `path, person, label, split`; split is train, val or test_val.

    photos: train rows of the photo table (columns path, person, label). `test_val_share` of the
    people (0: none) stand apart as test_val, the same in every fold: training never sees them, and
    neither does the choice of checkpoints. Raises ValueError for settings that leave a part empty.
    """
    if fold_count < 2:
        raise ValueError(f"fold_count = {fold_count}: cross-validation needs at least 2")
    if not 0 <= test_val_share <= 0.5:
        raise ValueError(f"test_val_share = {test_val_share}: it must lie between 0 and 0.5")
    photos = photos[["path", "person", "label"]].astype({"label": "int64"}).reset_index(drop=True)
    held_out = pd.Index([])
    if test_val_share:
        share = Fraction(test_val_share).limit_denominator(min(100, photos["person"].nunique()))
        if not share:
            raise ValueError(f"test_val_share = {test_val_share}: that is less than one person; raise it or give 0")
        parts = spread(photos, share.denominator, seed)
        held_out = parts.index[parts < share.numerator]
    is_held_out = photos["person"].isin(held_out)
    fold_of = photos["person"].map(spread(photos[~is_held_out], fold_count, seed + 1))
    splits = {}
    for fold in range(fold_count):
        place = np.where(is_held_out, TEST_VAL, np.where(fold_of == fold, VAL, TRAIN))
        splits[fold] = photos.assign(split=place)[SPLIT_COLUMNS]
    audit(splits)
    return splits


def audit(splits: dict[int, pd.DataFrame]) -> None:
    """Raise ValueError, naming people, unless the splits are honest.

    In each fold no person has photos in two parts and each photo stands once; all folds list the same
    photos, people and labels; over the folds every photo that is not in test_val is validated exactly
    once, and test_val is the same everywhere.
    """
    for fold, split in splits.items():
        _each_photo_once(fold, split)
        crossing = split.groupby("person")["split"].nunique()
        _refuse(crossing.index[crossing > 1], f"fold {fold}: people who stand in more than one part")
    first = min(splits)
    for fold, split in splits.items():
        different = _rows(split) ^ _rows(splits[first])
        _refuse([path for path, _, _ in different], f"folds {first} and {fold}: photos that only one lists so")
    held_out = {fold: set(split.loc[split["split"] == TEST_VAL, "path"]) for fold, split in splits.items()}
    for fold, paths in held_out.items():
        _refuse(paths ^ held_out[first], f"folds {first} and {fold}: photos in the test_val of only one")
    validated = pd.concat([split.loc[split["split"] == VAL, "path"] for split in splits.values()]).value_counts()
    expected = set(splits[first]["path"]) - held_out[first]
    _refuse(validated.index[validated > 1], "photos validated in more than one fold")
    _refuse(expected - set(validated.index), "photos validated in no fold")


def _rows(split: pd.DataFrame) -> set[tuple[str, str, int]]:
    return set(split[["path", "person", "label"]].itertuples(index=False, name=None))


def _each_photo_once(fold: int, split: pd.DataFrame) -> None:
    unknown = set(split["split"]) - {TRAIN, VAL, TEST_VAL}
    _refuse(unknown, f"fold {fold}: split names other than train, val and test_val")
    _refuse(split["path"][split["path"].duplicated()], f"fold {fold}: photos that stand twice")
    for part in (TRAIN, VAL):
        if not (split["split"] == part).any():
            raise ValueError(f"fold {fold}: no photo is in {part}")


def _refuse(culprits, what: str) -> None:
    if len(culprits):
        raise ValueError(f"{what}: {len(culprits)}, such as {sorted(culprits)[:3]}")


def fingerprint(content: str, split: pd.DataFrame, weights: str) -> str:
    """Digest of what a fold was trained from, which a later step must find unchanged to trust its checkpoint.

    content: of the store with the labeled photos; weights: the run's setting, a file's bytes if it is a path.
    """
    beside = [] if weights in config.WEIGHTS_BY_NAME else [files.file_digest(files.project_path(weights))]
    return files.digest([content, split[SPLIT_COLUMNS].values.tolist(), *beside])


def split_path(output_dir: Path, fold: int) -> Path:
    """Where a fold's table lies."""
    return Path(output_dir) / "tables" / f"split.stratified.{fold}.csv"


def write_splits(splits: dict[int, pd.DataFrame], output_dir: Path) -> list[Path]:
    """Write one CSV a fold; files of folds beyond these, from an earlier larger count, are removed."""
    paths = [files.write_csv(split, split_path(output_dir, fold)) for fold, split in splits.items()]
    for stale in set(split_path(output_dir, 0).parent.glob("split.stratified.[0-9]*.csv")) - set(paths):
        stale.unlink()
    return paths


def read_splits(output_dir: Path) -> dict[int, pd.DataFrame]:
    """All folds' tables, audited. Raises FileNotFoundError that says how to make them."""
    found = sorted(split_path(output_dir, 0).parent.glob("split.stratified.[0-9]*.csv"))
    if not found:
        raise FileNotFoundError(f"no splits in {files.shown_path(output_dir)}/tables: run 00_prepare_data first")
    splits = {int(path.name.split(".")[2]): pd.read_csv(path, dtype={"person": str, "path": str}) for path in found}
    audit(splits)
    return dict(sorted(splits.items()))
