"""The one look of what a notebook shows. Names of files, kinds and runs are untrusted: shown as they are written."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mask_lib.base import labels

INK, GREY = "#2b2f33", "#8a8f94"
BLUE, ORANGE, GREEN, PURPLE, FAINT = "#33658a", "#e07a1f", "#55a868", "#b79ae0", "#d9dcdf"
# They differ in lightness too: without red or green receptors (deuteranopia) hues alone do not tell them apart.
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#8c2f2f", "#ecd06f", "#1f4c4a", GREY)
plt.rcParams["text.parse_math"] = False  # a $ in a name begins no formula
pd.set_option("display.html.use_mathjax", False)
pd.set_option("display.max_colwidth", None)  # a reason is read to its end
MARKUP = re.compile(
    r"(?P<code>`[^`\n&<>]+`)|`[^`\n]+`|[&<>\[\]`~@|\\$]|(?<!\*)\*(?!\*)|(?<!\w)_|_(?!\w)|(?i:(?<=www)\.)|:(?=//)"
)


def class_names() -> list[str]:
    """The classes in words, in order."""
    return [labels.describe(label) for label in range(labels.class_count())]


def plain(text: Any) -> str:
    """Text that can always be drawn: file names may hold control characters and broken encodings."""
    return "".join(mark if mark.isprintable() or mark == "\n" else "\N{REPLACEMENT CHARACTER}" for mark in str(text))


def markdown(text: str) -> Markdown:
    """Text for a notebook's output in which headings, lists, `**` and code are markup and nothing else is.

    No name of a file, folder or setting in it becomes HTML, a link, a picture or a formula.
    """
    return Markdown(MARKUP.sub(_inert, plain(text)).replace("``", ""))  # code beside code is one piece of code


def table_or(table: pd.DataFrame, text: str) -> pd.DataFrame | Markdown:
    """The table, or this text where it has no rows."""
    return table if len(table) else markdown(text)


def _inert(found: re.Match) -> str:
    """Code as it is; for other marks entities, or code where MathJax, which reads the finished page, is not to look."""
    if found["code"]:
        return found[0]
    return "".join(f"`{mark}`" if mark in "$\\" else mark if mark.isalnum() else f"&#{ord(mark)};" for mark in found[0])


def counted(number: int, one: str, many: str | None = None) -> str:
    """`1 photo`, `2,700 photos`; `many` is for words that take no s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def released(figure: Figure) -> Figure:
    """The figure, no longer held by pyplot, which would show it a second time under the cell."""
    plt.close(figure)
    return figure


def styled_axes(ax: Axes | None, width: float, height: float) -> Axes:
    """The given axes, or those of a new figure of this size in inches, in the one look."""
    return despine(plt.subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax)


def despine(ax: Axes) -> Axes:
    """The axes in the one look: without a frame above and on the right, the rest grey."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.tick_params(color=GREY, labelcolor=INK, labelsize=9)
    return ax


def say(ax: Axes, text: str) -> Axes:
    """A sentence in place of a chart, where there is nothing to draw; a figure without others shrinks to its line."""
    ax.set_axis_off()
    if len(ax.figure.axes) == 1:
        ax.figure.set_figheight(0.6)
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=GREY, fontsize=13)
    return ax


def grid(ax: Axes, axis: str = "y") -> None:
    """Faint lines behind the data."""
    ax.grid(axis=axis, color=FAINT, linewidth=0.6)


def set_title(ax: Axes, text: str) -> Axes:
    """The axes with a heading above the left end, as it stands."""
    ax.set_title(text, loc="left", color=INK, fontsize=11)
    return ax


def add_legend(ax: Axes, handles: Sequence[Any], names: Iterable[str], **options: Any) -> None:
    """Every name beside its handle; a legend made from labels would leave out those that begin with _."""
    ax.legend(handles, [plain(name) for name in names], frameon=False, **options)


def class_ticks(ax: Axes) -> None:
    """The classes in words below their places 0, 1 …"""
    names = class_names()
    ax.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor", fontsize=9)


def write_cells(ax: Axes, values: np.ndarray, form: str, dark: np.ndarray) -> None:
    """Write every value of a heat map that is not NaN into its cell, white on the dark ones, without a frame."""
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    for row, column in np.argwhere(~np.isnan(values)):
        colour = "white" if dark[row, column] else INK
        ax.text(column, row, form.format(values[row, column]), ha="center", va="center", fontsize=8, color=colour)


def class_shares(label_numbers: Sequence[int]) -> np.ndarray:
    """(C,) share of each class among (N,) labels."""
    counts = np.bincount(np.asarray(label_numbers, dtype=np.int64), minlength=labels.class_count())
    return counts / max(len(label_numbers), 1)


def interval_rows(ax: Axes, rows: pd.DataFrame, names: Sequence[str], colours: Sequence[str] | str = BLUE) -> None:
    """Dots with whiskers, the first row of a table at the top: columns `difference`, `low`, `high`; a line at 0."""
    places = np.arange(len(rows))
    # Not `errorbar`, because an interval need not contain its value.
    ax.hlines(places, rows["low"], rows["high"], color=colours, linewidth=2.5, alpha=0.6)
    ax.scatter(rows["difference"], places, s=36, color=colours, zorder=3)
    above = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center", "fontsize": 8, "color": INK}
    for place, value in enumerate(rows["difference"]):
        ax.annotate(f"{value:+.3f}", (value, place), **above)
    ax.axvline(0, color=INK, linewidth=1)
    ax.set_yticks(places, [plain(name) for name in names])
    ax.set_ylim(len(rows) - 0.4, -0.7)
    grid(ax, "x")
