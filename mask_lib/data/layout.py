"""The competition's layout: its two tables and the names of its files, and what is odd about them."""

import enum
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from mask_lib.base import files, labels
from mask_lib.base.labels import Gender, Mask
from mask_lib.data import archives

PHOTO_COLUMNS = ["path", "person", "mask", "gender", "age", "label", "split"]
TRAIN_COLUMNS = ["id", "gender", "age", "path"]  # of train.csv; `race` is compared where it is there
KINDS = {f"mask{number}": Mask.WORN for number in range(1, 6)} | {
    "incorrect_mask": Mask.INCORRECT,
    "normal": Mask.NOT_WORN,
}  # the seven photos of a person, by name without ending
ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
FOLDER_NAME = re.compile(r"(?P<id>[^_]+)_(?P<gender>male|female)_(?P<race>.+)_(?P<age>\d+)", re.IGNORECASE)
WHOLE_NUMBER = re.compile(r"-?[0-9]{1,9}(\.0*)?")


class Problem(enum.StrEnum):
    """Everything that can be odd about a data folder. Those marked `kept` leave the photos in the table."""

    UNSAFE_PATH = enum.auto()  # a name in a csv that leads out of the images folder; never opened
    DOUBLE_ROW = enum.auto()  # a path a second time in train.csv; the first row counts
    DOUBLE_ID = enum.auto()  # kept: an id on several people, who stay apart by their folders
    DOUBLE_IMAGE_ID = enum.auto()  # an ImageID a second time in info.csv; the first row counts
    BAD_GENDER = enum.auto()
    BAD_AGE = enum.auto()  # not a whole number
    BAD_MASK = enum.auto()  # these two: only external tables give masks and labels
    BAD_LABEL = enum.auto()
    AGE_OUT_OF_RANGE = enum.auto()
    FOLDER_CONTRADICTS_ROW = enum.auto()  # kept, with the values of train.csv, the official record
    MISSING_FOLDER = enum.auto()
    UNKNOWN_FOLDER = enum.auto()  # a folder that train.csv lacks
    INCOMPLETE_PERSON = enum.auto()  # kept: not all seven photos are there
    DOUBLED_PHOTO = enum.auto()  # kept: one of the seven twice, as mask1.jpg and mask1.png
    MISSING_EVAL_PHOTO = enum.auto()
    UNLISTED_EVAL_PHOTO = enum.auto()  # a file that info.csv lacks
    JUNK_FILE = enum.auto()  # ._mask1.jpg, .DS_Store and the like
    UNKNOWN_NAME = enum.auto()  # neither one of the seven nor junk
    EMPTY_FILE = enum.auto()
    TRUNCATED = enum.auto()
    UNREADABLE = enum.auto()
    ODD_MODE = enum.auto()  # pixels that become black or white as 8-bit colour
    LABEL_CONTRADICTS_ROW = enum.auto()  # an external label that is not what its mask, gender and age make
    NOTHING_KNOWN = enum.auto()  # an external photo without a single attribute
    COPY_OF_OWN_PHOTO = enum.auto()  # an external photo that the data folder holds, byte for byte


class Finding(NamedTuple):
    """One row of the problem table."""

    path: str
    problem: Problem
    detail: str


class Person(NamedTuple):
    """One usable row of train.csv."""

    folder: str
    gender: Gender
    age: int  # years


def photo_table(rows: Iterable[tuple]) -> pd.DataFrame:
    """Rows as a table with `PHOTO_COLUMNS` in their dtypes."""
    table = pd.DataFrame(list(rows), columns=PHOTO_COLUMNS, dtype="object")
    return table.astype({name: "Int64" if name in ("age", "label") else "str" for name in PHOTO_COLUMNS})


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A csv as text, empty where a field is. Raises an error that names the file if it cannot be used."""
    try:
        table = pd.read_csv(path, dtype="str", keep_default_na=False, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): save it again as 'CSV UTF-8'") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{path} is not a csv table: {str(error).strip()}") from error
    table = table.rename(columns=str.strip)
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"{path} lacks the column(s) {', '.join(missing)}; it has {', '.join(table)}")
    # pandas takes the first field for an index when rows have one more than the header.
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError(f"{path} has rows with more fields than its header has columns")
    if table.empty:
        raise ValueError(f"{path} has no rows")
    return table


def scan_train(folder: Path) -> tuple[pd.DataFrame, list[Finding]]:
    """The photo table of train/ by its names alone, sorted by path, and what is odd there."""
    rows = read_table(folder / "train.csv", TRAIN_COLUMNS)
    persons, findings = read_people(rows, folder / "images")
    findings += strays(folder / "images", {PurePosixPath(path).parts[0] for path in rows["path"] if is_plain(path)})
    photo_rows = []
    for person in persons:
        names, odd = list_person(folder / "images", person.folder)
        photo_rows += [photo_row(person, name) for name in names]
        findings += odd
    return photo_table(sorted(photo_rows)), findings


def photo_row(person: Person, name: str) -> tuple:
    """One train row of the photo table."""
    mask = KINDS[kind_of(name)]
    label = labels.encode(mask, person.gender, labels.age_group(person.age))
    path = f"{person.folder}/{name}"
    return path, person.folder, labels.key_of(mask), labels.key_of(person.gender), person.age, label, "train"


def read_people(rows: pd.DataFrame, images: Path) -> tuple[list[Person], list[Finding]]:
    """The usable people of train.csv's rows, in its order, and what is odd about the others."""
    persons, findings, seen = [], double_ids(rows), set()
    for row in rows.to_dict("records"):
        path = row["path"]
        if not is_plain(path):
            findings.append(Finding(path, Problem.UNSAFE_PATH, "train.csv: no plain name in train/images; not opened"))
        elif path in seen:
            findings.append(Finding(path, Problem.DOUBLE_ROW, "train.csv: this path again; the first row counts"))
        else:
            seen.add(path)
            person, odd = read_person(row, os.path.isdir(images / path))
            persons += [person] if person else []
            findings += odd
    return persons, findings


def is_plain(name: str) -> bool:
    """Whether a name from a csv stands for something inside the images folder, and says so plainly."""
    return bool(name) and not archives.leaves_folder(name) and PurePosixPath(name).as_posix() == name != "."


def double_ids(rows: pd.DataFrame) -> list[Finding]:
    """A finding for each folder whose id also stands on another folder's row."""
    findings = []
    for identity, group in rows.groupby("id")["path"]:
        folders = list(group.unique())
        for folder in folders if len(folders) > 1 else []:
            others = [other for other in folders if other != folder]
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            detail = f"id {identity!r} also belongs to {', '.join(others[:3])}{more}; each folder is a person"
            findings.append(Finding(folder, Problem.DOUBLE_ID, detail))
    return findings


def read_person(row: dict[str, str], folder_exists: bool) -> tuple[Person | None, list[Finding]]:
    """The person of a row, or None where a value or the folder is missing, and what is odd."""
    path, gender, age = row["path"], row["gender"].strip().lower(), whole_number(row["age"])
    low, high = labels.AGE_LIMITS
    problems = []
    if not folder_exists:
        problems.append((Problem.MISSING_FOLDER, "train.csv names this folder, train/images lacks it"))
    if gender not in map(labels.key_of, Gender):
        problems.append((Problem.BAD_GENDER, f"gender {row['gender']!r} is neither male nor female"))
    if age is None:
        problems.append((Problem.BAD_AGE, f"age {row['age']!r} is not a whole number of years"))
    elif not low <= age <= high:
        problems.append((Problem.AGE_OUT_OF_RANGE, f"age {age} is outside {low}-{high} years"))
    findings = [Finding(path, problem, detail) for problem, detail in problems + contradictions(row)]
    return (None if problems else Person(path, labels.from_key(Gender, gender), age)), findings


def whole_number(text: str) -> int | None:
    """`45`, ` 45 ` and `45.0` as 45; None for anything that is not a whole number of at most 9 digits."""
    text = text.strip()
    return int(float(text)) if WHOLE_NUMBER.fullmatch(text) else None


def contradictions(row: dict[str, str]) -> list[tuple[Problem, str]]:
    """What a folder named `id_gender_race_age` says otherwise than its row; [] for any other name."""
    named = FOLDER_NAME.fullmatch(PurePosixPath(row["path"]).name)
    if not named:
        return []
    differing = [
        f"{field} {row[field]!r} in train.csv, {text!r} in the name"
        for field, text in named.groupdict().items()
        if field in row and meaning(row[field]) != meaning(text)
    ]
    return [(Problem.FOLDER_CONTRADICTS_ROW, f"{'; '.join(differing)}; train.csv counts")] if differing else []


def meaning(text: str) -> str | int:
    """Text without differences of case and of writing a number: `004` and `4.0` both become 4."""
    number = whole_number(text)
    return text.strip().casefold() if number is None else number


def kind_of(name: str) -> str | None:
    """Which of the seven photos a file name stands for (`Mask1.JPG`: `mask1`), or None."""
    stem, ending = os.path.splitext(name.lower())
    return stem if stem in KINDS and ending in ENDINGS else None


def list_person(images: Path, folder: str) -> tuple[list[str], list[Finding]]:
    """The sorted names of a person's photos, and what else is in the folder or is not."""
    by_kind, findings = defaultdict(list), []
    for name in sorted(os.listdir(images / folder)):
        if kind := kind_of(name):
            by_kind[kind].append(name)
        else:
            findings.append(stray(f"{folder}/{name}", Problem.UNKNOWN_NAME, "not one of the seven photos"))
    for kind, names in by_kind.items():
        detail = f"{' and '.join(names)} both stand for {kind}; all are kept"
        findings += [Finding(f"{folder}/{name}", Problem.DOUBLED_PHOTO, detail) for name in names[1:]]
    missing = [kind for kind in KINDS if kind not in by_kind]
    if missing:
        findings.append(Finding(folder, Problem.INCOMPLETE_PERSON, f"without {', '.join(missing)}"))
    return [name for names in by_kind.values() for name in names], findings


def strays(images: Path, known: set[str]) -> list[Finding]:
    """What lies directly in train/images beside the folders that train.csv names."""
    return [
        stray(entry.name, Problem.UNKNOWN_FOLDER, "train.csv has no row for this folder; left out")
        if entry.is_dir()
        else stray(entry.name, Problem.UNKNOWN_NAME, "a file beside the folders of train/images")
        for entry in os.scandir(images)
        if entry.name not in known
    ]


def stray(path: str, otherwise: Problem, detail: str) -> Finding:
    """A finding for something that should not be there: junk, or else the given problem."""
    if any(map(archives.is_junk, path.split("/"))):
        return Finding(path, Problem.JUNK_FILE, "litter of an operating system or of Jupyter")
    return Finding(path, otherwise, detail)


def scan_eval(folder: Path) -> tuple[pd.DataFrame, list[Finding]]:
    """The photo table of eval/ by its names alone, in info.csv's order, and what is odd there."""
    present = eval_files(folder / "images")
    listed, findings = {}, []
    for name in read_table(folder / "info.csv", ["ImageID"])["ImageID"]:
        if not is_plain(name):
            findings.append(Finding(name, Problem.UNSAFE_PATH, "info.csv: no plain name in eval/images; not opened"))
        elif name in listed:
            findings.append(
                Finding(name, Problem.DOUBLE_IMAGE_ID, "info.csv: this ImageID again; the first row counts")
            )
        else:
            listed[name] = name in present
    findings += [
        Finding(name, Problem.MISSING_EVAL_PHOTO, "info.csv names this photo, eval/images lacks it")
        for name, is_there in listed.items()
        if not is_there
    ]
    findings += [
        stray(name, Problem.UNLISTED_EVAL_PHOTO, "info.csv has no row for this file; left out")
        for name in present
        if name not in listed
    ]
    rows = [(name, "", "", "", pd.NA, pd.NA, "eval") for name, is_there in listed.items() if is_there]
    return photo_table(rows), findings


def eval_ids(data_dir: str | os.PathLike[str]) -> list[str]:
    """Every ImageID of eval/info.csv in its order, once each, as a submission needs them, readable or not."""
    rows = read_table(files.project_path(data_dir) / "eval" / "info.csv", ["ImageID"])
    return list(dict.fromkeys(rows["ImageID"]))


def eval_files(images: Path) -> set[str]:
    """The paths of all files under eval/images, relative to it, with forward slashes."""
    return {
        (Path(folder) / name).relative_to(images).as_posix() for folder, _, names in os.walk(images) for name in names
    }
