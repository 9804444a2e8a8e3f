"""Who is in a painted sample: invented people, the rows they get in `train.csv`, the names of their photos."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mask_lib.base import labels
from mask_lib.data import layout
from mask_lib.sample.people import AgeGroup, Gender, Mask

STEMS = {name: Mask[word.upper()] for name, word in layout.PHOTO_NAMES.items()}
SHARES = {  # of the people, as in the competition, rounded
    (Gender.FEMALE, AgeGroup.MIDDLE): 0.30,
    (Gender.FEMALE, AgeGroup.YOUNG): 0.27,
    (Gender.MALE, AgeGroup.YOUNG): 0.20,
    (Gender.MALE, AgeGroup.MIDDLE): 0.15,
    (Gender.FEMALE, AgeGroup.OLD): 0.04,
    (Gender.MALE, AgeGroup.OLD): 0.03,
}
SMALLEST_SHARE = 0.10  # macro F1 needs some people in every group
AGES = {AgeGroup.YOUNG: (18, 28), AgeGroup.MIDDLE: (32, 56), AgeGroup.OLD: (60, 75)}  # years, mostly
BORDER_AGES = {AgeGroup.YOUNG: (29,), AgeGroup.MIDDLE: (30, 59), AgeGroup.OLD: (60,)}
BORDER_ODDS = 0.05  # share of the people who stand right at a border, where no picture can tell
RACE_ODDS = {"Asian": 0.36, "White": 0.24, "Black": 0.16, "Indian": 0.14, "Other": 0.10}
ROW_COLUMNS = ("id", "gender", "race", "age", "path")  # of train.csv
ENDINGS = {"jpg": 0.86, "jpeg": 0.11, "png": 0.03}


@dataclass(frozen=True)
class Person:
    """One painted person and the row that `train.csv` gives them; `number` seeds their looks."""

    number: int
    gender: Gender
    race: str
    age: int  # years
    id: str
    fault: str = ""
    row_gender: str = ""
    row_age: int = 0
    folder: str = ""

    @property
    def row(self) -> tuple[str, str, str, int, str]:
        """What `train.csv` says of this person, in the order of `ROW_COLUMNS`."""
        return self.id, self.row_gender, self.race, self.row_age, self.folder

    def truth(self, mask: Mask) -> dict[str, Any]:
        """The true answers for a photo of this person."""
        return {
            "label": labels.encode(mask, self.gender, age_group(self.age)),
            "mask": mask.name.lower(),
            "gender": self.gender.name.lower(),
            "age": self.age,
            "face": f"face{self.number:04d}",  # shared by copies under another id
        }


def age_group(years: int) -> AgeGroup:
    """The group of an age."""
    return AgeGroup((years >= 30) + (years >= 60))


def stream(seed: int, *where: int) -> np.random.Generator:
    """Randomness of its own for one place in the sample, whatever is painted before it."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=where))


def group_sizes(people: int) -> dict[tuple[Gender, AgeGroup], int]:
    """How many of `people` belong to each gender and age group: quotas by largest remainder."""
    low = {group: share for group, share in SHARES.items() if share < SMALLEST_SHARE}
    rest = (1 - SMALLEST_SHARE * len(low)) / (sum(SHARES.values()) - sum(low.values()))
    exact = {group: people * (SMALLEST_SHARE if group in low else share * rest) for group, share in SHARES.items()}
    sizes = {group: int(number) for group, number in exact.items()}
    by_remainder = sorted(exact, key=lambda group: sizes[group] - exact[group])
    for group in by_remainder[: people - sum(sizes.values())]:
        sizes[group] += 1
    return sizes


def invent_people(random: np.random.Generator, people: int, first: int) -> list[Person]:
    """People in random order, numbered from `first`, with rising ids and honest rows."""
    groups = [group for group, size in group_sizes(people).items() for _ in range(size)]
    ids = np.sort(random.choice(7 * people + 90, people, replace=False)) + 1
    crowd = []
    for place, which in enumerate(random.permutation(len(groups))):
        gender, group = groups[which]
        low, high = AGES[group]
        border = random.random() < BORDER_ODDS
        age = int(random.choice(BORDER_AGES[group]) if border else random.integers(low, high + 1))
        race = str(random.choice(list(RACE_ODDS), p=list(RACE_ODDS.values())))
        crowd.append(with_row(Person(first + place, gender, race, age, f"{ids[place]:06d}")))
    return crowd


def with_row(person: Person, **changes: Any) -> Person:
    """The person with `changes`, a row that tells the truth unless they say otherwise, and its folder."""
    honest = {"row_gender": person.gender.name.lower(), "row_age": person.age}
    person = replace(person, **(honest | changes))
    return replace(person, folder=f"{person.id}_{person.row_gender}_{person.race}_{person.row_age}")


def train_photos(seed: int, person: Person) -> list[tuple[int, Mask, str]]:
    """(number, true mask, path below the images folder) of a person's photos as they will lie there."""
    random = stream(seed, 2, person.number)
    endings = random.choice(list(ENDINGS), p=list(ENDINGS.values()), size=len(STEMS) + 1)
    names = dict(zip(STEMS, STEMS, strict=True))
    if person.fault == "swapped":
        names |= {"incorrect_mask": "normal", "normal": "incorrect_mask"}
    if person.fault == "missing_photo":
        names.pop(str(random.choice(list(STEMS))))
    if person.fault == "unreadable":
        endings[:] = "jpg"
    photos = [
        (number, mask, f"{person.folder}/{names[stem]}.{endings[number]}")
        for number, (stem, mask) in enumerate(STEMS.items())
        if stem in names
    ]
    extra = [(len(STEMS), Mask.NOT_WORN, f"{person.folder}/selfie.jpg")] if person.fault == "unknown_name" else []
    return photos + extra


def hashed_name(*parts: Any) -> str:
    """A name that says nothing, as the competition's evaluation photos have: 40 hex digits and .jpg."""
    return hashlib.sha1(repr(parts).encode()).hexdigest() + ".jpg"


def eval_photos(seed: int, person: Person) -> list[tuple[int, Mask, str]]:
    """(number, true mask, hashed name) of an evaluation person's photos."""
    return [(number, mask, hashed_name(seed, person.number, number)) for number, mask in enumerate(STEMS.values())]


def claimed_label(person: Person, path: str) -> int | None:
    """The label the layout claims for a photo, None where it claims an impossible age."""
    if not layout.AGE_LIMITS[0] <= person.row_age <= layout.AGE_LIMITS[1]:
        return None
    return labels.encode(STEMS[Path(path).stem], Gender[person.row_gender.upper()], age_group(person.row_age))


def truth_of(seed: int, train: list[Person], judged: list[Person]) -> dict[str, Any]:
    """The true answers for all photos as they are painted, as `paint.paint` describes them; no faults yet."""
    return {
        "photos": {
            path: person.truth(mask) | {"given": claimed_label(person, path)}
            for person in train
            for _, mask, path in train_photos(seed, person)
            if Path(path).stem in STEMS
        },
        "eval": {name: person.truth(mask) for person in judged for _, mask, name in eval_photos(seed, person)},
        "faults": {},
    }
