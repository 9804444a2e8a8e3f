"""External data: labeled photos from elsewhere, which join the training rows and nothing else.

A source is a CSV with `path`, with `label` or all attributes of `labels` or both, and perhaps `person`; in the layout
of the competition also a folder like its own: with train/train.csv, train.csv, or only folders as `FOLDER_NAME` has it.
"""

import difflib
import filecmp
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from mask_lib.base import files, labels
from mask_lib.data import layout, photos
from mask_lib.data.layout import Finding, Problem

PREFIX = "external:"  # before a person's name, so that none is taken for a person of the data folder
AGAIN = Problem.DOUBLE_ROW, "this photo again; the first row counts"
Raw = dict[str, str]  # path, person, the attributes and label as a source writes them, empty where it is silent


def scan(
    sources: Sequence[files.AnyPath], data_dir: files.AnyPath, photo_table: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every usable photo of the sources, and everything found wrong with them.

    The first table has `external_columns`: `path` absolute, `person` as `external:<source>/<person>`, the attributes
    as in the photo table, a number empty where only the label is given, `label` int64. The second has
    `photos.PROBLEM_COLUMNS`. Left out are photos whose label is not whole or that cannot be decoded, and those of the
    data folder, byte for byte: they might be validated. Raises FileNotFoundError for a missing source, ValueError for
    one that cannot be used or holds no usable photo.
    """
    own, seen = photos.files_of(data_dir, photo_table), set()
    tables, findings = [external_table([])], []
    for name, source in short_names(sources).items():
        raw, odd = read_source(source)
        read = [read_row(name, row) for row in raw]
        odd = odd + [finding for _, problems in read for finding in problems]
        rows = external_table([row for row, problems in read if not problems])
        real = rows["path"].map(os.path.realpath)  # by whatever link
        rows, odd = photos.without(rows, odd, [AGAIN if one else None for one in real.isin(seen) | real.duplicated()])
        seen |= set(real)
        rows, odd = photos.without(rows, odd, photos.check_photos([*map(Path, rows["path"])]))
        rows, odd = photos.without(rows, odd, own_copies(rows["path"], own))
        if rows.empty:
            raise ValueError(f"{source} holds no usable external photo {photos.summary(odd)}")
        tables.append(rows)
        findings += odd
    return pd.concat(tables, ignore_index=True), photos.problem_table(findings)


def external_columns() -> list[str]:
    """Columns of a table of external photos: those of the photo table without the split."""
    return layout.photo_columns()[:-1]


def external_table(rows: Sequence[Sequence]) -> pd.DataFrame:
    """Rows as a table with `external_columns` in the dtypes of the photo table, the label int64."""
    return layout.photo_table([(*row, photos.EXTERNAL) for row in rows]).astype({"label": "int64"})[external_columns()]


def short_names(sources: Sequence[files.AnyPath]) -> dict[str, Path]:
    """Each source's absolute path by a short name of its own."""
    found: dict[str, Path] = {}
    for path in map(files.project_path, sources):
        names = [path.stem, *(f"{path.stem}-{number}" for number in range(2, len(sources) + 1))]
        found[next(name for name in names if name not in found)] = path
    return found


def own_copies(paths: Sequence[str], own: Sequence[Path]) -> list[photos.Wrong | None]:
    """What is wrong with each file that has the bytes of a photo of the data folder (`own`)."""
    by_size, found = defaultdict(list), []  # only files of equal size need be compared
    for path in filter(Path.is_file, own):
        by_size[path.stat().st_size].append(path)
    for path in map(Path, paths):
        same_size = by_size[path.stat().st_size]
        copied = next((one for one in same_size if filecmp.cmp(path, one, shallow=False)), None)
        what = copied and f"the photo {copied.parent.name}/{copied.name} of the data folder"
        found.append(what and (Problem.COPY_OF_OWN_PHOTO, what))
    return found


def read_source(source: Path) -> tuple[list[Raw], list[Finding]]:
    """What a source says of each of its photos, unchecked, and what is odd about its files."""
    if source.is_file() and source.suffix.lower() == ".csv":
        return read_list(source), []
    if not source.exists():
        raise FileNotFoundError(f"no {source}: give a folder of labeled photos or a CSV with their paths")
    if not source.is_dir() or labels.task().photos.layout != "competition":
        what = "a folder, which only the layout competition reads: list its photos in a .csv"
        raise ValueError(f"{source} is {what if source.is_dir() else 'neither a folder nor a .csv'}")
    return read_folder(source / "train" if (source / "train" / "train.csv").is_file() else source)


def read_list(path: Path) -> list[Raw]:
    """The rows of a CSV with the column `path`, which counts from the CSV's folder unless it is absolute."""
    table = layout.read_table(path, ["path"])
    for column in set(table) - set(external_columns()):
        meant = difflib.get_close_matches(column.lower(), external_columns(), n=1, cutoff=0.75)
        if meant:
            raise ValueError(f"{path} has a column {column!r}: write {meant[0]!r} if that is meant, or rename it")
    if "label" not in table and not set(labels.names()) <= set(table):
        raise ValueError(f"{path} labels no photo: it needs the columns {', '.join(labels.names())}, or label")
    rows = table.reindex(columns=external_columns(), fill_value="").to_dict("records")
    for row in rows:
        row |= {"path": os.path.normpath(path.parent / row["path"]), "person": row["person"] or row["path"]}
    return rows


def read_folder(folder: Path) -> tuple[list[Raw], list[Finding]]:
    """The photos of people's folders, and what is odd about the files; that some of the seven are missing is not.

    Who the people are tells train.csv, else the names of their folders, as `layout.FOLDER_NAME` has it.
    """
    images = folder / "images" if (folder / "images").is_dir() else folder
    rows, odd, seen = [], [], set()
    for person in layout.people_of(folder, images):
        name = person["path"]
        if problem := layout.folder_problem(name, images, seen):
            odd.append(Finding(name, *problem))
            continue
        found, about = layout.list_person(images, name)
        own = {"person": name, "label": ""}
        rows += [layout.photo_values(person, photo) | own | {"path": str(images / name / photo)} for photo in found]
        odd += [finding for finding in about if finding.problem != Problem.INCOMPLETE_PERSON]
        odd += [Finding(name, *found) for found in layout.contradictions({k: v for k, v in person.items() if v})]
    why = f"neither in train.csv nor, where there is none, named {layout.NAMED}; left out"
    for stray in layout.strays(images, {PurePosixPath(name).parts[0] for name in seen} | {"train.csv"}):
        odd.append(stray._replace(detail=why) if stray.problem == Problem.UNKNOWN_FOLDER else stray)
    return rows, [finding._replace(path=photos.printable(str(images / finding.path))) for finding in odd]


def read_row(source_name: str, row: Raw) -> tuple[list, list[Finding]]:
    """A row's values for `external_columns`, and why it cannot be used, if so."""
    cells, values, problems = layout.read_values({name: text for name, text in row.items() if text.strip()})
    label, about_label = read_label(row["label"].strip(), values)
    problems += about_label if row["label"].strip() or not problems else []
    if problems:
        return [], [Finding(row["path"], *problem) for problem in problems]
    for one, value in zip(labels.attributes(), labels.decode(label), strict=True):
        cells.setdefault(one.name, pd.NA if one.edges else one.table_words[value])  # a label tells no number
    return [row["path"], f"{PREFIX}{source_name}/{row['person']}", *map(cells.get, labels.names()), label], []


def read_label(text: str, values: Mapping[str, int]) -> tuple[int | None, list[tuple[str, str]]]:
    """A row's label, from the attributes' `values` where none is written, and why there is none or a wrong one."""
    missing = [name for name in labels.names() if name not in values]
    if not text and missing:
        return None, [(Problem.INCOMPLETE_LABEL, f"without {', '.join(missing)}, and without a label")]
    number, most = layout.whole_number(text) if text else labels.encode(**values), labels.class_count() - 1
    if number is None or not 0 <= number <= most:
        return None, [("bad_label", f"label {text!r} is not a whole number of 0-{most}; leave it empty if unknown")]
    meant = labels.with_values(number, values)
    what = f"label {number} ({labels.describe(number)}) beside attributes that make {labels.describe(meant)}"
    return number, [(Problem.LABEL_CONTRADICTS_ROW, what)] if meant != number else []


def write(table: pd.DataFrame, output_dir: files.AnyPath) -> Path:
    """Write an experiment's external photos; an empty table where it uses none, in place of an earlier one."""
    return files.write_csv(table[external_columns()], Path(output_dir) / "tables" / "external.csv")


def read(output_dir: files.AnyPath) -> pd.DataFrame:
    """The external photos of an experiment as `scan` gave them, none if it has none."""
    path = Path(output_dir) / "tables" / "external.csv"
    if not path.exists():
        return external_table([])
    kinds = external_table([]).dtypes.astype("str").to_dict()
    return files.read_csv(path, kinds)[list(kinds)]


def as_photos(table: pd.DataFrame) -> pd.DataFrame:
    """External photos with the columns of a photo table, split `external`, as `photos.files_of` takes them."""
    return table.assign(split=photos.EXTERNAL).astype({"label": "Int64"})[layout.photo_columns()]


def with_external(labeled: pd.DataFrame, output_dir: files.AnyPath) -> pd.DataFrame:
    """`photos.read_labeled` with the experiment's external photos below, whose paths are absolute."""
    return pd.concat([labeled, read(output_dir).assign(split="train")[list(labeled)]], ignore_index=True)
