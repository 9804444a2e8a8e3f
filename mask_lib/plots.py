"""Every chart of the notebooks. Nothing here computes a result or writes a file.

Functions that draw one chart take an `ax`, or make one, and return it. Names of kinds and of runs are
untrusted text, drawn as it stands and never read as formulas.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from mask_lib import policies
from mask_lib.galleries import GREY, INK, counted, plain, released
from mask_lib.labels import (
    AGE_EDGES,
    AGE_WORDS,
    ATTRIBUTES,
    CLASS_COUNT,
    GENDER_WORDS,
    MASK_WORDS,
    PROBABILITY_COLUMNS,
    Mask,
    decode_all,
    describe,
)
from mask_lib.policies import OPERATIONS, Policy

BLUE, ORANGE, GREEN, PURPLE, FAINT = "#33658a", "#e07a1f", "#4f9d69", "#8d6a9f", "#d9dcdf"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#b5473c", "#c9a227", "#3aa6a6", GREY)
MASK_COLOURS = dict(zip(Mask, COLOURS, strict=False))
CLASS_NAMES = tuple(describe(label) for label in range(CLASS_COUNT))
WORDS = {"mask": MASK_WORDS, "gender": GENDER_WORDS, "age": AGE_WORDS}
BLOCK = CLASS_COUNT // len(Mask)  # neighbouring classes that share a mask
MOST_SIZES = 6
NO_MAGNITUDE = -0.1  # where an operation without one stands
LINES = ("-", "--", ":", "-.")  # once the colours are used up
ABOVE_DOT = {"textcoords": "offset points", "ha": "center", "fontsize": 8}
WRITTEN_MODELS = 5  # side by side; the numbers of more would overlap


def class_counts(photos: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Bars of photos a class, coloured by mask, with the number of people in each beneath its count.

    `photos` has the columns `label` (0-17) and `person`.
    """
    ax = _axes(ax, 12, 5)
    counts = photos["label"].value_counts().reindex(range(CLASS_COUNT), fill_value=0)
    people = photos.groupby("label")["person"].nunique().reindex(range(CLASS_COUNT), fill_value=0)
    colours = [MASK_COLOURS[Mask(mask)] for mask in decode_all(np.arange(CLASS_COUNT))["mask"]]
    bars = ax.bar(range(CLASS_COUNT), counts, color=colours, width=0.8)
    notes = [f"{count:,}\n{counted(person, 'person', 'people')}" for count, person in zip(counts, people, strict=True)]
    ax.bar_label(bars, notes, fontsize=7.5, color=INK, padding=2)
    ax.margins(x=0.01, y=0.12)
    _class_ticks(ax)
    ax.set_ylabel("photos")
    ax.yaxis.set_major_formatter("{x:,.0f}")
    _title(ax, f"{counted(len(photos), 'photo')} of {counted(photos['person'].nunique(), 'person', 'people')}")
    return ax


def class_changes(before: Sequence[int], after: Sequence[int], ax: Axes | None = None) -> Axes:
    """Photos a class before and after label cleaning, side by side, with the difference above where there is one.

    Both hold labels 0-17; photos that were dropped are not in `after`.
    """
    ax = _axes(ax, 12, 4.2)
    at = np.arange(CLASS_COUNT)
    old, new = (np.bincount(np.asarray(part, dtype=np.int64), minlength=CLASS_COUNT) for part in (before, after))
    bars = [ax.bar(at - 0.2, old, 0.38, color=GREY), ax.bar(at + 0.2, new, 0.38, color=BLUE)]
    for place, (left, right) in enumerate(zip(old, new, strict=True)):
        if left != right:
            above = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center", "va": "bottom", "fontsize": 8}
            ax.annotate(f"{right - left:+,}", (place, max(left, right)), color=INK, **above)
    ax.margins(x=0.01, y=0.1)
    ax.set_ylabel("photos")
    ax.yaxis.set_major_formatter("{x:,.0f}")
    _class_ticks(ax)
    _legend(ax, bars, ["as given", "cleaned"])
    _title(ax, f"Classes before and after: {counted(len(before), 'photo')} given, {len(after):,} kept")
    return ax


def age_histogram(photos: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """People by age in years, stacked by gender, with the edges of the age groups drawn.

    `photos` has the columns `person`, `age` (years) and `label`; each person counts once.
    """
    ax = _axes(ax, 9, 4)
    people = photos.drop_duplicates("person")
    gender = decode_all(people["label"].to_numpy())["gender"]
    ages = [people["age"].to_numpy()[gender == member] for member in GENDER_WORDS]
    first, last = int(people["age"].min()), int(people["age"].max())
    names = [f"{word} ({len(part):,})" for word, part in zip(GENDER_WORDS.values(), ages, strict=True)]
    edges = np.arange(first, last + 2) - 0.5  # one bar a year
    ax.hist(ages, bins=edges, stacked=True, color=COLOURS[:2], label=names, rwidth=0.9)
    for edge in AGE_EDGES:
        ax.axvline(edge - 0.5, color=INK, linewidth=1, linestyle="--")  # left of the bar that starts the next group
        ax.annotate(f"{edge} ", (edge - 0.5, 1), xycoords=("data", "axes fraction"), ha="right", va="top", color=INK)
    ax.set(xlabel="age in years", ylabel="people")
    ax.legend(frameon=False)
    _title(ax, f"{counted(len(people), 'person', 'people')} by age and gender")
    return ax


def sizes_and_brightness(sizes: np.ndarray, brightness: np.ndarray, splits: Sequence[str]) -> Figure:
    """Photos by size, the most frequent first, and by mean brightness, each split in a colour.

    sizes: (N, 2) width and height in pixels; brightness: (N,) grey levels 0-255; splits: a name a photo.
    Training and evaluation photos that differ here were not taken alike.
    """
    figure, axes = plt.subplots(1, 2, figsize=(12, 3.6), layout="constrained", width_ratios=(1, 2))
    left, right = (_clean(ax) for ax in axes)
    names = list(dict.fromkeys(splits))
    table = pd.DataFrame({"size": [f"{width} × {height}" for width, height in sizes], "split": list(splits)})
    counts = table.value_counts(["size", "split"]).unstack(fill_value=0)
    counts = counts.loc[counts.sum(axis=1).nlargest(MOST_SIZES).index, names]
    start = np.zeros(len(counts))
    for name, colour in zip(names, COLOURS, strict=False):
        left.barh(list(counts.index), counts[name], left=start, color=colour, height=0.6)
        start += counts[name].to_numpy()
        of_split = brightness[np.asarray(splits) == name]
        right.hist(of_split, np.arange(0, 261, 5), density=True, color=colour, alpha=0.55, label=name)
    left.invert_yaxis()
    left.xaxis.set_major_formatter("{x:,.0f}")
    right.set(xlabel="mean brightness, grey levels", yticks=[])
    right.legend(frameon=False)
    others = table["size"].nunique() - len(counts)
    _title(left, "Size in pixels" + (f", {others:,} more sizes" if others else ""))
    _title(right, "Brightness, each split's share")
    return released(figure)


def problems(problems: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Bars of how often each kind of `problem` was found; the columns are `path`, `problem`, `detail`."""
    counts = problems["problem"].value_counts().sort_values()
    ax = _axes(ax, 9, 0.6 + 0.35 * max(len(counts), 2))
    if counts.empty:
        ax.set_axis_off()
        ax.text(0.5, 0.5, "nothing found", transform=ax.transAxes, ha="center", va="center", color=GREY, fontsize=13)
        return ax
    _title(ax, f"{counted(len(problems), 'problem')} found")
    bars = ax.barh(range(len(counts)), counts, color=BLUE, height=0.7)
    ax.bar_label(bars, [f"{count:,}" for count in counts], padding=3, color=INK)
    ax.set_yticks(range(len(counts)), [plain(kind) for kind in counts.index], parse_math=False)
    ax.margins(x=0.08)
    ax.xaxis.set_visible(False)  # the counts are written
    ax.spines["bottom"].set_visible(False)
    return ax


def fold_balance(splits: Mapping[int, pd.DataFrame], ax: Axes | None = None) -> Axes:
    """Heat map, folds x 18 classes: a class's share of a fold's validation part over its share of all.

    `splits` maps a fold to its table with the columns `label` and `split`; 1 is perfect balance. A
    class without photos stays empty.
    """
    ax = _axes(ax, 12, 1.9 + 0.4 * len(splits))
    ratios = np.array([_share_ratios(split) for split in splits.values()])  # (folds, 18)
    limit = max(np.nanmax(np.abs(ratios - 1), initial=0), 0.05)  # below 5% no colour should cry out
    norm = TwoSlopeNorm(1, 1 - limit, 1 + limit)
    image = ax.imshow(ratios, cmap="RdBu_r", norm=norm, aspect="auto")
    _write_cells(ax, ratios, "{:.2f}", dark=np.abs(ratios - 1) > 0.7 * limit)
    _class_ticks(ax)
    ax.set_yticks(range(len(splits)), [f"fold {fold}" for fold in splits])
    _frameless(ax)
    ax.figure.colorbar(image, ax=ax, pad=0.01, label="share in fold / share in all")
    _title(ax, "Balance of the validation folds")
    return ax


def curves(history: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Losses on the left, macro F1 on the right: a thin line a fold, a thick one for their mean.

    `history` has the columns `epoch`, `train_loss`, `val_loss`, `val_macro_f1` and, with several
    folds, `fold`. A dot marks each fold's best epoch; the title tells the best epoch of the mean.
    """
    if axes is None:
        axes = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")[1]
    losses, f1 = (_clean(ax) for ax in axes)
    if "fold" not in history:
        history = history.assign(fold=0)
    _fold_lines(losses, history, "train_loss", GREY, "training")
    _fold_lines(losses, history, "val_loss", BLUE, "validation")
    _fold_lines(f1, history, "val_macro_f1", ORANGE, "validation")
    best = history.loc[history.groupby("fold")["val_macro_f1"].idxmax()]
    f1.plot(best["epoch"], best["val_macro_f1"], "o", color=ORANGE, markersize=5, label="best epoch of a fold")
    mean = history.groupby("epoch")["val_macro_f1"].mean()
    for ax, title in ((losses, "Loss"), (f1, f"Macro F1, at best {mean.max():.3f} after epoch {mean.idxmax()}")):
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(axis="y", color=FAINT, linewidth=0.6)
        ax.legend(frameon=False)
        _title(ax, title)
    return axes


def learning_rate_finder(found: pd.DataFrame, suggestion: float, ax: Axes | None = None) -> Axes:
    """Loss against a growing learning rate, dots a step and a line smoothed, with the suggested rate marked.

    `found` has the columns `learning_rate`, `loss` and `smoothed`, as `lr_finder.find` gives them.
    """
    ax = _axes(ax, 9, 4)
    ax.plot(found["learning_rate"], found["loss"], ".", color=GREY, markersize=4, alpha=0.6, label="a step")
    ax.plot(found["learning_rate"], found["smoothed"], color=BLUE, linewidth=2.5, label="smoothed")
    ax.axvline(suggestion, color=ORANGE, linewidth=1.5, linestyle="--", label=f"suggested: {suggestion:.2g}")
    ax.set_xscale("log")
    low, high = found["smoothed"].min(), found["smoothed"].iloc[: max(len(found) // 2, 1)].max()
    # What explodes may leave the picture, or it would flatten the rest.
    ax.set_ylim(low - 0.1 * (high - low) - 1e-3, high + 0.5 * (high - low) + 1e-3)
    ax.set(xlabel="learning rate", ylabel="loss")
    ax.grid(axis="y", color=FAINT, linewidth=0.6)
    ax.legend(frameon=False)
    _title(ax, "How fast it can learn")
    return ax


def run_curves(histories: Mapping[str, pd.DataFrame], axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Validation loss on the left, macro F1 on the right, a line a run: the mean of its folds in a band of their range.

    `histories` maps a run's name to a table as `curves` takes it. Raises ValueError for no run at all.
    """
    if not histories:
        raise ValueError("no runs to draw")
    if axes is None:
        axes = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")[1]
    for ax, column, title in zip(axes, ("val_loss", "val_macro_f1"), ("Validation loss", "Macro F1"), strict=True):
        lines = []
        for number, history in enumerate(histories.values()):
            colour, style = COLOURS[number % len(COLOURS)], LINES[number // len(COLOURS) % len(LINES)]
            by_epoch = history.groupby("epoch")[column].agg(["mean", "min", "max"])
            ax.fill_between(by_epoch.index, by_epoch["min"], by_epoch["max"], color=colour, alpha=0.12, linewidth=0)
            marker = "o" if len(by_epoch) == 1 else ""  # a line of one epoch would not be seen
            lines += ax.plot(
                by_epoch.index, by_epoch["mean"], color=colour, linestyle=style, linewidth=2, marker=marker
            )
        _clean(ax).set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(axis="y", color=FAINT, linewidth=0.6)
        _title(ax, title)
    _legend(axes[1], lines, histories)
    return axes


def differences(table: pd.DataFrame, ax: Axes | None = None, metric: str = "macro_f1") -> Axes:
    """A dot and an interval for each pair of runs: how much better the one is; coloured where that is real, else grey.

    `table` has the columns of `comparison.differences`; pairs without common photos are left out.
    """
    rows = table[(table["metric"] == metric) & table["difference"].notna()]
    ax = _axes(ax, 9, 1.2 + 0.36 * max(len(rows), 2))
    if rows.empty:
        ax.set_axis_off()
        ax.text(0.5, 0.5, "no two runs to compare", transform=ax.transAxes, ha="center", va="center", color=GREY)
        return ax
    for place, row in enumerate(rows.itertuples()):
        colour = BLUE if row.real else GREY
        ax.hlines(place, row.low, row.high, color=colour, linewidth=2.5, alpha=0.6)
        ax.plot(row.difference, place, "o", color=colour, markersize=6)
        ax.annotate(f"{row.difference:+.3f}", (row.difference, place), (0, 6), **ABOVE_DOT, color=INK)
    ax.axvline(0, color=INK, linewidth=1)
    names = [plain(f"{row.b} over {row.a}") for row in rows.itertuples()]
    ax.set_yticks(range(len(rows)), names, parse_math=False)
    ax.set_ylim(len(rows) - 0.4, -0.7)  # the first row of the table at the top
    ax.grid(axis="x", color=FAINT, linewidth=0.6)
    ax.set_xlabel(f"difference in {metric.replace('_', ' ').replace('f1', 'F1')}, with its interval by person")
    _title(ax, f"{int(rows['real'].sum())} of {counted(len(rows), 'difference')} beyond chance")
    return ax


def confusion(truth: Sequence[int], predicted: Sequence[int], ax: Axes | None = None) -> Axes:
    """18 x 18 counts of (N,) labels 0-17, coloured by share of the row, with lines between masks."""
    ax = _axes(ax, 10.5, 9.5)
    _confusion(ax, np.asarray(truth), np.asarray(predicted), CLASS_NAMES)
    ax.set_xticks(range(CLASS_COUNT), CLASS_NAMES, rotation=55, ha="right", rotation_mode="anchor", fontsize=8.5)
    for edge in np.arange(BLOCK, CLASS_COUNT, BLOCK) - 0.5:
        ax.axhline(edge, color=INK, linewidth=1)
        ax.axvline(edge, color=INK, linewidth=1)
    _title(ax, f"{counted(int(np.not_equal(truth, predicted).sum()), 'mistake')} in {counted(len(truth), 'photo')}")
    return ax


def attribute_confusions(truth: Sequence[int], predicted: Sequence[int]) -> Figure:
    """The same for mask, gender and age alone, side by side, each titled with its accuracy."""
    true_parts, predicted_parts = decode_all(np.asarray(truth)), decode_all(np.asarray(predicted))
    figure, axes = plt.subplots(1, len(ATTRIBUTES), figsize=(12, 3.8), layout="constrained")
    for ax, name in zip(axes, ATTRIBUTES, strict=True):
        _confusion(_clean(ax), true_parts[name], predicted_parts[name], list(WORDS[name].values()))
        _title(ax, f"{name}: {np.mean(true_parts[name] == predicted_parts[name]):.1%} right")
    return released(figure)


def score_table(scores: Mapping[str, pd.DataFrame], ax: Axes | None = None) -> Axes:
    """Several models side by side for each metric, as dots with interval whiskers.

    `scores` maps a model's name to a table from `scores.bootstrap`: indexed by metric, with the
    columns `value`, `low` and `high`, in [0, 1]. Raises ValueError for no model at all.
    """
    if not scores:
        raise ValueError("no scores to draw")
    ax = _axes(ax, 12, 4.5)
    metrics = list(next(iter(scores.values())).index)
    step = min(0.8 / len(scores), 0.2)
    dots = []
    for number, table in enumerate(scores.values()):
        places = np.arange(len(metrics)) + (number - (len(scores) - 1) / 2) * step
        colour = COLOURS[number % len(COLOURS)]
        dots.append(_dots_with_whiskers(ax, places, table.loc[metrics], colour, len(scores) <= WRITTEN_MODELS))
    ax.set_xticks(range(len(metrics)), [metric.replace("_", " ").replace("f1", "F1") for metric in metrics])
    ax.margins(x=0.06, y=0.12)
    ax.grid(axis="y", color=FAINT, linewidth=0.6)
    above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0}  # clear of the dots
    _legend(ax, dots, scores, ncols=WRITTEN_MODELS, **above)
    _title(ax, "Scores with their intervals by person")
    return ax


def predicted_shares(tables: Mapping[str, pd.DataFrame], known: Sequence[int], ax: Axes | None = None) -> Axes:
    """Share of each class among the predictions, a bar a table, with the share among known labels as a tick.

    `tables` maps a name to a table with `p00`-`p17`; `known` holds labels 0-17, such as training's.
    """
    ax = _axes(ax, 12, 4.2)
    width = 0.8 / max(len(tables), 1)
    bars = []
    for number, table in enumerate(tables.values()):
        predicted = table[list(PROBABILITY_COLUMNS)].to_numpy().argmax(axis=1)
        places = np.arange(CLASS_COUNT) + (number - (len(tables) - 1) / 2) * width
        bars.append(ax.bar(places, _shares(predicted), 0.92 * width, color=COLOURS[number % len(COLOURS)]))
    at = np.arange(CLASS_COUNT)
    ticks = ax.hlines(_shares(known), at - 0.45, at + 0.45, color=INK, linewidth=1.6)
    ax.margins(x=0.01)
    ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
    _class_ticks(ax)
    _legend(ax, [*bars, ticks], [*tables, "training photos"])
    _title(ax, "Share of each class among the predictions")
    return ax


def search_history(trials: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """A dot a policy in the order of the search, a line for the best so far, a dashed one for no augmentation.

    `trials` has the columns `trial`, `state` and `value`, as `trials.read` gives them; what was stopped
    early has no value and stands as a cross at the bottom.
    """
    ax = _axes(ax, 9, 4)
    scored, stopped = trials[trials["value"].notna()], trials[trials["value"].isna()]
    policies, plainly = scored[scored["trial"] > 0], scored[scored["trial"] == 0]
    ax.plot(policies["trial"], policies["value"], "o", color=GREY, markersize=4, alpha=0.7, label="a policy")
    ax.step(policies["trial"], policies["value"].cummax(), color=BLUE, linewidth=2, where="post", label="best so far")
    if len(plainly):
        ax.axhline(plainly["value"].iloc[0], color=ORANGE, linestyle="--", linewidth=1.5, label="no augmentation")
    if len(stopped):
        bottom = {"transform": ax.get_xaxis_transform(), "clip_on": False}
        ax.plot(stopped["trial"], np.zeros(len(stopped)), "x", color=PURPLE, label="stopped early", **bottom)
    ax.set(xlabel="policy", ylabel="score")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(axis="y", color=FAINT, linewidth=0.6)
    ax.legend(frameon=False)
    _title(ax, f"{counted(int((trials['trial'] > 0).sum()), 'policy', 'policies')} searched")
    return ax


def operation_importance(importance: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Bars of how the score of a policy goes with its use of each operation, with the number of policies beside.

    `importance` has the columns `operation`, `correlation` in [-1, 1] and `policies`.
    """
    table = importance.iloc[::-1]
    ax = _axes(ax, 9, 0.9 + 0.32 * max(len(table), 2))
    colours = [BLUE if value >= 0 else ORANGE for value in table["correlation"]]
    bars = ax.barh(range(len(table)), table["correlation"], color=colours, height=0.7)
    notes = [counted(int(number), "policy", "policies") for number in table["policies"]]
    ax.bar_label(bars, notes, padding=3, fontsize=8, color=INK)
    ax.set_yticks(range(len(table)), [plain(name).replace("_", " ") for name in table["operation"]], parse_math=False)
    ax.axvline(0, color=INK, linewidth=1)
    ax.set_xlim(-1.25, 1.25)
    ax.set_xlabel("rank correlation of its use with the score")
    _title(ax, "Operations that good policies use more, and less")
    return ax


def verdict(found: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Differences in macro F1 with their intervals, candidates against references, and a line at none.

    `found` is what `verdict.reach` returns.
    """
    differences = pd.DataFrame(found["differences"]).T.iloc[::-1]
    ax = _axes(ax, 9, 0.9 + 0.45 * len(differences))
    places = np.arange(len(differences))
    ax.hlines(places, differences["low"], differences["high"], color=BLUE, linewidth=2, alpha=0.55)
    ax.plot(differences["difference"], places, "o", color=BLUE, markersize=6)
    for place, value in zip(places, differences["difference"], strict=True):
        ax.annotate(f"{value:+.3f}", (value, place), (0, 5), textcoords="offset points", ha="center", fontsize=8)
    ax.axvline(0, color=INK, linewidth=1, linestyle="--")
    ax.set_yticks(places, [plain(name) for name in differences.index], parse_math=False)
    ax.margins(y=0.2)
    ax.set_xlabel("difference in macro F1")
    _title(ax, f"With {counted(found['seeds'], 'seed')} each, intervals by person and seed")
    return ax


def policy(policy: Policy, ax: Axes | None = None) -> Axes:
    """A dot for each operation and magnitude of an augmentation policy, as large as the share of photos that meet it.

    A magnitude that each photo draws is a line over all of them; an operation without one has its dot left of 0. On
    the right, how often a photo meets the operation at all.
    """
    shares = policies.shares(policy)
    names = list(dict.fromkeys(shares["operation"]))
    ax = _axes(ax, 9, 1.4 + 0.3 * max(len(names), 2))
    for row in shares.itertuples():
        place, drawn = names.index(row.operation), np.isnan(row.magnitude) and OPERATIONS[row.operation].unit
        if drawn:
            ax.plot([0, 1], [place, place], color=BLUE, linewidth=1 + 12 * row.share, solid_capstyle="round", alpha=0.6)
        else:
            at = NO_MAGNITUDE if np.isnan(row.magnitude) else row.magnitude
            ax.scatter([at], [place], s=20 + 600 * row.share, color=BLUE, alpha=0.6, linewidth=0)
    for place, share in enumerate(shares.groupby("operation", sort=False)["share"].sum()):
        ax.annotate(f"{share:.0%}", (1.08, place), ha="left", va="center", fontsize=8, color=INK)
    ax.set_yticks(range(len(names)), [OPERATIONS[name].words for name in names])
    ax.set(xlim=(-0.2, 1.2), xlabel="magnitude", xticks=[NO_MAGNITUDE, 0, 0.5, 1], xticklabels=["none", "0", "½", "1"])
    ax.invert_yaxis()
    ax.grid(axis="x", color=FAINT, linewidth=0.6)
    _title(ax, f"{plain(policy.name)}: what a photo meets, and how strongly")
    return ax


def reliability(tables: Mapping[str, pd.DataFrame], ax: Axes | None = None) -> Axes:
    """How often predictions are right, over how sure they are: a line a model, a dot for each bin with photos.

    `tables` maps a name to a table from `calibration.reliability` (columns `photos`, `confidence`,
    `accuracy`); the dots grow with the number of photos. On the grey diagonal both are equal.
    """
    ax = _axes(ax, 6.5, 5.5)
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    lines = []
    for number, table in enumerate(tables.values()):
        filled, colour = table[table["photos"] > 0], COLOURS[number % len(COLOURS)]
        lines += ax.plot(filled["confidence"], filled["accuracy"], color=colour, linewidth=1.5)
        areas = 250 * filled["photos"] / max(table["photos"].sum(), 1) + 6  # points squared
        ax.scatter(filled["confidence"], filled["accuracy"], s=areas, color=colour, zorder=3)
    ax.set(xlabel="probability of the likeliest class", ylabel="share of photos that are right", xlim=(0, 1))
    ax.set_ylim(-0.03, 1.03)
    _legend(ax, lines, tables, loc="lower right")
    _title(ax, "Sure and right: above the diagonal too modest, below it too sure")
    return ax


def agreement(shares: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Heat map of an (M, M) table from `choosing.agreement`: the share of photos that two members answer alike."""
    count = len(shares)
    ax = _axes(ax, 3 + 0.7 * count, 2 + 0.6 * count)
    values = shares.to_numpy(dtype=float)
    others = np.where(np.eye(count, dtype=bool), np.nan, values)  # everyone agrees with themselves
    low, high = (np.nanmin(others), np.nanmax(others)) if count > 1 else (0, 1)
    ax.imshow(others, cmap="Blues", vmin=low - 0.02, vmax=high + 0.02)
    _write_cells(ax, others, "{:.1%}", dark=others > (low + high) / 2 + 0.01)
    names = [plain(name) for name in shares.index]
    ax.set_xticks(range(count), names, rotation=35, ha="right", rotation_mode="anchor", parse_math=False)
    ax.set_yticks(range(count), names, parse_math=False)
    _frameless(ax)
    _title(ax, "Photos that two members answer alike")
    return ax


def contributions(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """What each member adds to macro F1, as dots with whiskers, from `choosing.contributions`.

    Columns `member, weight, difference, low, high`; left of the line at 0 a member does harm.
    """
    ax = _axes(ax, 9, 1.4 + 0.35 * max(len(table), 2))
    places = np.arange(len(table))[::-1]
    ax.axvline(0, color=GREY, linewidth=1, linestyle="--")
    ax.hlines(places, table["low"], table["high"], color=BLUE, linewidth=2, alpha=0.55)
    ax.plot(table["difference"], places, "o", color=BLUE, markersize=6)
    names = [f"{plain(row.member)} ({row.weight:.0%})" for row in table.itertuples()]
    ax.set_yticks(places, names, parse_math=False)
    ax.margins(y=0.15)
    ax.set_xlabel("macro F1 with it, less that without it")
    _title(ax, "What each member adds (its weight)")
    return ax


def expected_score(
    drawn: Sequence[float],
    score: tuple[float, float, float],
    known: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """What an evaluation set may score: a histogram of the draws, the interval shaded, what is known as lines.

    drawn: macro F1 of each draw, as in `expected.Expected.drawn`; score: its value, low and high; known:
    macro F1 by name where labels are known.
    """
    ax = _axes(ax, 9, 3.6)
    value, low, high = score
    ax.hist(drawn, bins=40, color=FAINT)
    handles = [ax.axvspan(low, high, color=BLUE, alpha=0.15), ax.axvline(value, color=BLUE, linewidth=2)]
    names = ["95% interval", f"expected: {value:.3f}"]
    for colour, (name, found) in zip(COLOURS[1:], (known or {}).items(), strict=False):
        handles.append(ax.axvline(found, color=colour, linewidth=1.5, linestyle="--"))
        names.append(f"{name}: {found:.3f}")
    ax.set(xlabel="macro F1", yticks=[])
    ax.spines["left"].set_visible(False)
    _legend(ax, handles, names, loc="upper left", bbox_to_anchor=(1, 1))
    _title(ax, f"Expected macro F1 on unseen people: {value:.3f} ({low:.3f} to {high:.3f})")
    return ax


def _shares(label_numbers: Sequence[int]) -> np.ndarray:
    """(18,) share of each class among labels 0-17."""
    return np.bincount(np.asarray(label_numbers, dtype=np.int64), minlength=CLASS_COUNT) / max(len(label_numbers), 1)


def _axes(ax: Axes | None, width: float, height: float) -> Axes:
    """The given axes, or those of a new figure of this size in inches, in the one look."""
    return _clean(plt.subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax)


def _clean(ax: Axes) -> Axes:
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.tick_params(color=GREY, labelcolor=INK, labelsize=9)
    return ax


def _frameless(ax: Axes) -> None:
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def _title(ax: Axes, text: str) -> None:
    ax.set_title(text, loc="left", color=INK, fontsize=11, parse_math=False)


def _legend(ax: Axes, handles: Sequence[Any], names: Iterable[str], **options: Any) -> None:
    """Every name beside its handle; a legend made from labels would leave out those that begin with _."""
    for text in ax.legend(handles, [plain(name) for name in names], frameon=False, **options).get_texts():
        text.set_parse_math(False)


def _class_ticks(ax: Axes) -> None:
    ax.set_xticks(range(CLASS_COUNT), CLASS_NAMES, rotation=35, ha="right", rotation_mode="anchor", fontsize=9)


def _share_ratios(split: pd.DataFrame) -> np.ndarray:
    """(18,) shares of the classes in `val` over those in the whole; NaN for a class without photos."""
    shares, whole = _shares(split.loc[split["split"] == "val", "label"]), _shares(split["label"])
    return np.divide(shares, whole, out=np.full(CLASS_COUNT, np.nan), where=whole > 0)


def _fold_lines(ax: Axes, history: pd.DataFrame, column: str, colour: str, name: str) -> None:
    """A thin line a fold and, thick, their mean, which carries the name."""
    folds = history.groupby("fold")
    for _, fold in folds:
        ax.plot(fold["epoch"], fold[column], color=colour, linewidth=1, alpha=0.45)
    mean = history.groupby("epoch")[column].mean()
    label = f"{name}, mean of {len(folds)} folds" if len(folds) > 1 else name
    ax.plot(mean.index, mean, color=colour, linewidth=2.5, label=label)


def _dots_with_whiskers(ax: Axes, places: np.ndarray, rows: pd.DataFrame, colour: str, written: bool) -> Any:
    """One model's dots; not `errorbar`, because an interval need not contain its value."""
    ax.vlines(places, rows["low"], rows["high"], color=colour, linewidth=2, alpha=0.55)
    (dots,) = ax.plot(places, rows["value"], "o", color=colour, markersize=6)
    for place, value, high in zip(places, rows["value"], rows["high"], strict=True):
        if written:
            top = (place, max(value, high))
            ax.annotate(f"{value:.3f}", top, (0, 4), textcoords="offset points", ha="center", fontsize=8, color=INK)
    return dots


def _confusion(ax: Axes, truth: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> None:
    counts = confusion_matrix(truth, predicted, labels=range(len(names)))  # (K, K), a row a true class
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    _write_cells(ax, np.where(counts > 0, counts, np.nan), "{:,.0f}", dark=shares > 0.55)
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="predicted", ylabel="true")
    _frameless(ax)


def _write_cells(ax: Axes, values: np.ndarray, form: str, dark: np.ndarray) -> None:
    """Write every value that is not NaN into its cell, white on the dark ones."""
    for row, column in np.argwhere(~np.isnan(values)):
        colour = "white" if dark[row, column] else INK
        ax.text(column, row, form.format(values[row, column]), ha="center", va="center", fontsize=8, color=colour)
