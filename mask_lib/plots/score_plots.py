"""Charts of how right predictions are: of runs their confusions, scores and differences, of an ensemble its members."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from mask_lib.base import labels
from mask_lib.base.scores import Score
from mask_lib.plots import style
from mask_lib.plots.style import BLUE, COLOURS, FAINT, GREY, INK, counted, plain, released

WRITTEN_MODELS = 5  # side by side; the numbers of more would overlap


def confusion(truth: Sequence[int], predicted: Sequence[int], ax: Axes | None = None) -> Axes:
    """C x C counts of (N,) labels, coloured by share of the row, with lines between values of the first attribute."""
    ax, names = style.styled_axes(ax, 10.5, 9.5), style.class_names()
    _confusion(ax, truth, predicted, names)
    ax.set_xticks(range(len(names)), names, rotation=55, ha="right", rotation_mode="anchor", fontsize=8.5)
    block = len(names) // labels.shape()[0]  # neighbouring classes that share the first attribute's value
    for edge in np.arange(block, len(names), block) - 0.5:
        ax.axhline(edge, color=INK, linewidth=1)
        ax.axvline(edge, color=INK, linewidth=1)
    wrong = int(np.not_equal(truth, predicted).sum())
    return style.set_title(ax, f"{counted(wrong, 'mistake')} in {counted(len(truth), 'photo')}")


def attribute_confusions(truth: Sequence[int], predicted: Sequence[int]) -> Figure:
    """The same for each attribute alone, side by side, each titled with its accuracy."""
    true_values, predicted_values = labels.decode_all(truth), labels.decode_all(predicted)
    figure, axes = plt.subplots(1, len(labels.names()), figsize=(12, 3.8), layout="constrained", squeeze=False)
    for ax, one in zip(axes[0], labels.attributes(), strict=True):
        true, found = true_values[one.name], predicted_values[one.name]
        _confusion(style.despine(ax), true, found, one.words)
        style.set_title(ax, f"{one.name}: {np.mean(true == found):.1%} right")
    return released(figure)


def score_table(scores: Mapping[str, pd.DataFrame], ax: Axes | None = None) -> Axes:
    """Dots with whiskers of one or more tables of `scores.bootstrap`, models side by side."""
    ax = style.styled_axes(ax, 12, 4.5)
    metrics = list(next(iter(scores.values())).index)
    step = min(0.8 / len(scores), 0.2)
    dots, above = [], {"xytext": (0, 4), "textcoords": "offset points", "ha": "center", "fontsize": 8, "color": INK}
    for number, table in enumerate(scores.values()):
        places = np.arange(len(metrics)) + (number - (len(scores) - 1) / 2) * step
        rows, colour = table.loc[metrics], COLOURS[number % len(COLOURS)]
        # Not `errorbar`, because an interval need not contain its value.
        ax.vlines(places, rows["low"], rows["high"], color=colour, linewidth=2, alpha=0.55)
        dots += ax.plot(places, rows["value"], "o", color=colour, markersize=6)
        for place, row in zip(places, rows.itertuples(), strict=True) if len(scores) <= WRITTEN_MODELS else ():
            ax.annotate(f"{row.value:.3f}", (place, max(row.value, row.high)), **above)
    ax.set_xticks(range(len(metrics)), [metric.replace("_", " ").replace("f1", "F1") for metric in metrics])
    ax.margins(x=0.06, y=0.12)
    style.grid(ax)
    clear_of_dots = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0}
    style.add_legend(ax, dots, scores, ncols=WRITTEN_MODELS, **clear_of_dots)
    return style.set_title(ax, "Scores with their intervals by person")


def differences(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """How much higher macro F1 one run has than another, of `comparison.differences`: grey unless it is real."""
    rows = table[(table["metric"] == "macro_f1") & table["difference"].notna()]
    ax = style.styled_axes(ax, 9, 1.2 + 0.36 * max(len(rows), 2))
    if rows.empty:
        return style.say(ax, "no two runs to compare")
    names = [f"{row.b} over {row.a}" for row in rows.itertuples()]
    style.interval_rows(ax, rows, names, [BLUE if real else GREY for real in rows["real"]])
    ax.set_xlabel("difference in macro F1, with its interval by person")
    return style.set_title(ax, f"{int(rows['real'].sum())} of {counted(len(rows), 'difference')} beyond chance")


def predicted_shares(tables: Mapping[str, pd.DataFrame], known: Sequence[int], ax: Axes | None = None) -> Axes:
    """Share of each class among the predictions of tables with probabilities, and as a tick among known labels."""
    ax = style.styled_axes(ax, 12, 4.2)
    at, width, bars = np.arange(labels.class_count()), 0.8 / max(len(tables), 1), []
    for number, table in enumerate(tables.values()):
        predicted = table[labels.probability_columns()].to_numpy().argmax(axis=1)
        places = at + (number - (len(tables) - 1) / 2) * width
        bars.append(ax.bar(places, style.class_shares(predicted), 0.92 * width, color=COLOURS[number % len(COLOURS)]))
    ticks = ax.hlines(style.class_shares(known), at - 0.45, at + 0.45, color=INK, linewidth=1.6)
    ax.margins(x=0.01)
    ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
    style.class_ticks(ax)
    style.add_legend(ax, [*bars, ticks], [*tables, "training photos"])
    return style.set_title(ax, "Share of each class among the predictions")


def reliability(tables: Mapping[str, pd.DataFrame], ax: Axes | None = None) -> Axes:
    """How often predictions are right, over how sure they are: a line for each table of `calibration.reliability`."""
    ax = style.styled_axes(ax, 6.5, 5.5)
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    lines = []
    for number, table in enumerate(tables.values()):
        filled, colour = table[table["photos"] > 0], COLOURS[number % len(COLOURS)]
        lines += ax.plot(filled["confidence"], filled["accuracy"], color=colour, linewidth=1.5)
        areas = 250 * filled["photos"] / max(table["photos"].sum(), 1) + 6  # points squared
        ax.scatter(filled["confidence"], filled["accuracy"], s=areas, color=colour, zorder=3)
    ax.set(xlabel="probability of the likeliest class", ylabel="share of photos that are right")
    ax.set(xlim=(0, 1), ylim=(-0.03, 1.03))
    style.add_legend(ax, lines, tables, loc="upper left")
    return style.set_title(ax, "Sure and right: above the diagonal too modest, below it too sure")


def agreement(shares: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Heat map of an (M, M) table from `blending.agreement`: the share of photos that two members answer alike."""
    count = len(shares)
    ax = style.styled_axes(ax, 3 + 0.7 * count, 2 + 0.6 * count)
    others = shares.mask(np.eye(count, dtype=bool)).to_numpy(dtype=float)  # everyone agrees with themselves
    low, high = (np.nanmin(others), np.nanmax(others)) if count > 1 else (0, 1)
    ax.imshow(others, cmap="Blues", vmin=low - 0.02, vmax=high + 0.02)
    style.write_cells(ax, others, "{:.1%}", dark=others > (low + high) / 2 + 0.01)
    names = [plain(name) for name in shares.index]
    ax.set_xticks(range(count), names, rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(count), names)
    return style.set_title(ax, "Photos that two members answer alike")


def contributions(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """What each member adds to macro F1, from `blending.contributions`; left of the line at 0 it does harm."""
    ax = style.styled_axes(ax, 9, 1.4 + 0.35 * max(len(table), 2))
    style.interval_rows(ax, table, [f"{row.member} ({row.weight:.0%})" for row in table.itertuples()])
    ax.set_xlabel("macro F1 with it, less that without it")
    return style.set_title(ax, "What each member adds (its weight)")


def expected_score(drawn: Sequence[float], score: Score, known: Mapping[str, float], ax: Axes | None = None) -> Axes:
    """What an evaluation set may score: a histogram of drawn macro F1s, the interval shaded, `known` ones as lines."""
    ax = style.styled_axes(ax, 9, 3.6)
    ax.hist(drawn, bins=40, color=FAINT)
    handles = [ax.axvspan(score.low, score.high, color=BLUE, alpha=0.15)]
    handles += [ax.axvline(score.value, color=BLUE, linewidth=2)]
    names = ["95% interval", f"expected: {score.value:.3f}"]
    for colour, (name, found) in zip(COLOURS[1:], known.items(), strict=False):
        handles.append(ax.axvline(found, color=colour, linewidth=1.5, linestyle="--"))
        names.append(f"{name}: {found:.3f}")
    ax.set(xlabel="macro F1", yticks=[])
    ax.spines["left"].set_visible(False)
    style.add_legend(ax, handles, names, loc="upper left", bbox_to_anchor=(1, 1))
    return style.set_title(ax, f"Expected macro F1 on unseen people: {score}")


def _confusion(ax: Axes, truth: Sequence[int], predicted: Sequence[int], names: Sequence[str]) -> None:
    counts = confusion_matrix(truth, predicted, labels=range(len(names)))  # (K, K), a row a true class
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    style.write_cells(ax, np.where(counts > 0, counts, np.nan), "{:,.0f}", dark=shares > 0.55)
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="predicted", ylabel="true")
