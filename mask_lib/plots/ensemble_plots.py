"""Charts of an ensemble: how sure its members are and rightly so, whether they agree, what each adds and its score."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mask_lib.plots import style
from mask_lib.plots.style import BLUE, COLOURS, FAINT, GREY, plain


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
    style.add_legend(ax, lines, tables, loc="lower right")
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


def expected_score(
    drawn: Sequence[float], score: tuple[float, float, float], known: Mapping[str, float], ax: Axes | None = None
) -> Axes:
    """What an evaluation set may score: a histogram of the draws, the interval shaded, what is known as lines.

    drawn: macro F1 of each draw; score: its value, low and high; known: macro F1 by name where labels are known.
    """
    ax, (value, low, high) = style.styled_axes(ax, 9, 3.6), score
    ax.hist(drawn, bins=40, color=FAINT)
    handles = [ax.axvspan(low, high, color=BLUE, alpha=0.15), ax.axvline(value, color=BLUE, linewidth=2)]
    names = ["95% interval", f"expected: {value:.3f}"]
    for colour, (name, found) in zip(COLOURS[1:], known.items(), strict=False):
        handles.append(ax.axvline(found, color=colour, linewidth=1.5, linestyle="--"))
        names.append(f"{name}: {found:.3f}")
    ax.set(xlabel="macro F1", yticks=[])
    ax.spines["left"].set_visible(False)
    style.add_legend(ax, handles, names, loc="upper left", bbox_to_anchor=(1, 1))
    return style.set_title(ax, f"Expected macro F1 on unseen people: {value:.3f} ({low:.3f} to {high:.3f})")
