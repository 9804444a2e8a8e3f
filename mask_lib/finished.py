"""Runs that are finished, as they lie on disk: settings, scores, histories and out-of-fold tables, checked.

Nothing here needs torch. What is unfinished or damaged is listed, and stops nothing.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mask_lib import config, files, lineage, photos, scores
from mask_lib.labels import PROBABILITY_COLUMNS

COSTS = ("training_seconds", "photos_per_second", "peak_memory_bytes")  # which older runs may lack
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)  # what damaged files lead to


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """What a finished run left on disk."""

    name: str  # its own among those compared
    folder: Path
    settings: config.Run
    device: str
    k_fold: int  # folds prepared, not all of which need be trained
    found: dict[str, Any]  # scores.json
    history: pd.DataFrame  # fold, epoch, train_loss, val_loss, val_macro_f1, …
    out_of_fold: pd.DataFrame  # path, label, p00 … p17, fold, person
    data_dir: Path | None = None  # where its photos lie, or lay; None: nothing tells

    @property
    def intervals(self) -> pd.DataFrame:
        """Indexed by metric, `value`, `low` and `high` by person, as `scores.bootstrap` gave them."""
        return pd.DataFrame.from_dict(self.found["out_of_fold"], orient="index")[["value", "low", "high"]]

    @property
    def macro_f1(self) -> float:
        """Of the out-of-fold photos."""
        return self.found["out_of_fold"]["macro_f1"]["value"]

    def photo_folder(self) -> Path:
        """The data folder of its photos. Raises FileNotFoundError that says so where it is gone or nothing tells."""
        if self.data_dir is None:
            raise FileNotFoundError(
                f"nothing tells where the photos of {self.name} lie; run its notebook again, which trains nothing anew"
            )
        if not self.data_dir.is_dir():
            raise FileNotFoundError(f"the data set of {self.name}, {files.shown_path(self.data_dir)}, is gone")
        return self.data_dir


def find(output_dirs: Iterable[Path], data_dir: Path | None = None) -> tuple[list[FinishedRun], pd.DataFrame]:
    """Every finished run below some output folders, the best first, and what stands of the others.

    data_dir: the data set of the first folder's runs; that of the others is the one that they noted. The
    second table has the columns `run` (its folder) and `problem`. With several output folders a run is called
    by its experiment too. Raises FileNotFoundError, which lists the others, if no run is finished.
    """
    homes = list(dict.fromkeys(map(files.project_path, output_dirs)))
    finished, problems = [], []
    for home in homes:
        for folder in sorted(path for path in (home / "runs").glob("[!.]*") if path.is_dir()):
            experiment = "" if len(homes) == 1 else f"{files.shown_path(home).removeprefix('outputs/')}/"
            try:
                run = read_run(folder, experiment + folder.name)
                own = data_dir is not None and home == homes[0]
                finished.append(dataclasses.replace(run, data_dir=data_dir) if own else run)
            except UNREADABLE as error:
                words = str(error) if isinstance(error, OSError | ValueError) else f"damaged: {error!r}"
                problems.append((files.shown_path(folder), words))
    if not finished:
        others = "".join(f"; {run}: {problem}" for run, problem in problems)
        shown = ", ".join(map(files.shown_path, homes))
        raise FileNotFoundError(f"no finished run below {shown}: run 03_one_model to its end first{others}")
    finished.sort(key=lambda run: (-run.macro_f1, run.name))
    return finished, pd.DataFrame(problems, columns=["run", "problem"], dtype="str")


def read_run(folder: Path, name: str) -> FinishedRun:
    """One run from its folder. Raises one of `UNREADABLE` for a run that is unfinished, damaged or mixed up."""
    if not (folder / "scores.json").exists():
        raise FileNotFoundError("not finished: it has no scores.json; run its notebook again to go on")
    saved, found = (files.read_json(folder / name) for name in ("config.json", "scores.json"))
    device = str(saved.pop("device", ""))
    settings = config.Run.from_settings(saved)
    trained = [int(row["fold"]) for row in found["folds"]]
    if not trained:
        raise ValueError("scores.json names no fold that was trained")
    lineage.refuse_lost_picks(folder)
    out_of_fold = pd.concat([_read_fold(folder, fold) for fold in trained], ignore_index=True)
    out_of_fold = _with_people(out_of_fold, folder.parents[1])
    history = pd.concat([pd.read_csv(folder / f"fold{fold}" / "history.csv") for fold in trained], ignore_index=True)
    prepared = len(list((folder.parents[1] / "tables").glob("split.stratified.[0-9]*.csv")))
    data_dir = lineage.data_of(folder)
    k_fold = max(prepared, len(trained))
    run = FinishedRun(name, folder, settings, device, k_fold, found, history, out_of_fold, data_dir)
    _check(run)
    return run


def _read_fold(folder: Path, fold: int) -> pd.DataFrame:
    """A fold's out-of-fold table, with `fold`. Raises ValueError that names the file if it is not whole."""
    path = folder / f"fold{fold}" / "oof.csv"
    try:
        table = pd.read_csv(path, dtype={"path": "str", **dict.fromkeys(PROBABILITY_COLUMNS, "float64")})
        scores.check_probabilities(table, "path")
    except ValueError as error:
        raise ValueError(f"{path.parent.name}/{path.name}: {error}") from error
    return table.assign(fold=fold)


def _with_people(table: pd.DataFrame, home: Path) -> pd.DataFrame:
    """The table with `person`, from the experiment's photo table. Raises ValueError for photos that it lacks."""
    if table["path"].duplicated().any():
        raise ValueError("a photo stands in the oof.csv of two folds")
    found = table.assign(person=table["path"].map(photos.labeled(home).set_index("path")["person"]))
    if found["person"].isna().any():
        raise ValueError(f"{found['person'].isna().sum()} of its photos are not in tables/photos.csv")
    return found


def _check(run: FinishedRun) -> None:
    """Raise ValueError unless the tables are those that the scores were made of, and the history can be drawn."""
    told = run.intervals.loc[list(scores.METRICS), "value"].astype("float64")
    counted = pd.Series(scores.summarise(*scores.from_probabilities(run.out_of_fold)))[told.index]
    if not np.allclose(told, counted, atol=1e-6):
        raise ValueError("scores.json does not fit the oof.csv files: run its notebook again")
    odd = [name for name in COSTS if not isinstance(run.found.get(name), int | float | None)]
    if odd:
        raise ValueError(f"scores.json holds no number as {', '.join(odd)}")
    drawn = run.history.reindex(columns=["epoch", "train_loss", "val_loss", "val_macro_f1"])
    if drawn.empty or drawn.isna().any(axis=None):
        raise ValueError(f"history.csv lacks {', '.join(drawn.columns[drawn.isna().any()]) or 'rows'}")
