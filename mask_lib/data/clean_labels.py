"""The labels that training reads: those of `tables/clean.csv` once there are any, else the data set's own."""

import os
from pathlib import Path, PurePath

import pandas as pd

from mask_lib.base import files
from mask_lib.base.config import LabelSource
from mask_lib.data.splits import audit_splits, is_external, read_splits

CLEAN_COLUMNS = ["path", "class"]


def clean_path(output_dir: str | os.PathLike[str]) -> Path:
    """Where the table of kept photos lies, absolute `path` and `class` 0-17."""
    return Path(output_dir) / "tables" / "clean.csv"


def dropped_path(output_dir: str | os.PathLike[str]) -> Path:
    """Where the photos lie that label cleaning dropped, absolute `path` and the `class` they were given."""
    return Path(output_dir) / "tables" / "dropped.csv"


def given_path(output_dir: str | os.PathLike[str]) -> Path:
    """Where the labels of the data set lie that cleaning began with, `path` below the images folder and `class`."""
    return Path(output_dir) / "tables" / "given.csv"


def write(kept: pd.DataFrame, dropped: pd.DataFrame, output_dir: str | os.PathLike[str]) -> list[Path]:
    """Write both tables, columns `CLEAN_COLUMNS`, and return their paths; beside them, today's given labels."""
    # The table that training reads comes after the first: between the writes an older one still stands, or none.
    tables = {dropped_path(output_dir): dropped, clean_path(output_dir): kept}
    paths = [files.write_csv(table[CLEAN_COLUMNS], path) for path, table in tables.items()]
    # Last, so that a kill before it leaves labels that are refused if they are not the same.
    given = _own(next(iter(read_splits(Path(output_dir)).values()))).rename(columns={"label": "class"})
    files.write_csv(given[CLEAN_COLUMNS], given_path(output_dir))
    return paths[::-1]


def _own(split: pd.DataFrame) -> pd.DataFrame:
    """The rows of photos of the data set itself."""
    return split[~is_external(split["path"])]


def read_clean_splits(
    output_dir: str | os.PathLike[str], label_source: LabelSource = "clean", small: bool = False, partial: bool = False
) -> dict[int, pd.DataFrame]:
    """The folds' tables (see `splits.read_splits`, also for small and partial) as a run trains on them.

    label_source: clean takes labels from `tables/clean.csv` and leaves dropped photos out of every
    part; where that file is not there, and with given, the labels are those of the data set.
    Raises ValueError if clean.csv was written before photos were added to the set or its labels were
    changed, FileNotFoundError if it is missing though there are decisions.
    """
    splits = read_splits(Path(output_dir), small, partial)
    if label_source == "given" or not _is_cleaned(Path(output_dir)):
        return splits
    _refuse_changed(next(iter(splits.values())), Path(output_dir))
    class_of, dropped = _read(clean_path(output_dir)), _read(dropped_path(output_dir))
    cleaned = {fold: _with_classes(split, class_of, dropped) for fold, split in splits.items()}
    audit_splits(cleaned)
    return cleaned


def _is_cleaned(output_dir: Path) -> bool:
    """Whether there are clean labels. Raises FileNotFoundError if there are decisions that no table holds yet."""
    if clean_path(output_dir).exists():
        return True
    if any((output_dir / "review").glob("decisions.*.jsonl")):
        raise FileNotFoundError(
            f"no {files.shown_path(clean_path(output_dir))}, though labels were decided on: run 01_label_cleaning, or "
            "train with label_source: given"
        )
    return False


def _refuse_changed(split: pd.DataFrame, output_dir: Path) -> None:
    """Raise ValueError that names photos whose given label is another than the one that cleaning began with."""
    if not given_path(output_dir).exists():  # clean labels of before this was noted, or from elsewhere
        return
    now = _own(split).set_index("path")["label"]
    then = _read(given_path(output_dir)).reindex(now.index)
    changed = [f"{path} ({then[path]:.0f} → {now[path]})" for path in now.index[then.notna() & (then != now)]]
    if changed:
        raise ValueError(
            f"{files.shown_path(clean_path(output_dir))} is older than the labels of the data set: {len(changed)} have "
            f"changed since, such as {', '.join(changed[:3])}; run 01_label_cleaning again"
        )


def _read(path: Path) -> pd.Series:
    """Class by path below the images folder. Raises OSError or ValueError that names the file."""
    table = pd.read_csv(path, dtype={"path": str})
    if list(table.columns) != CLEAN_COLUMNS:
        raise ValueError(f"{files.shown_path(path)} must have the columns {', '.join(CLEAN_COLUMNS)}")
    # The folder and the file: the data set may have been moved since.
    return pd.Series(table["class"].to_numpy("int64"), [inside(path) for path in table["path"]])


def inside(path: str) -> str:
    """The part of a photo's path that the photo table knows it by, `folder/file`."""
    return "/".join(PurePath(path).parts[-2:])


def _with_classes(split: pd.DataFrame, class_of: pd.Series, dropped: pd.Series) -> pd.DataFrame:
    is_own = ~is_external(split["path"])  # photos from outside the set are never reviewed
    unknown = split["path"][is_own & ~split["path"].isin(class_of.index) & ~split["path"].isin(dropped.index)]
    if len(unknown):
        raise ValueError(
            f"tables/clean.csv is older than the photos: it lacks {len(unknown)}, such as {list(unknown[:3])}; "
            "run 01_label_cleaning again"
        )
    kept = split[~(is_own & split["path"].isin(dropped.index))].reset_index(drop=True)
    new = kept["path"].map(class_of)
    return kept.assign(label=new.fillna(kept["label"]).astype("int64"))


def touched(output_dir: str | os.PathLike[str]) -> set[str]:
    """Paths of the photos whose label is no longer the given one, or that were dropped."""
    given, clean = (next(iter(read_clean_splits(output_dir, source).values())) for source in ("given", "clean"))
    both = given.merge(clean[["path", "label"]], on="path", how="left", suffixes=("", "_clean"))
    return set(both["path"][both["label"] != both["label_clean"]])
