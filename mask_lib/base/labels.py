"""The attributes of a photo and the classes that are their combinations: the one place that knows the task.

Everything else loops over `attributes()`, so another task is other `Attribute`s, set by `using`. Class numbers
count the last attribute fastest: of the task at hand, mask x gender x age, class = mask*6 + gender*3 + age.
"""

import contextlib
import enum
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

AGE_EDGES = (30, 60)  # years; 30 itself is the middle group, 60 itself the oldest
AGE_LIMITS = (0, 120)  # years; anything outside is a typing error, not an age


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

    YOUNG = 0
    MIDDLE = 1
    OLD = 2


@dataclass(frozen=True)
class Attribute:
    """One thing that a label says of a photo. Its values count from 0 in the order of `words`."""

    name: str  # column of the photo table, which holds a table word (`not_worn`) or, with edges, a whole number
    words: tuple[str, ...]  # for people: in titles, on axes, beside keys
    keys: str  # when relabeling, one for each value
    of_person: bool = False  # the same on all photos of a person
    edges: tuple[int, ...] = ()  # of a number: an edge itself belongs to the values above it
    limits: tuple[int, int] = (0, 0)  # of a number: least and most

    @property
    def size(self) -> int:
        """How many values there are."""
        return len(self.words)

    @property
    def table_words(self) -> tuple[str, ...]:
        """The values as a table writes them: `not worn` as `not_worn`."""
        return tuple(word.replace(" ", "_") for word in self.words)

    def value_of(self, written: Any) -> int:
        """The value 0 … size-1 of what a table holds. Raises ValueError that lists the words, or gives the limits."""
        if self.edges:
            low, high = self.limits
            if not low <= int(written) <= high:
                raise ValueError(f"{self.name} = {written}: it must be from {low} to {high}")
            return sum(int(written) >= edge for edge in self.edges)
        if written not in self.table_words:
            raise ValueError(f"{written!r} is no {self.name}: write one of {', '.join(self.table_words)}")
        return self.table_words.index(written)


def group_words(edges: Sequence[int]) -> tuple[str, ...]:
    """The groups that edges cut numbers into, in words: `<30`, `30-59`, `60+`."""
    between = (f"{low}-{high - 1}" for low, high in itertools.pairwise(edges))
    return (f"<{edges[0]}", *between, f"{edges[-1]}+")


def mask_task(age_edges: tuple[int, int] = AGE_EDGES) -> tuple[Attribute, ...]:
    """The task of the competition: 3 x 2 x 3 classes."""
    return (
        Attribute("mask", ("worn", "incorrect", "not worn"), "qwe"),
        Attribute("gender", ("male", "female"), "mg", of_person=True),
        Attribute("age", group_words(age_edges), "jkl", of_person=True, edges=age_edges, limits=AGE_LIMITS),
    )


_attributes = mask_task()


@contextlib.contextmanager
def using(task: Sequence[Attribute]) -> Iterator[None]:
    """Within it the attributes are those of `task`. Raises ValueError for none, or for two of one name or key."""
    global _attributes
    names, keys = [one.name for one in task], "".join(one.keys for one in task)
    if not names or len(set(names)) < len(names) or len(set(keys)) < len(keys):
        raise ValueError(f"attributes need names and keys of their own: {', '.join(names)}; {keys}")
    before, _attributes = _attributes, tuple(task)
    try:
        yield
    finally:
        _attributes = before


def attributes() -> tuple[Attribute, ...]:
    """What a label says of a photo, in order."""
    return _attributes


def names(of_person: bool | None = None) -> tuple[str, ...]:
    """The attributes' names; of those that are the person's (True) or the single photo's (False) alone."""
    return tuple(one.name for one in _attributes if of_person in (None, one.of_person))


def attribute(name: str) -> Attribute:
    """The attribute of this name. Raises ValueError that lists those there are."""
    found = [one for one in _attributes if one.name == name]
    if not found:
        raise ValueError(f"{name!r} is no attribute: there are {', '.join(names())}")
    return found[0]


def number() -> Attribute | None:
    """The attribute that is a number cut at edges, such as an age in years; None if no attribute is one."""
    return next((one for one in _attributes if one.edges), None)


def shape() -> tuple[int, ...]:
    """How many values each attribute has."""
    return tuple(one.size for one in _attributes)


def class_count() -> int:
    """How many classes there are."""
    return int(np.prod(shape()))


def probability_columns() -> list[str]:
    """`p00`, `p01` …: the columns of class probabilities in a table."""
    return [f"p{label:02d}" for label in range(class_count())]


def encode(*values: int, **by_name: int) -> int:
    """The class of one value of each attribute, in order or by name."""
    ordered = values or tuple(by_name[name] for name in names())
    return int(np.ravel_multi_index(tuple(map(int, ordered)), shape()))


def encode_all(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N,) int64 classes of (N,) values by attribute name."""
    return np.ravel_multi_index([np.asarray(values[name], dtype=np.int64) for name in names()], shape())


def decode(label: int) -> tuple[int, ...]:
    """The attributes' values of a class, in order. Raises ValueError for a number that is no class."""
    return tuple(map(int, np.unravel_index(int(label), shape())))


def decode_all(label_numbers: np.ndarray) -> dict[str, np.ndarray]:
    """By attribute name the (N,) int64 values of (N,) classes."""
    parts = np.unravel_index(np.asarray(label_numbers, dtype=np.int64), shape())
    return dict(zip(names(), parts, strict=True))


def values_of(label: int) -> dict[str, int]:
    """The values of a class by attribute name."""
    return dict(zip(names(), decode(label), strict=True))


def with_values(label: int, values: Mapping[str, int]) -> int:
    """The class with some of its attributes' values, by name, replaced."""
    return encode(**(values_of(label) | dict(values)))


def describe(label: int) -> str:
    """A class in words for titles and axes: `worn female 30-59`."""
    return " ".join(one.words[value] for one, value in zip(_attributes, decode(label), strict=True))


def joint(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N, C) class probabilities from (N, K) ones of each attribute by name, taken as independent."""
    found = np.ones((len(next(iter(parts.values()))), 1))
    for name in names():
        found = (found[:, :, None] * np.asarray(parts[name])[:, None, :]).reshape(len(found), -1)
    return found


def marginals(probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """By attribute name the (N, K) probabilities that (N, C) class probabilities imply."""
    cube, axes = np.asarray(probabilities).reshape(-1, *shape()), range(1, len(_attributes) + 1)
    return {
        name: cube.sum(axis=tuple(other for other in axes if other != axis))
        for axis, name in zip(axes, names(), strict=True)
    }


def with_photo_attributes(probabilities: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N, C) class probabilities whose attributes of the photo, not of the person, are those of (N, C) `others`."""
    of_person = tuple(axis for axis, one in enumerate(_attributes, start=1) if one.of_person)
    own, other = (np.maximum(one, 1e-12).reshape(-1, *shape()) for one in (probabilities, others))
    own_sum, other_sum = (cube.sum(axis=of_person, keepdims=True) for cube in (own, other))
    return (own * other_sum / own_sum).reshape(len(own), class_count())


def combine(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N,) int64 classes of each attribute's likeliest value, taken alone: the seed notebooks' way.

    Takes (N, K) probabilities by name, as `marginals` gives them. Of a product of heads the likeliest class is
    the same; of other class probabilities it may be another.
    """
    return encode_all({name: np.asarray(one).argmax(axis=1) for name, one in parts.items()})
