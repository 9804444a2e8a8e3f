"""Charts of how right predictions are: confusions, scores with their intervals, differences between runs, shares."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from mask_lib.base import labels
from mask_lib.plots import style
from mask_lib.plots.style import BLUE, COLOURS, GREY, INK, counted, released

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
    """Dots with whiskers of the tables of `scores.bootstrap`, models side by side. Raises ValueError for no model."""
    if not scores:
        raise ValueError("no scores to draw")
    ax = style.styled_axes(ax, 12, 4.5)
    metrics = list(next(iter(scores.values())).index)
    step = min(0.8 / len(scores), 0.2)
    dots = []
    for number, table in enumerate(scores.values()):
        places = np.arange(len(metrics)) + (number - (len(scores) - 1) / 2) * step
        colour = COLOURS[number % len(COLOURS)]
        dots.append(_dots_with_whiskers(ax, places, table.loc[metrics], colour, len(scores) <= WRITTEN_MODELS))
    ax.set_xticks(range(len(metrics)), [metric.replace("_", " ").replace("f1", "F1") for metric in metrics])
    ax.margins(x=0.06, y=0.12)
    style.grid(ax)
    above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0}  # clear of the dots
    style.add_legend(ax, dots, scores, ncols=WRITTEN_MODELS, **above)
    return style.set_title(ax, "Scores with their intervals by person")


def differences(table: pd.DataFrame, ax: Axes | None = None, metric: str = "macro_f1") -> Axes:
    """How much better one run is than another, with intervals, of `comparison.differences`: grey unless it is real."""
    rows = table[(table["metric"] == metric) & table["difference"].notna()]
    ax = style.styled_axes(ax, 9, 1.2 + 0.36 * max(len(rows), 2))
    if rows.empty:
        return style.say(ax, "no two runs to compare")
    names = [f"{row.b} over {row.a}" for row in rows.itertuples()]
    style.interval_rows(ax, rows, names, [BLUE if real else GREY for real in rows["real"]])
    ax.set_xlabel(f"difference in {metric.replace('_', ' ').replace('f1', 'F1')}, with its interval by person")
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


def _confusion(ax: Axes, truth: Sequence[int], predicted: Sequence[int], names: Sequence[str]) -> None:
    counts = confusion_matrix(truth, predicted, labels=range(len(names)))  # (K, K), a row a true class
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    style.write_cells(ax, np.where(counts > 0, counts, np.nan), "{:,.0f}", dark=shares > 0.55)
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="predicted", ylabel="true")


def _dots_with_whiskers(ax: Axes, places: np.ndarray, rows: pd.DataFrame, colour: str, written: bool) -> Any:
    """One model's dots; not `errorbar`, because an interval need not contain its value."""
    ax.vlines(places, rows["low"], rows["high"], color=colour, linewidth=2, alpha=0.55)
    (dots,) = ax.plot(places, rows["value"], "o", color=colour, markersize=6)
    above = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center", "fontsize": 8, "color": INK}
    for place, value, high in zip(places, rows["value"], rows["high"], strict=True) if written else ():
        ax.annotate(f"{value:.3f}", (place, max(value, high)), **above)
    return dots
