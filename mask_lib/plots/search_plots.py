"""Charts of the search for an augmentation policy: its history, what good policies use, its verdict, and a policy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mask_lib.augment.policy import OPERATIONS, Policy, operation_shares
from mask_lib.plots import style
from mask_lib.plots.style import BLUE, GREY, INK, ORANGE, PURPLE, counted, plain

NO_MAGNITUDE = -0.1  # where an operation without one stands


def search_history(trials: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """A dot a policy of `search.trials_table`, a line for the best so far; a cross at the bottom: stopped early."""
    ax = style.styled_axes(ax, 9, 4)
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
    style.grid(ax)
    ax.legend(frameon=False)
    return style.set_title(ax, f"{counted(int((trials['trial'] > 0).sum()), 'policy', 'policies')} searched")


def operation_importance(importance: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Bars of a table with `operation`, `correlation` of its use with the score in [-1, 1], and count of `policies`."""
    table = importance.iloc[::-1]
    ax = style.styled_axes(ax, 9, 0.9 + 0.32 * max(len(table), 2))
    colours = [BLUE if value >= 0 else ORANGE for value in table["correlation"]]
    bars = ax.barh(range(len(table)), table["correlation"], color=colours, height=0.7)
    notes = [counted(int(number), "policy", "policies") for number in table["policies"]]
    ax.bar_label(bars, notes, padding=3, fontsize=8, color=INK)
    ax.set_yticks(range(len(table)), [plain(name).replace("_", " ") for name in table["operation"]])
    ax.axvline(0, color=INK, linewidth=1)
    ax.set(xlim=(-1.25, 1.25), xlabel="rank correlation of its use with the score")
    return style.set_title(ax, "Operations that good policies use more, and less")


def verdict(found: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Differences in macro F1 with intervals, candidates against references, of `policy_search.reach_verdict`."""
    differences = pd.DataFrame(found["differences"]).T
    ax = style.styled_axes(ax, 9, 0.9 + 0.45 * len(differences))
    style.interval_rows(ax, differences, list(differences.index))
    ax.set_xlabel("difference in macro F1")
    return style.set_title(ax, f"With {counted(found['seeds'], 'seed')} each, intervals by person and seed")


def policy(policy: Policy, ax: Axes | None = None) -> Axes:
    """A dot for each operation and magnitude of an augmentation policy, as large as the share of photos that meet it.

    A magnitude that each photo draws is a line over its range; an operation without one has its dot left of 0.
    """
    shares = operation_shares(policy).fillna({"low": NO_MAGNITUDE})
    names = list(dict.fromkeys(shares["operation"]))
    ax = style.styled_axes(ax, 9, 1.4 + 0.3 * max(len(names), 2))
    for row in shares.itertuples():
        place, ends, width = names.index(row.operation), [row.low, row.high], 1 + 12 * row.share
        if row.low < row.high:
            ax.plot(ends, [place, place], color=BLUE, linewidth=width, solid_capstyle="round", alpha=0.6)
        else:
            ax.scatter([row.low], [place], s=20 + 600 * row.share, color=BLUE, alpha=0.6, linewidth=0)
    for place, share in enumerate(shares.groupby("operation", sort=False)["share"].sum()):
        ax.annotate(f"{share:.0%}", (1.08, place), ha="left", va="center", fontsize=8, color=INK)
    ax.set_yticks(range(len(names)), [OPERATIONS[name].description for name in names])
    ax.set(xlim=(-0.2, 1.2), xlabel="magnitude", xticks=[NO_MAGNITUDE, 0, 0.5, 1], xticklabels=["none", "0", "½", "1"])
    ax.invert_yaxis()
    style.grid(ax, "x")
    return style.set_title(ax, f"{plain(policy.name)}: what a photo meets, and how strongly")
