"""Evaluation photos that are copies of training photos take the training label: the second submission."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from mask_lib.base import files, labels
from mask_lib.data import external, photos, splits
from mask_lib.data.duplicates import LEAK_COLUMNS
from mask_lib.ensemble import inference

OVERRIDE_COLUMNS = ["ImageID", "path", "predicted", "label", "distance", "applied", "why"]
NEAREST = "label of the nearest copy"
UNKNOWN = "no label of the training photo counts: cleaning dropped it"
CONFLICT = "copies equally near have different labels"


def read_leaks(output_dir: Path) -> pd.DataFrame:
    """Every confirmed copy once, `LEAK_COLUMNS`, at the smaller of ahash's and phash's distance; empty without any."""
    kinds = {"ImageID": "str", "path": "str", "label": "int64", "distance": "int64"}
    tables = [files.read_csv(path, kinds) for path in sorted((Path(output_dir) / "tables").glob("data_leak.*hash.csv"))]
    joined = pd.concat([pd.DataFrame(columns=LEAK_COLUMNS).astype(kinds), *tables], join="inner")
    return joined.sort_values("distance", kind="stable").drop_duplicates(["ImageID", "path"], ignore_index=True)


def training_labels(output_dir: Path) -> dict[str, int]:
    """By path the cleaned class of each training and external photo not dropped; none if `inference.is_alone`."""
    if (split := inference.todays_split(output_dir)) is None:
        return {}
    known = split, external.read(output_dir)  # a fold may lack external ones
    return pd.concat([one.set_index("path")["label"] for one in known]).astype(int).to_dict()


def both_sides(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The evaluation photos of a table of `apply_leaks`, and their originals: columns path, split, for galleries."""
    original = table[["path"]].assign(split=np.where(splits.is_external(table["path"]), photos.EXTERNAL, "train"))
    return pd.DataFrame({"path": table["ImageID"], "split": "eval"}), original


def apply_leaks(
    submission: pd.DataFrame, leaks: pd.DataFrame, labels_of: Mapping[str, int]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The submission in which copies take the label of their original, and every decision about a copy.

    submission: `ImageID, ans`; leaks: `LEAK_COLUMNS`, but their `label`, which may be from before cleaning; labels_of:
    label by training path, without dropped photos. Of several originals the nearest decides; equally near ones with
    different labels decide nothing. The second table has `OVERRIDE_COLUMNS` in the submission's order; its `label` is
    Int64, empty for dropped photos. Raises ValueError for a leak of a photo that the submission does not answer.
    """
    if unknown := set(leaks["ImageID"]) - set(submission["ImageID"]):
        named = f"{len(unknown)} photos that the submission does not answer, such as {sorted(unknown)[:3]}"
        raise ValueError(f"the leak tables name {named}: run 00_prepare_data again")
    found = leaks[["ImageID", "path", "distance"]].assign(label=leaks["path"].map(dict(labels_of)).astype("Int64"))
    found = submission.rename(columns={"ans": "predicted"}).merge(found, on="ImageID")
    distance = found["distance"].where(found["label"].notna())  # without a label a copy has no say
    nearest = distance.groupby(found["ImageID"]).transform("min")
    first = found[(distance == nearest) | nearest.isna()]
    answers = first.groupby("ImageID")["label"].transform("nunique")
    why = np.select([answers == 0, answers == 1], [UNKNOWN, NEAREST], CONFLICT)
    decided = first.assign(applied=answers == 1, why=why)[(answers != 1) | ~first["ImageID"].duplicated()]
    table = decided[OVERRIDE_COLUMNS].reset_index(drop=True)
    taken = table[table["applied"]].set_index("ImageID")["label"]
    answers = submission["ImageID"].map(taken).fillna(submission["ans"]).astype("int64")
    return submission.assign(ans=answers), table


def write_leak_submission(submission: pd.DataFrame, table: pd.DataFrame, output_dir: Path) -> list[Path]:
    """Write what `apply_leaks` gives; no file if `inference.is_alone`."""
    if inference.is_alone(output_dir):
        return []
    tables = {"submission.csv.leak.csv": submission, "overrides.csv": table}
    return [files.write_csv(one, Path(output_dir) / "submissions" / name) for name, one in tables.items()]


def leak_gallery_title(table: pd.DataFrame, shown: int) -> str:
    """A gallery's title: how many of the applied overrides it shows, and where all of them are."""
    return f"{shown:,} of {table['applied'].sum():,} answers taken from a copy; overrides.csv lists all"


def leak_captions(table: pd.DataFrame) -> list[str]:
    """For each row of the table that `apply_leaks` gives, what was predicted and what the original's label says."""
    pairs = zip(table["predicted"], table["label"], strict=True)
    return [f"predicted {labels.describe(old)}\nlabeled {labels.describe(new)}" for old, new in pairs]


def leak_summary(table: pd.DataFrame, output_dir: Path | None = None) -> str:
    """What was overridden, in a sentence or two, from the table that `apply_leaks` gives."""
    if output_dir and inference.is_alone(output_dir):
        return "Nobody looked for copies of training photos, which are not here, so there is no second submission."
    if table.empty:
        return "No evaluation photo is known to be a copy of a training photo."
    applied = table[table["applied"]]
    changed = int((applied["label"] != applied["predicted"]).sum())
    left = table[~table["applied"]].groupby("why")["ImageID"].nunique()
    rest = "".join(f" Left as predicted because {why}: {count:,}." for why, count in left.items())
    return (
        f"Evaluation photos that are copies of training photos and take their label: {len(applied):,}, "
        f"which changes {changed:,} of the answers.{rest}"
    )
