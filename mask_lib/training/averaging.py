"""Averages of networks' weights: over the steps of training (EMA), over its last epochs (SWA), over runs (soups).

SWA: Izmailov et al. 2018; soups: Wortsman et al. 2022. Batch normalisation has never seen an average's activations:
without new statistics it may be worthless. Training's files stay as they are: averaging.json tells the rest.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from mask_lib.base import config, files, scores
from mask_lib.data.splits import TRAIN, VAL
from mask_lib.models import checkpoint, devices, looks, predict
from mask_lib.models.checkpoint import State
from mask_lib.training import comparison, dataset, run_folder, runs

AVERAGES = ("ema", "swa")  # checkpoints of averages within a run
SOUP = "soup"  # the checkpoint of a soup
# Of the settings, what makes first weights: pretrained ones too get a head of their own for each seed.
SAME = {"architecture", "weights", "seed"}


def chosen_epochs(folder: Path, average_epochs: int, first_epoch: int = 0, last_epoch: int = 0) -> dict[int, Path]:
    """The kept epochs first_epoch … last_epoch (0: without that end); the last `average_epochs` if both are 0.
    ValueError for a range that is empty or reaches beyond what was kept.
    """
    paths = folder.glob("epoch[0-9]*.safetensors")
    kept = dict(sorted((int(path.stem.removeprefix("epoch")), path) for path in paths))
    if average_epochs < 1:
        raise ValueError(f"average_epochs = {average_epochs}: it must be at least 1")
    if not first_epoch and not last_epoch:
        return dict(list(kept.items())[-average_epochs:])
    first, last = first_epoch or min(kept, default=0), last_epoch or max(kept, default=0)
    if not kept or first > last or not {first, last} <= set(kept):
        there = f"{min(kept)} to {max(kept)}" if kept else "none"
        asked = f"first_epoch = {first_epoch}, last_epoch = {last_epoch}"
        kept_here = f"{files.shown_path(folder)} keeps the epochs {there}"
        raise ValueError(f"{asked}: {kept_here}; train with keep_epochs set to how many of the last you want")
    return {epoch: path for epoch, path in kept.items() if first <= epoch <= last}


def mean_state(paths: Sequence[Path]) -> State:
    """The equal mean of the weights of checkpoints, summed in float64; whole numbers are the last one's. Its batch-norm
    statistics are stale: see `refresh_batch_norm`.
    """
    total: State = {}
    for path in paths:  # one at a time in memory
        state = checkpoint.read_checkpoint(path)[0]
        floating = {name: value for name, value in state.items() if value.is_floating_point()}
        total = {name: total[name] + value if total else value.double() for name, value in floating.items()}
    return state | {name: (value / len(paths)).to(state[name].dtype) for name, value in total.items()}


def check_alike(paths: Sequence[Path]) -> None:
    """Raise ValueError that names two checkpoints of a fold and of today's data whose weights must not be averaged."""
    first, shapes = checkpoint.read_manifest(paths[0]), checkpoint.read_shapes(paths[0])
    for path in paths[1:]:
        other, other_shapes = checkpoint.read_manifest(path), checkpoint.read_shapes(path)
        reasons = config.changed(*({k: v for k, v in one["run"].items() if k in SAME} for one in (first, other)))
        if first["preprocessing"] != other["preprocessing"]:
            reasons.append("the preprocessing differs")
        if wrong := [name for name in {**shapes, **other_shapes} if shapes.get(name) != other_shapes.get(name)]:
            reasons.append(f"tensors differ in shape, such as {wrong[0]}")
        if reasons:
            names = f"{files.shown_path(paths[0])} and {files.shown_path(path)}"
            raise ValueError(f"{names} cannot be averaged: {'; '.join(reasons)}")


def refresh_batch_norm(loaded: predict.Loaded, source: devices.DevicePhotos, rows: np.ndarray) -> None:
    """Estimate a network's batch-norm statistics anew, in place, in float32, on the store's `rows`: training photos.

    They come shuffled, always alike: statistics of a batch of one person's photos would be narrower than those of all.
    """
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in loaded.network.modules()):
        return
    part_count = math.ceil(len(rows) / loaded.batch_size)  # equal parts: none is so small as to count too much
    parts = np.array_split(np.random.default_rng(0).permutation(rows), part_count)
    try:
        update_bn((loaded.preprocessing.prepared(source.batch(part).float() / 255) for part in parts), loaded.network)
    except torch.OutOfMemoryError:
        if loaded.batch_size <= 2:
            raise
        refresh_batch_norm(dataclasses.replace(loaded, batch_size=loaded.batch_size // 2), source, rows)


class FoldEvaluator:
    """One fold's photos on a device: what averages are refreshed and scored on."""

    def __init__(self, split: pd.DataFrame, source: devices.DevicePhotos) -> None:
        self.split, self.source = split, source
        self.validated = split.loc[split["split"] == VAL, ["path", "label"]]
        self.rows = {part: source.store.rows(list(split["path"][split["split"] == part])) for part in (TRAIN, VAL)}

    def refreshed(self, state: State, manifest: dict[str, Any]) -> State:
        """The weights with batch-norm statistics of the fold's training photos."""
        loaded = predict.load_network(state, manifest, self.source.device)
        refresh_batch_norm(loaded, self.source, self.rows[TRAIN])
        return {name: value.cpu() for name, value in loaded.network.state_dict().items()}

    def out_of_fold(self, state: State, manifest: dict[str, Any]) -> pd.DataFrame:
        """Columns `path, label, p00 …`: what the weights say of the fold's val photos."""
        loaded = predict.load_network(state, manifest, self.source.device)
        return predict.probability_table(self.validated, loaded.predict(self.source, self.rows[VAL]))


def open_evaluators(
    data_dir: Path, output_dir: Path, settings: config.Run
) -> tuple[devices.DevicePhotos, dict[int, pd.DataFrame], dict[int, FoldEvaluator]]:
    """A run's labeled photos, today's splits, and an evaluator for each of the run's folds."""
    splits = dataset.read_training_splits(output_dir, settings)
    source = devices.DevicePhotos(dataset.open_trainable(data_dir, output_dir, settings), devices.pick_device())
    return source, splits, {fold: FoldEvaluator(splits[fold], source) for fold in runs.chosen_folds(settings, splits)}


@dataclasses.dataclass(frozen=True)
class Averaged:
    """What `average_run` found."""

    run: str
    saved: dict[str, Any]  # what averaging.json holds
    tables: dict[str, pd.DataFrame]  # by name of the weights: path, label, p00 …, fold, person; all folds
    looks: dict[str, pd.DataFrame]  # by run and name, `run_folder.unseen_looks` of a run that was asked about those

    def by_fold(self) -> pd.DataFrame:
        """One row a fold: macro F1 of each kind of weights, the best epoch averaged, and what is picked."""
        rows = []
        for fold, one in self.saved["folds"].items():
            row = {"fold": int(fold), **{name: found["macro_f1"] for name, found in one["scores"].items()}}
            best = max(one["members"].values(), default=float("nan"))
            rows.append({**row, "epochs averaged": len(one["members"]), "picked": one["picked"], "best member": best})
        return pd.DataFrame(rows).set_index("fold")

    def summary(self) -> str:
        """Two sentences on what the average of epochs gave and what is used."""
        used = "; ".join(f"fold {fold}: {one['picked']}" for fold, one in self.saved["folds"].items())
        if "swa" not in self.tables:
            return f"**{self.run}** kept no epochs (keep_epochs), so none were averaged. Used: {used}."
        gain = scores.compare(self.tables[self.saved["trained"]], self.tables["swa"]).loc["macro_f1"]
        change = f"{gain['difference']:+.3f} (95% interval by person {gain['low']:+.3f} to {gain['high']:+.3f})"
        return f"The average of **{self.run}**’s last epochs changes its macro F1 by {change}. Used: {used}."


def average_run(
    data_dir: Path, output_dir: Path, run: str, average_epochs: int = 10, first_epoch: int = 0, last_epoch: int = 0
) -> Averaged:
    """Average the kept epochs of each fold of a finished run, score what there is, and pick.

    With `checkpoint_choice: best` the weights with the highest macro F1 on the fold's val photos are picked, training's
    own if they tie, and of averages none that really loses on looks never seen; another choice is kept to.
    Writes `checkpoint/swa.safetensors`, `oof.swa.csv` and `oof.ema.csv` of each fold, as far as there are such weights,
    and last `averaging.json`. Raises as `run_folder.run_settings`, `chosen_epochs`, `looks.without` and
    `runs.require_today` do, and ValueError for a soup.
    """
    run_folder.refuse_soup(output_dir, run)
    settings, folder = run_folder.run_settings(output_dir, run), run_folder.folder_of(output_dir, run)
    source, splits, evaluators = open_evaluators(data_dir, output_dir, settings)
    trained, entries, asked = run_folder.trained_weights(settings), {}, (average_epochs, first_epoch, last_epoch)
    homes = {fold: folder / f"fold{fold}" for fold in evaluators}
    members = {fold: todays_epochs(homes[fold], settings, one, *asked) for fold, one in evaluators.items()}
    on_looks = average_looks(folder, settings, splits[min(splits)], source, *asked)
    lost = {name for name, table in on_looks.items() if comparison.lost_on_looks(on_looks[trained], table)}
    (folder / run_folder.AVERAGING).unlink(missing_ok=True)  # until it is written, training's own weights are in use
    for fold, evaluator in files.progress(evaluators.items(), what=f"average {run}", unit="fold"):
        entries[fold] = average_fold(homes[fold], members[fold], evaluator, settings, lost)
    person_of = next(iter(splits.values())).set_index("path")["person"]

    def joined(names: Mapping[int, str]) -> pd.DataFrame:
        tables = {fold: run_folder.table_path(homes[fold], name, trained) for fold, name in names.items()}
        return run_folder.joined_tables(tables, person_of)

    common = [name for name in (trained, *AVERAGES) if all(name in one["scores"] for one in entries.values())]
    tables = {name: joined(dict.fromkeys(entries, name)) for name in dict.fromkeys(common)}
    found = runs.table_scores(joined({fold: one["picked"] for fold, one in entries.items()}))
    saved = {"trained": trained, "folds": {str(fold): one for fold, one in entries.items()}, "scores": found}
    files.write_json(saved, folder / run_folder.AVERAGING)
    return Averaged(run, saved, tables, {f"{run}, {name}": table for name, table in on_looks.items()})


def todays_epochs(home: Path, settings: config.Run, evaluator: FoldEvaluator, *asked: int) -> dict[int, Path]:
    """`chosen_epochs` of a fold's folder, held with training's own weights to today's data by `runs.require_today`."""
    members = chosen_epochs(home / "checkpoint", *asked)
    for path in [*members.values(), home / "checkpoint" / f"{run_folder.trained_weights(settings)}.safetensors"]:
        runs.require_today(path, settings, evaluator.source.store, evaluator.split)
    return members


def average_looks(
    folder: Path, settings: config.Run, split: pd.DataFrame, source: devices.DevicePhotos, *asked: int
) -> dict[str, pd.DataFrame]:
    """`run_folder.unseen_looks` by name of the weights, once those of the fold without some looks are averaged too; {}
    without one. split: of the run's first fold; asked: as `chosen_epochs` takes it.
    """
    if not run_folder.looks_in_use(folder):
        return {}
    home, trained = folder / run_folder.LOOKS, run_folder.trained_weights(settings)
    evaluator = FoldEvaluator(looks.without(split, looks.read_held_out(folder.parents[1])), source)
    found = average_fold(home, todays_epochs(home, settings, evaluator, *asked), evaluator, settings)["scores"]
    return {name: run_folder.unseen_looks(folder, run_folder.table_path(home, name, trained)) for name in found}


def _of_weights_alone(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest of weights that training does not go on from."""
    return {name: value for name, value in manifest.items() if name not in ("place", "digests", "format")}


def average_fold(
    home: Path, epochs: dict[int, Path], evaluator: FoldEvaluator, settings: config.Run, lost: Collection[str] = ()
) -> dict[str, Any]:
    """Average the epochs of a fold, if any, and write what the averages say of its val photos; returns its entry in
    averaging.json: `members`, the val macro F1 that training noted of them, `scores` and `picked`. lost: of `pick`.
    """
    trained, members, paths = run_folder.trained_weights(settings), {}, list(epochs.values())
    if epochs:
        manifest = checkpoint.read_manifest(paths[-1])
        noted = {row["epoch"]: row["val_macro_f1"] for row in manifest["place"]["history"]}
        about = {**_of_weights_alone(manifest), "members": {str(epoch): noted[epoch] for epoch in epochs}}
        state = evaluator.refreshed(mean_state(paths), manifest)
        checkpoint.write_checkpoint(home / "checkpoint" / "swa.safetensors", state, about)
    tables = {trained: scores.read_probabilities(home / "oof.csv", "path")}
    for name in AVERAGES:
        path = home / "checkpoint" / f"{name}.safetensors"
        if name != trained and path.exists():
            state, manifest = checkpoint.read_checkpoint(path)
            members = manifest["members"] if name == "swa" else members
            tables[name] = evaluator.out_of_fold(state, manifest)
            files.write_csv(tables[name], run_folder.table_path(home, name, trained))
    found = {name: scores.summarise(*scores.from_probabilities(table)) for name, table in tables.items()}
    return {"members": members, "scores": found, "picked": pick(settings.checkpoint_choice, found, lost)}


def pick(choice: str, found: Mapping[str, Mapping[str, float]], lost: Collection[str] = ()) -> str:
    """The name of the weights to use: the choice, but if that is best by score, the first of equals and none of `lost`:
    averages that are worse than training's own weights on looks never seen.
    """
    kept = [name for name in found if name not in lost]
    return max(kept, key=lambda name: found[name]["macro_f1"]) if choice == "best" else choice


def make_soup(data_dir: Path, output_dir: Path, soup: str, members: Sequence[str]) -> dict[str, Any]:
    """Average finished runs greedily, fold by fold, into the run `soup`; returns what its averaging.json holds.

    It has the first member's settings, the folds that all have, and of each the members in the order they were tried,
    `run, macro_f1, accepted, why`. Raises ValueError that names the files of members of other first weights.
    """
    settings = [run_folder.run_settings(output_dir, run) for run in members]
    _check_members(output_dir, soup, members, settings)
    source, splits, evaluators = open_evaluators(data_dir, output_dir, settings[0])
    found = {run: runs.checkpoints(output_dir, run, source.store, splits) for run in members}
    common = [fold for fold in evaluators if all(fold in paths for paths in found.values())]
    if not common:
        raise ValueError(f"{', '.join(members)} were trained on different folds and have none in common")
    for fold in common:
        check_alike([found[run][fold] for run in members])
    whole, folder = settings[0].replace(run=soup, folds=tuple(common)), run_folder.folder_of(output_dir, soup)
    (folder / run_folder.SCORES).unlink(missing_ok=True)  # not finished until it is written again
    made_of = {run: run_folder.digests(run_folder.folder_of(output_dir, run), common) for run in members}
    saved = {"trained": SOUP, "soup_of": list(members), "made_of": made_of, "folds": {}}
    files.write_json(saved, folder / run_folder.AVERAGING)
    for fold in files.progress(common, what=f"soup {soup}", unit="fold"):
        paths = {run: found[run][fold] for run in members}
        saved["folds"][str(fold)] = write_fold(paths, evaluators[fold], whole, folder)
    files.write_json(saved, folder / run_folder.AVERAGING)
    runs.write_scores(runs.close_run(whole, folder, splits, source.store, source.device))
    return saved


def _check_members(output_dir: Path, soup: str, names: Sequence[str], settings: Sequence[config.Run]) -> None:
    """Raise ValueError for names that are no soup's, and for two members that learned from other photos or labels."""
    if len(set(names)) < max(len(names), 2):
        raise ValueError(f"soup_of = {list(names)}: name at least two runs, each once")
    folder = run_folder.folder_of(output_dir, soup)
    if soup in names or (folder.exists() and not run_folder.soup_members(folder)):
        raise ValueError(f"soup = {soup!r}: that is a run that was trained; give the soup a name of its own")
    rows = [{name: one.settings()[name] for name in dataset.SETTINGS} for one in settings]
    for name, own in zip(names, rows, strict=True):
        if reasons := "; ".join(config.changed(rows[0], own)):
            both = f"{names[0]} and {name}"
            raise ValueError(f"{both} were trained on other photos or labels ({reasons}): no soup of both")


def write_fold(paths: dict[str, Path], evaluator: FoldEvaluator, settings: config.Run, folder: Path) -> dict[str, Any]:
    """Make one fold's soup and write its checkpoint, oof.csv and history.csv; returns its entry in averaging.json."""
    manifest = checkpoint.read_manifest(next(iter(paths.values())))
    state, table, tried = greedy(paths, evaluator)
    home = folder / f"fold{manifest['fold']}"
    about = {**_of_weights_alone(manifest), "run": settings.settings(), "members": tried}
    checkpoint.write_checkpoint(home / "checkpoint" / f"{SOUP}.safetensors", state, about)
    files.write_csv(table, home / "oof.csv")
    runs_of = [paths[one["run"]].parents[2] for one in tried if one["accepted"]]
    epochs = [run_folder.read_histories(run, [manifest["fold"]]) for run in runs_of]
    history = pd.concat(epochs).assign(fold=manifest["fold"], epoch=range(1, sum(map(len, epochs)) + 1))
    files.write_csv(history, home / "history.csv")  # of the members, one after the other
    return {"members": tried, "scores": {SOUP: {"macro_f1": macro_f1(table)}}, "picked": SOUP}


def greedy(paths: dict[str, Path], evaluator: FoldEvaluator) -> tuple[State, pd.DataFrame, list[dict[str, Any]]]:
    """(weights, out-of-fold table, what was tried) of the greedy soup of checkpoints, by run: from the best on, each is
    averaged in, refreshed, and kept if the macro F1 on the fold's val photos rises.
    """
    alone = {run: evaluator.out_of_fold(*checkpoint.read_checkpoint(path)) for run, path in paths.items()}
    score = {run: macro_f1(table) for run, table in alone.items()}
    first, *others = sorted(paths, key=lambda run: -score[run])
    (state, manifest), table, taken = checkpoint.read_checkpoint(paths[first]), alone[first], [first]
    tried = [{"run": first, "macro_f1": score[first], "accepted": True, "why": "the best alone"}]
    for run in others:
        mixed = evaluator.refreshed(mean_state([paths[one] for one in [*taken, run]]), manifest)
        answers, before = evaluator.out_of_fold(mixed, manifest), macro_f1(table)
        rises = macro_f1(answers) > before
        why = f"macro F1 of the soup with it {macro_f1(answers):.4f}, without {before:.4f}"
        tried.append({"run": run, "macro_f1": score[run], "accepted": rises, "why": why})
        if rises:
            state, table, taken = mixed, answers, [*taken, run]
    return state, table, tried


def macro_f1(table: pd.DataFrame) -> float:
    """Of a table with `label, p00 …`."""
    return scores.summarise(*scores.from_probabilities(table))["macro_f1"]
