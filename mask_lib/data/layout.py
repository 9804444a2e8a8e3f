"""The competition's layout and what is odd about it: beside the sample the one place to name mask, gender and age."""

import enum
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from mask_lib.base import files, labels
from mask_lib.data import archives

TRAIN_COLUMNS = ["id", "gender", "age", "path"]  # of train.csv; `race` is compared where it is there
# The seven photos of a person by name without ending, and how the mask is worn, as the photo table writes it.
PHOTO_NAMES = {f"mask{n}": "worn" for n in range(1, 6)} | {"incorrect_mask": "incorrect", "normal": "not_worn"}
ENDINGS = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp"}
NOT_ONE = f"none of the seven photos {', '.join(PHOTO_NAMES)} with an ending of {', '.join(sorted(ENDINGS))}"
NAMED = "id_gender_race_age"  # a person's folder
FOLDER_NAME = re.compile(r"(?P<id>[^_]+)_(?P<gender>male|female)_(?P<race>.+)_(?P<age>\d+)", re.IGNORECASE)
WHOLE_NUMBER = re.compile(r"-?[0-9]{1,9}(\.0*)?")
# What the names of one thing may differ in, once spreadsheets, archives and other systems have written them.
DIFFERENCES = {
    "Unicode form": lambda name: unicodedata.normalize("NFKC", name),
    "case": str.casefold,
    "blanks": lambda name: re.sub(r"[\s\u200b-\u200f\u2060\ufeff]+", "", name),
    "ending": lambda name: re.sub(r"(\.[a-zA-Z]\w{1,4})+$", "", name),
    "separators": lambda name: re.sub(r"[/\\_-]+", "", name),
    "leading zeros": lambda name: re.sub(r"(?<!\d)0+(?=\d)", "", name),
}


class Problem(enum.StrEnum):
    """Everything that can be odd about a data folder. Those marked `kept` leave the photos in the table."""

    UNSAFE_PATH = enum.auto()  # a name in a csv that leads out of the images folder; never opened
    DOUBLE_ROW = enum.auto()  # a path a second time in train.csv; the first row counts
    DOUBLE_ID = enum.auto()  # kept: an id on several people, who stay apart by their folders
    DOUBLE_IMAGE_ID = enum.auto()  # an ImageID a second time in info.csv; the first row counts
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
    MISSING_PHOTO = enum.auto()  # of the layout csv, as the next two
    UNLISTED_PHOTO = enum.auto()  # a file that the csv lacks
    GROUP_CONTRADICTS = enum.auto()  # kept: photos of one group differ in what is the same for all of it
    UNKNOWN_CLASS = enum.auto()  # of the layout folders: a folder named like no class, or a photo in none
    INCOMPLETE_LABEL = enum.auto()  # of external photos, as the next: neither a label nor every attribute
    LABEL_CONTRADICTS_ROW = enum.auto()  # a label that is not what the attributes beside it make
    SHARED_PICTURE = enum.auto()  # kept: one picture on people who cannot be one, as a placeholder is
    COPY_OF_OWN_PHOTO = enum.auto()  # a photo that the data folder holds, byte for byte


MISSING = {Problem.MISSING_FOLDER, Problem.MISSING_PHOTO, Problem.MISSING_EVAL_PHOTO}


class Finding(NamedTuple):
    """One row of the problem table."""

    path: str
    problem: str  # of `Problem`, or `bad_<attribute>`, `<attribute>_out_of_range`, of an external photo `bad_label`
    detail: str


def photo_columns() -> list[str]:
    """Columns of the photo table: path, person, the attributes in the order of `labels`, label, split."""
    return ["path", "person", *labels.names(), "label", "split"]


def photo_table(rows: Iterable[Sequence]) -> pd.DataFrame:
    """Rows in the order of `photo_columns` as a table: text, but Int64 for numeric attributes and the label."""
    table = pd.DataFrame(list(rows), columns=photo_columns(), dtype="object")
    numbers = [one.name for one in labels.attributes() if one.edges]
    return table.astype({name: "Int64" if name in [*numbers, "label"] else "str" for name in table})


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A csv as text, with these columns and others. Raises as `files.read_csv` does, and ValueError without rows."""
    table = files.read_csv(path, dict.fromkeys(columns, "str"))
    if table.empty:
        raise ValueError(f"{files.shown_path(path)} has no rows")
    return table


def scan_train(data_dir: Path) -> tuple[pd.DataFrame, list[Finding]]:
    """The photo table of train/ by its names alone, sorted by path, and what is odd there."""
    if other := [name for name in labels.names() if name not in ("mask", "gender", "age")]:
        raise ValueError(f"the layout competition tells mask, gender and age, not {', '.join(other)}: take another")
    folder = data_dir / "train"
    rows, images = read_table(folder / "train.csv", TRAIN_COLUMNS), folder / "images"
    findings = double_ids(rows)
    findings += strays(images, {PurePosixPath(path).parts[0] for path in rows["path"] if is_plain(path)})
    photo_rows, seen = [], set()
    for row in rows.to_dict("records"):
        problem = folder_problem(row["path"], images, seen)
        problems = [problem] if problem else []
        if not problem or problem[0] == Problem.MISSING_FOLDER:
            problems += read_values({"gender": row["gender"], "age": row["age"]})[2] + contradictions(row)
        findings += [Finding(row["path"], *problem) for problem in problems]
        if all(problem == Problem.FOLDER_CONTRADICTS_ROW for problem, _ in problems):
            names, odd = list_person(images, row["path"])
            read = [labeled_row(f"{row['path']}/{name}", row["path"], photo_values(row, name)) for name in names]
            photo_rows += [one for found, _ in read for one in found]
            findings += [*odd, *(one for _, wrong in read for one in wrong)]
    return photo_table(sorted(photo_rows)), hinted(findings, set(os.listdir(images)) - set(rows["path"]))


def labeled_row(path: str, person: str, told: Mapping[str, str]) -> tuple[list[list], list[Finding]]:
    """A train row in the order of `photo_columns` of what is told by attribute, or what is wrong with that."""
    cells, values, problems = read_values(told)
    if problems:
        return [], [Finding(path, *problem) for problem in problems]
    return [[path, person, *(cells[name] for name in labels.names()), labels.encode(**values), "train"]], []


def read_values(told: Mapping[str, str]) -> tuple[dict[str, str | int], dict[str, int], list[tuple[str, str]]]:
    """By attribute the cells of a photo table and the values of text that tells some; problems and their details."""
    cells, values, problems = {}, {}, []
    for one in labels.attributes():
        text = told.get(one.name, "").strip()
        cells[one.name] = whole_number(text) if one.edges else text.lower().replace(" ", "_")
        try:
            if one.name in told and cells[one.name] is None:
                raise ValueError(f"{one.name} {text!r} is not a whole number")
            if one.name in told:
                values[one.name] = one.value_of(cells[one.name])
        except ValueError as error:
            is_far = one.edges and cells[one.name] is not None
            problems.append((f"{one.name}_out_of_range" if is_far else f"bad_{one.name}", str(error)))
    return {name: cells[name] for name in values}, values, problems


def photo_values(row: dict[str, str], name: str) -> dict[str, str]:
    """What a row of `people_of` and the name of one of the person's photos say of it, by attribute."""
    return {"mask": PHOTO_NAMES[photo_name(name)], "gender": row["gender"], "age": row["age"]}


def people_of(folder: Path, images: Path) -> list[dict[str, str]]:
    """Folder name (`path`), gender and age of each person: from train.csv, else from folders named as `FOLDER_NAME`."""
    if (folder / "train.csv").is_file():
        table = read_table(folder / "train.csv", ["path"])
        return table.reindex(columns=["path", "gender", "age"], fill_value="").to_dict("records")
    # A name that is not UTF-8 is not printable, and no table could hold it.
    names = (name for name in sorted(os.listdir(images)) if name.isprintable() and (images / name).is_dir())
    found = map(FOLDER_NAME.fullmatch, names)
    return [{"path": match[0], "gender": match["gender"], "age": match["age"]} for match in found if match]


def folder_problem(name: str, images: Path, seen: set[str]) -> tuple[Problem, str] | None:
    """`name_problem` of a person's folder that train.csv names."""
    kinds = Problem.DOUBLE_ROW, Problem.MISSING_FOLDER
    return name_problem(name, seen, lambda one: (images / one).is_dir(), "train.csv", *kinds)


def name_problem(
    name: str, seen: set[str], is_there: Callable[[str], bool], table: str, double: Problem, missing: Problem
) -> tuple[Problem, str] | None:
    """Why what a table names cannot be read, or None; adds the name to `seen`, those of earlier rows."""
    if not is_plain(name):
        return Problem.UNSAFE_PATH, f"{table}: no plain name below the folder of photos; not opened"
    if name in seen:
        return double, f"{table}: this name again; the first row counts"
    seen.add(name)
    return None if is_there(name) else (missing, f"{table} names it, the folder of photos lacks it")


def is_plain(name: str) -> bool:
    """Whether a name from a csv stands for something inside the images folder, and says so plainly."""
    return bool(name) and not archives.leaves_folder(name) and PurePosixPath(name).as_posix() == name != "."


def alike(name: str, save_for: str = "") -> str:
    """What is left of a name without what `DIFFERENCES` lists, save for one of them."""
    for difference, without in DIFFERENCES.items():
        name = name if difference == save_for else without(name)
    return name


def by_likeness(names: Iterable[str]) -> dict[str, str]:
    """Names by what `alike` leaves of them."""
    return {alike(name): name for name in sorted(names)}


def near(name: str, others: Mapping[str, str]) -> str:
    """The end of a message on a missing name: the one of `by_likeness` that is meant, it seems; "" if none is."""
    if not (other := others.get(alike(name))):
        return ""
    differing = [one for one in DIFFERENCES if alike(name, one) != alike(other, one)]
    # The ending hides its case, the Unicode form an odd blank: then each alone makes the names equal.
    differing = differing or [one for one, without in DIFFERENCES.items() if without(name) == without(other)][:1]
    return f"; near is {other!r}, which differs in {' and '.join(differing)}"


def hinted(findings: Iterable[Finding], names: Iterable[str]) -> list[Finding]:
    """Findings, those of what is missing with the one of these `names` that is meant, it seems."""
    others = by_likeness(names)
    return [one._replace(detail=one.detail + near(one.path, others) * (one.problem in MISSING)) for one in findings]


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


def whole_number(text: str) -> int | None:
    """`45`, ` 45 ` and `45.0` as 45; None for anything that is not a whole number of at most 9 digits."""
    text = text.strip()
    return int(float(text)) if WHOLE_NUMBER.fullmatch(text) else None


def contradictions(row: dict[str, str]) -> list[tuple[Problem, str]]:
    """What a folder named `id_gender_race_age` says otherwise than its row; [] for any other name."""
    named = FOLDER_NAME.fullmatch(PurePosixPath(row["path"]).name)
    differing = [
        f"{field} {row[field]!r} in train.csv, {text!r} in the name"
        for field, text in (named.groupdict() if named else {}).items()
        if field in row and meaning(row[field]) != meaning(text)
    ]
    return [(Problem.FOLDER_CONTRADICTS_ROW, f"{'; '.join(differing)}; train.csv counts")] if differing else []


def meaning(text: str) -> str | int:
    """Text without differences of case and of writing a number: `004` and `4.0` both become 4."""
    number = whole_number(text)
    return text.strip().casefold() if number is None else number


def photo_name(file_name: str) -> str | None:
    """Which of the seven photos a file name stands for (`Mask1.JPG`: `mask1`), or None."""
    stem, ending = os.path.splitext(file_name.lower())
    return stem if stem in PHOTO_NAMES and ending in ENDINGS else None


def list_person(images: Path, folder: str) -> tuple[list[str], list[Finding]]:
    """The sorted names of a person's photos, and what else is in the folder or is not."""
    found, findings = defaultdict(list), []
    for name in sorted(os.listdir(images / folder)):
        if photo := photo_name(name):
            found[photo].append(name)
        else:
            findings.append(stray(f"{folder}/{name}", Problem.UNKNOWN_NAME, NOT_ONE))
    for photo, names in found.items():
        detail = f"{' and '.join(names)} both stand for {photo}; all are kept"
        findings += [Finding(f"{folder}/{name}", Problem.DOUBLED_PHOTO, detail) for name in names[1:]]
    missing = [photo for photo in PHOTO_NAMES if photo not in found]
    if missing:
        findings.append(Finding(folder, Problem.INCOMPLETE_PERSON, f"without {', '.join(missing)}"))
    return [name for names in found.values() for name in names], findings


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


def scan_eval(data_dir: Path) -> tuple[pd.DataFrame, list[Finding]]:
    """The photo table of the evaluation photos by their names alone, in info.csv's order, and what is odd there."""
    seen, rows, findings, present = set(), [], [], files_below(data_dir / labels.task().photos.eval)
    empty = [pd.NA if one.edges else "" for one in labels.attributes()]
    kinds = Problem.DOUBLE_IMAGE_ID, Problem.MISSING_EVAL_PHOTO
    for name in _asked(data_dir):
        if problem := name_problem(name, seen, present.__contains__, "info.csv", *kinds):
            findings.append(Finding(name, *problem))
        else:
            rows.append((name, "", *empty, pd.NA, "eval"))
    for name in sorted(present - seen):
        findings.append(stray(name, Problem.UNLISTED_EVAL_PHOTO, "no photo, or info.csv has no row for it; left out"))
    return photo_table(rows), hinted(findings, present - seen)


def files_below(folder: Path) -> set[str]:
    """The files of a folder and all below, by their paths in it.

    A linked folder is followed where its link lies in `folder` itself, and never to one that the link lies in.
    """
    root, found = os.path.realpath(folder), set()
    for at, folders, names in os.walk(root, followlinks=True):
        here, linked = os.path.realpath(at), {one for one in folders if os.path.islink(os.path.join(at, one))}
        around = {one for one in linked if f"{here}/".startswith(f"{os.path.realpath(os.path.join(at, one))}/")}
        folders[:] = set(folders) - (around if here == at else linked)
        found.update(os.path.relpath(os.path.join(at, name), root) for name in names)
    return found


def eval_ids(data_dir: files.AnyPath) -> list[str]:
    """Every ImageID of eval/info.csv in its order, once each, as a submission needs them, readable or not; without that
    file, which another layout may lack, all photos of the evaluation folder by their sorted paths.
    """
    return list(dict.fromkeys(_asked(files.project_path(data_dir))))


def _asked(data_dir: Path) -> list[str]:
    where = labels.task().photos
    if where.layout != "competition" and not (data_dir / where.info).is_file():
        return sorted(filter(is_photo_name, files_below(data_dir / where.eval)))
    return list(read_table(data_dir / where.info, ["ImageID"])["ImageID"])


def is_photo_name(path: str) -> bool:
    """Whether a file's path ends as a photo's does, and is no litter; what UTF-8 cannot hold no table can name."""
    plain = path.isprintable() and not any(map(archives.is_junk, path.split("/")))
    return plain and os.path.splitext(path.lower())[1] in ENDINGS
