"""Folders of runs as training leaves them, written in milliseconds and without torch."""

from pathlib import Path

import numpy as np
import pandas as pd

from mask_lib.base import config, files, labels, scores
from mask_lib.data import splits
from mask_lib.training import run_folder

FOLDS = 3
PEOPLE = 40
COLUMNS = list(labels.PROBABILITY_COLUMNS)


def prepare(output: Path, people: int = PEOPLE) -> pd.DataFrame:
    """The photo table and splits of an experiment: four photos a person, in the classes' order."""
    rows = [
        (f"{person:03d}/{name}.jpg", f"{person:03d}", labels.encode(mask, person % 2, person % 3))
        for person in range(people)
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
    generator, tables, rows = np.random.default_rng(seed), [], []
    folder = output / "runs" / name
    for fold, split in splits.read_splits(output).items():
        val = split[split["split"] == "val"].reset_index(drop=True)
        truth, other = val["label"].to_numpy(), generator.integers(0, 18, len(val))
        answers = np.where(generator.random(len(val)) < right, truth, other)
        if fold in trained:
            tables.append(val.join(probabilities(answers, generator.uniform(0.5, 0.99, len(val)))))
            files.write_csv(tables[-1][["path", "label", *COLUMNS]], folder / f"fold{fold}" / "oof.csv")
            epochs = pd.DataFrame({"fold": fold, "epoch": [1, 2], "train_loss": [2.0, 1.0], "val_loss": [2.5, 1.5]})
            files.write_csv(epochs.assign(val_macro_f1=[0.2, 0.3 + fold / 10]), folder / f"fold{fold}" / "history.csv")
            rows.append({"fold": fold})
    run = config.Run(**{"run": name, "architecture": "resnet18", "image_width": 96, "image_height": 128, **settings})
    files.write_json({**run.settings(), "device": "CPU, 2 threads"}, folder / "config.json")
    rescore(folder, pd.concat(tables), rows)
    return folder


def rescore(folder: Path, table: pd.DataFrame, rows: list[dict]) -> None:
    """Write the scores.json that belongs to a table with `path, person, label, p00 … p17`."""
    found = scores.bootstrap(*scores.from_probabilities(table), table["person"].to_numpy(), draws=50)
    cost = {"training_seconds": 90.0, "photos_per_second": 120.4, "peak_memory_bytes": 2_500_000_000}
    files.write_json({"out_of_fold": found.to_dict("index"), "folds": rows, **cost}, folder / "scores.json")


def probabilities(answers: np.ndarray, sure: np.ndarray) -> pd.DataFrame:
    """Rows that hold `sure` for their answer and share the rest among the other classes."""
    table = np.repeat((1 - sure)[:, None] / 17, 18, axis=1)
    table[np.arange(len(answers)), answers] = sure
    return pd.DataFrame(table, columns=COLUMNS)


def invented(name: str, rows: list[tuple[str, int, int, float]]) -> run_folder.FinishedRun:
    """A run in memory alone; rows of path, label, answer, how sure. The first letter of a path is its person."""
    table = pd.DataFrame(rows, columns=["path", "label", "answer", "sure"])
    table = table.join(probabilities(table["answer"].to_numpy(), table["sure"].to_numpy()))
    table = table.assign(person=table["path"].str[0], fold=0)[["path", "label", *COLUMNS, "fold", "person"]]
    found = {"out_of_fold": {"macro_f1": {"value": 0.5, "low": 0.4, "high": 0.6}}, "folds": [{"fold": 0}]}
    return run_folder.FinishedRun(name, Path(name), config.Run(run=name), "CPU", 1, found, pd.DataFrame(), table)
