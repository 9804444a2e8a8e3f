"""Charts of searches and policies, read back from the artists and compared with what they were drawn from."""

import pictures
import pytest

from mask_lib.augment import policy
from mask_lib.plots import search_plots

pytestmark = pytest.mark.usefixtures("closed_figures")


def test_a_searchs_history_shows_the_best_so_far_and_what_no_augmentation_scores(ax):
    search_plots.search_history(pictures.trial_table(), ax)
    dots, best, plainly, stopped = ax.get_lines()
    assert list(dots.get_xdata()) == [1, 3, 4]
    assert list(best.get_ydata()) == [0.4, 0.6, 0.6]
    assert set(plainly.get_ydata()) == {0.5}
    assert list(stopped.get_xdata()) == [2]
    assert ax.get_title(loc="left") == "4 policies searched"


def test_operations_stand_in_the_order_of_their_importance(ax):
    search_plots.operation_importance(pictures.importance_table(), ax)
    assert [bar.get_width() for bar in ax.patches] == [-0.2, 0.5]  # from below
    assert [label.get_text() for label in ax.get_yticklabels()] == [pictures.FORMULA, "motion blur"]
    assert {"1 policy", "30 policies"} <= set(pictures.texts(ax))


def test_a_verdict_shows_each_difference_with_its_interval(ax):
    search_plots.verdict(pictures.verdict_found(), ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["merged - trivialaugment", "merged - none"]
    whiskers, _ = ax.collections
    assert [list(line[:, 0]) for line in whiskers.get_segments()] == [[-0.05, 0.03], [0.02, 0.2]]
    assert pictures.texts(ax) == ["-0.010", "+0.100"]


def test_a_policy_is_drawn_with_what_photos_meet(ax):
    steps = (policy.Step("rotate", 0.5, 0.2), policy.Step("invert", 0.25))
    search_plots.policy(policy.Policy("mild " + pictures.FORMULA, (steps, ())), ax)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["rotate", "invert"]
    dots = {tuple(dot.get_offsets()[0]): dot.get_sizes()[0] for dot in ax.collections}
    assert set(dots) == {(0.2, 0.0), (search_plots.NO_MAGNITUDE, 1.0)}
    assert dots[0.2, 0.0] > dots[search_plots.NO_MAGNITUDE, 1.0]
    assert {"25%", "12%"} <= set(pictures.texts(ax))
    ax = search_plots.policy(policy.PRESET_POLICIES["trivialaugment"])
    lines = [line for line in ax.lines if list(line.get_xdata()) == [0, 1]]  # magnitudes that each photo draws
    assert (len(lines), len(ax.collections)) == (11, 3)
