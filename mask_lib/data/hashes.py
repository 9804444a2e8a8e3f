"""Two 64-bit hashes of every photo, kept on disk, and all pairs of photos whose hashes are near.

They are imagehash's `average_hash` and `phash` of a JPEG decoded in grey at a fraction of its size, a fifth of the
work: at most a few bits differ from those of the whole photo.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
from PIL import Image

from mask_lib.base import files
from mask_lib.data import photos

FORMAT = 1  # raise it when the same photo would give other hashes
KINDS = ("ahash", "phash")
LEAST_SIDE = 48  # pixels; phash looks at 32 x 32
SMALL_SIDE = 16  # pixels
FLAT = 1.0  # grey levels; a photo that varies less shows nothing, and its hash is chance
SAVE_EVERY = 2000  # photos; what a killed run has to hash again
ROWS_AT_ONCE, COLUMNS_AT_ONCE = 128, 4096  # hashes compared at once: what fits into the processor's cache


@dataclass(frozen=True)
class Hashes:
    """What is known of N photos, in the order of the photo table."""

    ahash: np.ndarray  # (N,) uint64
    phash: np.ndarray  # (N,) uint64
    small: np.ndarray  # (N, 16, 16) uint8, the photo in grey

    @property
    def is_featureless(self) -> np.ndarray:
        """(N,) bool: photos of one colour, whose hashes say nothing."""
        return self.small.std(axis=(1, 2)) < FLAT


def empty(count: int) -> Hashes:
    """Hashes of `count` photos, to be filled."""
    small = np.zeros((count, SMALL_SIDE, SMALL_SIDE), np.uint8)
    return Hashes(np.zeros(count, np.uint64), np.zeros(count, np.uint64), small)


def grey_photo(path: Path, least_side: int = LEAST_SIDE) -> Image.Image:
    """A photo file in grey, upright, a large one at 1/2, 1/4 or 1/8 of its size, no side below `least_side` pixels.

    Raises OSError that names a file it cannot read.
    """
    with photos.open_photo(path, "L", (least_side, least_side)) as image:
        factor = next((part for part in (8, 4, 2) if min(image.size) >= part * least_side), 1)
        return image.convert("L").reduce(factor)


def hash_photo(path: Path) -> tuple[np.uint64, np.uint64, np.ndarray]:
    """ahash, phash, whose hex digits are imagehash's, and the (16, 16) uint8 grey picture of one file."""
    image = grey_photo(path)
    ahash, phash = (np.packbits(one(image).hash).view(">u8")[0] for one in (imagehash.average_hash, imagehash.phash))
    small = np.asarray(image.resize((SMALL_SIDE, SMALL_SIDE), Image.Resampling.BILINEAR))
    return np.uint64(ahash), np.uint64(phash), small


def hexed(values: Sequence[int] | np.ndarray) -> list[str]:
    """64-bit numbers as 16 hex digits each."""
    return [f"{int(value):016x}" for value in values]


def open_hashes(
    folder: str | os.PathLike[str],
    data_dir: str | os.PathLike[str],
    photo_table: pd.DataFrame,
    workers: int | None = None,
) -> Hashes:
    """The hashes of every row of the photo table (columns path, split), in `workers` threads.

    They are kept in `folder`; only photos that are new there, or whose size or times have changed, are hashed. A
    killed run goes on where it last saved. Raises OSError that names a missing or unreadable photo.
    """
    folder, paths = Path(folder), photos.files_of(data_dir, photo_table)
    folder.mkdir(parents=True, exist_ok=True)
    names = np.array([f"{split}/{path}" for split, path in photo_table[["split", "path"]].to_numpy()], str)
    with files.lock(folder / "hashes.lock"), ThreadPoolExecutor(workers) as pool:
        states = np.array([photos.file_state(path) for path in paths], np.int64).reshape(-1, 3)
        hashes, is_known = read_cache(folder / "hashes.npz", names, states)
        new = np.flatnonzero(~is_known)
        found = pool.map(hash_photo, [paths[row] for row in new])
        results = files.progress(found, len(new), "hashing photos") if len(new) else ()
        for done, (row, result) in enumerate(zip(new, results, strict=True), start=1):
            hashes.ahash[row], hashes.phash[row], hashes.small[row] = result
            is_known[row] = True
            if done % SAVE_EVERY == 0 or done == len(new):
                write_cache(folder / "hashes.npz", names[is_known], states[is_known], hashes, is_known)
    return hashes


def read_cache(cache: Path, names: np.ndarray, states: np.ndarray) -> tuple[Hashes, np.ndarray]:
    """Hashes with those rows filled whose name and state the cache knows, and which those are, (N,) bool."""
    hashes, is_known = empty(len(names)), np.zeros(len(names), bool)
    try:
        with np.load(cache, allow_pickle=False) as kept:
            if kept["format"] != FORMAT:
                return hashes, is_known
            row_of = {name: row for row, name in enumerate(kept["names"].tolist())}
            rows = np.array([row_of.get(name, -1) for name in names.tolist()], np.int64)
            is_known = (rows >= 0) & (kept["states"][rows] == states).all(axis=1) if row_of else is_known
            for field in fields(hashes):
                getattr(hashes, field.name)[is_known] = kept[field.name][rows[is_known]]
    except Exception:  # none yet, or damaged, which can raise nearly anything: hash again
        return empty(len(names)), np.zeros(len(names), bool)
    return hashes, is_known


def write_cache(cache: Path, names: np.ndarray, states: np.ndarray, hashes: Hashes, is_known: np.ndarray) -> None:
    """Write the known rows, whole or not at all."""
    known = {field.name: getattr(hashes, field.name)[is_known] for field in fields(hashes)}
    with files.replacing(cache) as temporary:
        np.savez(temporary, format=FORMAT, names=names, states=states, **known)


def near(hashes: np.ndarray, distance: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of (N,) uint64 hashes in which at most `distance` bits differ, some at a time.

    Each is (K,) int64 rows, sorted and of `ROWS_AT_ONCE` neighbours, and (K,) int64 others above them, so memory does
    not grow with the square of N.
    """
    for first in range(0, len(hashes), ROWS_AT_ONCE):
        block, rows, others = hashes[first : first + ROWS_AT_ONCE, None], [], []
        for left in range(first, len(hashes), COLUMNS_AT_ONCE):
            gaps = np.bitwise_count(block ^ hashes[None, left : left + COLUMNS_AT_ONCE])  # (rows, columns) uint8
            row, other = np.divmod(np.flatnonzero(gaps <= distance), gaps.shape[1])
            rows.append(row + first)
            others.append(other + left)
        row, other = np.concatenate(rows), np.concatenate(others)
        is_above = row < other
        order = np.argsort(row[is_above], kind="stable")
        if len(order):
            yield row[is_above][order], other[is_above][order]
