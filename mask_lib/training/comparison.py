"""Finished runs side by side: what was run, what it gave, which differences are real, where two disagree.

Runs are compared on photos that both predicted with the same label, so one with `label_source: clean` and one with
`given` tell whether cleaning helped.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mask_lib.base import files, labels, scores
from mask_lib.data import store
from mask_lib.data.photos import files_of, thumbnails
from mask_lib.models import devices, grad_cam, predict
from mask_lib.models.checkpoint import read_checkpoint
from mask_lib.training import run_folder, runs
from mask_lib.training.run_folder import FinishedRun

LEVEL = 0.95  # of all the intervals of a table of differences together
DRAWS = 4000  # enough for the tails, which get narrower the more pairs there are
COMPARED = ("accuracy", "macro_f1")
COSTS = ("training_seconds", "photos_per_second", "peak_memory_bytes")
DIFFERENCE_COLUMNS = ["a", "b", "metric", "photos", "people", "difference", "low", "high", "p", "real"]
DISAGREEMENT_COLUMNS = ["path", "person", "label", "right_run", "right_sure", "wrong_run", "wrong", "wrong_sure"]


def settings_table(finished: Sequence[FinishedRun]) -> pd.DataFrame:
    """One row a run: `run`, the eight fields that the recipe this project grew from records, `folds` (how many were
    trained), `head` and `label_source`.
    """
    rows = []
    for run in finished:
        size = f"{run.settings.image_width} x {run.settings.image_height}"
        row = {"run": run.name, "model": run.settings.architecture, "device": run.device, "image_size": size}
        row |= {"epochs": run.settings.epochs, "k_fold": run.k_fold}
        row |= {name: getattr(run.settings, name) for name in ("batch_size", "learning_rate", "momentum")}
        row |= {"folds": run.out_of_fold["fold"].nunique(), "head": run.settings.head}
        rows.append({**row, "label_source": run.settings.label_source})
    return pd.DataFrame(rows)


def score_table(finished: Sequence[FinishedRun]) -> pd.DataFrame:
    """One row a run: `run`, model, accuracy and macro_f1, each followed by the ends of its interval by person
    (`accuracy_low`, …), `photos` scored, training_seconds, photos_per_second, peak_memory_bytes.
    """
    rows = []
    for run in finished:
        row: dict[str, Any] = {"run": run.name, "model": run.settings.architecture}
        for metric in COMPARED:
            value, low, high = run.intervals.loc[metric]
            row |= {metric: value, f"{metric}_low": low, f"{metric}_high": high}
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
                value, low, high = found.loc[name]
                row |= {side: value, f"{side}_low": low, f"{side}_high": high}
            rows.append(row)
    ends = [f"{side}{end}" for side in ("known", "unseen") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["run", "attribute", "photos", *ends])


def lost_on_looks(before: pd.DataFrame, after: pd.DataFrame) -> str:
    """What `after` really loses against `before` on unseen looks, by a paired bootstrap of people, in words, or ""."""
    unseen = (before["look"] != "").to_numpy()
    (truth, one), (_, other) = (scores.from_probabilities(table[unseen]) for table in (before, after))
    found = scores.paired_bootstrap(truth, one, other, before["person"].to_numpy()[unseen])
    rows = found.loc[list(labels.names(of_person=False))].itertuples()
    return ", ".join(f"{row.Index} {row.difference:+.1%}" for row in rows if row.high < 0)


def looks_for_people(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `look_table` as a person reads it."""
    sides = {"known": "looks in training", "unseen": "looks never seen"}
    told = {
        words: [str(scores.Score(*row)) for row in table[[side, f"{side}_low", f"{side}_high"]].to_numpy()]
        for side, words in sides.items()
    }
    return table[["run", "attribute"]].assign(**told, photos=table["photos"])


def look_summary(table: pd.DataFrame) -> str:
    """Which runs lose on looks that they never saw, in a sentence; "" for an empty table."""
    lost = [
        f"{row.run} gets {row.attribute} right on {row.known:.1%} of photos whose look it knows, and on "
        f"{row.unseen:.1%} of others ({row.unseen_low:.1%} to {row.unseen_high:.1%})"
        for row in table.itertuples()
        if row.unseen_high < row.known
    ]
    if len(table) and not lost:
        return "On looks held out from training no run does worse than on those that it knows."
    return f"On looks held out from training: {'; '.join(lost)}." if lost else ""


def for_people(table: pd.DataFrame) -> pd.DataFrame:
    """The score table as a person reads it: intervals in words, minutes, gigabytes."""
    intervals = {
        metric: [str(scores.Score(*row)) for row in table[[metric, f"{metric}_low", f"{metric}_high"]].to_numpy()]
        for metric in COMPARED
    }
    cost = {
        "photos scored": table["photos"],
        "training, minutes": (table["training_seconds"].astype("float64") / 60).round(1),
        "photos/s": table["photos_per_second"].astype("float64").round(0),
        "peak memory, GB": (table["peak_memory_bytes"].astype("float64") / 1e9).round(2),
    }
    return table[["run", "model"]].assign(**intervals, **cost).rename(columns={"macro_f1": "macro F1"})


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
    for better, worse in files.progress(pairs, what="compare", unit="pair"):
        both = common(worse, better)
        pair = {"a": worse.name, "b": better.name, "photos": len(both), "people": both["person"].nunique()}
        found = {}
        if len(both):
            columns = (both[name].to_numpy() for name in ("label", "predicted_a", "predicted_b", "person"))
            found = scores.paired_bootstrap(*columns, draws=draws, level=level).to_dict("index")
        for metric in reversed(COMPARED):
            row = found.get(metric, {"low": 0, "high": 0})
            rows.append({**pair, "metric": metric, **found.get(metric, {}), "real": row["low"] > 0 or row["high"] < 0})
    return pd.DataFrame(rows, columns=DIFFERENCE_COLUMNS)


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
    if run_a and run_b:
        return by_name[run_a], by_name[run_b]
    first = by_name.get(run_a or run_b, finished[0])
    left = [run for run in finished if run is not first]
    if not left:
        return (first,)
    other = next((run for run in left if len(common(first, run))), left[0])
    return (other, first) if run_b else (first, other)


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


def write(output_dir: Path, tables: dict[str, pd.DataFrame]) -> list[Path]:
    """Write each table as `comparison/<name>.csv` and return the paths."""
    folder = Path(output_dir) / "comparison"
    return [files.write_csv(table, folder / f"{name}.csv") for name, table in tables.items()]


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
            state, manifest = read_checkpoint(run_folder.in_use(run.folder)[fold][0])
            loaded = predict.load_network(state, manifest, devices.pick_device())
            maps[rows] = grad_cam.heatmaps(loaded.network, loaded.preprocessing, images[rows], predicted[rows])
    except (grad_cam.UnsupportedNetworkError, OSError) as error:
        return worst.head(0), images[:0], maps[:0], f"The mistakes of {run.name} cannot be explained: {error}"
    return worst, images, maps, "" if count > 0 else "explained_mistakes is 0: nothing is explained"
