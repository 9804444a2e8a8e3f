"""Probabilities that label cleaning ranks its suspects by, from what there is: a trained run, or a frozen backbone."""

import dataclasses
from pathlib import Path

import pandas as pd

from mask_lib import features, files, inference, lineage, runs, store, suspects

FEATURE_SEED = 0


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Out-of-fold probabilities, columns `path, label, p00 … p17`, and where they come from, in words."""

    probabilities: pd.DataFrame
    source: str


def gather(
    data_dir: Path, output_dir: Path, photo_table: pd.DataFrame, frame: store.Frame, run: str = "", fold_count: int = 10
) -> Evidence:
    """Probabilities of every train photo of `photo_table` from networks that have not seen its person.

    From the finished run `run`, or if that is empty the latest one; photos that it says nothing of,
    and all of them before there is any run, are judged by a frozen backbone's features at `frame`.
    Raises FileNotFoundError for a named run that is not finished.
    """
    found = of_run(output_dir, run or latest_run(output_dir)) if run or latest_run(output_dir) else None
    missing = photo_table if found is None else photo_table[~photo_table["path"].isin(found.probabilities["path"])]
    if missing.empty:
        return found
    frozen = of_features(data_dir, output_dir, photo_table, frame, fold_count)
    if found is None:
        return frozen
    rest = frozen.probabilities[frozen.probabilities["path"].isin(missing["path"])]
    together = pd.concat([found.probabilities, rest], ignore_index=True)
    return Evidence(together, f"{found.source}; for {len(rest):,} photos that it left out, {frozen.source}")


def latest_run(output_dir: Path) -> str:
    """The finished run that was finished last, empty if there is none."""
    finished = inference.trained_runs(output_dir)
    folders = [runs.folder_of(output_dir, run) for run in finished]
    return max(folders, key=lambda folder: (folder / "scores.json").stat().st_mtime).name if folders else ""


def of_run(output_dir: Path, run: str) -> Evidence:
    """What a finished run said of the photos it was validated on, and of test_val if it predicted that."""
    inference.run_settings(output_dir, run)  # raises if it is not finished
    folder = runs.folder_of(output_dir, run)
    tables = [folder / f"fold{fold}" / "oof.csv" for fold in lineage.trained_folds(folder)]
    tables += [path for path in [Path(output_dir) / "inferences" / f"{run}.test_val.csv"] if path.exists()]
    joined = pd.concat([pd.read_csv(path) for path in tables], ignore_index=True)
    return Evidence(joined.drop_duplicates("path", ignore_index=True), f"run {run}")


def of_features(
    data_dir: Path, output_dir: Path, photo_table: pd.DataFrame, frame: store.Frame, fold_count: int
) -> Evidence:
    """What a logistic regression on a frozen backbone's features says, learned on other people."""
    decoded = inference.open_photos(data_dir, output_dir, photo_table, frame)
    described = features.stage_features(decoded, files.project_path(output_dir) / "features")
    probabilities = suspects.out_of_fold(described, photo_table, fold_count, FEATURE_SEED)
    return Evidence(probabilities, "a logistic regression on a frozen backbone's features")
