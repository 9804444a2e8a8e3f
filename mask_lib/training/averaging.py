"""Averages of networks' weights: over the steps of training, over its last epochs, over runs.

An average of weights is a new network, whose activations batch normalisation has never seen: without
new statistics it may be worthless. SWA: Izmailov et al. 2018; soups: Wortsman et al. 2022.

Which weights of each fold of a run are used: those that training chose, or an average that beats them.

What was tried, its scores and what is picked stand in the run's `averaging.json`; inference goes by it,
and `oof.csv` and `scores.json` are brought in line, so that whatever reads a run reads of the same weights.

A soup: one network averaged from those of several runs that started from the same weights (Wortsman et al. 2022).

Each member is taken only if the score on held-out people rises, so a soup is never worse there than
its best member. It is kept as a run of its own, which later notebooks treat as any other.
"""

import contextlib
import dataclasses
import math
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from mask_lib.base import config, files, scores
from mask_lib.data import store
from mask_lib.data.splits import TRAIN, VAL
from mask_lib.models import checkpoint, devices, predict
from mask_lib.training import dataset, loop, run_folder, runs
from mask_lib.training.run_folder import MADE_OF, SOUP_OF

REFRESH_BATCH = 64  # photos; statistics are means over batches, so much smaller ones would be noisy


def kept_epochs(checkpoint_folder: Path) -> dict[int, Path]:
    """The checkpoints of the epochs that training kept, in order."""
    found = {int(path.stem.removeprefix("epoch")): path for path in checkpoint_folder.glob("epoch[0-9]*.safetensors")}
    return dict(sorted(found.items()))


def chosen_epochs(
    checkpoint_folder: Path, average_epochs: int, first_epoch: int = 0, last_epoch: int = 0
) -> dict[int, Path]:
    """The kept epochs first_epoch … last_epoch (0: without that end); the last `average_epochs` if both are 0.

    Raises ValueError for a range that is empty or reaches beyond what was kept, and where nothing was
    kept for a range.
    """
    kept = kept_epochs(checkpoint_folder)
    if average_epochs < 1:
        raise ValueError(f"average_epochs = {average_epochs}: it must be at least 1")
    if not first_epoch and not last_epoch:
        return dict(list(kept.items())[-average_epochs:])
    first, last = first_epoch or min(kept, default=0), last_epoch or max(kept, default=0)
    if not kept or first > last or not {first, last} <= set(kept):
        there = f"{min(kept)} to {max(kept)}" if kept else "none"
        raise ValueError(
            f"first_epoch = {first_epoch}, last_epoch = {last_epoch}: {files.shown_path(checkpoint_folder)} keeps the "
            f"epochs {there}; train with keep_epochs set to how many of the last you want"
        )
    return {epoch: path for epoch, path in kept.items() if first <= epoch <= last}


def mean_state(paths: Sequence[Path], same: Collection[str] | None = None) -> dict[str, torch.Tensor]:
    """The equal mean of the weights of checkpoints, summed in float64; whole numbers are the last one's.

    Batch normalisation's statistics are stale in it: see `refresh_batch_norm`. Raises ValueError as
    `check_alike` does.
    """
    check_alike(paths, same)
    first, _ = checkpoint.read_checkpoint(paths[0])
    total = {name: value.double() if value.is_floating_point() else value for name, value in first.items()}
    for path in paths[1:]:
        state, _ = checkpoint.read_checkpoint(path)
        total = {name: value + state[name] if value.is_floating_point() else state[name]
                 for name, value in total.items()}  # fmt: skip
    return {name: (value / len(paths)).to(first[name].dtype) if value.is_floating_point() else value
            for name, value in total.items()}  # fmt: skip


def check_alike(paths: Sequence[Path], same: Collection[str] | None = None) -> None:
    """Raise ValueError that names two checkpoints whose weights must not be averaged, and why.

    They must be of the same fold, photos, labels, preprocessing and shapes. same: names of the settings
    that must agree too, all of them if None.
    """
    manifests, shapes = (
        [checkpoint.read_manifest(path) for path in paths],
        [checkpoint.read_shapes(path) for path in paths],
    )
    for path, manifest, shape in zip(paths, manifests, shapes, strict=True):
        reasons = unlike(manifests[0], manifest, same) + misfits(shapes[0], shape)
        if reasons:
            names = " and ".join(files.shown_path(one) for one in (paths[0], path))
            raise ValueError(f"{names} cannot be averaged: {'; '.join(reasons)}")


def unlike(one: Mapping[str, Any], other: Mapping[str, Any], same: Collection[str] | None = None) -> list[str]:
    """Why two checkpoints' weights must not be averaged, by their manifests; empty if they may."""
    settings = [
        {name: value for name, value in manifest["run"].items() if same is None or name in same}
        for manifest in (one, other)
    ]
    reasons = config.changed(*settings)
    if one["fold"] != other["fold"]:
        reasons.append(f"fold: {one['fold']} → {other['fold']}; an average would know every fold's people")
    elif one["data"] != other["data"]:
        reasons.append("they were trained on other photos, labels or another split")
    return reasons + ["the preprocessing differs"] * (one["preprocessing"] != other["preprocessing"])


def misfits(one: Mapping[str, list[int]], other: Mapping[str, list[int]]) -> list[str]:
    """The first of the tensors that only one of two networks has, or that differ in shape, from their shapes."""
    wrong = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    seen = [f"{name}: {one.get(name)} → {other.get(name)}" for name in wrong[:3]]
    return [f"{len(wrong)} tensors differ in shape, such as {', '.join(seen)}"] if wrong else []


def refresh_batch_norm(loaded: predict.Loaded, source: devices.DevicePhotos, rows: np.ndarray) -> None:
    """Estimate a network's batch-norm statistics anew, in place, on the store's `rows` as they are, in float32.

    rows: training photos only. Photos come shuffled, always alike, since statistics of a batch of one
    person's photos would be narrower than those of all. A network without batch normalisation stays as it is.
    """
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in loaded.network.modules()):
        return
    shuffled = np.random.default_rng(0).permutation(rows)
    parts = np.array_split(shuffled, math.ceil(len(rows) / REFRESH_BATCH))  # none is so small as to count too much
    update_bn((loaded.preprocessing.prepared(source.batch(part).float() / 255) for part in parts), loaded.network)


NAMES = ("best", "last", "ema", "swa")  # in the order in which the first wins a tie


@dataclasses.dataclass(frozen=True)
class FoldEvaluator:
    """One fold's photos on a device: what averages are refreshed and scored on."""

    split: pd.DataFrame
    source: devices.DevicePhotos

    def rows(self, part: str) -> np.ndarray:
        """(N,) rows of the store, of one part of the split."""
        return self.source.store.rows(list(self.split.loc[self.split["split"] == part, "path"]))

    def refreshed(self, state: dict[str, torch.Tensor], manifest: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The weights with batch-norm statistics of the fold's training photos."""
        loaded = predict.load_network(state, manifest, self.source.device)
        refresh_batch_norm(loaded, self.source, self.rows(TRAIN))
        return {name: value.cpu() for name, value in loaded.network.state_dict().items()}

    def out_of_fold(self, state: dict[str, torch.Tensor], manifest: dict[str, Any]) -> pd.DataFrame:
        """Columns `path, label, p00 … p17`: what the weights say of the fold's val photos."""
        loaded = predict.load_network(state, manifest, self.source.device)
        validated = self.split.loc[self.split["split"] == VAL, ["path", "label"]]
        return predict.probability_table(validated, loaded.predict(self.source, self.rows(VAL)))


@dataclasses.dataclass(frozen=True)
class Averaged:
    """What `average_run` found."""

    run: str
    saved: dict[str, Any]  # what averaging.json holds
    tables: dict[str, pd.DataFrame]  # by name of the weights: path, person, label, p00 … p17 of all folds

    def by_fold(self) -> pd.DataFrame:
        """One row a fold: macro F1 of each kind of weights, the best epoch averaged, and what is picked."""
        rows = {}
        for fold, one in self.saved["folds"].items():
            rows[int(fold)] = {name: found["macro_f1"] for name, found in one["scores"].items()}
            rows[int(fold)] |= {"epochs averaged": len(one["members"]), "picked": one["picked"]}
            rows[int(fold)] |= {"best member": max(one["members"].values(), default=float("nan"))}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("fold")

    def in_words(self) -> str:
        """Two sentences on what the average of epochs gave and what is used."""
        used = "; ".join(f"fold {fold}: {one['picked']}" for fold, one in self.saved["folds"].items())
        if "swa" not in self.tables:
            return f"**{self.run}** kept no epochs (keep_epochs), so none were averaged. Used: {used}."
        before, after = self.tables[self.saved["trained"]], self.tables["swa"]
        truth, first = scores.from_probabilities(before)
        _, second = scores.from_probabilities(after)
        gain = scores.paired_bootstrap(truth, first, second, before["person"].to_numpy()).loc["macro_f1"]
        return (
            f"The average of **{self.run}**’s last epochs changes its macro F1 by {gain['difference']:+.3f} "
            f"(95% interval by person {gain['low']:+.3f} to {gain['high']:+.3f}). Used: {used}."
        )


def averageable_runs(output_dir: Path, run: str) -> list[str]:
    """`run` alone, or if it is empty every finished run that is no soup itself."""
    return [name for name in run_folder.chosen_runs(output_dir, run) if run or not is_soup(output_dir, name)]


def is_soup(output_dir: Path, run: str) -> bool:
    """Whether a run was not trained but averaged from others."""
    return bool(run_folder.soup_members(run_folder.folder_of(output_dir, run)))


def written(output_dir: Path, run: str) -> list[Path]:
    """The files that averaging left in a run's folder: the list of what was tried, and averaged weights."""
    folder = run_folder.folder_of(output_dir, run)
    averages = [path for name in ("swa", "soup") for path in folder.glob(f"fold[0-9]*/checkpoint/{name}.safetensors")]
    return [folder / run_folder.AVERAGING, *sorted(averages)]


def open_benches(
    data_dir: Path, output_dir: Path, settings: config.Run
) -> tuple[store.Store, dict[int, pd.DataFrame], dict[int, FoldEvaluator]]:
    """The labeled photos of a run, today's splits, and a bench for each of the run's folds."""
    splits = dataset.read_training_splits(output_dir, settings)
    labeled = dataset.open_trainable(data_dir, output_dir, settings)
    source = devices.DevicePhotos(labeled, devices.pick_device())
    chosen = runs.chosen_folds(settings, splits)
    return labeled, splits, {fold: FoldEvaluator(splits[fold], source) for fold in chosen}


def average_run(
    data_dir: Path, output_dir: Path, run: str, average_epochs: int = 10, first_epoch: int = 0, last_epoch: int = 0
) -> Averaged:
    """Average the kept epochs of each fold of a finished run, score what there is, and pick.

    With `checkpoint_choice: best` the weights with the highest macro F1 on the fold's val photos are
    picked; training's own win ties, so an average that is no better than its best member never is.
    Another choice is kept to. Writes `checkpoint/swa.safetensors` for each fold and `averaging.json`;
    where the pick changes, `oof.csv` and `scores.json` too. Raises as `run_folder.run_settings`,
    `averaging.chosen_epochs` and `averaging.mean_state` do, and ValueError for a run of other photos or
    labels than today's.
    """
    run_folder.refuse_soup(output_dir, run)
    settings = run_folder.run_settings(output_dir, run)
    folder = run_folder.folder_of(output_dir, run)
    put_back_lost(folder, dataset.read_training_splits(output_dir, settings))
    labeled, splits, benches = open_benches(data_dir, output_dir, settings)
    picks, tables = {}, {}
    for fold, bench in files.progress(benches.items(), what=f"average {run}", unit="fold"):
        checkpoints = folder / f"fold{fold}" / "checkpoint"
        chosen = chosen_epochs(checkpoints, average_epochs, first_epoch, last_epoch)
        for path in [*chosen.values(), *candidates(checkpoints).values()]:
            runs.require_today(path, settings, labeled, splits[fold])
        if chosen:
            write_average(chosen, bench, checkpoints / "swa.safetensors")
        picks[fold], tables[fold] = judged(candidates(checkpoints), bench, settings)
    saved = {"trained": loop.trained_choice(settings), "folds": {str(fold): one for fold, one in picks.items()}}
    put_to_use(folder, saved, {fold: tables[fold][one["picked"]] for fold, one in picks.items()}, splits)
    return Averaged(run, saved, joined(tables, splits))


def candidates(checkpoint_folder: Path) -> dict[str, Path]:
    """The checkpoints of a fold that can be used, by name."""
    paths = {name: checkpoint_folder / f"{name}.safetensors" for name in NAMES}
    return {name: path for name, path in paths.items() if path.exists()}


def write_average(members: dict[int, Path], bench: FoldEvaluator, path: Path) -> None:
    """Write the equal mean of epochs, its batch-norm statistics refreshed, with a manifest that names them."""
    manifest = checkpoint.read_manifest(list(members.values())[-1])
    state = bench.refreshed(mean_state(list(members.values())), manifest)
    scored = {str(epoch): own_score(checkpoint.read_manifest(member), epoch) for epoch, member in members.items()}
    checkpoint.write_checkpoint(path, state, {**without_place(manifest), "members": scored})


def without_place(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest of weights that training does not go on from."""
    return {name: value for name, value in manifest.items() if name not in ("place", "optimizer_scalars", "format")}


def own_score(manifest: dict[str, Any], epoch: int) -> float:
    """Macro F1 on the fold's val photos that training noted for an epoch."""
    (row,) = (row for row in manifest["place"]["history"] if row["epoch"] == epoch)
    return row["val_macro_f1"]


def judged(
    paths: dict[str, Path], bench: FoldEvaluator, settings: config.Run
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """A fold's entry in averaging.json, and what each kind of weights says of the fold's val photos."""
    read = {name: checkpoint.read_checkpoint(path) for name, path in paths.items()}
    tables = {name: bench.out_of_fold(*one) for name, one in read.items()}
    found = {name: scores.summarise(*scores.from_probabilities(table)) for name, table in tables.items()}
    members = read["swa"][1]["members"] if "swa" in read else {}
    return {"members": members, "scores": found, "picked": pick(settings.checkpoint_choice, found)}, tables


def pick(choice: str, found: dict[str, dict[str, float]]) -> str:
    """The name of the weights to use: by score if the choice is best, else the choice; found as in averaging.json."""
    return max(found, key=lambda name: found[name]["macro_f1"]) if choice == "best" else choice


def put_to_use(
    folder: Path, saved: dict[str, Any], tables: dict[int, pd.DataFrame], splits: dict[int, pd.DataFrame]
) -> None:
    """Write averaging.json and bring `oof.csv` and `scores.json` in line with it.

    tables: out-of-fold probabilities of what is picked, by fold. A kill in between leaves a run
    without scores, which counts as unfinished; averaging it again mends that.
    """
    new = {int(fold): one["picked"] for fold, one in saved["folds"].items()}
    replaced = any((folder / f"fold{fold}" / run_folder.TRAINED).exists() for fold in new)
    if not replaced and set(new.values()) == {saved["trained"]}:
        files.write_json(saved, folder / run_folder.AVERAGING)
        return
    used = {fold: None if new[fold] == saved["trained"] else table for fold, table in tables.items()}
    with rescored(folder, splits, list(tables)):
        files.write_json(saved, folder / run_folder.AVERAGING)
        for fold, table in used.items():
            replace_out_of_fold(folder / f"fold{fold}", table)
    # Once more: in the chain the scores are what averaging starts from, so its own file must not be older.
    files.write_json(saved, folder / run_folder.AVERAGING)


def put_back_lost(folder: Path, splits: dict[int, pd.DataFrame]) -> None:
    """Make oof.csv and scores.json of a run training's own again where averaging.json was lost.

    Snakemake deletes that file before it runs the step again. Whatever stops the step then, what is used,
    training's own weights, and what the scores are of agree.
    """
    if lost := run_folder.lost_picks(folder):
        with rescored(folder, splits, run_folder.trained_folds(folder)):
            for fold in lost:
                replace_out_of_fold(folder / f"fold{fold}", None)


@contextlib.contextmanager
def rescored(folder: Path, splits: dict[int, pd.DataFrame], chosen: list[int]) -> Iterator[None]:
    """A run without scores, so unfinished, while its out-of-fold tables are replaced; then with theirs."""
    before = files.read_json(folder / "scores.json")
    (folder / "scores.json").unlink()
    yield
    result = runs.read_result(folder, splits, chosen)
    files.write_json({**before, **runs.scores_of(result)}, folder / "scores.json")


def replace_out_of_fold(folder: Path, table: pd.DataFrame | None) -> None:
    """Make `table` a fold's oof.csv, with training's own kept beside it; None: make it training's own again."""
    path, trained = folder / "oof.csv", folder / run_folder.TRAINED
    if table is None:
        if trained.exists():
            trained.replace(path)
        return
    if not trained.exists():
        with files.replacing(trained) as temporary:
            shutil.copyfile(path, temporary)
    files.write_csv(table, path)


def joined(tables: dict[int, dict[str, pd.DataFrame]], splits: dict[int, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """By name of the weights, where every fold has them, the out-of-fold tables of all folds, with `person`."""
    person_of = next(iter(splits.values())).set_index("path")["person"]
    whole = {}
    for name in NAMES:
        if all(name in one for one in tables.values()):
            whole[name] = pd.concat([one[name] for one in tables.values()], ignore_index=True)
            whole[name].insert(1, "person", whole[name]["path"].map(person_of))
    return whole


NAME = "soup"  # of its checkpoints
# Of the settings, what makes first weights: pretrained ones too get a head of their own for each seed.
SAME = {"architecture", "weights", "seed"}
State = dict[str, torch.Tensor]


def make_soup(data_dir: Path, output_dir: Path, soup: str, members: Sequence[str]) -> dict[str, Any]:
    """Average finished runs greedily, fold by fold, into the run `soup`; returns what its averaging.json holds.

    Its settings are those of the first member, its folds those that all members have. A fold's entry
    lists the members in the order they were tried, best first: `run, macro_f1, accepted, why`. Raises
    ValueError for members that did not start from the same weights, and names their files.
    """
    settings = [run_folder.run_settings(output_dir, run) for run in members]
    _check_names(output_dir, soup, members)
    _check_photos(settings)
    labeled, splits, benches = open_benches(data_dir, output_dir, settings[0])
    found = {run: runs.checkpoints(output_dir, run, labeled, splits) for run in members}
    common = [fold for fold in benches if all(fold in paths for paths in found.values())]
    if not common:
        raise ValueError(f"{', '.join(members)} were trained on different folds and have none in common")
    for fold in common:
        check_alike([found[run][fold] for run in members], SAME)
    made_of = {run: run_folder.answers(run_folder.folder_of(output_dir, run), common) for run in members}
    whole = settings[0].replace(run=soup, folds=tuple(common))
    folder = run_folder.folder_of(output_dir, soup)
    (folder / "scores.json").unlink(missing_ok=True)  # not finished until it is written again
    files.write_json({SOUP_OF: list(members), "folds": {}}, folder / run_folder.AVERAGING)
    entries = {}
    for fold in files.progress(common, what=f"soup {soup}", unit="fold"):
        entries[str(fold)] = write_fold({run: found[run][fold] for run in members}, benches[fold], whole, folder)
    saved = {SOUP_OF: list(members), MADE_OF: made_of, "folds": entries}
    files.write_json({**whole.settings(), "device": str(benches[common[0]].source.device)}, folder / "config.json")
    run_folder.note_data(folder, labeled.root)
    files.write_json(saved, folder / run_folder.AVERAGING)
    runs.write_scores(runs.read_result(folder, splits, common))
    return saved


def _check_names(output_dir: Path, soup: str, members: Sequence[str]) -> None:
    if len(set(members)) < 2 or len(set(members)) < len(members):
        raise ValueError(f"soup_of = {list(members)}: name at least two runs, each once")
    if soup in members or (run_folder.folder_of(output_dir, soup).exists() and not is_soup(output_dir, soup)):
        raise ValueError(f"soup = {soup!r}: that is a run that was trained; give the soup a name of its own")
    config.Run(run=soup)  # raises for a name that is no folder's


def _check_photos(settings: Sequence[config.Run]) -> None:
    """Raise ValueError that names two members that learned from other photos or labels."""
    asked = [{name: one.settings()[name] for name in dataset.SETTINGS} for one in settings]
    for one, other in zip(settings, asked, strict=True):
        if reasons := config.changed(asked[0], other):
            names = f"{settings[0].run} and {one.run}"
            raise ValueError(f"{names} were trained on other photos or labels ({'; '.join(reasons)}): no soup of both")


def write_fold(paths: dict[str, Path], bench: FoldEvaluator, settings: config.Run, folder: Path) -> dict[str, Any]:
    """Make one fold's soup and write its checkpoint, oof.csv and history.csv; returns its entry in averaging.json."""
    manifest = checkpoint.read_manifest(next(iter(paths.values())))
    state, table, tried = greedy(paths, bench)
    home = folder / f"fold{manifest['fold']}"
    about = {**without_place(manifest), "run": settings.settings(), "members": tried}
    checkpoint.write_checkpoint(home / "checkpoint" / f"{NAME}.safetensors", state, about)
    files.write_csv(table, home / "oof.csv")
    files.write_csv(history(paths, tried, manifest["fold"]), home / "history.csv")
    found = scores.summarise(*scores.from_probabilities(table))
    return {"members": tried, "scores": {NAME: found}, "picked": NAME}


def greedy(paths: dict[str, Path], bench: FoldEvaluator) -> tuple[State, pd.DataFrame, list[dict[str, Any]]]:
    """(weights, out-of-fold table, what was tried) of the greedy soup of checkpoints, by run.

    Starting from the best, each is averaged in, batch-norm statistics refreshed on training photos,
    and kept if the macro F1 on the fold's val photos is higher than before.
    """
    alone = {run: bench.out_of_fold(*checkpoint.read_checkpoint(path)) for run, path in paths.items()}
    score = {run: macro_f1(table) for run, table in alone.items()}
    first, *others = sorted(paths, key=lambda run: -score[run])
    (state, manifest), table = checkpoint.read_checkpoint(paths[first]), alone[first]
    taken, tried = [first], [_verdict(first, score[first], True, "the best alone")]
    for run in others:
        members = [paths[one] for one in [*taken, run]]
        mixed = bench.refreshed(mean_state(members, same=()), manifest)
        answers, before = bench.out_of_fold(mixed, manifest), macro_f1(table)
        rises = macro_f1(answers) > before
        why = f"macro F1 of the soup with it {macro_f1(answers):.4f}, without {before:.4f}"
        tried.append(_verdict(run, score[run], rises, why))
        if rises:
            state, table, taken = mixed, answers, [*taken, run]
    return state, table, tried


def _verdict(run: str, score: float, accepted: bool, why: str) -> dict[str, Any]:
    return {"run": run, "macro_f1": score, "accepted": accepted, "why": why}


def macro_f1(table: pd.DataFrame) -> float:
    """Of a table with `label, p00 … p17`."""
    return scores.summarise(*scores.from_probabilities(table))["macro_f1"]


def history(paths: dict[str, Path], tried: list[dict[str, Any]], fold: int) -> pd.DataFrame:
    """A fold's history as training writes it: the epochs of all members that were accepted, one after the other."""
    accepted = [one["run"] for one in tried if one["accepted"]]
    tables = [pd.read_csv(paths[run].parent.parent / "history.csv") for run in accepted]
    joined = pd.concat(tables, ignore_index=True)
    return joined.assign(fold=fold, epoch=range(1, len(joined) + 1))


def tried_table(saved: dict[str, Any]) -> pd.DataFrame:
    """Columns `fold, run, macro_f1, accepted, why` of a soup's averaging.json."""
    rows = [{"fold": int(fold), **one} for fold, entry in saved["folds"].items() for one in entry["members"]]
    return pd.DataFrame(rows, columns=["fold", "run", "macro_f1", "accepted", "why"])
