"""What the files of a run were made from, so that what is stale is refused and not mixed with what is newer.

A run's out-of-fold tables stand for its weights: they are those weights' answers, are small, and are replaced
whenever other weights are used. Whoever predicts by a run, or averages it into a soup, notes their digests.

Runs that are finished, as they lie on disk: settings, scores, histories and out-of-fold tables, checked.

Nothing here needs torch. What is unfinished or damaged is listed, and stops nothing.
"""

import dataclasses
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mask_lib.base import config, files, scores
from mask_lib.base.labels import PROBABILITY_COLUMNS
from mask_lib.data import photos

AVERAGING = "averaging.json"  # in a run's folder: which weights of each fold are used, and why
TRAINED = "oof.trained.csv"  # in a fold's folder: out-of-fold probabilities as training left them, once oof.csv differs
SOUP_OF = "soup_of"  # in averaging.json: the runs that a soup was made of
MADE_OF = "made_of"  # beside it: by run and fold the digests of what they answered then
DATA = "data.json"  # in a run's folder: where its photos lay


def folder_of(output_dir: Path, run: str) -> Path:
    """Where a run keeps everything."""
    return Path(output_dir) / "runs" / run


def trained_folds(folder: Path) -> list[int]:
    """The folds that a finished run's scores are of: its folder may hold more, from when there were more folds."""
    return sorted(int(row["fold"]) for row in files.read_json(folder / "scores.json")["folds"])


def answers(folder: Path, folds: Collection[int]) -> dict[str, str]:
    """By fold, as JSON names it, SHA-256 of a run's oof.csv; folds without one are missing."""
    tables = {fold: folder / f"fold{fold}" / "oof.csv" for fold in folds}
    return {str(fold): files.file_digest(path) for fold, path in tables.items() if path.exists()}


# Predictions.


def note_prediction(path: Path, made_of: dict[str, str]) -> None:
    """Write beside a file of `inferences/`, as .json, which `answers` the run gave that it was predicted by."""
    files.write_json({"out_of_fold": made_of}, path.with_suffix(".json"))


def refuse_stale_prediction(path: Path) -> None:
    """Raise ValueError that names the run of a file in `inferences/` if its weights in use are others by now.

    Files of which nothing was noted, or whose run is not here, come from elsewhere and pass.
    """
    run = path.name.removesuffix(".csv").rpartition(".")[0]
    folder, note = folder_of(path.parent.parent, run), path.with_suffix(".json")
    if not (note.exists() and folder.is_dir()):
        return
    again = f"run 06_inference with run: {run} again"
    if not (folder / "scores.json").exists():
        begun = f"{files.shown_path(path)} is stale: run {run} was begun anew since and is not finished"
        raise ValueError(f"{begun}; {finish(folder)}, then {again}")
    refuse_stale_soup(folder)
    if files.read_json(note)["out_of_fold"] != answers(folder, trained_folds(folder)):
        raise ValueError(f"{files.shown_path(path)} is stale: run {run} was trained or averaged anew since; {again}")


# Averages that were picked.


def picked_names(folder: Path) -> dict[int, str]:
    """By fold the name of the weights that 05_average_weights picked in a run's folder; others are missing."""
    if not (folder / AVERAGING).exists():
        return {}
    return {int(fold): one["picked"] for fold, one in files.read_json(folder / AVERAGING)["folds"].items()}


def lost_picks(folder: Path) -> list[int]:
    """The folds of a finished run whose oof.csv and scores are those of an average that nothing says was picked."""
    known = picked_names(folder)
    return [fold for fold in trained_folds(folder) if fold not in known and (folder / f"fold{fold}" / TRAINED).exists()]


def refuse_lost_picks(folder: Path) -> None:
    """Raise ValueError for `lost_picks`: the scores are of other weights than would be used."""
    if lost := lost_picks(folder):
        raise ValueError(
            f"{files.shown_path(folder / AVERAGING)} is gone or cut short, though the scores of folds {lost} are those "
            f"of averaged weights: run 05_average_weights with run: {folder.name} again"
        )


# Soups.


def soup_members(folder: Path) -> list[str]:
    """The runs that a soup in this folder was made of; none for a run that was trained."""
    path = folder / AVERAGING
    return list(files.read_json(path).get(SOUP_OF, [])) if path.exists() else []


def refuse_soup(output_dir: Path, run: str) -> None:
    """Raise ValueError for a run that is a soup, where one that was trained is needed."""
    if members := soup_members(folder_of(output_dir, run)):
        raise ValueError(
            f"{run} is a soup of other runs and was not trained itself: name a run that was trained, such as one of "
            f"its members {', '.join(members)}"
        )


def refuse_stale_soup(folder: Path) -> None:
    """Raise ValueError that names the members of a soup whose weights in use are others since it was made.

    Members that are not here any more pass, and a folder that holds no soup does.
    """
    if not soup_members(folder):
        return
    made_of = files.read_json(folder / AVERAGING).get(MADE_OF, {})
    beside = {run: folder.parent / run for run in made_of if (folder.parent / run).is_dir()}
    changed = [run for run, home in beside.items() if answers(home, list(map(int, made_of[run]))) != made_of[run]]
    if changed:
        raise ValueError(
            f"the soup {folder.name} is stale: {', '.join(changed)} was trained or averaged anew since it was made; "
            f"{finish(folder)}"
        )


def finish(folder: Path) -> str:
    """What to run to finish what a run's folder holds, or to make it anew."""
    members = soup_members(folder)
    if members:
        return f"run 05_average_weights with soup: {folder.name} and soup_of: [{', '.join(members)}]"
    return f"run 03_one_model with run: {folder.name} to its end"


# Photos.


def note_data(folder: Path, images: Path | None) -> None:
    """Write into a run's folder where the data set lies whose train images are in the folder `images`, if known."""
    if images is not None:
        files.write_json({"data_dir": files.shown_path(images.parents[1])}, folder / DATA)


def data_of(folder: Path) -> Path | None:
    """The data folder that `note_data` noted of a run, which may be gone; None if it noted nothing."""
    path = folder / DATA
    return files.project_path(files.read_json(path)["data_dir"]) if path.exists() else None


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
    refuse_lost_picks(folder)
    out_of_fold = pd.concat([_read_fold(folder, fold) for fold in trained], ignore_index=True)
    out_of_fold = _with_people(out_of_fold, folder.parents[1])
    history = pd.concat([pd.read_csv(folder / f"fold{fold}" / "history.csv") for fold in trained], ignore_index=True)
    prepared = len(list((folder.parents[1] / "tables").glob("split.stratified.[0-9]*.csv")))
    data_dir = data_of(folder)
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
    found = table.assign(person=table["path"].map(photos.read_labeled(home).set_index("path")["person"]))
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


def run_settings(output_dir: Path, run: str) -> config.Run:
    """The settings of a finished run. Raises FileNotFoundError that says what to run first."""
    folder = folder_of(output_dir, run)
    if not (folder / "scores.json").exists():
        raise FileNotFoundError(f"{files.shown_path(folder)} holds no finished run: {finish(folder)} first")
    saved = files.read_json(folder / "config.json")
    return config.Run.from_settings({name: value for name, value in saved.items() if name != "device"})


def trained_runs(output_dir: Path) -> list[str]:
    """Names of the runs that are finished, which is to say have their `scores.json`."""
    return sorted(path.parent.name for path in (Path(output_dir) / "runs").glob("*/scores.json"))


def chosen_runs(output_dir: Path, run: str) -> list[str]:
    """`run` alone, or every finished run if it is empty. Raises FileNotFoundError if there is none."""
    found = [run] if run else trained_runs(output_dir)
    if not found:
        raise FileNotFoundError(f"{files.shown_path(output_dir)}/runs holds no finished run: run 03_one_model first")
    return found
