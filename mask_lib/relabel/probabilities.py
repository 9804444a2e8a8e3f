"""Probabilities that label cleaning ranks its suspects by, from what there is: a trained run, or a frozen backbone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mask_lib.base import files, labels, scores
from mask_lib.data import splits, store
from mask_lib.models.features import logistic_probabilities, stage_features
from mask_lib.training import dataset, run_folder

REGULARISATION = 0.01  # as of `features`; larger than there, since here to stand out matters more than to be right
TRUSTED = 0.15  # mean probability of a person's own value from which they teach the second time


def out_of_fold(
    features: Sequence[np.ndarray], photo_table: pd.DataFrame, fold_count: int = 10, seed: int = 0
) -> pd.DataFrame:
    """Probabilities of every photo before any training, columns `path, label, p00 …`.

    features: one or more (N, D) arrays, rows as in `photo_table` (columns `path, person, label`); their answers are
    averaged. Each attribute is learned by itself on the people of the other folds: a class has too few photos to learn
    from. Those of the person are learned twice, the second time without the people whose label the first found most
    unlikely: a wrong label teaches others to be wrong.
    """
    table = photo_table[["path", "person", "label"]].astype({"label": "int64"}).reset_index(drop=True)
    fold_of = table["person"].map(splits.spread_people(table, fold_count, seed)).to_numpy()
    heads = {}
    for name, given in labels.decode_all(table["label"].to_numpy()).items():
        heads[name] = attribute_out_of_fold(features, given, fold_of, name)
        if name in labels.names(of_person=True):
            own = pd.Series(heads[name][np.arange(len(given)), given])
            trusted = own.groupby(table["person"]).transform("mean").to_numpy() > TRUSTED
            heads[name] = attribute_out_of_fold(features, given, fold_of, name, trusted)
    return table[["path", "label"]].join(pd.DataFrame(labels.joint(heads), columns=labels.probability_columns()))


def attribute_out_of_fold(
    features: Sequence[np.ndarray], given: np.ndarray, fold_of: np.ndarray, name: str, trusted: np.ndarray | None = None
) -> np.ndarray:
    """(N, K) probabilities, each fold's from the photos of the others; trusted: (N,) bool, those to learn from."""
    # A number's groups are learned as if they were equally frequent: else every one of the few old looks younger.
    number = labels.number()
    is_number, count = number is not None and number.name == name, labels.attribute(name).size
    how = {"regularisation": REGULARISATION, "balanced": is_number}
    found = np.zeros((len(features), len(given), count))
    for fold in np.unique(fold_of):
        asked, known = fold_of == fold, fold_of != fold
        # Distrust must not take away a value altogether, or nobody could be found to have it.
        if trusted is not None and set(given[known & trusted]) == set(given[known]):
            known &= trusted
        for one, answers in zip(features, found, strict=True):
            answers[asked] = logistic_probabilities(one[known], given[known], count, one[asked], **how)
    return found.mean(axis=0)


def gather(
    data_dir: Path, output_dir: Path, photo_table: pd.DataFrame, frame: store.Frame, run: str = "", fold_count: int = 10
) -> tuple[pd.DataFrame, str]:
    """Probabilities of every train photo from networks that have not seen its person, and where they come from.

    Columns `path, label, p00 …`, from the finished run `run` (empty: the latest); photos that it says nothing of, and
    all before any run, are judged by a frozen backbone. Raises FileNotFoundError for a named run that is not finished.
    """
    if not run:
        folders = [run_folder.folder_of(output_dir, one) for one in run_folder.trained_runs(output_dir)]
        finished = {folder.name: (folder / run_folder.SCORES).stat().st_mtime for folder in folders}
        run = max(finished, key=finished.get, default="")
    found = of_run(output_dir, run) if run else pd.DataFrame({"path": []})
    is_missing = ~photo_table["path"].isin(found["path"])
    if not is_missing.any():
        return found, f"run {run}"
    decoded = dataset.open_photos(data_dir, output_dir, photo_table, frame)
    features = stage_features(decoded, files.project_path(output_dir) / "features")
    frozen = out_of_fold(features, photo_table, fold_count)
    source = "a logistic regression on a frozen backbone's features"
    if not run:
        return frozen, source
    together = pd.concat([found, frozen[is_missing.to_numpy()]], ignore_index=True)
    return together, f"run {run}; for {is_missing.sum():,} photos that it left out, {source}"


def of_run(output_dir: Path, run: str) -> pd.DataFrame:
    """What a finished run said of the photos it was validated on, and of test_val if it predicted that."""
    columns = ["path", "label", *labels.probability_columns()]
    held_out = output_dir / "inferences" / f"{run}.test_val.csv"
    tables = [run_folder.out_of_fold(run_folder.folder_of(output_dir, run))[columns]]
    tables += [scores.read_probabilities(held_out, "path")[columns]] if held_out.exists() else []
    return pd.concat(tables, ignore_index=True).drop_duplicates("path", ignore_index=True)
