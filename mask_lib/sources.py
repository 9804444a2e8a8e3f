"""Reading labeled photos from elsewhere: what a folder or a CSV says of each, as text, and what that means."""

import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

import pandas as pd

from mask_lib import labels, layout, photos
from mask_lib.layout import Finding, Problem

GIVEN = ("mask", "gender", "age", "label")  # what a source may say of a photo
PARTIAL = -1  # the label of a photo of which not every attribute is known; also an unknown attribute's number

Raw = dict[str, str]  # path, person and GIVEN as the source writes them, empty where it is silent


def read_source(source: Path) -> tuple[list[Raw], list[Finding]]:
    """What a source says of each of its photos, unchecked, and what is odd about its files."""
    if source.is_file() and source.suffix.lower() == ".csv":
        return read_list(source), []
    if not source.exists():
        raise FileNotFoundError(f"no {source}: give a folder of labeled photos or a CSV with their paths")
    if not source.is_dir():
        raise ValueError(f"{source} is neither a folder nor a .csv")
    folder = source / "train" if (source / "train" / "train.csv").is_file() else source
    images = folder / "images" if (folder / "images").is_dir() else folder
    return read_people(people_of(folder, images), images)


def read_list(path: Path) -> list[Raw]:
    """The rows of a CSV with the column `path`, which counts from the CSV's folder unless it is absolute."""
    table = layout.read_table(path, ["path"])
    known = ["path", "person", *GIVEN]
    for column in set(table) - set(known):
        meant = difflib.get_close_matches(column.lower(), known, n=1, cutoff=0.75)
        if meant:
            raise ValueError(f"{path} has a column {column!r}: write {meant[0]!r} if that is meant, or rename it")
    if not set(GIVEN) & set(table):
        raise ValueError(f"{path} says nothing of its photos: it needs one of the columns {', '.join(GIVEN)}")
    rows = table.reindex(columns=known, fill_value="").to_dict("records")
    return [
        row | {"path": os.path.normpath(path.parent / row["path"]), "person": row["person"] or row["path"]}
        for row in rows
    ]


def people_of(folder: Path, images: Path) -> list[Raw]:
    """Folder name, gender and age of each person: from train.csv, else from folders named id_gender_race_age."""
    if (folder / "train.csv").is_file():
        table = layout.read_table(folder / "train.csv", ["path"])
        return table.reindex(columns=["path", "gender", "age"], fill_value="").to_dict("records")
    names = sorted(entry.name for entry in os.scandir(images) if entry.is_dir())
    matches = [layout.FOLDER_NAME.fullmatch(name) for name in names if photos.printable(name) == name]
    return [{"path": match[0], "gender": match["gender"], "age": match["age"]} for match in matches if match]


def read_people(people: list[Raw], images: Path) -> tuple[list[Raw], list[Finding]]:
    """The photos of people's folders, and what is odd about the files; that some of the seven are missing is not."""
    rows, odd, seen = [], [], set()
    for one in people:
        name = one["path"]
        if trouble := trouble_with(name, images, seen):
            odd.append(Finding(name, *trouble))
            continue
        seen.add(name)
        found, about = layout.list_person(images, name)
        rows += [photo_of(images / name / photo, one) for photo in found]
        odd += [finding for finding in about if finding.problem != Problem.INCOMPLETE_PERSON]
        said = {field: text for field, text in one.items() if text}
        odd += [Finding(name, *contradiction) for contradiction in layout.contradictions(said)]
    odd += others_in(images, {PurePosixPath(name).parts[0] for name in seen})
    return rows, [finding._replace(path=photos.printable(str(images / finding.path))) for finding in odd]


def trouble_with(name: str, images: Path, seen: set[str]) -> tuple[Problem, str] | None:
    """Why a folder that train.csv names cannot be read, or None."""
    if not layout.is_plain(name):
        return Problem.UNSAFE_PATH, "no plain name in the images folder; not opened"
    if name in seen:
        return Problem.DOUBLE_ROW, "train.csv: this path again; the first row counts"
    if not (images / name).is_dir():
        return Problem.MISSING_FOLDER, "train.csv names this folder; it is not there"
    return None


def others_in(images: Path, known: set[str]) -> list[Finding]:
    """What lies in the images folder beside the folders that are read."""
    why = "neither in train.csv nor, where there is none, named id_gender_race_age; left out"
    found = layout.strays(images, known | {"train.csv"})
    return [one._replace(detail=why) if one.problem == Problem.UNKNOWN_FOLDER else one for one in found]


def photo_of(path: Path, person: Raw) -> Raw:
    """One of the seven photos of a person."""
    mask = labels.key_of(layout.KINDS[layout.kind_of(path.name)])
    return {**person, "path": str(path), "person": person["path"], "mask": mask, "label": ""}


# What they say.


def values_of(written: Mapping[str, str]) -> tuple[tuple, list[tuple[Problem, str]]]:
    """Mask, gender, age in years and label as the table holds them, and why they cannot be used, if so."""
    read, problems = {}, []
    for field, text in written.items():
        try:
            if text:
                read[field] = READERS[field](text)
        except ValueError as error:
            is_outside = field == "age" and layout.whole_number(text) is not None
            problems.append((Problem.AGE_OUT_OF_RANGE if is_outside else PROBLEMS[field], str(error)))
    known = {field: read[field] for field in ("mask", "gender") if field in read}
    known |= {"age": labels.age_group(read["age"])} if "age" in read else {}
    if "label" in read:
        meant = dict(zip(labels.ATTRIBUTES, labels.decode(read["label"]), strict=True))
        others = [f"{field} {written[field]!r}" for field in known if known[field] != meant[field]]
        if others:
            what = f"label {read['label']} ({labels.describe(read['label'])}) beside {', '.join(others)}"
            problems.append((Problem.LABEL_CONTRADICTS_ROW, what))
        known = meant
    if not known and not problems:
        problems.append((Problem.NOTHING_KNOWN, "neither mask nor gender, age or label is given"))
    words = [labels.key_of(known[field]) if field in known else "" for field in ("mask", "gender")]
    label = labels.encode(**known) if len(known) == len(labels.ATTRIBUTES) else PARTIAL
    return (*words, read.get("age", pd.NA), label), problems


def years(text: str) -> int:
    """An age in years. Raises ValueError for anything but a whole number of 0-120."""
    number = layout.whole_number(text)
    if number is None:
        raise ValueError(f"age {text!r} is not a whole number of years")
    labels.age_group(number)
    return number


def class_number(text: str) -> int:
    """A label. Raises ValueError for anything but a whole number of 0-17."""
    number = layout.whole_number(text)
    if number is None or not 0 <= number < labels.CLASS_COUNT:
        raise ValueError(
            f"label {text!r} is not a whole number of 0-{labels.CLASS_COUNT - 1}; leave it empty if unknown"
        )
    return number


def word_for(kind: type[labels.Attribute]) -> Callable[[str], labels.Attribute]:
    """A reader of an attribute's words: `Not worn` as `not_worn`."""
    return lambda text: labels.from_key(kind, text.lower().replace(" ", "_"))


READERS: dict[str, Callable[[str], int]] = {
    "mask": word_for(labels.Mask),
    "gender": word_for(labels.Gender),
    "age": years,
    "label": class_number,
}
PROBLEMS = {
    "mask": Problem.BAD_MASK,
    "gender": Problem.BAD_GENDER,
    "age": Problem.BAD_AGE,
    "label": Problem.BAD_LABEL,
}
