"""Folds in which nobody, under whatever name, stands on both sides.

A split lists the photos of one fold with the part each stands in. Photos of the data folder go by
their path inside it; external photos, which only ever train, by their absolute path.
"""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from mask_lib import config, files, labels
from mask_lib.auditing import SPLIT_COLUMNS, TEST_VAL, TRAIN, VAL, audit, group_of, is_external, refuse
from mask_lib.balance import held_out, spread
from mask_lib.sources import PARTIAL

GROUP_COLUMNS = ["person", "group"]
KNOWN = {name: f"known_{name}" for name in labels.ATTRIBUTES}  # attributes' numbers in a split, -1: unknown
MORE_COLUMNS = ("weight", *KNOWN.values())  # of a split, if its run asks for them: see `trainable.read_splits`
MAIN, SMALL = "split.stratified", "split.stratified.small"  # with and without external photos


def make_splits(
    photos: pd.DataFrame,
    fold_count: int = 5,
    test_val_share: float = 0.1,
    seed: int = 0,
    groups: pd.Series | None = None,
) -> dict[int, pd.DataFrame]:
    """One table a fold, columns `path, person, label, split`; split is train, val or test_val.

    photos: train rows of the photo table (columns path, person, label). groups: group name by person
    (index): people of one group are kept together as if they were one. `test_val_share` of the people
    (0: none) stand apart as test_val, the same in every fold: training never sees them, and neither
    does the choice of checkpoints. Raises ValueError for settings that leave a part empty.
    """
    if fold_count < 2:
        raise ValueError(f"fold_count = {fold_count}: cross-validation needs at least 2")
    if not 0 <= test_val_share <= 0.5:
        raise ValueError(f"test_val_share = {test_val_share}: it must lie between 0 and 0.5")
    photos = photos[["path", "person", "label"]].astype({"label": "int64"}).reset_index(drop=True)
    united = photos.assign(person=group_of(photos["person"], groups))
    apart = held_out(united, test_val_share, seed) if test_val_share else pd.Index([])
    is_apart = united["person"].isin(apart)
    fold_of = united["person"].map(spread(united[~is_apart], fold_count, seed + 1))
    splits = {fold: _placed(photos, is_apart, fold_of == fold) for fold in range(fold_count)}
    audit(splits, groups)
    return splits


def _placed(photos: pd.DataFrame, is_apart: pd.Series, is_validated: pd.Series) -> pd.DataFrame:
    """Photos with the part each stands in."""
    return photos.assign(split=np.where(is_apart, TEST_VAL, np.where(is_validated, VAL, TRAIN)))[SPLIT_COLUMNS]


def naive_splits(photos: pd.DataFrame, fold_count: int = 5, seed: int = 0) -> dict[int, pd.DataFrame]:
    """DISHONEST splits of single photos, as one makes without thinking of people: only to show how they flatter.

    Each class is spread evenly, but a person's photos stand on both sides, and a network is then scored
    on faces it knows. Columns as `make_splits` gives them, without a test_val; the audit refuses them.
    """
    photos = photos[["path", "person", "label"]].astype({"label": "int64"}).reset_index(drop=True)
    # Where no class has a photo for every fold there is nothing to stratify.
    strata = photos["label"] if photos["label"].value_counts().max() >= fold_count else photos["label"] * 0
    folds = StratifiedKFold(fold_count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        validated = [photos.index.isin(rows) for _, rows in folds.split(photos, strata)]
    nobody = np.zeros(len(photos), dtype=bool)
    return {fold: _placed(photos, nobody, one) for fold, one in enumerate(validated)}


def join_training(
    splits: dict[int, pd.DataFrame], external: pd.DataFrame, groups: pd.Series | None = None
) -> dict[int, pd.DataFrame]:
    """The splits with external photos as further train rows: in each fold those that may train there.

    external: the table of `external.scan` (columns path, person, label). One whose group also holds a
    person of the data folder trains only where that person does; it is a copy of theirs, and would
    give the answer away elsewhere. Raises ValueError for relative paths and for people of the data folder.
    """
    kinds = {"path": "str", "person": "str", "label": "int64"}
    rows = external[[*kinds]].astype(kinds).reset_index(drop=True)
    refuse(rows["path"][~is_external(rows["path"])], "external photos need absolute paths; these have none")
    group = group_of(rows["person"], groups)
    joined = {}
    for fold, split in splits.items():
        refuse(set(rows["person"]) & set(split["person"]), "external people named like people of the data folder")
        elsewhere = group_of(split.loc[split["split"] != TRAIN, "person"], groups)
        allowed = rows[~group.isin(elsewhere)].assign(split=TRAIN)
        joined[fold] = pd.concat([split, allowed[SPLIT_COLUMNS]], ignore_index=True)
    audit(joined, groups)
    return joined


def fingerprint(content: str, split: pd.DataFrame, weights: str) -> str:
    """Digest of what a fold was trained from, which a later step must find unchanged to trust its checkpoint.

    content: of the store with the labeled photos; weights: the run's setting, a file's bytes if it is a path.
    Of the split it covers `SPLIT_COLUMNS` and those of `MORE_COLUMNS` that it has.
    """
    columns = [*SPLIT_COLUMNS, *(name for name in MORE_COLUMNS if name in split)]
    beside = [] if weights in config.WEIGHTS_BY_NAME else [files.file_digest(files.project_path(weights))]
    return files.digest([content, split[columns].values.tolist(), *beside])


def split_path(output_dir: Path, fold: int, small: bool = False) -> Path:
    """Where a fold's table lies; the small one is without external photos."""
    return Path(output_dir) / "tables" / f"{SMALL if small else MAIN}.{fold}.csv"


def groups_path(output_dir: Path) -> Path:
    """Where the groups lie that splits were made with, columns `person, group`."""
    return Path(output_dir) / "tables" / "groups.csv"


def write_splits(splits: dict[int, pd.DataFrame], output_dir: Path, groups: pd.Series | None = None) -> list[Path]:
    """Write two CSVs a fold, as it is and without external photos (small), and everybody's group.

    Files of folds beyond these, from an earlier larger count, are removed.
    """
    people = pd.Series(sorted(set().union(*(split["person"] for split in splits.values()))), dtype="str")
    table = pd.DataFrame({"person": people, "group": group_of(people, groups)}, columns=GROUP_COLUMNS)
    written = [files.write_csv(split, split_path(output_dir, fold)) for fold, split in splits.items()]
    for fold, split in splits.items():
        written.append(files.write_csv(split[~is_external(split["path"])], split_path(output_dir, fold, small=True)))
    written.append(files.write_csv(table, groups_path(output_dir)))
    for stale in {path for kind in (MAIN, SMALL) for path in _split_files(output_dir, kind)} - set(written):
        stale.unlink()
    return written


def _split_files(output_dir: Path, kind: str) -> list[Path]:
    return sorted((Path(output_dir) / "tables").glob(f"{kind}.[0-9]*.csv"))


def read_groups(output_dir: Path) -> pd.Series | None:
    """Group name by person (index) as `write_splits` left it, None if it left nothing."""
    path = groups_path(output_dir)
    if not path.exists():
        return None
    return pd.read_csv(path, dtype="str", keep_default_na=False).set_index("person")["group"]


def read_splits(output_dir: Path, small: bool = False, partial: bool = False) -> dict[int, pd.DataFrame]:
    """All folds' tables, audited by person and group.

    small: those without external photos. partial: with external photos of which not every attribute
    is known, whose label is -1. Raises FileNotFoundError that says how to make them.
    """
    found = _split_files(output_dir, SMALL if small else MAIN)
    if not found:
        raise FileNotFoundError(f"no splits in {files.shown_path(output_dir)}/tables: run 00_prepare_data first")
    text = {"path": "str", "person": "str", "split": "str"}
    splits = {int(path.name.split(".")[-2]): pd.read_csv(path, dtype=text, keep_default_na=False) for path in found}
    audit(splits, read_groups(output_dir))
    if not partial:
        splits = {fold: split[split["label"] != PARTIAL].reset_index(drop=True) for fold, split in splits.items()}
    return dict(sorted(splits.items()))
