"""Probabilities that label cleaning ranks its suspects by, from what there is: a trained run, or a frozen backbone."""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from mask_lib.base import files, labels
from mask_lib.data import splits, store
from mask_lib.models.features import stage_features
from mask_lib.relabel import suspects
from mask_lib.training import dataset, run_folder

REGULARISATION = 0.01  # scikit-learn's C for standardised features of some hundred columns
ITERATIONS = 60  # the probabilities hardly move after that
BALANCED = ("age",)  # learned as if its values were equally frequent: else every one of the few old looks younger
TRUSTED = 0.15  # mean probability of a person's own gender or age from which they teach the second time


def out_of_fold(
    features: Sequence[np.ndarray], photo_table: pd.DataFrame, fold_count: int = 10, seed: int = 0
) -> pd.DataFrame:
    """Probabilities of every photo before any training, columns `path, label, p00 … p17`.

    features: one or more (N, D) arrays, such as a frozen network's layers, rows as in `photo_table`
    (columns `path, person, label`); their answers are averaged. Mask, gender and age are learned
    apart, each by a logistic regression on the people of the other folds: a class of all three has
    too few photos to learn from, an attribute has enough. Gender and age are learned twice, the
    second time without the people whose label the first found most unlikely: a wrong label teaches
    others to be wrong.
    """
    table = photo_table[["path", "person", "label"]].astype({"label": "int64"}).reset_index(drop=True)
    fold_of = table["person"].map(splits.spread_people(table, fold_count, seed)).to_numpy()
    heads = {}
    for name, given in labels.decode_all(table["label"].to_numpy()).items():
        heads[name] = attribute_out_of_fold(features, given, fold_of, name)
        if name in suspects.PERSON_FIELDS:
            own = pd.Series(heads[name][np.arange(len(given)), given])
            trusted = own.groupby(table["person"]).transform("mean").to_numpy() > TRUSTED
            heads[name] = attribute_out_of_fold(features, given, fold_of, name, trusted)
    found = pd.DataFrame(labels.joint(heads), columns=list(labels.PROBABILITY_COLUMNS))
    return table[["path", "label"]].join(found)


def attribute_out_of_fold(
    features: Sequence[np.ndarray],
    given: np.ndarray,
    fold_of: np.ndarray,
    name: str,
    trusted: np.ndarray | None = None,
) -> np.ndarray:
    """(N, K) probabilities of the attribute `name` (mask, gender, age), each fold's from the photos of the others.

    trusted: (N,) bool, the photos to learn from; all of them where it is left out.
    """
    found = np.zeros((len(features), len(given), len(labels.ATTRIBUTES[name])))
    for fold in np.unique(fold_of):
        asked, known = fold_of == fold, fold_of != fold
        # Distrust must not take away a value altogether, or nobody could be found to have it.
        if trusted is not None and set(given[known & trusted]) == set(given[known]):
            known = known & trusted
        for one, answers in zip(features, found, strict=True):
            model = fitted(one[known], given[known], "balanced" if name in BALANCED else None)
            answers[np.ix_(asked, model[-1].classes_)] = model.predict_proba(one[asked])
    return found.mean(axis=0)


def fitted(features: np.ndarray, given: np.ndarray, weights: str | None) -> Pipeline:
    """A logistic regression on standardised features, `weights` its `class_weight`."""
    regression = LogisticRegression(C=REGULARISATION, max_iter=ITERATIONS, class_weight=weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(StandardScaler(), regression).fit(features, given)


FEATURE_SEED = 0


@dataclasses.dataclass(frozen=True)
class Probabilities:
    """Out-of-fold probabilities, columns `path, label, p00 … p17`, and where they come from, in words."""

    probabilities: pd.DataFrame
    source: str


def gather(
    data_dir: Path, output_dir: Path, photo_table: pd.DataFrame, frame: store.Frame, run: str = "", fold_count: int = 10
) -> Probabilities:
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
    return Probabilities(together, f"{found.source}; for {len(rest):,} photos that it left out, {frozen.source}")


def latest_run(output_dir: Path) -> str:
    """The finished run that was finished last, empty if there is none."""
    finished = run_folder.trained_runs(output_dir)
    folders = [run_folder.folder_of(output_dir, run) for run in finished]
    return max(folders, key=lambda folder: (folder / "scores.json").stat().st_mtime).name if folders else ""


def of_run(output_dir: Path, run: str) -> Probabilities:
    """What a finished run said of the photos it was validated on, and of test_val if it predicted that."""
    run_folder.run_settings(output_dir, run)  # raises if it is not finished
    folder = run_folder.folder_of(output_dir, run)
    tables = [folder / f"fold{fold}" / "oof.csv" for fold in run_folder.trained_folds(folder)]
    tables += [path for path in [Path(output_dir) / "inferences" / f"{run}.test_val.csv"] if path.exists()]
    joined = pd.concat([pd.read_csv(path) for path in tables], ignore_index=True)
    return Probabilities(joined.drop_duplicates("path", ignore_index=True), f"run {run}")


def of_features(
    data_dir: Path, output_dir: Path, photo_table: pd.DataFrame, frame: store.Frame, fold_count: int
) -> Probabilities:
    """What a logistic regression on a frozen backbone's features says, learned on other people."""
    decoded = dataset.open_photos(data_dir, output_dir, photo_table, frame)
    described = stage_features(decoded, files.project_path(output_dir) / "features")
    probabilities = out_of_fold(described, photo_table, fold_count, FEATURE_SEED)
    return Probabilities(probabilities, "a logistic regression on a frozen backbone's features")
