"""The store of decoded photos: bytes that are replaced, flipped or lacking, and an index that is no longer one."""

import contextlib
import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from amount import amount
from data_folders import noise, within
from photo_files import save

from mask_lib.base import files
from mask_lib.data import store

PATHS = [f"person{number}/normal.png" for number in range(4)]
FRAME = store.Frame(48, 64)


@pytest.fixture
def folder(tmp_path) -> Path:
    for seed, path in enumerate(PATHS):
        save(noise(seed), tmp_path / "images" / path)
    return tmp_path


def opened(folder: Path) -> store.Store:
    return store.open_store(folder / "store", folder / "images", PATHS, FRAME)


def home(folder: Path) -> Path:
    (found,) = (path for path in (folder / "store").iterdir() if path.is_dir())
    return found


def assert_whole(found: store.Store) -> None:
    np.testing.assert_array_equal(found.images, np.stack([noise(seed) for seed in range(len(PATHS))]))


@pytest.mark.parametrize("moment", ["before it is decoded", "after it was decoded"])
def test_a_photo_replaced_while_the_store_is_built_is_never_kept_under_another_ones_digest(folder, monkeypatch, moment):
    target, decode = folder / "images" / PATHS[0], store.decode

    def replacing(source: object, frame: store.Frame) -> np.ndarray:
        monkeypatch.setattr(store, "decode", decode)  # once
        found = decode(source, frame) if moment.startswith("after") else None
        save(noise(99), target)
        return decode(source, frame) if found is None else found

    monkeypatch.setattr(store, "decode", replacing)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    opened(folder)
    found = opened(folder)
    np.testing.assert_array_equal(found.images[0], noise(99))
    index = files.read_json(home(folder) / "index.json")
    assert index["digests"] == [files.file_digest(folder / "images" / path) for path in PATHS]


def test_a_flipped_byte_in_the_photos_is_noticed_wherever_it_is(folder):
    opened(folder)
    stored = home(folder) / "photos.npy"
    whole, generator = stored.read_bytes(), np.random.default_rng(0)
    offsets = generator.integers(0, len(whole), amount(20, 100)).tolist()
    for offset in [0, 6, 40, 127, 128, len(whole) - 1, *offsets]:
        data = bytearray(whole)
        data[offset] ^= 1 << int(generator.integers(8))
        stored.write_bytes(data)
        if offset >= 128:  # the head of the file alone may also be none at all any more
            with pytest.warns(UserWarning, match=r"photos\.npy is no longer as it was written"):
                assert_whole(opened(folder))
        else:
            assert_whole(opened(folder))
        assert stored.read_bytes() == whole


DAMAGED: dict[str, str | Callable[[dict], dict]] = {
    "a list": "[]",
    "null": "null",
    "a number": "7",
    "nothing": "",
    "half a mapping": "{",
    "nested too deep": "[" * 100_000,
    "a null byte": "\0",
    "no JSON": '{"paths": NaN}',
    "a mark of order": "\ufeff{}",
    "no digests": lambda index: {key: value for key, value in index.items() if key != "digests"},
    "no checksums, as before": lambda index: {key: value for key, value in index.items() if key != "checksums"},
    "paths of another": lambda index: index | {"paths": PATHS[::-1]},
    "paths too few": lambda index: index | {"paths": PATHS[:2]},
    "paths that are numbers": lambda index: index | {"paths": [1, 2, 3, 4]},
    "digests too few": lambda index: index | {"digests": ["0" * 64]},
    "another digest": lambda index: index | {"digests": ["0" * 64] * 4},
    "states that are none": lambda index: index | {"states": "never"},
    "states too few": lambda index: index | {"states": [[1, 2, 3]]},
    "states of two": lambda index: index | {"states": [[1, 2]] * 4},
    "content that is none": lambda index: index | {"content": None},
    "content of another": lambda index: index | {"content": "0" * 16},
    "checksums of another": lambda index: index | {"checksums": [1]},
    "checksums that are text": lambda index: index | {"checksums": ["x"]},
}


@pytest.mark.parametrize("case", DAMAGED)
@pytest.mark.filterwarnings("ignore:.*no longer as it was written")
def test_an_index_that_is_none_is_built_again(folder, case):
    content = opened(folder).content
    path = home(folder) / "index.json"
    damage = DAMAGED[case]
    path.write_text(damage if isinstance(damage, str) else json.dumps(damage(files.read_json(path))))
    found = opened(folder)
    assert_whole(found)
    assert found.content == content == files.read_json(path)["content"]


@pytest.mark.parametrize("name", ["index.json", "photos.npy"])
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_something_else_in_place_of_a_file_of_the_store_is_built_again(folder, name, kind):
    opened(folder)
    path = home(folder) / name
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    assert_whole(within(20, [path], lambda: opened(folder)))


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """Within it no file of this process grows beyond so many bytes, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)  # Python ignores the signal that comes with it
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("room", [0, 100, 4096, 30_000])
def test_a_full_disk_leaves_the_old_store_and_no_half_of_a_new_one(folder, room, capsys):
    before = opened(folder)
    kept = {path: path.read_bytes() for path in home(folder).iterdir()}
    save(noise(99), folder / "images" / PATHS[0])
    with pytest.raises(OSError, match=r"no room for .*photos\.npy"), room_for(room):
        opened(folder)
    assert {path: path.read_bytes() for path in home(folder).iterdir()} == kept
    np.testing.assert_array_equal(before.images[0], noise(0))
    np.testing.assert_array_equal(opened(folder).images[0], noise(99))
