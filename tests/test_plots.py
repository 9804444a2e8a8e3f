"""What is drawn, read back from the artists and compared with the tables it was drawn from."""

import io
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

from mask_lib import files, labels, plots

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


def probability_table() -> pd.DataFrame:
    """Five photos: rows 1, 2 and 4 are mistakes, most confident in the order 4, 1, 2."""
    probabilities = np.full((5, 18), 0.0)
    truth, predicted, sure = [0, 1, 2, 3, 17], [0, 5, 6, 3, 9], [0.9, 0.6, 0.5, 0.4, 0.8]
    for row, (label, confidence) in enumerate(zip(predicted, sure, strict=True)):
        probabilities[row] = (1 - confidence) / 17
        probabilities[row, label] = confidence
    table = pd.DataFrame(probabilities, columns=list(labels.PROBABILITY_COLUMNS))
    table.insert(0, "label", truth)
    table.insert(0, "path", [f"p{row}.jpg" for row in range(5)])
    return table


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


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 1), (8, 6, 3), (8, 6, 4)])
def test_photos_of_any_kind_are_shown_as_they_are(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    drawn = plots.photo_grid([image]).axes[0].images[0].get_array()
    wanted = image[..., :3] if len(shape) == 3 and shape[2] > 1 else image.reshape(8, 6)
    assert np.array_equal(drawn, wanted)


def test_a_dark_grey_photo_is_not_stretched_to_full_contrast():
    shown = plots.photo_grid([np.full((4, 4, 1), 20, dtype=np.uint8)]).axes[0].images[0]
    assert shown.get_clim() == (0, 255)


@pytest.mark.parametrize("name", [FORMULA, "a_{b}$x$.jpg", "<b>bell\x07</b>", "broken \udcff.jpg", "w" * 500])
def test_file_names_are_drawn_as_plain_text(name):
    figure = plots.photo_grid([np.zeros((8, 6, 3), dtype=np.uint8)] * 2, [name, "plain"], title=name)
    title = figure.axes[0].get_title()
    assert len(title) <= 32
    assert title[:3] == name[:3]
    assert draw(figure)


def test_a_grid_has_as_many_rows_as_it_needs():
    figure = plots.photo_grid([np.zeros((8, 6, 3), dtype=np.uint8)] * 8, columns=3)
    assert figure.axes[0].get_gridspec().get_geometry() == (3, 3)
    assert sum(bool(ax.images) for ax in figure.axes) == 8
    assert not plots.photo_grid([]).axes[0].images


def test_a_grid_refuses_another_number_of_titles():
    with pytest.raises(ValueError, match="2 photos but 1 titles"):
        plots.photo_grid([np.zeros((8, 6, 3), dtype=np.uint8)] * 2, ["one"])


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


class CountedPhotos:
    """Photos that differ in colour and remember which of them were read."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 5

    def __getitem__(self, row: int) -> np.ndarray:
        self.read.append(int(row))
        return np.full((8, 6, 3), row, dtype=np.uint8)


def test_the_most_confident_mistakes_come_first_and_only_they_are_read():
    photos, table = CountedPhotos(), probability_table()
    table.loc[4, "path"] = f"{FORMULA}\n.jpg"
    figure = plots.mistakes(photos, table, count=2)
    assert photos.read == [4, 1]
    first, second = figure.axes[:2]
    assert (
        first.get_title()
        == f"not worn female 60+\n→ incorrect female <30 (80%)\n{FORMULA}\N{REPLACEMENT CHARACTER}.jpg"
    )
    assert second.get_title() == "worn male 30-59\n→ worn female 60+ (60%)\np1.jpg"
    assert np.asarray(first.images[0].get_array()).max() == 4
    assert figure.get_suptitle() == "The 2 most confident of 3 mistakes"
    draw(figure)


def test_no_mistakes_and_lengths_that_differ():
    table = probability_table()
    assert plots.mistakes(CountedPhotos(), table.assign(label=[0, 5, 6, 3, 9])).get_suptitle() == "No mistakes"
    with pytest.raises(ValueError, match="5 photos but 4 rows"):
        plots.mistakes(CountedPhotos(), table[:4])


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


def test_confidence_counts_right_and_wrong_photos(ax):
    plots.confidence(probability_table(), ax)
    right, wrong = ([bar.get_height() for bar in container] for container in ax.containers)
    assert (sum(right), sum(wrong)) == (2, 3)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["right (2)", "wrong (3)"]


def one_fold() -> dict[int, pd.DataFrame]:
    return {0: photo_table().assign(split=["val", "train"] * 105)}


CHARTS = {
    "class_counts": lambda ax: plots.class_counts(photo_table(), ax),
    "age_histogram": lambda ax: plots.age_histogram(photo_table(), ax),
    "problems": lambda ax: plots.problems(pd.DataFrame({"path": ["a"], "problem": ["b"], "detail": ["c"]}), ax),
    "fold_balance": lambda ax: plots.fold_balance(one_fold(), ax),
    "confusion": lambda ax: plots.confusion(*predictions(), ax),
    "score_table": lambda ax: plots.score_table({"a": score_intervals()}, ax),
    "confidence": lambda ax: plots.confidence(probability_table(), ax),
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


def test_grids_leave_no_figure_behind():
    plots.photo_grid([np.zeros((8, 6, 3), dtype=np.uint8)])
    plots.attribute_confusions(*predictions())
    plots.mistakes(CountedPhotos(), probability_table())
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


def test_no_plot_needs_torch():
    script = "import sys, mask_lib.plots; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=files.PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
