"""Folds in which nobody, under whatever name, stands on both sides.

A split lists the photos of one fold with the part each stands in. Photos of the data folder go by
their path inside it; external photos, which only ever train, by their absolute path.

The audit of splits: whatever would let a network be scored on what it has seen is refused by name.

People spread over parts, each kept whole, so that every class is divided as evenly as that allows.
"""

import itertools
import os
import warnings
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from mask_lib.base import config, files, labels
from mask_lib.data.external import PARTIAL

GROUP_COLUMNS = ["person", "group"]
KNOWN = {name: f"known_{name}" for name in labels.ATTRIBUTES}  # attributes' numbers in a split, -1: unknown
MORE_COLUMNS = ("weight", *KNOWN.values())  # of a split, if its run asks for them: see `dataset.read_training_splits`
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
    fold_of = united["person"].map(spread_people(united[~is_apart], fold_count, seed + 1))
    splits = {fold: _placed(photos, is_apart, fold_of == fold) for fold in range(fold_count)}
    audit_splits(splits, groups)
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
    audit_splits(joined, groups)
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
    audit_splits(splits, read_groups(output_dir))
    if not partial:
        splits = {fold: split[split["label"] != PARTIAL].reset_index(drop=True) for fold, split in splits.items()}
    return dict(sorted(splits.items()))


SPLIT_COLUMNS = ["path", "person", "label", "split"]
TRAIN, VAL, TEST_VAL = "train", "val", "test_val"


def group_of(people: pd.Series, groups: pd.Series | None) -> pd.Series:
    """The group of each entry of a column of people: who is not in `groups` stands alone under their own name.

    groups: group name by person (index), such as `duplicates.unite` gives; None: all stand alone. Raises
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


def audit_splits(
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


ROUNDING = 1e-9  # what a smaller distance must gain before it counts as smaller


def class_counts(photos: pd.DataFrame) -> pd.DataFrame:
    """How many photos of each label (columns) a person (index, sorted) has, int64."""
    return pd.crosstab(photos["person"], photos["label"])


def spread_people(photos: pd.DataFrame, part_count: int, seed: int) -> pd.Series:
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
