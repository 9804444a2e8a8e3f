"""What all charts share: they draw where they are told and nowhere else, and any text."""

import matplotlib.pyplot as plt
import pandas as pd
import pictures
import pytest

from mask_lib.augment import policy
from mask_lib.base.scores import Score
from mask_lib.plots import curve_plots, data_plots, score_plots, search_plots

pytestmark = pytest.mark.usefixtures("closed_figures")
NAME = pictures.FORMULA
CHARTS = {
    "policy": lambda ax: search_plots.policy(policy.Policy(NAME, ((policy.Step("rotate", 0.5, 0.2),), ())), ax),
    "policy of nothing": lambda ax: search_plots.policy(policy.PRESET_POLICIES["none"], ax),
    "class_changes": lambda ax: data_plots.class_changes([0], [1], ax),
    "class_counts": lambda ax: data_plots.class_counts(pictures.photo_table(), ax),
    "number_histogram": lambda ax: data_plots.number_histogram(pictures.photo_table(), ax),
    "problems": lambda ax: data_plots.problems(pd.DataFrame({"path": ["a"], "problem": [NAME], "detail": ["c"]}), ax),
    "fold_balance": lambda ax: data_plots.fold_balance(pictures.one_fold(), ax),
    "confusion": lambda ax: score_plots.confusion(*pictures.predictions(), ax),
    "score_table": lambda ax: score_plots.score_table({NAME: pictures.score_intervals()}, ax),
    "learning_rate_finder": lambda ax: curve_plots.learning_rate_finder(pictures.finder_table(), 0.01, ax),
    "search_history": lambda ax: search_plots.search_history(pictures.trial_table(), ax),
    "operation_importance": lambda ax: search_plots.operation_importance(pictures.importance_table(), ax),
    "verdict": lambda ax: search_plots.verdict(pictures.verdict_found(), ax),
    "predicted_shares": lambda ax: score_plots.predicted_shares({NAME: pictures.certain([0, 1])}, [0, 1], ax),
    "reliability": lambda ax: score_plots.reliability({NAME: pictures.reliability_table()}, ax),
    "agreement": lambda ax: score_plots.agreement(pictures.shares_of([NAME, "b"]), ax),
    "agreement of one": lambda ax: score_plots.agreement(pictures.shares_of(["alone"]), ax),
    "contributions": lambda ax: score_plots.contributions(pictures.contribution_table([NAME, "b"]), ax),
    "contributions of none": lambda ax: score_plots.contributions(pictures.contribution_table([]), ax),
    "expected_score": lambda ax: score_plots.expected_score([0.7, 0.8], Score(0.75, 0.7, 0.8), {NAME: 0.7}, ax),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_drawn_into_the_given_axes_or_into_one_figure_of_its_own(name, ax):
    before = plt.get_fignums()
    assert CHARTS[name](ax) is ax and plt.get_fignums() == before
    assert pictures.draw(ax.figure)
    own = CHARTS[name](None).figure
    assert plt.get_fignums() == [*before, own.number]
