"""The store of decoded photos: bytes that are replaced, flipped or lacking, and an index that is no longer one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from amount import amount
from data_folders import noise, save, within

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
    return store.open_store(folder / "store", folder / "images", PATHS, FRAME, workers=2)


def home(folder: Path) -> Path:
    (found,) = (path for path in (folder / "store").iterdir() if path.is_dir())
    return found


def assert_whole(found: store.Store) -> None:
    np.testing.assert_array_equal(found.images, np.stack([noise(seed) for seed in range(len(PATHS))]))


@pytest.mark.parametrize("moment", ["before it is decoded", "after it was decoded"])
def test_a_photo_replaced_while_the_store_is_built_is_never_kept_under_another_ones_digest(folder, monkeypatch, moment):
    target, decode = folder / "images" / PATHS[0], store.decode

    def replacing(source: object, frame: store.Frame) -> np.ndarray:
        is_first = not (folder / "done").exists()
        (folder / "done").touch()
        found = decode(source, frame) if moment.startswith("after") else None
        if is_first:
            save(noise(99), target)
        return decode(source, frame) if found is None else found

    monkeypatch.setattr(store, "decode", replacing)
    store.open_store(folder / "store", folder / "images", PATHS, FRAME, workers=1)
    monkeypatch.setattr(store, "decode", decode)
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


def changed(**fields: object) -> Callable[[dict], object]:
    return lambda index: index | fields


DAMAGED: dict[str, Callable[[dict], object]] = {
    "a list": lambda index: [],
    "null": lambda index: None,
    "a number": lambda index: 7,
    "no digests": lambda index: {key: value for key, value in index.items() if key != "digests"},
    "no checksums, as before": lambda index: {key: value for key, value in index.items() if key != "checksums"},
    "paths of another": changed(paths=PATHS[::-1]),
    "paths too few": changed(paths=PATHS[:2]),
    "paths that are numbers": changed(paths=[1, 2, 3, 4]),
    "digests too few": changed(digests=["0" * 64]),
    "another digest": changed(digests=["0" * 64] * 4),
    "states that are none": changed(states="never"),
    "states too few": changed(states=[[1, 2, 3]]),
    "states of two": changed(states=[[1, 2]] * 4),
    "content that is none": changed(content=None),
    "content of another": changed(content="0" * 16),
    "checksums of another": changed(checksums=[1]),
    "checksums that are text": changed(checksums=["x"]),
}


@pytest.mark.parametrize("case", DAMAGED)
@pytest.mark.filterwarnings("ignore:.*no longer as it was written")
def test_an_index_that_is_none_is_built_again(folder, case):
    content = opened(folder).content
    path = home(folder) / "index.json"
    path.write_text(json.dumps(DAMAGED[case](files.read_json(path))))
    found = opened(folder)
    assert_whole(found)
    assert found.content == content == files.read_json(path)["content"]


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\0", '{"paths": NaN}', "\ufeff{}"])
def test_an_index_that_is_no_json_is_built_again(folder, text):
    opened(folder)
    (home(folder) / "index.json").write_text(text)
    assert_whole(opened(folder))


@pytest.mark.parametrize("name", ["index.json", "photos.npy"])
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_something_else_in_place_of_a_file_of_the_store_is_built_again(folder, name, kind):
    opened(folder)
    path = home(folder) / name
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    assert_whole(within(20, [path], lambda: opened(folder)))


BUILT_WITHOUT_ROOM = """
import resource, signal, sys
from pathlib import Path
from mask_lib.data import store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
folder = Path(sys.argv[1])
paths = [f"person{number}/normal.png" for number in range(4)]
try:
    store.open_store(folder / "store", folder / "images", paths, store.Frame(48, 64), workers=1)
except OSError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.parametrize("room", [0, 100, 4096, 30_000])
def test_a_full_disk_leaves_the_old_store_and_no_half_of_a_new_one(folder, room):
    before = opened(folder)
    kept = {path: path.read_bytes() for path in home(folder).iterdir()}
    save(noise(99), folder / "images" / PATHS[0])
    command = [sys.executable, "-c", BUILT_WITHOUT_ROOM, str(folder), str(room)]
    done = subprocess.run(command, cwd=files.PROJECT, capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert "no room for" in done.stdout and "photos.npy" in done.stdout
    assert {path: path.read_bytes() for path in home(folder).iterdir()} == kept
    np.testing.assert_array_equal(before.images[0], noise(0))
    np.testing.assert_array_equal(opened(folder).images[0], noise(99))
