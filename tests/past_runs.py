"""Folders of runs as training leaves them, written in milliseconds and without torch."""

from pathlib import Path

import numpy as np
import pandas as pd

from mask_lib.base import config, files, labels, scores
from mask_lib.data import splits
from mask_lib.training import run_folder

FOLDS = 3
COSTS = {"training_seconds": 90.0, "photos_per_second": 120.4, "peak_memory_bytes": 2_500_000_000}


def prepare(output: Path) -> pd.DataFrame:
    """The photo table and splits of an experiment: four photos of each of 40 people."""
    rows = [
        (f"{person:03d}/{name}.jpg", f"{person:03d}", labels.encode(mask, person % 2, person % 3))
        for person in range(40)
        for name, mask in (("mask1", 0), ("mask2", 0), ("incorrect_mask", 1), ("normal", 2))
    ]
    photos = pd.DataFrame(rows, columns=["path", "person", "label"])
    table = photos.assign(mask="", gender="", age=pd.NA, split="train")
    files.write_csv(table[["path", "person", "mask", "gender", "age", "label", "split"]], output / "tables/photos.csv")
    splits.write_splits(splits.make_splits(photos, FOLDS, test_val_share=0.1), output)
    return photos


def write_run(
    output: Path, name: str, right: float = 0.7, seed: int = 0, trained: tuple[int, ...] = range(FOLDS), **settings
) -> Path:
    """A finished run that answers the share `right` of its photos rightly; its folder."""
    folder = output / "runs" / name
    table = write_tables(folder, "oof.csv", right, seed, trained)
    for fold in trained:
        epochs = pd.DataFrame({"fold": fold, "epoch": [1, 2], "train_loss": [2.0, 1.0], "val_loss": [2.5, 1.5]})
        files.write_csv(epochs.assign(val_macro_f1=[0.2, 0.3 + fold / 10]), folder / f"fold{fold}" / "history.csv")
    run = config.Run(**{"run": name, "architecture": "resnet18", "image_width": 96, "image_height": 128, **settings})
    files.write_json({**run.settings(), "device": "CPU, 2 threads"}, folder / "config.json")
    files.write_json({**scored(table), **COSTS}, folder / "scores.json")
    return folder


def write_tables(folder: Path, name: str, right: float, seed: int = 0, folds: tuple[int, ...] = range(FOLDS)):
    """Out-of-fold tables called `name` in a run's folder, as `write_run` fills them; all of them with fold, person."""
    generator, tables = np.random.default_rng(seed), []
    for fold, split in splits.read_splits(folder.parents[1]).items():
        val = split[split["split"] == "val"].reset_index(drop=True)
        truth, other = val["label"].to_numpy(), generator.integers(0, labels.class_count(), len(val))
        answers = np.where(generator.random(len(val)) < right, truth, other)
        table = val.join(probabilities(answers, generator.uniform(0.5, 0.99, len(val))))
        if fold in folds:
            columns = ["path", "label", *labels.probability_columns()]
            files.write_csv(table[columns], folder / f"fold{fold}" / name)
            tables.append(table.assign(fold=fold))
    return pd.concat(tables, ignore_index=True)


def scored(table: pd.DataFrame) -> dict:
    """What scores.json holds of a table with `fold, person, label, p00 …`."""
    found = scores.bootstrap(*scores.from_probabilities(table), table["person"].to_numpy(), draws=50)
    return {"out_of_fold": found.to_dict("index"), "folds": [{"fold": int(fold)} for fold in table["fold"].unique()]}


def average(folder: Path, picked: str = "swa", right: float = 0.95) -> pd.DataFrame:
    """What averaging leaves in a run's folder when it picks that average in all folds; the joined tables."""
    table = write_tables(folder, f"oof.{picked}.csv", right, seed=5, folds=run_folder.trained_folds(folder))
    entries = {str(fold): {"members": {}, "scores": {}, "picked": picked} for fold in table["fold"].unique()}
    files.write_json({"trained": "last", "folds": entries, "scores": scored(table)}, folder / "averaging.json")
    return table


def probabilities(answers: np.ndarray, sure: np.ndarray) -> pd.DataFrame:
    """Rows that hold `sure` for their answer and share the rest among the other classes."""
    count = labels.class_count()
    table = np.repeat((1 - sure)[:, None] / (count - 1), count, axis=1)
    table[np.arange(len(answers)), answers] = sure
    return pd.DataFrame(table, columns=labels.probability_columns())


def invented(name: str, rows: list[tuple[str, int, int, float]], **settings) -> run_folder.FinishedRun:
    """A run in memory alone; rows of path, label, answer, how sure. The first letter of a path is its person."""
    table = pd.DataFrame(rows, columns=["path", "label", "answer", "sure"])
    table = table.join(probabilities(table["answer"].to_numpy(), table["sure"].to_numpy()))
    table = table.assign(person=table["path"].str[0], fold=0)
    table = table[["path", "label", *labels.probability_columns(), "fold", "person"]]
    found = {"out_of_fold": {"macro_f1": {"value": 0.5, "low": 0.4, "high": 0.6}}, "folds": [{"fold": 0}]}
    run = config.Run(run=name, **settings)
    return run_folder.FinishedRun(name, Path(name), run, "CPU", 1, found, pd.DataFrame(), table)
