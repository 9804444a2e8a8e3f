"""The attributes of a photo and the classes that are their combinations: the one place that knows the task.

Everything else loops over `attributes()`. The task is that of the file `DEFAULT`, read when it is first asked for,
unless `use` names another. Class numbers count the last attribute fastest.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mask_lib.base import files, tasks
from mask_lib.base.tasks import Attribute, Task

DEFAULT = "tasks/mask.yml"
HOW_TO_GIVE = "task: in a parameter file, --task of a command"
_task: Task | None = None


def use(path: files.AnyPath = DEFAULT) -> None:
    """Take the task of this file from here on, in this process. Raises as `tasks.read`."""
    global _task
    _task = tasks.read(path)


def task() -> Task:
    """The task at hand."""
    if _task is None:
        use()
    return _task


@contextlib.contextmanager
def using(other: Task | Sequence[Attribute]) -> Iterator[None]:
    """Within it the task is another, or has other attributes. Raises ValueError as `tasks.Task`."""
    global _task
    before = _task
    _task = other if isinstance(other, Task) else Task(tuple(other), task().photos)
    try:
        yield
    finally:
        _task = before


def schema() -> list[list[str]]:
    """Each attribute's name, whether it is the person's, and its values as tables write them, as plain JSON data."""
    return [[one.name + " of a person" * one.of_person, *one.table_words] for one in attributes()]


def refuse_other(noted: Sequence[Sequence[str]] | None, what: str) -> None:
    """Raise ValueError unless the `schema` that results (`what`) were made with is today's; None: they noted none."""
    if noted is not None and [list(one) for one in noted] != schema():
        theirs, ours = ("; ".join(f"{name}: {', '.join(words)}" for name, *words in one) for one in (noted, schema()))
        advice = f"give the task they were made with ({HOW_TO_GIVE})"
        raise ValueError(f"{what} of another task ({theirs}) than the one at hand ({ours}): {advice}")


def attributes() -> tuple[Attribute, ...]:
    """What a label says of a photo, in order."""
    return task().attributes


def names(of_person: bool | None = None) -> tuple[str, ...]:
    """The attributes' names; of those that are the person's (True) or the single photo's (False) alone."""
    return tuple(one.name for one in attributes() if of_person in (None, one.of_person))


def attribute(name: str) -> Attribute:
    """The attribute of this name. Raises ValueError that lists those there are."""
    found = [one for one in attributes() if one.name == name]
    if not found:
        raise ValueError(f"{name!r} is no attribute: there are {', '.join(names())}")
    return found[0]


def number() -> Attribute | None:
    """The attribute that is a number cut at edges, such as an age in years; None if no attribute is one."""
    return next((one for one in attributes() if one.edges), None)


def shape() -> tuple[int, ...]:
    """How many values each attribute has."""
    return tuple(one.size for one in attributes())


def class_count() -> int:
    """How many classes there are."""
    return int(np.prod(shape()))


def probability_columns() -> list[str]:
    """`p00`, `p01` …: the columns of class probabilities in a table."""
    return [f"p{label:02d}" for label in range(class_count())]


def encode(*values: int, **by_name: int) -> int:
    """The class of one value of each attribute, in order or by name."""
    return int(encode_all(by_name or dict(zip(names(), values, strict=True))))


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
    return " ".join(one.words[value] for one, value in zip(attributes(), decode(label), strict=True))


def joint(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N, C) class probabilities from (N, K) ones of each attribute by name, taken as independent."""
    found = np.ones((len(next(iter(parts.values()))), 1))
    for name in names():
        found = (found[:, :, None] * np.asarray(parts[name])[:, None, :]).reshape(len(found), -1)
    return found


def marginals(probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """By attribute name the (N, K) probabilities that (N, C) class probabilities imply."""
    cube = np.asarray(probabilities).reshape(-1, *shape())
    axes = set(range(1, cube.ndim))
    return {name: cube.sum(axis=tuple(axes - {axis})) for axis, name in enumerate(names(), start=1)}


def with_photo_attributes(probabilities: Any, others: Any) -> Any:
    """(N, C) class probabilities, array or tensor, whose attributes of the photo alone are those of (N, C) `others`."""
    of_person = tuple(axis for axis, one in enumerate(attributes(), start=1) if one.of_person)
    own, other = (one.clip(1e-12).reshape(-1, *shape()) for one in (probabilities, others))
    # Over no axis torch would sum all.
    own_sum, other_sum = (cube.sum(of_person, keepdims=True) if of_person else cube for cube in (own, other))
    return (own * other_sum / own_sum).reshape(len(own), class_count())


def combine(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N,) int64 classes of each attribute's likeliest value, of (N, K) probabilities by name: the seed notebooks' way.

    Of a product of heads the likeliest class is the same; of other class probabilities it may be another.
    """
    return encode_all({name: np.asarray(one).argmax(axis=1) for name, one in parts.items()})
