"""The store holds what the files hold, notices when they change, and survives a kill."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from photo_files import noise, save
from PIL import Image

from mask_lib.base import files
from mask_lib.data import store

PATHS = [f"person{number}/mask1.bmp" for number in range(4)]
FRAME = store.Frame(20, 30)

OPENING = """
import os, signal, sys, time
from pathlib import Path
from mask_lib.data import store
folder, decode, done = Path(sys.argv[1]), store.decode, []
os.cpu_count = lambda: 1
paths = sorted(str(path.relative_to(folder / "images")) for path in (folder / "images").glob("*/*"))
def open_store():
    return store.open_store(folder / "store", folder / "images", paths, store.Frame(20, 30))
"""
KILLED_WHILE_BUILDING = """
def dying_decode(path, frame):
    if len(done) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(path)
    return decode(path, frame)
store.decode = dying_decode
open_store()
"""
TWO_AT_ONCE = """
def noted_decode(path, frame):
    with open(folder / "decoded.log", "a") as log:
        log.write(f"{path}\\n")
    (folder / f"building{sys.argv[2]}").touch()
    while len(list(folder.glob("building*"))) < 2 and time.monotonic() < opened + 0.5:
        pass  # a chance for the other process to build as well
    return decode(path, frame)
store.decode = noted_decode
(folder / f"ready{sys.argv[2]}").touch()
while len(list(folder.glob("ready*"))) < 2:
    pass
opened = time.monotonic()
print(open_store().content)
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four photos of just the frame's size, so that the store must hold them as they are; files of equal size."""
    for seed, path in enumerate(PATHS):
        save(noise(seed), tmp_path / "images" / path)
    return tmp_path


def four_channels(height: int, width: int) -> np.ndarray:
    """(H, W, 4) uint8 noise, whose fourth channel is 0 in its left half, transparent if it were alpha."""
    photo = noise(0, height, width, channels=4)
    photo[:, : width // 2, 3] = 0
    return photo


def opened(folder: Path, paths: list[str] = PATHS, frame: store.Frame = FRAME) -> store.Store:
    return store.open_store(folder / "store", folder / "images", paths, frame)


def homes(folder: Path) -> list[Path]:
    """What lies in the store's folder beside the lock files."""
    return [path for path in (folder / "store").iterdir() if path.suffix != ".lock"]


def never(*_arguments):
    raise AssertionError("this was not to be called")


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", OPENING + code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=files.PROJECT, stdout=subprocess.PIPE, text=True)


def assert_whole(photos: store.Store) -> None:
    """The store holds the fixture's photos in the order of PATHS."""
    assert list(photos.row_of) == PATHS
    np.testing.assert_array_equal(photos.images, np.stack([noise(seed) for seed in range(len(PATHS))]))


def test_photos_come_back_as_their_files_hold_them_and_are_never_written_to(folder):
    before = {path: path.read_bytes() for path in (folder / "images").glob("*/*")}
    photos = opened(folder)
    assert_whole(photos)
    with pytest.raises(ValueError, match="read-only"):
        photos.images[0, 0, 0, 0] = 1
    assert {path: path.read_bytes() for path in (folder / "images").glob("*/*")} == before


def test_a_png_of_another_size_is_what_pillow_makes_of_it(tmp_path):
    path = save(noise(0, height=37, width=53), tmp_path / "a.png")
    with Image.open(path) as image:
        expected = np.asarray(image.resize((20, 30), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(store.decode(path, FRAME), expected)


def test_a_large_jpeg_read_at_a_part_of_its_size_looks_the_same(tmp_path):
    rows, columns = np.mgrid[0:512, 0:384]
    photo = np.stack([rows // 2, columns // 2, (rows + columns) // 4], axis=2).astype(np.uint8)
    path = save(photo, tmp_path / "a.jpg", quality=95)
    expected = Image.fromarray(photo).resize((48, 64), Image.Resampling.BOX)
    found = store.decode(path, store.Frame(48, 64))
    assert np.abs(found.astype(int) - np.asarray(expected).astype(int)).max() <= 6


RED, GREEN, BLUE = np.diag([255] * 3)


@pytest.mark.parametrize(
    ("frame", "rows", "colours"),
    [
        (store.Frame(30, 60, "stretch"), slice(0, 60), {4: RED, 15: GREEN, 25: BLUE}),
        (store.Frame(40, 60, "crop"), slice(0, 60), dict.fromkeys(range(40), GREEN)),
        (store.Frame(60, 90, "pad"), slice(31, 59), {10: RED, 30: GREEN, 50: BLUE}),
    ],
    ids=["stretching keeps the whole", "cropping keeps the middle", "padding keeps everything between black bars"],
)
def test_a_photo_is_brought_to_other_proportions(tmp_path, frame, rows, colours):
    stripes = np.repeat(np.uint8([[RED, GREEN, BLUE]] * 60), 40, axis=1)
    found = store.decode(save(stripes, tmp_path / "stripes.png"), frame)
    assert found.shape == frame.shape
    for column, colour in colours.items():
        assert (found[rows, column] == colour).all()
    if frame.resize == "pad":
        assert not found[:30].any() and not found[60:].any()


TURNS = {
    1: lambda photo: photo,
    2: np.fliplr,
    3: lambda photo: np.rot90(photo, 2),
    4: np.flipud,
    5: lambda photo: photo.transpose(1, 0, 2),
    6: lambda photo: np.rot90(photo, -1),
    7: lambda photo: np.rot90(photo, 2).transpose(1, 0, 2),
    8: lambda photo: np.rot90(photo, 1),
}


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("orientation", TURNS)
def test_a_photo_is_turned_upright_as_its_exif_says(tmp_path, orientation, channels):
    photo = four_channels(12, 18)
    upright = TURNS[orientation](photo)
    frame = store.Frame(width=upright.shape[1], height=upright.shape[0], channels=channels)
    found = store.decode(save(photo, tmp_path / "a.png", turn=orientation), frame)
    np.testing.assert_array_equal(found, upright[..., :channels])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "LA", "CMYK"])
def test_a_photo_of_any_mode_gets_the_channels_asked_for(tmp_path, mode, channels):
    path = save(Image.fromarray(noise(0)).convert(mode), tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"))
    found = store.decode(path, store.Frame(20, 30, channels=channels))
    assert found.shape == (30, 20, channels)
    with Image.open(path) as image:  # a JPEG changes pixels a little
        expected = np.asarray(image.convert(store.MODES[channels])).reshape(found.shape)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "LA", "CMYK"])
def test_a_photo_without_a_fourth_channel_is_named_where_four_are_asked_for(tmp_path, mode):
    path = save(Image.fromarray(noise(0)).convert(mode), tmp_path / ("three.jpg" if mode == "CMYK" else "three.png"))
    with pytest.raises(OSError, match=rf"{path.name}: its mode is {mode}, .* takes .* mask_lib\.data\.rgby"):
        store.decode(path, store.Frame(20, 30, channels=4))


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize(("height", "width"), [(37, 53), (300, 200)], ids=["near", "many times as large"])
def test_each_of_four_channels_is_resized_as_if_it_were_alone(tmp_path, resize, height, width):
    photo = four_channels(height, width)
    found = store.decode(save(photo, tmp_path / "four.png"), store.Frame(20, 30, resize, channels=4))
    assert found.shape == (30, 20, 4)
    for channel in range(4):
        path = save(photo[..., channel], tmp_path / f"{channel}.png")
        alone = store.decode(path, store.Frame(20, 30, resize, channels=1))
        np.testing.assert_array_equal(found[..., channel], alone[..., 0])


def test_a_photo_changed_under_its_old_name_size_and_time_is_noticed(folder):
    before = opened(folder)
    path = folder / "images" / PATHS[2]
    old = path.stat()
    while path.stat().st_ctime_ns == old.st_ctime_ns:  # the clock of files ticks every few milliseconds
        save(noise(99), path)
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (old.st_size, old.st_mtime_ns)
    after = opened(folder)
    np.testing.assert_array_equal(after.images[2], noise(99))
    np.testing.assert_array_equal(after.images[1], noise(1))
    np.testing.assert_array_equal(before.images[2], noise(2))  # what is open stays as it was
    assert after.content != before.content


def test_a_photo_that_was_only_touched_rebuilds_nothing_and_reopening_hashes_nothing(folder, monkeypatch):
    content = opened(folder).content
    os.utime(folder / "images" / PATHS[1], ns=(1, 1))
    monkeypatch.setattr(store, "decode", never)
    assert opened(folder).content == content
    monkeypatch.setattr(files, "file_digest", never)  # its new times are remembered
    assert_whole(opened(folder))


def test_stores_of_other_photos_orders_and_frames_lie_apart(folder):
    whole, turned = opened(folder), opened(folder, PATHS[::-1])
    part, small = opened(folder, PATHS[:2]), opened(folder, frame=store.Frame(10, 15))
    np.testing.assert_array_equal(turned.images, whole.images[::-1])
    np.testing.assert_array_equal(part.images, whole.images[:2])
    assert small.images.shape == (4, 15, 10, 3)
    assert len(homes(folder)) == 4
    assert turned.content == whole.content
    assert part.content != whole.content


@pytest.mark.parametrize("done", [0, 2])
def test_a_kill_while_building_leaves_no_store_and_the_next_opening_makes_it(folder, done):
    assert start(KILLED_WHILE_BUILDING, folder, done).wait() == -signal.SIGKILL
    (left,) = homes(folder)
    assert left.suffix == ".tmp" and not list(left.rglob("index.json"))
    assert_whole(opened(folder))
    assert [path.suffix for path in homes(folder)] == [""]


@pytest.mark.parametrize(
    ("name", "keep"),
    [("index.json", None), *(("photos.npy", keep) for keep in (None, 0, 3, 90, -1))],
)
def test_a_file_of_the_store_that_is_missing_or_cut_short_is_made_again(folder, name, keep):
    opened(folder)
    cut = homes(folder)[0] / name
    whole = cut.read_bytes()
    cut.unlink()
    if keep is not None:
        cut.write_bytes(whole[:keep])
    assert_whole(opened(folder))
    assert cut.stat().st_size == len(whole)


def test_two_processes_that_open_a_store_at_once_build_it_once(folder):
    both = [start(TWO_AT_ONCE, folder, number) for number in range(2)]
    contents = {process.communicate(timeout=60)[0].splitlines()[-1] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(contents) == 1
    assert len((folder / "decoded.log").read_text().splitlines()) == len(PATHS)
    assert_whole(opened(folder))


@pytest.mark.parametrize("built_before", [False, True])
def test_a_missing_photo_is_named(folder, built_before):
    if built_before:
        opened(folder)
    (folder / "images" / PATHS[1]).unlink()
    with pytest.raises(OSError, match=PATHS[1]):
        opened(folder)


def test_a_path_given_twice_is_refused(folder):
    with pytest.raises(ValueError, match="each path once"):
        opened(folder, [PATHS[0], PATHS[0]])


def test_rows_follow_the_order_asked_for_and_unknown_paths_are_counted_and_named(folder):
    photos = opened(folder)
    assert photos.rows([PATHS[3], PATHS[0], PATHS[3]]).tolist() == [3, 0, 3]
    with pytest.raises(KeyError, match=r"2 photos are not in the store: \['no\.jpg', 'never\.jpg'\]"):
        photos.rows([PATHS[0], "no.jpg", "never.jpg"])
