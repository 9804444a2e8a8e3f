"""Evaluation photos that are copies of training photos take the training label: the second submission."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mask_lib.base import files, labels
from mask_lib.data import external, photos, splits
from mask_lib.ensemble import inference
from mask_lib.ensemble.members import check_submission

LEAK_COLUMNS = ["ImageID", "path", "label", "distance"]
OVERRIDE_COLUMNS = ["ImageID", "path", "predicted", "label", "distance", "applied", "why"]
NEAREST = "label of the nearest copy"
UNKNOWN = "no label of the training photo counts: cleaning dropped it"
CONFLICT = "copies equally near have different labels"


def read_leaks(output_dir: Path) -> pd.DataFrame:
    """Every confirmed copy, columns `LEAK_COLUMNS`, each pair once, with the smaller of ahash's and phash's distance.

    Empty where no leak was found or none was looked for. Raises as `files.read_csv` does.
    """
    tables = [pd.DataFrame(columns=LEAK_COLUMNS).astype({"ImageID": str, "path": str})]
    kinds = {"ImageID": "str", "path": "str", "label": "int64", "distance": "int64"}
    found = sorted((Path(output_dir) / "tables").glob("data_leak.*hash.csv"))
    tables += [files.read_csv(path, kinds)[LEAK_COLUMNS] for path in found]
    joined = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    return joined.sort_values("distance", kind="stable").drop_duplicates(["ImageID", "path"], ignore_index=True)


def training_labels(output_dir: Path) -> dict[str, int]:
    """The class of each training photo by its path, as cleaned, without dropped ones, and of external photos.

    Empty for packed results without training photos.
    """
    if (split := inference.todays_split(output_dir)) is None:
        return {}
    known = [split[["path", "label"]], external.read(output_dir)[["path", "label"]]]  # a fold may lack external ones
    table = pd.concat(known, ignore_index=True)
    return dict(zip(table["path"], table["label"].astype(int).tolist(), strict=True))


def both_sides(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The evaluation photos of a table of `apply_leaks`, and their originals: columns path, split, for galleries."""
    is_outside = splits.is_external(table["path"])
    original = table[["path"]].assign(split=np.where(is_outside, photos.EXTERNAL, "train"))
    return pd.DataFrame({"path": table["ImageID"], "split": "eval"}), original


def apply_leaks(
    submission: pd.DataFrame, leaks: pd.DataFrame, labels_of: Mapping[str, int]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The submission in which copies take the label of their original, and every decision about a copy.

    submission: `ImageID, ans`; leaks: `LEAK_COLUMNS`, of which `label` is not read, since it may be from before
    cleaning; labels_of: label by training path, without dropped photos. Of several originals the nearest decides;
    equally near ones with different labels decide nothing. The second table has `OVERRIDE_COLUMNS`, in the
    submission's order: one row an applied override, and rows that say why of those that were not; its `label` is
    Int64, empty for dropped photos. Raises ValueError for a leak of a photo that the submission does not answer.
    """
    predicted = submission.set_index("ImageID")["ans"]
    unknown = set(leaks["ImageID"]) - set(predicted.index)
    if unknown:
        raise ValueError(
            f"the leak tables name {len(unknown)} photos that the submission does not answer, such as "
            f"{sorted(unknown)[:3]}: run 00_prepare_data again"
        )
    found = leaks[["ImageID", "path", "distance"]].assign(label=leaks["path"].map(dict(labels_of)).astype("Int64"))
    decided = _decided(found).assign(predicted=lambda rows: rows["ImageID"].map(predicted).astype("int64"))
    table = decided.sort_values("ImageID", key=predicted.index.get_indexer, kind="stable", ignore_index=True)
    table = table[OVERRIDE_COLUMNS]
    taken = table[table["applied"]].set_index("ImageID")["label"]
    answers = submission["ImageID"].map(taken).fillna(submission["ans"]).astype("int64")
    return submission.assign(ans=answers), table


def _decided(found: pd.DataFrame) -> pd.DataFrame:
    """The rows that decide each evaluation photo, with the columns `applied` and `why`."""
    has_say = found["label"].notna()
    nearest = found["distance"].where(has_say).groupby(found["ImageID"]).transform("min")
    first = found[has_say & (found["distance"] == nearest)]
    is_conflict = first.groupby("ImageID")["label"].transform("nunique") > 1
    silent = found[~found["ImageID"].isin(first["ImageID"])]
    parts = [
        first[~is_conflict].drop_duplicates("ImageID").assign(applied=True, why=NEAREST),
        first[is_conflict].assign(applied=False, why=CONFLICT),
        silent.assign(applied=False, why=UNKNOWN),
    ]
    return pd.concat(parts).astype({"applied": bool})


def write_leak_submission(
    submission: pd.DataFrame, table: pd.DataFrame, output_dir: Path, ids: Sequence[str]
) -> list[Path]:
    """Write what `apply_leaks` gives to `submissions`: `submission.csv.leak.csv`, checked, and `overrides.csv`.

    Nothing for packed results without training photos.
    """
    if inference.is_alone(output_dir):
        return []
    check_submission(submission, ids)
    tables = {"submission.csv.leak.csv": submission, "overrides.csv": table}
    return [files.write_csv(one, Path(output_dir) / "submissions" / name) for name, one in tables.items()]


def leak_gallery_title(table: pd.DataFrame, shown: int) -> str:
    """A gallery's title: how many of the applied overrides it shows, and where those are that it leaves out."""
    applied = int(table["applied"].sum())
    if not applied:
        return "No answer is taken from a copy"
    if applied <= shown:
        return f"All {applied:,} answers taken from a copy"
    return f"{shown:,} of {applied:,} answers taken from a copy; overrides.csv lists the other {applied - shown:,} too"


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
