"""What each key means in each mode of relabeling, and how a class is typed."""

import dataclasses

from mask_lib.base import labels
from mask_lib.base.labels import AgeGroup, Gender, Mask

MODES = ("inspect", "grid", "review", "relabel", "suspects")
TITLES = {
    "inspect": "Inspect: does the label fit?",
    "grid": "Grid: does every photo show class {label} ({words})?",
    "review": "Review: is it really wrong?",
    "relabel": "Relabel: which class is it?",
    "suspects": "Suspects: is the suggestion right?",
}
ATTRIBUTE_KEYS = {
    "q": ("mask", Mask.WORN),
    "w": ("mask", Mask.INCORRECT),
    "e": ("mask", Mask.NOT_WORN),
    "m": ("gender", Gender.MALE),
    "g": ("gender", Gender.FEMALE),
    "j": ("age", AgeGroup.YOUNG),
    "k": ("age", AgeGroup.MIDDLE),
    "l": ("age", AgeGroup.OLD),
}
DIGITS = "0123456789"
WORDS = {"mask": labels.MASK_WORDS, "gender": labels.GENDER_WORDS, "age": labels.AGE_WORDS}
# Per mode: keys, what they do (a name that `Review` acts on; "" is left to the screen), the meaning in words.
Binding = tuple[tuple[str, ...], str, str]
LOOK: list[Binding] = [
    (("ArrowLeft",), "back", "look back"),
    (("ArrowRight",), "ahead", "look ahead"),
]
ALWAYS: list[Binding] = [
    (("Backspace", "u"), "undo", "undo; as often as you like"),
    (("z",), "", "zoom"),
    (("?",), "", "these keys"),
]
ASIDE: list[Binding] = [
    (("s",), "skip", "skip for now"),
    (("f",), "flag", "flag; again: take the flag off"),
]
TYPING: list[Binding] = [
    (tuple(DIGITS), "digit", "the class; 2-9 count at once, 0 and 1 wait for a second digit or Enter"),
    (("q", "w", "e"), "attribute", "mask worn / incorrect / not worn; Enter writes it"),
    (("m", "g"), "attribute", "male / female; Enter writes it"),
    (("j", "k", "l"), "attribute", "<30 / 30-59 / 60+; Enter writes it"),
    (("P",), "person", "the next decision is for the whole person, or for this photo only"),
    (("S",), "swap", "swap the labels of this person's normal and incorrect photo"),
    (("x",), "drop", "drop from training"),
    (("Escape",), "clear", "forget what was typed"),
]
BINDINGS: dict[str, list[Binding]] = {
    "inspect": [
        (("1",), "wrong", "the label is wrong"),
        (("2", " "), "right", "the label is right"),
        *ASIDE,
        *LOOK,
        *ALWAYS,
    ],
    "grid": [
        (("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"), "cursor", "move the cursor"),
        (("1",), "toggle", "wrong; again: not wrong after all"),
        (("Enter",), "page_right", "all others on this page are right; next page"),
        (("n",), "next_page", "next page"),
        (("p",), "previous_page", "page before"),
        (("f",), "flag", "flag; again: take the flag off"),
        *ALWAYS,
    ],
    "review": [
        (("Enter", "y"), "confirm", "yes, the label is wrong"),
        (("n",), "right", "no, the label is right"),
        (("x",), "drop", "drop from training"),
        *ASIDE,
        *LOOK,
        *ALWAYS,
    ],
    "relabel": [
        (("Enter",), "enter", "write what was typed"),
        *TYPING,
        (("n",), "right", "the label was right after all"),
        *ASIDE,
        *LOOK,
        *ALWAYS,
    ],
    "suspects": [
        (("Enter",), "enter", "accept the suggestion; if something was typed, write that"),
        (("n", "2"), "right", "the label is right"),
        *TYPING,
        *ASIDE,
        *LOOK,
        *ALWAYS,
    ],
}
ACTIONS = {
    # The first binding of a key counts: `2` among the suspects is "right" before it is a digit.
    mode: {key: action for keys, action, _ in reversed(bindings) for key in keys}
    for mode, bindings in BINDINGS.items()
}


def keys_in_words(mode: str) -> list[list[str]]:
    """Pairs of keys and meaning, for the screen's list of them."""
    shown = {" ": "Space", "ArrowLeft": "←", "ArrowRight": "→", "ArrowUp": "↑", "ArrowDown": "↓"}
    found = []
    for keys, _, meaning in BINDINGS[mode]:
        text = "0-9" if keys == tuple(DIGITS) else " ".join(shown.get(key, key) for key in keys)
        found.append([text, meaning])
    return found


def attributes_of(label: int) -> dict[str, int]:
    """`mask`, `gender` and `age` of a label 0-17."""
    return dict(zip(labels.ATTRIBUTES, labels.decode(label), strict=True))


def with_attributes(label: int, attributes: dict[str, int]) -> int:
    """A label 0-17 with some of its attributes (`mask`, `gender`, `age`) replaced."""
    return labels.encode(**(attributes_of(label) | attributes))


@dataclasses.dataclass
class Typed:
    """What has been typed of a class so far: a first digit, or attributes."""

    digit: str = ""
    attributes: dict[str, int] = dataclasses.field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.digit or self.attributes)

    def take_digit(self, digit: str) -> int | None:
        """The class if it is complete with this digit, None if another may follow.

        Raises ValueError for two digits that are no class.
        """
        self.attributes = {}
        if not self.digit and digit in "01":
            self.digit = digit
            return None
        number, self.digit = int(self.digit + digit), ""
        if number >= labels.CLASS_COUNT:
            raise ValueError(f"{number} is no class: they go from 0 to {labels.CLASS_COUNT - 1}")
        return number

    def take_attribute(self, key: str) -> None:
        """Note an attribute; a second one of the same kind replaces the first."""
        self.digit = ""
        name, value = ATTRIBUTE_KEYS[key]
        self.attributes[name] = value

    def complete(self) -> dict[str, int]:
        """The attributes that were typed; a lone digit is a class, so it gives all three."""
        if self.digit:
            return attributes_of(int(self.digit))
        return dict(self.attributes)

    def leads_to(self, label: int) -> list[int]:
        """The classes that a photo of class `label` may get if typing goes on from here."""
        if self.digit:
            longer = range(int(self.digit) * 10, int(self.digit) * 10 + 10)
            return sorted({int(self.digit), *longer} & set(range(labels.CLASS_COUNT)))
        return [with_attributes(label, self.attributes)] if self.attributes else []

    def in_words(self) -> str:
        """`1_` or `female 60+`."""
        if self.digit:
            return f"{self.digit}_"
        return " ".join(WORDS[name][self.attributes[name]] for name in labels.ATTRIBUTES if name in self.attributes)
