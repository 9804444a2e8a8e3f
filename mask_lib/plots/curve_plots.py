"""Charts of how training went: losses and scores by epoch, of one run or of several, and the learning-rate finder."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from mask_lib.plots import style
from mask_lib.plots.style import BLUE, COLOURS, GREY, ORANGE

LINES = ("-", "--", ":", "-.")  # once the colours are used up


def curves(history: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Losses on the left, macro F1 on the right: a thin line a fold, a thick one for their mean.

    `history` has the columns `epoch`, `train_loss`, `val_loss`, `val_macro_f1` and, with several
    folds, `fold`. A dot marks each fold's best epoch; the title tells the best epoch of the mean.
    """
    axes = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")[1] if axes is None else axes
    losses, f1 = axes
    history = history.assign(fold=history.get("fold", 0))
    _fold_lines(losses, history, "train_loss", GREY, "training")
    _fold_lines(losses, history, "val_loss", BLUE, "validation")
    _fold_lines(f1, history, "val_macro_f1", ORANGE, "validation")
    best = history.loc[history.groupby("fold")["val_macro_f1"].idxmax()]
    f1.plot(best["epoch"], best["val_macro_f1"], "o", color=ORANGE, markersize=5, label="best epoch of a fold")
    mean = history.groupby("epoch")["val_macro_f1"].mean()
    for ax, title in ((losses, "Loss"), (f1, f"Macro F1, at best {mean.max():.3f} after epoch {mean.idxmax()}")):
        _by_epoch(ax, title).legend(frameon=False)
    return axes


def learning_rate_finder(found: pd.DataFrame, suggestion: float, ax: Axes | None = None) -> Axes:
    """Loss of `lr_finder.find_rate` against the learning rate, a dot a step, a line smoothed, the suggestion marked."""
    ax = style.styled_axes(ax, 9, 4)
    ax.plot(found["learning_rate"], found["loss"], ".", color=GREY, markersize=4, alpha=0.6, label="a step")
    ax.plot(found["learning_rate"], found["smoothed"], color=BLUE, linewidth=2.5, label="smoothed")
    ax.axvline(suggestion, color=ORANGE, linewidth=1.5, linestyle="--", label=f"suggested: {suggestion:.2g}")
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")  # the usual one writes formulas
    ax.xaxis.set_minor_formatter("")
    low, high = found["smoothed"].min(), found["smoothed"].iloc[: max(len(found) // 2, 1)].max()
    # What explodes may leave the picture, or it would flatten the rest.
    ax.set_ylim(low - 0.1 * (high - low) - 1e-3, high + 0.5 * (high - low) + 1e-3)
    ax.set(xlabel="learning rate", ylabel="loss")
    style.grid(ax)
    ax.legend(frameon=False)
    return style.set_title(ax, "How fast it can learn")


def run_curves(histories: Mapping[str, pd.DataFrame], axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Curves of runs, by name, each the mean of its folds in a band of their range."""
    axes = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")[1] if axes is None else axes
    for ax, column, title in zip(axes, ("val_loss", "val_macro_f1"), ("Validation loss", "Macro F1"), strict=True):
        lines = []
        for number, history in enumerate(histories.values()):
            colour, dashes = COLOURS[number % len(COLOURS)], LINES[number // len(COLOURS) % len(LINES)]
            by_epoch = history.groupby("epoch")[column].agg(["mean", "min", "max"])
            ax.fill_between(by_epoch.index, by_epoch["min"], by_epoch["max"], color=colour, alpha=0.12, linewidth=0)
            marker = "o" if len(by_epoch) == 1 else ""  # a line of one epoch would not be seen
            lines += ax.plot(by_epoch["mean"], color=colour, linestyle=dashes, linewidth=2, marker=marker)
        _by_epoch(ax, title)
    style.add_legend(axes[1], lines, histories)
    return axes


def _fold_lines(ax: Axes, history: pd.DataFrame, column: str, colour: str, name: str) -> None:
    """A thin line a fold and, thick, their mean, which carries the name."""
    folds = history.pivot(index="epoch", columns="fold", values=column)
    ax.plot(folds, color=colour, linewidth=1, alpha=0.45)
    label = f"{name}, mean of {folds.shape[1]} folds" if folds.shape[1] > 1 else name
    ax.plot(folds.mean(axis=1), color=colour, linewidth=2.5, label=label)


def _by_epoch(ax: Axes, title: str) -> Axes:
    """Whole epochs along x, and a title."""
    style.despine(ax).set_xlabel("epoch")
    ax.xaxis.get_major_locator().set_params(integer=True)
    style.grid(ax)
    return style.set_title(ax, title)
