"""Augmentation policies as data: the operations, presets, random policies, policy files, and policies in words.

Every photo draws one sub-policy and takes each of its steps (operation, probability, magnitude) with that probability.
A magnitude runs from 0, the mildest, to 1, as far as `OPERATIONS` lets it go: a number, a range [low, high] from which
each photo draws uniformly, or null where there is none, else for one of `MAGNITUDE_BINS` even steps, drawn by photo.
A file holds `{"format": 1, "name": "mild", "sub_policies": [[["rotate", 0.5, 0.1], ["invert", 0.2, null]]]}`, or
the bare list of sub-policies, which is then named as its file; nothing in it is ever executed.
Sources: AutoAugment, Cubuk et al. 2019; RandAugment, Cubuk et al. 2020; TrivialAugment, Müller and Hutter 2021.
"""

import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd

from mask_lib.base import files
from mask_lib.base.checks import did_you_mean, words_for

MOST_SUB_POLICIES, MOST_STEPS = 1000, 10
LONGEST_NAME = 100  # characters
POLICY_FORMAT = 1
MAGNITUDE_BINS = 31  # 0, 1/30, … 1, as TrivialAugment and RandAugment count them
SUMMARY_LINES = 12
TRIVIAL = (
    *("identity", "shear_x", "shear_y", "shift_x", "shift_y", "rotate", "brightness", "saturation", "contrast"),
    *("sharpness", "posterize", "solarize", "autocontrast", "equalize"),
)
SEED = (
    *("contrast", "brightness", "gamma", "blur", "motion_blur", "invert", "rotate", "shift", "scale"),
    *("grid_distortion", "elastic_distortion"),
)


class Operation(NamedTuple):
    """What an operation's magnitudes 0 and 1 stand for, in `unit`; between them it is linear."""

    description: str
    unit: str = ""  # empty: it has no magnitude
    low: float = 0.0
    high: float = 0.0
    signed: bool = False  # each photo draws whether the value counts up or down
    needs_colors: bool = False  # photos of other channels than red, green and blue stay as they are

    def value(self, magnitude: float) -> float:
        """A magnitude from 0 to 1 in `unit`, without its sign."""
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
    "saturation": Operation("saturation", "of itself", 0, 0.99, signed=True, needs_colors=True),
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
    magnitude: float | tuple[float, float] | None = None  # fixed, drawn from a range, or none or drawn from the bins


@dataclasses.dataclass(frozen=True)
class Policy:
    """Named sub-policies. However it is built, it is checked; ValueError names the place and what to write there."""

    name: str
    sub_policies: tuple[tuple[Step, ...], ...] = ()

    def __post_init__(self) -> None:
        name = self.name
        if not (isinstance(name, str) and name.isprintable() and 0 < len(name.strip()) == len(name) <= LONGEST_NAME):
            raise ValueError(f"name = {_shown(name)}: it must be text of 1 to {LONGEST_NAME} printable letters")
        steps = functools.partial(_checked_list, most=MOST_STEPS, what="steps", checked=_checked_step)
        found = _checked_list(self.sub_policies, "sub_policies", MOST_SUB_POLICIES, "sub-policies", steps)
        object.__setattr__(self, "sub_policies", found)

    @classmethod
    def from_plain(cls, value: Any, name: str | None = None) -> Self:
        """A policy from what JSON gives: our own format, or if there is a `name` for it a bare list of sub-policies."""
        if isinstance(value, list) and value and name is not None:
            return cls(name, value)
        if not isinstance(value, Mapping):
            raise ValueError(f"it is {words_for(value)}; write {{'format': 1, 'name': …, 'sub_policies': […]}}")
        if set(value) != {"format", "name", "sub_policies"}:
            raise ValueError(f"its keys must be format, name, sub_policies, not {', '.join(sorted(map(str, value)))}")
        if isinstance(value["format"], bool) or value["format"] != POLICY_FORMAT:
            raise ValueError(f"format = {_shown(value['format'])}: this version reads format {POLICY_FORMAT}")
        return cls(value["name"], value["sub_policies"])

    def plain(self) -> dict[str, Any]:
        """The policy as JSON has it, with lists for tuples."""
        return json.loads(json.dumps({"format": POLICY_FORMAT, "name": self.name, "sub_policies": self.sub_policies}))


def _checked_step(value: Any, where: str) -> Step:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError(f"{where} = {_shown(value)}: write [operation, probability, magnitude]")
    operation = checked_operation(value[0], f"{where}, operation")
    probability, magnitude = _checked_share(value[1], f"{where}, probability"), value[2]
    if magnitude is None:
        return Step(operation, probability)
    where = f"{where}, magnitude"
    if not OPERATIONS[operation].unit:
        raise ValueError(f"{where} = {_shown(magnitude)}: {operation} has none, write null")
    if not isinstance(magnitude, list | tuple):
        return Step(operation, probability, _checked_share(magnitude, where))
    low, high = (_checked_share(end, where) for end in magnitude) if len(magnitude) == 2 else (1.0, 0.0)
    if low > high:
        raise ValueError(f"{where} = {_shown(magnitude)}: a range must be [low, high]")
    return Step(operation, probability, (low, high))


def _checked_list(value: Any, where: str, most: int, what: str, checked: Callable[[Any, str], Any]) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where} is {words_for(value)}: write a list of {what}")
    if len(value) > most:
        raise ValueError(f"{where} has {len(value):,} {what}, more than {most:,}")
    return tuple(checked(one, f"{where}[{place}]") for place, one in enumerate(value))


def checked_operation(name: Any, where: str) -> str:
    """The name of an operation, if there is one of that name. Raises ValueError with `where` and near names."""
    if isinstance(name, str) and name in OPERATIONS:
        return name
    hint = did_you_mean(_shown(name), OPERATIONS) or f"; there are {', '.join(OPERATIONS)}"
    raise ValueError(f"{where} = {_shown(name)} is unknown{hint}")


def _checked_share(value: Any, where: str) -> float:
    """0 to 1 as a float: NaN compares false, and so is refused."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{where} = {_shown(value)}: it must be a number from 0 to 1")
    return float(value)


def _shown(value: Any) -> str:
    """The value, or where it is long its beginning."""
    text = repr(value if not isinstance(value, str | list | tuple) else value[:20])
    return text if len(text) <= 60 else f"{text[:60]}…"


class Space(NamedTuple):
    """What `random_policy` draws from; the defaults are the seed's."""

    operations: tuple[str, ...] = SEED
    sub_policies: int = 5
    steps: int = 2
    probabilities: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    magnitudes: tuple[float, ...] = tuple(number / 10 for number in range(1, 11))


def random_policy(generator: np.random.Generator, space: Space, name: str = "random") -> Policy:
    """A policy of `space`, each choice uniform, no operation twice in a sub-policy while there are others.

    Raises ValueError for a space without operations.
    """

    def drawn(operation: str) -> Step:
        probability, magnitude = (float(generator.choice(some)) for some in (space.probabilities, space.magnitudes))
        unit = OPERATIONS[checked_operation(operation, "space")].unit
        return Step(operation, probability, magnitude if unit else None)

    if not space.operations:
        raise ValueError("a space of no operations: there is nothing to draw a policy from")
    again = space.steps > len(space.operations)
    chosen = [generator.choice(space.operations, space.steps, replace=again) for _ in range(space.sub_policies)]
    return Policy(name, tuple(tuple(drawn(str(operation)) for operation in operations) for operations in chosen))


def read_policy(path: str | Path) -> Policy:
    """The policy in a file. Raises ValueError that names the file, the place and what to write there."""
    path = files.project_path(path)
    try:
        printable = "".join(filter(str.isprintable, path.stem))
        return Policy.from_plain(files.read_json(path), printable[:LONGEST_NAME].strip() or "policy")
    except OSError as error:
        raise ValueError(f"{files.shown_path(path)} cannot be read as a policy: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # of lists nested too deep
        cause = str(error).removeprefix(f"{files.shown_path(path)} is ")
        raise ValueError(f"{files.shown_path(path)} is no policy: {cause}") from None


def write_policy(policy: Policy, path: str | Path) -> Path:
    """Write a policy, a sub-policy a line, whole or not at all; the same policy gives the same bytes."""
    lines = ",\n".join(f"    {json.dumps(sub_policy)}" for sub_policy in policy.plain()["sub_policies"])
    body = f"[\n{lines}\n  ]" if lines else "[]"
    text = f'{{\n  "format": {POLICY_FORMAT},\n  "name": {json.dumps(policy.name)},\n  "sub_policies": {body}\n}}\n'
    with files.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def named_policy(augmentation: str) -> Policy:
    """The preset or .json file that a run's `augmentation` names. Raises as `read_policy`."""
    return PRESET_POLICIES.get(augmentation) or read_policy(augmentation)


# For upright, nearly centred faces: the ends of each range in the operation's unit; at a magnitude of 0 that is 0.
FACES = {"shift_x": (0, 0.06), "shift_y": (0, 0.06), "flip": (), "rotate": (0, 12), "scale": (0, math.log(1.15))}
FACES |= dict.fromkeys(("brightness", "contrast", "saturation"), (0, 0.25)) | {"erase": (0.02, 0.15)}
FACES_STEPS = tuple(
    Step(name, {"flip": 0.5, "erase": 0.25}.get(name, 1.0), tuple(end / OPERATIONS[name].high for end in ends) or None)
    for name, ends in FACES.items()
)
# RandAugment takes two of TrivialAugment's operations, each at the magnitude 9 of 30 of its own, narrower range.
RAND = {"rotate": 9 / 135, "shear_x": 0.09 / 0.99, "shear_y": 0.09 / 0.99, "solarize": 0.3, "posterize": 1 / 6}
RAND |= dict.fromkeys(("shift_x", "shift_y"), (0.3 * 150 / 331) / (32 / 224))
RAND |= dict.fromkeys(("brightness", "saturation", "contrast", "sharpness"), 0.27 / 0.99)
RAND_STEPS = [Step(operation, 1.0, RAND.get(operation)) for operation in TRIVIAL]
PRESET_POLICIES: dict[str, Policy] = {
    "none": Policy("none"),
    "flip": Policy("flip", ((Step("flip", 0.5),),)),
    "faces": Policy("faces", (FACES_STEPS,)),
    "randaugment": Policy("randaugment", tuple(itertools.product(RAND_STEPS, repeat=2))),
    "trivialaugment": Policy("trivialaugment", tuple((Step(operation),) for operation in TRIVIAL)),
    # Any two of the seed's operations, as probable as its random policies are on average.
    "seed": Policy("seed", tuple(itertools.combinations([Step(operation, 0.375) for operation in SEED], 2))),
}  # named by `base.config.AUGMENTATIONS`


def magnitude_range(step: Step) -> tuple[float, float]:
    """The lowest and highest magnitude that a step takes: NaN where its operation has none."""
    if not OPERATIONS[step.operation].unit:
        return math.nan, math.nan
    if step.magnitude is None:
        return 0.0, 1.0
    return step.magnitude if isinstance(step.magnitude, tuple) else (step.magnitude, step.magnitude)


def policy_table(policy: Policy) -> pd.DataFrame:
    """One row a step: sub_policy and step (from 0), operation, probability, low, high (`magnitude_range`), summary."""
    rows = [
        (number, place, step.operation, step.probability, *magnitude_range(step), step_summary(step))
        for number, sub_policy in enumerate(policy.sub_policies)
        for place, step in enumerate(sub_policy)
    ]
    columns = ["sub_policy", "step", "operation", "probability", "low", "high", "summary"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(("probability", "low", "high"), float))


def step_summary(step: Step) -> str:
    """`rotate ± 13.5 degrees, in 50%`."""
    operation, size = OPERATIONS[step.operation], ""
    if operation.unit:
        low, high = map(operation.value, magnitude_range(step))
        size = f" {high:.3g} {operation.unit}" if low == high else f" from {low:.3g} to {high:.3g} {operation.unit}"
    size = size.replace(" ", " ± ", 1) if operation.signed else size
    often = {0: ", never", 1: ""}.get(step.probability, f", in {step.probability:.0%}")
    return f"{operation.description}{size}{often}"


def policy_summary(policy: Policy) -> str:
    """The policy in words, a sub-policy a line; of more than a dozen the first, and how many there are."""
    count = len(policy.sub_policies)
    if not count:
        return f"{policy.name}: photos stay as they are"
    first = policy.sub_policies[:SUMMARY_LINES]
    lines = [f"  {', then '.join(map(step_summary, sub)) or OPERATIONS['identity'].description}" for sub in first]
    more = [f"  … and {count - SUMMARY_LINES:,} more"] if count > SUMMARY_LINES else []
    many = f"each photo draws one of {count:,} sub-policies" if count > 1 else "every photo, in this order"
    return "\n".join([f"{policy.name}: {many}", *lines, *more])


def operation_shares(policy: Policy) -> pd.DataFrame:
    """How often a photo takes each operation on average: columns operation, low, high (magnitudes), share."""
    steps = policy_table(policy)
    found = steps.assign(share=steps["probability"] / max(len(policy.sub_policies), 1))
    return found.groupby(["operation", "low", "high"], dropna=False, sort=False)["share"].sum().reset_index()
