"""A whole run: all its folds with one network, its settings and its scores in one folder."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mask_lib.augment.policy import named_policy
from mask_lib.base import config, files, labels, scores
from mask_lib.data import store
from mask_lib.data.splits import TRAIN, fingerprint
from mask_lib.models import build, checkpoint, devices, features
from mask_lib.training import dataset, loop, run_folder, targets
from mask_lib.training.run_folder import folder_of


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What a run left: tables joined over its folds."""

    folder: Path
    history: pd.DataFrame  # fold, epoch, train_loss, val_loss, val_macro_f1, …
    out_of_fold: pd.DataFrame  # path, person, label, p00 … p17

    def truth_and_prediction(self) -> tuple[np.ndarray, np.ndarray]:
        """(N,) int64 labels and the likeliest class of each out-of-fold photo."""
        return scores.from_probabilities(self.out_of_fold)


def train_run(
    run: config.Run,
    splits: dict[int, pd.DataFrame],
    photos: store.Store,
    output_dir: Path,
    *,
    when_changed: config.WhenChanged = "refuse",
    checkpoint_seconds: float = 300,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
) -> RunResult:
    """Train every fold asked for, from where it was left; finished folds are read, not trained.

    The network is built, and compiled if asked, once: each fold loads its own first weights.
    Raises ValueError for a fold without a split, for photos of other channels than the run's and for the
    name of a soup, ChangedSettingsError as `loop.train_fold` does.
    """
    chosen, folder = chosen_folds(run, splits), folder_of(output_dir, run.run)
    if run_folder.soup_members(folder):
        raise ValueError(f"run = {run.run!r}: {files.shown_path(folder)} holds a soup; give the run another name")
    if photos.frame.channels != run.image_channels:
        raise ValueError(f"image_channels = {run.image_channels}: the store's photos have {photos.frame.channels}")
    source = devices.DevicePhotos(photos, devices.pick_device())
    network = build.of_run(run)
    network.to(source.device, memory_format=torch.channels_last)
    forward = torch.compile(network) if run.compile_network else network
    steps = {fold: step_count(run, splits[fold]) for fold in chosen}
    with files.progress(total=sum(steps.values()), what=f"train {run.run}", unit="step") as bar:
        for fold in chosen:
            before = bar.n  # steps of the folds before
            loop.train_fold(
                run,
                fold,
                splits[fold],
                source,
                folder / f"fold{fold}",
                network,
                forward,
                when_changed=when_changed,
                checkpoint_seconds=checkpoint_seconds,
                on_step=lambda done, before=before: bar.update(before + done - bar.n),
                on_epoch=on_epoch,
            )
            bar.update(before + steps[fold] - bar.n)
    files.write_json({**run.settings(), "device": trained_on(folder, chosen, source.device)}, folder / "config.json")
    run_folder.note_data(folder, photos.root)
    return read_result(folder, splits, chosen)


def trained_on(folder: Path, chosen: Sequence[int], device: torch.device) -> str:
    """The devices that trained a run's folds, whoever opens them now; `device` where nothing tells of them."""
    names = {place["device"]: None for place in _places(folder, chosen) if place.get("device")}
    if names:
        return " and ".join(names)
    saved = files.read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    return saved.get("device") or devices.device_name(device)


def peak_memory_bytes(folder: Path, chosen: Sequence[int]) -> int | None:
    """The most memory that training any of a run's folds took; None where nothing tells of it.

    Runs of before it was noted beside the weights keep what their scores.json says.
    """
    found = [place["peak_memory_bytes"] for place in _places(folder, chosen) if place.get("peak_memory_bytes")]
    saved = files.read_json(folder / "scores.json") if (folder / "scores.json").exists() else {}
    return max(found) if found else saved.get("peak_memory_bytes")


def _places(folder: Path, chosen: Sequence[int]) -> list[dict[str, Any]]:
    """What the last checkpoint of each fold says of its training."""
    paths = [folder / f"fold{fold}" / "checkpoint" / "last.safetensors" for fold in chosen]
    return [checkpoint.read_manifest(path)["place"] for path in paths if path.exists()]


def chosen_folds(run: config.Run, splits: dict[int, pd.DataFrame]) -> tuple[int, ...]:
    """The folds a run asks for, by default all. Raises ValueError for one that was not prepared."""
    if set(run.folds) - set(splits):
        raise ValueError(f"folds = {list(run.folds)}: 00_prepare_data made only {sorted(splits)}")
    return run.folds or tuple(splits)


def read_result(
    folder: Path, splits: dict[int, pd.DataFrame], chosen: Sequence[int], as_trained: bool = False
) -> RunResult:
    """What the trained folds `chosen` left in a run's folder; as_trained: before averages of weights were picked."""
    histories = [pd.read_csv(folder / f"fold{fold}" / "history.csv") for fold in chosen]
    paths = [folder / f"fold{fold}" / "oof.csv" for fold in chosen]
    if as_trained:
        before = [path.with_name(run_folder.TRAINED) for path in paths]
        paths = [old if old.exists() else path for old, path in zip(before, paths, strict=True)]
    tables = [pd.read_csv(path) for path in paths]
    out_of_fold = pd.concat(tables, ignore_index=True)
    person_of = splits[chosen[0]].set_index("path")["person"]
    out_of_fold.insert(1, "person", out_of_fold["path"].map(person_of))
    return RunResult(folder, pd.concat(histories, ignore_index=True), out_of_fold)


def step_count(run: config.Run, split: pd.DataFrame) -> int:
    """How many updates a fold's training takes in all, if it does not stop early."""
    train_count = int((split["split"] == TRAIN).sum())
    return run.epochs * dataset.step_count(train_count, run.batch_size)


def intervals(out_of_fold: pd.DataFrame) -> pd.DataFrame:
    """Scores of a table with `person, label, p00 … p17`: index metric, columns value, low, high."""
    truth, predicted = scores.from_probabilities(out_of_fold)
    return scores.bootstrap(truth, predicted, out_of_fold["person"].to_numpy())


def fold_scores(result: RunResult) -> pd.DataFrame:
    """One row a fold: its macro F1, accuracy and attributes' accuracies on its own val photos."""
    fold_of = result.history.groupby("fold")
    rows = []
    for fold in fold_of.groups:
        table = pd.read_csv(result.folder / f"fold{fold}" / "oof.csv")
        rows.append({"fold": fold, **scores.summarise(*scores.from_probabilities(table))})
    return pd.DataFrame(rows).set_index("fold")


def scores_of(result: RunResult) -> dict[str, Any]:
    """The part of `scores.json` that follows from the out-of-fold tables."""
    by_fold = fold_scores(result)
    return {
        "out_of_fold": intervals(result.out_of_fold).to_dict("index"),
        "folds": by_fold.reset_index().to_dict("records"),
        "mean": by_fold.mean().to_dict(),
        "deviation": by_fold.std(ddof=1).fillna(0).to_dict(),
    }


def write_scores(result: RunResult, baseline: pd.DataFrame | None = None) -> dict[str, Any]:
    """Write the run's `scores.json`, last of all its files, and return what it holds.

    baseline: scores of something simpler on the same folds, as `intervals` gives them.
    """
    history = result.history
    found = {
        **scores_of(result),
        "training_seconds": float(history["seconds"].sum()),
        "photos_per_second": float(history["photos_per_second"].median()),
        "peak_memory_bytes": peak_memory_bytes(result.folder, [int(fold) for fold in history["fold"].unique()]),
    }
    if baseline is not None:
        found["baseline"] = baseline.to_dict("index")
    files.write_json(found, result.folder / "scores.json")
    return found


def baseline(photos: store.Store, result: RunResult, splits: dict[int, pd.DataFrame], folder: Path) -> pd.DataFrame:
    """Scores, as `intervals` gives them, of a logistic regression on frozen features, on the run's own folds.

    It learns from photos with a label of their own alone, so that it is the same bar for every run.
    """
    trained = {int(fold): splits[int(fold)] for fold in result.history["fold"].unique()}
    trained = {fold: split[dataset.is_real(split)] for fold, split in trained.items()}
    table = features.logistic_out_of_fold(features.backbone_features(photos, folder), photos, trained)
    return intervals(table.assign(person=table["path"].map(result.out_of_fold.set_index("path")["person"])))


def named_intervals(
    result: RunResult, baseline: pd.DataFrame | None, other: RunResult | None = None
) -> dict[str, pd.DataFrame]:
    """The run's scores, another run's and the baseline's, where there are any, by name, for a plot side by side."""
    beside = {} if baseline is None else {"logistic regression on frozen features": baseline}
    found = [result] if other is None else [result, other]
    return {one.folder.name: intervals(one.out_of_fold) for one in found} | beside


def verdict(found: dict[str, Any]) -> str:
    """One sentence on whether the run beats its baseline, from what `write_scores` returned."""
    if "baseline" not in found:
        return "It was compared with nothing simpler."
    ours, theirs = (scores.Score(**found[name]["macro_f1"]) for name in ("out_of_fold", "baseline"))
    won = "It beats" if ours.value > theirs.value else "It does not beat"
    return f"{won} the logistic regression on frozen features, {theirs}."


def counterpart(
    result: RunResult, splits: dict[int, pd.DataFrame], output_dir: Path, name: str = ""
) -> RunResult | None:
    """A finished run with 18 outputs on the same photos and folds: `name`, or the one most alike in its settings.

    None where there is none, and no name was given. Raises FileNotFoundError or ValueError that says why
    the run of that name will not do.
    """
    ours, found = files.read_json(result.folder / "config.json"), {}
    for run in [name] if name else run_folder.trained_runs(output_dir):
        settings, other = run_folder.run_settings(output_dir, run), _same_photos(result, splits, output_dir, run)
        if other is not None and settings.head != "three" and run != result.folder.name:
            found[run] = (len(config.changed(settings.settings(), ours)), run, other)
    if name and not found:
        raise ValueError(f"compare_with = {name!r}: it must be a run with 18 outputs on the same photos and folds")
    return min(found.values(), key=lambda one: one[:2])[2] if found else None


def _same_photos(result: RunResult, splits: dict[int, pd.DataFrame], output_dir: Path, run: str) -> RunResult | None:
    """Another run's result on the result's own folds; None if it lacks one or scored other photos or labels there."""
    folder, chosen = folder_of(output_dir, run), [int(fold) for fold in result.history["fold"].unique()]
    if not all((folder / f"fold{fold}" / "oof.csv").exists() for fold in chosen):
        return None
    other, keys = read_result(folder, splits, chosen), ["path", "label"]
    return other if other.out_of_fold[keys].equals(result.out_of_fold[keys]) else None


def compared(result: RunResult, other: RunResult | None) -> pd.DataFrame:
    """How much better a run is than another on the same photos, as `scores.paired_bootstrap`; empty for no other."""
    if other is None:
        return pd.DataFrame(columns=["difference", "low", "high", "p"])
    truth, ours = result.truth_and_prediction()
    _, theirs = other.truth_and_prediction()
    return scores.paired_bootstrap(truth, theirs, ours, result.out_of_fold["person"].to_numpy())


def comparison(result: RunResult, other: RunResult | None) -> str:
    """One or two sentences on what `compared` found."""
    if other is None:
        return "There is no finished run with 18 outputs on the same folds: train one by 03_one_model to compare."
    found = scores.Score(*compared(result, other).loc["macro_f1", ["difference", "low", "high"]])
    real = "chance may explain it" if found.low <= 0 <= found.high else "more than chance explains"
    return f"Its macro F1 less that of {other.folder.name}, which has 18 outputs, is {found}: {real}."


def decodings(*results: RunResult) -> pd.DataFrame:
    """Scores of two ways from 18 probabilities to a class: index run, decoding; `scores.summarise`'s columns.

    joint: the likeliest class. apart: the likeliest mask, gender and age (`labels.combine`). `differ` counts
    the photos on which the two disagree.
    """
    rows = {}
    for result in results:
        truth, joint = result.truth_and_prediction()
        columns = list(labels.PROBABILITY_COLUMNS)
        apart = labels.combine(labels.marginals(result.out_of_fold[columns].to_numpy()))
        for decoding, predicted in (("joint", joint), ("apart", apart)):
            rows[result.folder.name, decoding] = {
                **scores.summarise(truth, predicted),
                "differ": int((joint != predicted).sum()),
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["run", "decoding"])


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
    belongs to something else, and as `run_folder.refuse_stale_soup` and `run_folder.refuse_lost_picks` do.
    """
    folder = run_folder.folder_of(output_dir, run)
    settings = run_folder.run_settings(output_dir, run)
    run_folder.refuse_stale_soup(folder)
    if choice is None:
        run_folder.refuse_lost_picks(folder)
    names, found = run_folder.picked_names(folder), {}
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
    manifest = checkpoint.read_manifest(path)
    data, years = None, manifest.get("years")
    if split is not None:
        data = fingerprint(labeled.content, split, settings.weights)
        years = targets.years_digest(split[split["split"] == TRAIN], settings)
    policy = named_policy(settings.augmentation).plain()
    today = {"run": settings.settings(), "data": data, "policy": policy, "years": years}
    if reasons := loop.changes(manifest, today):
        raise ValueError(
            f"{files.shown_path(path)} was trained on other photos, labels or folds, or with other settings, than "
            f"those of today ({'; '.join(reasons)}): {_anew(path.parents[2], settings)}"
        )


def _anew(folder: Path, settings: config.Run) -> str:
    """What to run to make anew what a run's folder holds."""
    if members := run_folder.soup_members(folder):
        return f"train {', '.join(members)} again, of which it is a soup, then {run_folder.finish(folder)}"
    notebook = "04_three_model" if settings.head == "three" else "03_one_model"
    return f"run {notebook} again with run: {settings.run} and when_changed: restart"
