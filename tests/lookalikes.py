"""Invented photos whose features show faintly who is on them: what the tests of finding people share."""

import numpy as np
import opinions
import pandas as pd

from mask_lib.base import labels

PEOPLE = 24
SIDE = 40  # columns of the invented features


def described(photos: pd.DataFrame, generator: np.random.Generator, noise: float = 0.4) -> np.ndarray:
    """(N, 40): who it is shows faintly in columns 0-19; the mask and a nuisance, loudly, in the others."""
    codes = pd.factorize(photos["person"])[0]
    who = generator.normal(size=(codes.max() + 1, SIDE // 2))[codes]
    mask = labels.decode_all(photos["label"].to_numpy())["mask"]
    loud = 8 * np.eye(3, SIDE // 2)[mask] + 5 * generator.normal(size=(len(photos), SIDE // 2))
    return np.hstack([who + noise * generator.normal(size=who.shape), loud])


def known_people(seed: int = 0, noise: float = 0.4) -> tuple[np.ndarray, pd.DataFrame]:
    generator = np.random.default_rng(seed)
    photos = opinions.judged(PEOPLE, generator)
    return described(photos, generator, noise), photos


def unknown_people(seed: int = 1, count: int = 12, noise: float = 0.4) -> tuple[np.ndarray, pd.DataFrame, np.ndarray]:
    """Features, `ImageID, p00 … p17` and (N,) who is shown, in random order."""
    generator = np.random.default_rng(seed)
    photos = opinions.judged(count, generator, first=1000)
    found, order = described(photos, generator, noise), generator.permutation(len(photos))
    test = photos.rename(columns={"path": "ImageID"})[["ImageID", *opinions.COLUMNS]]
    return found[order], test.iloc[order].reset_index(drop=True), photos["person"].to_numpy()[order]


def probabilities(mask: list, gender: list, age: list) -> np.ndarray:
    return labels.joint({"mask": np.array([mask]), "gender": np.array([gender]), "age": np.array([age])})[0]


def table(*rows: np.ndarray) -> pd.DataFrame:
    found = pd.DataFrame(np.array(rows), columns=opinions.COLUMNS)
    found.insert(0, "ImageID", [f"{row}.jpg" for row in range(len(rows))])
    return found
