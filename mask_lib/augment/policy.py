"""What a step of an augmentation policy may be: the operations, their magnitudes, and checks of what a file says.

Augmentation policies as data: what they may say, the presets, and files of them.

A policy is a list of sub-policies, each a list of steps (operation, probability, magnitude). Every photo draws one
sub-policy and takes each of its steps with that step's probability. A magnitude runs from 0, the mildest, to 1, as far
as `OPERATIONS` lets it go; none (null in a file) stands where an operation has none, and otherwise for one drawn anew
for each photo from `MAGNITUDE_BINS` even steps. Where an operation goes two ways, each photo draws which.

A file holds `{"format": 1, "name": "mild", "sub_policies": [[["rotate", 0.5, 0.1], ["invert", 0.2, null]]]}`, or
the bare list of sub-policies, which is then called as its file. It is read as data and checked to the last value:
nothing in it is ever executed.

Sources: AutoAugment, Cubuk et al. 2019; RandAugment, Cubuk et al. 2020; TrivialAugment, Müller and Hutter 2021.

Augmentation policies in words and as tables: what each step does, what photos meet, what differs between two.
"""

import dataclasses
import difflib
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd

from mask_lib.base import files

MOST_SUB_POLICIES, MOST_STEPS = 1000, 10
LONGEST_NAME = 100  # characters


@dataclasses.dataclass(frozen=True)
class Operation:
    """What an operation's magnitudes 0 and 1 stand for, in `unit`; between them it is linear."""

    words: str
    unit: str = ""  # empty: it has no magnitude
    low: float = 0.0
    high: float = 0.0
    signed: bool = False  # goes two ways: each photo draws which
    colours: bool = False  # a matter of red, green and blue: photos of other channels stay as they are

    def value(self, magnitude: float) -> float:
        """What a magnitude from 0 to 1 stands for, in `unit`, without its sign."""
        return self.low + magnitude * (self.high - self.low)


# Faces are upright: there is no vertical flip and no transpose. The ranges are TrivialAugmentWide's where it has the
# operation, its shift of 32 pixels as a share of 224.
OPERATIONS: dict[str, Operation] = {
    "identity": Operation("leave as it is"),
    "flip": Operation("mirror left and right"),
    "rotate": Operation("rotate", "degrees", 0, 135, signed=True),
    "shear_x": Operation("shear sideways", "shift per height", 0, 0.99, signed=True),
    "shear_y": Operation("shear up or down", "shift per width", 0, 0.99, signed=True),
    "shift_x": Operation("shift sideways", "of the width", 0, 32 / 224, signed=True),
    "shift_y": Operation("shift up or down", "of the height", 0, 32 / 224, signed=True),
    "shift": Operation("shift in any direction", "of the sides", 0, 0.25),
    "scale": Operation("zoom", "log of the factor", 0, math.log(2), signed=True),
    "grid_distortion": Operation("stretch the cells of a grid", "of a cell", 0, 0.8),
    "elastic_distortion": Operation("distort like rubber", "of the sides", 0, 0.06),
    "brightness": Operation("brightness", "of itself", 0, 0.99, signed=True),
    "contrast": Operation("contrast", "of itself", 0, 0.99, signed=True),
    "saturation": Operation("saturation", "of itself", 0, 0.99, signed=True, colours=True),
    "gamma": Operation("gamma", "log of the exponent", 0, math.log(3), signed=True),
    "sharpness": Operation("sharpness", "of itself", 0, 0.99, signed=True),
    "posterize": Operation("posterize", "bits", 8, 2),
    "solarize": Operation("solarize", "threshold", 1, 0),
    "autocontrast": Operation("stretch the contrast"),
    "equalize": Operation("equalize the histogram"),
    "invert": Operation("invert"),
    "blur": Operation("blur", "of the shorter side", 0, 0.02),
    "motion_blur": Operation("motion blur", "of the shorter side", 0, 0.08),
    "erase": Operation("grey out a rectangle", "of the area", 0, 0.15),
}


class Step(NamedTuple):
    """One operation of a sub-policy."""

    operation: str
    probability: float = 1.0
    magnitude: float | None = None  # none: the operation has none, or each photo draws one


def checked_name(name: Any) -> str:
    """The name of a policy, if it is one. Raises ValueError that says what a name may be."""
    if not (isinstance(name, str) and name.isprintable() and 0 < len(name) <= LONGEST_NAME and name == name.strip()):
        raise ValueError(f"name = {shown(name)}: it must be text of 1 to {LONGEST_NAME} printable letters")
    return name


def checked_sub_policies(value: Any) -> tuple[tuple[Step, ...], ...]:
    """Sub-policies from lists or tuples of [operation, probability, magnitude], checked to the last value.

    Raises ValueError that names the place, such as `sub_policies[3][0], probability`, and what to write there.
    """
    found = _checked_list(value, "sub_policies", MOST_SUB_POLICIES, "sub-policies")
    return tuple(
        tuple(
            _checked_step(step, f"sub_policies[{number}][{place}]")
            for place, step in enumerate(_checked_list(steps, f"sub_policies[{number}]", MOST_STEPS, "steps"))
        )
        for number, steps in enumerate(found)
    )


def _checked_step(value: Any, where: str) -> Step:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError(f"{where} = {shown(value)}: write [operation, probability, magnitude]")
    operation = checked_operation(value[0], f"{where}, operation")
    probability = _checked_share(value[1], f"{where}, probability")
    if value[2] is None:
        return Step(operation, probability)
    if not OPERATIONS[operation].unit:
        raise ValueError(f"{where}, magnitude = {shown(value[2])}: {operation} has none, write null")
    return Step(operation, probability, _checked_share(value[2], f"{where}, magnitude"))


def _checked_list(value: Any, where: str, most: int, what: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where} is {words(value)}: write a list of {what}")
    if len(value) > most:
        raise ValueError(f"{where} has {len(value):,} {what}, more than {most:,}")
    return value


def checked_operation(name: Any, where: str) -> str:
    """The name of an operation, if there is one of that name. Raises ValueError with `where` and near names."""
    if isinstance(name, str) and name in OPERATIONS:
        return name
    nearest = difflib.get_close_matches(name[:LONGEST_NAME], OPERATIONS, 3) if isinstance(name, str) else []
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"there are {listed(OPERATIONS)}"
    raise ValueError(f"{where} = {shown(name)} is unknown; {hint}")


def _checked_share(value: Any, where: str) -> float:
    """0 to 1 as a float: NaN compares false, and so is refused."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{where} = {shown(value)}: it must be a number from 0 to 1")
    return float(value)


def words(value: Any) -> str:
    """What kind of thing a value is, in the words of JSON: `a list`, `text`, `a number`."""
    kinds = {dict: "an object", list: "a list", str: "text", type(None): "nothing", bool: "true or false"}
    return kinds.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")


def shown(value: Any) -> str:
    """The value, or where it is long its beginning."""
    text = repr(value if not isinstance(value, str | list | tuple) else value[:20])
    return text if len(text) <= 60 else f"{text[:60]}…"


def listed(names: Iterable[Any]) -> str:
    """`one, two, three`."""
    return ", ".join(map(str, names))


POLICY_FORMAT = 1
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
        if isinstance(value["format"], bool) or value["format"] != POLICY_FORMAT:
            raise ValueError(f"format = {shown(value['format'])}: this version reads format {POLICY_FORMAT}")
        return cls(value["name"], value["sub_policies"])

    def plain(self) -> dict[str, Any]:
        """The policy as JSON has it."""
        return {
            "format": POLICY_FORMAT,
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


def merge_policies(several: Sequence[Policy], name: str = "merged") -> Policy:
    """One policy with the sub-policies of all, each as likely as any other: one of many weighs more.

    Raises ValueError for no policies, or for more sub-policies than one may have.
    """
    if not several:
        raise ValueError("no policies to merge")
    return Policy(name, tuple(itertools.chain.from_iterable(policy.sub_policies for policy in several)))


def read_policy(path: str | Path) -> Policy:
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


def write_policy(policy: Policy, path: str | Path) -> Path:
    """Write a policy, a sub-policy a line, whole or not at all; the same policy gives the same bytes."""
    lines = [f"    {json.dumps(sub_policy)}" for sub_policy in policy.plain()["sub_policies"]]
    inside = ",\n".join(lines)
    body = f"[\n{inside}\n  ]" if lines else "[]"
    text = f'{{\n  "format": {POLICY_FORMAT},\n  "name": {json.dumps(policy.name)},\n  "sub_policies": {body}\n}}\n'
    with files.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def named_policy(augmentation: str) -> Policy:
    """The policy that a run's `augmentation` names: a preset, or the file at a path ending in .json.

    Raises ValueError for an unknown name, which lists those that come nearest, and as `read` does.
    """
    require_name_or_path(augmentation)
    return PRESET_POLICIES[augmentation] if augmentation in PRESET_POLICIES else read_policy(augmentation)


def require_name_or_path(augmentation: str) -> None:
    """Raise ValueError unless this is a preset's name or ends as a policy's path does; no file is opened."""
    if augmentation not in PRESET_POLICIES and not augmentation.endswith(".json"):
        nearest = difflib.get_close_matches(augmentation, PRESET_POLICIES, 1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ValueError(
            f"augmentation = {shown(augmentation)}: it must be one of {listed(PRESET_POLICIES)}, or the path of a "
            f"policy's .json file{hint}"
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


PRESET_POLICIES: dict[str, Policy] = {
    "none": Policy("none"),
    "flip": Policy("flip", ((Step("flip", 0.5),),)),
    "faces": _faces(),
    "randaugment": _rand_augment(),
    "trivialaugment": _trivial_augment(),
    "seed": _whole_seed_space(),
}


MOST_LINES = 12  # of a description


def policy_table(policy: Policy) -> pd.DataFrame:
    """One row a step: sub_policy and step (from 0), operation, probability, magnitude (NaN for none), in_words."""
    rows = [
        (number, place, *step, describe_step(step))
        for number, sub_policy in enumerate(policy.sub_policies)
        for place, step in enumerate(sub_policy)
    ]
    columns = ["sub_policy", "step", "operation", "probability", "magnitude", "in_words"]
    return pd.DataFrame(rows, columns=columns).astype({"magnitude": float, "probability": float})


def describe_step(step: Step) -> str:
    """`rotate ± 13.5 degrees, half the time`, as a person says it."""
    operation = OPERATIONS[step.operation]
    size = ""
    if operation.unit and step.magnitude is None:
        size = f" from {operation.value(0):.3g} to {operation.value(1):.3g} {operation.unit}"
    elif operation.unit:
        size = f" {operation.value(step.magnitude):.3g} {operation.unit}"
    size = size.replace(" ", " ± ", 1) if operation.signed else size
    often = {0: ", never", 1: ""}.get(step.probability, f", in {step.probability:.0%}")
    return f"{operation.words}{size}{often}"


def describe_policy(policy: Policy) -> str:
    """The policy in words, a sub-policy a line; of more than a dozen the first, and how many there are."""
    count = len(policy.sub_policies)
    if not count:
        return f"{policy.name}: photos stay as they are"
    lines = [f"  {_line(sub_policy)}" for sub_policy in policy.sub_policies[:MOST_LINES]]
    more = [f"  … and {count - MOST_LINES:,} more"] if count > MOST_LINES else []
    many = f"each photo draws one of {count:,} sub-policies" if count > 1 else "every photo, in this order"
    return "\n".join([f"{policy.name}: {many}", *lines, *more])


def policy_diff(before: Policy, after: Policy) -> pd.DataFrame:
    """What differs between two policies, a row a sub-policy; none if they do the same.

    Columns: change (removed, added, changed), before, after: the sub-policy in words, empty where there is none.
    Sub-policies stand in any order: one that only moved is no difference.
    """
    first, second = (Counter(map(_line, policy.sub_policies)) for policy in (before, after))
    removed, added = list((first - second).elements()), list((second - first).elements())
    rows = []
    for old in removed:
        close = difflib.get_close_matches(old, added, 1)
        rows.append(("changed" if close else "removed", old, *(close or [""])))
        for new in close:
            added.remove(new)
    rows += [("added", "", new) for new in added]
    return pd.DataFrame(rows, columns=["change", "before", "after"])


def operation_shares(policy: Policy) -> pd.DataFrame:
    """How often a photo meets each operation at each magnitude, as columns operation, magnitude and share.

    magnitude: NaN for one that is drawn, and for none; share: how many times a photo meets it in the mean.
    """
    steps = policy_table(policy)
    found = steps.assign(share=steps["probability"] / max(len(policy.sub_policies), 1))
    grouped = found.groupby(["operation", "magnitude"], dropna=False, sort=False)["share"].sum()
    return grouped.reset_index()


def _line(sub_policy: Sequence[Step]) -> str:
    return ", then ".join(map(describe_step, sub_policy)) or "leave as it is"
