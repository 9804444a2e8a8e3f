"""Grids of photos: what they show, what they say of it, and that their words keep clear of one another."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import past_runs
import pictures
import pytest
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

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
    table = past_runs.probabilities(np.array([9, 5, 7]), np.array([0.8, 0.6, 0.5]))
    return table.assign(path=[f"{FOLDER}/mask1.jpg", "plain.jpg", "one/two/three.jpg"], label=[10, 12, 4])


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
    artists = [[ax.images[0], ax.title, *ax.texts] for ax in shown(figure)]
    return tuple([artist.get_window_extent() for artist in some] for some in zip(*artists, strict=True))


def test_a_suspect_shows_what_its_label_says_and_what_is_suggested():
    table = pd.DataFrame(
        [[f"{FOLDER}/mask1.jpg", "gender", 10, 7, 0.912], ["a/normal.jpg", "age", 13, 13, 0.1]],
        columns=["path", "field", "current", "suggested", "score"],
    )
    figure = galleries.suspects([BLACK, BLACK], table)
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles[0].split("\n")[1] == "→ male (91%)" and titles[1].split("\n")[1] == "→ the same (10%)"
    assert "No label is left" in galleries.suspects([], table.head(0)).get_suptitle()


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 1), (8, 6, 3), (8, 6, 4)])
def test_photos_of_any_kind_are_shown_as_they_are(shape):
    image = np.random.default_rng(0).integers(0, 100, shape, dtype=np.uint8)
    drawn = galleries.photo_grid([image], columns=1).axes[0].images[0]
    wanted = image[..., :3] if len(shape) == 3 and shape[2] > 1 else image.reshape(8, 6)
    assert np.array_equal(drawn.get_array(), wanted)
    assert drawn.get_clim() == (0, 255)  # dark grey is not stretched to full contrast


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
    with pytest.raises(ValueError, match="5 photos but 6 titles"):
        galleries.beside({"a": shades(3), "b": shades(2)})


def test_a_grid_has_as_many_rows_as_it_needs():
    figure = galleries.photo_grid([BLACK] * 8, columns=3)
    assert figure.axes[0].get_gridspec().get_geometry() == (3, 3) and len(shown(figure)) == 8
    empty = galleries.photo_grid([], titles=[], title="Nothing")
    assert not shown(empty) and pictures.draw(empty)


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
    pairs = itertools.combinations([heading, *pictures, *above, *below], 2)
    assert not any(one.overlaps(other) for one, other in pairs)
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
    assert first.split("\n")[1] == "short" and second == "worn female 30-59"
    wider = galleries.photo_grid([BLACK], [long], columns=3).axes[0].get_title()
    assert 8 < len(begin) < len(wider) / 2 - 8  # the room is used


def test_mistakes_keep_their_order_and_tell_only_what_was_predicted_otherwise():
    figure = galleries.mistakes(shades(3), mistaken(), of=40)
    assert [ax.get_title() for ax in shown(figure)] == [
        "incorrect female 30-59\n→ <30 (80%)",
        "not worn male <30\n→ worn female 60+ (60%)",
        "worn female 30-59\n→ incorrect male (50%)",
    ]
    assert [np.asarray(ax.images[0].get_array()).max() for ax in shown(figure)] == [0, 1, 2]
    assert galleries.prediction_titles(mistaken())[:2] == ["incorrect female <30\n80%", "worn female 60+\n60%"]


def test_below_a_mistake_stand_its_last_folder_and_its_file():
    paths = [f"x/{pictures.FORMULA}\n/a.jpg", "plain.jpg", "000403_female_Indian_36/incorrect_mask.jpeg"]
    figure = galleries.mistakes(shades(3), mistaken().assign(path=paths), of=3)
    cut = [f"{pictures.FORMULA}\N{REPLACEMENT CHARACTER}\na.jpg", "plain.jpg", paths[2].replace("/", "\n")]
    assert notes(figure) == cut  # the name of an official photo is read in full


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


def test_a_heading_tells_how_many_there_are_or_why_none_is_shown():
    headings = {
        "The 3 most confident of 1,247 mistakes": galleries.mistakes(shades(3), mistaken(), of=1247),
        "3 mistakes, the most confident first": galleries.mistakes(shades(3), mistaken(), of=3),
        "1 mistake, the most confident first": galleries.mistakes(shades(1), mistaken()[:1], of=1),
        "No mistakes": galleries.mistakes([], mistaken()[:0], of=0),
        "No network": galleries.mistakes([], mistaken()[:0], 9, "No network"),
        "No photo that only one of the two gets right": galleries.disagreements([], disagreed()[:0], of=0),
        "No folder": galleries.disagreements([], disagreed()[:0], 9, "No folder"),
    }
    for heading, figure in headings.items():
        assert figure.get_suptitle() == heading


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_map_leaves_the_photo_where_it_is_cold_and_colours_it_where_it_is_warm(channels):
    photos = np.full((1, 8, 6, channels), [120, 90, 150, 250][:channels], dtype=np.uint8)  # yellow is not shown
    maps = np.zeros((1, 8, 6), dtype=np.float32)
    maps[0, :2] = 1
    (found,) = galleries.overlaid(photos, maps)
    assert found.shape == (8, 6, 3) and found.dtype == np.uint8
    assert (found[2:] == 120).all() and (found[:2, :, 0] > found[:2, :, 2]).all()  # grey, and warm
