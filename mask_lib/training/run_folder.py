"""THE reader of runs/<run>/: settings, scores, histories, out-of-fold tables, and which weights are in use.

Training writes scores.json last: with it a run is finished. 05_average_weights writes averaging.json last, which
names the weights that are in use from then on; without that file they are training's own. Nothing here needs torch.
"""

import dataclasses
import functools
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import pydantic

from mask_lib.base import checks, config, files, results, scores
from mask_lib.data import photos

AVERAGING = "averaging.json"  # in a run's folder: what averaging tried, scored and picked
SCORES = "scores.json"
LOOKS, UNSEEN = "looks", "unseen.json"  # a fold trained without some looks; the look of each val photo that has one

_Weights = Literal["best", "last", "ema", "swa", "soup"]  # name of the checkpoint
_Digests = dict[Annotated[str, pydantic.Field(pattern=r"^\d{1,3}$")], str]  # by fold
_Run = Annotated[str, pydantic.AfterValidator(functools.partial(checks.safe_name, "run"))]


class _Data(pydantic.BaseModel):
    data_dir: str


class _Prediction(pydantic.BaseModel, extra="allow"):
    out_of_fold: _Digests  # of the run when it predicted


class _Fold(pydantic.BaseModel, extra="allow"):
    fold: int


class _Scores(pydantic.BaseModel, extra="allow"):
    folds: list[_Fold] = pydantic.Field(min_length=1)  # those that were trained
    out_of_fold: dict[str, scores.Score] = {}  # by metric
    training_seconds: float | None = None
    photos_per_second: float | None = None
    peak_memory_bytes: float | None = None


class _Picked(pydantic.BaseModel, extra="allow"):
    picked: _Weights


class _Averaging(pydantic.BaseModel):
    trained: _Weights  # those that oof.csv is of
    folds: dict[int, _Picked]
    scores: _Scores | None = None  # of the picked tables; a soup's are in scores.json
    soup_of: list[_Run] = []  # those that a soup was averaged from
    made_of: dict[_Run, _Digests] = {}  # of their out-of-fold tables then


def folder_of(output_dir: Path, run: str) -> Path:
    """Where a run keeps everything. Raises ValueError for what cannot be a run's name."""
    return Path(output_dir) / "runs" / checks.safe_name("run", run)


def is_finished(folder: Path) -> bool:
    """Whether a run has come to its end."""
    return (folder / SCORES).exists()


def trained_runs(output_dir: Path) -> list[str]:
    """Names of the finished runs, sorted; folders that no run can be called are passed over."""
    found = sorted(path.parent.name for path in (Path(output_dir) / "runs").glob(f"[!.]*/{SCORES}"))
    return [name for name in found if checks.SAFE_NAME.fullmatch(name)]


def chosen_runs(output_dir: Path, run: str, soups: bool = True) -> list[str]:
    """`run` alone, or if it is empty every finished run, soups or not. Raises FileNotFoundError if there is none."""
    every = [name for name in trained_runs(output_dir) if soups or not soup_members(folder_of(output_dir, name))]
    found = [run] if run else every
    if not found:
        raise FileNotFoundError(f"{files.shown_path(output_dir)}/runs holds no finished run: run 03_one_model first")
    return found


def _require_finished(folder: Path) -> None:
    if not is_finished(folder):
        raise FileNotFoundError(f"{files.shown_path(folder)} holds no finished run: {how_to_finish(folder)} first")


def how_to_finish(folder: Path) -> str:
    """What to run to finish what a run's folder holds, or to make it anew."""
    if members := soup_members(folder):
        return f"run 05_average_weights with soup: {folder.name} and soup_of: [{', '.join(members)}]"
    return f"run 03_one_model with run: {folder.name} to its end"


def read_settings(folder: Path) -> tuple[config.Run, str]:
    """(settings, device) of config.json. Raises FileNotFoundError, or ValueError that names the file."""
    path = folder / "config.json"
    saved = files.read_json(path, dict[str, Any])
    device = str(saved.pop("device", ""))
    try:
        return config.Run(**saved), device
    except ValueError as error:
        raise ValueError(f"{files.shown_path(path)}: {error}") from error


def run_settings(output_dir: Path, run: str) -> config.Run:
    """The settings of a finished run. FileNotFoundError that says what to run first, and as `read_settings` does."""
    _require_finished(folder_of(output_dir, run))
    return read_settings(folder_of(output_dir, run))[0]


def trained_folds(folder: Path) -> list[int]:
    """The folds that a finished run's scores are of: its folder may hold more, from when there were more folds."""
    return sorted(row["fold"] for row in files.read_json(folder / SCORES, _Scores)["folds"])


def trained_weights(settings: config.Run) -> str:
    """The name of the weights that training itself chooses: an average of epochs is only made later."""
    return "last" if settings.checkpoint_choice == "swa" else settings.checkpoint_choice


def read_averaging(folder: Path) -> dict[str, Any] | None:
    """What averaging.json holds; None while there is none, or none of the folds that are trained by now."""
    if not (folder / AVERAGING).exists():
        return None
    saved = files.read_json(folder / AVERAGING, _Averaging)
    return saved if sorted(saved["folds"]) == trained_folds(folder) else None


def in_use(folder: Path) -> dict[int, tuple[Path, Path]]:
    """By fold the checkpoint and the out-of-fold table in use: what averaging picked, else what training chose."""
    averaged, used = read_averaging(folder), {}
    trained = averaged["trained"] if averaged else trained_weights(read_settings(folder)[0])
    for fold in trained_folds(folder):
        home, name = folder / f"fold{fold}", averaged["folds"][fold]["picked"] if averaged else trained
        used[fold] = home / "checkpoint" / f"{name}.safetensors", table_path(home, name, trained)
    return used


def looks_in_use(folder: Path) -> tuple[Path, Path] | None:
    """The same of the fold that was trained without some looks, by the weights that the first fold uses; or None."""
    if not (folder / LOOKS / UNSEEN).exists():
        return None
    weights, table = min(in_use(folder).items())[1]
    return folder / LOOKS / "checkpoint" / weights.name, folder / LOOKS / table.name


def table_path(home: Path, name: str, trained: str) -> Path:
    """The out-of-fold table in a fold's folder of weights, by their name; training's own are called `trained`."""
    return home / ("oof.csv" if name == trained else f"oof.{name}.csv")


def out_of_fold(folder: Path, person_of: Mapping[str, str] | None = None) -> pd.DataFrame:
    """What a finished run's weights in use say of the photos that they were not trained on.

    Columns `path, label, p00 …, fold, person`, checked. person_of: by path; None: from tables/photos.csv.
    FileNotFoundError for a run that is unfinished or lacks a table says what to run; ValueError names what is damaged.
    """
    _require_finished(folder)
    if person_of is None:
        person_of = photos.read_labeled(folder.parents[1]).set_index("path")["person"]
    return joined_tables({fold: table for fold, (_, table) in in_use(folder).items()}, person_of)


def unseen_looks(folder: Path, table: Path | None = None) -> pd.DataFrame | None:
    """What a run's fold that was trained without some looks says of its val photos; None if it trained none.

    table: of those photos, `path, label, p00 …`; None: that of the weights in use. Columns `path, label, p00 …, person,
    look`, which is empty where training knew the look. Raises as `out_of_fold`.
    """
    if not (used := looks_in_use(folder)):
        return None
    person_of = photos.read_labeled(folder.parents[1]).set_index("path")["person"]
    found = joined_tables({0: table or used[1]}, person_of).drop(columns="fold")
    return found.assign(look=found["path"].map(files.read_json(folder / LOOKS / UNSEEN, dict[str, str])).fillna(""))


def joined_tables(paths: Mapping[int, Path], person_of: Mapping[str, str]) -> pd.DataFrame:
    """The same of tables given by fold."""
    table = pd.concat([_read_table(path).assign(fold=fold) for fold, path in paths.items()], ignore_index=True)
    if len(twice := table["path"][table["path"].duplicated()]):
        raise ValueError(f"photos validated in two folds, such as {list(twice[:3])}")
    table["person"] = table["path"].map(person_of)
    if table["person"].isna().any():
        raise ValueError(f"{table['person'].isna().sum()} of its photos are not in tables/photos.csv")
    return table


def _read_table(path: Path) -> pd.DataFrame:
    try:
        return scores.read_probabilities(path, "path")
    except FileNotFoundError:
        again = f"run {'03_one_model' if path.name == 'oof.csv' else '05_average_weights'} for {path.parents[1].name}"
        raise FileNotFoundError(f"no {files.shown_path(path)}: {again} again") from None


def read_histories(folder: Path, folds: Iterable[int]) -> pd.DataFrame:
    """The folds' history.csv one after the other. Raises ValueError that names a file without what is drawn."""
    kinds = {"epoch": "int64"} | dict.fromkeys(("train_loss", "val_loss", "val_macro_f1"), "float64")
    tables = []
    for path in (folder / f"fold{fold}" / "history.csv" for fold in folds):
        tables.append(files.read_csv(path, kinds, others=None))
        drawn = tables[-1][list(kinds)]
        if drawn.empty or drawn.isna().any(axis=None):
            lacking = ", ".join(drawn.columns[drawn.isna().any()]) or "rows"
            raise ValueError(f"{files.shown_path(path)} lacks {lacking}")
    return pd.concat(tables, ignore_index=True)


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """What a run that was trained to its end left on disk."""

    name: str  # its own among those compared
    folder: Path
    settings: config.Run
    device: str
    k_fold: int  # folds prepared, not all of which need be trained
    scores: dict[str, Any]  # as scores.json has them, of the weights in use; empty before they are written
    history: pd.DataFrame  # fold, epoch, train_loss, val_loss, val_macro_f1, …
    out_of_fold: pd.DataFrame  # path, label, p00 …, fold, person
    data_dir: Path | None = None  # where its photos lie, or lay; None: nothing tells

    @property
    def intervals(self) -> pd.DataFrame:
        """Indexed by metric: `value`, `low` and `high` by person."""
        return pd.DataFrame.from_dict(self.scores["out_of_fold"], orient="index")[["value", "low", "high"]]

    def truth_and_prediction(self) -> tuple[np.ndarray, np.ndarray]:
        """(N,) int64 labels and the likeliest class of each out-of-fold photo."""
        return scores.from_probabilities(self.out_of_fold)

    def photo_folder(self) -> Path:
        """The data folder of its photos. Raises FileNotFoundError that says so where it is gone or nothing tells."""
        if self.data_dir is None:
            unknown = f"nothing tells where the photos of {self.name} lie"
            raise FileNotFoundError(f"{unknown}; run its notebook again, which trains nothing anew")
        if not self.data_dir.is_dir():
            raise FileNotFoundError(f"the data set of {self.name}, {files.shown_path(self.data_dir)}, is gone")
        return self.data_dir


def read_run(folder: Path, name: str = "", data_dir: Path | None = None) -> FinishedRun:
    """One finished run; data_dir: where its photos lie, if not where it noted. OSError or ValueError tell faults."""
    checks.safe_name("the name of this folder", folder.name)
    if not is_finished(folder):
        raise FileNotFoundError("not finished: it has no scores.json; run its notebook again to go on")
    settings, device = read_settings(folder)
    found, averaged = files.read_json(folder / SCORES, _Scores), (read_averaging(folder) or {}).get("scores")
    table, history = out_of_fold(folder), read_histories(folder, trained_folds(folder))
    found |= averaged or {}
    expected = scores.summarise(*scores.from_probabilities(table))
    told = [found.get("out_of_fold", {}).get(metric, {}).get("value", np.nan) for metric in expected]
    if not np.allclose(told, list(expected.values()), atol=1e-6):
        source = AVERAGING if averaged else SCORES
        raise ValueError(f"{source} does not fit the out-of-fold tables: run its notebook again")
    k_fold = len(list((folder.parents[1] / "tables").glob("split.stratified.[0-9]*.csv"))) or len(found["folds"])
    data = data_dir or data_of(folder)
    return FinishedRun(name or folder.name, folder, settings, device, k_fold, found, history, table, data)


def find_runs(output_dirs: Iterable[Path], data_dir: Path | None = None) -> tuple[list[FinishedRun], pd.DataFrame]:
    """The finished runs below some output folders, the best first, and of the others a table `run, problem`.

    data_dir: the data set of the first folder's runs; others noted theirs. With several output folders a run is
    called by its experiment too. Raises FileNotFoundError, which lists the others, if no run is finished.
    """
    homes = list(dict.fromkeys(map(files.project_path, output_dirs)))
    finished, problems = [], []
    for home in homes:
        for folder in sorted(path for path in (home / "runs").glob("[!.]*") if path.is_dir()):
            experiment = "" if len(homes) == 1 else f"{files.shown_path(home).removeprefix('outputs/')}/"
            try:
                finished.append(read_run(folder, experiment + folder.name, data_dir if home == homes[0] else None))
            except (OSError, ValueError) as error:
                problems.append((files.shown_path(folder), str(error)))
    if not finished:
        others = "".join(f"; {run}: {problem}" for run, problem in problems)
        shown = ", ".join(map(files.shown_path, homes))
        raise FileNotFoundError(f"no finished run below {shown}: run 03_one_model to its end first{others}")
    finished.sort(key=lambda run: (-run.intervals.loc["macro_f1", "value"], run.name))
    return finished, pd.DataFrame(problems, columns=["run", "problem"], dtype="str")


def data_of(folder: Path) -> Path | None:
    """The data folder that training noted of a run, which may be gone; None if it noted nothing."""
    path = folder / "data.json"
    return files.project_path(files.read_json(path, _Data)["data_dir"]) if path.exists() else None


def digests(folder: Path, folds: Collection[int] | None = None) -> dict[str, str]:
    """By fold, as JSON names it, SHA-256 of a run's out-of-fold table, which changes whenever the weights in use do.
    Folds without one are left out, and so is all of an unfinished run. A packed run has them noted.
    """
    tables = in_use(folder) if is_finished(folder) else {}
    chosen = {str(fold): table for fold, (_, table) in tables.items() if folds is None or fold in folds}
    noted = (results.member(folder.parents[1], folder.name) or {}).get("out_of_fold", {})
    return {fold: noted.get(fold) or files.file_digest(one) for fold, one in chosen.items() if noted or one.exists()}


def refuse_stale_prediction(path: Path) -> None:
    """Raise ValueError that names the run of a file in `inferences/` if its weights in use are others by now, by the
    `digests` that 06_inference notes beside it, as .json. Files without a note, or without their run, pass.
    """
    run = path.name.removesuffix(".csv").rpartition(".")[0]  # <run>.test.csv
    folder, note = path.parents[1] / "runs" / run, path.with_suffix(".json")
    if not (note.exists() and checks.SAFE_NAME.fullmatch(run) and folder.is_dir()):
        return
    stale, again = f"{files.shown_path(path)} is stale: run {run} was", f"run 06_inference with run: {run} again"
    if not is_finished(folder):
        raise ValueError(f"{stale} begun anew since and is not finished; {how_to_finish(folder)}, then {again}")
    refuse_stale_soup(folder)
    if files.read_json(note, _Prediction)["out_of_fold"] != digests(folder):
        raise ValueError(f"{stale} trained or averaged anew since; {again}")


def soup_members(folder: Path) -> list[str]:
    """The runs that a soup in this folder was made of; none for a run that was trained."""
    path = folder / AVERAGING
    return files.read_json(path, _Averaging).get("soup_of", []) if path.exists() else []


def refuse_soup(output_dir: Path, run: str) -> None:
    """Raise ValueError for a run that is a soup, where one that was trained is needed."""
    if members := soup_members(folder_of(output_dir, run)):
        advice = f"name a run that was trained, such as one of its members {', '.join(members)}"
        raise ValueError(f"{run} is a soup of other runs and was not trained itself: {advice}")


def refuse_stale_soup(folder: Path) -> None:
    """Raise ValueError that names a soup's members, if still here, whose weights in use changed since it was made."""
    made_of = files.read_json(folder / AVERAGING, _Averaging).get("made_of", {}) if soup_members(folder) else {}
    beside = {run: noted for run, noted in made_of.items() if (folder.parent / run).is_dir()}
    if changed := [run for run, noted in beside.items() if digests(folder.parent / run, [*map(int, noted)]) != noted]:
        stale = f"the soup {folder.name} is stale: {', '.join(changed)} was trained or averaged anew since it was made"
        raise ValueError(f"{stale}; {how_to_finish(folder)}")
