"""Pseudo-labels, safe by fold: evaluation photos that a network is sure of, as further train rows of its own fold.

The network that names those of fold k was trained without the people whom fold k validates and the held-out ones,
so they carry nothing of those people's labels back into fold k. `self_training` makes them.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from mask_lib.base import config, files, labels
from mask_lib.data.splits import TEST_VAL, TRAIN, VAL, refuse

KINDS = {"fold": "int64", "path": "str", "label": "int64", "probability": "float64"}
COLUMNS = list(KINDS)
PREFIX = "eval:"  # before a photo's name, as its person: who stands on an evaluation photo is not known


def choose(predictions: Mapping[int, pd.DataFrame], threshold: float = 0.9, class_share: float = 1.0) -> pd.DataFrame:
    """The confident evaluation photos of each fold, `COLUMNS`, sorted by fold and path.

    predictions: per fold a table with `path` (absolute) and `labels.probability_columns()` from that fold's network.
    A photo joins if its likeliest class has at least the probability `threshold` and it is among the surest
    `class_share` of that class, so that easy ones do not crowd out others (Zou et al. 2018). ValueError out of range.
    """
    config.check_bounds({"pseudo_threshold": threshold, "pseudo_class_share": class_share})
    tables = [pd.DataFrame(columns=COLUMNS).astype(KINDS)]  # gives the dtypes where no photo is confident
    for fold, table in predictions.items():
        probabilities = table[labels.probability_columns()].to_numpy()  # (N, C)
        found = table[["path"]].assign(label=probabilities.argmax(axis=1), probability=probabilities.max(axis=1))
        of_class = found.groupby("label")["probability"]
        rank = of_class.rank(method="first", ascending=False)  # 1 is the surest of its class
        most = np.ceil(class_share * of_class.transform("size") - 1e-9)  # a tenth of 30 are 3, whatever floats say
        tables.append(found[(found["probability"] >= threshold) & (rank <= most)].assign(fold=fold))
    return pd.concat(tables)[COLUMNS].sort_values(["fold", "path"], ignore_index=True)


def table_path(output_dir: str | os.PathLike[str], run: str) -> Path:
    """Where the pseudo-labels lie that a run gave; beside it, as .json, whom its folds were never trained on."""
    return Path(output_dir) / "tables" / f"pseudo.{run}.csv"


def unseen_people(split: pd.DataFrame) -> dict[str, str]:
    """Digests of the people whom a fold validates and of those it holds out: training sees neither."""
    return {part: files.digest(sorted(set(split["person"][split["split"] == part]))) for part in (VAL, TEST_VAL)}


def write(table: pd.DataFrame, output_dir: str | os.PathLike[str], run: str, splits: dict[int, pd.DataFrame]) -> Path:
    """Write a table of `choose`; splits: those that `run`, whose networks chose it, was trained on."""
    path = table_path(output_dir, run)
    path.unlink(missing_ok=True)  # between the two writes there is no table rather than a wrong pair
    files.write_json({str(fold): unseen_people(split) for fold, split in splits.items()}, path.with_suffix(".json"))
    return files.write_csv(table[COLUMNS], path)


def read(output_dir: str | os.PathLike[str], run: str, splits: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """The table as it was written, for training on `splits`.

    Raises FileNotFoundError that says how to make it; ValueError for a fold that `run` lacks, and if a fold has other
    people by now: the network behind a pseudo-label might know those whom it validates.
    """
    path = table_path(output_dir, run)
    if not path.exists():
        command = f"python -m mask_lib.ensemble.self_training DATA_DIR OUTPUT_DIR {run}"
        raise FileNotFoundError(f"no {files.shown_path(path)}: run {command} first")
    unseen = files.read_json(path.with_suffix(".json"), dict[int, dict[str, str]])
    absent = [fold for fold in splits if fold not in unseen]
    if absent:
        raise ValueError(f"{files.shown_path(path)} has nothing for folds {absent}: {run} was not trained on them")
    changed = [fold for fold, split in splits.items() if unseen[fold] != unseen_people(split)]
    if changed:
        raise ValueError(
            f"{files.shown_path(path)} was made when folds {changed} validated or held out other people, whom its "
            f"networks may have been trained on: train {run} again, and make its pseudo-labels again"
        )
    return files.read_csv(path, KINDS)[COLUMNS]


def joined(split: pd.DataFrame, table: pd.DataFrame, fold: int, weight: float) -> pd.DataFrame:
    """A fold's split with its pseudo-labeled photos as further train rows, and a column `weight`: 1 for its own rows.

    Those come first; each of the others is a person of its own, with further columns empty. Raises ValueError for
    labels that are no class, relative paths, and photos that stand there twice or in the split already.
    """
    rows = table[table["fold"] == fold]
    is_absolute = rows["path"].map(os.path.isabs).astype(bool)
    refuse(rows["path"][~is_absolute], "pseudo-labels need absolute paths; these have none")
    refuse(rows["path"][rows["path"].duplicated()], "photos with two pseudo-labels")
    refuse(set(rows["path"]) & set(split["path"]), f"fold {fold}: pseudo-labeled photos that stand in the split")
    is_class = rows["label"].isin(range(labels.class_count()))
    refuse(rows["path"][~is_class], f"fold {fold}: pseudo-labels other than 0-{labels.class_count() - 1}")
    added = rows.assign(person=PREFIX + rows["path"].map(os.path.basename), split=TRAIN, weight=weight)
    own = split.assign(weight=split.get("weight", 1.0))
    return pd.concat([own, added.reindex(columns=list(own))], ignore_index=True) if len(added) else own
