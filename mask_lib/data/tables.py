"""Labeled photos in other layouts than the competition's: a CSV with the labels, or folders named by class."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from mask_lib.base import labels
from mask_lib.base.checks import did_you_mean
from mask_lib.data import layout
from mask_lib.data.layout import Finding, Problem


def scan_train(data_dir: Path) -> tuple[pd.DataFrame, list[Finding]]:
    """The photo table of the labeled photos by their names alone, sorted by path, and what is odd there.

    As `labels.task().photos` says. A photo without a group is one of its own, named by its path. Raises ValueError for
    a CSV without the columns `path` and the attributes, or without rows.
    """
    where = labels.task().photos
    present = layout.files_below(data_dir / where.train) - {where.labels.removeprefix(f"{where.train}/")}
    if where.layout == "folders":
        rows, findings = in_folders(sorted(present))
    else:
        rows, findings = in_list(data_dir / where.labels, present)
    table = layout.photo_table(sorted(rows, key=lambda row: row[0]))
    return table, layout.hinted([*findings, *contradictory_groups(table)], present)


def in_list(path: Path, present: set[str]) -> tuple[list[list], list[Finding]]:
    """The usable rows of a CSV whose paths are `present`, in the order of `photo_columns`, and what is odd there."""
    table = layout.read_table(path, ["path", *labels.names()])
    rows, findings, seen = [], [], set()
    for row in table.to_dict("records"):
        problems = _odd_path(row["path"], path.name, present, seen)
        cells, values, wrong = read_values(row)
        missing = [name for name in labels.names() if name not in values]
        if missing and not wrong:
            wrong = [(Problem.INCOMPLETE_LABEL, f"without {', '.join(missing)}")]
        findings += [Finding(row["path"], *problem) for problem in problems or wrong]
        if not problems and not wrong:
            rows.append(photo_row(row["path"], row.get("group", "").strip(), cells, values))
    for name in sorted(present - seen):
        findings.append(layout.stray(name, Problem.UNLISTED_PHOTO, f"{path.name} has no row for this file; left out"))
    return rows, findings


def _odd_path(name: str, csv: str, present: set[str], seen: set[str]) -> list[tuple[Problem, str]]:
    """What is odd about a path in a CSV, if anything; adds it to `seen`, those of earlier rows."""
    again = name in seen
    seen.add(name)
    if not layout.is_plain(name):
        return [(Problem.UNSAFE_PATH, f"{csv}: no plain name below the folder of photos; not opened")]
    if again:
        return [(Problem.DOUBLE_ROW, f"{csv}: this path again; the first row counts")]
    return [] if name in present else [(Problem.MISSING_PHOTO, f"{csv} names this photo, its folder lacks it")]


def read_values(row: dict[str, str]) -> tuple[dict[str, Any], dict[str, int], list[tuple[str, str]]]:
    """Of the attributes that a row of text tells: cells of a photo table, values, and what is wrong, all by name."""
    cells, values, problems = {}, {}, []
    for one in labels.attributes():
        text = row.get(one.name, "").strip()
        number = layout.whole_number(text) if one.edges else None
        try:
            if text and one.edges and number is None:
                raise ValueError(f"{one.name} {text!r} is not a whole number")
            if text:
                cells[one.name] = number if one.edges else text.lower().replace(" ", "_")
                values[one.name] = one.value_of(cells[one.name])
        except ValueError as error:
            problems.append((f"bad_{one.name}" if number is None else f"{one.name}_out_of_range", str(error)))
    return cells, values, problems


def in_folders(present: Iterable[str]) -> tuple[list[list], list[Finding]]:
    """The photos in folders named by class, in the order of `photo_columns`, and what is odd about the others."""
    classes, rows, findings = labels.task().folder_names(), [], []
    for path in present:
        folder = path.split("/")[0] if "/" in path else ""
        name = folder.lower().replace(" ", "_")
        if name in classes and layout.is_photo_name(path):
            values = labels.values_of(classes.index(name))
            cells = {one.name: one.table_words[values[one.name]] for one in labels.attributes()}
            rows.append(photo_row(path, "", cells, values))
        elif name in classes or not layout.is_photo_name(path):
            findings.append(layout.stray(path, Problem.UNKNOWN_NAME, "no ending of a photo"))
        else:
            advice = did_you_mean(name, classes) or f"; there are {', '.join(classes[:9])}{' …' * (len(classes) > 9)}"
            what = f"the folder {folder!r} is no class" if folder else "in no class's folder"
            findings.append(Finding(path, Problem.UNKNOWN_CLASS, what + advice))
    return rows, findings


def photo_row(path: str, group: str, cells: dict[str, Any], values: dict[str, int]) -> list:
    """A row in the order of `photo_columns`."""
    return [path, group or path, *(cells[name] for name in labels.names()), labels.encode(**values), "train"]


def contradictory_groups(table: pd.DataFrame) -> list[Finding]:
    """A finding for each group whose photos differ in what is said to be the same for all of it."""
    findings = []
    for name in labels.names(of_person=True):
        several = table.groupby("person")[name].agg(lambda found: sorted(set(map(str, found))))
        for group, words in several[several.map(len) > 1].items():
            detail = f"{name} is {' and '.join(words)} on photos of this group; all are kept"
            findings.append(Finding(group, Problem.GROUP_CONTRADICTS, detail))
    return findings
