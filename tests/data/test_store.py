"""The store holds what the files hold, notices when they change, and survives a kill."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mask_lib.base import files
from mask_lib.data import store

PATHS = [f"person{number}/mask1.bmp" for number in range(4)]
FRAME = store.Frame(20, 30)

KILLED_WHILE_BUILDING = """
import os, signal, sys
from pathlib import Path
from mask_lib.data import store
decode, folder, done = store.decode, Path(sys.argv[1]), []
def dying_decode(path, frame):
    if len(done) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(path)
    return decode(path, frame)
store.decode = dying_decode
paths = sorted(str(path.relative_to(folder / "images")) for path in (folder / "images").glob("*/*"))
store.open_store(folder / "store", folder / "images", paths, store.Frame(20, 30), workers=1)
"""
TWO_AT_ONCE = """
import sys, time
from pathlib import Path
from mask_lib.data import store
decode, folder = store.decode, Path(sys.argv[1])
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
paths = sorted(str(path.relative_to(folder / "images")) for path in (folder / "images").glob("*/*"))
print(store.open_store(folder / "store", folder / "images", paths, store.Frame(20, 30), workers=1).content)
"""
BUILT_WITHOUT_ROOM = """
import resource, signal, sys
from pathlib import Path
from mask_lib.data import store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
folder = Path(sys.argv[1])
paths = sorted(str(path.relative_to(folder / "images")) for path in (folder / "images").glob("*/*"))
try:
    store.open_store(folder / "store", folder / "images", paths, store.Frame(20, 30))
except OSError:
    sys.exit(7)
"""


def noise(seed: int, height: int = 30, width: int = 20) -> np.ndarray:
    """(H, W, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(photo: np.ndarray, path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four photos of just the frame's size, so that the store must hold them as they are; files of equal size."""
    for seed, path in enumerate(PATHS):
        save(noise(seed), tmp_path / "images" / path)
    return tmp_path


def opened(folder: Path, paths: list[str] = PATHS, frame: store.Frame = FRAME) -> store.Store:
    return store.open_store(folder / "store", folder / "images", paths, frame, workers=2)


def homes(folder: Path) -> list[Path]:
    """What lies in the store's folder beside the lock files."""
    return [path for path in (folder / "store").iterdir() if path.suffix != ".lock"]


def never(*_arguments):
    raise AssertionError("this was not to be called")


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=files.PROJECT, capture_output=True, text=True
    )


def assert_whole(photos: store.Store) -> None:
    """The store holds the fixture's photos in the order of PATHS."""
    assert list(photos.row_of) == PATHS
    np.testing.assert_array_equal(photos.images, np.stack([noise(seed) for seed in range(len(PATHS))]))


def test_photos_come_back_as_their_files_hold_them(folder):
    photos = opened(folder)
    assert_whole(photos)
    assert photos.images.dtype == np.uint8
    assert photos.frame == FRAME
    assert photos.rebuilt_for == ()


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


RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)


@pytest.fixture
def stripes(tmp_path) -> Path:
    """60 high, 120 wide: a red, a green and a blue stripe of 40 pixels each."""
    photo = np.zeros((60, 120, 3), dtype=np.uint8)
    photo[:, :40], photo[:, 40:80], photo[:, 80:] = RED, GREEN, BLUE
    return save(photo, tmp_path / "stripes.png")


def test_stretching_keeps_the_whole_photo(stripes):
    found = store.decode(stripes, store.Frame(30, 60, "stretch"))
    assert found.shape == (60, 30, 3)
    for column, colour in ((4, RED), (15, GREEN), (25, BLUE)):
        assert (found[:, column] == colour).all()


def test_cropping_keeps_the_middle_in_proportion(stripes):
    found = store.decode(stripes, store.Frame(40, 60, "crop"))
    assert found.shape == (60, 40, 3)
    assert (found == GREEN).all()


def test_padding_keeps_everything_in_proportion_between_black_bars(stripes):
    found = store.decode(stripes, store.Frame(60, 90, "pad"))
    assert found.shape == (90, 60, 3)
    assert (found[:30] == BLACK).all()
    assert (found[60:] == BLACK).all()
    for column, colour in ((10, RED), (30, GREEN), (50, BLUE)):
        assert (found[31:59, column] == colour).all()


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


@pytest.mark.parametrize("orientation", TURNS)
def test_a_photo_is_turned_upright_as_its_exif_says(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = noise(0, height=12, width=18)
    path = save(photo, tmp_path / "a.png", exif=exif)
    upright = TURNS[orientation](photo)
    frame = store.Frame(width=upright.shape[1], height=upright.shape[0])
    np.testing.assert_array_equal(store.decode(path, frame), upright)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "LA", "CMYK"])
def test_a_photo_of_any_mode_gets_the_channels_asked_for(tmp_path, mode, channels):
    image = Image.fromarray(noise(0)).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    image = Image.open(path)  # a JPEG changes pixels a little
    found = store.decode(path, store.Frame(20, 30, channels=channels))
    assert found.shape == (30, 20, channels)
    expected = np.asarray(image.convert(store.MODES[channels])).reshape(30, 20, channels)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "LA", "CMYK"])
def test_a_photo_without_a_fourth_channel_is_named_where_four_are_asked_for(folder, mode):
    name = "three.jpg" if mode == "CMYK" else "three.png"
    Image.fromarray(noise(0)).convert(mode).save(folder / "images" / name)
    with pytest.raises(
        OSError, match=rf"{name}: its mode is {mode}, and image_channels = 4 takes .* mask_lib\.data\.rgby"
    ):
        opened(folder, [name], store.Frame(20, 30, channels=4))


def four_channels(height: int, width: int) -> np.ndarray:
    """(H, W, 4) uint8 noise, whose fourth channel is 0 in its left half, transparent if it were alpha."""
    photo = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
    photo[:, : width // 2, 3] = 0
    return photo


def test_the_fourth_channel_is_kept(folder):
    photo = four_channels(30, 20)
    save(photo, folder / "images" / "four.png")
    found = opened(folder, ["four.png"], store.Frame(20, 30, channels=4))
    np.testing.assert_array_equal(found.images[0], photo)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize(("height", "width"), [(37, 53), (300, 200)], ids=["near", "many times as large"])
def test_each_of_four_channels_is_resized_as_if_it_were_alone(tmp_path, resize, height, width):
    photo = four_channels(height, width)
    found = store.decode(save(photo, tmp_path / "four.png"), store.Frame(20, 30, resize, channels=4))
    assert found.shape == (30, 20, 4)
    for channel in range(4):
        alone = save(np.ascontiguousarray(photo[..., channel]), tmp_path / f"{channel}.png")
        np.testing.assert_array_equal(
            found[..., channel], store.decode(alone, store.Frame(20, 30, resize, channels=1))[..., 0]
        )


def test_four_channels_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = four_channels(12, 18)
    path = save(photo, tmp_path / "four.png", exif=exif)
    np.testing.assert_array_equal(store.decode(path, store.Frame(12, 18, channels=4)), TURNS[6](photo))


def test_three_of_four_channels_are_the_colours(tmp_path):
    photo = four_channels(30, 20)
    found = store.decode(save(photo, tmp_path / "four.png"), FRAME)
    np.testing.assert_array_equal(found, photo[..., :3])


def test_reopening_decodes_and_hashes_nothing(folder, monkeypatch):
    first = opened(folder)
    monkeypatch.setattr(store, "decode", never)
    monkeypatch.setattr(files, "file_digest", never)
    again = opened(folder)
    assert_whole(again)
    assert again.content == first.content


def test_a_photo_changed_under_its_old_name_size_and_time_is_noticed_and_named(folder):
    before = opened(folder)
    path = folder / "images" / PATHS[2]
    old = path.stat()
    while path.stat().st_ctime_ns == old.st_ctime_ns:  # the clock of files ticks every few milliseconds
        save(noise(99), path)
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (old.st_size, old.st_mtime_ns)
    after = opened(folder)
    assert after.rebuilt_for == (PATHS[2],)
    np.testing.assert_array_equal(after.images[2], noise(99))
    np.testing.assert_array_equal(after.images[1], noise(1))
    assert after.content != before.content
    assert opened(folder).rebuilt_for == ()


def test_a_photo_that_was_only_touched_rebuilds_nothing(folder, monkeypatch):
    content = opened(folder).content
    os.utime(folder / "images" / PATHS[1], ns=(1, 1))
    monkeypatch.setattr(store, "decode", never)
    touched = opened(folder)
    assert (touched.rebuilt_for, touched.content) == ((), content)
    monkeypatch.setattr(files, "file_digest", never)  # its new times are remembered
    assert_whole(opened(folder))


def test_a_store_that_is_open_keeps_its_photos_while_another_is_built(folder):
    before = opened(folder)
    save(noise(99), folder / "images" / PATHS[0])
    np.testing.assert_array_equal(opened(folder).images[0], noise(99))
    np.testing.assert_array_equal(before.images[0], noise(0))


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
    assert run(KILLED_WHILE_BUILDING, folder, done).returncode == -signal.SIGKILL
    left = homes(folder)
    assert left
    assert all(path.suffix == ".partial" and not (path / "index.json").exists() for path in left)
    assert_whole(opened(folder))
    assert [path for path in homes(folder) if path.suffix == ".partial"] == []


def test_an_error_while_building_leaves_no_store_and_the_next_opening_makes_it(folder):
    sound = (folder / "images" / PATHS[3]).read_bytes()
    (folder / "images" / PATHS[3]).write_bytes(b"no photo")
    with pytest.raises(OSError, match=rf"cannot read .*{PATHS[3]}"):
        opened(folder)
    (folder / "images" / PATHS[3]).write_bytes(sound)
    assert_whole(opened(folder))
    assert len(homes(folder)) == 1


def test_too_little_room_is_an_error_and_leaves_no_store(folder):
    assert run(BUILT_WITHOUT_ROOM, folder).returncode == 7
    assert_whole(opened(folder))


@pytest.mark.parametrize("name", ["photos.npy", "index.json"])
@pytest.mark.parametrize("keep", [0, 3, 90, -1])
def test_a_file_of_the_store_that_was_cut_short_is_made_again(folder, name, keep):
    opened(folder)
    cut = homes(folder)[0] / name
    size = cut.stat().st_size
    os.truncate(cut, keep if keep >= 0 else size - (1 if name == "photos.npy" else 2))  # the last byte is a line end
    assert_whole(opened(folder))
    assert cut.stat().st_size == size


@pytest.mark.parametrize("name", ["photos.npy", "index.json"])
def test_a_file_of_the_store_that_is_missing_is_made_again(folder, name):
    opened(folder)
    (homes(folder)[0] / name).unlink()
    assert_whole(opened(folder))


def test_two_processes_that_open_a_store_at_once_build_it_once(folder):
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_AT_ONCE, str(folder), str(number)],
            cwd=files.PROJECT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
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


def test_rows_follow_the_order_asked_for(folder):
    rows = opened(folder).rows([PATHS[3], PATHS[0], PATHS[3]])
    assert rows.tolist() == [3, 0, 3]
    assert rows.dtype == np.int64


def test_unknown_paths_are_counted_and_named(folder):
    with pytest.raises(KeyError, match=r"2 photos are not in the store: \['no\.jpg', 'never\.jpg'\]"):
        opened(folder).rows([PATHS[0], "no.jpg", "never.jpg"])


def test_photos_are_never_written_to(folder):
    before = {path: path.read_bytes() for path in (folder / "images").glob("*/*")}
    photos = opened(folder)
    with pytest.raises(ValueError, match="read-only"):
        photos.images[0, 0, 0, 0] = 1
    assert {path: path.read_bytes() for path in (folder / "images").glob("*/*")} == before


@pytest.mark.parametrize(
    ("count", "size", "found"), [(5, 2, [[0, 1], [2, 3], [4]]), (4, 2, [[0, 1], [2, 3]]), (0, 3, []), (2, 9, [[0, 1]])]
)
def test_blocks_cover_every_position_once_in_order(count, size, found):
    assert [block.tolist() for block in store.blocks(count, size)] == found
