"""A painted sample set in the official layout, with known planted faults, to try the workbench on.

    python -m mask_lib.sample data/sample
    python -m mask_lib.sample sheet data/sample people.png
    python -m mask_lib.sample score data/sample outputs/demo/submissions/submission.csv

The same arguments give the same bytes. `truth.json` beside the set holds what a real set never tells:
the true labels, and every fault that was planted.
"""

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from mask_lib import files, labels, painting
from mask_lib.labels import AgeGroup, Gender, Mask

PAINTING = 1  # raise it when the pictures change: older samples are then painted anew
STEMS = {f"mask{number}": Mask.WORN for number in range(1, 6)} | {
    "incorrect_mask": Mask.INCORRECT,
    "normal": Mask.NOT_WORN,
}
SHARES = {  # of the people, as in the competition, rounded
    (Gender.FEMALE, AgeGroup.FROM_30_TO_59): 0.30,
    (Gender.FEMALE, AgeGroup.UNDER_30): 0.27,
    (Gender.MALE, AgeGroup.UNDER_30): 0.20,
    (Gender.MALE, AgeGroup.FROM_30_TO_59): 0.15,
    (Gender.FEMALE, AgeGroup.FROM_60): 0.04,
    (Gender.MALE, AgeGroup.FROM_60): 0.03,
}
SMALLEST_SHARE = 0.10  # macro F1 needs some people in every group
AGES = {AgeGroup.UNDER_30: (18, 28), AgeGroup.FROM_30_TO_59: (32, 56), AgeGroup.FROM_60: (60, 75)}  # years, mostly
BORDER_AGES = {AgeGroup.UNDER_30: (29,), AgeGroup.FROM_30_TO_59: (30, 59), AgeGroup.FROM_60: (60,)}
BORDER_ODDS = 0.05  # share of the people who stand right at a border, where no picture can tell
RACE_ODDS = {"Asian": 0.36, "White": 0.24, "Black": 0.16, "Indian": 0.14, "Other": 0.10}
ENDINGS = {"jpg": 0.86, "jpeg": 0.11, "png": 0.03}
FAULTS = {  # people with each fault among 120
    "wrong_gender": 4,
    "wrong_age": 4,
    "swapped": 4,
    "duplicate_people": 3,
    "leaks": 12,
    "unreadable": 3,
}
SINGLE_FAULTS = ("double_id", "double_id", "missing_photo", "unknown_name", "bad_age", "contradiction")
SMALLEST_FAULTY_SET = 12  # people; every fault still finds a person of its own
IMPOSSIBLE_AGE = 212  # years
OWN_FILES = {"train", "eval", "truth.json"}


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
    def face(self) -> str:
        """A key that all photos of this person share, copies under another id included."""
        return f"face{self.number:04d}"

    def truth(self, mask: Mask) -> dict[str, Any]:
        """The true answers for a photo of this person."""
        group = labels.age_group(self.age)
        return {
            "label": labels.encode(mask, self.gender, group),
            "mask": labels.key_of(mask),
            "gender": labels.key_of(self.gender),
            "age": self.age,
            "face": self.face,
        }


@dataclass(frozen=True)
class Job:
    """The photos of one person to paint: (stem's number, mask, path) each."""

    seed: int
    person: Person
    size: tuple[int, int]
    photos: tuple[tuple[int, Mask, str], ...]


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
    honest = {"row_gender": labels.key_of(person.gender), "row_age": person.age}
    person = replace(person, **(honest | changes))
    return replace(person, folder=f"{person.id}_{person.row_gender}_{person.race}_{person.row_age}")


def plan_faults(random: np.random.Generator, crowd: list[Person]) -> list[Person]:
    """The crowd with faults dealt out, never two to one person, and their rows falsified accordingly."""
    people = len(crowd)
    kinds = list(SINGLE_FAULTS)
    for fault, among_120 in FAULTS.items():
        kinds += [fault] * max(1, round(among_120 * people / 120))
    chosen = random.permutation(people)[: len(kinds)]
    twin = crowd[chosen[0]]  # the first two share an id
    dealt = dict(zip(chosen.tolist(), kinds, strict=True))
    return [falsified(random, replace(person, fault=dealt.get(place, "")), twin) for place, person in enumerate(crowd)]


def falsified(random: np.random.Generator, person: Person, twin: Person) -> Person:
    """The person with the row their fault calls for."""
    if person.fault == "wrong_gender":
        return with_row(person, row_gender=labels.key_of(Gender(1 - person.gender)))
    if person.fault == "wrong_age":
        others = [ages for group, ages in AGES.items() if group != labels.age_group(person.age)]
        low, high = others[random.integers(len(others))]
        return with_row(person, row_age=int(random.integers(low, high + 1)))
    if person.fault == "bad_age":
        return with_row(person, row_age=IMPOSSIBLE_AGE)
    if person.fault == "double_id" and person.number != twin.number:
        # Two people of one gender, race and age would also share a folder: the other's id must differ there.
        race = person.race if person.race != twin.race else next(race for race in RACE_ODDS if race != twin.race)
        return with_row(replace(person, id=twin.id, race=race))
    if person.fault == "contradiction":
        honest = with_row(person)
        return replace(honest, folder=honest.folder.rsplit("_", 1)[0] + f"_{person.age + random.choice((-1, 1))}")
    return person


def look_of(seed: int, person: Person) -> painting.Face:
    """The person's lasting looks."""
    return painting.invent_face(stream(seed, 1, person.number), person.gender, person.race, person.age)


def paint_job(job: Job) -> int:
    """Paint one person's photos and give their number. Runs in worker processes."""
    face = look_of(job.seed, job.person)
    for number, mask, path in job.photos:
        random = stream(job.seed, 1, job.person.number, number)
        picture = painting.portrait(face, painting.invent_shot(random, mask), *job.size)
        save(picture, Path(path), int(random.integers(82, 95)))
    return len(job.photos)


def save(picture: Image.Image, path: Path, quality: int) -> None:
    """Write a PNG or a JPEG, as the name's ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        picture.save(path, "PNG", compress_level=1)
    else:
        picture.save(path, "JPEG", quality=quality)


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


def change_photo(random: np.random.Generator, source: Path, target: Path) -> dict[str, Any]:
    """Write a copy of `source` that is re-encoded, resized by 3-8 % or cropped by up to 2 %; say which."""
    kind = str(random.choice(("reencoded", "resized", "cropped")))
    quality = int(random.integers(70, 90))
    change: dict[str, Any] = {"kind": kind, "quality": quality}
    with Image.open(source) as opened:
        picture = opened.convert("RGB")
    if kind == "resized":
        change["scale"] = round(float(1 - random.uniform(0.03, 0.08)), 4)
        picture = picture.resize(
            tuple(round(side * change["scale"]) for side in picture.size), Image.Resampling.BICUBIC
        )
    if kind == "cropped":
        change["edge"] = round(float(random.uniform(0.005, 0.01)), 4)  # share of a side, off each end
        left, top = (max(1, round(side * change["edge"])) for side in picture.size)
        picture = picture.crop((left, top, picture.width - left, picture.height - top))
    save(picture, target, quality)
    return change


def claimed_label(person: Person, path: str) -> int | None:
    """The label the layout claims for a photo, None where it claims an impossible age."""
    if not labels.AGE_LIMITS[0] <= person.row_age <= labels.AGE_LIMITS[1]:
        return None
    gender = labels.from_key(Gender, person.row_gender)
    return labels.encode(STEMS[Path(path).stem], gender, labels.age_group(person.row_age))


def paint_all(root: Path, arguments: dict[str, Any], train: list[Person], judged: list[Person], workers: int) -> None:
    """Paint every photo below `root`, in `workers` processes."""
    seed, size = arguments["seed"], (arguments["width"], arguments["height"])
    jobs = []
    for folder, people, named in (("train", train, train_photos), ("eval", judged, eval_photos)):
        for person in people:
            photos = [(n, mask, str(root / folder / "images" / path)) for n, mask, path in named(seed, person)]
            jobs.append(Job(seed, person, size, tuple(photos)))
    with files.progress(total=sum(len(job.photos) for job in jobs), what="painting") as line:
        for done in results(jobs, workers):
            line.update(done)


def free_cores() -> int:
    """The cores this process may use; not every system says, and then all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def results(jobs: list[Job], workers: int) -> Iterator[int]:
    """Photos painted by each job as it is done, here (one worker) or in other processes."""
    if workers == 1:
        yield from map(paint_job, jobs)
        return
    # Spawned, not forked: a notebook that calls this may hold torch's threads, which a fork would break.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(paint_job, jobs, chunksize=4)


def eval_photos(seed: int, person: Person) -> list[tuple[int, Mask, str]]:
    """(number, true mask, hashed name) of an evaluation person's photos."""
    return [(number, mask, hashed_name(seed, person.number, number)) for number, mask in enumerate(STEMS.values())]


def build(root: Path, arguments: dict[str, Any], workers: int) -> dict[str, Any]:
    """Paint a whole sample below the empty folder `root`; give its truth."""
    seed = arguments["seed"]
    train = invent_people(stream(seed, 0, 0), arguments["people"], 0)
    judged = invent_people(stream(seed, 0, 1), arguments["eval_people"], arguments["people"])
    if arguments["faults"]:
        train = plan_faults(stream(seed, 0, 2), train)
    paint_all(root, arguments, train, judged, workers)
    rows = [(person.id, person.row_gender, person.race, person.row_age, person.folder) for person in train]
    truth = {
        "arguments": arguments,
        "photos": {
            path: person.truth(mask) | {"given": claimed_label(person, path)}
            for person in train
            for _, mask, path in train_photos(seed, person)
            if Path(path).stem in STEMS
        },
        "eval": {name: person.truth(mask) for person in judged for _, mask, name in eval_photos(seed, person)},
        "faults": {},
    }
    if arguments["faults"]:
        plant(root, seed, train, rows, truth)
    table = pd.DataFrame(
        sorted(rows, key=lambda row: (row[0], row[4])), columns=["id", "gender", "race", "age", "path"]
    )
    files.write_csv(table, root / "train" / "train.csv")
    order = stream(seed, 0, 4).permutation(sorted(truth["eval"]))
    files.write_csv(pd.DataFrame({"ImageID": order, "ans": 0}), root / "eval" / "info.csv")
    files.write_json(truth, root / "truth.json")
    return truth


def plant(root: Path, seed: int, crowd: list[Person], rows: list[tuple], truth: dict[str, Any]) -> None:
    """Plant the faults that are more than a false row; add to `rows` and `truth` what they change."""
    random, images = stream(seed, 0, 3), root / "train" / "images"
    having = {fault: [p for p in crowd if p.fault == fault] for fault in (*FAULTS, *SINGLE_FAULTS)}
    truth["faults"] = {fault: [person.folder for person in people] for fault, people in having.items()}
    taken = {person.id for person in crowd}
    spare = [name for number in range(1, 9 * len(crowd) + 90) if (name := f"{number:06d}") not in taken]
    spare_ids = iter(random.choice(spare, len(having["duplicate_people"]) + 1, replace=False).tolist())
    truth["faults"] |= {
        "duplicate_people": [
            enter_twice(random, images, person, next(spare_ids), rows, truth) for person in having["duplicate_people"]
        ],
        "leaks": [leak(random, root, person, truth) for person in having["leaks"]],
        "unreadable": ruin(images, having["unreadable"], truth),
        "missing_photo": [missing_stem(person, truth) for person in having["missing_photo"]],
        "missing_folder": [add_ghost(next(spare_ids), rows)],
        "unknown_name": [f"{person.folder}/selfie.jpg" for person in having["unknown_name"]],
        "junk": litter(images, [person.folder for person in crowd[:4]]),
    }


def photos_of(folder: str, truth: dict[str, Any]) -> list[str]:
    """Paths of the photos with a known name in one person's folder."""
    return [path for path in truth["photos"] if path.startswith(folder + "/")]


def enter_twice(
    random: np.random.Generator, images: Path, person: Person, new_id: str, rows: list[tuple], truth: dict[str, Any]
) -> dict[str, Any]:
    """Enter a person again under another id, with changed copies of the same photos."""
    folder = new_id + person.folder[len(person.id) :]
    changes = {}
    for path in photos_of(person.folder, truth):
        name = Path(path).name
        changes[name] = change_photo(random, images / path, images / folder / name)
        truth["photos"][f"{folder}/{name}"] = truth["photos"][path]
    rows.append((new_id, person.row_gender, person.race, person.row_age, folder))
    return {"folder": folder, "of": person.folder, "changes": changes}


def leak(random: np.random.Generator, root: Path, person: Person, truth: dict[str, Any]) -> dict[str, Any]:
    """Put a changed copy of one training photo among the evaluation photos."""
    path = str(random.choice(photos_of(person.folder, truth)))
    name = hashed_name("leak", path)
    change = change_photo(random, root / "train" / "images" / path, root / "eval" / "images" / name)
    truth["eval"][name] = {key: value for key, value in truth["photos"][path].items() if key != "given"}
    return {"ImageID": name, "of": path, "change": change}


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


def missing_stem(person: Person, truth: dict[str, Any]) -> str:
    """The photo a folder lacks, as folder/name without an ending."""
    there = {Path(path).stem for path in photos_of(person.folder, truth)}
    return f"{person.folder}/{(set(STEMS) - there).pop()}"


def add_ghost(new_id: str, rows: list[tuple]) -> str:
    """Add a row whose folder does not exist; give that folder's name."""
    row = (new_id, "female", "Asian", 24)
    folder = "_".join(map(str, row))
    rows.append((*row, folder))
    return folder


def litter(images: Path, folders: list[str]) -> list[str]:
    """Leave the files that desktops scatter about; give their paths below the images folder."""
    apple_double = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "
    junk = {".DS_Store": b"\x00\x00\x00\x01Bud1", f"{folders[-1]}/Thumbs.db": b"\xd0\xcf\x11\xe0"}
    junk |= {f"{folder}/._mask1.jpg": apple_double for folder in folders[:-1]}
    for path, content in junk.items():
        (images / path).write_bytes(content)
    return sorted(junk)


def paint(
    out: str | os.PathLike[str],
    people: int = 120,
    eval_people: int = 40,
    seed: int = 0,
    width: int = 384,
    height: int = 512,
    faults: bool = True,
    workers: int | None = None,
) -> dict[str, Any]:
    """Paint a sample set into the folder `out`, seven photos a person, and give its truth.

    The same arguments give the same bytes, whatever the number of `workers` (processes; by default
    one a core). A sample painted with the same arguments is left as it is; one painted with others
    is replaced whole. Keys of the truth, which is also kept as `truth.json`:

    - `arguments`
    - `photos`: per `folder/file` below train/images the true `label` 0-17, `mask`, `gender`, `age`
      (years) and `face` (the same for all photos of one person), and the label `given` by the
      layout (None for an impossible age); unreadable photos and unknown names are left out
    - `eval`: the same per ImageID, without `given`
    - `faults`: per kind a list of folders, of paths below train/images, or of records

    Raises ValueError for a set too small for its faults, FileExistsError for a folder that holds
    anything this program did not put there.
    """
    out = files.project_path(out)
    arguments = {
        "painting": PAINTING,
        "people": people,
        "eval_people": eval_people,
        "seed": seed,
        "width": width,
        "height": height,
        "faults": faults,
    }
    check(arguments)
    found = existing_truth(out)
    if found is not None and found["arguments"] == arguments:
        print(f"{files.shown_path(out)} is already painted with these arguments: nothing to do.")
        return found
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent) as workshop:
        fresh = Path(workshop) / "new"
        fresh.mkdir()
        truth = build(fresh, arguments, workers or free_cores())
        if out.exists():
            out.rename(Path(workshop) / "old")
        fresh.rename(out)
    return truth


def check(arguments: dict[str, Any]) -> None:
    """Raise ValueError for arguments that no sample can be painted with."""
    least = SMALLEST_FAULTY_SET if arguments["faults"] else len(SHARES)
    if arguments["people"] < least:
        raise ValueError(f"people={arguments['people']} is too few: paint at least {least}")
    if arguments["eval_people"] < len(SHARES):
        raise ValueError(f"eval_people={arguments['eval_people']} is too few: paint at least {len(SHARES)}")
    for side in ("width", "height"):
        if not 64 <= arguments[side] <= 2048:
            raise ValueError(f"{side}={arguments[side]} is outside 64-2048 pixels")


def existing_truth(out: Path) -> dict[str, Any] | None:
    """The truth of the sample that lies at `out`, None if nothing does.

    Raises FileExistsError if something else lies there: it is not ours to replace.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    strange = {path.name for path in out.iterdir()} - OWN_FILES if out.is_dir() else {out.name}
    if strange or not (out / "truth.json").is_file():
        found = f" (it holds {', '.join(sorted(strange)[:3])})" if strange else ""
        raise FileExistsError(f"{out} was not painted by this program{found}: choose another folder or move it away")
    return read_truth(out)


def read_truth(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The truth of a painted sample, as `paint` gives it. Raises FileNotFoundError that says what to do."""
    path = files.project_path(folder) / "truth.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: only sets painted by `python -m mask_lib.sample` have one")
    return files.read_json(path)


def score_submission(folder: str | os.PathLike[str], submission: str | os.PathLike[str]) -> dict[str, float]:
    """Score a submission (columns ImageID, ans) against the truth of the sample in `folder`.

    Gives `macro_f1` over all 18 classes (an absent class counts 0, as in the competition),
    `accuracy`, and the accuracies of `mask`, `gender` and `age` group alone. Raises ValueError if the
    submission does not answer every evaluation photo exactly once.
    """
    # Here, since the painting processes import this module too and need no scikit-learn.
    from sklearn.metrics import f1_score

    truth = {name: answer["label"] for name, answer in read_truth(folder)["eval"].items()}
    answers = pd.read_csv(files.project_path(submission), dtype={"ImageID": str})
    if list(answers.columns) != ["ImageID", "ans"]:
        raise ValueError(f"{submission} has the columns {list(answers.columns)}: write ImageID,ans")
    if sorted(answers["ImageID"]) != sorted(truth):
        wrong = sorted(set(truth).symmetric_difference(answers["ImageID"]))[:3]
        raise ValueError(f"{submission} must answer each of the {len(truth)} photos once; look at {wrong or 'doubles'}")
    given, right = answers["ans"].to_numpy(), answers["ImageID"].map(truth).to_numpy()
    scores = {
        "macro_f1": f1_score(right, given, labels=range(labels.CLASS_COUNT), average="macro", zero_division=0),
        "accuracy": np.mean(right == given),
    }
    parts, right_parts = labels.decode_all(given), labels.decode_all(right)
    scores |= {attribute: np.mean(parts[attribute] == right_parts[attribute]) for attribute in labels.ATTRIBUTES}
    return {name: float(score) for name, score in scores.items()}


def contact_sheet(
    folder: str | os.PathLike[str], path: str | os.PathLike[str], rows: int = 6, width: int = 160
) -> Path:
    """Write a PNG of `rows` people over the six gender and age groups, seven photos of `width` pixels each."""
    folder, path = files.project_path(folder), files.project_path(path)
    truth = read_truth(folder)
    names = [name for person in sheet_people(truth, rows) for name in person]
    with Image.open(folder / "train" / "images" / names[0]) as first:
        cell = (width, round(width * first.height / first.width))
    sheet = Image.new("RGB", (cell[0] * len(STEMS), cell[1] * (len(names) // len(STEMS))))
    for place, name in enumerate(names):
        with Image.open(folder / "train" / "images" / name) as photo:
            small = photo.convert("RGB").resize(cell, Image.Resampling.LANCZOS)
        sheet.paste(small, (place % len(STEMS) * cell[0], place // len(STEMS) * cell[1]))
    with files.replacing(path) as temporary:
        sheet.save(temporary)
    return path


def sheet_people(truth: dict[str, Any], rows: int) -> list[list[str]]:
    """Seven photo paths for each of up to `rows` people, taken in turn from the six groups."""
    people: dict[str, list[str]] = {}
    for path in truth["photos"]:
        people.setdefault(path.split("/")[0], []).append(path)
    groups: dict[int, list[list[str]]] = {}
    for paths in people.values():
        facts = [truth["photos"][path] for path in paths]
        if len(paths) == len(STEMS) and all(fact["label"] == fact["given"] for fact in facts):
            groups.setdefault(facts[0]["label"] % (len(Gender) * len(AgeGroup)), []).append(sorted(paths))
    ranked = sorted((rank, group, paths) for group, some in groups.items() for rank, paths in enumerate(some))
    return [paths for _, _, paths in sorted(ranked[:rows], key=lambda entry: entry[1])]


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line; `paint` is what happens when no command is named."""
    parser = argparse.ArgumentParser(prog="python -m mask_lib.sample", description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    painting_command = commands.add_parser("paint", help="paint a sample set (the command when none is named)")
    painting_command.add_argument("out")
    for name, default in (("people", 120), ("eval-people", 40), ("seed", 0), ("width", 384), ("height", 512)):
        painting_command.add_argument(f"--{name}", type=int, default=default)
    painting_command.add_argument("--workers", type=int, help="processes; one a core when left out")
    painting_command.add_argument("--no-faults", dest="faults", action="store_false", help="plant no faults")
    scoring = commands.add_parser("score", help="score a submission against the truth")
    scoring.add_argument("folder")
    scoring.add_argument("submission")
    sheet = commands.add_parser("sheet", help="write a PNG of some people")
    sheet.add_argument("folder")
    sheet.add_argument("png")
    sheet.add_argument("--rows", type=int, default=6)
    named = arguments and arguments[0] in (*commands.choices, "-h", "--help")
    return parser.parse_args(arguments if named else ["paint", *arguments])


def main(arguments: list[str] | None = None) -> int:
    """Run one command; give its exit code."""
    chosen = vars(parse(sys.argv[1:] if arguments is None else arguments))
    command = chosen.pop("command")
    try:
        if command == "score":
            for name, score in score_submission(**chosen).items():
                print(f"{name:10} {score:.4f}")
        elif command == "sheet":
            print(files.shown_path(contact_sheet(chosen["folder"], chosen["png"], chosen["rows"])))
        else:
            truth = paint(**chosen)
            print(
                f"{files.shown_path(files.project_path(chosen['out']))}: {len(truth['photos'])} photos to learn from,"
            )
            print(f"{len(truth['eval'])} to answer; truth.json beside them lists the planted faults.")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
