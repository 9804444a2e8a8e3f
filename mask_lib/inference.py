"""Probabilities of photos from trained networks: folds, parts of the data, and the tables they are kept in."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import nn

from mask_lib import (
    config,
    devices,
    files,
    folds,
    labels,
    layout,
    lineage,
    models,
    photos,
    policies,
    resuming,
    starting_weights,
    store,
    targets,
    trainable,
    views,
)

PREDICT_BATCH = 64  # photos; small enough for any network on any GPU in use
Part = Literal["test", "test_val", "both"]


@torch.inference_mode()
def predict(
    network: nn.Module,
    source: devices.DevicePhotos,
    rows: np.ndarray,
    preprocessing: models.Preprocessing,
    dtype: torch.dtype = torch.float32,
    tta: views.Tta = views.ONE_VIEW,
) -> np.ndarray:
    """(N, 18) float32 probabilities of the store's `rows`, averaged over the views as `tta` says."""
    tta.check_fits(source.store.frame)
    network.eval()
    found = [np.empty((0, labels.CLASS_COUNT), dtype=np.float32)]
    for block in store.blocks(len(rows), PREDICT_BATCH):
        batch = source.batch(rows[block]).float() / 255
        with devices.autocast(source.device, dtype):
            logits = [network(preprocessing.prepared(seen)).float() for seen in tta.shown(batch)]
        found.append(tta.averaged(torch.stack(logits)).cpu().numpy())
    return np.concatenate(found)


def probability_table(keys: pd.DataFrame, probabilities: np.ndarray) -> pd.DataFrame:
    """`keys` with the columns p00 … p17 beside them."""
    return keys.reset_index(drop=True).join(pd.DataFrame(probabilities, columns=list(labels.PROBABILITY_COLUMNS)))


def checkpoints(
    output_dir: Path,
    run: str,
    labeled: store.Store,
    splits: dict[int, pd.DataFrame],
    choice: config.CheckpointChoice | None = None,
) -> dict[int, Path]:
    """The checkpoint of each fold of a finished run, whose photos, labels and split must be those of today.

    It is the one that 05_average_weights picked, or before that the one training chose; with `choice`
    the one of that name. labeled: the store of the labeled photos. Raises FileNotFoundError that says
    what to run first for a run that is not finished, ValueError that names a fold whose checkpoint
    belongs to something else, and as `lineage.refuse_stale_soup` and `lineage.refuse_lost_picks` do.
    """
    folder = lineage.folder_of(output_dir, run)
    settings = run_settings(output_dir, run)
    lineage.refuse_stale_soup(folder)
    if choice is None:
        lineage.refuse_lost_picks(folder)
    names, found = lineage.picked_names(folder), {}
    for fold in settings.folds or tuple(splits):
        name = choice or names.get(fold, settings.checkpoint_choice)
        path = folder / f"fold{fold}" / "checkpoint" / f"{name}.safetensors"
        if name == "swa" and fold not in names:
            raise FileNotFoundError(
                f"{files.shown_path(path)} is chosen but was not made yet: run 05_average_weights with run: {run} first"
            )
        require_today(path, settings, labeled, splits.get(fold))
        found[fold] = path
    return found


def require_today(path: Path, settings: config.Run, labeled: store.Store, split: pd.DataFrame | None) -> None:
    """Raise ValueError unless a checkpoint was trained with a run's settings, on today's photos, labels and split.

    What is in the file of its policy counts, and if its training read ages in years those of today do.
    """
    manifest = models.read_manifest(path)
    data, years = None, manifest.get("years")
    if split is not None:
        data = folds.fingerprint(labeled.content, split, settings.weights)
        years = targets.years_digest(split[split["split"] == folds.TRAIN], settings)
    policy = policies.chosen(settings.augmentation).plain()
    today = {"run": settings.settings(), "data": data, "policy": policy, "years": years}
    if reasons := resuming.changes(manifest, today):
        raise ValueError(
            f"{files.shown_path(path)} was trained on other photos, labels or folds, or with other settings, than "
            f"those of today ({'; '.join(reasons)}): {_anew(path.parents[2], settings)}"
        )


def _anew(folder: Path, settings: config.Run) -> str:
    """What to run to make anew what a run's folder holds."""
    if members := lineage.soup_members(folder):
        return f"train {', '.join(members)} again, of which it is a soup, then {lineage.finish(folder)}"
    notebook = "04_three_model" if settings.head == "three" else "03_one_model"
    return f"run {notebook} again with run: {settings.run} and when_changed: restart"


def run_settings(output_dir: Path, run: str) -> config.Run:
    """The settings of a finished run. Raises FileNotFoundError that says what to run first."""
    folder = lineage.folder_of(output_dir, run)
    if not (folder / "scores.json").exists():
        raise FileNotFoundError(f"{files.shown_path(folder)} holds no finished run: {lineage.finish(folder)} first")
    saved = files.read_json(folder / "config.json")
    return config.Run.from_settings({name: value for name, value in saved.items() if name != "device"})


def open_photos(data_dir: Path, output_dir: Path, table: pd.DataFrame, frame: store.Frame) -> store.Store:
    """The store of a photo table's rows (columns path, split), all of them train or all eval photos."""
    images = Path(data_dir) / table["split"].iloc[0] / "images"
    return store.open_store(Path(output_dir) / "store", images, list(table["path"]), frame)


def open_trainable(data_dir: Path, output_dir: Path, run: config.Run) -> store.Store:
    """The store of every photo that a run may train on, external and pseudo-labeled ones too, as its settings ask.

    Raises ValueError, before any photo is decoded, for a network or head that does not take photos of its size.
    """
    starting_weights.require_fits(run)
    return open_photos(data_dir, output_dir, trainable.photo_table(output_dir, run), store.Frame.of_run(run))


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A network as its checkpoint describes it: normalisation and precision are always those of its training."""

    network: nn.Module
    preprocessing: models.Preprocessing
    dtype: torch.dtype

    def predict(
        self, source: devices.DevicePhotos, rows: np.ndarray, tta: views.Tta = views.ONE_VIEW
    ) -> np.ndarray:  # (N, 18) float32
        """As `predict` gives them."""
        return predict(self.network, source, rows, self.preprocessing, self.dtype, tta)


def load(state: dict[str, torch.Tensor], manifest: dict[str, Any], device: torch.device) -> Loaded:
    """A checkpoint's network on `device`."""
    preprocessing = models.Preprocessing.from_manifest(manifest)
    run = config.Run.from_settings(manifest["run"])
    network = models.of_run(run)
    network.load_state_dict(state)
    network.to(device, memory_format=torch.channels_last)
    return Loaded(network, preprocessing, devices.dtype_for(run.precision, device))


def stored(checkpoint: Path, source: devices.DevicePhotos, paths: list[str], tta: views.Tta, start: Path) -> np.ndarray:
    """(N, 18) float64 probabilities one network gives of `paths`, from disk if they were computed before.

    They lie in `<start>.<digest>.csv`, columns `path, p00 … p17`. The digest stands for all that they
    depend on: weights, photos, views and precision; so a file of that name is always right, and a killed
    inference goes on with the next network. Files of the same start with another digest are removed.
    """
    dtype = devices.dtype_for(models.read_manifest(checkpoint)["run"]["precision"], source.device)
    made_of = [files.file_digest(checkpoint), source.store.content, paths, dataclasses.asdict(tta), str(dtype)]
    path = start.with_name(f"{start.name}.{files.digest(made_of)}.csv")
    if not path.exists():
        found = load(*models.read_checkpoint(checkpoint), source.device).predict(source, source.store.rows(paths), tta)
        files.write_csv(probability_table(pd.DataFrame({"path": paths}), found), path)
        for stale in set(start.parent.glob(f"{start.name}.*.csv")) - {path}:
            stale.unlink()
    return pd.read_csv(path, usecols=list(labels.PROBABILITY_COLUMNS)).to_numpy()


def mean_over_folds(
    found: dict[int, Path], source: devices.DevicePhotos, paths: list[str], tta: views.Tta, folder: Path, part: str
) -> np.ndarray:
    """(N, 18) probabilities of `paths`, averaged over the folds' checkpoints; each fold's own stay in `folder`."""
    total = np.zeros((len(paths), labels.CLASS_COUNT))
    for fold, path in files.progress(found.items(), what=f"predict {len(paths)} photos", unit="fold"):
        total += stored(path, source, paths, tta, folder / f"fold{fold}.{part}")
    return total / len(found)


def trained_runs(output_dir: Path) -> list[str]:
    """Names of the runs that are finished, which is to say have their `scores.json`."""
    return sorted(path.parent.name for path in (Path(output_dir) / "runs").glob("*/scores.json"))


def predict_run(
    data_dir: Path, output_dir: Path, run: str, tta: views.Tta = views.ONE_VIEW, split: Part = "both"
) -> dict[str, pd.DataFrame]:
    """Write `inferences/<run>.test.csv` and `<run>.test_val.csv`, or what `split` says, and return them by name.

    test: `ImageID, p00 … p17`, every row of info.csv in its order; a photo that could not be read
    gets the mean of the others, since a submission must answer it all the same. test_val: `path,
    label, p00 … p17`. Each fold's own lie in `inferences/models/<run>/` and are computed once, see
    `stored`. Raises FileNotFoundError for a run that is not trained, ValueError for views that do
    not suit its photos. Beside each file stands what it was made of, see `lineage.note_prediction`.
    """
    parts = ("test", "test_val") if config.checked("split", split, Part) == "both" else (split,)
    settings = run_settings(output_dir, run)
    tta.check_fits(store.Frame.of_run(settings))
    splits = trainable.read_splits(output_dir, settings)
    labeled = open_trainable(data_dir, output_dir, settings)
    found = checkpoints(output_dir, run, labeled, splits)
    home = lineage.folder_of(output_dir, run)
    made_of = lineage.answers(home, lineage.trained_folds(home))  # before: what is trained meanwhile must not count
    folder = Path(output_dir) / "inferences" / "models" / run
    tables = {}
    if "test" in parts:
        tables["test"] = predict_evaluated(data_dir, output_dir, found, labeled.frame, tta, folder)
    if "test_val" in parts:
        tables["test_val"] = predict_held_out(next(iter(splits.values())), found, labeled, tta, folder)
    for name, table in tables.items():
        path = files.write_csv(table, Path(output_dir) / "inferences" / f"{run}.{name}.csv")
        lineage.note_prediction(path, made_of)  # last: a kill in between leaves an older note, which refuses the file
    return tables


def predict_evaluated(
    data_dir: Path, output_dir: Path, found: dict[int, Path], frame: store.Frame, tta: views.Tta, folder: Path
) -> pd.DataFrame:
    """The table of the evaluation photos, `ImageID, p00 … p17`, from checkpoints by fold."""
    evaluated = photos.evaluated(output_dir)
    source = devices.DevicePhotos(open_photos(data_dir, output_dir, evaluated, frame), devices.pick_device())
    probabilities = mean_over_folds(found, source, list(evaluated["path"]), tta, folder, "test")
    keys = evaluated[["path"]].rename(columns={"path": "ImageID"})
    return with_every_id(probability_table(keys, probabilities), layout.eval_ids(data_dir))


def predict_held_out(
    split: pd.DataFrame, found: dict[int, Path], labeled: store.Store, tta: views.Tta, folder: Path
) -> pd.DataFrame:
    """The table of a split's held-out photos, `path, label, p00 … p17`, from checkpoints by fold."""
    held_out = split.loc[split["split"] == folds.TEST_VAL, ["path", "label"]]
    source = devices.DevicePhotos(labeled, devices.pick_device(), resident=False)
    return probability_table(held_out, mean_over_folds(found, source, list(held_out["path"]), tta, folder, "test_val"))


def as_photos(predicted: dict[str, pd.DataFrame], output_dir: Path) -> pd.DataFrame:
    """Columns `path, split, p00 … p17` of predicted photos that can be shown: test if it is there, else test_val."""
    if "test" not in predicted:
        return predicted["test_val"].drop(columns="label").assign(split="train")
    table = predicted["test"].rename(columns={"ImageID": "path"}).assign(split="eval")
    return table[table["path"].isin(photos.evaluated(output_dir)["path"])]  # the others could not be read


def with_every_id(test: pd.DataFrame, ids: list[str]) -> pd.DataFrame:
    """`test` in the order of `ids`; an id it lacks gets the mean of all rows."""
    columns = list(labels.PROBABILITY_COLUMNS)
    whole = test.set_index("ImageID").reindex(ids)
    return whole.fillna(test[columns].mean()).rename_axis("ImageID").reset_index()


def chosen_runs(output_dir: Path, run: str) -> list[str]:
    """`run` alone, or every finished run if it is empty. Raises FileNotFoundError if there is none."""
    found = [run] if run else trained_runs(output_dir)
    if not found:
        raise FileNotFoundError(f"{files.shown_path(output_dir)}/runs holds no finished run: run 03_one_model first")
    return found


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
