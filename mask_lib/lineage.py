"""What the files of a run were made from, so that what is stale is refused and not mixed with what is newer.

A run's out-of-fold tables stand for its weights: they are those weights' answers, are small, and are replaced
whenever other weights are used. Whoever predicts by a run, or averages it into a soup, notes their digests.
"""

from collections.abc import Collection
from pathlib import Path

from mask_lib import files

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
