"""Two 64-bit hashes of every photo, kept on disk, and all pairs of photos whose hashes are near.

They are imagehash's `average_hash` and `phash` of a JPEG decoded grey and small, a fifth of the work: few bits differ.
"""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

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
SAVE_EVERY = 2000  # photos; what a killed run has to hash again
ROWS_AT_ONCE = 16  # hashes compared with all others at once: what fits into the processor's cache


class Hashes(NamedTuple):
    """What is known of N photos, in the order of the photo table."""

    ahash: np.ndarray  # (N,) uint64
    phash: np.ndarray  # (N,) uint64
    small: np.ndarray  # (N, 16, 16) uint8, the photo in grey


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


def open_hashes(folder: files.AnyPath, data_dir: files.AnyPath, photo_table: pd.DataFrame) -> Hashes:
    """The hashes of every row of the photo table (columns path, split).

    They are kept in `folder`; only photos that are new there, or whose size or times have changed, are hashed. A
    killed run goes on where it last saved. Raises OSError that names a missing or unreadable photo.
    """
    paths, cache = photos.files_of(data_dir, photo_table), Path(folder) / "hashes.npz"
    names = np.array([f"{split}/{path}" for split, path in photo_table[["split", "path"]].to_numpy()], str)
    with files.lock(cache.with_name("hashes.lock")), ThreadPoolExecutor() as pool:
        states = np.array([photos.file_state(path) for path in paths], np.int64).reshape(-1, 3)
        hashes, is_known = read_cache(cache, names, states)
        new = np.flatnonzero(~is_known)
        found = pool.map(hash_photo, [paths[row] for row in new])
        results = files.progress(found, len(new), "hashing photos") if len(new) else ()
        for done, (row, result) in enumerate(zip(new, results, strict=True), start=1):
            hashes.ahash[row], hashes.phash[row], hashes.small[row] = result
            is_known[row] = True
            if done % SAVE_EVERY == 0 or done == len(new):
                kept = {"names": names, "states": states, **hashes._asdict()}
                with files.replacing(cache) as temporary:
                    np.savez(temporary, format=FORMAT, **{name: one[is_known] for name, one in kept.items()})
    return hashes


def read_cache(cache: Path, names: np.ndarray, states: np.ndarray) -> tuple[Hashes, np.ndarray]:
    """Hashes with those rows filled whose name and state the cache knows, and which those are, (N,) bool."""
    count = len(names)
    small = np.zeros((count, SMALL_SIDE, SMALL_SIDE), np.uint8)
    hashes, is_known = Hashes(np.zeros(count, np.uint64), np.zeros(count, np.uint64), small), np.zeros(count, bool)
    # None yet, or damaged, which can raise nearly anything: all are hashed again.
    with contextlib.suppress(Exception), np.load(cache, allow_pickle=False) as kept:
        rows = pd.Index(kept["names"]).get_indexer(names)  # -1: not there
        found = (rows >= 0) & (kept["states"][rows] == states).all(axis=1) & (kept["format"] == FORMAT)
        for name, values in hashes._asdict().items():
            values[found] = kept[name][rows[found]]
        is_known = found
    return hashes, is_known


def near(hashes: np.ndarray, distance: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of (N,) uint64 hashes in which at most `distance` bits differ, some at a time.

    Each is (K,) int64 rows, sorted and of `ROWS_AT_ONCE` neighbours, and (K,) int64 others above: little memory.
    """
    for first in range(0, len(hashes), ROWS_AT_ONCE):
        gaps = np.bitwise_count(hashes[first : first + ROWS_AT_ONCE, None] ^ hashes[first:])  # (rows, columns) uint8
        rows, others = np.divmod(np.flatnonzero(np.triu(gaps <= distance, k=1)), gaps.shape[1])
        if len(rows):
            yield rows + first, others + first
