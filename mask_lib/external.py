"""External data: labeled photos from elsewhere, which join the training rows and nothing else.

A source is a folder as the competition lays it out (with train/train.csv, or train.csv, or only
images/<id_gender_race_age>/), or a CSV with the column `path` and any of `mask, gender, age, label,
person`. An attribute may be unknown: the photo's label is then `PARTIAL`, for a loss that masks.
"""

import filecmp
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mask_lib import files, labels, photos
from mask_lib.layout import Finding, Problem
from mask_lib.sources import GIVEN, PARTIAL, Raw, read_source, values_of

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
    return table.assign(split=photos.EXTERNAL, label=label)[photos.PHOTO_COLUMNS]


def with_external(labeled: pd.DataFrame, output_dir: str | os.PathLike[str]) -> pd.DataFrame:
    """`photos.labeled` with the experiment's external photos below, whose paths are absolute.

    This is what `inference.open_photos` opens for training and for the check of its checkpoints.
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
