"""Probabilities of photos from trained networks: views, folds, and the tables they are kept in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from mask_lib import clean_labels, config, devices, external, files, folds, labels, layout, models, photos, store

PREDICT_BATCH = 64  # photos; small enough for any network on any GPU in use
ZOOM = 0.92  # share of the photo that the zoomed-in views keep
View = Callable[[torch.Tensor], torch.Tensor]


def zoomed(batch: torch.Tensor, share: float, right: float = 0.0, down: float = 0.0) -> torch.Tensor:
    """(B, C, H, W) float32: the middle `share` of each photo, moved by shares of its size, at full size."""
    matrix = batch.new_tensor([[share, 0, 2 * right], [0, share, 2 * down]]).expand(len(batch), 2, 3)
    grid = functional.affine_grid(matrix, list(batch.shape), align_corners=False)
    return functional.grid_sample(batch, grid, padding_mode="reflection", align_corners=False)


def views_of(num_tta: int) -> list[View]:
    """1, 4 or 8 test-time views that suit faces: as it is and zoomed in, each also mirrored, then moved.

    Raises ValueError for another number.
    """
    if num_tta not in (1, 4, 8):
        raise ValueError(f"num_tta = {num_tta}: it must be 1, 4 or 8")
    shift = (1 - ZOOM) / 2
    plain: list[View] = [
        lambda batch: batch,
        lambda batch: zoomed(batch, ZOOM),
        lambda batch: zoomed(batch, ZOOM, right=shift),
        lambda batch: zoomed(batch, ZOOM, down=shift),
    ]
    if num_tta == 1:
        return plain[:1]
    half = plain[: num_tta // 2]
    return half + [lambda batch, view=view: view(batch).flip(3) for view in half]


@torch.inference_mode()
def predict(
    network: nn.Module,
    source: devices.DevicePhotos,
    rows: np.ndarray,
    preprocessing: models.Preprocessing,
    dtype: torch.dtype = torch.float32,
    num_tta: int = 1,
) -> np.ndarray:
    """(N, 18) float32 probabilities of the store's `rows`: the mean over the views of each softmax."""
    network.eval()
    views, found = views_of(num_tta), [np.empty((0, labels.CLASS_COUNT), dtype=np.float32)]
    for block in store.blocks(len(rows), PREDICT_BATCH):
        batch = source.batch(rows[block]).float() / 255
        with devices.autocast(source.device, dtype):
            outputs = [network(preprocessing.prepared(view(batch))).float().softmax(dim=1) for view in views]
        found.append(torch.stack(outputs).mean(dim=0).cpu().numpy())
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

    labeled: the store of the labeled photos. choice: instead of the one that the run's settings name. Raises
    FileNotFoundError that says what to run first for a run that is not finished, ValueError that names a
    fold whose checkpoint belongs to something else.
    """
    folder = Path(output_dir) / "runs" / run
    settings = run_settings(output_dir, run)
    found = {}
    for fold in settings.folds or tuple(splits):
        path = folder / f"fold{fold}" / "checkpoint" / f"{choice or settings.checkpoint_choice}.safetensors"
        manifest = models.read_manifest(path)
        expected = folds.fingerprint(labeled.content, splits[fold], settings.weights) if fold in splits else None
        if manifest.get("data") != expected or config.changed(manifest["run"], settings.settings()):
            notebook = "04_three_model" if settings.head == "three" else "03_one_model"
            raise ValueError(
                f"{files.shown_path(path)} was trained on other photos, labels or folds, or with other settings, than "
                f"those of today: run {notebook} again with run: {run} and when_changed: restart"
            )
        found[fold] = path
    return found


def run_settings(output_dir: Path, run: str) -> config.Run:
    """The settings of a finished run. Raises FileNotFoundError that says what to run first."""
    folder = Path(output_dir) / "runs" / run
    if not (folder / "scores.json").exists():
        raise FileNotFoundError(
            f"{files.shown_path(folder)} holds no finished run: run 03_one_model with run: {run} to its end first"
        )
    saved = files.read_json(folder / "config.json")
    return config.Run.from_settings({name: value for name, value in saved.items() if name != "device"})


def open_photos(data_dir: Path, output_dir: Path, table: pd.DataFrame, frame: store.Frame) -> store.Store:
    """The store of a photo table's rows (columns path, split), all of them train or all eval photos."""
    images = Path(data_dir) / table["split"].iloc[0] / "images"
    return store.open_store(Path(output_dir) / "store", images, list(table["path"]), frame)


def open_trainable(data_dir: Path, output_dir: Path, run: config.Run) -> store.Store:
    """The store of every photo that a run may train on, external ones too, as its settings ask."""
    table = external.with_external(photos.labeled(output_dir), output_dir)
    return open_photos(data_dir, output_dir, table, store.Frame.of_run(run))


def load(path: Path, device: torch.device) -> tuple[nn.Module, models.Preprocessing, torch.dtype]:
    """A checkpoint's network on a device, how it wants its photos, and the precision it was trained in."""
    state, manifest = models.read_checkpoint(path)
    preprocessing = models.Preprocessing.from_manifest(manifest)
    run = config.Run.from_settings(manifest["run"])
    network = models.of_run(run)
    network.load_state_dict(state)
    network.to(device, memory_format=torch.channels_last).eval()
    return network, preprocessing, devices.dtype_for(run.precision, device)


def mean_over_folds(found: dict[int, Path], source: devices.DevicePhotos, rows: np.ndarray, num_tta: int) -> np.ndarray:
    """(N, 18) probabilities of a store's `rows`, averaged over the folds' checkpoints.

    Normalisation and precision come from each checkpoint's manifest: they are always those of its training.
    """
    total = np.zeros((len(rows), labels.CLASS_COUNT))
    for path in files.progress(found.values(), what=f"predict {len(rows)} photos", unit="fold"):
        network, preprocessing, dtype = load(path, source.device)
        total += predict(network, source, rows, preprocessing, dtype, num_tta)
    return total / len(found)


def trained_runs(output_dir: Path) -> list[str]:
    """Names of the runs that are finished, which is to say have their `scores.json`."""
    return sorted(path.parent.name for path in (Path(output_dir) / "runs").glob("*/scores.json"))


def predict_run(data_dir: Path, output_dir: Path, run: str, num_tta: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write `inferences/<run>.test.csv` and `<run>.test_val.csv` and return both tables.

    test: `ImageID, p00 … p17`, every row of info.csv in its order; a photo that could not be read
    gets the mean of the others, since a submission must answer it all the same. test_val: `path,
    label, p00 … p17`. Raises FileNotFoundError for a run that is not trained.
    """
    settings = run_settings(output_dir, run)
    splits = clean_labels.read_splits(output_dir, settings.label_source)
    labeled = open_trainable(data_dir, output_dir, settings)
    found = checkpoints(output_dir, run, labeled, splits)
    device = devices.pick_device()
    split = next(iter(splits.values()))
    held_out = split[split["split"] == folds.TEST_VAL]
    rows = labeled.rows(list(held_out["path"]))
    of_held_out = mean_over_folds(found, devices.DevicePhotos(labeled, device, resident=False), rows, num_tta)
    test_val = probability_table(held_out[["path", "label"]], of_held_out)
    evaluated = photos.evaluated(output_dir)
    source = devices.DevicePhotos(open_photos(data_dir, output_dir, evaluated, labeled.frame), device)
    of_evaluated = mean_over_folds(found, source, np.arange(len(evaluated)), num_tta)
    test = probability_table(evaluated[["path"]].rename(columns={"path": "ImageID"}), of_evaluated)
    test = with_every_id(test, layout.eval_ids(data_dir))
    for name, one in (("test", test), ("test_val", test_val)):
        files.write_csv(one, Path(output_dir) / "inferences" / f"{run}.{name}.csv")
    return test, test_val


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
