"""The audit of splits: whatever would let a network be scored on what it has seen is refused by name."""

import os
from collections.abc import Iterable

import pandas as pd

SPLIT_COLUMNS = ["path", "person", "label", "split"]
TRAIN, VAL, TEST_VAL = "train", "val", "test_val"


def group_of(people: pd.Series, groups: pd.Series | None) -> pd.Series:
    """The group of each entry of a column of people: who is not in `groups` stands alone under their own name.

    groups: group name by person (index), such as `twins.unite` gives; None: all stand alone. Raises
    ValueError for a person in two groups.
    """
    if groups is None:
        return people
    refuse(groups.index[groups.index.duplicated()], "people in more than one group")
    known = groups.dropna().to_dict()
    return people.map(lambda person: known.get(person, person))


def is_external(paths: pd.Series) -> pd.Series:
    """Whether each path of a split is that of an external photo: those are absolute."""
    return paths.map(os.path.isabs).astype(bool)


def audit(
    splits: dict[int, pd.DataFrame], groups: pd.Series | None = None, duplicates: Iterable[pd.DataFrame] = ()
) -> None:
    """Raise ValueError, naming the culprits, unless the splits are honest.

    In each fold each photo stands once, and no person, no group of people and no set of copies stands
    in two parts; external photos only train. All folds list the same photos, people and labels; over
    the folds every photo that is not in test_val is validated exactly once, and test_val is the same
    everywhere. duplicates: tables with the columns `hash, path, set`, where rows of one hash are
    copies; those of the set eval have no place in a split.
    """
    duplicates = list(duplicates)
    for fold, split in splits.items():
        _each_photo_once(fold, split)
        _whole(fold, split, split["person"], "people who stand")
        _whole(fold, split, group_of(split["person"], groups), "duplicate groups that stand", "person")
        for table in duplicates:
            _copies_together(fold, split, table)
        outside = split["path"][is_external(split["path"]) & (split["split"] != TRAIN)]
        refuse(outside, f"fold {fold}: external photos outside train")
    _same_everywhere(splits)
    _each_validated_once({fold: split[~is_external(split["path"])] for fold, split in splits.items()})


def _each_photo_once(fold: int, split: pd.DataFrame) -> None:
    unknown = set(split["split"]) - {TRAIN, VAL, TEST_VAL}
    refuse(unknown, f"fold {fold}: split names other than train, val and test_val")
    plain = split["path"].map(os.path.normpath)  # ./a.jpg is a.jpg
    refuse(split["path"][plain.duplicated()], f"fold {fold}: photos that stand twice")
    for part in (TRAIN, VAL):
        if not (split["split"] == part).any():
            raise ValueError(f"fold {fold}: no photo is in {part}")


def _whole(fold: int, split: pd.DataFrame, keys: pd.Series, what: str, named_by: str = "") -> None:
    """Refuse keys, one a row of the split, that occur in more than one part; named with what they hold."""
    parts = split["split"].groupby(keys).nunique()
    crossing = parts.index[parts > 1]
    if named_by:
        held = split[named_by].groupby(keys).unique()
        crossing = [f"{key} ({', '.join(sorted(held[key])[:3])})" for key in crossing]
    refuse(crossing, f"fold {fold}: {what} in more than one part")


def _copies_together(fold: int, split: pd.DataFrame, duplicates: pd.DataFrame) -> None:
    """Refuse copies in more than one part; those that are not in the split at all have no say."""
    of_train = duplicates.loc[duplicates["set"] != "eval", ["hash", "path"]]
    copies = of_train.merge(split[["path", "split"]], on="path")
    _whole(fold, copies, copies["hash"], "copies that stand", "path")


def _same_everywhere(splits: dict[int, pd.DataFrame]) -> None:
    """Refuse photos that two folds list differently; an external one may be absent where it may not train."""
    first = min(splits)
    listed = {fold: _rows(split[~is_external(split["path"])]) for fold, split in splits.items()}
    for fold, rows in listed.items():
        paths = {path for path, _, _ in rows ^ listed[first]}
        refuse(paths, f"folds {first} and {fold}: photos that only one lists so")
    external = set().union(*map(_rows, splits.values())) - listed[first]
    paths = pd.Series([path for path, _, _ in external], dtype="str")
    refuse(paths[paths.duplicated()], "external photos that two folds list differently")


def _each_validated_once(splits: dict[int, pd.DataFrame]) -> None:
    first = min(splits)
    apart = {fold: set(split.loc[split["split"] == TEST_VAL, "path"]) for fold, split in splits.items()}
    for fold, paths in apart.items():
        refuse(paths ^ apart[first], f"folds {first} and {fold}: photos in the test_val of only one")
    validated = pd.concat([split.loc[split["split"] == VAL, "path"] for split in splits.values()]).value_counts()
    expected = set(splits[first]["path"]) - apart[first]
    refuse(validated.index[validated > 1], "photos validated in more than one fold")
    refuse(expected - set(validated.index), "photos validated in no fold")


def _rows(split: pd.DataFrame) -> set[tuple[str, str, int]]:
    return set(split[["path", "person", "label"]].itertuples(index=False, name=None))


def refuse(culprits, what: str) -> None:
    """Raise ValueError that says `what` is wrong, how often, and names three culprits; nothing if there are none."""
    if len(culprits):
        raise ValueError(f"{what}: {len(culprits)}, such as {sorted(culprits)[:3]}")
