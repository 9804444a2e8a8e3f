"""Small photo files that show nothing, what is listed of odd ones, and another task's attributes."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mask_lib.base import labels

FRUIT = (
    labels.Attribute("fruit", ("apple", "sour cherry"), "ac"),
    labels.Attribute("weight", ("<100", "100+"), "lh", edges=(100,), limits=(0, 900)),
)


def noise(seed: int, height: int = 30, width: int = 20, channels: int = 3) -> np.ndarray:
    """(H, W, C) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def save(photo: np.ndarray | Image.Image, path: Path, turn: int = 1, **options) -> Path:
    """Write a photo and its folder; `turn`: the orientation that its EXIF tells."""
    exif = Image.Exif()
    exif[0x0112] = turn
    path.parent.mkdir(parents=True, exist_ok=True)
    image = photo if isinstance(photo, Image.Image) else Image.fromarray(photo)
    image.save(path, exif=exif, **options)
    return path


def listed(problems: pd.DataFrame) -> set[tuple[str, str]]:
    """The (path, problem) of each row of a problem table, none of which stands twice."""
    found = set(zip(problems["path"], problems["problem"], strict=True))
    assert len(found) == len(problems)
    return found
