"""Probabilities of photos from trained networks: folds, parts of the data, and the tables they are kept in."""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from mask_lib.base import config, files, labels
from mask_lib.data import layout, photos, store
from mask_lib.data.splits import TEST_VAL
from mask_lib.models import devices, predict
from mask_lib.models.checkpoint import read_checkpoint, read_manifest
from mask_lib.training import dataset, run_folder, runs

Part = Literal["test", "test_val", "both"]


def stored(
    checkpoint: Path, source: devices.DevicePhotos, paths: list[str], tta: predict.Tta, start: Path
) -> np.ndarray:
    """(N, 18) float64 probabilities one network gives of `paths`, from disk if they were computed before.

    They lie in `<start>.<digest>.csv`, columns `path, p00 … p17`. The digest stands for all that they
    depend on: weights, photos, views and precision; so a file of that name is always right, and a killed
    inference goes on with the next network. Files of the same start with another digest are removed.
    """
    dtype = devices.dtype_for(read_manifest(checkpoint)["run"]["precision"], source.device)
    made_of = [files.file_digest(checkpoint), source.store.content, paths, dataclasses.asdict(tta), str(dtype)]
    path = start.with_name(f"{start.name}.{files.digest(made_of)}.csv")
    if not path.exists():
        found = predict.load_network(*read_checkpoint(checkpoint), source.device).predict(
            source, source.store.rows(paths), tta
        )
        files.write_csv(predict.probability_table(pd.DataFrame({"path": paths}), found), path)
        for stale in set(start.parent.glob(f"{start.name}.*.csv")) - {path}:
            stale.unlink()
    return pd.read_csv(path, usecols=list(labels.PROBABILITY_COLUMNS)).to_numpy()


def mean_over_folds(
    found: dict[int, Path], source: devices.DevicePhotos, paths: list[str], tta: predict.Tta, folder: Path, part: str
) -> np.ndarray:
    """(N, 18) probabilities of `paths`, averaged over the folds' checkpoints; each fold's own stay in `folder`."""
    total = np.zeros((len(paths), labels.CLASS_COUNT))
    for fold, path in files.progress(found.items(), what=f"predict {len(paths)} photos", unit="fold"):
        total += stored(path, source, paths, tta, folder / f"fold{fold}.{part}")
    return total / len(found)


def predict_run(
    data_dir: Path, output_dir: Path, run: str, tta: predict.Tta = predict.ONE_VIEW, split: Part = "both"
) -> dict[str, pd.DataFrame]:
    """Write `inferences/<run>.test.csv` and `<run>.test_val.csv`, or what `split` says, and return them by name.

    test: `ImageID, p00 … p17`, every row of info.csv in its order; a photo that could not be read
    gets the mean of the others, since a submission must answer it all the same. test_val: `path,
    label, p00 … p17`. Each fold's own lie in `inferences/models/<run>/` and are computed once, see
    `stored`. Raises FileNotFoundError for a run that is not trained, ValueError for views that do
    not suit its photos. Beside each file stands what it was made of, see `run_folder.note_prediction`.
    """
    parts = ("test", "test_val") if config.checked("split", split, Part) == "both" else (split,)
    settings = run_folder.run_settings(output_dir, run)
    tta.check_fits(store.Frame.of_run(settings))
    splits = dataset.read_training_splits(output_dir, settings)
    labeled = dataset.open_trainable(data_dir, output_dir, settings)
    found = runs.checkpoints(output_dir, run, labeled, splits)
    home = run_folder.folder_of(output_dir, run)
    made_of = run_folder.answers(
        home, run_folder.trained_folds(home)
    )  # before: what is trained meanwhile must not count
    folder = Path(output_dir) / "inferences" / "models" / run
    tables = {}
    if "test" in parts:
        tables["test"] = predict_evaluated(data_dir, output_dir, found, labeled.frame, tta, folder)
    if "test_val" in parts:
        tables["test_val"] = predict_held_out(next(iter(splits.values())), found, labeled, tta, folder)
    for name, table in tables.items():
        path = files.write_csv(table, Path(output_dir) / "inferences" / f"{run}.{name}.csv")
        run_folder.note_prediction(
            path, made_of
        )  # last: a kill in between leaves an older note, which refuses the file
    return tables


def predict_evaluated(
    data_dir: Path, output_dir: Path, found: dict[int, Path], frame: store.Frame, tta: predict.Tta, folder: Path
) -> pd.DataFrame:
    """The table of the evaluation photos, `ImageID, p00 … p17`, from checkpoints by fold."""
    evaluated = photos.read_evaluated(output_dir)
    source = devices.DevicePhotos(dataset.open_photos(data_dir, output_dir, evaluated, frame), devices.pick_device())
    probabilities = mean_over_folds(found, source, list(evaluated["path"]), tta, folder, "test")
    keys = evaluated[["path"]].rename(columns={"path": "ImageID"})
    return with_every_id(predict.probability_table(keys, probabilities), layout.eval_ids(data_dir))


def predict_held_out(
    split: pd.DataFrame, found: dict[int, Path], labeled: store.Store, tta: predict.Tta, folder: Path
) -> pd.DataFrame:
    """The table of a split's held-out photos, `path, label, p00 … p17`, from checkpoints by fold."""
    held_out = split.loc[split["split"] == TEST_VAL, ["path", "label"]]
    source = devices.DevicePhotos(labeled, devices.pick_device(), resident=False)
    return predict.probability_table(
        held_out, mean_over_folds(found, source, list(held_out["path"]), tta, folder, "test_val")
    )


def as_photos(predicted: dict[str, pd.DataFrame], output_dir: Path) -> pd.DataFrame:
    """Columns `path, split, p00 … p17` of predicted photos that can be shown: test if it is there, else test_val."""
    if "test" not in predicted:
        return predicted["test_val"].drop(columns="label").assign(split="train")
    table = predicted["test"].rename(columns={"ImageID": "path"}).assign(split="eval")
    return table[table["path"].isin(photos.read_evaluated(output_dir)["path"])]  # the others could not be read


def with_every_id(test: pd.DataFrame, ids: list[str]) -> pd.DataFrame:
    """`test` in the order of `ids`; an id it lacks gets the mean of all rows."""
    columns = list(labels.PROBABILITY_COLUMNS)
    whole = test.set_index("ImageID").reindex(ids)
    return whole.fillna(test[columns].mean()).rename_axis("ImageID").reset_index()


def surest(table: pd.DataFrame) -> pd.DataFrame:
    """Of each class that is predicted at all the photo with the highest probability, in the classes' order."""
    columns = list(labels.PROBABILITY_COLUMNS)
    ranked = table.assign(predicted=table[columns].to_numpy().argmax(axis=1), sure=table[columns].max(axis=1))
    best = ranked.sort_values("sure", ascending=False, kind="stable").drop_duplicates("predicted")
    return best.sort_values("predicted").drop(columns=["predicted", "sure"])


def most_doubtful(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The `count` photos whose likeliest class has the lowest probability."""
    sure = table[list(labels.PROBABILITY_COLUMNS)].max(axis=1)
    return table.loc[sure.sort_values(kind="stable").index[:count]]
