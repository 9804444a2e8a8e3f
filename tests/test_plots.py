"""What is drawn, read back from the artists and compared with the tables it was drawn from."""

import io
import itertools
import subprocess
import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from mask_lib import files, labels, plots, policies

METRICS = ["macro_f1", "accuracy", "mask", "gender", "age"]
FORMULA = "$^{$"  # between two dollar signs, and no valid formula: drawing it as one raises


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture
def ax():
    return plt.subplots()[1]


def photo_table(people: int = 30) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    rows = []
    for person in range(people):
        gender, age = int(generator.integers(2)), int(generator.integers(18, 61))
        for mask in (0, 0, 0, 0, 0, 1, 2):
            label = labels.encode(mask, gender, labels.age_group(age))
            words = (labels.key_of(labels.Mask(mask)), labels.key_of(labels.Gender(gender)))
            rows.append((f"{person:06d}/{len(rows)}.jpg", f"{person:06d}", *words, age, label, "train"))
    return pd.DataFrame(rows, columns=["path", "person", "mask", "gender", "age", "label", "split"])


def predictions(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 18, count)
    return truth, np.where(generator.random(count) < 0.7, truth, generator.integers(0, 18, count))


def history_table(folds: int = 3, epochs: int = 6) -> pd.DataFrame:
    generator = np.random.default_rng(2)
    table = pd.DataFrame([(fold, epoch) for fold in range(folds) for epoch in range(1, epochs + 1)])
    table.columns = ["fold", "epoch"]
    values = {name: generator.random(len(table)) for name in ("train_loss", "val_loss", "val_macro_f1")}
    return table.assign(**values, learning_rate=0.001)


def score_intervals(shift: float = 0.0) -> pd.DataFrame:
    value = np.array([0.70, 0.80, 0.98, 0.97, 0.85]) - shift
    columns = {"value": value, "low": value - 0.02, "high": value + 0.01}
    return pd.DataFrame(columns, index=pd.Index(METRICS, name="metric"))


def certain(predicted: list[int]) -> pd.DataFrame:
    """Probabilities that say one class each, without saying what is true."""
    return pd.DataFrame(np.eye(18)[predicted], columns=list(labels.PROBABILITY_COLUMNS))


def draw(figure: Figure) -> bytes:
    """The pixels' file: forces the texts to be laid out and drawn."""
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=40)
    return written.getvalue()


def texts(ax: plt.Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_class_bars_are_the_counts_of_photos_and_notes_those_of_people(ax):
    photos = photo_table()
    plots.class_counts(photos, ax)
    heights = [bar.get_height() for bar in ax.patches]
    assert heights == [(photos["label"] == label).sum() for label in range(18)]
    people = [photos.loc[photos["label"] == label, "person"].nunique() for label in range(18)]
    assert [int(text.split("\n")[1].split()[0]) for text in texts(ax)] == people
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [labels.describe(label) for label in range(18)]
    assert ax.get_title(loc="left") == "210 photos of 30 people"


def test_classes_of_one_mask_share_a_colour(ax):
    plots.class_counts(photo_table(), ax)
    colours = [bar.get_facecolor() for bar in ax.patches]
    assert len(set(colours)) == 3
    assert all(len(set(colours[start : start + 6])) == 1 for start in (0, 6, 12))


def test_sizes_and_brightness_show_each_split():
    sizes = np.array([[384, 512]] * 5 + [[200, 200]] * 2 + [[10 + side, 20] for side in range(6)])
    splits = ["train"] * 6 + ["eval"] * 7
    figure = plots.sizes_and_brightness(sizes, np.linspace(0, 255, 13), splits)
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()][:2] == ["384 × 512", "200 × 200"]
    widths = [[bar.get_width() for bar in bars][:2] for bars in left.containers]
    assert widths == [[5, 1], [0, 1]]  # train, then eval
    assert "2 more sizes" in left.get_title(loc="left")
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["train", "eval"]


def test_changed_classes_say_by_how_much(ax):
    before = np.repeat(np.arange(18), 3)
    after = np.where(before == 2, 5, before)[:-1]  # class 2 becomes 5, and one photo of class 17 is dropped
    plots.class_changes(before, after, ax)
    assert [text.get_text() for text in ax.texts] == ["-3", "+3", "-1"]
    old, new = ([bar.get_height() for bar in bars] for bars in ax.containers)
    assert old == [3] * 18 and new == list(np.bincount(after, minlength=18))
    assert "54 photos given, 53 kept" in ax.get_title(loc="left")


def test_ages_count_each_person_once_by_gender_with_both_edges(ax):
    photos = photo_table()
    plots.age_histogram(photos, ax)
    people = photos.drop_duplicates("person")
    first, last = people["age"].min(), people["age"].max()
    for container, gender in zip(ax.containers, ("male", "female"), strict=True):
        wanted = people.loc[people["gender"] == gender, "age"].value_counts().reindex(range(first, last + 1))
        assert [bar.get_height() for bar in container] == wanted.fillna(0).tolist()
    edges = [line.get_xdata()[0] for line in ax.lines]
    assert edges == [29.5, 59.5]  # the bars of 30 and of 60 lie to the right


def test_problem_bars_are_counts_by_kind_and_their_names_are_no_formulas(ax):
    kinds = ["unreadable"] * 3 + [f"{FORMULA}\x07"] * 2 + ["id twice"]
    plots.problems(pd.DataFrame({"path": "x", "problem": kinds, "detail": ""}), ax)
    drawn = dict(
        zip((tick.get_text() for tick in ax.get_yticklabels()), (bar.get_width() for bar in ax.patches), strict=True)
    )
    assert drawn == {"unreadable": 3, f"{FORMULA}\N{REPLACEMENT CHARACTER}": 2, "id twice": 1}
    draw(ax.figure)


def test_no_problems_says_so(ax):
    plots.problems(pd.DataFrame(columns=["path", "problem", "detail"]), ax)
    assert texts(ax) == ["nothing found"]
    assert not ax.patches


def test_fold_balance_is_the_ratio_of_shares(ax):
    photos = photo_table()
    people = photos["person"].astype(int)
    splits = {fold: photos.assign(split=np.where(people % 3 == fold, "val", "train")) for fold in range(3)}
    plots.fold_balance(splits, ax)
    drawn = ax.images[0].get_array()
    for fold, split in splits.items():
        part = split[split["split"] == "val"]
        for label in range(18):
            whole = (split["label"] == label).mean()
            wanted = (part["label"] == label).mean() / whole if whole else np.nan
            assert np.ma.filled(drawn, np.nan)[fold, label] == pytest.approx(wanted, nan_ok=True)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["fold 0", "fold 1", "fold 2"]


def test_a_class_without_photos_has_no_ratio(ax):
    split = pd.DataFrame({"path": list("abcd"), "label": [0, 1, 0, 1], "split": ["val", "val", "train", "train"]})
    plots.fold_balance({0: split}, ax)
    assert texts(ax) == ["1.00", "1.00"]
    draw(ax.figure)


def test_curves_are_the_history_and_its_mean_over_folds():
    history = history_table()
    axes = plt.subplots(1, 2)[1]
    assert plots.curves(history, axes) is axes
    for ax, columns in zip(axes, (["train_loss", "val_loss"], ["val_macro_f1"]), strict=True):
        drawn = [line.get_xydata().tolist() for line in ax.lines]
        for column in columns:
            for _, fold in history.groupby("fold"):
                assert fold[["epoch", column]].to_numpy(dtype=float).tolist() in drawn
            mean = history.groupby("epoch")[column].mean()
            (thick,) = [line for line in ax.lines if line.get_linewidth() > 2 and np.allclose(line.get_ydata(), mean)]
            assert thick.get_xdata().tolist() == mean.index.tolist()


def test_best_epochs_are_marked_and_that_of_the_mean_is_told():
    history = history_table()
    f1 = plots.curves(history)[1]
    (dots,) = [line for line in f1.lines if line.get_marker() == "o"]
    for fold, epoch, value in zip(range(3), *dots.get_data(), strict=True):
        part = history[history["fold"] == fold].set_index("epoch")["val_macro_f1"]
        assert (epoch, value) == (part.idxmax(), part.max())
    mean = history.groupby("epoch")["val_macro_f1"].mean()
    assert f1.get_title(loc="left") == f"Macro F1, at best {mean.max():.3f} after epoch {mean.idxmax()}"


def test_one_folds_own_history_file_is_enough():
    losses, f1 = plots.curves(history_table(folds=1).drop(columns="fold"))
    assert [text.get_text() for text in losses.get_legend().get_texts()] == ["training", "validation"]
    assert np.allclose(f1.lines[0].get_ydata(), history_table(folds=1)["val_macro_f1"])


def finder_table() -> pd.DataFrame:
    """A loss that falls, is lowest at a rate of 0.1, and explodes."""
    rates = np.geomspace(1e-6, 10, 71)
    loss = 1 + np.abs(np.log10(rates) + 1) ** 2 + 500.0 * (rates > 5)
    return pd.DataFrame({"learning_rate": rates, "loss": loss + 0.1 * (np.arange(71) % 2), "smoothed": loss})


def test_the_learning_rate_finder_shows_each_step_and_the_suggestion(ax):
    found = finder_table()
    plots.learning_rate_finder(found, 0.01, ax)
    steps, smoothed, suggested = ax.get_lines()
    np.testing.assert_array_equal(steps.get_xydata(), found[["learning_rate", "loss"]])
    np.testing.assert_array_equal(smoothed.get_xydata(), found[["learning_rate", "smoothed"]])
    assert suggested.get_xdata() == [0.01, 0.01]
    assert "suggested: 0.01" in [text.get_text() for text in ax.get_legend().get_texts()]
    assert ax.get_xscale() == "log"
    low, high = ax.get_ylim()
    assert low < found["smoothed"].min() < found["smoothed"][0] < high < 100  # what explodes does not flatten the rest


def test_confusion_is_scikit_learns_by_row_with_its_counts_written(ax):
    truth, predicted = predictions()
    plots.confusion(truth, predicted, ax)
    counts = confusion_matrix(truth, predicted, labels=range(18))
    wanted = confusion_matrix(truth, predicted, labels=range(18), normalize="true")
    assert np.allclose(ax.images[0].get_array(), wanted)
    written = {tuple(map(round, text.get_position())): int(text.get_text()) for text in ax.texts}
    assert written == {(column, row): counts[row, column] for row, column in np.argwhere(counts)}
    assert sorted(line.get_ydata()[0] for line in ax.lines if line.get_xdata()[0] == 0) == [5.5, 11.5]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [labels.describe(label) for label in range(18)]
    assert ax.get_title(loc="left") == f"{(truth != predicted).sum()} mistakes in 400 photos"


def test_confusion_without_photos_of_a_class_stays_finite(ax):
    plots.confusion([0, 0], [0, 1], ax)
    assert np.array_equal(np.asarray(ax.images[0].get_array())[:2, :2], [[0.5, 0.5], [0, 0]])
    assert np.isfinite(ax.images[0].get_array()).all()


def test_attribute_confusions_are_those_of_each_attribute():
    truth, predicted = predictions()
    figure = plots.attribute_confusions(truth, predicted)
    true_parts, predicted_parts = labels.decode_all(truth), labels.decode_all(predicted)
    for ax, name in zip(figure.axes, ("mask", "gender", "age"), strict=True):
        wanted = confusion_matrix(true_parts[name], predicted_parts[name], normalize="true")
        assert np.allclose(ax.images[0].get_array(), wanted)
        right = np.mean(true_parts[name] == predicted_parts[name])
        assert ax.get_title(loc="left") == f"{name}: {right:.1%} right"


def test_models_stand_side_by_side_with_their_whiskers(ax):
    scores = {FORMULA: score_intervals(), "_soup": score_intervals(0.1)}
    plots.score_table(scores, ax)
    for line, whiskers, table in zip(ax.lines, ax.collections, scores.values(), strict=True):
        assert line.get_ydata().tolist() == table["value"].tolist()
        ends = np.array([segment[:, 1] for segment in whiskers.get_segments()])
        assert np.allclose(ends, table[["low", "high"]])
    assert (ax.lines[0].get_xdata() < ax.lines[1].get_xdata()).all()
    assert [round(place) for place in ax.lines[1].get_xdata()] == [0, 1, 2, 3, 4]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(scores)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["macro F1", "accuracy", "mask", "gender", "age"]
    draw(ax.figure)


def test_an_interval_beside_its_value_is_drawn_too(ax):
    table = score_intervals().assign(high=0.5, low=0.4)
    plots.score_table({"small": table}, ax)
    assert ax.lines[0].get_ydata().tolist() == table["value"].tolist()


def test_no_models_are_refused(ax):
    with pytest.raises(ValueError, match="no scores to draw"):
        plots.score_table({}, ax)


def test_bars_are_the_shares_of_what_was_predicted_and_lines_those_of_what_is_known(ax):
    tables = {"first": certain([0, 0, 0, 5]), "second": certain([17, 5])}
    plots.predicted_shares(tables, [0, 4, 4, 5, 17], ax)
    for bars, wanted in zip(ax.containers, ({0: 0.75, 5: 0.25}, {17: 0.5, 5: 0.5}), strict=True):
        assert {label: bar.get_height() for label, bar in enumerate(bars) if bar.get_height()} == wanted
    known = {round(line[:, 0].mean()): line[0, 1] for line in ax.collections[0].get_segments() if line[0, 1]}
    assert known == {0: 0.2, 4: 0.4, 5: 0.2, 17: 0.2}
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [labels.describe(label) for label in range(18)]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_bars_of_several_tables_stand_side_by_side_around_their_class(ax, count):
    plots.predicted_shares({str(number): certain([3]) for number in range(count)}, [3], ax)
    bars = sorted((bars[3] for bars in ax.containers), key=lambda bar: bar.get_x())
    ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars]
    assert all(left[1] < right[0] for left, right in itertools.pairwise(ends))
    assert np.mean(ends) == pytest.approx(3)
    assert ends[0][0] > 2.5 and ends[-1][1] < 3.5


def test_every_run_is_in_the_legend_of_predicted_shares_whatever_its_name(ax):
    plots.predicted_shares({FORMULA: certain([3]), "_soup": certain([4])}, [3], ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [FORMULA, "_soup", "training photos"]
    draw(ax.figure)


@pytest.mark.parametrize("most", [0, 3, 40])
def test_percentages_beside_predicted_shares_are_those_of_their_places(ax, most):
    plots.predicted_shares({"even": certain([*range(18), *[0] * most])}, range(18), ax)
    ax.figure.draw_without_rendering()
    for tick, place in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True):
        assert float(tick.get_text().rstrip("%")) == pytest.approx(100 * place)


def test_nothing_predicted_and_nothing_known_is_drawn_as_nothing(ax):
    plots.predicted_shares({"empty": certain([])}, [], ax)
    assert [bar.get_height() for bar in ax.containers[0]] == [0] * 18


def reliability_table() -> pd.DataFrame:
    """Of three bins one without photos."""
    columns = {"low": [0, 1 / 3, 2 / 3], "high": [1 / 3, 2 / 3, 1], "photos": [10, 0, 30]}
    return pd.DataFrame({**columns, "confidence": [0.3, np.nan, 0.9], "accuracy": [0.5, np.nan, 0.8]})


def shares_of(names: list[str]) -> pd.DataFrame:
    values = 1 - np.abs(np.subtract.outer(np.arange(len(names)), np.arange(len(names)))) / 10
    return pd.DataFrame(values, index=names, columns=names)


def contribution_table(names: list[str]) -> pd.DataFrame:
    rows = [(name, 0.5, place / 100, place / 100 - 0.02, place / 100 + 0.01, 0.1) for place, name in enumerate(names)]
    return pd.DataFrame(rows, columns=["member", "weight", "difference", "low", "high", "p"])


def test_reliability_draws_the_bins_that_hold_photos_and_names_every_model(ax):
    plots.reliability({FORMULA: reliability_table(), "_soup": reliability_table()}, ax)
    diagonal, *lines = ax.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert [line.get_xydata().tolist() for line in lines] == [[[0.3, 0.5], [0.9, 0.8]]] * 2
    sizes = ax.collections[0].get_sizes()
    assert len(sizes) == 2 and sizes[1] > sizes[0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [FORMULA, "_soup"]
    draw(ax.figure)


def test_agreement_writes_the_share_of_every_pair_but_not_of_a_member_with_itself(ax):
    plots.agreement(shares_of([FORMULA, "b", "c"]), ax)
    written = {text.get_position(): text.get_text() for text in ax.texts}
    pairs = {(0, 1), (1, 0), (1, 2), (2, 1)}
    assert written == dict.fromkeys(pairs, "90.0%") | {(0, 2): "80.0%", (2, 0): "80.0%"}
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [FORMULA, "b", "c"]
    draw(ax.figure)


def test_a_single_member_agrees_with_nobody(ax):
    plots.agreement(shares_of(["alone"]), ax)
    assert not ax.texts
    draw(ax.figure)


def test_contributions_stand_beside_their_member_in_order(ax):
    plots.contributions(contribution_table(["a", FORMULA, "c"]), ax)
    places = dict(zip(ax.get_yticks(), [tick.get_text() for tick in ax.get_yticklabels()], strict=True))
    assert [places[place] for place in (2, 1, 0)] == ["a (50%)", f"{FORMULA} (50%)", "c (50%)"]
    dots = ax.lines[-1].get_xydata()
    np.testing.assert_allclose(dots, [[0, 2], [0.01, 1], [0.02, 0]])
    whiskers = [segment[:, 0].tolist() for segment in ax.collections[0].get_segments()]
    np.testing.assert_allclose(whiskers, [[-0.02, 0.01], [-0.01, 0.02], [0, 0.03]])
    draw(ax.figure)


def test_no_contributions_are_drawn_as_nothing(ax):
    plots.contributions(contribution_table([]), ax)
    draw(ax.figure)


def test_the_expected_score_shades_its_interval_and_marks_what_is_known(ax):
    drawn = np.random.default_rng(0).normal(0.75, 0.02, 500)
    plots.expected_score(drawn, (0.751, 0.71, 0.79), {"out of fold": 0.74, FORMULA: 0.77}, ax)
    assert sum(bar.get_height() for bar in ax.containers[0]) == 500
    assert [line.get_xdata()[0] for line in ax.lines] == [0.751, 0.74, 0.77]
    band = ax.patches[-1].get_extents().transformed(ax.transData.inverted())
    assert (band.x0, band.x1) == pytest.approx((0.71, 0.79))
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["95% interval", "expected: 0.751", "out of fold: 0.740", f"{FORMULA}: 0.770"]
    assert "0.751 (0.710 to 0.790)" in ax.get_title(loc="left")
    draw(ax.figure)


def trial_table() -> pd.DataFrame:
    values = [0.5, 0.4, np.nan, 0.6, 0.55]
    return pd.DataFrame({"trial": range(5), "state": "complete", "value": values})


def test_a_searchs_history_shows_the_best_so_far_and_what_no_augmentation_scores(ax):
    plots.search_history(trial_table(), ax)
    dots, best, plainly, stopped = ax.get_lines()
    assert list(dots.get_xdata()) == [1, 3, 4]
    assert list(best.get_ydata()) == [0.4, 0.6, 0.6]
    assert set(plainly.get_ydata()) == {0.5}
    assert list(stopped.get_xdata()) == [2]
    assert ax.get_title(loc="left") == "4 policies searched"


def importance_table() -> pd.DataFrame:
    return pd.DataFrame({"operation": ["motion_blur", FORMULA], "correlation": [0.5, -0.2], "policies": [1, 30]})


def test_operations_stand_in_the_order_of_their_importance(ax):
    plots.operation_importance(importance_table(), ax)
    assert [bar.get_width() for bar in ax.patches] == [-0.2, 0.5]  # from below
    assert [label.get_text() for label in ax.get_yticklabels()] == [FORMULA, "motion blur"]
    assert {"1 policy", "30 policies"} <= {text.get_text() for text in ax.texts}


def verdict_found() -> dict:
    pairs = {"merged - trivialaugment": (-0.01, -0.05, 0.03), "merged - none": (0.1, 0.02, 0.2)}
    differences = {
        name: dict(zip(("difference", "low", "high"), values, strict=True)) for name, values in pairs.items()
    }
    return {"differences": differences, "seeds": 3}


def test_a_verdict_shows_each_difference_with_its_interval(ax):
    plots.verdict(verdict_found(), ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["merged - none", "merged - trivialaugment"]
    (whiskers,) = ax.collections
    assert [list(line[:, 0]) for line in whiskers.get_segments()] == [[0.02, 0.2], [-0.05, 0.03]]
    assert [text.get_text() for text in ax.texts] == ["+0.100", "-0.010"]


def one_fold() -> dict[int, pd.DataFrame]:
    return {0: photo_table().assign(split=["val", "train"] * 105)}


CHARTS = {
    "class_counts": lambda ax: plots.class_counts(photo_table(), ax),
    "age_histogram": lambda ax: plots.age_histogram(photo_table(), ax),
    "problems": lambda ax: plots.problems(pd.DataFrame({"path": ["a"], "problem": ["b"], "detail": ["c"]}), ax),
    "fold_balance": lambda ax: plots.fold_balance(one_fold(), ax),
    "confusion": lambda ax: plots.confusion(*predictions(), ax),
    "score_table": lambda ax: plots.score_table({"a": score_intervals()}, ax),
    "learning_rate_finder": lambda ax: plots.learning_rate_finder(finder_table(), 0.01, ax),
    "search_history": lambda ax: plots.search_history(trial_table(), ax),
    "operation_importance": lambda ax: plots.operation_importance(importance_table(), ax),
    "verdict": lambda ax: plots.verdict(verdict_found(), ax),
    "predicted_shares": lambda ax: plots.predicted_shares({"a": certain([0, 1])}, [0, 1], ax),
    "reliability": lambda ax: plots.reliability({"a": reliability_table()}, ax),
    "agreement": lambda ax: plots.agreement(shares_of(["a", "b"]), ax),
    "contributions": lambda ax: plots.contributions(contribution_table(["a", "b"]), ax),
    "expected_score": lambda ax: plots.expected_score([0.7, 0.8], (0.75, 0.7, 0.8), {"test_val": 0.7}, ax),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_drawn_into_the_given_axes_and_nowhere_else(name, ax):
    before = plt.get_fignums()
    assert CHARTS[name](ax) is ax
    assert plt.get_fignums() == before
    assert draw(ax.figure)


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_without_axes_makes_one_figure(name):
    ax = CHARTS[name](None)
    assert plt.get_fignums() == [ax.figure.number]


def test_the_figure_of_attributes_is_not_left_open():
    plots.attribute_confusions(*predictions())
    assert plt.get_fignums() == []


def test_class_names_do_not_overlap_on_a_wide_chart():
    ax = plots.class_counts(photo_table())
    ax.figure.set_size_inches(12, 5)
    ax.figure.canvas.draw()
    anchors = [tick.get_window_extent().x1 for tick in ax.get_xticklabels()]
    heights = [tick.get_fontsize() * ax.figure.dpi / 72 for tick in ax.get_xticklabels()]
    # Slanted lines of text stay apart when their right ends are further apart than they are high.
    assert np.diff(anchors).min() > max(heights)
    assert ax.get_position().height > 0.5


def test_no_picture_needs_torch():
    script = "import sys, mask_lib.galleries, mask_lib.plots; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=files.PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_policy_is_drawn_with_what_photos_meet(ax):
    mild = policies.Policy("mild " + FORMULA, ((policies.Step("rotate", 0.5, 0.2), policies.Step("invert", 0.25)), ()))
    plots.policy(mild, ax)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["rotate", "invert"]
    dots = {tuple(dot.get_offsets()[0]): dot.get_sizes()[0] for dot in ax.collections}
    assert set(dots) == {(0.2, 0.0), (plots.NO_MAGNITUDE, 1.0)}
    assert dots[0.2, 0.0] > dots[plots.NO_MAGNITUDE, 1.0]
    assert {"25%", "12%"} <= {text.get_text() for text in ax.texts}
    draw(ax.figure)


def test_a_magnitude_that_is_drawn_is_a_line(ax):
    plots.policy(policies.PRESETS["trivialaugment"], ax)
    assert len([line for line in ax.lines if list(line.get_xdata()) == [0, 1]]) == 11
    assert len(ax.collections) == 3


def test_a_policy_of_nothing_can_be_drawn(ax):
    plots.policy(policies.PRESETS["none"], ax)
    draw(ax.figure)


def runs_of(count: int) -> dict[str, pd.DataFrame]:
    return {f"_run {number}": history_table(folds=number + 1, epochs=3 + number) for number in range(count)}


def test_curves_of_runs_are_the_means_of_their_folds_in_their_range():
    histories = runs_of(3)
    losses, f1 = plots.run_curves(histories)
    for ax, column in ((losses, "val_loss"), (f1, "val_macro_f1")):
        for line, band, history in zip(ax.lines, ax.collections, histories.values(), strict=True):
            by_epoch = history.groupby("epoch")[column]
            np.testing.assert_allclose(line.get_ydata(), by_epoch.mean())
            assert list(line.get_xdata()) == sorted(set(history["epoch"]))
            heights = band.get_paths()[0].vertices[:, 1]
            assert heights.max() == pytest.approx(history[column].max())
            assert heights.min() == pytest.approx(history[column].min())
    assert [text.get_text() for text in f1.get_legend().get_texts()] == list(histories)


def test_many_runs_are_told_apart_by_dashes_once_the_colours_are_used_up():
    losses, _ = plots.run_curves(runs_of(12))
    looks = {(line.get_color(), line.get_linestyle()) for line in losses.lines}
    assert len(looks) == 12


def test_a_run_of_one_epoch_can_be_seen():
    losses, _ = plots.run_curves({"short": history_table(epochs=1)})
    assert losses.lines[0].get_marker() == "o"


def test_no_runs_have_no_curves():
    with pytest.raises(ValueError, match="no runs to draw"):
        plots.run_curves({})


def difference_rows() -> pd.DataFrame:
    rows = [
        (FORMULA, "best", "macro_f1", 0.10, 0.05, 0.15, True),
        (FORMULA, "best", "accuracy", 0.30, 0.05, 0.45, True),
        ("other", "best", "macro_f1", 0.02, -0.01, 0.05, False),
        ("elsewhere", "best", "macro_f1", np.nan, np.nan, np.nan, False),
    ]
    return pd.DataFrame(rows, columns=["a", "b", "metric", "difference", "low", "high", "real"])


def test_a_real_difference_has_another_colour_than_one_that_may_be_chance(ax):
    plots.differences(difference_rows(), ax)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [f"best over {FORMULA}", "best over other"]
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [dot.get_xdata()[0] for dot in dots] == [0.10, 0.02]
    assert [dot.get_color() for dot in dots] == [plots.BLUE, plots.GREY]
    spans = [collection.get_segments()[0][:, 0].tolist() for collection in ax.collections]
    assert spans == [[0.05, 0.15], [-0.01, 0.05]]
    assert ax.get_title(loc="left") == "1 of 2 differences beyond chance"
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row at the top
    draw(ax.figure)


def test_another_metric_is_drawn_when_asked_for(ax):
    plots.differences(difference_rows(), ax, metric="accuracy")
    assert texts(ax) == ["+0.300"]


def test_one_run_alone_has_no_differences_to_draw(ax):
    plots.differences(difference_rows()[:0], ax)
    assert texts(ax) == ["no two runs to compare"]
