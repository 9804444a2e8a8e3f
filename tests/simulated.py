"""Simulated people, networks that judge their photos, and features that show faintly who is on them."""

import functools

import numpy as np
import pandas as pd
from scipy import special

from mask_lib.base import labels
from mask_lib.ensemble.members import with_probabilities

COLUMNS = labels.probability_columns()
MASKS = np.array([0, 0, 0, 0, 0, 1, 2])  # of a person's seven photos
GROUPS = np.array([0.185, 0.138, 0.10, 0.25, 0.227, 0.10])  # of gender and age, as in the painted sample
SIDE = 40  # columns of the features
softmax = functools.partial(special.softmax, axis=-1)  # (…, C) probabilities of logits


def people(count: int, generator: np.random.Generator, first: int = 0) -> pd.DataFrame:
    """Seven photos a person: path, person, label."""
    group = generator.choice(6, count, p=GROUPS / GROUPS.sum())
    person = np.repeat([f"{number:07d}" for number in range(first, first + count)], len(MASKS))
    label = np.repeat(group, len(MASKS)) + 6 * np.tile(MASKS, count)
    paths = [f"{name}/{row % 7}.jpg" for row, name in enumerate(person)]
    return pd.DataFrame({"path": paths, "person": person, "label": label})


def logits(photos: pd.DataFrame, generator: np.random.Generator, skill: float = 3.2) -> np.ndarray:
    """(N, 18) of a network that seldom mistakes the mask, and that a person's photos mislead together."""
    truth, codes = photos["label"].to_numpy(), pd.factorize(photos["person"])[0]
    effect = 0.9 * generator.normal(size=(codes.max() + 1, 18))[codes]
    other_mask = np.arange(18)[None] // 6 != truth[:, None] // 6
    return skill * np.eye(18)[truth] + effect + 0.7 * generator.normal(size=(len(photos), 18)) - 4 * other_mask


def predictions(count: int, generator: np.random.Generator, first: int = 0, skill: float = 3.2) -> pd.DataFrame:
    """Photos of people with a network's probabilities: path, person, label, p00 … p17."""
    photos = people(count, generator, first)
    return with_probabilities(photos, softmax(logits(photos, generator, skill)))


def with_random(keys: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """A table with random probabilities beside its columns."""
    return with_probabilities(keys, np.random.default_rng(seed).dirichlet(np.ones(18), len(keys)))


def features(photos: pd.DataFrame, generator: np.random.Generator, noise: float = 0.4) -> np.ndarray:
    """(N, 40): who it is shows faintly in columns 0-19; the mask and a nuisance, loudly, in the others."""
    codes = pd.factorize(photos["person"])[0]
    who = generator.normal(size=(codes.max() + 1, SIDE // 2))[codes]
    mask = labels.decode_all(photos["label"].to_numpy())["mask"]
    loud = 8 * np.eye(3, SIDE // 2)[mask] + 5 * generator.normal(size=(len(photos), SIDE // 2))
    return np.hstack([who + noise * generator.normal(size=who.shape), loud])


def known_people(noise: float = 0.4) -> tuple[list[np.ndarray], pd.DataFrame]:
    """Features and predictions of 24 people to learn from."""
    generator = np.random.default_rng(0)
    photos = predictions(24, generator)
    return [features(photos, generator, noise)], photos


def unknown_people(noise: float = 0.4) -> tuple[list[np.ndarray], pd.DataFrame, np.ndarray]:
    """Features, `ImageID, p00 … p17` and (N,) who is shown of 12 people, in random order."""
    generator = np.random.default_rng(1)
    photos = predictions(12, generator, first=1000)
    found, order = features(photos, generator, noise), generator.permutation(len(photos))
    test = photos.rename(columns={"path": "ImageID"})[["ImageID", *COLUMNS]]
    return [found[order]], test.iloc[order].reset_index(drop=True), photos["person"].to_numpy()[order]
