"""Invented people, and invented networks that judge them: what the tests of ensembles share."""

import numpy as np
import pandas as pd

from mask_lib.base import labels

COLUMNS = list(labels.PROBABILITY_COLUMNS)
MASKS = np.array([0, 0, 0, 0, 0, 1, 2])  # of a person's seven photos
GROUPS = np.array([0.185, 0.138, 0.10, 0.25, 0.227, 0.10])  # of gender and age, as in the painted sample


def people(count: int, generator: np.random.Generator, first: int = 0) -> pd.DataFrame:
    """Seven photos a person: path, person, label."""
    group = generator.choice(6, count, p=GROUPS / GROUPS.sum())
    person = np.repeat([f"{number:07d}" for number in range(first, first + count)], len(MASKS))
    label = np.repeat(group, len(MASKS)) + 6 * np.tile(MASKS, count)
    return pd.DataFrame(
        {"path": [f"{name}/{row % 7}.jpg" for row, name in enumerate(person)], "person": person}
    ).assign(label=label)


def logits(photos: pd.DataFrame, generator: np.random.Generator, skill: float = 3.2) -> np.ndarray:
    """(N, 18) of a network that seldom mistakes the mask, and that a person's photos mislead together."""
    truth, codes = photos["label"].to_numpy(), pd.factorize(photos["person"])[0]
    effect = 0.9 * generator.normal(size=(codes.max() + 1, 18))[codes]
    other_mask = np.arange(18)[None] // 6 != truth[:, None] // 6
    return skill * np.eye(18)[truth] + effect + 0.7 * generator.normal(size=(len(photos), 18)) - 4 * other_mask


def softmax(values: np.ndarray) -> np.ndarray:
    """(N, 18) probabilities of (N, 18) logits."""
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def judged(count: int, generator: np.random.Generator, first: int = 0, skill: float = 3.2) -> pd.DataFrame:
    """Photos of people with a network's probabilities: path, person, label, p00 … p17."""
    photos = people(count, generator, first)
    return photos.join(pd.DataFrame(softmax(logits(photos, generator, skill)), columns=COLUMNS))
