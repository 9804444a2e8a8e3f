"""The labels that training reads: those of `tables/clean.csv` once there are any, else the data set's own."""

from collections.abc import Iterable
from pathlib import Path, PurePath

import pandas as pd

from mask_lib.base import files
from mask_lib.data.splits import audit_splits, is_external, read_splits, table_path

CLEAN_COLUMNS = ["path", "class"]
RUN_AGAIN = "run 01_label_cleaning again"


def write(kept: pd.DataFrame, dropped: pd.DataFrame, output_dir: files.AnyPath) -> list[Path]:
    """Write `clean.csv` and `dropped.csv`, columns `CLEAN_COLUMNS`, and return their paths.

    Beside them `given.csv`, the labels of the data set that cleaning began with, `path` below the images folder.
    """
    given = _own_photos(next(iter(read_splits(Path(output_dir)).values()))).rename(columns={"label": "class"})
    # A kill before clean.csv leaves an older one, or none; one before given.csv labels that are refused if they differ.
    tables = {"dropped": dropped, "clean": kept, "given": given}
    paths = [files.write_csv(table[CLEAN_COLUMNS], table_path(output_dir, name)) for name, table in tables.items()]
    return paths[:2]


def _own_photos(split: pd.DataFrame) -> pd.DataFrame:
    """The rows of photos of the data set itself; external ones are never reviewed."""
    return split[~is_external(split["path"])]


def read_clean_splits(
    output_dir: files.AnyPath, label_source: str = "clean", small: bool = False
) -> dict[int, pd.DataFrame]:
    """The folds' tables (see `splits.read_splits`) as a run trains on them.

    label_source: clean takes labels from `tables/clean.csv`, where it is there, and leaves dropped photos out of every
    part; given, those of the data set. Raises ValueError if clean.csv was written before photos were added to the set
    or its labels were changed, FileNotFoundError if it is missing though there are decisions.
    """
    splits = read_splits(Path(output_dir), small)
    path = table_path(output_dir, "clean")
    if label_source == "given":
        return splits
    if not path.exists() and any((Path(output_dir) / "review").glob("decisions.*.jsonl")):
        advice = "run 01_label_cleaning, or train with label_source: given"
        raise FileNotFoundError(f"no {files.shown_path(path)}, though labels were decided on: {advice}")
    if not path.exists():
        return splits
    _refuse_changed(next(iter(splits.values())), output_dir)
    known = _own_photos(next(iter(splits.values())))["path"]
    class_of, dropped = (_read_classes(table_path(output_dir, name), known) for name in ("clean", "dropped"))
    cleaned = {fold: _with_classes(split, class_of, dropped) for fold, split in splits.items()}
    audit_splits(cleaned)
    return cleaned


def _refuse_changed(split: pd.DataFrame, output_dir: files.AnyPath) -> None:
    """Raise ValueError that names photos whose given label is another than the one that cleaning began with."""
    path = table_path(output_dir, "given")
    if not path.exists():  # clean labels from elsewhere
        return
    now = _own_photos(split).set_index("path")["label"]
    before = _read_classes(path, now.index).reindex(now.index)
    changed = [f"{one} ({before[one]:.0f} → {now[one]})" for one in now.index[before.notna() & (before != now)]]
    if changed:
        older = f"{files.shown_path(path.with_name('clean.csv'))} is older than the labels of the data set"
        since = f"{len(changed)} have changed since, such as {', '.join(changed[:3])}"
        raise ValueError(f"{older}: {since}; {RUN_AGAIN}")


def _read_classes(path: Path, known: Iterable[str]) -> pd.Series:
    """Class by path below the images folder, the `known` ones. Raises OSError or ValueError that names the file."""
    table, known = files.read_csv(path, {"path": "str", "class": "int64"}), set(known)
    # Only as much of a path as the photo table knows: the data set may have been moved since.
    deepest, short = max((name.count("/") for name in known), default=0) + 1, []
    for one in table["path"]:
        parts = PurePath(one).parts
        ends = ("/".join(parts[-count:]) for count in range(min(deepest, len(parts)), 0, -1))
        short.append(next((end for end in ends if end in known), one))
    return pd.Series(table["class"].to_numpy(), short)


def _with_classes(split: pd.DataFrame, class_of: pd.Series, dropped: pd.Series) -> pd.DataFrame:
    own = _own_photos(split)["path"]
    unknown = own[~own.isin(class_of.index) & ~own.isin(dropped.index)]
    if len(unknown):
        lacking = f"it lacks {len(unknown)}, such as {list(unknown[:3])}; {RUN_AGAIN}"
        raise ValueError(f"tables/clean.csv is older than the photos: {lacking}")
    kept = split.drop(index=own.index[own.isin(dropped.index)]).reset_index(drop=True)
    return kept.assign(label=kept["path"].map(class_of).fillna(kept["label"]).astype("int64"))


def touched(output_dir: files.AnyPath) -> set[str]:
    """Paths of the photos whose label is no longer the given one, or that were dropped."""
    given, clean = (next(iter(read_clean_splits(output_dir, source).values())) for source in ("given", "clean"))
    both = given.merge(clean[["path", "label"]], on="path", how="left", suffixes=("", "_clean"))
    return set(both["path"][both["label"] != both["label_clean"]])
