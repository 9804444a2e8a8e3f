"""Folds grouped by person and copies, stratified by class, and their audit.

A split lists a fold's photos and parts, by path in the data folder, or absolute: external photos, which only train.
"""

import os
import warnings
from collections.abc import Collection, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from mask_lib.base import config, files
from mask_lib.base.checks import require

SPLIT_COLUMNS = ["path", "person", "label", "split"]
AS_ONE = "people who share pictures count as one"
TRAIN, VAL, TEST_VAL = "train", "val", "test_val"
MAIN, SMALL = "split.stratified", "split.stratified.small"  # file names: with and without external photos


def make_splits(
    photos: pd.DataFrame,
    fold_count: int = 5,
    test_val_share: float = 0.1,
    seed: int = 0,
    groups: pd.Series | None = None,
) -> dict[int, pd.DataFrame]:
    """One table a fold, columns `path, person, label, split`; split is train, val or test_val.

    photos: columns path, person, label. groups: group name by person (index): people of one group are kept together.
    About `test_val_share` of the people and of every class (0: none) are test_val, the same in every fold: neither
    training nor the choice of checkpoints sees them. Raises ValueError for settings that leave a part empty.
    """
    require("test_val_share", test_val_share, 0 <= test_val_share <= 0.5, "from 0 to 0.5")
    photos = photos[["path", "person", "label"]].astype({"label": "int64"}).reset_index(drop=True)
    grouped = photos.assign(person=group_of(photos["person"], groups))
    is_held_out = grouped["person"].isin(held_out_people(grouped, test_val_share, seed))
    fold_of = grouped["person"].map(spread_people(grouped[~is_held_out], fold_count, seed + 1))
    splits = {fold: _with_split(photos, is_held_out, fold_of == fold) for fold in range(fold_count)}
    audit_splits(splits, groups)
    return splits


def _with_split(photos: pd.DataFrame, is_held_out: pd.Series | bool, is_validated: pd.Series) -> pd.DataFrame:
    return photos.assign(split=np.where(is_held_out, TEST_VAL, np.where(is_validated, VAL, TRAIN)))[SPLIT_COLUMNS]


def spread_people(photos: pd.DataFrame, part_count: int, seed: int) -> pd.Series:
    """A part 0 … part_count-1 for each person (index), every class spread evenly: `StratifiedGroupKFold`'s folds.

    photos: columns `person, label`, in any order. Raises ValueError when there are fewer people than parts.
    """
    people = photos["person"].nunique()
    if people < part_count:
        raise ValueError(f"{people} people cannot fill {part_count} parts: lower fold_count or add people; {AS_ONE}")
    parts = _parts(StratifiedGroupKFold(part_count, shuffle=True, random_state=seed), photos)
    return pd.Series(parts, index=photos["person"], name="part").groupby(level=0).first()


def held_out_people(photos: pd.DataFrame, share: float, seed: int) -> pd.Index:
    """About `share` of the people (column person) and of every class (label), at least one person; 0: nobody.

    They are some parts of `spread_people`: two of five for 0.4. Raises ValueError for less than half a person.
    """
    people = photos["person"].nunique()
    if not share:
        return pd.Index([])
    if share * people < 0.5:
        what = f"test_val_share = {share}: that is less than one person of {people}"
        raise ValueError(f"{what}; raise it or give 0; {AS_ONE}")
    fraction = Fraction(share).limit_denominator(min(20, people)) or Fraction(1, min(round(1 / share), people))
    parts = spread_people(photos, fraction.denominator, seed)
    return parts.index[parts < fraction.numerator]


def _parts(splitter: StratifiedKFold | StratifiedGroupKFold, photos: pd.DataFrame) -> np.ndarray:
    """(N,) int64: the part of a splitter of scikit-learn in which each photo is tested."""
    # Of a toy set, where no class has a photo for every part, scikit-learn would stratify nothing and raise.
    strata = photos["label"] if photos["label"].value_counts().max() >= splitter.n_splits else photos["label"] * 0
    groups = photos["person"] if isinstance(splitter, StratifiedGroupKFold) else None
    parts = np.empty(len(photos), dtype=np.int64)
    with warnings.catch_warnings():
        # A class with fewer photos than parts is still spread as far as it goes; the notebook's plot shows it.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for part, (_, rows) in enumerate(splitter.split(photos, strata, groups)):
            parts[rows] = part
    return parts


def naive_splits(photos: pd.DataFrame, fold_count: int = 5, seed: int = 0) -> dict[int, pd.DataFrame]:
    """DISHONEST splits of single photos, a person on both sides, only to show how they flatter; the audit refuses them.

    Columns as `make_splits` gives them, without a test_val.
    """
    photos = photos[["path", "person", "label"]].astype({"label": "int64"}).reset_index(drop=True)
    parts = _parts(StratifiedKFold(fold_count, shuffle=True, random_state=seed), photos)
    return {fold: _with_split(photos, False, parts == fold) for fold in range(fold_count)}


def join_training(
    splits: dict[int, pd.DataFrame], external: pd.DataFrame, groups: pd.Series | None = None
) -> dict[int, pd.DataFrame]:
    """The splits with external photos (columns path, person, label) as further train rows.

    One whose group also holds a person of the data folder trains only where that person does: it is a copy of theirs.
    Raises ValueError for relative paths and for people of the data folder.
    """
    kinds = {"path": "str", "person": "str", "label": "int64"}
    rows = external[[*kinds]].astype(kinds).assign(split=TRAIN)
    refuse(rows["path"][~is_external(rows["path"])], "external photos need absolute paths; these have none")
    group = group_of(rows["person"], groups)
    joined = {}
    for fold, split in splits.items():
        refuse(set(rows["person"]) & set(split["person"]), "external people named like people of the data folder")
        elsewhere = group_of(split.loc[split["split"] != TRAIN, "person"], groups)
        joined[fold] = pd.concat([split, rows[~group.isin(elsewhere)]], ignore_index=True)
    audit_splits(joined, groups)
    return joined


def group_of(people: pd.Series, groups: pd.Series | None) -> pd.Series:
    """The group of each entry of a column of people: who is not in `groups` is alone under their own name.

    groups: as `duplicates.unite` gives them; None: all are alone. Raises ValueError for a person in two groups.
    """
    if groups is None:
        return people
    refuse(groups.index[groups.index.duplicated()], "people in more than one group")
    return people.map(groups).fillna(people)


def is_external(paths: pd.Series) -> pd.Series:
    """Whether each path of a split is that of an external photo: those are absolute."""
    return paths.map(os.path.isabs).astype(bool)


def fingerprint(content: str, split: pd.DataFrame, weights: str) -> str:
    """Digest of what a fold was trained from, which a later step must find unchanged to trust its checkpoint: content
    of the store, split, with `weight` if there are pseudo-labels, and the bytes of `weights` if that is a path.
    """
    columns = [*SPLIT_COLUMNS, *(["weight"] if "weight" in split else [])]
    weight_file = [] if weights in config.WEIGHTS_BY_NAME else [files.file_digest(files.project_path(weights))]
    return files.digest([content, split[columns].values.tolist(), *weight_file])


def table_path(output_dir: Path, name: str) -> Path:
    """Where a table of this name lies under an experiment's `tables/`."""
    return Path(output_dir) / "tables" / f"{name}.csv"


def write_splits(splits: dict[int, pd.DataFrame], output_dir: Path, groups: pd.Series | None = None) -> list[Path]:
    """Write two CSVs a fold, as it is and without external photos, and everybody's group; remove other folds' files."""
    tables = {f"{MAIN}.{fold}": split for fold, split in splits.items()}
    tables |= {f"{SMALL}.{fold}": split[~is_external(split["path"])] for fold, split in splits.items()}
    people = pd.Series(sorted(set().union(*(split["person"] for split in splits.values()))), dtype="str")
    tables["groups"] = pd.DataFrame({"person": people, "group": group_of(people, groups)})
    written = [files.write_csv(table, table_path(output_dir, name)) for name, table in tables.items()]
    for path in {*_split_files(output_dir, MAIN), *_split_files(output_dir, SMALL)} - set(written):
        path.unlink()
    return written


def _split_files(output_dir: Path, kind: str) -> list[Path]:
    return sorted((Path(output_dir) / "tables").glob(f"{kind}.[0-9]*.csv"))


def read_groups(output_dir: Path) -> pd.Series | None:
    """Group name by person (index) as `write_splits` left it, None if it left nothing."""
    path = table_path(output_dir, "groups")
    if not path.exists():
        return None
    return files.read_csv(path, {"person": "str", "group": "str"}).set_index("person")["group"]


def read_splits(output_dir: Path, small: bool = False) -> dict[int, pd.DataFrame]:
    """All folds' tables, audited by person and group; small: those without external photos."""
    found = _split_files(output_dir, SMALL if small else MAIN)
    if not found:
        raise FileNotFoundError(f"no splits in {files.shown_path(output_dir)}/tables: run 00_prepare_data first")
    numbers = {path.name.split(".")[-2]: path for path in found}
    copies = [path.name for number, path in numbers.items() if not number.isdecimal()]
    refuse(copies, f"{files.shown_path(found[0].parent)} holds tables of no fold, such as copies; remove them")
    kinds = dict.fromkeys(SPLIT_COLUMNS, "str") | {"label": "int64"}
    splits = {int(number): files.read_csv(path, kinds) for number, path in numbers.items()}
    audit_splits(splits, read_groups(output_dir))
    return dict(sorted(splits.items()))


def audit_splits(
    splits: dict[int, pd.DataFrame], groups: pd.Series | None = None, duplicates: Sequence[pd.DataFrame] = ()
) -> None:
    """Raise ValueError, naming the culprits, unless the splits are honest.

    In each fold each photo is listed once, and no person, group of people or set of copies is in two parts; external
    photos only train. All folds list the same photos, people and labels; every photo but test_val's is validated
    exactly once, and test_val is the same everywhere. duplicates: tables of `hash, path, set`; a hash is of copies.
    """
    for fold, split in splits.items():
        parts = set(split["split"])
        refuse(parts - {TRAIN, VAL, TEST_VAL}, f"fold {fold}: split names other than train, val and test_val")
        refuse({TRAIN, VAL} - parts, f"fold {fold}: parts without a photo")
        normal = split["path"].map(os.path.normpath)  # ./a.jpg is a.jpg
        refuse(split["path"][normal.duplicated()], f"fold {fold}: photos that stand twice")
        _in_one_part(fold, split, split["person"], "people who stand", "person")
        _in_one_part(fold, split, group_of(split["person"], groups), "duplicate groups that stand", "person")
        for table in duplicates:
            copies = table.loc[table["set"] != "eval", ["hash", "path"]].merge(split[["path", "split"]], on="path")
            _in_one_part(fold, copies, copies["hash"], "copies that stand", "path")
    _audit_over_folds(pd.concat(splits.values(), ignore_index=True), len(splits))


def _in_one_part(fold: int, split: pd.DataFrame, keys: pd.Series, what: str, named_by: str) -> None:
    """Refuse keys, one a row of the split, that occur in more than one part; named with what they hold."""
    parts = split["split"].groupby(keys).nunique()
    crossing = split[keys.isin(parts.index[parts > 1])]
    held = crossing[named_by].groupby(keys).unique()
    named = [f"{key} ({', '.join(sorted(names)[:3])})" for key, names in held.items()]
    refuse(named, f"fold {fold}: {what} in more than one part")


def _audit_over_folds(rows: pd.DataFrame, fold_count: int) -> None:
    """Refuse what is wrong with the rows of all folds together."""
    is_outside, photo = is_external(rows["path"]), ["path", "person", "label"]
    outside, own = rows[is_outside], rows[~is_outside]
    refuse(set(outside["path"][outside["split"] != TRAIN]), "external photos outside train")
    versions = outside[photo].drop_duplicates()["path"]  # one may be absent from a fold where it may not train
    refuse(versions[versions.duplicated()], "external photos that two folds list differently")
    listed = own.groupby(photo)["path"].size()
    refuse(set(listed.index[listed != fold_count].get_level_values("path")), "photos that not all folds list, or alike")
    folds = pd.crosstab(own["path"], own["split"]).reindex(columns=[VAL, TEST_VAL], fill_value=0)
    refuse(folds.index[~folds[TEST_VAL].isin([0, fold_count])], "photos in the test_val of some folds alone")
    refuse(folds.index[folds[VAL] > 1], "photos validated in more than one fold")
    refuse(folds.index[folds.sum(axis=1) == 0], "photos validated in no fold")


def refuse(culprits: Collection[str], what: str) -> None:
    """Raise ValueError that says `what` is wrong, how often, and names three culprits; nothing if there are none."""
    if len(culprits):
        raise ValueError(f"{what}: {len(culprits)}, such as {sorted(culprits)[:3]}")
