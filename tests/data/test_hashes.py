"""Hashes are imagehash's, are kept until a photo changes, and every near pair is found."""

import itertools
import os

import imagehash
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from photo_files import save
from PIL import Image

from mask_lib.data import hashes

PATHS = ("a/mask1.jpg", "a/normal.bmp", "b/mask1.jpg", "b/normal.jpeg")


def picture(seed: int, width: int = 120, height: int = 160) -> Image.Image:
    """Soft blobs of colour, as smooth as a photo."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def table(paths=PATHS, split: str = "train") -> pd.DataFrame:
    return pd.DataFrame({"path": list(paths), "split": split})


@pytest.fixture
def data(tmp_path):
    for seed, path in enumerate(PATHS):
        save(picture(seed), tmp_path / "data" / "train" / "images" / path)
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
    path = save(picture(3, *size), tmp_path / f"photo.{ending}")
    *found, small = hashes.hash_photo(path)
    with Image.open(path) as whole:
        own = imagehash.average_hash(whole), imagehash.phash(whole)
    digits = [f"{one:016x}" for one in found]
    bits = [one - imagehash.hex_to_hash(other) for one, other in zip(own, digits, strict=True)]
    assert bits[0] <= 2 and bits[1] <= 4
    if ending == "png" and size == (90, 80):  # not reduced: the very same hashes
        assert digits == [str(one) for one in own]
    assert small.shape == (16, 16) and small.dtype == np.uint8


def test_a_photo_that_lies_on_its_side_is_turned_upright(tmp_path):
    lying = save(picture(0).rotate(90, expand=True), tmp_path / "lying.png", turn=6)
    upright = save(picture(0), tmp_path / "upright.png")
    assert hashes.hash_photo(lying)[:2] == hashes.hash_photo(upright)[:2]


def test_rows_are_in_the_order_of_the_table(data, tmp_path):
    one = hashes.open_hashes(tmp_path / "one", data, table())
    back = hashes.open_hashes(tmp_path / "back", data, table(PATHS[::-1]))
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
    path = data / "train" / "images" / PATHS[1]
    old = path.stat()
    picture(9).save(path)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert path.stat().st_size == old.st_size  # so that its change time alone tells
    changed = hashes.open_hashes(tmp_path, data, table())
    assert sorted(hashed) == sorted([PATHS[1], PATHS[3]])
    assert changed.phash[0] == first.phash[0]
    assert changed.phash[1] != first.phash[1]


def test_an_interrupted_run_goes_on_where_it_last_saved(data, tmp_path, hashed, monkeypatch):
    monkeypatch.setattr(hashes, "SAVE_EVERY", 2)
    (data / "train" / "images" / PATHS[3]).write_bytes(b"no photo")
    with pytest.raises(OSError, match=r"cannot read .*normal\.jpeg"):
        hashes.open_hashes(tmp_path, data, table())
    picture(3).save(data / "train" / "images" / PATHS[3])
    hashed.clear()
    found = hashes.open_hashes(tmp_path, data, table())
    assert sorted(hashed) == sorted(PATHS[2:])
    assert found.phash.tolist() == hashes.open_hashes(tmp_path / "fresh", data, table()).phash.tolist()


@pytest.mark.parametrize("damage", ["empty", "no archive", "cut short", "of another format"])
def test_a_cache_that_cannot_be_used_is_made_anew(data, tmp_path, hashed, monkeypatch, damage):
    first = hashes.open_hashes(tmp_path, data, table())
    cache = tmp_path / "hashes.npz"
    if damage == "of another format":
        monkeypatch.setattr(hashes, "FORMAT", hashes.FORMAT + 1)
    else:
        cache.write_bytes({"empty": b"", "no archive": b"PK no archive", "cut short": cache.read_bytes()[:900]}[damage])
    hashed.clear()
    assert hashes.open_hashes(tmp_path, data, table()).phash.tolist() == first.phash.tolist()
    assert len(hashed) == 4
    assert not list(tmp_path.glob(".*tmp*"))


def test_a_train_and_an_eval_photo_of_one_name_are_two(data, tmp_path):
    save(picture(8), data / "eval" / "images" / PATHS[0])
    both = pd.concat([table(PATHS[:1]), table(PATHS[:1], "eval")])
    for _ in range(2):
        assert len(set(hashes.open_hashes(tmp_path, data, both).phash.tolist())) == 2


few_bits = arrays.arrays(np.uint64, st.integers(0, 40), elements=st.integers(0, 2**64 - 1) | st.integers(0, 15))


@settings(deadline=None)
@given(values=few_bits, distance=st.integers(0, 64), rows=st.integers(1, 50))
def test_near_pairs_are_those_of_comparing_each_with_each(values, distance, rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashes, "ROWS_AT_ONCE", rows)
        found = [pair for part in hashes.near(values, distance) for pair in np.stack(part, axis=1).tolist()]
    pairs = itertools.combinations(enumerate(values.tolist()), 2)
    assert found == [[row, other] for (row, one), (other, two) in pairs if (one ^ two).bit_count() <= distance]
