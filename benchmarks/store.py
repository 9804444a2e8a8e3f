"""What decoding once is worth: building a store, opening it again, and reading batches from it.

Run it with `python benchmarks/store.py [photos]`; it prints ratios, all measured in this one run.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import timing
from PIL import Image

from mask_lib.data import store

FRAME = store.Frame(224, 224)
SOURCE = (384, 512)  # width and height of the official set's photos, in pixels


def paint(folder: Path, count: int) -> list[str]:
    """JPEG photos with as much detail as a face has."""
    generator, names = np.random.default_rng(0), []
    for number in range(count):
        small = generator.integers(0, 255, (SOURCE[1] // 8, SOURCE[0] // 8, 3), dtype=np.uint8)
        names.append(f"{number:05d}.jpg")
        Image.fromarray(small).resize(SOURCE, Image.Resampling.BICUBIC).save(folder / names[-1], quality=90)
    return names


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        paths = paint(folder / "images", count)
        opened = lambda: store.open_store(folder / "store", folder / "images", paths, FRAME)  # noqa: E731
        built, reopened = timing.once(opened), timing.median(opened, 9)
        photos, rows = opened(), np.random.default_rng(0).permutation(count)
        gathered = timing.median(
            lambda: [photos.images[np.sort(rows[start : start + 64])] for start in range(0, count, 64)], 5
        )
        print(f"build: {count / built:,.0f} photos/s")
        print(f"open again / build: {reopened / built:.2%} (at most 1% is asked)")
        print(f"read in batches / build: {gathered / built:.2%}, {count / gathered:,.0f} photos/s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
