"""The faults of a painted sample: false rows, swapped names, copies, leaks, broken files and litter."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mask_lib.sample.crowd import AGES, RACE_ODDS, STEMS, Person, age_group, hashed_name, stream
from mask_lib.sample.people import Gender
from mask_lib.sample.portrait import save_photo

# People with each fault among 120.
FAULTS = {"wrong_gender": 4, "wrong_age": 4, "swapped": 4, "duplicate_people": 3, "leaks": 12, "unreadable": 3}
SINGLE_FAULTS = ("double_id", "double_id", "missing_photo", "unknown_name", "bad_age", "contradiction")
SMALLEST_FAULTY_SET = 12  # people; every fault still finds a person of its own
IMPOSSIBLE_AGE = 212  # years


def plan_faults(random: np.random.Generator, crowd: list[Person]) -> list[Person]:
    """The crowd with faults dealt out, never two to one person, and their rows falsified accordingly."""
    kinds = list(SINGLE_FAULTS)
    for fault, among_120 in FAULTS.items():
        kinds += [fault] * max(1, round(among_120 * len(crowd) / 120))
    chosen = random.permutation(len(crowd))[: len(kinds)]
    twin = crowd[chosen[0]]  # the first two share an id
    dealt = dict(zip(chosen.tolist(), kinds, strict=True))
    return [falsified(random, person._replace(fault=dealt.get(place, "")), twin) for place, person in enumerate(crowd)]


def falsified(random: np.random.Generator, person: Person, twin: Person) -> Person:
    """The person with the row their fault calls for."""
    if person.fault == "wrong_gender":
        return person._replace(row_gender=Gender(1 - person.gender))
    if person.fault == "wrong_age":
        others = [ages for group, ages in AGES.items() if group != age_group(person.age)]
        low, high = others[random.integers(len(others))]
        years = int(random.integers(low, high + 1))
        return person._replace(row_age=years, folder_age=years)
    if person.fault == "bad_age":
        return person._replace(row_age=IMPOSSIBLE_AGE, folder_age=IMPOSSIBLE_AGE)
    if person.fault == "double_id" and person.number != twin.number:
        # Two people of one gender, race and age would also share a folder: the other's id must differ there.
        race = person.race if person.race != twin.race else next(race for race in RACE_ODDS if race != twin.race)
        return person._replace(id=twin.id, race=race)
    if person.fault == "contradiction":
        return person._replace(folder_age=person.age + random.choice((-1, 1)))
    return person


def plant(root: Path, seed: int, crowd: list[Person], rows: list[tuple], truth: dict[str, Any]) -> None:
    """Plant the faults that are more than a false row; add to `rows` and `truth` what they change."""
    random, images = stream(seed, 0, 3), root / "train" / "images"
    having = {fault: [p for p in crowd if p.fault == fault] for fault in (*FAULTS, *SINGLE_FAULTS)}
    truth["faults"] = {fault: [person.folder for person in people] for fault, people in having.items()}
    taken = {person.id for person in crowd}
    spare = [name for number in range(1, 9 * len(crowd) + 90) if (name := f"{number:06d}") not in taken]
    *twin_ids, ghost_id = random.choice(spare, len(having["duplicate_people"]) + 1, replace=False).tolist()
    ghost = (ghost_id, "female", "Asian", 24)
    truth["faults"] |= {
        "duplicate_people": [
            enter_twice(random, images, person, new_id, rows, truth)
            for person, new_id in zip(having["duplicate_people"], twin_ids, strict=True)
        ],
        "leaks": [leak(random, root, person, truth) for person in having["leaks"]],
        "unreadable": ruin(images, having["unreadable"], truth),
        "missing_photo": [
            f"{person.folder}/{stem}"
            for person in having["missing_photo"]
            for stem in set(STEMS) - {Path(path).stem for path in photos_of(person.folder, truth)}
        ],
        "missing_folder": ["_".join(map(str, ghost))],
        "unknown_name": [f"{person.folder}/selfie.jpg" for person in having["unknown_name"]],
        "junk": litter(images, [person.folder for person in crowd[:4]]),
    }
    rows.append((*ghost, *truth["faults"]["missing_folder"]))


def photos_of(folder: str, truth: dict[str, Any]) -> list[str]:
    """Paths of the photos with a known name in one person's folder."""
    return [path for path in truth["photos"] if path.startswith(folder + "/")]


def enter_twice(
    random: np.random.Generator, images: Path, person: Person, new_id: str, rows: list[tuple], truth: dict[str, Any]
) -> dict[str, Any]:
    """Enter a person again under another id, with changed copies of the same photos."""
    again, changes = person._replace(id=new_id), {}
    for path in photos_of(person.folder, truth):
        name = Path(path).name
        changes[name] = change_photo(random, images / path, images / again.folder / name)
        truth["photos"][f"{again.folder}/{name}"] = truth["photos"][path]
    rows.append(again.row)
    return {"folder": again.folder, "of": person.folder, "changes": changes}


def leak(random: np.random.Generator, root: Path, person: Person, truth: dict[str, Any]) -> dict[str, Any]:
    """Put a changed copy of one training photo among the evaluation photos."""
    path = str(random.choice(photos_of(person.folder, truth)))
    name = hashed_name("leak", path)
    change = change_photo(random, root / "train" / "images" / path, root / "eval" / "images" / name)
    truth["eval"][name] = {key: value for key, value in truth["photos"][path].items() if key != "given"}
    return {"ImageID": name, "of": path, "change": change}


def change_photo(random: np.random.Generator, source: Path, target: Path) -> dict[str, Any]:
    """Write a copy of `source` that is re-encoded, resized by 3-8 % or cropped by up to 2 %; say which."""
    kind = str(random.choice(("reencoded", "resized", "cropped")))
    change = {"kind": kind, "quality": int(random.integers(70, 90))}
    with Image.open(source) as opened:
        picture = opened.convert("RGB")
    if kind == "resized":
        change["scale"] = round(float(1 - random.uniform(0.03, 0.08)), 4)
        size = tuple(round(side * change["scale"]) for side in picture.size)
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    if kind == "cropped":
        change["edge"] = round(float(random.uniform(0.005, 0.01)), 4)  # share of a side, off each end
        left, top = (max(1, round(side * change["edge"])) for side in picture.size)
        picture = picture.crop((left, top, picture.width - left, picture.height - top))
    save_photo(picture, target, change["quality"])
    return change


def ruin(images: Path, people: list[Person], truth: dict[str, Any]) -> list[dict[str, str]]:
    """Spoil photos in three ways, at least one each; none of them is a photo any more."""
    spoiled = []
    for number in range(max(len(people), len(SPOILERS))):
        person, stem = people[number % len(people)], f"mask{1 + number // len(people)}"
        kind = list(SPOILERS)[number % len(SPOILERS)]
        path = f"{person.folder}/{stem}.jpg"
        (images / path).write_bytes(SPOILERS[kind]((images / path).read_bytes()))
        del truth["photos"][path]
        spoiled.append({"path": path, "kind": kind})
    return spoiled


SPOILERS = {
    "truncated": lambda photo: photo[: len(photo) // 3],
    "empty": lambda photo: b"",
    "text": lambda photo: b"This is a note, not a photo.\n",
}


def litter(images: Path, folders: list[str]) -> list[str]:
    """Leave the files that desktops scatter about; give their paths below the images folder."""
    apple_double = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "
    junk = {".DS_Store": b"\x00\x00\x00\x01Bud1", f"{folders[-1]}/Thumbs.db": b"\xd0\xcf\x11\xe0"}
    junk |= {f"{folder}/._mask1.jpg": apple_double for folder in folders[:-1]}
    for path, content in junk.items():
        (images / path).write_bytes(content)
    return sorted(junk)
