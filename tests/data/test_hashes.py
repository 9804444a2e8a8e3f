"""Hashes are imagehash's, are kept until a photo changes, and every near pair is found."""

import os

import imagehash
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from mask_lib.data import hashes

PATHS = ("a/mask1.jpg", "a/normal.png", "b/mask1.jpg", "b/normal.jpeg")


def picture(seed: int, width: int = 120, height: int = 160) -> Image.Image:
    """Soft blobs of colour, as smooth as a photo."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def table(paths=PATHS, split: str = "train") -> pd.DataFrame:
    return pd.DataFrame({"path": list(paths), "split": split})


@pytest.fixture
def data(tmp_path):
    for seed, path in enumerate(PATHS):
        target = tmp_path / "data" / "train" / "images" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        picture(seed).save(target)
    return tmp_path / "data"


@pytest.fixture
def hashed(monkeypatch) -> list:
    """The names of the files that are hashed from here on."""
    seen, hash_photo = [], hashes.hash_photo

    def noted(path):
        seen.append("/".join(path.parts[-2:]))
        return hash_photo(path)

    monkeypatch.setattr(hashes, "hash_photo", noted)
    return seen


@pytest.mark.parametrize("size", [(90, 80), (384, 512), (200, 200), (1500, 2000)])
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_hashes_differ_from_those_of_the_whole_photo_by_a_few_bits_at_most(tmp_path, size, ending):
    path = tmp_path / f"photo.{ending}"
    picture(3, *size).save(path)
    ahash, phash, small = hashes.hash_photo(path)
    with Image.open(path) as whole:
        own = [int(str(one), 16) for one in (imagehash.average_hash(whole), imagehash.phash(whole))]
    assert int(ahash ^ np.uint64(own[0])).bit_count() <= 2
    assert int(phash ^ np.uint64(own[1])).bit_count() <= 4
    assert small.shape == (16, 16)
    assert small.dtype == np.uint8


def test_hex_digits_are_those_of_imagehash(tmp_path):
    path = tmp_path / "photo.png"
    picture(5, 60, 70).save(path)  # too small to be reduced: the very same hash
    with Image.open(path) as whole:
        assert hashes.hexed(hashes.hash_photo(path)[:2]) == [
            str(imagehash.average_hash(whole)),
            str(imagehash.phash(whole)),
        ]


def test_a_photo_that_lies_on_its_side_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    picture(0).rotate(90, expand=True).save(tmp_path / "lying.png", exif=exif)
    picture(0).save(tmp_path / "upright.png")
    assert hashes.hash_photo(tmp_path / "lying.png")[:2] == hashes.hash_photo(tmp_path / "upright.png")[:2]


def test_rows_are_in_the_order_of_the_table_whatever_the_workers(data, tmp_path):
    one = hashes.open_hashes(tmp_path / "one", data, table(), workers=1)
    back = hashes.open_hashes(tmp_path / "many", data, table(PATHS[::-1]), workers=3)
    assert len(set(one.phash.tolist())) == 4
    assert one.phash.tolist() == back.phash[::-1].tolist()
    assert one.ahash.tolist() == back.ahash[::-1].tolist()
    np.testing.assert_array_equal(one.small, back.small[::-1])


def test_only_new_and_changed_photos_are_hashed_again(data, tmp_path, hashed):
    first = hashes.open_hashes(tmp_path, data, table(PATHS[:3]))
    assert sorted(hashed) == sorted(PATHS[:3])
    hashed.clear()
    again = hashes.open_hashes(tmp_path, data, table(PATHS[2::-1]))
    assert hashed == []
    assert again.phash.tolist() == first.phash[::-1].tolist()
    picture(9).save(data / "train" / "images" / PATHS[1])
    changed = hashes.open_hashes(tmp_path, data, table())
    assert sorted(hashed) == sorted([PATHS[1], PATHS[3]])
    assert changed.phash[0] == first.phash[0]
    assert changed.phash[1] != first.phash[1]


def test_a_change_that_keeps_size_and_modification_time_is_seen(data, tmp_path):
    path = data / "train" / "images" / "a/plain.bmp"
    picture(0).save(path)
    state = path.stat()
    before = hashes.open_hashes(tmp_path, data, table(["a/plain.bmp"]))
    picture(1).save(path)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    assert hashes.open_hashes(tmp_path, data, table(["a/plain.bmp"])).phash != before.phash


def test_an_interrupted_run_goes_on_where_it_last_saved(data, tmp_path, hashed, monkeypatch):
    monkeypatch.setattr(hashes, "SAVE_EVERY", 2)
    (data / "train" / "images" / PATHS[3]).write_bytes(b"no photo")
    with pytest.raises(OSError, match=r"cannot read .*normal\.jpeg"):
        hashes.open_hashes(tmp_path, data, table(), workers=1)
    picture(3).save(data / "train" / "images" / PATHS[3])
    hashed.clear()
    found = hashes.open_hashes(tmp_path, data, table(), workers=1)
    assert sorted(hashed) == sorted(PATHS[2:])
    assert found.phash.tolist() == hashes.open_hashes(tmp_path / "fresh", data, table()).phash.tolist()


@pytest.mark.parametrize("damage", [b"", b"PK no archive", None])
def test_a_damaged_cache_is_made_anew(data, tmp_path, hashed, damage):
    first = hashes.open_hashes(tmp_path, data, table())
    cache = tmp_path / "hashes.npz"
    cache.write_bytes(cache.read_bytes()[:900] if damage is None else damage)
    hashed.clear()
    assert hashes.open_hashes(tmp_path, data, table()).phash.tolist() == first.phash.tolist()
    assert len(hashed) == 4
    assert not list(tmp_path.glob(".*tmp*"))


def test_hashes_of_another_format_are_made_anew(data, tmp_path, hashed, monkeypatch):
    hashes.open_hashes(tmp_path, data, table())
    monkeypatch.setattr(hashes, "FORMAT", hashes.FORMAT + 1)
    hashed.clear()
    hashes.open_hashes(tmp_path, data, table())
    assert len(hashed) == 4


def test_a_train_and_an_eval_photo_of_one_name_are_two(data, tmp_path):
    target = data / "eval" / "images" / PATHS[0]
    target.parent.mkdir(parents=True)
    picture(8).save(target)
    both = pd.concat([table(PATHS[:1]), table(PATHS[:1], "eval")])
    for _ in range(2):
        assert len(set(hashes.open_hashes(tmp_path, data, both).phash.tolist())) == 2


def test_a_missing_photo_is_named(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="nobody"):
        hashes.open_hashes(tmp_path, data, table([*PATHS, "nobody/mask1.jpg"]))


def test_photos_of_one_colour_are_featureless(data, tmp_path):
    Image.new("RGB", (80, 90), (200, 30, 40)).save(data / "train" / "images" / PATHS[0])
    Image.new("L", (80, 90), 0).save(data / "train" / "images" / PATHS[1])
    found = hashes.open_hashes(tmp_path, data, table())
    assert found.is_featureless.tolist() == [True, True, False, False]


few_bits = arrays.arrays(np.uint64, st.integers(0, 40), elements=st.integers(0, 2**64 - 1) | st.integers(0, 15))


@settings(deadline=None)
@given(values=few_bits, distance=st.integers(0, 64), rows=st.integers(1, 50), columns=st.integers(1, 50))
def test_near_pairs_are_those_of_comparing_each_with_each(values, distance, rows, columns):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashes, "ROWS_AT_ONCE", rows)
        patch.setattr(hashes, "COLUMNS_AT_ONCE", columns)
        found = [
            pair for part in hashes.near(values, distance) for pair in zip(*map(np.ndarray.tolist, part), strict=True)
        ]
    numbers = [int(value) for value in values]
    expected = {
        (row, other)
        for other in range(len(numbers))
        for row in range(other)
        if (numbers[row] ^ numbers[other]).bit_count() <= distance
    }
    assert len(found) == len(expected)
    assert set(found) == expected
