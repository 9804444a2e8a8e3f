"""Labeled photos in other layouts than the competition's: a CSV with the labels, or folders named by class."""

from pathlib import Path

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
    scan = in_folders(present) if where.layout == "folders" else in_list(data_dir / where.labels, present)
    table = layout.photo_table(sorted((row for rows, _ in scan for row in rows), key=lambda row: row[0]))
    findings = [finding for _, found in scan for finding in found]
    return table, layout.hinted(findings + contradictory_groups(table), present)


def in_list(path: Path, present: set[str]) -> list[tuple[list[list], list[Finding]]]:
    """The rows of a CSV, of paths that are `present`, and of files it lacks: as `labeled_row` gives them."""
    scanned, seen, kinds = [], set(), (Problem.DOUBLE_ROW, Problem.MISSING_PHOTO)
    for row in layout.read_table(path, ["path", *labels.names()]).to_dict("records"):
        name = row["path"]
        problem = layout.name_problem(name, seen, present.__contains__, path.name, *kinds)
        group = row.get("group", "").strip() or name
        scanned.append(([], [Finding(name, *problem)]) if problem else layout.labeled_row(name, group, row))
    why = f"{path.name} has no row for this file; left out"
    return [*scanned, ([], [layout.stray(name, Problem.UNLISTED_PHOTO, why) for name in sorted(present - seen)])]


def in_folders(present: set[str]) -> list[tuple[list[list], list[Finding]]]:
    """The same of the files in folders named by class."""
    classes, scanned = labels.task().folder_names(), []
    for path in sorted(present):
        folder = path.split("/")[0] if "/" in path else ""
        name, is_photo = folder.lower().replace(" ", "_"), layout.is_photo_name(path)
        if name in classes and is_photo:
            told = zip(labels.attributes(), labels.decode(classes.index(name)), strict=True)
            scanned.append(layout.labeled_row(path, path, {one.name: one.words[value] for one, value in told}))
            continue
        advice = did_you_mean(name, classes) or f"; there are {', '.join(classes[:9])}{' …' * (len(classes) > 9)}"
        what = f"the folder {folder!r} is no class" if folder else "in no class's folder"
        odd = Finding(path, Problem.UNKNOWN_CLASS, what + advice)
        scanned.append(([], [odd if is_photo else layout.stray(path, Problem.UNKNOWN_NAME, "no ending of a photo")]))
    return scanned


def contradictory_groups(table: pd.DataFrame) -> list[Finding]:
    """A finding for each group whose photos differ in what is said to be the same for all of it."""
    findings = []
    for name in labels.names(of_person=True):
        told = table.groupby("person")[name].agg(lambda found: sorted(set(map(str, found))))
        for group, words in told[told.map(len) > 1].items():
            detail = f"{name} is {' and '.join(words)} on photos of this group; all are kept"
            findings.append(Finding(group, Problem.GROUP_CONTRADICTS, detail))
    return findings
