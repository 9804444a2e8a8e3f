"""A whole run: all its folds with one network, its scores, and its checkpoints held against today's data."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mask_lib.base import config, files, interrupts, labels, scores
from mask_lib.data import store
from mask_lib.data.splits import TRAIN
from mask_lib.models import build, checkpoint, devices, distributed, features, looks
from mask_lib.training import dataset, loop, run_folder, step, tracking
from mask_lib.training.dataset import Splits
from mask_lib.training.run_folder import SCORES, FinishedRun

UNTRACKED = tracking.Tracking(tracking_mode="disabled")


@interrupts.released_on_error
def train_run(run: config.Run, splits: Splits, photos: store.Store, output_dir: Path, **options: Any) -> FinishedRun:
    """Train every fold asked for, from where it was left; finished folds are read. Scores come by `write_scores`.

    options: as of `train_folds`, which says what is raised too; ValueError further for a fold without a split.
    """
    device = train_folds(chosen_folds(run, splits), run, splits, photos, output_dir, **options)
    return close_run(run, run_folder.folder_of(output_dir, run.run), splits, photos, device)


def train_folds(
    folds: Sequence[int],
    run: config.Run,
    splits: Splits,
    photos: store.Store,
    output_dir: Path,
    tracked: tracking.Tracking = UNTRACKED,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
    **options: Any,
) -> torch.device:
    """Train these folds of a run one after another, each with a record of its own; returns the device.

    options: those of `loop.train_fold`. Raises as it, and ValueError for photos of other channels and a soup.
    """
    folder = run_folder.folder_of(output_dir, run.run)
    if run_folder.soup_members(folder):
        raise ValueError(f"run = {run.run!r}: {files.shown_path(folder)} holds a soup; give the run another name")
    if photos.frame.channels != run.image_channels:
        raise ValueError(f"image_channels = {run.image_channels}: the store's photos have {photos.frame.channels}")
    source = devices.DevicePhotos(photos, devices.pick_device())
    print(devices.summary(source, run.precision))
    network = build.of_run(run).to(source.device, memory_format=torch.channels_last)
    forward = torch.compile(network) if run.compile_network else network  # once: each fold loads its first weights
    tracked = UNTRACKED if distributed.rank() else tracked
    device = devices.device_name(source.device)
    counts = {fold: int((splits[fold]["split"] == TRAIN).sum()) for fold in folds}
    steps = {fold: run.epochs * dataset.step_count(count, run.photos_a_step()) for fold, count in counts.items()}
    if run.head == config.FROZEN:  # all that takes long, and it can be interrupted
        backbone = {"architecture": run.architecture, "weights": run.weights}
        options["stages"] = features.stage_features(photos, output_dir / "features", **backbone)
    train = functools.partial(loop.train_fold, run, source=source, network=network, forward=forward, **options)
    with files.progress(total=sum(steps.values()), what=f"train {run.run}", unit="step") as bar:
        for fold in folds:
            before = bar.n  # steps of the folds before
            calls = {"on_step": lambda done, before=before: bar.update(before + done - bar.n)}
            with tracking.of_fold(tracked, run, fold, folder, device, len(splits)) as record:
                calls["on_epoch"] = lambda row, both=(on_epoch, record.log_epoch): [call(row) for call in both]
                table = train(fold, splits[fold], folder=folder / f"fold{fold}", **calls)
                record.finish({"out_of_fold": scores.summarise(*scores.from_probabilities(table))})
            bar.update(before + steps[fold] - bar.n)
    if run.unseen_looks and min(splits) in folds:
        train_without_looks(train, run, splits, output_dir)
    return source.device


def train_without_looks(train: Callable[..., pd.DataFrame], run: config.Run, splits: Splits, output_dir: Path) -> None:
    """`train` the first fold again, in the folder `looks`, without those that `models.looks` holds out, if any, and
    note which val photos have those. Raises as `looks.read_held_out` and `looks.without`.
    """
    folder, held_out = run_folder.folder_of(output_dir, run.run) / run_folder.LOOKS, looks.read_held_out(output_dir)
    if not held_out:
        return print("unseen_looks: 00_prepare_data found no look that can be held out")
    fold = min(splits)
    split = looks.without(splits[fold], held_out)
    with files.progress(total=run.epochs, what=f"train {run.run} without some looks", unit="epoch") as bar:
        table = train(fold, split, folder=folder, on_epoch=lambda row: bar.update())
    files.write_json({path: held_out[path] for path in table["path"] if path in held_out}, folder / run_folder.UNSEEN)


def close_run(run: config.Run, folder: Path, splits: Splits, photos: store.Store, device: torch.device) -> FinishedRun:
    """Write config.json and data.json of a run whose folds are trained on `device`, unless their checkpoints tell
    of another one, and return its tables as training left them.
    """
    chosen = chosen_folds(run, splits)
    name = " and ".join(_noted(folder, chosen, "device")) or devices.device_name(device)
    files.write_json({**run.settings(), "device": name}, folder / "config.json")
    if photos.root is not None:  # the folder of the train images
        data_dir = photos.root.parents[len(Path(labels.task().photos.train).parts) - 1]
        files.write_json({"data_dir": files.shown_path(data_dir)}, folder / "data.json")
    tables = {fold: folder / f"fold{fold}" / "oof.csv" for fold in chosen}
    table = run_folder.joined_tables(tables, splits[chosen[0]].set_index("path")["person"])
    history = run_folder.read_histories(folder, chosen)
    return FinishedRun(run.run, folder, run, name, len(splits), {}, history, table, run_folder.data_of(folder))


def _noted(folder: Path, folds: Sequence[int], name: str) -> list[Any]:
    """What the folds' last checkpoints note of their training under a name, each value once; nothing of a soup's."""
    paths = [folder / f"fold{fold}" / "checkpoint" / "last.safetensors" for fold in folds]
    noted = [checkpoint.read_manifest(path)["place"].get(name) for path in paths if path.exists()]
    return list(dict.fromkeys(filter(None, noted)))


def chosen_folds(run: config.Run, splits: Splits) -> tuple[int, ...]:
    """The folds a run asks for, by default all. Raises ValueError for one that was not prepared."""
    if set(run.folds) - set(splits):
        raise ValueError(f"folds = {list(run.folds)}: 00_prepare_data made only {sorted(splits)}")
    return run.folds or tuple(splits)


def intervals(out_of_fold: pd.DataFrame) -> pd.DataFrame:
    """Scores of a table with `person, label, p00 …`: index metric, columns value, low, high."""
    return scores.bootstrap(*scores.from_probabilities(out_of_fold), out_of_fold["person"].to_numpy())


def table_scores(out_of_fold: pd.DataFrame) -> dict[str, Any]:
    """The `out_of_fold` (`intervals`), `folds` (metrics of each), `mean` and `deviation` of scores.json, of a table."""
    rows = {fold: scores.summarise(*scores.from_probabilities(one)) for fold, one in out_of_fold.groupby("fold")}
    by_fold = pd.DataFrame.from_dict(rows, orient="index").rename_axis("fold")
    return {
        "out_of_fold": intervals(out_of_fold).to_dict("index"),
        "folds": by_fold.reset_index().to_dict("records"),
        "mean": by_fold.mean().to_dict(),
        "deviation": by_fold.std(ddof=1).fillna(0).to_dict(),
    }


def write_scores(result: FinishedRun, baseline: pd.DataFrame | None = None) -> dict[str, Any]:
    """Write the run's `scores.json`, last of all its files; with a table from `baseline` also its scores, and by a
    paired bootstrap `over_baseline`, how much better the run is. Returns what the file holds.
    """
    history = result.history
    peaks = _noted(result.folder, [int(fold) for fold in history["fold"].unique()], "peak_memory_bytes")
    found = {
        **table_scores(result.out_of_fold),
        "training_seconds": float(history["seconds"].sum()),
        "photos_per_second": float(history["photos_per_second"].median()),
        "peak_memory_bytes": max(peaks, default=None),
    }
    if baseline is not None:
        over = scores.compare(baseline.set_index("path").loc[result.out_of_fold["path"]], result.out_of_fold)
        found |= {"baseline": intervals(baseline).to_dict("index"), "over_baseline": over.to_dict("index")}
    files.write_json(found, result.folder / SCORES)
    return found


def baseline(photos: store.Store, result: FinishedRun, splits: Splits, folder: Path) -> pd.DataFrame:
    """Of a logistic regression on frozen features, out of fold: columns `path, label, p00 …, person`. On the run's own
    folds, from photos with a label of their own alone, so that it is the same bar for every run.
    """
    folds = map(int, result.history["fold"].unique())
    trained = {fold: splits[fold][dataset.is_real(splits[fold])] for fold in folds}
    table = features.logistic_out_of_fold(features.backbone_features(photos, folder), photos, trained)
    return table.assign(person=table["path"].map(result.out_of_fold.set_index("path")["person"]))


def named_intervals(results: Sequence[FinishedRun], baseline: pd.DataFrame | None = None) -> dict[str, pd.DataFrame]:
    """The scores of runs and of the baseline, if there is one, by name, for a plot side by side."""
    beside = {} if baseline is None else {"logistic regression on frozen features": intervals(baseline)}
    return {one.name: intervals(one.out_of_fold) for one in results} | beside


def verdict(found: Mapping[str, Any]) -> str:
    """One sentence on whether the run beats its baseline, from what `write_scores` returned."""
    if "baseline" not in found:
        return "It was compared with nothing simpler."
    theirs, over = scores.Score(**found["baseline"]["macro_f1"]), found["over_baseline"]["macro_f1"]
    lost = "It does worse than" if over["high"] < 0 else "It cannot be told apart from"
    said = "It beats" if over["low"] > 0 else lost
    difference = f"{over['difference']:+.3f} ({over['low']:+.3f} to {over['high']:+.3f})"
    return f"{said} the logistic regression on frozen features, {theirs}: the difference is {difference}."


def summary(result: FinishedRun, found: Mapping[str, Any]) -> str:
    """How well a run does, in a few sentences, from what `write_scores` returned."""
    metrics, spread = found["out_of_fold"], f"{found['mean']['macro_f1']:.3f} ± {found['deviation']['macro_f1']:.3f}"
    right = ", ".join(f"{name} {metrics[name]['value']:.1%}" for name in labels.names())
    return (
        f"On people it has never seen **{result.name}** reaches a macro F1 of "
        f"**{scores.Score(**metrics['macro_f1'])}** (95% interval by person), {spread} over its folds. Right are: "
        f"{right}, all of it {metrics['accuracy']['value']:.1%}. {verdict(found)}"
    )


def decodings(*results: FinishedRun) -> pd.DataFrame:
    """Scores by run and decoding, joint: the likeliest class, or apart: each attribute's likeliest value. Columns of
    `scores.summarise`, and `differ`: photos on which the two disagree.
    """
    rows = {}
    for result in results:
        truth, joint = result.truth_and_prediction()
        apart = labels.combine(labels.marginals(result.out_of_fold[labels.probability_columns()].to_numpy()))
        for decoding, predicted in (("joint", joint), ("apart", apart)):
            differ = int((joint != predicted).sum())
            rows[result.name, decoding] = {**scores.summarise(truth, predicted), "differ": differ}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["run", "decoding"])


def checkpoints(
    output_dir: Path, run: str, labeled: store.Store, splits: Splits, choice: str | None = None
) -> dict[int, Path]:
    """The checkpoint of each fold of a finished run: the one in use, or of the name `choice`.

    Raises FileNotFoundError that says what to run first for a run that is not finished or whose average was not made
    yet, ValueError for other photos, labels or split than today's, and as `run_folder.refuse_stale_soup` does.
    """
    settings, folder = run_folder.run_settings(output_dir, run), run_folder.folder_of(output_dir, run)
    run_folder.refuse_stale_soup(folder)
    if choice is None and settings.checkpoint_choice == "swa" and run_folder.read_averaging(folder) is None:
        first = f"run 05_average_weights with run: {run} first"
        raise FileNotFoundError(f"checkpoint_choice of {run} is swa, an average that was not made yet: {first}")
    used = {fold: path for fold, (path, _) in run_folder.in_use(folder).items()}
    found = {fold: path.with_name(f"{choice}.safetensors") if choice else path for fold, path in used.items()}
    for fold, path in found.items():
        require_today(path, settings, labeled, splits.get(fold))
    return found


def require_today(path: Path, settings: config.Run, labeled: store.Store, split: pd.DataFrame | None) -> None:
    """Raise ValueError unless a checkpoint was trained with a run's settings, on today's photos, labels and split. What
    is in the file of its policy counts, and if its training read ages in years those of today do.
    """
    today = {"data": None} if split is None else step.trained_on(settings, labeled.content, split)
    if reasons := checkpoint.changes(checkpoint.read_manifest(path), {"run": settings.settings(), **today}):
        notebook = "04_three_model" if settings.by_attribute else "03_one_model"
        anew = f"run {notebook} again with run: {settings.run} and when_changed: restart"
        if members := run_folder.soup_members(path.parents[2]):
            anew = f"train {', '.join(members)} again, of which it is a soup, then make the soup again"
        other = "was trained on other photos, labels or folds, or with other settings, than those of today"
        raise ValueError(f"{files.shown_path(path)} {other} ({'; '.join(reasons)}): {anew}")
