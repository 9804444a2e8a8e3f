"""Which weights of each fold of a run are used: those that training chose, or an average that beats them.

What was tried, its scores and what is picked stand in the run's `averaging.json`; inference goes by it,
and `oof.csv` and `scores.json` are brought in line, so that whatever reads a run reads of the same weights.
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mask_lib import (
    averaging,
    config,
    devices,
    files,
    folds,
    inference,
    lineage,
    models,
    runs,
    scores,
    store,
    trainable,
    training,
)

NAMES = ("best", "last", "ema", "swa")  # in the order in which the first wins a tie


@dataclasses.dataclass(frozen=True)
class Bench:
    """One fold's photos on a device: what averages are refreshed and scored on."""

    split: pd.DataFrame
    source: devices.DevicePhotos

    def rows(self, part: str) -> np.ndarray:
        """(N,) rows of the store, of one part of the split."""
        return self.source.store.rows(list(self.split.loc[self.split["split"] == part, "path"]))

    def refreshed(self, state: dict[str, torch.Tensor], manifest: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The weights with batch-norm statistics of the fold's training photos."""
        loaded = inference.load(state, manifest, self.source.device)
        averaging.refresh_batch_norm(loaded, self.source, self.rows(folds.TRAIN))
        return {name: value.cpu() for name, value in loaded.network.state_dict().items()}

    def out_of_fold(self, state: dict[str, torch.Tensor], manifest: dict[str, Any]) -> pd.DataFrame:
        """Columns `path, label, p00 … p17`: what the weights say of the fold's val photos."""
        loaded = inference.load(state, manifest, self.source.device)
        validated = self.split.loc[self.split["split"] == folds.VAL, ["path", "label"]]
        return inference.probability_table(validated, loaded.predict(self.source, self.rows(folds.VAL)))


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
    return [name for name in inference.chosen_runs(output_dir, run) if run or not is_soup(output_dir, name)]


def is_soup(output_dir: Path, run: str) -> bool:
    """Whether a run was not trained but averaged from others."""
    return bool(lineage.soup_members(runs.folder_of(output_dir, run)))


def written(output_dir: Path, run: str) -> list[Path]:
    """The files that averaging left in a run's folder: the list of what was tried, and averaged weights."""
    folder = runs.folder_of(output_dir, run)
    averages = [path for name in ("swa", "soup") for path in folder.glob(f"fold[0-9]*/checkpoint/{name}.safetensors")]
    return [folder / lineage.AVERAGING, *sorted(averages)]


def open_benches(
    data_dir: Path, output_dir: Path, settings: config.Run
) -> tuple[store.Store, dict[int, pd.DataFrame], dict[int, Bench]]:
    """The labeled photos of a run, today's splits, and a bench for each of the run's folds."""
    splits = trainable.read_splits(output_dir, settings)
    labeled = inference.open_trainable(data_dir, output_dir, settings)
    source = devices.DevicePhotos(labeled, devices.pick_device())
    chosen = runs.chosen_folds(settings, splits)
    return labeled, splits, {fold: Bench(splits[fold], source) for fold in chosen}


def average_run(
    data_dir: Path, output_dir: Path, run: str, average_epochs: int = 10, first_epoch: int = 0, last_epoch: int = 0
) -> Averaged:
    """Average the kept epochs of each fold of a finished run, score what there is, and pick.

    With `checkpoint_choice: best` the weights with the highest macro F1 on the fold's val photos are
    picked; training's own win ties, so an average that is no better than its best member never is.
    Another choice is kept to. Writes `checkpoint/swa.safetensors` for each fold and `averaging.json`;
    where the pick changes, `oof.csv` and `scores.json` too. Raises as `inference.run_settings`,
    `averaging.chosen_epochs` and `averaging.mean_state` do, and ValueError for a run of other photos or
    labels than today's.
    """
    lineage.refuse_soup(output_dir, run)
    settings = inference.run_settings(output_dir, run)
    folder = runs.folder_of(output_dir, run)
    put_back_lost(folder, trainable.read_splits(output_dir, settings))
    labeled, splits, benches = open_benches(data_dir, output_dir, settings)
    picks, tables = {}, {}
    for fold, bench in files.progress(benches.items(), what=f"average {run}", unit="fold"):
        checkpoints = folder / f"fold{fold}" / "checkpoint"
        chosen = averaging.chosen_epochs(checkpoints, average_epochs, first_epoch, last_epoch)
        for path in [*chosen.values(), *candidates(checkpoints).values()]:
            inference.require_today(path, settings, labeled, splits[fold])
        if chosen:
            write_average(chosen, bench, checkpoints / "swa.safetensors")
        picks[fold], tables[fold] = judged(candidates(checkpoints), bench, settings)
    saved = {"trained": training.trained_choice(settings), "folds": {str(fold): one for fold, one in picks.items()}}
    put_to_use(folder, saved, {fold: tables[fold][one["picked"]] for fold, one in picks.items()}, splits)
    return Averaged(run, saved, joined(tables, splits))


def candidates(checkpoint_folder: Path) -> dict[str, Path]:
    """The checkpoints of a fold that can be used, by name."""
    paths = {name: checkpoint_folder / f"{name}.safetensors" for name in NAMES}
    return {name: path for name, path in paths.items() if path.exists()}


def write_average(members: dict[int, Path], bench: Bench, path: Path) -> None:
    """Write the equal mean of epochs, its batch-norm statistics refreshed, with a manifest that names them."""
    manifest = models.read_manifest(list(members.values())[-1])
    state = bench.refreshed(averaging.mean_state(list(members.values())), manifest)
    scored = {str(epoch): own_score(models.read_manifest(member), epoch) for epoch, member in members.items()}
    models.write_checkpoint(path, state, {**without_place(manifest), "members": scored})


def without_place(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest of weights that training does not go on from."""
    return {name: value for name, value in manifest.items() if name not in ("place", "optimizer_scalars", "format")}


def own_score(manifest: dict[str, Any], epoch: int) -> float:
    """Macro F1 on the fold's val photos that training noted for an epoch."""
    (row,) = (row for row in manifest["place"]["history"] if row["epoch"] == epoch)
    return row["val_macro_f1"]


def judged(
    paths: dict[str, Path], bench: Bench, settings: config.Run
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """A fold's entry in averaging.json, and what each kind of weights says of the fold's val photos."""
    read = {name: models.read_checkpoint(path) for name, path in paths.items()}
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
    replaced = any((folder / f"fold{fold}" / lineage.TRAINED).exists() for fold in new)
    if not replaced and set(new.values()) == {saved["trained"]}:
        files.write_json(saved, folder / lineage.AVERAGING)
        return
    used = {fold: None if new[fold] == saved["trained"] else table for fold, table in tables.items()}
    with rescored(folder, splits, list(tables)):
        files.write_json(saved, folder / lineage.AVERAGING)
        for fold, table in used.items():
            replace_out_of_fold(folder / f"fold{fold}", table)
    # Once more: in the chain the scores are what averaging starts from, so its own file must not be older.
    files.write_json(saved, folder / lineage.AVERAGING)


def put_back_lost(folder: Path, splits: dict[int, pd.DataFrame]) -> None:
    """Make oof.csv and scores.json of a run training's own again where averaging.json was lost.

    Snakemake deletes that file before it runs the step again. Whatever stops the step then, what is used,
    training's own weights, and what the scores are of agree.
    """
    if lost := lineage.lost_picks(folder):
        with rescored(folder, splits, lineage.trained_folds(folder)):
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
    path, trained = folder / "oof.csv", folder / lineage.TRAINED
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
