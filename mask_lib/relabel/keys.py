"""What each key means in each mode of relabeling, and how a class is typed."""

import dataclasses
from collections import namedtuple

import pandas as pd

from mask_lib.base import labels

TITLES = {
    "inspect": "Inspect: does the label fit?",
    "grid": "Grid: does every photo show class {label} ({words})?",
    "review": "Review: is it really wrong?",
    "relabel": "Relabel: which class is it?",
    "suspects": "Suspects: is the suggestion right?",
}
MODES = tuple(TITLES)
DIGITS = "0123456789"
Swap = namedtuple("Swap", "attribute values words")  # two values of an attribute whose photos may have changed places
# Keys, what they do (a name that `Session` acts on; "" is left to the page), and their meaning for people.
Binding = tuple[tuple[str, ...], str, str]
LOOK: list[Binding] = [(("ArrowLeft",), "back", "look back"), (("ArrowRight",), "ahead", "look ahead")]
ALWAYS: list[Binding] = [
    (("Backspace", "u"), "undo", "undo; as often as you like"),
    (("z",), "", "zoom"),
    (("?",), "", "these keys"),
]
SKIP: Binding = (("s",), "skip", "skip for now")
FLAG: Binding = (("f",), "flag", "flag; again: take the flag off")
DROP: Binding = (("x",), "drop", "drop from training")
DECIDING: dict[str, list[Binding]] = {  # modes in which a label is right or wrong
    "inspect": [
        (("1",), "wrong", "the label is wrong"),
        (("2", " "), "right", "the label is right"),
        *(SKIP, FLAG, *LOOK, *ALWAYS),
    ],
    "grid": [
        (("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"), "cursor", "move the cursor"),
        (("1",), "toggle", "wrong; again: not wrong after all"),
        (("Enter",), "page_right", "all others on this page are right; next page"),
        (("n",), "next_page", "next page"),
        (("p",), "previous_page", "page before"),
        *(FLAG, *ALWAYS),
    ],
    "review": [
        (("Enter", "y"), "confirm", "yes, the label is wrong"),
        (("n",), "right", "no, the label is right"),
        *(DROP, SKIP, FLAG, *LOOK, *ALWAYS),
    ],
}


def swap_of(photo_table: pd.DataFrame) -> Swap | None:
    """The two values of a photo's attribute of which people (person, label) usually have one photo each; or None."""
    given = labels.decode_all(photo_table["label"].to_numpy("int64"))
    for name in labels.names(of_person=False):
        counts = pd.crosstab(photo_table["person"].to_numpy(), given[name]).median()
        single = [int(value) for value in counts.index[counts == 1]]
        if len(single) == 2:
            return Swap(name, tuple(single), tuple(labels.attribute(name).words[value] for value in single))
    return None


def bindings(mode: str, swap: Swap | None = None) -> list[Binding]:
    """The bindings of a mode; of two for one key the first counts. Keys of attribute values are no commands' keys."""
    if mode in DECIDING:
        return DECIDING[mode]
    if mode == "relabel":
        found = [(("Enter",), "enter", "write what was typed"), *typing(swap)]
        found += [(("n",), "right", "the label was right after all")]
    else:
        found = [(("Enter",), "enter", "accept the suggestion; if something was typed, write that")]
        found += [(("n", "2"), "right", "the label is right"), *typing(swap)]
    taken = attribute_keys()
    found = [
        (keys if action == "attribute" else tuple(key for key in keys if key not in taken), action, meaning)
        for keys, action, meaning in [*found, SKIP, FLAG, *LOOK, *ALWAYS]
    ]
    return [one for one in found if one[0]]


def typing(swap: Swap | None) -> list[Binding]:
    """The bindings that type a class, or change the labels of a person's photos together."""
    waiting = " ".join(filter(is_begun, DIGITS))
    wait = f"; {waiting} wait for another digit or Enter" if waiting else ""
    found: list[Binding] = [(tuple(DIGITS), "digit", f"the class{wait}")]
    for one in labels.attributes():
        found.append((tuple(one.keys), "attribute", f"{one.name} {' / '.join(one.words)}; Enter writes it"))
    found.append((("P",), "person", "the next decision is for the whole person, or for this photo only"))
    if swap:
        found.append((("S",), "swap", "swap the labels of this person's {} and {} photo".format(*swap.words)))
    return [*found, DROP, (("Escape",), "clear", "forget what was typed")]


def actions(mode: str, swap: Swap | None = None) -> dict[str, str]:
    """What each key of a mode does."""
    return {key: action for keys, action, _ in reversed(bindings(mode, swap)) for key in keys}


def attribute_keys() -> dict[str, tuple[str, int]]:
    """By key the name of an attribute and its value."""
    return {key: (one.name, value) for one in labels.attributes() for value, key in enumerate(one.keys)}


def key_meanings(mode: str, swap: Swap | None = None) -> list[list[str]]:
    """Pairs of keys and meaning, for the screen's list of them."""
    shown = {" ": "Space", "ArrowLeft": "←", "ArrowRight": "→", "ArrowUp": "↑", "ArrowDown": "↓"}
    return [
        ["0-9" if action == "digit" else " ".join(shown.get(key, key) for key in keys), meaning]
        for keys, action, meaning in bindings(mode, swap)
    ]


def is_begun(digits: str) -> bool:
    """Whether more digits may follow these: class numbers are written plainly or with zeros in front."""
    return len(digits) < len(str(labels.class_count() - 1)) and int(digits) * 10 < labels.class_count()


@dataclasses.dataclass
class Typed:
    """What has been typed of a class so far: its first digits, or values of attributes."""

    digits: str = ""
    values: dict[str, int] = dataclasses.field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.digits or self.values)

    def take_digit(self, digit: str) -> int | None:
        """The class if this digit completes it, None if another may follow. Raises ValueError if there is none such."""
        self.values, digits = {}, self.digits + digit
        if is_begun(digits):
            self.digits = digits
            return None
        self.digits = ""
        if int(digits) >= labels.class_count():
            raise ValueError(f"{int(digits)} is no class: they go from 0 to {labels.class_count() - 1}")
        return int(digits)

    def take_attribute(self, key: str) -> None:
        """Note a value of an attribute; a second one of the same attribute replaces the first."""
        self.digits = ""
        name, value = attribute_keys()[key]
        self.values[name] = value

    def complete(self) -> dict[str, int]:
        """The attributes' values that were typed; digits are a class and give all of them."""
        return labels.values_of(int(self.digits)) if self.digits else dict(self.values)

    def leads_to(self, label: int) -> list[int]:
        """The classes that a photo of class `label` may get if typing goes on from here."""
        if self.digits:
            count, number = labels.class_count(), int(self.digits)
            scales = [10**more for more in range(len(str(count - 1)) - len(self.digits) + 1)]
            return [label for label in range(count) if any(label // scale == number for scale in scales)]
        return [labels.with_values(label, self.values)] if self.values else []

    def summary(self) -> str:
        """`1_` or `female 60+`."""
        if self.digits:
            return f"{self.digits}_"
        return " ".join(one.words[self.values[one.name]] for one in labels.attributes() if one.name in self.values)
