"""Photos with broken EXIF, pipes for files and giants of pixels: one way to an upright photo holds everywhere."""

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from amount import amount
from data_folders import ANN, noise, sound_folder, within
from photo_files import save
from PIL import Image

from mask_lib.base import files
from mask_lib.data import hashes, photos, rgby, store
from mask_lib.relabel.decision_log import DecisionLog
from mask_lib.relabel.photo_queue import PhotoStates

FRAME = store.Frame(48, 64)
ROW = pd.DataFrame({"path": [f"{ANN}/normal.png"], "split": ["train"], "person": [ANN], "label": [13]})
UPRIGHT, TURNED = (0x112, 3, 1, struct.pack("<HH", 1, 0)), (0x112, 3, 1, struct.pack("<HH", 6, 0))


def exif(*tags: tuple[int, int, int, bytes], offset: int = 8) -> bytes:
    """EXIF bytes of raw tags (number, type, count, four bytes of value)."""
    entries = b"".join(struct.pack("<HHI", *tag[:3]) + tag[3] for tag in tags)
    return b"Exif\0\0II*\0" + struct.pack("<IH", offset, len(tags)) + entries + b"\0\0\0\0"


BROKEN = {
    "no TIFF": b"Exif\0\0this is no TIFF at all",
    "an unknown byte order": b"Exif\0\0XX*\0\x08\0\0\0\0\0",
    "cut in its head": exif(TURNED)[:11],
    "cut in a tag": exif(TURNED)[:20],
    "tags that lie elsewhere": exif(TURNED, offset=60_000),
    "an orientation in words": exif((0x112, 2, 4, b"up\0\0")),
    "an orientation of nine": exif((0x112, 3, 1, struct.pack("<HH", 9, 0))),
    "text for the resolution": exif(UPRIGHT, (0x11A, 7, 4, b"abcd")),
}


def with_exif(content: bytes, ending: str) -> bytes:
    """A JPEG, PNG or WebP of noise with these EXIF bytes as they are."""
    with io.BytesIO() as handle:
        picture = Image.fromarray(noise(0, 60, 40))
        options = {"exif": content} if content else {}
        picture.save(handle, {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[ending], quality=95, **options)
        return handle.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def late_exif(content: bytes) -> bytes:
    """A PNG whose eXIf stands behind its pixels, with the text that some programs write in its place."""
    raw = b"\nexif\n       5\nno hex"
    plain = with_exif(b"", "png")
    return (
        plain[:-12] + png_chunk(b"eXIf", content) + png_chunk(b"tEXt", b"Raw profile type exif\0" + raw) + plain[-12:]
    )


FILES = {
    f"{ending}: {name}": (with_exif(content, ending), ending)
    for name, content in BROKEN.items()
    for ending in ("jpg", "png", "webp")
}
FILES |= {f"png, late: {name}": (late_exif(content[6:]), "png") for name, content in BROKEN.items()}


@pytest.mark.parametrize("case", FILES)
def test_a_photo_whose_exif_cannot_be_read_is_upright_for_everyone(tmp_path, case):
    content, ending = FILES[case]
    sound = tmp_path / f"sound.{ending}"
    sound.write_bytes(with_exif(b"", ending))
    data = sound_folder(tmp_path / "data")
    path = data / "train" / "images" / ROW["path"][0]
    path.write_bytes(content)
    assert photos.scan_photos(data)[1].empty
    for read in (hashes.hash_photo, lambda one: (store.decode(one, FRAME),)):
        for found, expected in zip(read(path), read(sound), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert photos.thumbnails(data, ROW, 50)[0].shape == (50, 33, 3)
    assert photos.sizes(data, ROW).tolist() == [[40, 60]]
    for read in READERS.values():
        read(data, tmp_path)
    assert Image.open(io.BytesIO(on_screen(data, tmp_path))).size == (40, 60)


def test_an_orientation_counts_though_other_tags_cannot_be_written_again(tmp_path):
    odd, plain = tmp_path / "a.jpg", tmp_path / "b.jpg"
    odd.write_bytes(with_exif(exif(TURNED, (0x11A, 7, 4, b"abcd")), "jpg"))
    plain.write_bytes(with_exif(exif(TURNED), "jpg"))
    found = store.decode(odd, store.Frame(60, 40))
    assert found.shape == (40, 60, 3)
    np.testing.assert_array_equal(found, store.decode(plain, store.Frame(60, 40)))


def test_a_band_with_broken_exif_is_combined(tmp_path):
    for colour in rgby.COLOURS:
        image = Image.fromarray(noise(0)[..., 0])
        image.save(save(noise(0), tmp_path / "in" / f"cell_{colour}.png"), exif=BROKEN["no TIFF"])
    found = rgby.combine(tmp_path / "in", tmp_path / "out", workers=1)
    assert (found.made, len(found.problems)) == (1, 0)


def on_screen(data: Path, here: Path) -> bytes:
    return PhotoStates(ROW, DecisionLog(here / "log.jsonl", "me"), data, None).photo_bytes(ROW["path"][0])[0]


READERS: dict[str, Callable[[Path, Path], object]] = {
    "hashes": lambda data, here: hashes.open_hashes(here / "hashes", data, ROW),
    "store": lambda data, here: store.open_store(here / "store", data / "train" / "images", list(ROW["path"]), FRAME),
    "thumbnails": lambda data, here: photos.thumbnails(data, ROW),
    "sizes": lambda data, here: photos.sizes(data, ROW),
    "screen": on_screen,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["pipe", "folder", "cut short"])
def test_what_is_no_photo_is_an_error_at_once(tmp_path, reader, kind):
    data = sound_folder(tmp_path / "data")
    path = data / "train" / "images" / ROW["path"][0]
    content = path.read_bytes()
    path.unlink()
    if kind == "cut short":
        path.write_bytes(content[: len(content) // 2] if reader != "sizes" else content[:9])
        if reader == "screen":  # a browser shows a PNG as far as it goes
            assert on_screen(data, tmp_path) == path.read_bytes()
            return
    else:
        os.mkfifo(path) if kind == "pipe" else path.mkdir()
    with pytest.raises(OSError, match=r"normal\.png|cannot identify"):
        within(5, [path], lambda: READERS[reader](data, tmp_path))


def test_a_photo_that_became_a_pipe_is_named_when_the_store_is_opened_again(tmp_path):
    data = sound_folder(tmp_path / "data")
    READERS["store"](data, tmp_path)
    path = data / "train" / "images" / ROW["path"][0]
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match=r"normal\.png is a folder, a pipe or a device"):
        within(5, [path], lambda: READERS["store"](data, tmp_path))


@pytest.mark.parametrize(
    ("part", "kind"), [("train/train.csv", "folder"), ("eval/info.csv", "pipe"), ("eval/images", "file")]
)
def test_a_part_of_the_data_folder_of_another_kind_is_named(tmp_path, part, kind):
    data = sound_folder(tmp_path / "data")
    (data / part).rename(tmp_path / "aside")
    {"folder": Path.mkdir, "pipe": os.mkfifo, "file": Path.touch}[kind](data / part)
    with pytest.raises(FileNotFoundError, match=rf"no (file|folder) .*{part}"):
        within(5, [data / part], lambda: photos.scan_photos(data))


PEAK = """
import resource, sys
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
from mask_lib.data import hashes, store
read = {"hash": hashes.hash_photo, "store": lambda one: store.decode(one, store.Frame(48, 64))}[sys.argv[1]]
for threads in (1, 4):
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, [Path(sys.argv[2])] * threads))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.fixture(scope="module")
def giant(tmp_path_factory) -> Path:
    """A PNG of 49 megapixels, or 169: some hundred kilobytes on disk."""
    path = tmp_path_factory.mktemp("giant") / "giant.png"
    Image.new("L", (side := amount(7_000, 13_000), side), 7).save(path, compress_level=1)
    return path


@pytest.mark.parametrize("reader", ["hash", "store"])
def test_giant_pictures_on_every_thread_take_the_memory_of_one(giant, reader):
    command = [sys.executable, "-W", "ignore", "-c", PEAK, reader, str(giant)]
    alone, together = map(int, subprocess.check_output(command, cwd=files.PROJECT, text=True).split())  # megabytes
    assert together < alone + 60
