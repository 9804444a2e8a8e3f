"""Grids of photos: what they show, what they say of it, and that their words keep clear of one another."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pictures
import pytest
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from mask_lib.base import labels
from mask_lib.plots import galleries

BLACK = np.zeros((8, 6, 3), dtype=np.uint8)
FOLDER = "003397_female_Southeast-Asian_60"  # 32 letters, more than fit above a photo in one line


@pytest.fixture(autouse=True)
def no_figure_is_left_open():
    yield
    left = plt.get_fignums()
    plt.close("all")
    assert left == []


def mistaken() -> pd.DataFrame:
    """Three mistakes: in age alone, in everything, and in mask and gender."""
    probabilities = np.full((3, 18), 0.0)
    for row, (label, confidence) in enumerate([(9, 0.8), (5, 0.6), (7, 0.5)]):
        probabilities[row] = (1 - confidence) / 17
        probabilities[row, label] = confidence
    table = pd.DataFrame(probabilities, columns=labels.probability_columns())
    table.insert(0, "label", [10, 12, 4])
    table.insert(0, "path", [f"{FOLDER}/mask1.jpg", "plain.jpg", "one/two/three.jpg"])
    return table


def shades(count: int) -> np.ndarray:
    """(count, 8, 6, 3) photos, each of one grey, the number of the photo."""
    return np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1) * np.ones((8, 6, 3), dtype=np.uint8)


def shown(figure: Figure) -> list[plt.Axes]:
    return [ax for ax in figure.axes if ax.images]


def notes(figure: Figure) -> list[str]:
    return [text.get_text() for ax in shown(figure) for text in ax.texts]


def boxes(figure: Figure) -> tuple[list[Bbox], list[Bbox], list[Bbox]]:
    """Where the photos, their titles and their notes lie, in pixels."""
    figure.draw_without_rendering()
    axes = shown(figure)
    return (
        [ax.images[0].get_window_extent() for ax in axes],
        [ax.title.get_window_extent() for ax in axes],
        [text.get_window_extent() for ax in axes for text in ax.texts],
    )


def test_a_suspect_shows_what_its_label_says_and_what_is_suggested():
    table = pd.DataFrame(
        [[f"{FOLDER}/mask1.jpg", "gender", 10, 7, 0.912], ["a/normal.jpg", "age", 13, 13, 0.1]],
        columns=["path", "field", "current", "suggested", "score"],
    )
    figure = galleries.suspects([BLACK, BLACK], table)
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles[0].split("\n")[1] == "→ male (91%)" and titles[1].split("\n")[1] == "→ the same (10%)"
    pictures.draw(figure)
    assert "No label is left" in galleries.suspects([], table.head(0)).get_suptitle()


def test_photos_of_any_kind_are_shown_as_they_are():
    for shape in [(8, 6), (8, 6, 1), (8, 6, 3), (8, 6, 4)]:
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        drawn = galleries.photo_grid([image], columns=1).axes[0].images[0].get_array()
        wanted = image[..., :3] if len(shape) == 3 and shape[2] > 1 else image.reshape(8, 6)
        assert np.array_equal(drawn, wanted)


def test_a_dark_grey_photo_is_not_stretched_to_full_contrast():
    figure = galleries.photo_grid([np.full((4, 4, 1), 20, dtype=np.uint8)], columns=1)
    assert figure.axes[0].images[0].get_clim() == (0, 255)


@pytest.mark.parametrize("name", [pictures.FORMULA, "a_{b}$x$.jpg", "<b>bell\x07</b>", "broken \udcff.jpg", "W" * 500])
def test_names_of_files_are_drawn_as_plain_text(name):
    figure = galleries.photo_grid([BLACK] * 2, [name, "plain"], columns=2, title=name, notes=["", name])
    assert figure.axes[0].get_title()[:3] == name[:3]
    assert pictures.draw(figure)


def test_versions_of_the_same_photos_stand_row_by_row_under_their_names():
    figure = galleries.beside({"as it is": shades(3), "policy": shades(3) + 9}, title="Versions")
    assert figure.axes[0].get_gridspec().get_geometry() == (2, 3)
    assert [ax.get_title() for ax in figure.axes] == ["as it is", "", "", "policy", "", ""]
    assert [int(ax.images[0].get_array()[0, 0, 0]) for ax in figure.axes] == [0, 1, 2, 9, 10, 11]
    with pytest.raises(ValueError, match=r"rows of \[2, 3\] photos"):
        galleries.beside({"a": shades(3), "b": shades(2)})


def test_a_grid_has_as_many_rows_as_it_needs():
    figure = galleries.photo_grid([BLACK] * 8, columns=3)
    assert figure.axes[0].get_gridspec().get_geometry() == (3, 3)
    assert len(shown(figure)) == 8


def test_no_photos_give_an_empty_figure():
    figure = galleries.photo_grid([], titles=[], title="Nothing")
    assert not shown(figure)
    assert pictures.draw(figure)


@pytest.mark.parametrize("what", ["titles", "notes"])
def test_another_number_of_words_than_of_photos_is_refused(what):
    with pytest.raises(ValueError, match=f"2 photos but 1 {what}"):
        galleries.photo_grid([BLACK] * 2, **{what: ["one"]})


@pytest.mark.parametrize("shape", [(16, 12), (8, 8), (9, 16)])
@pytest.mark.parametrize("columns", [4, 7])
def test_no_words_touch_other_words_or_a_photo(shape, columns):
    titles = ["→ not worn female 30-59 (100%)\n→ not worn", "0123456789" * 4, "W" * 60] * 4
    photos = [np.zeros((*shape, 3), dtype=np.uint8)] * len(titles)
    figure = galleries.photo_grid(photos, titles, columns, "A heading", [f"{FOLDER}\nmask1.jpg"] * len(titles))
    pictures, above, below = boxes(figure)
    heading = figure._suptitle.get_window_extent()
    for one, other in itertools.combinations([heading, *pictures, *above, *below], 2):
        assert not one.overlaps(other)
    whole = figure.bbox
    assert all(whole.x0 <= box.x0 and box.x1 <= whole.x1 for box in [*above, *below])
    assert all(whole.y0 <= box.y0 and box.y1 <= whole.y1 for box in [heading, *above, *below])


@pytest.mark.parametrize("title", [None, "short", "W" * 60])
def test_photos_fill_their_columns_whatever_their_words(title):
    pictures, *_ = boxes(galleries.photo_grid([BLACK] * 4, title and [title] * 4, columns=4, title=title))
    wide = 12 * 100 / 4  # pixels a column, at 100 an inch
    assert all(0.93 * wide < box.width < wide for box in pictures)


def test_words_that_fit_stay_whole_and_others_lose_their_middle():
    long = "begin" + "x" * 300 + "end.jpg"
    figure = galleries.photo_grid([BLACK] * 2, [f"{long}\nshort", "worn female 30-59"], columns=7)
    first, second = (ax.get_title() for ax in shown(figure))
    begin, end = first.split("\n")[0].split("…")
    assert long.startswith(begin) and long.endswith(end) and abs(len(begin) - len(end)) <= 1
    assert len(begin) > 8  # the room is used
    assert first.split("\n")[1] == "short"
    assert second == "worn female 30-59"


def test_wider_columns_hold_more_of_a_name():
    lengths = [len(galleries.photo_grid([BLACK], ["x" * 100], columns).axes[0].get_title()) for columns in (7, 5, 3)]
    assert lengths == sorted(set(lengths))


def test_mistakes_keep_their_order_and_tell_only_what_was_predicted_otherwise():
    figure = galleries.mistakes(shades(3), mistaken(), of=40)
    assert [ax.get_title() for ax in shown(figure)] == [
        "incorrect female 30-59\n→ <30 (80%)",
        "not worn male <30\n→ worn female 60+ (60%)",
        "worn female 30-59\n→ incorrect male (50%)",
    ]
    assert [np.asarray(ax.images[0].get_array()).max() for ax in shown(figure)] == [0, 1, 2]


def test_below_a_mistake_stand_its_last_folder_and_its_file():
    figure = galleries.mistakes(
        shades(3), mistaken().assign(path=[f"x/{pictures.FORMULA}\n/a.jpg", "plain.jpg", "b/c"]), of=3
    )
    assert notes(figure) == [f"{pictures.FORMULA}\N{REPLACEMENT CHARACTER}\na.jpg", "plain.jpg", "b\nc"]
    pictures.draw(figure)


def test_the_file_of_a_mistake_can_be_read_in_full():
    table = mistaken().assign(
        path=[f"000403_female_Indian_36/incorrect_mask.{ending}" for ending in ("jpg", "png", "jpeg")]
    )
    assert notes(galleries.mistakes(shades(3), table, of=3)) == [path.replace("/", "\n") for path in table["path"]]


@pytest.mark.parametrize(
    ("count", "of", "heading"),
    [
        (3, 1247, "The 3 most confident of 1,247 mistakes"),
        (3, 3, "3 mistakes, the most confident first"),
        (1, 1, "1 mistake, the most confident first"),
        (0, 0, "No mistakes"),
    ],
)
def test_the_heading_of_mistakes_tells_how_many_there_are(count, of, heading):
    assert galleries.mistakes(shades(count), mistaken()[:count], of=of).get_suptitle() == heading


def test_another_number_of_photos_than_of_mistakes_is_refused():
    with pytest.raises(ValueError, match="2 photos but 3 titles"):
        galleries.mistakes(shades(2), mistaken(), of=3)


def test_predictions_are_told_with_their_probability():
    assert galleries.prediction_titles(mistaken()) == [
        "incorrect female <30\n80%",
        "worn female 60+\n60%",
        "incorrect male 30-59\n50%",
    ]


def disagreed() -> pd.DataFrame:
    rows = [("a/1.jpg", 10, 0.9, 9, 0.8), ("b/2.jpg", 4, 0.55, 12, 0.6)]
    table = pd.DataFrame(rows, columns=["path", "label", "right_sure", "wrong", "wrong_sure"])
    return table.assign(person="x", right_run=pictures.FORMULA, wrong_run="deep")


def test_a_disagreement_tells_the_class_and_what_the_other_run_says_otherwise():
    figure = galleries.disagreements(shades(2), disagreed(), of=31)
    assert [ax.get_title() for ax in shown(figure)] == [
        "incorrect female 30-59 (90%)\n→ <30 (80%)",
        "worn female 30-59 (55%)\n→ not worn male <30 (60%)",
    ]
    assert notes(figure) == ["a\n1.jpg", "b\n2.jpg"]
    assert figure.get_suptitle() == f"{pictures.FORMULA} is right, deep is wrong: 2 of 31 photos, the surest first"
    pictures.draw(figure)


def test_runs_that_agree_have_an_empty_gallery():
    figure = galleries.disagreements([], disagreed()[:0], of=0)
    assert figure.get_suptitle() == "No photo that only one of the two gets right"
    assert pictures.draw(figure)


def test_a_gallery_without_photos_says_why():
    assert galleries.disagreements([], disagreed()[:0], 9, "the folder is gone").get_suptitle() == "the folder is gone"
    assert (
        galleries.mistakes([], mistaken()[:0], 9, "the network is not supported").get_suptitle().startswith("the net")
    )


def test_a_map_leaves_the_photo_where_it_is_cold_and_colours_it_where_it_is_warm():
    photos = np.full((1, 8, 6, 3), (90, 120, 150), dtype=np.uint8)
    maps = np.zeros((1, 8, 6), dtype=np.float32)
    maps[0, :2] = 1
    (found,) = galleries.overlaid(photos, maps)
    assert found.shape == (8, 6, 3) and found.dtype == np.uint8
    assert (found[2:] == 120).all()  # grey
    assert (found[:2, :, 0] > found[:2, :, 2]).all()  # warm


@pytest.mark.parametrize("channels", [1, 4])
def test_photos_of_other_channels_can_lie_under_a_map(channels):
    photos = np.full((2, 8, 6, channels), 100, dtype=np.uint8)
    photos[..., 3:] = 250  # yellow is not shown
    found = galleries.overlaid(photos, np.zeros((2, 8, 6), dtype=np.float32))
    assert [image.shape for image in found] == [(8, 6, 3)] * 2
    assert all((image == 100).all() for image in found)
