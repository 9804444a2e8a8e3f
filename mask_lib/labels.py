"""The 18 classes: mask worn / incorrect / not worn x male / female x under 30 / 30-59 / 60 and over."""

import enum
from typing import TypeVar

import numpy as np


class Mask(enum.IntEnum):
    """How the mask is worn."""

    WORN = 0
    INCORRECT = 1
    NOT_WORN = 2


class Gender(enum.IntEnum):
    """Gender as the data set records it."""

    MALE = 0
    FEMALE = 1


class AgeGroup(enum.IntEnum):
    """Age in three groups, cut at `AGE_EDGES`."""

    UNDER_30 = 0
    FROM_30_TO_59 = 1
    FROM_60 = 2


AGE_EDGES = (30, 60)  # years; 30 itself is the middle group, 60 itself the oldest
AGE_LIMITS = (0, 120)  # years; anything outside is a typing error, not an age
CLASS_COUNT = len(Mask) * len(Gender) * len(AgeGroup)
SHAPE = (len(Mask), len(Gender), len(AgeGroup))
PROBABILITY_COLUMNS = tuple(f"p{label:02d}" for label in range(CLASS_COUNT))
ATTRIBUTES = {"mask": Mask, "gender": Gender, "age": AgeGroup}

MASK_WORDS = {Mask.WORN: "worn", Mask.INCORRECT: "incorrect", Mask.NOT_WORN: "not worn"}
GENDER_WORDS = {Gender.MALE: "male", Gender.FEMALE: "female"}
AGE_WORDS = {AgeGroup.UNDER_30: "<30", AgeGroup.FROM_30_TO_59: "30-59", AgeGroup.FROM_60: "60+"}

Attribute = TypeVar("Attribute", bound=enum.IntEnum)


def key_of(member: enum.IntEnum) -> str:
    """The word a table holds for an attribute: `worn`, `not_worn`, `female`."""
    return member.name.lower()


def from_key(kind: type[Attribute], key: str) -> Attribute:
    """The attribute a table's word stands for. Raises ValueError that lists the known words."""
    by_key = {key_of(member): member for member in kind}
    if key not in by_key:
        raise ValueError(f"{key!r} is no {kind.__name__}: write one of {', '.join(by_key)}")
    return by_key[key]


def age_group(years: int) -> AgeGroup:
    """The age group of an age in years. Raises ValueError outside 0-120."""
    low, high = AGE_LIMITS
    if not low <= years <= high:
        raise ValueError(f"an age of {years} years is outside {low}-{high}")
    return AgeGroup(sum(years >= edge for edge in AGE_EDGES))


def encode(mask: int, gender: int, age: int) -> int:
    """Label 0-17 of three attributes (enum members or their numbers): mask*6 + gender*3 + age."""
    return int(np.ravel_multi_index((int(mask), int(gender), int(age)), SHAPE))


def decode(label: int) -> tuple[Mask, Gender, AgeGroup]:
    """The three attributes of a label 0-17. Raises ValueError for any other number."""
    mask, gender, age = np.unravel_index(int(label), SHAPE)
    return Mask(mask), Gender(gender), AgeGroup(age)


def decode_all(label_numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Per attribute (`mask`, `gender`, `age`) the (N,) int64 numbers of (N,) labels 0-17."""
    parts = np.unravel_index(np.asarray(label_numbers, dtype=np.int64), SHAPE)
    return dict(zip(ATTRIBUTES, parts, strict=True))


def describe(label: int) -> str:
    """A label in words for titles and axes: `worn female 30-59`."""
    mask, gender, age = decode(label)
    return f"{MASK_WORDS[mask]} {GENDER_WORDS[gender]} {AGE_WORDS[age]}"


def joint(mask: np.ndarray, gender: np.ndarray, age: np.ndarray) -> np.ndarray:
    """(N, 18) probabilities from three heads, (N, 3), (N, 2), (N, 3), taken as independent."""
    return np.einsum("nm,ng,na->nmga", mask, gender, age).reshape(len(mask), CLASS_COUNT)


def marginals(probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Per attribute the probabilities, (N, 3), (N, 2), (N, 3), that (N, 18) joint ones imply."""
    cube = np.asarray(probabilities).reshape(-1, *SHAPE)
    return {"mask": cube.sum(axis=(2, 3)), "gender": cube.sum(axis=(1, 3)), "age": cube.sum(axis=(1, 2))}


def combine(mask: np.ndarray, gender: np.ndarray, age: np.ndarray) -> np.ndarray:
    """(N,) int64 labels of the likeliest mask, gender and age, each taken alone: the seed notebooks' way.

    Takes (N, 3), (N, 2), (N, 3) probabilities, such as `marginals` gives. Of a product, as three heads
    make it, the likeliest class is the same; of other joint probabilities it may be another.
    """
    parts = [np.asarray(one).argmax(axis=1) for one in (mask, gender, age)]
    return np.ravel_multi_index(parts, SHAPE)
