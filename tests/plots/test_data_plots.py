"""Charts of photos, read back from the artists and compared with the tables they were drawn from."""

import numpy as np
import pandas as pd
import pictures
import pytest

from mask_lib.base import labels
from mask_lib.plots import data_plots

pytestmark = pytest.mark.usefixtures("closed_figures")


def test_class_bars_are_the_counts_of_photos_and_notes_those_of_people(ax):
    photos = pictures.photo_table()
    data_plots.class_counts(photos, ax)
    assert [bar.get_height() for bar in ax.patches] == [(photos["label"] == label).sum() for label in range(18)]
    people = [photos.loc[photos["label"] == label, "person"].nunique() for label in range(18)]
    assert [int(text.split("\n")[1].split()[0]) for text in pictures.texts(ax)] == people
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [labels.describe(label) for label in range(18)]
    assert ax.get_title(loc="left") == "210 photos of 30 people"


def test_sizes_and_brightness_show_each_split():
    sizes = np.array([[384, 512]] * 5 + [[200, 200]] * 2 + [[10 + side, 20] for side in range(6)])
    splits = ["train"] * 6 + ["eval"] * 7
    left, right = data_plots.sizes_and_brightness(sizes, np.linspace(0, 255, 13), splits).axes
    assert [label.get_text() for label in left.get_yticklabels()][:2] == ["384 × 512", "200 × 200"]
    widths = [[bar.get_width() for bar in bars][:2] for bars in left.containers]
    assert widths == [[5, 1], [0, 1]]  # train, then eval
    assert "2 more sizes" in left.get_title(loc="left")
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["train", "eval"]


def test_changed_classes_say_by_how_much(ax):
    before = np.repeat(np.arange(18), 3)
    after = np.where(before == 2, 5, before)[:-1]  # class 2 becomes 5, and one photo of class 17 is dropped
    data_plots.class_changes(before, after, ax)
    assert [text.get_text() for text in ax.texts] == ["-3", "+3", "-1"]
    old, new = ([bar.get_height() for bar in bars] for bars in ax.containers)
    assert old == [3] * 18 and new == list(np.bincount(after, minlength=18))
    assert "54 photos given, 53 kept" in ax.get_title(loc="left")


def test_ages_count_each_person_once_by_gender_with_both_edges(ax):
    photos = pictures.photo_table()
    data_plots.number_histogram(photos, ax)
    people = photos.drop_duplicates("person")
    first, last = people["age"].min(), people["age"].max()
    for container, gender in zip(ax.containers, ("male", "female"), strict=True):
        wanted = people.loc[people["gender"] == gender, "age"].value_counts().reindex(range(first, last + 1))
        assert [bar.get_height() for bar in container] == wanted.fillna(0).tolist()
    assert [line.get_xdata()[0] for line in ax.lines] == [29.5, 59.5]  # the bars of 30 and of 60 lie to the right


def test_problem_bars_are_counts_by_kind_and_their_names_are_no_formulas(ax):
    kinds = ["unreadable"] * 3 + [f"{pictures.FORMULA}\x07"] * 2 + ["id twice"]
    data_plots.problems(pd.DataFrame({"path": "x", "problem": kinds, "detail": ""}), ax)
    drawn = [(tick.get_text(), bar.get_width()) for tick, bar in zip(ax.get_yticklabels(), ax.patches, strict=True)]
    assert drawn == [("id twice", 1), (f"{pictures.FORMULA}\N{REPLACEMENT CHARACTER}", 2), ("unreadable", 3)]
    nothing = pd.DataFrame(columns=["path", "problem", "detail"])
    assert pictures.texts(data_plots.problems(nothing)) == ["nothing found"]


def test_fold_balance_is_the_ratio_of_shares(ax):
    photos = pictures.photo_table().query("label != 17")
    third = photos["person"].astype(int) % 3
    splits = {fold: photos.assign(split=np.where(third == fold, "val", "train")) for fold in range(3)}
    data_plots.fold_balance(splits, ax)
    whole = photos["label"].value_counts(normalize=True).reindex(range(18))
    for drawn, split in zip(ax.images[0].get_array(), splits.values(), strict=True):
        part = split["label"][split["split"] == "val"].value_counts(normalize=True).reindex(range(18), fill_value=0)
        np.testing.assert_allclose(np.ma.filled(drawn, np.nan), part / whole)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["fold 0", "fold 1", "fold 2"]
    assert len(pictures.texts(ax)) == 3 * 17


def test_class_names_do_not_overlap_on_a_wide_chart():
    ax = data_plots.class_counts(pictures.photo_table())
    ax.figure.set_size_inches(12, 5)
    ax.figure.canvas.draw()
    anchors = [tick.get_window_extent().x1 for tick in ax.get_xticklabels()]
    heights = [tick.get_fontsize() * ax.figure.dpi / 72 for tick in ax.get_xticklabels()]
    # Slanted lines of text stay apart when their right ends are further apart than they are high.
    assert np.diff(anchors).min() > max(heights)
    assert ax.get_position().height > 0.5


def test_another_task_has_its_own_classes_and_no_histogram_without_a_number(ax):
    photos = pd.DataFrame({"label": [0, 2, 2], "person": ["a", "b", "c"]})
    with labels.using((labels.Attribute("kind", ("rose", "tulip", "daisy"), "abc"),)):
        data_plots.class_counts(photos, ax)
        empty = data_plots.number_histogram(photos)
    assert [bar.get_height() for bar in ax.patches] == [1, 0, 2]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["rose", "tulip", "daisy"]
    assert pictures.texts(empty) == ["no attribute is a number"]


def test_the_share_of_wrong_suspects_is_drawn_over_all_and_over_the_last():
    was_wrong = [True] * 30 + [False] * 40
    ax = data_plots.suspect_precision(was_wrong, last=20)
    whole, recent = (line.get_ydata() for line in ax.get_lines())
    assert whole[-1] == pytest.approx(30 / 70) and recent[-1] == 0 and recent[39] == pytest.approx(0.5)
    assert ax.get_title(loc="left") == "0% of the last 20 suspects were wrong"
    assert "no suspect" in data_plots.suspect_precision([]).texts[0].get_text()
