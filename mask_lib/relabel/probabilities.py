"""Probabilities that label cleaning ranks its suspects by, from what there is: a trained run, or a frozen backbone."""

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from mask_lib.base import files, labels, scores
from mask_lib.base.config import FROZEN
from mask_lib.data import splits, store
from mask_lib.models.features import UNREADABLE, logistic_probabilities, stage_features
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
    is_number, count = bool(labels.attribute(name).edges), labels.attribute(name).size
    how = {"regularisation": REGULARISATION, "balanced": is_number}
    found = np.zeros((len(features), len(given), count))

    def answer(fold: int) -> None:
        asked, known = fold_of == fold, fold_of != fold
        # Distrust must not take away a value altogether, or nobody could be found to have it.
        if trusted is not None and set(given[known & trusted]) == set(given[known]):
            known &= trusted
        for one, answers in zip(features, found, strict=True):
            answers[asked] = logistic_probabilities(one[known], given[known], count, one[asked], **how)

    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:  # a fold a core
        list(pool.map(answer, np.unique(fold_of)))
    return found.mean(axis=0)


def gather(
    data_dir: Path, output_dir: Path, photo_table: pd.DataFrame, frame: store.Frame, run: str = "", fold_count: int = 10
) -> tuple[pd.DataFrame, str]:
    """Probabilities of every train photo from networks that have not seen its person, and where they come from.

    Columns `path, label, p00 …`: what a frozen backbone's features say, and, averaged with it, the finished run `run`
    (empty: the latest that is not frozen itself) of photos that it was asked about. A trained network has learned some
    wrong labels too, which frozen features have not: together they find more than either. Raises FileNotFoundError for
    a named run that is not finished.
    """
    if not run:
        folders = [run_folder.folder_of(output_dir, one) for one in run_folder.trained_runs(output_dir)]
        latest = sorted(folders, key=lambda folder: (folder / run_folder.SCORES).stat().st_mtime, reverse=True)
        tuned = (one.name for one in latest if run_folder.run_settings(output_dir, one.name).head != FROZEN)
        run = next(tuned, "")
    found = of_run(output_dir, run) if run else None  # a named run is read first: it may not be finished
    decoded = dataset.open_photos(data_dir, output_dir, photo_table, frame)
    frozen = frozen_out_of_fold(decoded, files.project_path(output_dir) / "features", photo_table, fold_count)
    source = "a logistic regression on a frozen backbone's features"
    if found is None:
        return frozen, source
    columns = labels.probability_columns()
    said = found.set_index("path")[columns].reindex(frozen["path"]).to_numpy()
    is_said = ~np.isnan(said[:, 0])
    own = frozen[columns].to_numpy()
    frozen[columns] = np.where(is_said[:, None], (own + said) / 2, own)
    alone = f"; of {(~is_said).sum():,} photos that the run left out, the second alone" if not is_said.all() else ""
    return frozen, f"run {run} and {source}, averaged{alone}"


def frozen_out_of_fold(
    decoded: store.Store, folder: Path, photo_table: pd.DataFrame, fold_count: int = 10
) -> pd.DataFrame:
    """`out_of_fold` of a frozen backbone's stages; kept in `folder` under a digest of photos, labels and settings."""
    rows = photo_table[["path", "person", "label"]].astype({"label": "int64"}).to_numpy().tolist()
    settings = [fold_count, REGULARISATION, TRUSTED, labels.attributes()]
    kept = folder / f"out_of_fold-{files.digest([decoded.content, repr(decoded.frame), rows, repr(settings)])}.npz"
    columns = labels.probability_columns()
    with contextlib.suppress(*UNREADABLE), np.load(kept, allow_pickle=False) as opened:
        table = photo_table[["path", "label"]].astype({"label": "int64"}).reset_index(drop=True)
        return table.join(pd.DataFrame(opened["probabilities"], columns=columns))  # ValueError for another shape
    table = out_of_fold(stage_features(decoded, folder), photo_table, fold_count)
    with files.replacing(kept) as temporary:
        np.savez(temporary, probabilities=table[columns].to_numpy())
    return table


def of_run(output_dir: Path, run: str) -> pd.DataFrame:
    """What a finished run said of the photos it was validated on, and of test_val if it predicted that."""
    columns = ["path", "label", *labels.probability_columns()]
    held_out = output_dir / "inferences" / f"{run}.test_val.csv"
    tables = [run_folder.out_of_fold(run_folder.folder_of(output_dir, run))[columns]]
    tables += [scores.read_probabilities(held_out, "path")[columns]] if held_out.exists() else []
    return pd.concat(tables, ignore_index=True).drop_duplicates("path", ignore_index=True)
