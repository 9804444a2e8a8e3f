"""Decoded photos in one memory-mapped file: decode once, read at memory speed ever after.

A store is a folder with `photos.npy`, (N, H, W, C) uint8, and `index.json`, which holds each photo's path, size, times
and content hash. It is built in a temporary folder and renamed when whole.
"""

import dataclasses
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image, ImageOps

from mask_lib.base import files
from mask_lib.base.config import Run
from mask_lib.data.photos import FORMATS, file_state

FORMAT = {1: 1, 3: 1, 4: 2}  # by number of channels; raise it when the same settings would give other pixels
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's mode by number of channels; the fourth is yellow, not transparency


@dataclasses.dataclass(frozen=True)
class Frame:
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


@dataclasses.dataclass(frozen=True)
class Store:
    """Open photos. `images` is (N, H, W, C) uint8 on disk, `row_of` finds a path's row."""

    images: np.ndarray
    row_of: dict[str, int]
    content: str  # digest of all photos' bytes: tells whether two stores hold the same data
    frame: Frame
    rebuilt_for: tuple[str, ...] = ()  # photos whose bytes changed since the store was last built
    root: Path | None = None  # the folder that relative paths count from; None: the photos lie in memory alone

    def rows(self, paths: Sequence[str]) -> np.ndarray:
        """(N,) int64 rows of `paths`. Raises KeyError that names the first few unknown ones."""
        unknown = [path for path in paths if path not in self.row_of]
        if unknown:
            raise KeyError(f"{len(unknown)} photos are not in the store: {unknown[:3]}")
        return np.fromiter((self.row_of[path] for path in paths), dtype=np.int64, count=len(paths))


def fit(image: Image.Image, frame: Frame) -> np.ndarray:
    """One photo as (H, W, C) uint8: turned upright by its EXIF, then stretched, cropped or padded."""
    image = with_channels(ImageOps.exif_transpose(image), frame.channels)
    size, how = (frame.width, frame.height), Image.Resampling.BILINEAR
    if frame.resize == "stretch":
        image = image.resize(size, how, reducing_gap=2.0)
    elif frame.resize == "crop":
        image = ImageOps.fit(image, size, how)
    else:
        image = ImageOps.pad(image, size, how)  # black bars
    return np.asarray(image).reshape(frame.shape)


def with_channels(image: Image.Image, channels: int) -> Image.Image:
    """The image in a mode of 1, 3 or 4 channels. Nothing but four channels can become four: ValueError."""
    if channels != 4:
        return image.convert(MODES[channels])
    if image.mode != MODES[4]:
        raise ValueError(
            f"its mode is {image.mode}, and image_channels = 4 takes {MODES[4]} alone: combine four images into one "
            "with python -m mask_lib.data.rgby, or set image_channels to 3 or 1"
        )
    # Of RGBA Pillow's resize would weigh the colours by the fourth channel and lose them where that is 0.
    return Image.merge("RGBX", image.split())


def decode(path: Path, frame: Frame) -> np.ndarray:
    """Read and fit one photo file, (H, W, C) uint8. Raises OSError that names a file it cannot read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            # A JPEG decodes smaller for a fraction of the work; twice the frame leaves a proper filtered resize.
            image.draft(MODES[frame.channels], (2 * frame.width, 2 * frame.height))
            return fit(image, frame)
    except Exception as error:
        raise OSError(f"cannot read {path}: {error}") from error


def open_store(
    folder: str | os.PathLike[str],
    root: str | os.PathLike[str],
    paths: Sequence[str],
    frame: Frame,
    workers: int | None = None,
) -> Store:
    """The store of `paths` (relative to `root`) under `folder`, built or rebuilt if need be.

    Where a file's size or times differ its bytes are hashed again: changed ones rebuild the store and are named in
    `rebuilt_for`. Processes that want the same store at once wait for the first. Raises OSError that names a missing
    or unreadable photo, ValueError for repeated paths.
    """
    if len(set(paths)) != len(paths):
        raise ValueError("a store takes each path once")
    root, folder = Path(root).resolve(), Path(folder)
    home = folder / f"{frame.name()}-{files.digest([FORMAT[frame.channels], str(root), list(paths)])}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{home}.lock"):
        index = _read_index(home, frame, len(paths))
        changed = _changed(index, root, home) if index else ()
        if index is None or changed:
            index = _build(home, root, paths, frame, workers or os.cpu_count() or 1)
    images = np.load(home / "photos.npy", mmap_mode="r", allow_pickle=False)
    rows = {path: row for row, path in enumerate(index["paths"])}
    return Store(images, rows, index["content"], frame, tuple(changed), root)


def _read_index(home: Path, frame: Frame, count: int) -> dict[str, Any] | None:
    """The index of a whole store, or None where there is none or its photo file is cut short."""
    try:
        index = files.read_json(home / "index.json")
        images = np.load(home / "photos.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError):
        return None
    return index if images.shape == (count, *frame.shape) and images.dtype == np.uint8 else None


def _changed(index: dict[str, Any], root: Path, home: Path) -> tuple[str, ...]:
    """Paths whose bytes are no longer those of the store; remembers new times of unchanged ones."""
    states = [list(file_state(root / path)) for path in index["paths"]]
    suspects = [row for row, state in enumerate(states) if state != index["states"][row]]
    changed = [row for row in suspects if files.file_digest(root / index["paths"][row]) != index["digests"][row]]
    if suspects and not changed:
        files.write_json({**index, "states": states}, home / "index.json")
    return tuple(index["paths"][row] for row in changed)


def _build(home: Path, root: Path, paths: Sequence[str], frame: Frame, workers: int) -> dict[str, Any]:
    """Decode everything into a temporary folder and rename it to `home`. Call it under the lock."""
    partial = home.with_name(f"{home.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed build left: the lock says that nobody is building
    partial.mkdir()
    images = np.lib.format.open_memmap(partial / "photos.npy", "w+", np.uint8, (len(paths), *frame.shape))
    with (partial / "photos.npy").open("rb+") as handle:
        # Take the room now: on a full disk, writing to a sparse map would kill the process instead of raising.
        os.posix_fallocate(handle.fileno(), 0, images.offset + images.nbytes)

    def put(row: int) -> tuple[tuple[int, int, int], str]:
        path = root / paths[row]
        state = file_state(path)  # before reading: a file that changes meanwhile is caught at the next opening
        images[row] = decode(path, frame)
        return state, files.file_digest(path)

    with ThreadPoolExecutor(workers) as pool:  # Pillow decodes outside the interpreter lock
        read = list(files.progress(pool.map(put, range(len(paths))), len(paths), f"decode {frame.name()}"))
    images.flush()
    states, digests = [state for state, _ in read], [digest for _, digest in read]
    content = files.digest(sorted(zip(paths, digests, strict=True)))
    index = {"paths": list(paths), "states": states, "digests": digests, "content": content}
    files.write_json(index, partial / "index.json")
    shutil.rmtree(home, ignore_errors=True)
    partial.rename(home)
    return index


def blocks(count: int, size: int) -> Iterator[np.ndarray]:
    """(≤ size,) int64 positions 0 … count-1 in order, block by block."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))
