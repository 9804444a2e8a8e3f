"""Did label cleaning help? The same run on the given labels and on the cleaned ones, scored where nobody changed any.

    python -m mask_lib.training.gain DATA_DIR OUTPUT_DIR RUN

trains the finished run RUN once more on the given labels, below OUTPUT_DIR/gain, with the same
settings and folds, and writes OUTPUT_DIR/gain/RUN.json.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import pandas as pd

from mask_lib.base import files, labels, scores
from mask_lib.data import clean_labels, photos
from mask_lib.training import dataset, run_folder, runs

FOLDER = "gain"


def train_on_given_labels(data_dir: Path, output_dir: Path, run: str) -> runs.RunResult:
    """The finished run `run` once more, on the labels of the data set, below `output_dir`/gain; resumable.

    Raises ValueError if that run itself was trained on the given labels, on pseudo-labels, which themselves
    come of cleaned labels, or is not of today's photos and clean labels, or for a soup, which was not trained,
    FileNotFoundError if it is not finished.
    """
    run_folder.refuse_soup(output_dir, run)
    settings = run_folder.run_settings(output_dir, run)
    if settings.label_source == "given":
        raise ValueError(f"run {run} was trained with label_source: given; compare one with label_source: clean")
    if settings.pseudo_labels:
        raise ValueError(f"run {run} learned from pseudo_labels, which come of cleaned labels; compare one without")
    decoded = dataset.open_trainable(data_dir, output_dir, settings)
    runs.checkpoints(output_dir, run, decoded, dataset.read_training_splits(output_dir, settings))
    given = settings.replace(label_source="given")
    splits = dataset.read_training_splits(output_dir, given)
    return runs.train_run(given, splits, decoded, Path(output_dir) / FOLDER, when_changed="restart")


def compare(before: pd.DataFrame, after: pd.DataFrame, touched: set[str]) -> dict[str, Any]:
    """How much better `after` is than `before` on photos outside `touched`, by a paired bootstrap of people.

    before, after: out-of-fold tables with `path, person, label, p00 … p17`. Keys: `photos` and `people`
    scored, `touched`, `before` and `after` (metric -> value), `gain` (metric -> difference, low, high, p).
    Raises ValueError if no photo is left to score on.
    """
    left = before[~before["path"].isin(touched)].set_index("path")
    left = left.loc[left.index.intersection(after["path"])]
    if left.empty:
        raise ValueError("no photo is left that both runs predicted and nobody changed")
    columns, right = list(labels.PROBABILITY_COLUMNS), after.set_index("path").loc[left.index]
    predicted = [table[columns].to_numpy().argmax(axis=1) for table in (left, right)]
    truth, person = left["label"].to_numpy(), left["person"].to_numpy()
    return {
        "photos": len(left),
        "people": int(left["person"].nunique()),
        "touched": len(touched),
        "before": scores.summarise(truth, predicted[0]),
        "after": scores.summarise(truth, predicted[1]),
        "gain": scores.paired_bootstrap(truth, *predicted, person).to_dict("index"),
    }


def measure(data_dir: str | os.PathLike[str], output_dir: str | os.PathLike[str], run: str) -> dict[str, Any]:
    """Train `run` on the given labels too, compare, and write `gain/<run>.json`; see `compare`."""
    output = files.project_path(output_dir)
    data = photos.find_data(data_dir, unpack_into=output / "unpacked")
    before = train_on_given_labels(data, output, run)
    splits = dataset.read_training_splits(output, run_folder.run_settings(output, run))
    after = runs.read_result(
        run_folder.folder_of(output, run), splits, sorted(before.history["fold"].unique()), as_trained=True
    )
    found = compare(before.out_of_fold, after.out_of_fold, clean_labels.touched(output))
    files.write_json(found, output / FOLDER / f"{run}.json")
    return found


def summary(run: str, found: dict[str, Any]) -> str:
    """What `measure` found, in a few lines."""
    gain = found["gain"]["macro_f1"]
    sure = "so the difference is real" if gain["low"] > 0 else "so it may be chance"
    sure = "so cleaning did harm" if gain["high"] < 0 else sure
    if not found["touched"]:
        sure = "but nobody has changed a label yet: the two runs differ in nothing"
    return (
        f"{run}: macro F1 {found['before']['macro_f1']:.3f} on the given labels, "
        f"{found['after']['macro_f1']:.3f} on the cleaned ones, scored on the {found['photos']:,} photos of "
        f"{found['people']:,} people whose label nobody changed ({found['touched']:,} were changed or dropped). "
        f"Difference {gain['difference']:+.3f} (95% interval by person {gain['low']:+.3f} to {gain['high']:+.3f}), "
        f"{sure}."
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m mask_lib.training.gain", description=__doc__.partition("\n")[0])
    for name in ("data_dir", "output_dir", "run"):
        parser.add_argument(name)
    asked = parser.parse_args()
    print(summary(asked.run, measure(asked.data_dir, asked.output_dir, asked.run)))


if __name__ == "__main__":
    main()
