"""Augmentation policies as data: what they may say, the presets, and files of them.

A policy is a list of sub-policies, each a list of steps (operation, probability, magnitude). Every photo draws one
sub-policy and takes each of its steps with that step's probability. A magnitude runs from 0, the mildest, to 1, as far
as `OPERATIONS` lets it go; none (null in a file) stands where an operation has none, and otherwise for one drawn anew
for each photo from `MAGNITUDE_BINS` even steps. Where an operation goes two ways, each photo draws which.

A file holds `{"format": 1, "name": "mild", "sub_policies": [[["rotate", 0.5, 0.1], ["invert", 0.2, null]]]}`, or
the bare list of sub-policies, which is then called as its file. It is read as data and checked to the last value:
nothing in it is ever executed.

Sources: AutoAugment, Cubuk et al. 2019; RandAugment, Cubuk et al. 2020; TrivialAugment, Müller and Hutter 2021.
"""

import dataclasses
import difflib
import itertools
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from mask_lib import files
from mask_lib.steps import (
    LONGEST_NAME,
    OPERATIONS,
    Step,
    checked_name,
    checked_operation,
    checked_sub_policies,
    listed,
    shown,
    words,
)

FORMAT = 1
MOST_BYTES = 1_000_000  # of a file; TrivialAugment's has under 2,000
MAGNITUDE_BINS = 31  # 0, 1/30, … 1, as TrivialAugment and RandAugment count them


TRIVIAL = (
    *("identity", "shear_x", "shear_y", "shift_x", "shift_y", "rotate", "brightness", "saturation", "contrast"),
    *("sharpness", "posterize", "solarize", "autocontrast", "equalize"),
)
SEED = (
    *("contrast", "brightness", "gamma", "blur", "motion_blur", "invert", "rotate", "shift", "scale"),
    *("grid_distortion", "elastic_distortion"),
)


@dataclasses.dataclass(frozen=True)
class Policy:
    """Sub-policies under a name. However it is built, it is checked; ValueError names the place."""

    name: str
    sub_policies: tuple[tuple[Step, ...], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", checked_name(self.name))
        object.__setattr__(self, "sub_policies", checked_sub_policies(self.sub_policies))

    @classmethod
    def from_plain(cls, value: Any, name: str | None = None) -> Self:
        """A policy from what JSON gives. Raises ValueError that names the place and what to write there.

        name: of a bare list of sub-policies, as other programs write them; without one such a list is refused.
        """
        keys = {"format", "name", "sub_policies"}
        if isinstance(value, list) and value and name is not None:
            return cls(name, value)
        if not isinstance(value, Mapping):
            raise ValueError(f"it holds {words(value)}; write {{'format': 1, 'name': …, 'sub_policies': […]}}")
        if set(value) != keys:
            raise ValueError(f"its keys must be {listed(sorted(keys))}, not {listed(sorted(map(str, value)))}")
        if isinstance(value["format"], bool) or value["format"] != FORMAT:
            raise ValueError(f"format = {shown(value['format'])}: this version reads format {FORMAT}")
        return cls(value["name"], value["sub_policies"])

    def plain(self) -> dict[str, Any]:
        """The policy as JSON has it."""
        return {
            "format": FORMAT,
            "name": self.name,
            "sub_policies": [list(map(list, sub)) for sub in self.sub_policies],
        }


@dataclasses.dataclass(frozen=True)
class Space:
    """What `random_policy` draws from; the defaults are the seed's."""

    operations: tuple[str, ...] = SEED
    sub_policies: int = 5
    steps: int = 2
    probabilities: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    magnitudes: tuple[float, ...] = tuple(number / 10 for number in range(1, 11))


SEED_SPACE = Space()


def random_policy(generator: np.random.Generator, space: Space = SEED_SPACE, name: str = "random") -> Policy:
    """A policy of `space`, each choice uniform: a step's operation, its probability and its magnitude.

    No operation comes twice in a sub-policy while there are others. Raises ValueError for a space without operations.
    """

    def drawn(operation: str) -> Step:
        probability, magnitude = (
            float(generator.choice(choices)) for choices in (space.probabilities, space.magnitudes)
        )
        unit = OPERATIONS[checked_operation(operation, "space")].unit
        return Step(operation, probability, magnitude if unit else None)

    if not space.operations:
        raise ValueError("a space of no operations: there is nothing to draw a policy from")
    again = space.steps > len(space.operations)
    chosen = [generator.choice(space.operations, space.steps, replace=again) for _ in range(space.sub_policies)]
    return Policy(name, tuple(tuple(drawn(str(operation)) for operation in operations) for operations in chosen))


def merged(several: Sequence[Policy], name: str = "merged") -> Policy:
    """One policy with the sub-policies of all, each as likely as any other: one of many weighs more.

    Raises ValueError for no policies, or for more sub-policies than one may have.
    """
    if not several:
        raise ValueError("no policies to merge")
    return Policy(name, tuple(itertools.chain.from_iterable(policy.sub_policies for policy in several)))


def read(path: str | Path) -> Policy:
    """The policy in a file. Raises ValueError that names the file, the place and what to write there."""
    path = files.project_path(path)
    try:
        with path.open("rb") as handle:
            content = handle.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        return Policy.from_plain(_from_json(content), _name_of(path))
    except OSError as error:
        raise ValueError(f"{files.shown_path(path)} cannot be read as a policy: {error.strerror}") from None
    except RecursionError:
        raise ValueError(f"{files.shown_path(path)} is no policy: its lists are nested too deep") from None
    except ValueError as error:
        raise ValueError(f"{files.shown_path(path)} is no policy: {error}") from None


def _name_of(path: Path) -> str:
    """The file's name without ending, as far as a policy may be called so."""
    printable = "".join(mark for mark in path.stem if mark.isprintable())
    return printable[:LONGEST_NAME].strip() or "policy"


def _from_json(content: bytes) -> Any:
    try:
        return json.loads(content.decode(), parse_constant=_refused_number, object_pairs_hook=_unique_keys)
    except ValueError as error:  # bytes that are no text, or text that is no JSON
        raise ValueError(f"not valid JSON: {error}") from None


def write(policy: Policy, path: str | Path) -> Path:
    """Write a policy, a sub-policy a line, whole or not at all; the same policy gives the same bytes."""
    lines = [f"    {json.dumps(sub_policy)}" for sub_policy in policy.plain()["sub_policies"]]
    inside = ",\n".join(lines)
    body = f"[\n{inside}\n  ]" if lines else "[]"
    text = f'{{\n  "format": {FORMAT},\n  "name": {json.dumps(policy.name)},\n  "sub_policies": {body}\n}}\n'
    with files.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def chosen(augmentation: str) -> Policy:
    """The policy that a run's `augmentation` names: a preset, or the file at a path ending in .json.

    Raises ValueError for an unknown name, which lists those that come nearest, and as `read` does.
    """
    require_name_or_path(augmentation)
    return PRESETS[augmentation] if augmentation in PRESETS else read(augmentation)


def require_name_or_path(augmentation: str) -> None:
    """Raise ValueError unless this is a preset's name or ends as a policy's path does; no file is opened."""
    if augmentation not in PRESETS and not augmentation.endswith(".json"):
        nearest = difflib.get_close_matches(augmentation, PRESETS, 1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ValueError(
            f"augmentation = {shown(augmentation)}: it must be one of {listed(PRESETS)}, or the path of a policy's "
            f".json file{hint}"
        )


def _trivial_augment() -> Policy:
    return Policy("trivialaugment", tuple((Step(operation),) for operation in TRIVIAL))


def _rand_augment() -> Policy:
    """Two of the same operations for every photo, each at the magnitude 9 of 30 of its own, narrower range."""
    known = {"rotate": 9 / 135, "shear_x": 0.09 / 0.99, "shear_y": 0.09 / 0.99, "solarize": 0.3, "posterize": 1 / 6}
    known |= dict.fromkeys(("shift_x", "shift_y"), (0.3 * 150 / 331) / (32 / 224))
    known |= dict.fromkeys(("brightness", "saturation", "contrast", "sharpness"), 0.27 / 0.99)
    steps = [Step(operation, 1.0, known.get(operation)) for operation in TRIVIAL]
    return Policy("randaugment", tuple(itertools.product(steps, repeat=2)))


def _whole_seed_space() -> Policy:
    """Any two of the seed's operations, as probable as its random policies are on the mean, at any magnitude."""
    mean = sum(SEED_SPACE.probabilities) / len(SEED_SPACE.probabilities)
    steps = [Step(operation, mean) for operation in SEED]
    return Policy("seed", tuple(itertools.combinations(steps, 2)))


def _faces() -> Policy:
    """The bounds within which `augment` draws for its preset `faces`."""
    colours = [Step(operation, 1.0, 0.25 / 0.99) for operation in ("brightness", "contrast", "saturation")]
    shifts = [Step(operation, 1.0, 0.06 / (32 / 224)) for operation in ("shift_x", "shift_y")]
    turn, zoom = Step("rotate", 1.0, 12 / 135), Step("scale", 1.0, math.log(1.15) / math.log(2))
    return Policy("faces", ((Step("flip", 0.5), turn, zoom, *shifts, *colours, Step("erase", 0.25, 1.0)),))


def _refused_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which a key written twice is an error; JSON itself keeps the last one in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        again = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {shown(again)} is written twice")
    return found


PRESETS: dict[str, Policy] = {
    "none": Policy("none"),
    "flip": Policy("flip", ((Step("flip", 0.5),),)),
    "faces": _faces(),
    "randaugment": _rand_augment(),
    "trivialaugment": _trivial_augment(),
    "seed": _whole_seed_space(),
}
