"""Curves of training, read back from the artists and compared with the histories they were drawn from."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pictures
import pytest

from mask_lib.plots import curve_plots

pytestmark = pytest.mark.usefixtures("closed_figures")


def runs_of(count: int) -> dict[str, pd.DataFrame]:
    return {f"_run {number}": pictures.history_table(folds=number + 1, epochs=3 + number) for number in range(count)}


def test_curves_are_the_history_and_its_mean_over_folds():
    history = pictures.history_table()
    axes = plt.subplots(1, 2)[1]
    assert curve_plots.curves(history, axes) is axes
    for ax, columns in zip(axes, (["train_loss", "val_loss"], ["val_macro_f1"]), strict=True):
        drawn = [line.get_xydata().tolist() for line in ax.lines]
        for column in columns:
            for _, fold in history.groupby("fold"):
                assert fold[["epoch", column]].to_numpy(dtype=float).tolist() in drawn
            mean = history.groupby("epoch")[column].mean()
            (thick,) = [line for line in ax.lines if line.get_linewidth() > 2 and np.allclose(line.get_ydata(), mean)]
            assert thick.get_xdata().tolist() == mean.index.tolist()


def test_best_epochs_are_marked_and_that_of_the_mean_is_told():
    f1 = curve_plots.curves(pictures.history_table())[1]
    (dots,) = [line for line in f1.lines if line.get_marker() == "o"]
    by_fold = pictures.history_table().pivot(index="epoch", columns="fold", values="val_macro_f1")
    assert dots.get_xydata().tolist() == [[by_fold[fold].idxmax(), by_fold[fold].max()] for fold in by_fold]
    mean = by_fold.mean(axis=1)
    assert f1.get_title(loc="left") == f"Macro F1, at best {mean.max():.3f} after epoch {mean.idxmax()}"


def test_one_folds_own_history_file_is_enough():
    history = pictures.history_table(folds=1).drop(columns="fold")
    assert np.allclose(curve_plots.curves(history)[1].lines[0].get_ydata(), history["val_macro_f1"])


def test_the_learning_rate_finder_shows_each_step_and_the_suggestion(ax):
    found = pictures.finder_table()
    curve_plots.learning_rate_finder(found, 0.01, ax)
    steps, smoothed, suggested = ax.get_lines()
    np.testing.assert_array_equal(steps.get_xydata(), found[["learning_rate", "loss"]])
    np.testing.assert_array_equal(smoothed.get_xydata(), found[["learning_rate", "smoothed"]])
    assert suggested.get_xdata() == [0.01, 0.01]
    assert "suggested: 0.01" in [text.get_text() for text in ax.get_legend().get_texts()]
    assert ax.get_xscale() == "log"
    low, high = ax.get_ylim()  # what explodes does not flatten the rest
    assert low < found["smoothed"].min() < found["smoothed"][0] < high < 100


def test_curves_of_runs_are_the_means_of_their_folds_in_their_range():
    histories = runs_of(3)
    losses, f1 = curve_plots.run_curves(histories)
    for ax, column in ((losses, "val_loss"), (f1, "val_macro_f1")):
        for line, band, history in zip(ax.lines, ax.collections, histories.values(), strict=True):
            by_epoch = history.groupby("epoch")[column]
            np.testing.assert_allclose(line.get_ydata(), by_epoch.mean())
            assert list(line.get_xdata()) == sorted(set(history["epoch"]))
            heights = band.get_paths()[0].vertices[:, 1]
            assert heights.max() == pytest.approx(history[column].max())
            assert heights.min() == pytest.approx(history[column].min())
    assert [text.get_text() for text in f1.get_legend().get_texts()] == list(histories)


def test_many_runs_are_told_apart_by_dashes_and_one_of_a_single_epoch_is_a_dot():
    lines = curve_plots.run_curves(runs_of(12))[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 12
    losses, _ = curve_plots.run_curves({"short": pictures.history_table(epochs=1)})
    assert losses.lines[0].get_marker() == "o"
