"""Who is in a painted sample: invented people, the rows they get in `train.csv`, the names of their photos."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mask_lib.base import files, labels
from mask_lib.data import layout
from mask_lib.sample.people import AgeGroup, Gender, Mask, Shot, invent_shot

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
# Of people on a building site, for whom there is a task of its own, `tasks/helmet.yml`.
HELMETS = ((240, 240, 236), (246, 200, 50), (60, 110, 200), (206, 60, 50))
VESTS = {"none": None, "orange": (250, 120, 30), "yellow": (216, 240, 50)}
WRONG_SHARE = 0.03  # of the rows, whose helmet is not that of the photo


class Person(NamedTuple):
    """One painted person and the row that `train.csv` gives them; `number` seeds their looks."""

    number: int
    gender: Gender
    race: str
    age: int  # years
    id: str
    row_gender: Gender
    row_age: int
    folder_age: int  # as the folder's name has it
    fault: str = ""

    @property
    def row(self) -> tuple[str, str, str, int, str]:
        """What `train.csv` says of this person, in the order of `ROW_COLUMNS`."""
        gender = self.row_gender.name.lower()
        return self.id, gender, self.race, self.row_age, f"{self.id}_{gender}_{self.race}_{self.folder_age}"

    @property
    def folder(self) -> str:
        """Where the person's photos lie."""
        return self.row[-1]

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
        crowd.append(Person(first + place, gender, race, age, f"{ids[place]:06d}", gender, age, age))
    return crowd


def train_photos(seed: int, person: Person) -> list[tuple[int, Mask, str]]:
    """(number, true mask, path below the images folder) of a person's photos as they will lie there."""
    random = stream(seed, 2, person.number)
    endings = random.choice(list(ENDINGS), p=list(ENDINGS.values()), size=len(STEMS) + 1)
    swapped = {"incorrect_mask": "normal", "normal": "incorrect_mask"} if person.fault == "swapped" else {}
    missing = random.choice(list(STEMS)) if person.fault == "missing_photo" else ""
    if person.fault == "unreadable":
        endings[:] = "jpg"
    photos = [
        (number, mask, f"{person.folder}/{swapped.get(stem, stem)}.{endings[number]}")
        for number, (stem, mask) in enumerate(STEMS.items())
        if stem != missing
    ]
    extra = [(len(STEMS), Mask.NOT_WORN, f"{person.folder}/selfie.jpg")] if person.fault == "unknown_name" else []
    return photos + extra


def hashed_name(*parts: Any) -> str:
    """A name that says nothing, as the competition's evaluation photos have: 40 hex digits and .jpg."""
    return hashlib.sha1(repr(parts).encode()).hexdigest() + ".jpg"


def plan_people(root: Path, truth: dict[str, Any], train: list[Person], judged: list[Person]) -> list[tuple]:
    """The photos of each person to paint, as `paint.Job`s; adds them to the truth, which `paint.paint` tells of."""
    seed, jobs = truth["arguments"]["seed"], []
    for person in train:
        photos = train_photos(seed, person)
        jobs.append((person, root / "train", photos))
        for _, mask, path in photos:
            if (stem := Path(path).stem) in STEMS:
                given = labels.encode(STEMS[stem], person.row_gender, age_group(person.row_age))
                truth["photos"][path] = person.truth(mask) | {"given": None if person.fault == "bad_age" else given}
    for person in judged:
        photos = [
            (number, mask, hashed_name(seed, person.number, number)) for number, mask in enumerate(STEMS.values())
        ]
        jobs.append((person, root / "eval", photos))
        truth["eval"] |= {name: person.truth(mask) for _, mask, name in photos}
    return jobs


def dressed(random: np.random.Generator, helmet: str, vest: str) -> Shot:
    """One photo's pose, light and gear."""
    colour = HELMETS[random.integers(len(HELMETS))] if helmet == "yes" else None
    return invent_shot(random, Mask.NOT_WORN)._replace(helmet=colour, vest=VESTS[vest])


def plan_site(root: Path, truth: dict[str, Any]) -> list[tuple]:
    """The photos of each person to paint, as `paint.Job`s; adds them to the truth, and writes the labels' CSV.

    A person has four photos, in one kind of vest or in none, in one photo at least with a helmet, in one without.
    """
    seed, count, jobs = truth["arguments"]["seed"], truth["arguments"]["people"], []
    for person in invent_people(stream(seed, 0, 0), count + truth["arguments"]["eval_people"], 0):
        random, is_asked = stream(seed, 2, person.number), person.number >= count
        vest, helmets, photos = str(random.choice(list(VESTS))), ["yes", "no", *random.choice(["yes", "no"], 2)], []
        for number, helmet in enumerate(random.permutation(helmets).tolist()):
            name = hashed_name(seed, person.number, number) if is_asked else f"{person.id}/{number}.jpg"
            label = labels.encode(helmet == "no", list(VESTS).index(vest))
            truth["eval" if is_asked else "photos"][name] = {"label": label, "helmet": helmet, "vest": vest}
            photos.append((number, (helmet, vest), name))
        jobs.append((person, root / ("eval" if is_asked else "train"), photos))
    files.write_csv(site_rows(stream(seed, 0, 3), truth), root / "train" / "labels.csv")
    return jobs


def site_rows(random: np.random.Generator, truth: dict[str, Any]) -> pd.DataFrame:
    """What the CSV says of the photos; where faults are asked for some rows are wrong, and the truth notes which."""
    rows = [(name, name.split("/")[0], fact["helmet"], fact["vest"]) for name, fact in truth["photos"].items()]
    table = pd.DataFrame(rows, columns=["path", "group", "helmet", "vest"])
    if truth["arguments"]["faults"]:
        misspelt, *wrong = random.permutation(len(table))[: 2 + int(WRONG_SHARE * len(table))]
        table.loc[wrong, "helmet"] = table.loc[wrong, "helmet"].map({"yes": "no", "no": "yes"})
        table.loc[misspelt, "vest"] = "yelow"
        truth["faults"] = {"wrong_helmet": list(table["path"][wrong]), "misspelt": [table["path"][misspelt]]}
        table.loc[len(table)] = truth["faults"]["missing"] = ["nobody/0.jpg", "nobody", "yes", "none"]
    return table
