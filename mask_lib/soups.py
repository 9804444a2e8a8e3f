"""A soup: one network averaged from those of several runs that started from the same weights (Wortsman et al. 2022).

Each member is taken only if the score on held-out people rises, so a soup is never worse there than
its best member. It is kept as a run of its own, which later notebooks treat as any other.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mask_lib import averaging, config, files, inference, lineage, models, runs, scores, trainable
from mask_lib.lineage import MADE_OF, SOUP_OF
from mask_lib.picks import Bench, is_soup, open_benches, without_place

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
    settings = [inference.run_settings(output_dir, run) for run in members]
    _check_names(output_dir, soup, members)
    _check_photos(settings)
    labeled, splits, benches = open_benches(data_dir, output_dir, settings[0])
    found = {run: inference.checkpoints(output_dir, run, labeled, splits) for run in members}
    common = [fold for fold in benches if all(fold in paths for paths in found.values())]
    if not common:
        raise ValueError(f"{', '.join(members)} were trained on different folds and have none in common")
    for fold in common:
        averaging.check_alike([found[run][fold] for run in members], SAME)
    made_of = {run: lineage.answers(runs.folder_of(output_dir, run), common) for run in members}
    whole = dataclasses.replace(settings[0], run=soup, folds=tuple(common))
    folder = runs.folder_of(output_dir, soup)
    (folder / "scores.json").unlink(missing_ok=True)  # not finished until it is written again
    files.write_json({SOUP_OF: list(members), "folds": {}}, folder / lineage.AVERAGING)
    entries = {}
    for fold in files.progress(common, what=f"soup {soup}", unit="fold"):
        entries[str(fold)] = write_fold({run: found[run][fold] for run in members}, benches[fold], whole, folder)
    saved = {SOUP_OF: list(members), MADE_OF: made_of, "folds": entries}
    files.write_json({**whole.settings(), "device": str(benches[common[0]].source.device)}, folder / "config.json")
    lineage.note_data(folder, labeled.root)
    files.write_json(saved, folder / lineage.AVERAGING)
    runs.write_scores(runs.read_result(folder, splits, common))
    return saved


def _check_names(output_dir: Path, soup: str, members: Sequence[str]) -> None:
    if len(set(members)) < 2 or len(set(members)) < len(members):
        raise ValueError(f"soup_of = {list(members)}: name at least two runs, each once")
    if soup in members or (runs.folder_of(output_dir, soup).exists() and not is_soup(output_dir, soup)):
        raise ValueError(f"soup = {soup!r}: that is a run that was trained; give the soup a name of its own")
    config.Run(run=soup)  # raises for a name that is no folder's


def _check_photos(settings: Sequence[config.Run]) -> None:
    """Raise ValueError that names two members that learned from other photos or labels."""
    asked = [{name: one.settings()[name] for name in trainable.SETTINGS} for one in settings]
    for one, other in zip(settings, asked, strict=True):
        if reasons := config.changed(asked[0], other):
            names = f"{settings[0].run} and {one.run}"
            raise ValueError(f"{names} were trained on other photos or labels ({'; '.join(reasons)}): no soup of both")


def write_fold(paths: dict[str, Path], bench: Bench, settings: config.Run, folder: Path) -> dict[str, Any]:
    """Make one fold's soup and write its checkpoint, oof.csv and history.csv; returns its entry in averaging.json."""
    manifest = models.read_manifest(next(iter(paths.values())))
    state, table, tried = greedy(paths, bench)
    home = folder / f"fold{manifest['fold']}"
    about = {**without_place(manifest), "run": settings.settings(), "members": tried}
    models.write_checkpoint(home / "checkpoint" / f"{NAME}.safetensors", state, about)
    files.write_csv(table, home / "oof.csv")
    files.write_csv(history(paths, tried, manifest["fold"]), home / "history.csv")
    found = scores.summarise(*scores.from_probabilities(table))
    return {"members": tried, "scores": {NAME: found}, "picked": NAME}


def greedy(paths: dict[str, Path], bench: Bench) -> tuple[State, pd.DataFrame, list[dict[str, Any]]]:
    """(weights, out-of-fold table, what was tried) of the greedy soup of checkpoints, by run.

    Starting from the best, each is averaged in, batch-norm statistics refreshed on training photos,
    and kept if the macro F1 on the fold's val photos is higher than before.
    """
    alone = {run: bench.out_of_fold(*models.read_checkpoint(path)) for run, path in paths.items()}
    score = {run: macro_f1(table) for run, table in alone.items()}
    first, *others = sorted(paths, key=lambda run: -score[run])
    (state, manifest), table = models.read_checkpoint(paths[first]), alone[first]
    taken, tried = [first], [_verdict(first, score[first], True, "the best alone")]
    for run in others:
        members = [paths[one] for one in [*taken, run]]
        mixed = bench.refreshed(averaging.mean_state(members, same=()), manifest)
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
