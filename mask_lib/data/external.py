"""Reading labeled photos from elsewhere: what a folder or a CSV says of each, as text, and what that means.

External data: labeled photos from elsewhere, which join the training rows and nothing else.

A source is a folder as the competition lays it out (with train/train.csv, or train.csv, or only
images/<id_gender_race_age>/), or a CSV with the column `path` and any of `mask, gender, age, label,
person`. An attribute may be unknown: the photo's label is then `PARTIAL`, for a loss that masks.
"""

import difflib
import filecmp
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from mask_lib.base import files, labels
from mask_lib.data import layout, photos
from mask_lib.data.layout import Finding, Problem

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
    return read_people_photos(people_of(folder, images), images)


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


def read_people_photos(people: list[Raw], images: Path) -> tuple[list[Raw], list[Finding]]:
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


EXTERNAL_COLUMNS = ["path", "person", "mask", "gender", "age", "label"]
PREFIX = "external:"  # before a person's name, so that none is taken for a person of the data folder


def scan(
    sources: Sequence[str | os.PathLike[str]],
    data_dir: str | os.PathLike[str],
    photo_table: pd.DataFrame,
    verify: bool = True,
    workers: int | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every usable photo of the sources, and everything found wrong with them.

    The first table has `EXTERNAL_COLUMNS`: `path` absolute, `person` as `external:<source>/<person>`,
    `mask` and `gender` as in the photo table and `age` in years (Int64), empty where unknown, `label`
    0-17 or -1 (int64). The second has `photos.PROBLEM_COLUMNS`. Photos that are in the photo table of
    `data_dir` as well, byte for byte, are left out, for one of them might be validated.
    With `verify` every photo is decoded, in `workers` threads. Raises FileNotFoundError for a missing
    source, ValueError for one that cannot be used or holds no usable photo.
    """
    own, seen = by_size(photos.files_of(data_dir, photo_table)), set()
    tables, findings = [table_of([])], []
    for name, source in names_of(sources).items():
        rows, odd = parsed(name, *read_source(source))
        rows, odd = sifted(rows, odd, repeated(rows["path"], seen))
        if verify:
            rows, odd = sifted(rows, odd, photos.check_photos(list(map(Path, rows["path"])), rows["path"], workers))
        rows, odd = sifted(rows, odd, own_copies(rows["path"], own))
        if rows.empty:
            counts = Counter(problem for _, problem, _ in odd)
            found = ", ".join(f"{problem}: {count}" for problem, count in counts.most_common())
            raise ValueError(f"{source} holds no usable external photo ({found or 'nothing that looks like one'})")
        tables.append(rows)
        findings += odd
    return pd.concat(tables, ignore_index=True), photos.problem_table(findings)


def names_of(sources: Sequence[str | os.PathLike[str]]) -> dict[str, Path]:
    """Each source's absolute path by a short name of its own."""
    found: dict[str, Path] = {}
    for path in map(files.project_path, sources):
        names = [path.stem, *(f"{path.stem}-{number}" for number in range(2, len(sources) + 1))]
        found[next(name for name in names if name not in found)] = path
    return found


def table_of(rows: Sequence[Sequence]) -> pd.DataFrame:
    """Rows as a table with `EXTERNAL_COLUMNS` in their dtypes."""
    kinds = {name: {"age": "Int64", "label": "int64"}.get(name, "str") for name in EXTERNAL_COLUMNS}
    return pd.DataFrame(list(rows), columns=EXTERNAL_COLUMNS, dtype="object").astype(kinds)


# Which rows may stay.


def parsed(name: str, rows: Iterable[Raw], findings: list[Finding]) -> tuple[pd.DataFrame, list[Finding]]:
    """The table of a source's rows, and the findings with those of rows that cannot be used."""
    found, odd = [], list(findings)
    for row in rows:
        values, problems = values_of({field: row[field].strip() for field in GIVEN})
        if "\0" in row["path"]:
            problems.append((Problem.UNSAFE_PATH, "a null byte in the path"))
        if problems:
            odd += [Finding(row["path"], *problem) for problem in problems]
        else:
            found.append([row["path"], f"{PREFIX}{name}/{row['person']}", *values])
    return table_of(found), odd


def sifted(
    rows: pd.DataFrame, findings: list[Finding], bad: Sequence[Finding | None]
) -> tuple[pd.DataFrame, list[Finding]]:
    """The rows without those that something is wrong with, and the findings with what that is."""
    is_sound = np.array([finding is None for finding in bad], dtype=bool)
    return rows[is_sound], findings + [finding for finding in bad if finding]


def repeated(paths: Iterable[str], seen: set[str]) -> list[Finding | None]:
    """A finding for each file that stands in `seen` already, by whatever link; the others are added to it."""
    found: list[Finding | None] = []
    for path in paths:
        real = os.path.realpath(path)
        found.append(
            Finding(path, Problem.DOUBLE_ROW, "this photo again; the first row counts") if real in seen else None
        )
        seen.add(real)
    return found


def by_size(paths: Iterable[Path]) -> dict[int, list[Path]]:
    """Files by their size in bytes, so that only those of equal size need be compared; missing ones are left out."""
    found: dict[int, list[Path]] = {}
    for path in paths:
        if path.is_file():
            found.setdefault(path.stat().st_size, []).append(path)
    return found


def own_copies(paths: Iterable[str], own: Mapping[int, Sequence[Path]]) -> list[Finding | None]:
    """A finding for each file that has the bytes of a photo of the data folder (`own`, from `by_size`)."""
    found: list[Finding | None] = []
    for path in map(Path, paths):
        same_size = own.get(path.stat().st_size, ()) if path.is_file() else ()
        copied = next((one for one in same_size if filecmp.cmp(path, one, shallow=False)), None)
        what = f"the photo {copied.parent.name}/{copied.name} of the data folder" if copied else ""
        found.append(Finding(str(path), Problem.COPY_OF_OWN_PHOTO, what) if copied else None)
    return found


# What later steps need.


def external_path(output_dir: str | os.PathLike[str]) -> Path:
    """Where an experiment's external photos are listed."""
    return Path(output_dir) / "tables" / "external.csv"


def write(table: pd.DataFrame, output_dir: str | os.PathLike[str]) -> Path:
    """Write an experiment's external photos; an empty table where it uses none, in place of an earlier one."""
    return files.write_csv(table[EXTERNAL_COLUMNS], external_path(output_dir))


def read(output_dir: str | os.PathLike[str]) -> pd.DataFrame:
    """The external photos of an experiment as `scan` gave them, none if it has none."""
    path = external_path(output_dir)
    if not path.exists():
        return table_of([])
    table = pd.read_csv(path, dtype="str", keep_default_na=False)[EXTERNAL_COLUMNS]
    return table_of(table.assign(age=pd.to_numeric(table["age"]).astype("Int64")).itertuples(index=False, name=None))


def as_photos(table: pd.DataFrame) -> pd.DataFrame:
    """External photos with the columns of a photo table, split `external`.

    `photos.files_of` finds their files, so that they can be shown, and compared with all others for copies.
    The label is empty where not every attribute is known.
    """
    label = table["label"].astype("Int64").mask(table["label"] == PARTIAL)
    return table.assign(split=photos.EXTERNAL, label=label)[layout.PHOTO_COLUMNS]


def with_external(labeled: pd.DataFrame, output_dir: str | os.PathLike[str]) -> pd.DataFrame:
    """`photos.read_labeled` with the experiment's external photos below, whose paths are absolute.

    This is what `dataset.open_photos` opens for training and for the check of its checkpoints.
    Photos of which not every attribute is known are in it, with the label -1.
    """
    return pd.concat([labeled, read(output_dir).assign(split="train")[list(labeled)]], ignore_index=True)


def attributes(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Per attribute (`mask`, `gender`, `age`: its group) the (N,) int64 numbers, -1 where unknown.

    table: with `EXTERNAL_COLUMNS`. What a loss masks by.
    """
    found = {name: np.full(len(table), PARTIAL) for name in labels.ATTRIBUTES}
    for name, kind in (("mask", labels.Mask), ("gender", labels.Gender)):
        found[name][:] = [labels.from_key(kind, word) if word else PARTIAL for word in table[name]]
    found["age"][:] = [PARTIAL if pd.isna(age) else labels.age_group(age) for age in table["age"]]
    is_whole = table["label"].to_numpy() != PARTIAL
    for name, numbers in labels.decode_all(table["label"].to_numpy()[is_whole]).items():
        found[name][is_whole] = numbers  # a label tells the age group where the years are unknown
    return found
