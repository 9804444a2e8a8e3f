"""Charts of scores, read back from the artists and compared with what they were drawn from."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pictures
import pytest
from matplotlib.colors import to_rgba
from sklearn.metrics import confusion_matrix

from mask_lib.base import labels
from mask_lib.base.scores import Score
from mask_lib.plots import score_plots, style

pytestmark = pytest.mark.usefixtures("closed_figures")


def test_confusion_is_scikit_learns_by_row_with_its_counts_written(ax):
    truth, predicted = pictures.predictions()
    score_plots.confusion(truth, predicted, ax)
    counts = confusion_matrix(truth, predicted, labels=range(18))
    assert np.allclose(ax.images[0].get_array(), counts / counts.sum(axis=1, keepdims=True))
    written = {tuple(map(round, text.get_position())): int(text.get_text()) for text in ax.texts}
    assert written == {(column, row): counts[row, column] for row, column in np.argwhere(counts)}
    assert sorted(line.get_ydata()[0] for line in ax.lines if line.get_xdata()[0] == 0) == [5.5, 11.5]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [labels.describe(label) for label in range(18)]
    assert ax.get_title(loc="left") == f"{(truth != predicted).sum()} mistakes in 400 photos"


def test_confusion_without_photos_of_a_class_stays_finite(ax):
    score_plots.confusion([0, 0], [0, 1], ax)
    assert np.array_equal(np.asarray(ax.images[0].get_array())[:2, :2], [[0.5, 0.5], [0, 0]])
    assert np.isfinite(ax.images[0].get_array()).all()


def test_attribute_confusions_are_those_of_each_attribute():
    truth, predicted = pictures.predictions()
    figure = score_plots.attribute_confusions(truth, predicted)
    true_parts, predicted_parts = labels.decode_all(truth), labels.decode_all(predicted)
    for ax, name in zip(figure.axes, ("mask", "gender", "age"), strict=True):
        wanted = confusion_matrix(true_parts[name], predicted_parts[name], normalize="true")
        assert np.allclose(ax.images[0].get_array(), wanted)
        right = np.mean(true_parts[name] == predicted_parts[name])
        assert ax.get_title(loc="left") == f"{name}: {right:.1%} right"
    assert plt.get_fignums() == []  # or it would be shown twice


def test_models_stand_side_by_side_with_their_whiskers(ax):
    beside = pictures.score_intervals().assign(low=0.4, high=0.5)  # an interval need not contain its value
    scores = {pictures.FORMULA: pictures.score_intervals(), "_soup": beside}
    score_plots.score_table(scores, ax)
    for line, whiskers, table in zip(ax.lines, ax.collections, scores.values(), strict=True):
        assert line.get_ydata().tolist() == table["value"].tolist()
        ends = np.array([segment[:, 1] for segment in whiskers.get_segments()])
        assert np.allclose(ends, table[["low", "high"]])
    assert (ax.lines[0].get_xdata() < ax.lines[1].get_xdata()).all()
    assert [round(place) for place in ax.lines[1].get_xdata()] == [0, 1, 2, 3, 4]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(scores)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["macro F1", "accuracy", "mask", "gender", "age"]


def test_bars_are_the_shares_of_what_was_predicted_and_lines_those_of_what_is_known(ax):
    tables = {pictures.FORMULA: pictures.certain([0, 0, 0, 5]), "_soup": pictures.certain([17, 5])}
    score_plots.predicted_shares({**tables, "empty": pictures.certain([])}, [0, 4, 4, 5, 17], ax)
    for bars, wanted in zip(ax.containers, ({0: 0.75, 5: 0.25}, {17: 0.5, 5: 0.5}, {}), strict=True):
        assert {label: bar.get_height() for label, bar in enumerate(bars) if bar.get_height()} == wanted
    known = {round(line[:, 0].mean()): line[0, 1] for line in ax.collections[0].get_segments() if line[0, 1]}
    assert known == {0: 0.2, 4: 0.4, 5: 0.2, 17: 0.2}
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [labels.describe(label) for label in range(18)]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [*tables, "empty", "training photos"]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_bars_of_several_tables_stand_side_by_side_around_their_class(ax, count):
    score_plots.predicted_shares({str(number): pictures.certain([3]) for number in range(count)}, [3], ax)
    bars = sorted((bars[3] for bars in ax.containers), key=lambda bar: bar.get_x())
    ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars]
    assert all(left[1] < right[0] for left, right in itertools.pairwise(ends))
    assert np.mean(ends) == pytest.approx(3)
    assert ends[0][0] > 2.5 and ends[-1][1] < 3.5


@pytest.mark.parametrize("most", [0, 3, 40])
def test_percentages_beside_predicted_shares_are_those_of_their_places(ax, most):
    score_plots.predicted_shares({"even": pictures.certain([*range(18), *[0] * most])}, range(18), ax)
    ax.figure.draw_without_rendering()
    for tick, place in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True):
        assert float(tick.get_text().rstrip("%")) == pytest.approx(100 * place)


def test_a_real_difference_has_another_colour_than_one_that_may_be_chance(ax):
    rows = [
        (pictures.FORMULA, "best", "macro_f1", 0.10, 0.05, 0.15, True),
        (pictures.FORMULA, "best", "accuracy", 0.30, 0.05, 0.45, True),
        ("other", "best", "macro_f1", 0.02, -0.01, 0.05, False),
        ("elsewhere", "best", "macro_f1", np.nan, np.nan, np.nan, False),
    ]
    table = pd.DataFrame(rows, columns=["a", "b", "metric", "difference", "low", "high", "real"])
    score_plots.differences(table, ax)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [f"best over {pictures.FORMULA}", "best over other"]
    whiskers, dots = ax.collections
    assert dots.get_offsets()[:, 0].tolist() == [0.10, 0.02]
    assert dots.get_facecolors().tolist() == [list(to_rgba(colour)) for colour in (style.BLUE, style.GREY)]
    assert [segment[:, 0].tolist() for segment in whiskers.get_segments()] == [[0.05, 0.15], [-0.01, 0.05]]
    assert ax.get_title(loc="left") == "1 of 2 differences beyond chance"
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row at the top
    pictures.draw(ax.figure)
    assert pictures.texts(score_plots.differences(table[:0])) == ["no two runs to compare"]


def test_reliability_draws_the_bins_that_hold_photos_and_names_every_model(ax):
    score_plots.reliability(dict.fromkeys([pictures.FORMULA, "_soup"], pictures.reliability_table()), ax)
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[0, 0], [1, 1]], *[[[0.3, 0.5], [0.9, 0.8]]] * 2]
    small, large = ax.collections[0].get_sizes()
    assert small < large
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [pictures.FORMULA, "_soup"]


def test_agreement_writes_the_share_of_every_pair_but_not_of_a_member_with_itself(ax):
    score_plots.agreement(pictures.shares_of([pictures.FORMULA, "b", "c"]), ax)
    written = {text.get_position(): text.get_text() for text in ax.texts}
    pairs = {(0, 1), (1, 0), (1, 2), (2, 1)}
    assert written == dict.fromkeys(pairs, "90.0%") | {(0, 2): "80.0%", (2, 0): "80.0%"}
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [pictures.FORMULA, "b", "c"]
    ax.clear()
    assert not score_plots.agreement(pictures.shares_of(["alone"]), ax).texts


def test_contributions_stand_beside_their_member_in_order(ax):
    score_plots.contributions(pictures.contribution_table(["a", pictures.FORMULA, "c"]), ax)
    places = dict(zip(ax.get_yticks(), [tick.get_text() for tick in ax.get_yticklabels()], strict=True))
    assert [places[place] for place in (0, 1, 2)] == ["a (50%)", f"{pictures.FORMULA} (50%)", "c (50%)"]
    whiskers, dots = ax.collections
    np.testing.assert_allclose(dots.get_offsets(), [[0, 0], [0.01, 1], [0.02, 2]])
    drawn = [segment[:, 0] for segment in whiskers.get_segments()]
    np.testing.assert_allclose(drawn, [[-0.02, 0.01], [-0.01, 0.02], [0, 0.03]])


def test_the_expected_score_shades_its_interval_and_marks_what_is_known(ax):
    drawn = np.random.default_rng(0).normal(0.75, 0.02, 500)
    score_plots.expected_score(drawn, Score(0.751, 0.71, 0.79), {"out of fold": 0.74, pictures.FORMULA: 0.77}, ax)
    assert sum(bar.get_height() for bar in ax.containers[0]) == 500
    assert [line.get_xdata()[0] for line in ax.lines] == [0.751, 0.74, 0.77]
    band = ax.patches[-1].get_extents().transformed(ax.transData.inverted())
    assert (band.x0, band.x1) == pytest.approx((0.71, 0.79))
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["95% interval", "expected: 0.751", "out of fold: 0.740", f"{pictures.FORMULA}: 0.770"]
    assert "0.751 (0.710 to 0.790)" in ax.get_title(loc="left")
