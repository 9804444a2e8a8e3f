"""What a step of an augmentation policy may be: the operations, their magnitudes, and checks of what a file says."""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

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
