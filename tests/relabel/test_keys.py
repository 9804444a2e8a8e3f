"""Keys and class numbers follow the attributes at hand."""

import pandas as pd
import pytest

from mask_lib.base import labels
from mask_lib.relabel import keys

MASK = labels.task().attributes
FLOWER = (labels.Attribute("kind", ("rose", "tulip", "daisy"), "sxn"),)  # keys that are commands elsewhere
MANY = (labels.Attribute("animal", tuple(f"animal {number}" for number in range(60)), "", of_person=True),
        labels.Attribute("side", ("left", "right"), "ab"))  # fmt: skip


@pytest.mark.parametrize(
    ("task", "digits", "label"),  # None while others may follow
    [
        (FLOWER, "0", 0), (FLOWER, "2", 2), (MASK, "0", None), (MASK, "07", 7),
        (MANY, "11", None), (MANY, "119", 119), (MANY, "12", 12), (MANY, "005", 5), (MANY, "9", None), (MANY, "95", 95),
    ],
)  # fmt: skip
def test_digits_count_at_once_where_no_longer_class_number_begins_with_them(task, digits, label):
    with labels.using(task):
        typing = keys.Typed()
        assert [typing.take_digit(digit) for digit in digits] == [None] * (len(digits) - 1) + [label]


@pytest.mark.parametrize(("task", "digits"), [(MASK, "18"), (FLOWER, "3")])
def test_digits_that_are_no_class_are_refused(task, digits):
    with labels.using(task), pytest.raises(ValueError, match="is no class"):
        list(map(keys.Typed().take_digit, digits))


@pytest.mark.parametrize(
    ("typed_so_far", "classes"),  # of a photo of class 7
    [("", []), ("0", range(10)), ("1", [1, *range(10, 18)]), ("g", [10]), ("ge", [16]), ("gl1", [1, *range(10, 18)])],
)
def test_what_was_typed_tells_which_classes_may_come_of_it(typed_so_far, classes):
    typing = keys.Typed()
    for key in typed_so_far:
        take = typing.take_digit if key in keys.DIGITS else typing.take_attribute
        take(key)
    assert typing.leads_to(7) == list(classes)


def test_keys_of_values_go_before_commands_where_classes_are_typed_and_nowhere_else():
    with labels.using(FLOWER):
        found = keys.actions("suspects")
        assert [found[key] for key in "sxn2"] == ["attribute"] * 3 + ["right"]
        assert keys.actions("review")["x"] == "drop"
        assert "sxn" in [shown.replace(" ", "") for shown, _ in keys.key_meanings("relabel")]


@pytest.mark.parametrize(
    ("of_person", "swapped"), [([0, 0, 1, 2], (1, 2)), ([0, 0, 1, 1], None), ([0], None), ([0, 1, 2], None)]
)
def test_a_swap_is_of_the_two_values_of_which_people_have_one_photo_each(of_person, swapped):
    photos = pd.DataFrame([(person, labels.encode(mask, 0, 0)) for person in "abc" for mask in of_person])
    found = keys.swap_of(photos.set_axis(["person", "label"], axis=1))
    assert (found and found.values) == swapped
