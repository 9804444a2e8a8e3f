"""Decoded photos in one memory-mapped file: decode once, read at memory speed ever after.

A store is a folder with `photos.npy`, (N, H, W, C) uint8, and `index.json`, an `Index`. It is built in a temporary
folder and renamed when whole, and built again where either file is no longer as it was written.
"""

import hashlib
import math
import os
import warnings
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps
from pydantic import BaseModel

from mask_lib.base import files
from mask_lib.base.config import Run
from mask_lib.data.photos import file_state, open_photo, unreadable

FORMAT = {1: 1, 3: 1, 4: 2}  # by number of channels; raise it when the same settings would give other pixels
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's mode by number of channels; the fourth is yellow, not transparency
BLOCK = 256  # photos with one checksum


class Frame(NamedTuple):
    """The shape every photo is brought to: pixels, how, and channels."""

    width: int
    height: int
    resize: str = "stretch"
    channels: int = 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C), as the store holds a photo."""
        return self.height, self.width, self.channels

    @classmethod
    def of_run(cls, run: Run) -> "Frame":
        """The shape that a run's settings ask for."""
        return cls(run.image_width, run.image_height, run.resize, run.image_channels)

    def name(self) -> str:
        """A folder name that tells people what lies inside: `224x224x3-stretch`."""
        return f"{self.width}x{self.height}x{self.channels}-{self.resize}"


class Store(NamedTuple):
    """Open photos. `images` is (N, H, W, C) uint8 on disk, `row_of` finds a path's row."""

    images: np.ndarray
    row_of: dict[str, int]
    content: str  # digest of all photos' bytes: tells whether two stores hold the same data
    frame: Frame
    root: Path | None = None  # the folder that relative paths count from; None: the photos lie in memory alone

    def rows(self, paths: Sequence[str]) -> np.ndarray:
        """(N,) int64 rows of `paths`. Raises KeyError that names the first few unknown ones."""
        unknown = [path for path in paths if path not in self.row_of]
        if unknown:
            raise KeyError(f"{len(unknown)} photos are not in the store: {unknown[:3]}")
        return np.fromiter((self.row_of[path] for path in paths), dtype=np.int64, count=len(paths))


class Index(BaseModel):
    """What is known of the photos of a store, in order."""

    paths: list[str]
    states: list[tuple[int, int, int]]  # as `photos.file_state` gives them
    digests: list[str]  # SHA-256 of the files' bytes
    content: str  # as in `Store`
    checksums: list[int]  # CRC-32 of each `BLOCK` of decoded photos


def fit(image: Image.Image, frame: Frame) -> np.ndarray:
    """One upright photo as (H, W, C) uint8: stretched, cropped or padded. ValueError for a lack of a fourth channel."""
    if frame.channels != 4:
        image = image.convert(MODES[frame.channels])
    elif image.mode != MODES[4]:
        advice = "combine four images into one with python -m mask_lib.data.rgby, or set image_channels to 3 or 1"
        raise ValueError(f"its mode is {image.mode}, and image_channels = 4 takes {MODES[4]} alone: {advice}")
    else:  # of RGBA Pillow's resize would weigh the colours by the fourth channel and lose them where that is 0
        image = Image.merge("RGBX", image.split())
    size, how = (frame.width, frame.height), Image.Resampling.BILINEAR
    if frame.resize == "stretch":
        image = image.resize(size, how, reducing_gap=2.0)
    elif frame.resize == "crop":
        image = ImageOps.fit(image, size, how)
    else:
        image = ImageOps.pad(image, size, how)  # black bars
    return np.asarray(image).reshape(frame.shape)


def decode(source: Path | bytes, frame: Frame) -> np.ndarray:
    """Read and fit one photo, (H, W, C) uint8. Raises OSError that names a file it cannot read."""
    try:
        # A JPEG decodes smaller for a fraction of the work; twice the frame leaves a proper filtered resize.
        with open_photo(source, MODES[frame.channels], (2 * frame.width, 2 * frame.height)) as image:
            return fit(image, frame)
    except ValueError as error:
        raise unreadable(source, error) from error


def open_store(
    folder: files.AnyPath, root: files.AnyPath, paths: Sequence[str], frame: Frame, build: bool = True
) -> Store:
    """The store of `paths` (relative to `root`) under `folder`, built or rebuilt if need be.

    Where a file's size or times differ its bytes are hashed: changed ones rebuild the store. Every opening compares
    checksums of the decoded photos. Others wait meanwhile. Raises OSError that names a missing or unreadable photo, or
    lacking room, ValueError for repeated paths, and FileNotFoundError for what must be built without `build`.
    """
    if len(set(paths)) != len(paths):
        raise ValueError("a store takes each path once")
    root, folder = Path(root).resolve(), Path(folder)
    home = folder / f"{frame.name()}-{files.digest([FORMAT[frame.channels], str(root), list(paths)])}"
    missing = FileNotFoundError(f"these photos are not decoded to {frame.name()} in {files.shown_path(folder)}")
    if not (build or home.is_dir()):
        raise missing
    with files.lock(Path(f"{home}.lock")):
        index = _read_index(home, paths, frame)
        if index is None or _is_changed(index, root, home):
            if not build:
                raise missing
            with files.replacing_folder(home) as fresh:
                index = _write_photos(fresh / "photos.npy", root, paths, frame)
                files.write_json(index, fresh / "index.json")
    images = np.load(home / "photos.npy", mmap_mode="r", allow_pickle=False)
    rows = {path: row for row, path in enumerate(paths)}
    return Store(images, rows, index["content"], frame, root)


def _read_index(home: Path, paths: Sequence[str], frame: Frame) -> dict[str, Any] | None:
    """The index of a whole store of these photos, or None where there is none or one of its files is damaged."""
    stored = home / "photos.npy"
    try:
        index = files.read_json(home / "index.json", Index)
        images = np.lib.format.open_memmap(stored, "r") if stored.is_file() else np.empty(0)
        content = _content(index)
    except Exception:  # damage can raise nearly anything from numpy's reader
        return None
    known = index["paths"], len(index["states"]), index["content"], images.shape, images.dtype
    if known != (list(paths), len(paths), content, (len(paths), *frame.shape), np.uint8):
        return None
    if _checksums(images) == index["checksums"]:
        return index
    warnings.warn(f"{stored} is no longer as it was written, its disk may be failing: decoding again", stacklevel=3)
    return None


def _content(index: dict[str, Any]) -> str:
    return files.digest(sorted(zip(index["paths"], index["digests"], strict=True)))


def _checksums(images: np.ndarray) -> list[int]:
    """CRC-32 of each `BLOCK` of decoded photos: 4 GB a second."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(zlib.crc32, (images[start : start + BLOCK] for start in range(0, len(images), BLOCK))))


def _is_changed(index: dict[str, Any], root: Path, home: Path) -> bool:
    """Whether a photo's bytes are no longer those of the store; remembers new times of unchanged ones."""
    states = [file_state(root / path) for path in index["paths"]]
    suspects = [row for row, state in enumerate(states) if state != index["states"][row]]
    if any(files.file_digest(root / index["paths"][row]) != index["digests"][row] for row in suspects):
        return True
    if suspects:
        files.write_json({**index, "states": states}, home / "index.json")
    return False


def _write_photos(target: Path, root: Path, paths: Sequence[str], frame: Frame) -> dict[str, Any]:
    """Decode every photo into a new file; gives what the `Index` holds."""
    shape = len(paths), *frame.shape
    try:
        images = np.lib.format.open_memmap(target, "w+", np.uint8, shape)
        with target.open("rb+") as handle:
            # Take the room now: on a full disk, writing to a sparse map would kill the process instead of raising.
            os.posix_fallocate(handle.fileno(), 0, images.offset + images.nbytes)
    except OSError as error:
        raise OSError(error.errno, f"no room for {math.prod(shape) / 1e9:.3g} GB of photos", target) from error

    def put(row: int) -> tuple[tuple[int, int, int], str]:
        path = root / paths[row]
        state = file_state(path)  # before reading: a file that changes meanwhile is caught at the next opening
        try:
            content = path.read_bytes()  # once: what is hashed is what is decoded, whoever replaces the file
            images[row] = decode(content, frame)
        except Exception as error:
            raise unreadable(path, error) from error
        return state, hashlib.sha256(content).hexdigest()

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter lock
        read = list(files.progress(pool.map(put, range(len(paths))), len(paths), f"decode {frame.name()}"))
    images.flush()
    known = {"paths": list(paths), "states": [state for state, _ in read], "digests": [digest for _, digest in read]}
    return known | {"content": _content(known), "checksums": _checksums(images)}
