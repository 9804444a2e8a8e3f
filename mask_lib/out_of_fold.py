"""What the members of an ensemble said of labeled photos whose people they were not trained on."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mask_lib import clean_labels, files, folds
from mask_lib.ensemble import COLUMNS, read_probabilities
from mask_lib.lineage import trained_folds


@dataclasses.dataclass(frozen=True)
class OutOfFold:
    """The members' probabilities of the same photos, and what is known of these."""

    names: list[str]
    photos: pd.DataFrame  # path, person, label
    probabilities: np.ndarray  # (M, N, 18) float64, members in the order of `names`, photos in that of `photos`
    fold_count: int = 1  # networks of the member with the fewest, whose mean answers the evaluation photos

    @property
    def truth(self) -> np.ndarray:
        """(N,) int64 labels."""
        return self.photos["label"].to_numpy(dtype=np.int64)

    @property
    def person(self) -> np.ndarray:
        """(N,) names of people."""
        return self.photos["person"].to_numpy()


def read_out_of_fold(output_dir: Path, names: Sequence[str]) -> OutOfFold:
    """The out-of-fold tables `runs/<run>/fold<k>/oof.csv` of the finished runs `names`, joined and aligned.

    Labels are today's cleaned ones, whatever a run was trained on, and photos dropped since are left
    out: all members are judged alike. `person` is the group of people who share copies.
    Raises FileNotFoundError for a run that is not finished,
    ValueError that names a run whose file is faulty, or whose photos differ from what most members have.
    """
    split = next(iter(clean_labels.read_splits(output_dir).values()))
    given = next(iter(folds.read_splits(Path(output_dir)).values()))
    dropped = set(given["path"]) - set(split["path"])
    tables = {name: _joined_folds(Path(output_dir) / "runs" / name).set_index("path") for name in names}
    tables = {name: table[~table.index.isin(dropped)] for name, table in tables.items()}
    usual = _usual_photos(tables)
    photos = split[split["path"].isin(usual)][["path", "person", "label"]].reset_index(drop=True)
    if len(photos) < len(usual):
        strange = sorted(usual - set(photos["path"]))[:3]
        raise ValueError(f"runs {list(names)} hold photos that are not in the split, such as {strange}: train again")
    stack = np.stack([table.loc[photos["path"], COLUMNS].to_numpy(dtype=np.float64) for table in tables.values()])
    groups = folds.read_groups(Path(output_dir))
    if groups is not None:
        photos = photos.assign(person=photos["person"].map(groups).fillna(photos["person"]))
    fold_count = min(len(trained_folds(Path(output_dir) / "runs" / name)) for name in names)
    return OutOfFold(list(names), photos, stack, fold_count)


def is_finished(output_dir: Path, run: str) -> bool:
    """Whether a run of this experiment has come to its end."""
    return (Path(output_dir) / "runs" / run / "scores.json").exists()


def _joined_folds(folder: Path) -> pd.DataFrame:
    """A finished run's out-of-fold table over its folds: path, label, p00 … p17. Each fold's file is checked."""
    if not (folder / "scores.json").exists():
        raise FileNotFoundError(f"{files.shown_path(folder)} holds no finished run: run 03_one_model for it first")
    paths = [folder / f"fold{fold}" / "oof.csv" for fold in trained_folds(folder)]
    missing = [files.shown_path(path) for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(f"no {', '.join(missing)}: run 03_one_model for {folder.name} again")
    tables = [read_probabilities(path, "path") for path in paths]
    joined = pd.concat(tables, ignore_index=True)
    doubled = joined["path"][joined["path"].duplicated()]
    if len(doubled):
        raise ValueError(f"{files.shown_path(folder)}: photos validated in two folds, such as {list(doubled[:3])}")
    return joined


def _usual_photos(tables: dict[str, pd.DataFrame]) -> set[str]:
    """The photos that all members hold. Raises ValueError that names who differs from most of them."""
    if not tables:
        raise ValueError("an ensemble needs at least one member")
    sets = {name: frozenset(table.index) for name, table in tables.items()}
    usual = max(sets.values(), key=list(sets.values()).count)
    for name, held in sets.items():
        if held != usual:
            raise ValueError(
                f"run {name} was validated on other photos than the {len(usual):,} of most members: it lacks "
                f"{len(usual - held)} and has {len(held - usual)} more, such as {sorted(usual ^ held)[:3]}; "
                "leave it out, or train it on the same photos and folds"
            )
    return set(usual)
