"""Charts of ensembles, read back from the artists and compared with the tables they were drawn from."""

import numpy as np
import pictures
import pytest

from mask_lib.plots import ensemble_plots

pytestmark = pytest.mark.usefixtures("closed_figures")


def test_reliability_draws_the_bins_that_hold_photos_and_names_every_model(ax):
    ensemble_plots.reliability(dict.fromkeys([pictures.FORMULA, "_soup"], pictures.reliability_table()), ax)
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[0, 0], [1, 1]], *[[[0.3, 0.5], [0.9, 0.8]]] * 2]
    small, large = ax.collections[0].get_sizes()
    assert small < large
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [pictures.FORMULA, "_soup"]
    pictures.draw(ax.figure)


def test_agreement_writes_the_share_of_every_pair_but_not_of_a_member_with_itself(ax):
    ensemble_plots.agreement(pictures.shares_of([pictures.FORMULA, "b", "c"]), ax)
    written = {text.get_position(): text.get_text() for text in ax.texts}
    pairs = {(0, 1), (1, 0), (1, 2), (2, 1)}
    assert written == dict.fromkeys(pairs, "90.0%") | {(0, 2): "80.0%", (2, 0): "80.0%"}
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [pictures.FORMULA, "b", "c"]
    pictures.draw(ax.figure)
    ax.clear()
    assert not ensemble_plots.agreement(pictures.shares_of(["alone"]), ax).texts
    pictures.draw(ax.figure)


def test_contributions_stand_beside_their_member_in_order(ax):
    ensemble_plots.contributions(pictures.contribution_table(["a", pictures.FORMULA, "c"]), ax)
    places = dict(zip(ax.get_yticks(), [tick.get_text() for tick in ax.get_yticklabels()], strict=True))
    assert [places[place] for place in (0, 1, 2)] == ["a (50%)", f"{pictures.FORMULA} (50%)", "c (50%)"]
    whiskers, dots = ax.collections
    np.testing.assert_allclose(dots.get_offsets(), [[0, 0], [0.01, 1], [0.02, 2]])
    drawn = [segment[:, 0] for segment in whiskers.get_segments()]
    np.testing.assert_allclose(drawn, [[-0.02, 0.01], [-0.01, 0.02], [0, 0.03]])
    pictures.draw(ax.figure)


def test_the_expected_score_shades_its_interval_and_marks_what_is_known(ax):
    drawn = np.random.default_rng(0).normal(0.75, 0.02, 500)
    ensemble_plots.expected_score(drawn, (0.751, 0.71, 0.79), {"out of fold": 0.74, pictures.FORMULA: 0.77}, ax)
    assert sum(bar.get_height() for bar in ax.containers[0]) == 500
    assert [line.get_xdata()[0] for line in ax.lines] == [0.751, 0.74, 0.77]
    band = ax.patches[-1].get_extents().transformed(ax.transData.inverted())
    assert (band.x0, band.x1) == pytest.approx((0.71, 0.79))
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["95% interval", "expected: 0.751", "out of fold: 0.740", f"{pictures.FORMULA}: 0.770"]
    assert "0.751 (0.710 to 0.790)" in ax.get_title(loc="left")
    pictures.draw(ax.figure)
