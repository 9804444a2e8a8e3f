"""Pseudo-labels from an earlier run: each fold's network names the evaluation photos for its own fold alone.

    python -m mask_lib.ensemble.self_training DATA_DIR OUTPUT_DIR RUN

writes OUTPUT_DIR/tables/pseudo.RUN.csv, which a new run joins to its train rows: see `training.pseudo_labels`.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd

from mask_lib.base import config, files, gpus, labels
from mask_lib.data import photos
from mask_lib.data.splits import TRAIN
from mask_lib.ensemble.leaks import read_leaks
from mask_lib.models import devices, predict
from mask_lib.models.checkpoint import read_checkpoint
from mask_lib.training import dataset, pseudo_labels, run_folder, runs


def make(
    data_dir: files.AnyPath, output_dir: files.AnyPath, run: str, threshold=0.9, class_share=1.0, num_tta=1
) -> pd.DataFrame:
    """Predict, choose (see `pseudo_labels.choose`) and write `tables/pseudo.<run>.csv`; returns the table."""
    output = files.project_path(output_dir)
    data = photos.find_data(data_dir, unpack_into=output / "unpacked")
    splits = dataset.read_training_splits(output, run_folder.run_settings(output, run))
    predicted = predictions(data, output, run, num_tta)
    allowed = {fold: without_copies(table, splits[fold], output) for fold, table in predicted.items()}
    found = pseudo_labels.choose(allowed, threshold, class_share)
    pseudo_labels.write(found, output, run, {fold: splits[fold] for fold in predicted})
    return found


def predictions(data_dir: Path, output_dir: Path, run: str, num_tta: int = 1) -> dict[int, pd.DataFrame]:
    """Per fold of a finished run the evaluation photos' class probabilities, columns `path` (absolute), p00 ….

    By each fold's last network: the best was chosen by the labels of the people whom the fold validates. Raises
    ValueError for a run whose training used them, for a soup, which was weighed by them, and as `runs.checkpoints`.
    """
    run_folder.refuse_soup(output_dir, run)
    settings = run_folder.run_settings(output_dir, run)
    refuse_feedback(settings)
    splits = dataset.read_training_splits(output_dir, settings)
    labeled = dataset.open_trainable(data_dir, output_dir, settings)
    checkpoints = runs.checkpoints(output_dir, run, labeled, splits, choice="last")
    evaluated = photos.read_evaluated(output_dir)
    opened = dataset.open_photos(data_dir, output_dir, evaluated, labeled.frame)
    source = devices.DevicePhotos(opened, devices.pick_device())
    rows, tta = np.arange(len(evaluated)), predict.Tta(num_tta)
    paths, found = pd.DataFrame({"path": list(map(str, photos.files_of(data_dir, evaluated)))}), {}
    for fold, checkpoint in checkpoints.items():
        network = predict.load_network(*read_checkpoint(checkpoint), source.device)
        found[fold] = predict.probability_table(paths, network.predict(source, rows, tta))
    return found


def refuse_feedback(settings: config.Run) -> None:
    """Raise ValueError for a run whose steps or whose end depended on validation labels."""
    used = [f"early_stop_epochs: {settings.early_stop_epochs}"] if settings.early_stop_epochs else []
    used += ["schedule: plateau"] if settings.schedule == "plateau" else []
    if used:
        raise ValueError(
            f"run {settings.run} was trained with {', '.join(used)}: its training listened to the people it is "
            "validated on, and so would its pseudo-labels; take a run of a fixed length and schedule"
        )


def without_copies(table: pd.DataFrame, split: pd.DataFrame, output_dir: Path) -> pd.DataFrame:
    """The rows of absolute `path`s that are no copies of photos which a fold validates or holds out."""
    leaks = read_leaks(output_dir)
    copies = leaks["ImageID"][leaks["path"].isin(split.loc[split["split"] != TRAIN, "path"])]
    return table[~table["path"].map(os.path.basename).isin(copies)].reset_index(drop=True)


def summary(run: str, found: pd.DataFrame) -> str:
    """What `make` found, in a line for each fold."""
    lines = [f"{run}: pseudo-labels" if len(found) else f"{run}: no photo is confident enough"]
    for fold, rows in found.groupby("fold"):
        told = f"{len(rows):,} photos of {rows['label'].nunique()} classes"
        lines.append(f"fold {fold}: {told}, mean probability {rows['probability'].mean():.3f}")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    about = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser("python -m mask_lib.ensemble.self_training", description=about)
    for name in ("data_dir", "output_dir", "run"):
        parser.add_argument(name)
    parser.add_argument("--threshold", type=float, default=0.9, help="least probability (default: %(default)s)")
    parser.add_argument("--class-share", type=float, default=1.0, help="the surest of each class (default: all)")
    parser.add_argument("--num-tta", type=int, default=1, help="views a photo: 1, 4 or 8")
    parser.add_argument("--task", default=labels.DEFAULT, help="the task's file (default: %(default)s)")
    parser.add_argument("--plugin", action="append", default=[], help="a module that registers the run's network")
    parser.add_argument("--gpu", action="store_true", help="of several GPUs take one that is free, or wait for it")
    asked = vars(parser.parse_args())
    asked.pop("gpu") and gpus.take()
    labels.use(asked.pop("task"))
    config.import_plugins(asked.pop("plugin"))
    print(summary(asked["run"], make(**asked)))


if __name__ == "__main__":
    main()
