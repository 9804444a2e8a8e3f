"""The invented people of a sample: quotas, rows, the names of their photos, and their true answers."""

import re
from collections import Counter
from dataclasses import replace

import pytest

from mask_lib.base.labels import AgeGroup, Gender, Mask
from mask_lib.sample import crowd

WOMAN = crowd.with_row(crowd.Person(7, Gender.FEMALE, "Asian", 60, "000123"))


@pytest.mark.parametrize("people", [6, 7, 24, 40, 120, 2700])
def test_groups_are_allotted_by_quota_with_a_tenth_at_least_in_each(people):
    sizes = crowd.group_sizes(people)
    assert sum(sizes.values()) == people
    assert min(sizes.values()) >= max(1, people // 10)
    assert sizes[Gender.FEMALE, AgeGroup.MIDDLE] == max(sizes.values())
    invented = crowd.invent_people(crowd.stream(3), people, 0)
    assert Counter((person.gender, crowd.age_group(person.age)) for person in invented) == sizes


def test_people_have_ids_and_numbers_of_their_own_and_honest_rows():
    people = crowd.invent_people(crowd.stream(0), 40, 100)
    assert [person.number for person in people] == list(range(100, 140))
    ids = [person.id for person in people]
    assert len(set(ids)) == 40
    assert ids == sorted(ids)
    for person in people:
        assert person.row == (person.id, person.gender.name.lower(), person.race, person.age, person.folder)
        assert person.folder == "_".join(map(str, person.row[:4]))


def test_a_changed_row_renames_the_folder_but_not_the_truth():
    lied = crowd.with_row(WOMAN, row_gender="male")
    assert lied.folder == "000123_male_Asian_60"
    assert lied.truth(Mask.NOT_WORN) == WOMAN.truth(Mask.NOT_WORN)
    assert lied.truth(Mask.NOT_WORN)["label"] == 17
    assert crowd.claimed_label(lied, f"{lied.folder}/normal.png") == 14


def test_an_honest_person_has_seven_photos_named_after_how_the_mask_is_worn():
    photos = crowd.train_photos(0, WOMAN)
    assert [number for number, _, _ in photos] == list(range(7))
    for _, mask, path in photos:
        folder, stem, ending = re.fullmatch(r"(.+)/(\w+)\.(jpg|jpeg|png)", path).groups()
        assert folder == WOMAN.folder
        assert ending in crowd.ENDINGS
        assert crowd.STEMS[stem] is mask


@pytest.mark.parametrize(
    ("fault", "stems"),
    [
        ("swapped", {**crowd.STEMS, "normal": Mask.INCORRECT, "incorrect_mask": Mask.NOT_WORN}),
        ("unknown_name", {**crowd.STEMS, "selfie": Mask.NOT_WORN}),
    ],
)
def test_a_fault_of_the_names_puts_photos_under_other_names(fault, stems):
    photos = crowd.train_photos(0, replace(WOMAN, fault=fault))
    assert {path.split("/")[1].split(".")[0]: mask for _, mask, path in photos} == stems


def test_a_missing_photo_is_one_of_the_seven_and_spoiled_ones_are_jpegs():
    assert len(crowd.train_photos(0, replace(WOMAN, fault="missing_photo"))) == 6
    for number in range(20):
        spoiled = replace(WOMAN, fault="unreadable", number=number)
        assert all(path.endswith(".jpg") for _, _, path in crowd.train_photos(0, spoiled))


def test_names_of_evaluation_photos_say_nothing_and_are_never_the_same():
    names = [name for number in range(20) for _, _, name in crowd.eval_photos(0, replace(WOMAN, number=number))]
    assert len(set(names)) == 140
    assert all(re.fullmatch(r"[0-9a-f]{40}\.jpg", name) for name in names)
    assert crowd.eval_photos(1, WOMAN)[0][2] not in names
