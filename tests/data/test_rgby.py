"""Four images become one without a lost value, a kill leaves no half of one, and what is missing is listed."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from photo_files import listed, noise, save
from PIL import Image

from mask_lib.data import photos, rgby

WIDTH, HEIGHT = 20, 30
NAMES = ("cell", "plate 1/cell", "plate 1/deeper/b.c_d", "plate 2/ä", "plate 2/cell_red")


def pixels_of(name: str) -> np.ndarray:
    """(H, W, 4) uint8: what the four files of a name hold; where yellow is 0 the colours are not."""
    whole = noise(NAMES.index(name), HEIGHT, WIDTH, channels=4)
    whole[: HEIGHT // 2, :, 3] = 0
    return whole


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGBA"
        return np.asarray(image)


def digests(folder: Path) -> dict[str, str]:
    visible = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in visible}


@pytest.fixture
def source(tmp_path) -> Path:
    for name in NAMES:
        for channel, colour in enumerate(rgby.COLOURS):
            save(pixels_of(name)[..., channel], tmp_path / "source" / f"{name}_{colour}.png")
    return tmp_path / "source"


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / "out"


def test_four_images_become_one_upright_once_and_the_source_stays_as_it_was(source, output, monkeypatch):
    save(np.rot90(pixels_of("cell")[..., 1], 2), source / "cell_green.png", turn=3)
    before = digests(source)
    found = rgby.combine(source, output)
    assert (found.made, found.kept, len(found.problems)) == (len(NAMES), 0, 0)
    assert set(output.rglob("*.png")) == {output / f"{name}.png" for name in NAMES}
    monkeypatch.setattr(rgby, "read_band", None)  # calling it would raise
    found = rgby.combine(source, output)
    assert (found.made, found.kept) == (0, len(NAMES))
    for name in NAMES:
        np.testing.assert_array_equal(read(output / f"{name}.png"), pixels_of(name))
    assert digests(source) == before


def test_a_thumbnail_shows_the_colours_though_yellow_is_dark(source, tmp_path):
    rgby.combine(source, tmp_path / "train" / "images")
    row = pd.DataFrame({"path": ["cell.png"], "split": "train"})
    np.testing.assert_array_equal(photos.thumbnails(tmp_path, row)[0], pixels_of("cell")[..., :3])


def test_colours_that_do_not_make_one_image_are_listed_and_the_other_images_made(source, output):
    (source / "cell_yellow.png").unlink()
    for colour in ("red", "blue"):
        (source / f"plate 1/cell_{colour}.png").unlink()
    Image.new("L", (WIDTH + 1, HEIGHT)).save(source / "plate 1/deeper/b.c_d_blue.png")
    Image.new("L", (WIDTH, HEIGHT)).save(source / "plate 2/ä_red.jpg")
    found = rgby.combine(source, output)
    assert found.problems.values.tolist() == [
        ["plate 2/ä", "doubled_colour", "keep one a colour of plate 2/ä_red.jpg, plate 2/ä_red.png"],
        ["cell", "missing_colour", "no yellow"],
        ["plate 1/cell", "missing_colour", "no red, blue"],
        ["plate 1/deeper/b.c_d", "sizes_differ", "red 20x30, green 20x30, blue 21x30, yellow 20x30"],
    ]
    assert found.made == 1
    assert list(output.rglob("*.png")) == [output / "plate 2/cell_red.png"]
    pd.testing.assert_frame_equal(pd.read_csv(output / "problems.csv", dtype="str"), found.problems)


def test_every_file_that_cannot_be_used_is_listed_and_those_that_are_no_images_passed_over(source, output):
    (source / "cell_red.png").write_bytes(b"")
    (source / "cell_blue.png").write_bytes(b"no picture")
    os.truncate(source / "plate 1/cell_green.png", (source / "plate 1/cell_green.png").stat().st_size // 2)
    save(noise(1, HEIGHT, WIDTH), source / "plate 1/deeper/b.c_d_red.png")
    Image.new("I;16", (WIDTH, HEIGHT)).save(source / "plate 2/ä_green.png")
    save(noise(9), source / "cell_rad.png")
    (source / "._cell_red.png").write_bytes(b"what a Mac leaves")
    (source / "notes_red.txt").write_text("none")
    found = rgby.combine(source, output)
    assert found.made == 1
    assert listed(found.problems) == {
        ("cell_red.png", "empty_file"),
        ("plate 1/deeper/b.c_d_red.png", "odd_mode"),
        ("plate 2/ä_green.png", "odd_mode"),
        ("plate 1/cell_green.png", "truncated"),
        ("cell_blue.png", "unreadable"),
        ("cell_rad.png", "unknown_name"),
    }


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_what_is_no_file_is_listed_and_never_waited_for(source, output, kind):
    path = source / "cell_green.png"
    path.unlink()
    {"pipe": os.mkfifo, "link": lambda one: one.symlink_to("gone"), "folder": os.mkdir}[kind](path)
    found = rgby.combine(source, output)
    expected = ("cell", "missing_colour") if kind == "folder" else ("cell_green.png", "unreadable")
    assert listed(found.problems) == {expected}
    assert found.made == len(NAMES) - 1


@pytest.mark.parametrize("when", [None, 1], ids=["now", "with an old time"])
def test_a_colour_that_changed_makes_its_image_anew(source, output, when):
    rgby.combine(source, output)
    path = source / "cell_green.png"
    old = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == old:  # the clock of files ticks every few milliseconds
        save(noise(99)[..., 0], path)
    if when:
        os.utime(path, (when, when))
    found = rgby.combine(source, output)
    assert (found.made, found.kept) == (1, len(NAMES) - 1)
    np.testing.assert_array_equal(read(output / "cell.png")[..., 1], noise(99)[..., 0])


def test_a_full_disk_is_no_problem_of_an_image_leaves_no_half_of_one_and_the_next_run_goes_on(
    source, output, monkeypatch
):
    save, room = Image.Image.save, iter(range(2))

    def full_with_the_third(image, path, **settings):
        save(image, path, **settings)
        if next(room, None) is None:
            os.truncate(path, os.path.getsize(path) // 2)
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(Image.Image, "save", full_with_the_third)
        rgby.combine(source, output, workers=1)
    left = list(output.rglob("*.png"))
    assert len(left) == 2
    for path in left:
        np.testing.assert_array_equal(read(path), pixels_of(str(path.relative_to(output).with_suffix(""))))
    found = rgby.combine(source, output)
    assert (found.made, found.kept) == (len(NAMES) - 2, 2)


@pytest.mark.parametrize("inside", [".", "rgby", ".."])
def test_folders_one_inside_the_other_are_refused(source, inside):
    save(noise(9), source / "cell.png")  # what an output of that name would write over
    before = digests(source)
    with pytest.raises(ValueError, match="one inside the other"):
        rgby.combine(source, source / inside)
    assert digests(source) == before


def test_a_folder_without_such_images_is_named(tmp_path, output):
    with pytest.raises(FileNotFoundError, match=r"no folder .*absent"):
        rgby.combine(tmp_path / "absent", output)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty holds no images named \*_red, \*_green, \*_blue, \*_yellow"):
        rgby.combine(tmp_path / "empty", output)
    assert not output.exists()


def test_the_command_says_what_it_did(source, output, capsys):
    (source / "cell_yellow.png").unlink()
    assert rgby.main([str(source), str(output), "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "out: 4 images made, 0 kept\n1 problem, listed in its problems.csv" in said
    assert rgby.main([str(source / "absent"), str(output)]) == 1
    assert "error: no folder" in capsys.readouterr().err
    for path in source.rglob("*_yellow.png"):
        path.unlink()
    assert rgby.main([str(source), str(output.with_name("other"))]) == 1
