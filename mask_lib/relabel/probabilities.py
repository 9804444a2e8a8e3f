"""Probabilities that label cleaning ranks its suspects by, from what there is: a trained run, or frozen backbones."""

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
from mask_lib.models.features import logistic_probabilities, stage_features
from mask_lib.models.predict import probability_table
from mask_lib.training import dataset, run_folder

FOLDS = 10  # of people
REGULARISATION = 0.01  # as of `features`; larger than there, since here to stand out matters more than to be right
TRUSTED = 0.15  # mean probability of a person's own value from which they teach the second time


def out_of_fold(features: Sequence[np.ndarray], photo_table: pd.DataFrame, fold_count: int = FOLDS) -> pd.DataFrame:
    """Probabilities of every photo before any training, columns `path, label, p00 …`.

    features: (N, D) arrays, whose answers are averaged, rows as in `photo_table` (columns `path, person, label`). Each
    attribute is learned by itself on the people of the other folds; those of the person a second time, without the
    people whose label the first found most unlikely: a wrong label teaches others to be wrong.
    """
    table = photo_table[["path", "person", "label"]].astype({"label": "int64"}).reset_index(drop=True)
    fold_of = table["person"].map(splits.spread_people(table, fold_count, seed=0)).to_numpy()
    heads = {}
    for name, given in labels.decode_all(table["label"].to_numpy()).items():
        heads[name] = attribute_out_of_fold(features, given, fold_of, name)
        if name in labels.names(of_person=True):
            own = pd.Series(heads[name][np.arange(len(given)), given])
            trusted = own.groupby(table["person"]).transform("mean").to_numpy() > TRUSTED
            heads[name] = attribute_out_of_fold(features, given, fold_of, name, trusted)
    return probability_table(table[["path", "label"]], labels.joint(heads))


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
    data_dir: Path, output_dir: Path, photos: pd.DataFrame, frame: store.Frame, backbones: Sequence[str], run: str = ""
) -> tuple[pd.DataFrame, str]:
    """Probabilities of every train photo from networks that have not seen its person, and where they come from.

    Columns `path, label, p00 …`: what frozen backbones' features say, and, averaged with that, the finished run `run`
    (empty: the latest that is not frozen) of photos that it was asked about. Raises FileNotFoundError without that run.
    """
    if not run:
        folders = [run_folder.folder_of(output_dir, one) for one in run_folder.trained_runs(output_dir)]
        latest = sorted(folders, key=lambda folder: (folder / run_folder.SCORES).stat().st_mtime, reverse=True)
        run = next((one.name for one in latest if run_folder.read_settings(one)[0].head != FROZEN), "")
    found = of_run(output_dir, run) if run else None  # a named run is read first: it may not be finished
    decoded = dataset.open_photos(data_dir, output_dir, photos, frame)
    frozen = of_backbones(decoded, files.project_path(output_dir) / "features", photos, backbones)
    source = f"logistic regressions on frozen features of {' and '.join(backbones)}"
    if found is None:
        return frozen, source
    columns = labels.probability_columns()
    said = found.set_index("path")[columns].reindex(frozen["path"]).to_numpy()
    left_out = np.isnan(said[:, 0]).sum()
    frozen[columns] = np.nanmean([frozen[columns].to_numpy(), said], axis=0)
    alone = f"; of {left_out:,} photos that the run left out, the second alone" if left_out else ""
    return frozen, f"run {run} and {source}, averaged{alone}"


def of_backbones(decoded: store.Store, folder: Path, photos: pd.DataFrame, backbones: Sequence[str]) -> pd.DataFrame:
    """`out_of_fold` of frozen backbones' stages; kept in `folder` under a digest of photos, labels and settings."""
    rows = photos[["path", "person", "label"]].astype({"label": "int64"}).to_numpy().tolist()
    settings = [FOLDS, REGULARISATION, TRUSTED, labels.attributes(), list(backbones)]
    kept = folder / f"out_of_fold-{files.digest([decoded.content, repr(decoded.frame), rows, repr(settings)])}.npz"
    with contextlib.suppress(Exception), np.load(kept, allow_pickle=False) as opened:
        table = photos[["path", "label"]].astype({"label": "int64"})
        return probability_table(table, opened["probabilities"])  # ValueError for another shape
    table = out_of_fold(
        [one for name in backbones for one in stage_features(decoded, folder, architecture=name)], photos
    )
    with files.replacing(kept) as temporary:
        np.savez(temporary, probabilities=table[labels.probability_columns()].to_numpy())
    return table


def of_run(output_dir: Path, run: str) -> pd.DataFrame:
    """What a finished run said of the photos it was validated on, and of test_val if it predicted that."""
    columns = ["path", "label", *labels.probability_columns()]
    held_out = output_dir / "inferences" / f"{run}.test_val.csv"
    tables = [run_folder.out_of_fold(run_folder.folder_of(output_dir, run))[columns]]
    tables += [scores.read_probabilities(held_out, "path")[columns]] if held_out.exists() else []
    return pd.concat(tables, ignore_index=True).drop_duplicates("path", ignore_index=True)
