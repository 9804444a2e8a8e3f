"""Probabilities of photos from trained networks: folds, parts of the data, and the tables they are kept in."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from mask_lib.base import checks, files, labels, results, scores
from mask_lib.base.config import FROZEN, Run
from mask_lib.data import archives, clean_labels, layout, photos, store
from mask_lib.data.splits import TEST_VAL
from mask_lib.models import devices, predict
from mask_lib.models.checkpoint import read_checkpoint, read_manifest
from mask_lib.models.predict import ONE_VIEW, Tta
from mask_lib.training import comparison, dataset, run_folder, runs

Part = Literal["test", "test_val", "both"]


def is_alone(output_dir: Path) -> bool:
    """Whether an output folder holds packed results without training photos: 00_prepare_data did not run there."""
    return bool(results.read(output_dir)) and not any((Path(output_dir) / "tables").glob("split.stratified.*.csv"))


def find_data(data_dir: str, output_dir: Path, is_listed: bool = False) -> Path:
    """`photos.find_data`, of which results alone need eval/. If `is_listed`, their digests are checked, and
    tables/photos.csv and problems.csv are made from it, as 00_prepare_data would. Raises as `results.read` too.
    """
    results.read(output_dir, with_digests=is_listed)
    tables, alone = Path(output_dir) / "tables", is_alone(output_dir)
    data = photos.find_data(data_dir, tables.with_name("unpacked"), parts=["eval"] if alone else archives.PARTS)
    if alone and is_listed:
        listed, problems = photos.scan_photos(data, listed_in=tables / "problems.csv", parts=["eval"])
        files.write_csv(problems, tables / "problems.csv")
        files.write_csv(listed, tables / "photos.csv")
    return data


def todays_split(output_dir: Path) -> pd.DataFrame | None:
    """The cleaned labels of a fold, `path, person, label, split`; None if `is_alone`."""
    return None if is_alone(output_dir) else next(iter(clean_labels.read_clean_splits(output_dir).values()))


def known_classes(output_dir: Path) -> np.ndarray:
    """(N,) int64 classes of the training photos, in any order."""
    if packed := results.read(output_dir):
        return np.repeat(np.arange(labels.class_count()), packed["class_counts"])
    return photos.read_labeled(output_dir)["label"].to_numpy()


def views_of(output_dir: Path, run: str, tta: Tta) -> Tta:
    """The views by which a packed run was weighed, with the batch of `tta`; for any other run `tta`."""
    packed = results.member(output_dir, run)
    return dataclasses.replace(tta, **packed["views"]) if packed else tta


def mean_over_folds(
    checkpoints: Mapping[int, Path], source: devices.DevicePhotos, paths: list[str], tta: Tta, folder: Path, part: str
) -> np.ndarray:
    """(N, C) float64 probabilities of `paths`, the mean of the folds' checkpoints.

    Each fold's own stay in `folder`, `<fold>.<part>.<digest>.csv`, columns `path, p00 …`, and are read if they were
    computed before; those with another digest are removed.
    """
    run, columns = read_manifest(next(iter(checkpoints.values())))["run"], labels.probability_columns()
    print(devices.summary(source, run["precision"]))
    made_of = [source.store.content, paths, tta.plain(), str(devices.dtype_for(run["precision"], source.device))]
    digests = {fold: files.digest([files.file_digest(path), *made_of]) for fold, path in checkpoints.items()}
    stored = {path: folder / f"fold{fold}.{part}.{digests[fold]}.csv" for fold, path in checkpoints.items()}
    # Frozen networks have one backbone, which photos then pass once.
    jobs = [[*stored]] if run.get("head") == FROZEN else [[checkpoint] for checkpoint in stored]
    for job in files.progress(jobs, what=f"predict {len(paths)} photos", unit="pass"):
        if not (missing := [checkpoint for checkpoint in job if not stored[checkpoint].exists()]):
            continue
        loaded = [predict.load_network(*read_checkpoint(checkpoint), source.device) for checkpoint in missing]
        network = loaded[0].network if len(loaded) == 1 else [one.network for one in loaded]
        found = dataclasses.replace(loaded[0], network=network).predict(source, source.store.rows(paths), tta)
        found = found.reshape(len(paths), len(loaded), len(columns))
        for place, path in enumerate(stored[checkpoint] for checkpoint in missing):
            files.write_csv(predict.probability_table(pd.DataFrame({"path": paths}), found[:, place]), path)
            for stale in set(folder.glob(f"{path.with_suffix('').stem}.*.csv")) - {path}:
                stale.unlink()
    kinds = dict.fromkeys(columns, "float64")
    return np.mean([files.read_csv(path, kinds)[columns] for path in stored.values()], axis=0)


def predict_run(
    data_dir: Path, output_dir: Path, run: str, tta: Tta = ONE_VIEW, split: Part = "both"
) -> dict[str, pd.DataFrame]:
    """Write `inferences/<run>.test.csv` and `<run>.test_val.csv`, or what `split` says, and return them by name.

    test: `ImageID, p00 …`, as info.csv; a photo that could not be read gets the mean of the others. test_val: `path,
    label, p00 …`, of a packed run empty where those photos are not here. looks: of a run with `unseen_looks`. Each
    fold's own lie in `inferences/models/<run>/`; beside each file stands, as .json, what tells that it is stale. Raises
    FileNotFoundError for an untrained run, ValueError for views that do not suit it, and as `runs.checkpoints` does.
    """
    parts = ("test", "test_val") if checks.checked("split", split, Part) == "both" else (split,)
    settings, tta = run_folder.run_settings(output_dir, run), views_of(output_dir, run, tta)
    frame = store.Frame.of_run(settings)
    tta.check_fits(frame)
    checkpoints, labeled, held_out = trained_networks(data_dir, output_dir, settings)
    # Taken before: what is trained meanwhile must not count. Written last: after a kill an older note refuses the file.
    note = {"out_of_fold": run_folder.digests(run_folder.folder_of(output_dir, run)), "views": tta.plain()}
    home, tables = Path(output_dir) / "inferences", {}
    folder = home / "models" / run
    if "test" in parts:
        tables["test"] = predict_evaluated(data_dir, output_dir, checkpoints, frame, tta, folder)
    if "test_val" in parts:
        tables["test_val"] = predict_labeled(held_out, checkpoints, labeled, tta, folder, "test_val")
    if found := run_folder.looks_in_use(run_folder.folder_of(output_dir, run)):
        asked = scores.read_probabilities(found[1], "path")[["path", "label"]]
        tables["looks"] = predict_labeled(asked, {0: found[0]}, labeled, tta, folder, "looks")
    for name, table in tables.items():
        files.write_csv(table, home / f"{run}.{name}.csv")
        files.write_json(note, home / f"{run}.{name}.json")
    return tables


def trained_networks(
    data_dir: Path, output_dir: Path, settings: Run
) -> tuple[dict[int, Path], store.Store | None, pd.DataFrame]:
    """The checkpoints of a run by fold, its labeled photos, and the rows `path, label` of test_val.

    Of a packed run without them, or beside others than its own, no photos and no rows, and that is said.
    """
    try:
        splits = dataset.read_training_splits(output_dir, settings)
        labeled = dataset.open_trainable(data_dir, output_dir, settings)
        checkpoints = runs.checkpoints(output_dir, settings.run, labeled, splits)
    except (OSError, ValueError) as error:
        if not results.member(output_dir, settings.run):
            raise
        print(f"{settings.run} came packed, and test_val is left out, for its photos and labels are not here: {error}")
        used = run_folder.in_use(run_folder.folder_of(output_dir, settings.run))
        return {fold: path for fold, (path, _) in used.items()}, None, pd.DataFrame(columns=["path", "label"])
    split = next(iter(splits.values()))
    return checkpoints, labeled, split.loc[split["split"] == TEST_VAL, ["path", "label"]]


def predict_evaluated(
    data_dir: Path, output_dir: Path, checkpoints: Mapping[int, Path], frame: store.Frame, tta: Tta, folder: Path
) -> pd.DataFrame:
    """`predict_run`'s table of the evaluation photos, from checkpoints by fold."""
    evaluated = photos.read_evaluated(output_dir)
    source = devices.DevicePhotos(dataset.open_photos(data_dir, output_dir, evaluated, frame), devices.pick_device())
    probabilities = mean_over_folds(checkpoints, source, list(evaluated["path"]), tta, folder, "test")
    table = pd.DataFrame(probabilities, evaluated["path"], labels.probability_columns())
    return table.reindex(layout.eval_ids(data_dir)).fillna(table.mean()).rename_axis("ImageID").reset_index()


def predict_labeled(
    asked: pd.DataFrame, checkpoints: Mapping[int, Path], labeled: store.Store | None, tta: Tta, folder: Path, part: str
) -> pd.DataFrame:
    """The table of labeled photos (path, label), `path, label, p00 …`, from checkpoints by fold; of none without."""
    if labeled is None:
        return predict.probability_table(asked, np.empty((0, labels.class_count())))
    source = devices.DevicePhotos(labeled, devices.pick_device(), resident=False)
    probabilities = mean_over_folds(checkpoints, source, list(asked["path"]), tta, folder, part)
    return predict.probability_table(asked, probabilities)


def unseen_looks(output_dir: Path, run: str) -> pd.DataFrame | None:
    """`run_folder.unseen_looks` of a finished run by the views that it last predicted with; ValueError if stale."""
    folder, predicted = run_folder.folder_of(output_dir, run), Path(output_dir) / "inferences" / f"{run}.looks.csv"
    if predicted.exists():
        run_folder.refuse_stale_prediction(predicted)
    return run_folder.unseen_looks(folder, predicted if predicted.exists() else None)


def looks_by_views(output_dir: Path, run_names: Sequence[str], num_tta: int) -> pd.DataFrame:
    """`comparison.look_table` of runs, each by one view and by the `num_tta` that it predicted with."""
    tables = {}
    for run in run_names:
        by_one = run_folder.unseen_looks(run_folder.folder_of(output_dir, run))
        found = {} if by_one is None else {1: by_one, num_tta: unseen_looks(output_dir, run)}
        tables |= {f"{run}, {views} view{'s' * (views > 1)}": table for views, table in found.items()}
    return comparison.look_table(tables)


def as_photos(predicted: dict[str, pd.DataFrame], output_dir: Path) -> pd.DataFrame:
    """Columns `path, split, p00 …` of predicted photos that can be shown: test if it is there, else test_val."""
    if "test" not in predicted:
        return predicted["test_val"].drop(columns="label").assign(split="train")
    table = predicted["test"].rename(columns={"ImageID": "path"}).assign(split="eval")
    return table[table["path"].isin(photos.read_evaluated(output_dir)["path"])]  # the others could not be read


def blind_summary(missing: list[str]) -> str:
    """What the answers to these ImageIDs, which `photos.without_photo` gives, are worth; "" if there are none."""
    if not missing:
        return ""
    return (
        f"Without a photo that could be read are {len(missing):,} answers, such as `{missing[0]}`: they are the mean "
        "of the others, and nothing is promised for them. `tables/problems.csv` says why."
    )


def surest(table: pd.DataFrame) -> pd.DataFrame:
    """Of each class that is predicted at all the photo with the highest probability, in the classes' order."""
    probabilities = table[labels.probability_columns()].to_numpy()
    sure = pd.Series(probabilities.max(axis=1), table.index)
    return table.loc[sure.groupby(probabilities.argmax(axis=1)).idxmax()]


def most_doubtful(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The `count` photos whose likeliest class has the lowest probability."""
    return table.loc[table[labels.probability_columns()].max(axis=1).nsmallest(count).index]
