"""Charts of the photos: their classes, ages and sizes, what is wrong with them, and how folds divide them."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mask_lib.base import labels
from mask_lib.plots import style
from mask_lib.plots.style import BLUE, COLOURS, GREY, INK, counted, plain, released

MOST_SIZES = 6  # shown one by one


def class_counts(photos: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Bars of photos a class, coloured by the first attribute, with its people; columns `label` and `person`."""
    ax = style.styled_axes(ax, 12, 5)
    classes = range(labels.class_count())
    found = photos.groupby("label")["person"].agg(["size", "nunique"]).reindex(classes, fill_value=0)
    colours = [COLOURS[labels.decode(label)[0] % len(COLOURS)] for label in classes]
    bars = ax.bar(classes, found["size"], color=colours, width=0.8)
    notes = [f"{count:,}\n{counted(people, 'person', 'people')}" for count, people in found.to_numpy()]
    ax.bar_label(bars, notes, fontsize=7.5, color=INK, padding=2)
    ax.margins(x=0.01, y=0.12)
    style.class_ticks(ax)
    ax.set_ylabel("photos")
    ax.yaxis.set_major_formatter("{x:,.0f}")
    everyone = counted(photos["person"].nunique(), "person", "people")
    return style.set_title(ax, f"{counted(len(photos), 'photo')} of {everyone}")


def class_changes(before: Sequence[int], after: Sequence[int], ax: Axes | None = None) -> Axes:
    """Photos of each label before and after cleaning, which drops some, with the difference above where it is not 0."""
    ax = style.styled_axes(ax, 12, 4.2)
    at = np.arange(labels.class_count())
    old, new = (np.bincount(np.asarray(part, dtype=np.int64), minlength=len(at)) for part in (before, after))
    bars = [ax.bar(at - 0.2, old, 0.38, color=GREY), ax.bar(at + 0.2, new, 0.38, color=BLUE)]
    above = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center", "va": "bottom", "fontsize": 8}
    for place in np.flatnonzero(old != new):
        ax.annotate(f"{new[place] - old[place]:+,}", (place, max(old[place], new[place])), color=INK, **above)
    ax.margins(x=0.01, y=0.1)
    ax.set_ylabel("photos")
    ax.yaxis.set_major_formatter("{x:,.0f}")
    style.class_ticks(ax)
    style.add_legend(ax, bars, ["as given", "cleaned"])
    return style.set_title(ax, f"Classes before and after: {counted(len(before), 'photo')} given, {len(after):,} kept")


def suspect_precision(was_wrong: Sequence[bool], last: int = 50, ax: Axes | None = None) -> Axes:
    """The share of suspects, in the order they were decided on, that were wrong: of all so far and of the `last`."""
    ax, wrong = style.styled_axes(ax, 9, 3.2), pd.Series(np.asarray(was_wrong, dtype=np.float64))
    if wrong.empty:
        return style.say(ax, "no suspect has been decided on yet")
    at = np.arange(1, len(wrong) + 1)
    lines = [ax.plot(at, wrong.expanding().mean(), color=GREY)[0]]
    lines += ax.plot(at, wrong.rolling(last, min_periods=1).mean(), color=BLUE)
    ax.set(xlabel="suspects decided on", ylabel="share wrong", ylim=(-0.03, 1.03))
    style.add_legend(ax, lines, ["of all", f"of the last {last}"])
    return style.set_title(ax, f"{wrong.tail(last).mean():.0%} of the last {min(last, len(wrong))} suspects were wrong")


def number_histogram(photos: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """People by the attribute that is a number (age in years), if there is one, stacked by another of theirs.

    `photos` has the columns `person`, `label` and the number's name; each person counts once.
    """
    ax, number = style.styled_axes(ax, 9, 4), labels.number()
    if number is None:
        return style.say(ax, "no attribute is a number")
    people = photos.drop_duplicates("person")
    values, by = people[number.name].to_numpy(), [name for name in labels.names(of_person=True) if name != number.name]
    parts = labels.decode_all(people["label"].to_numpy())[by[0]] if by else np.zeros(len(people), dtype=np.int64)
    words = labels.attribute(by[0]).words if by else ("people",)
    stacked = [values[parts == value] for value in range(len(words))]
    names = [f"{word} ({len(part):,})" for word, part in zip(words, stacked, strict=True)]
    bins = np.arange(int(values.min()), int(values.max()) + 2) - 0.5  # one bar a year
    ax.hist(stacked, bins=bins, stacked=True, color=COLOURS[: len(words)], label=names, rwidth=0.9)
    for edge in number.edges:
        ax.axvline(edge - 0.5, color=INK, linewidth=1, linestyle="--")  # left of the bar that starts the next group
        ax.annotate(f"{edge} ", (edge - 0.5, 1), xycoords=("data", "axes fraction"), ha="right", va="top", color=INK)
    ax.set(xlabel=number.name, ylabel="people")
    ax.legend(frameon=False)
    return style.set_title(ax, f"{counted(len(people), 'person', 'people')} by {' and '.join([number.name, *by[:1]])}")


def sizes_and_brightness(sizes: np.ndarray, brightness: np.ndarray, splits: Sequence[str]) -> Figure:
    """By split, photos of (N, 2) width and height in pixels, most frequent first, and (N,) mean grey levels 0-255."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 3.6), layout="constrained", width_ratios=(1, 2))
    left, right = (style.despine(ax) for ax in axes)
    names = list(dict.fromkeys(splits))
    table = pd.DataFrame({"size": [f"{width} × {height}" for width, height in sizes], "split": list(splits)})
    counts = table.value_counts(["size", "split"]).unstack(fill_value=0)
    counts = counts.loc[counts.sum(axis=1).nlargest(MOST_SIZES).index, names]
    starts = counts.cumsum(axis=1) - counts
    for name, colour in zip(names, COLOURS, strict=False):
        left.barh(list(counts.index), counts[name], left=starts[name], color=colour, height=0.6)
        of_split = brightness[np.asarray(splits) == name]
        right.hist(of_split, np.arange(0, 261, 5), density=True, color=colour, alpha=0.55, label=name)
    left.invert_yaxis()
    left.xaxis.set_major_formatter("{x:,.0f}")
    right.set(xlabel="mean brightness, grey levels", yticks=[])
    right.legend(frameon=False)
    others = table["size"].nunique() - len(counts)
    style.set_title(left, "Size in pixels" + (f", {others:,} more sizes" if others else ""))
    style.set_title(right, "Brightness, each split's share")
    return released(figure)


def problems(problems: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Bars of how often each kind of `problem` was found; the columns are `path`, `problem`, `detail`."""
    counts = problems["problem"].value_counts().sort_values()
    ax = style.styled_axes(ax, 9, 0.6 + 0.35 * max(len(counts), 2))
    if counts.empty:
        return style.say(ax, "nothing found")
    bars = ax.barh(range(len(counts)), counts, color=BLUE, height=0.7)
    ax.bar_label(bars, [f"{count:,}" for count in counts], padding=3, color=INK)
    ax.set_yticks(range(len(counts)), [plain(kind) for kind in counts.index])
    ax.margins(x=0.08)
    ax.xaxis.set_visible(False)  # the counts are written
    ax.spines["bottom"].set_visible(False)
    return style.set_title(ax, f"{counted(len(problems), 'problem')} found")


def fold_balance(splits: Mapping[int, pd.DataFrame], ax: Axes | None = None) -> Axes:
    """Each class's share of a fold's validation part over its share of all; columns `label` and `split`."""
    ax = style.styled_axes(ax, 12, 1.9 + 0.4 * len(splits))
    parts = [(split.loc[split["split"] == "val", "label"], split["label"]) for split in splits.values()]
    validated, whole = (np.array([style.class_shares(one) for one in part]) for part in zip(*parts, strict=True))
    ratios = np.divide(validated, whole, out=np.full(whole.shape, np.nan), where=whole > 0)  # (folds, C)
    limit = max(np.nanmax(np.abs(ratios - 1), initial=0), 0.05)  # below 5% no colour should cry out
    image = ax.imshow(ratios, cmap="RdBu_r", vmin=1 - limit, vmax=1 + limit, aspect="auto")
    style.write_cells(ax, ratios, "{:.2f}", dark=np.abs(ratios - 1) > 0.7 * limit)
    style.class_ticks(ax)
    ax.set_yticks(range(len(splits)), [f"fold {fold}" for fold in splits])
    ax.figure.colorbar(image, ax=ax, pad=0.01, label="share in fold / share in all")
    return style.set_title(ax, "Balance of the validation folds")
