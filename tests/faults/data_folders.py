"""Data folders for faults: sound ones of noise, and what a call must not hang at."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from photo_files import save
from PIL import Image

SEVEN = [*(f"mask{number}.png" for number in range(1, 6)), "incorrect_mask.png", "normal.png"]
ANN, BOB = "000001_female_Asian_45", "000002_male_White_29"


def noise(seed: int, height: int = 64, width: int = 48) -> np.ndarray:
    """(H, W, 3) uint8: blurred noise, so that every picture is its own even when it is small."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def write_rows(root: Path, people: Sequence[str] = (ANN, BOB), image_ids: Sequence[str] = ("a.png", "b.png")) -> None:
    """train.csv and info.csv alone, whatever the folders hold."""
    rows = [dict(zip(("id", "gender", "race", "age"), one.split("_"), strict=True)) | {"path": one} for one in people]
    for name, table in {
        "train/train.csv": rows,
        "eval/info.csv": [{"ImageID": one, "ans": 0} for one in image_ids],
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(table).to_csv(root / name, index=False)


def sound_folder(
    root: Path,
    people: Sequence[str] = (ANN, BOB),
    image_ids: Sequence[str] = ("a.png", "b.png"),
    pictures: Mapping[str, np.ndarray] = {},
) -> Path:
    """A data folder of small noisy photos; `pictures` by file name are everybody's."""
    for number, person in enumerate(people):
        for place, name in enumerate(SEVEN):
            save(pictures.get(name, noise(7 * number + place)), root / "train" / "images" / person / name)
    for number, name in enumerate(image_ids):
        save(noise(10_000 + number), root / "eval" / "images" / name)
    write_rows(root, people, image_ids)
    return root


def within(seconds: float, pipes: Sequence[Path], call: Callable[[], Any]) -> Any:
    """What a call gives or raises; AssertionError, once the pipes that it waits at were opened, if it hangs."""
    found: dict[str, Any] = {}

    def run() -> None:
        try:
            found["value"] = call()
        except BaseException as error:
            found["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    hangs = thread.is_alive()
    while thread.is_alive():
        for pipe in pipes:
            os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
        thread.join(0.05)
    if hangs:
        raise AssertionError(f"it waited at {pipes}")
    if "error" in found:
        raise found["error"]
    return found["value"]
