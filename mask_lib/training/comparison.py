"""Finished runs side by side: what was run, what it gave, which differences are real, where two disagree.

Runs are compared on photos with the same label in both: `label_source: clean` and `given` tell if cleaning helped.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mask_lib.base import files, labels, scores
from mask_lib.data import store
from mask_lib.data.photos import files_of, thumbnails
from mask_lib.models import devices, grad_cam, networks, predict
from mask_lib.models.checkpoint import read_checkpoint
from mask_lib.training import run_folder, runs
from mask_lib.training.run_folder import FinishedRun

LEVEL = 0.95  # of all the intervals of a table of differences together
DRAWS = 4000  # enough for the tails, which get narrower the more pairs there are
COMPARED = ("accuracy", "macro_f1")
COSTS = ("training_seconds", "photos_per_second", "peak_memory_bytes")
# The run, the eight fields that the recipe this project grew from records, and what runs here differ in besides.
SETTINGS_COLUMNS = ["run", "model", "device", "image_size", "epochs", "k_fold", "batch_size", "learning_rate"]
SETTINGS_COLUMNS += ["momentum", "folds", "head", "label_source"]
DIFFERENCE_COLUMNS = ["a", "b", "metric", "photos", "people", "difference", "low", "high", "p", "real"]
DISAGREEMENT_COLUMNS = ["path", "person", "label", "right_run", "right_sure", "wrong_run", "wrong", "wrong_sure"]


def _with_ends(name: str) -> list[str]:
    return [name, f"{name}_low", f"{name}_high"]


def _as_text(table: pd.DataFrame, names: Mapping[str, str]) -> dict[str, list[str]]:
    """Scores and the ends of their intervals as a person reads them, each under another name."""
    found = {words: table[_with_ends(name)].to_numpy() for name, words in names.items()}
    return {words: [str(scores.Score(*row)) for row in rows] for words, rows in found.items()}


def settings_table(finished: Sequence[FinishedRun]) -> pd.DataFrame:
    """One row a run, `SETTINGS_COLUMNS`; folds: how many were trained."""
    rows = []
    for run in finished:
        settings, size = run.settings.settings(), f"{run.settings.image_width} x {run.settings.image_height}"
        about = {"run": run.name, "model": run.settings.architecture, "device": run.device, "image_size": size}
        rows.append({**settings, **about, "k_fold": run.k_fold, "folds": run.out_of_fold["fold"].nunique()})
    return pd.DataFrame(rows, columns=SETTINGS_COLUMNS)


def score_table(finished: Sequence[FinishedRun]) -> pd.DataFrame:
    """One row a run: `run`, model, accuracy and macro_f1, each followed by the ends of its interval by person
    (`accuracy_low`, …), `photos` scored, training_seconds, photos_per_second, peak_memory_bytes.
    """
    rows = []
    for run in finished:
        row: dict[str, Any] = {"run": run.name, "model": run.settings.architecture}
        for metric in COMPARED:
            row |= zip(_with_ends(metric), run.intervals.loc[metric], strict=True)
        rows.append({**row, "photos": len(run.out_of_fold), **{name: run.scores.get(name) for name in COSTS}})
    return pd.DataFrame(rows)


def look_table(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Accuracies on looks that training knew and on looks that it never saw, of tables of `run_folder.unseen_looks`.

    One row for each of them and each attribute of the photo: run, attribute, then of either side, `known` and
    `unseen`, the accuracy and its interval by person (`known_low`, …), and photos, how many are of unseen looks.
    """
    rows = []
    for run, table in tables.items():
        is_unseen = (table["look"] != "").to_numpy()
        if is_unseen.all() or not is_unseen.any():
            continue
        sides = {"known": runs.intervals(table[~is_unseen]), "unseen": runs.intervals(table[is_unseen])}
        for name in labels.names(of_person=False):
            row = {"run": run, "attribute": name, "photos": int(is_unseen.sum())}
            for side, found in sides.items():
                row |= zip(_with_ends(side), found.loc[name], strict=True)
            rows.append(row)
    columns = ["run", "attribute", "photos", *_with_ends("known"), *_with_ends("unseen")]
    return pd.DataFrame(rows, columns=columns)


def lost_on_looks(before: pd.DataFrame, after: pd.DataFrame) -> bool:
    """Whether `after` really loses against `before` on unseen looks, by a paired bootstrap of people."""
    found = scores.compare(*(table[table["look"] != ""] for table in (before, after)))
    return bool((found.loc[list(labels.names(of_person=False)), "high"] < 0).any())


def looks_for_people(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `look_table` as a person reads it."""
    told = _as_text(table, {"known": "looks in training", "unseen": "looks never seen"})
    return table[["run", "attribute"]].assign(**told, photos=table["photos"])


def look_summary(table: pd.DataFrame) -> str:
    """Which runs lose on looks that they never saw, or who comes nearest, in a sentence; "" for an empty table."""
    if table.empty:
        return ""
    lost = table[table["unseen_high"] < table["known"]]
    told = [
        f"{row.run} gets {row.attribute} right on {row.known:.1%} of photos whose look it knows, and on "
        f"{row.unseen:.1%} of others ({row.unseen_low:.1%} to {row.unseen_high:.1%})"
        for row in (lost if len(lost) else table.nsmallest(1, "unseen")).itertuples()
    ]
    none = "" if len(lost) else " no run is provably worse"
    return f"On looks held out from training{none}: {'; '.join(told)}."


def for_people(table: pd.DataFrame) -> pd.DataFrame:
    """The score table as a person reads it: intervals in words, minutes, gigabytes."""
    cost = {
        "photos scored": table["photos"],
        "training, minutes": (table["training_seconds"].astype("float64") / 60).round(1),
        "photos/s": table["photos_per_second"].astype("float64").round(0),
        "peak memory, GB": (table["peak_memory_bytes"].astype("float64") / 1e9).round(2),
    }
    return table[["run", "model"]].assign(**_as_text(table, {"accuracy": "accuracy", "macro_f1": "macro F1"}), **cost)


def common(first: FinishedRun, second: FinishedRun) -> pd.DataFrame:
    """The photos that both runs predicted, with the same label and of the same person: `path, person, label`, and of
    each run, with the endings `_a` and `_b`, `predicted` (a class) and `sure`, the probability of that.
    """
    tables = []
    for run in (first, second):
        probabilities = run.out_of_fold[labels.probability_columns()].to_numpy()  # (N, C)
        found = {"predicted": probabilities.argmax(axis=1), "sure": probabilities.max(axis=1)}
        tables.append(run.out_of_fold[["path", "person", "label"]].assign(**found))
    return tables[0].merge(tables[1], on=["path", "person", "label"], suffixes=("_a", "_b"))


def differences(finished: Sequence[FinishedRun], draws: int = DRAWS) -> pd.DataFrame:
    """For each pair and metric how much better b is than a on `common` photos, by a paired bootstrap of people.

    `DIFFERENCE_COLUMNS`; b stands first. `low` and `high` are widened for the number of pairs (Bonferroni).
    `real`: the interval lies on one side of 0. Without common photos numbers are empty.
    """
    pairs = list(itertools.combinations(finished, 2))
    level = 1 - (1 - LEVEL) / max(len(pairs), 1)
    rows = []
    for better, worse in files.progress(pairs, what="compare", unit="pair") if pairs else ():
        both = common(worse, better)
        pair = {"a": worse.name, "b": better.name, "photos": len(both), "people": both["person"].nunique()}
        columns = (both[name].to_numpy() for name in ("label", "predicted_a", "predicted_b", "person"))
        found = scores.paired_bootstrap(*columns, draws=draws, level=level).to_dict("index") if len(both) else {}
        rows += [{**pair, "metric": metric, **found.get(metric, {})} for metric in reversed(COMPARED)]
    table = pd.DataFrame(rows, columns=DIFFERENCE_COLUMNS)
    return table.assign(real=(table["low"] > 0) | (table["high"] < 0))


def difference_summary(found: pd.DataFrame) -> str:
    """A sentence for each pair in a table of differences, on macro F1; empty for none."""
    sentences = []
    for row in found[found["metric"] == "macro_f1"].itertuples():
        told = "chance may explain it" if not row.real else "more than chance explains"
        change = f"{row.difference:+.3f} ({row.low:+.3f} to {row.high:+.3f}) on {row.photos:,} photos, {told}"
        said = change if row.photos else "they share no photo"
        sentences.append(f"Macro F1 of {row.b} less that of {row.a}: {said}.")
    return " ".join(sentences)


def chosen_pair(finished: Sequence[FinishedRun], run_a: str = "", run_b: str = "") -> tuple[FinishedRun, ...]:
    """The two runs of these names; an empty one: the best left that shares photos with the other. Of one run, that.
    ValueError for a name that no finished run has, and for the same one twice.
    """
    by_name = {run.name: run for run in finished}
    for name in filter(None, (run_a, run_b)):
        if name not in by_name:
            raise ValueError(f"no finished run is called {name!r}; there are {', '.join(by_name)}")
    if run_a and run_a == run_b:
        raise ValueError(f"run_a and run_b are both {run_a!r}: name two runs, or none")
    first = by_name.pop(run_a or run_b or finished[0].name)
    left = [by_name[run_b]] if run_a and run_b else list(by_name.values())
    other = next(([run] for run in left if len(common(first, run))), left[:1])
    return (first, *other) if run_a or not run_b else (*other, first)


def disagreements(pair: Sequence[FinishedRun]) -> pd.DataFrame:
    """The `common` photos that one of two runs gets right and the other wrong, `DISAGREEMENT_COLUMNS`: first those
    whose product of `right_sure` and `wrong_sure` is highest. Empty for fewer than two runs.
    """
    if len(pair) < 2:
        return pd.DataFrame(columns=DISAGREEMENT_COLUMNS)
    both, tables = common(*pair), []
    for right, wrong in (("a", "b"), ("b", "a")):
        rows = both[(both[f"predicted_{right}"] == both["label"]) & (both[f"predicted_{wrong}"] != both["label"])]
        renamed = {f"sure_{right}": "right_sure", f"predicted_{wrong}": "wrong", f"sure_{wrong}": "wrong_sure"}
        names = {"right_run": pair["ab".index(right)].name, "wrong_run": pair["ab".index(wrong)].name}
        tables.append(rows.rename(columns=renamed).assign(**names)[DISAGREEMENT_COLUMNS])
    table = pd.concat(tables, ignore_index=True)
    order = np.argsort(-(table["right_sure"] * table["wrong_sure"]).to_numpy(), kind="stable")
    return table.iloc[order].reset_index(drop=True)


def right_alone(run: FinishedRun, table: pd.DataFrame, count: int) -> tuple[list[np.ndarray], pd.DataFrame, int, str]:
    """Photos, rows (at most `count`), number of all rows, and why nothing can be shown: of what `run` gets right. The
    photos are of the run's own data set: that of the other run may hold others under the same names.
    """
    own = table[table["right_run"] == run.name]
    shown = own.head(count)
    try:
        return thumbnails(run.photo_folder(), shown.assign(split="train")) if len(shown) else [], shown, len(own), ""
    except OSError as error:
        return [], shown.head(0), len(own), f"What {run.name} alone gets right cannot be shown: {error}."


def verdict(finished: Sequence[FinishedRun], found: pd.DataFrame) -> str:
    """Which run is best by macro F1 and which of the others it really beats; `found` is the table of differences."""
    best = finished[0]
    told = f"**{best.name}**, macro F1 {scores.Score(*best.intervals.loc['macro_f1'])}"
    if len(finished) == 1:
        return f"Only one run is finished: {told}."
    against = found[(found["b"] == best.name) & (found["metric"] == "macro_f1")]
    is_beaten, is_apart = against["real"] & (against["difference"] > 0), against["difference"].isna()
    is_worse = against["real"] & (against["difference"] < 0)  # others were scored on other photos as well
    groups = {
        "It is really better than {}.": is_beaten,
        "On the photos they share it is really worse than {}.": is_worse,
        "From {} it cannot be told apart by these people.": ~is_beaten & ~is_worse & ~is_apart,
        "With {} it shares no photo, so nothing can be said.": is_apart,
    }
    sentences = [words.format(", ".join(against["a"][rows])) for words, rows in groups.items() if rows.any()]
    return " ".join([f"The best of {len(finished)} runs is {told}.", *sentences])


def explained_mistakes(run: run_folder.FinishedRun, count: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, str]:
    """The `count` worst out-of-fold mistakes of a run, and why: (table, photos, maps of what was predicted, reason).

    The table is `scores.worst_mistakes`, with photos (N, H, W, C) uint8 and maps (N, H, W) float32 of its rows, each by
    the network of the fold that validated it, which never saw its person. `reason` is empty, or says why the rest is.
    """
    frame, worst = store.Frame.of_run(run.settings), scores.worst_mistakes(run.out_of_fold, max(count, 0))
    worst, predicted = worst.reset_index(drop=True), scores.from_probabilities(worst)[1]
    images = np.zeros((len(worst), *frame.shape), dtype=np.uint8)
    maps = np.zeros(images.shape[:3], dtype=np.float32)
    try:
        for fold, rows in worst.groupby("fold").indices.items():
            paths = files_of(run.photo_folder(), worst.iloc[rows].assign(split="train"))
            images[rows] = [store.decode(path, frame) for path in paths]
            weights, _ = run_folder.in_use(run.folder)[fold]
            loaded = predict.load_network(*read_checkpoint(weights), devices.pick_device())
            maps[rows] = grad_cam.heatmaps(loaded.network, loaded.preprocessing, images[rows], predicted[rows])
    except (networks.UnsupportedError, OSError) as error:
        return worst.head(0), images[:0], maps[:0], f"The mistakes of {run.name} cannot be explained: {error}"
    return worst, images, maps, "" if count > 0 else "explained_mistakes is 0: nothing is explained"
