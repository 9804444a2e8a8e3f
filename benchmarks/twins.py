"""What looking for copies costs: hashing beside imagehash's own, and all pairs beside hashing.

Run it with `python benchmarks/twins.py [people]`; it paints a small sample and prints ratios, all measured
in this one run on one core. The groups found must be the same by imagehash's hashes of whole photos.
"""

import statistics
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
import timing
from PIL import Image

from mask_lib.data import duplicates, hashes, photos
from mask_lib.sample import paint

OFFICIAL = 31_500  # photos of the official set, 18,900 to learn from and 12,600 to answer
ROUNDS = 5


def own_hashes(path: Path) -> tuple[int, int]:
    """Both hashes as imagehash computes them, the photo opened once for the two."""
    with Image.open(path) as photo:
        return int(str(imagehash.average_hash(photo)), 16), int(str(imagehash.phash(photo)), 16)


def seconds(function: Callable, values: list) -> float:
    """Mean seconds a call."""
    return sum(timing.once(partial(function, value)) for value in values) / len(values)


def groups(photo_table: pd.DataFrame, data: Path, found: hashes.Hashes) -> list[set]:
    """The groups of copies by each kind of hash."""
    pairs = duplicates.find(photo_table, data, found)
    near = {kind: pairs[pairs[kind] <= distance] for kind, distance in duplicates.DISTANCES.items()}
    tables = [duplicates.duplicates(photo_table, found, some, kind) for kind, some in near.items()]
    return [set(table.groupby("hash")["path"].agg(frozenset)) for table in tables]


def crowd(few: hashes.Hashes, count: int) -> hashes.Hashes:
    """Hashes of `count` photos, as near to one another as those of real photos are: some bits changed in these few."""
    random = np.random.default_rng(0)
    rows = random.integers(0, len(few.ahash), count)
    flips = [[np.uint64(1) << random.integers(0, 64, count).astype(np.uint64) for _ in range(6)] for _ in hashes.KINDS]
    changed = [
        np.bitwise_xor.reduce([getattr(few, kind)[rows], *some]) for kind, some in zip(hashes.KINDS, flips, strict=True)
    ]
    noise = random.integers(0, 40, (count, *few.small.shape[1:]), dtype=np.uint8)
    return hashes.Hashes(*changed, few.small[rows] // 2 + noise)


def all_pairs(values: np.ndarray, distance: int) -> int:
    """Number of near pairs."""
    return sum(len(rows) for rows, _ in hashes.near(values, distance))


def most_held(function: Callable[[], object]) -> float:
    """MiB that a call holds at its peak beyond what was there before."""
    tracemalloc.start()
    function()
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return held / 2**20


def compare_hashing(paths: list[Path]) -> float:
    """Print the times of hashing; gives the seconds a photo takes."""
    rounds = [(seconds(hashes.hash_photo, paths), seconds(own_hashes, paths)) for _ in range(ROUNDS)]
    ours, own = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(one / other for one, other in rounds)
    print(
        f"hash a photo / imagehash's own: {ratio:.2f} (at most 0.5 is asked), {ours * 1e3:.2f} and {own * 1e3:.2f} ms"
    )
    return ours


def compare_pairs(few: hashes.Hashes, hashing: float) -> None:
    """Print the time of all pairs by each kind of hash, alone and with a first look at the near ones; and memory."""
    half, many = crowd(few, OFFICIAL // 2), crowd(few, OFFICIAL)
    for kind, most in duplicates.DISTANCES.items():
        print(f"all pairs by {kind} of {OFFICIAL:,} / hashing them (at most 15% is asked): ", end="")
        report(lambda some, kind=kind, most=most: all_pairs(getattr(some, kind), most), half, many, hashing)
    count = sum(all_pairs(getattr(many, kind), most) for kind, most in duplicates.DISTANCES.items())
    print(f"both, and a first look at the {count:,} near pairs / hashing: ", end="")
    report(lambda some: duplicates.candidates(some, duplicates.DISTANCES), half, many, hashing)


def report(find: Callable, half: hashes.Hashes, many: hashes.Hashes, hashing: float) -> None:
    """Print the time of a call beside that of hashing as many photos, and what it holds of half and of all photos."""
    taken = statistics.median(seconds(find, [many]) for _ in range(3))
    held = [most_held(lambda some=some: find(some)) for some in (many, half)]
    print(f"{taken / hashing / OFFICIAL:.1%}; {held[0]:.0f} MiB, {held[1]:.0f} of half as many")


def main(people: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "sample"
        paint.paint(data, people=people, eval_people=max(6, people // 3))
        photo_table, _ = photos.scan_photos(data)
        paths = photos.files_of(data, photo_table)
        hashing = compare_hashing(paths)
        found = hashes.open_hashes(Path(name) / "hashes", data, photo_table)
        ahash, phash = np.array([own_hashes(path) for path in paths], np.uint64).T
        ours, own = (groups(photo_table, data, some) for some in (found, found._replace(ahash=ahash, phash=phash)))
        print(f"groups found by either: {[len(some) for some in ours]}, the same: {ours == own}")
        compare_pairs(found, hashing)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 24)
