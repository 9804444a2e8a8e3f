"""Decisions as a patch: from several annotators to one table of corrections, applied to a photo table."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mask_lib.base import files, labels
from mask_lib.data import photos
from mask_lib.relabel.decision_log import MEANINGS, CurrentDecisions, Decision, DecisionLog, log_path, means

PATCH_COLUMNS = ["path", "field", "old", "new", "reason", "annotator", "time", "sha256"]
PATCHED = ("flag", "label", "mark", "verdict")  # fields that a patch holds; skipping is one's own business
NOT_APPLIED_COLUMNS = ["path", "field", "new", "annotator", "problem"]
DISAGREEMENT_COLUMNS = ["path", "opinions", "settled", "how"]
SETTLES = "settles"  # a decision with this reason ends a disagreement
Opinion = int | str  # a class 0-17, "drop", or "right"


def read_logs(output_dir: str | os.PathLike[str]) -> dict[str, DecisionLog]:
    """Every annotator's log of an experiment, by annotator; none if nobody has decided anything yet."""
    names = sorted(log_path(output_dir, "x").parent.glob("decisions.*.jsonl"))
    annotators = [name.name.split(".")[1] for name in names]
    return {annotator: DecisionLog(log_path(output_dir, annotator), annotator) for annotator in annotators}


# Applying.


def apply(
    photo_table: pd.DataFrame, decisions: Iterable[Decision], data_dir: str | os.PathLike[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The photo table with corrected labels and without dropped photos, and what could not be applied.

    `mask` and `gender` follow the label; `age` stays what the data set says, since a class holds no
    years. The second table has `NOT_APPLIED_COLUMNS`: decisions about photos that are not in the
    table, are gone, or whose bytes are no longer those that were decided on.
    """
    state, not_applied = applicable(photo_table, decisions, data_dir)
    return corrected(photo_table, state), not_applied


def applicable(
    photo_table: pd.DataFrame, decisions: Iterable[Decision], data_dir: str | os.PathLike[str]
) -> tuple[dict[str, dict[str, Any]], pd.DataFrame]:
    """The state (path -> field -> value) that decisions lead to where they hold, and what does not hold."""
    known = photo_table[photo_table["split"] == "train"]
    file_of = dict(zip(known["path"], photos.files_of(data_dir, known), strict=True))
    state: dict[str, dict[str, Any]] = {}
    digests: dict[str, str | None] = {}
    refused = []
    for _, last in CurrentDecisions(decisions).first_and_last():
        path = last["path"]
        if path not in digests:
            digests[path] = digest_if_there(file_of.get(path))
        problem = None if last["new"] is None else problem_of(last, path in file_of, digests[path])
        if problem:
            refused.append([path, last["field"], str(last["new"]), last["annotator"], problem])
        elif last["new"] is not None:
            state.setdefault(path, {})[last["field"]] = last["new"]
    return state, pd.DataFrame(refused, columns=NOT_APPLIED_COLUMNS)


def digest_if_there(path: Path | None) -> str | None:
    """SHA-256 of a file, None if there is no such file."""
    return files.file_digest(path) if path is not None and path.is_file() else None


def problem_of(decision: Decision, is_known: bool, digest: str | None) -> str | None:
    """Why a decision may not be applied to the file at hand, or None."""
    if not is_known:
        return "no such photo in the table"
    if digest is None:
        return "the photo is gone"
    if decision["sha256"] and decision["sha256"] != digest:
        return "the photo has changed since it was decided on"
    return None


def corrected(photo_table: pd.DataFrame, state: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The photo table with the labels of a state and without the photos that it drops; eval rows as they are."""
    is_dropped = photo_table["path"].map(lambda path: state.get(path, {}).get("verdict") == "drop")
    kept = photo_table[~is_dropped.astype(bool) | (photo_table["split"] != "train")].reset_index(drop=True)
    new = kept["path"].map(lambda path: state.get(path, {}).get("label")).where(kept["split"] == "train").dropna()
    parts = [labels.decode(label) for label in new.astype("int64")]
    kept.loc[new.index, "label"] = new.astype("int64")
    kept.loc[new.index, "mask"] = [labels.key_of(mask) for mask, _, _ in parts]
    kept.loc[new.index, "gender"] = [labels.key_of(gender) for _, gender, _ in parts]
    return kept


def clean_tables(
    photo_table: pd.DataFrame, state: Mapping[str, Mapping[str, Any]], data_dir: str | os.PathLike[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What training reads and what was dropped: absolute `path` and `class` (0-17) of each train photo.

    state: path -> field -> value, from `applicable` or `merged`. A dropped photo has its given class.
    """
    train = photo_table[photo_table["split"] == "train"]
    kept = corrected(train, state)
    parts = (kept, train[~train["path"].isin(kept["path"])])
    kept_table, dropped = (
        pd.DataFrame({"path": [str(path) for path in photos.files_of(data_dir, part)], "class": part["label"]})
        for part in parts
    )
    return kept_table.astype({"class": "int64"}), dropped.astype({"class": "int64"})


# Several annotators.


def opinions(decisions: Iterable[Decision]) -> dict[str, tuple[Opinion, Decision]]:
    """What one annotator thinks of each photo: "drop", "right" or a class; and the decision that says so.

    The last word counts, whichever field it is on. Marking a photo wrong is no opinion yet: it does
    not say what would be right.
    """
    last: dict[str, tuple[Opinion, Decision]] = {}
    for first, made in CurrentDecisions(decisions).first_and_last():
        opinion = opinion_of(first, made)
        if opinion is not None and (made["path"] not in last or made["time"] >= last[made["path"]][1]["time"]):
            last[made["path"]] = (opinion, made)
    return last


def opinion_of(first: Decision, last: Decision) -> Opinion | None:
    """What the first and last standing decision on a field say about the photo's label, None if nothing."""
    if last["field"] == "label":
        return "right" if last["new"] == first["old"] else last["new"]
    if last["field"] == "verdict" and last["new"] == "drop":
        return "drop"
    return "right" if last["field"] == "mark" and last["new"] == "right" else None


def disagreements(logs: Mapping[str, DecisionLog]) -> pd.DataFrame:
    """Photos about which annotators differ, columns `path, opinions, settled, how`, sorted by path.

    `opinions` names who thinks what; `settled` is "drop", "right" or the class that counts, empty
    where nothing counts yet; `how`: "majority" (over half of the opinions agree), "decision" (a
    later one with the reason "settles"), or "".
    """
    rows = []
    for path, held in opinions_by_photo(logs).items():
        if len({opinion for opinion, _ in held.values()}) > 1:
            settled, how = settlement(held)
            words = "; ".join(f"{annotator}: {opinion}" for annotator, (opinion, _) in held.items())
            rows.append([path, words, "" if settled is None else str(settled), how])
    return pd.DataFrame(rows, columns=DISAGREEMENT_COLUMNS, dtype="str")


def opinions_by_photo(logs: Mapping[str, DecisionLog]) -> dict[str, dict[str, tuple[Opinion, Decision]]]:
    """Per photo, sorted, each annotator's opinion."""
    found: dict[str, dict[str, tuple[Opinion, Decision]]] = {}
    for annotator, log in sorted(logs.items()):
        for path, held in opinions(log.decisions).items():
            found.setdefault(path, {})[annotator] = held
    return dict(sorted(found.items()))


def settlement(held: Mapping[str, tuple[Opinion, Decision]]) -> tuple[Opinion | None, str]:
    """The opinion that counts among several, and why; None while nothing does."""
    latest_opinion, latest = max(held.values(), key=lambda one: one[1]["time"])
    if SETTLES in latest["reason"].split():
        return latest_opinion, "decision"
    (opinion, votes), *_ = Counter(opinion for opinion, _ in held.values()).most_common(1)
    return (opinion, "majority") if 2 * votes > len(held) else (None, "")


def settle(log: DecisionLog, path: str, opinion: Opinion, label: int, sha256: str | None = None) -> list[Decision]:
    """End a disagreement about a photo by a decision in `log`: a class 0-17, "drop", or "right".

    label: the photo's class as the data set gives it. Raises ValueError for another opinion.
    """
    standing = CurrentDecisions(log.decisions)
    field, new = ("label", label if opinion == "right" else opinion) if opinion != "drop" else ("verdict", "drop")
    decided = standing.value(path, field)
    old = label if field == "label" and decided is None else decided
    return log.append([{"path": path, "field": field, "old": old, "new": new, "reason": SETTLES, "sha256": sha256}])


def merged(logs: Mapping[str, DecisionLog]) -> list[Decision]:
    """The decisions of all annotators that count: where they differ and nothing is settled, none does."""
    if len(logs) == 1:
        return list(next(iter(logs.values())).decisions)
    counting = []
    for held in opinions_by_photo(logs).values():
        is_disputed = len({opinion for opinion, _ in held.values()}) > 1
        settled = settlement(held)[0] if is_disputed else next(iter(held.values()))[0]
        counting += [made for opinion, made in held.values() if opinion == settled][:1]
    return counting


# As a file.


def patch_of(decisions: Iterable[Decision]) -> pd.DataFrame:
    """What decisions change in the end, one row a photo and field, columns `PATCH_COLUMNS`, sorted by path.

    `old` is the value before the first of them and `new` the one after the last, as text, empty for
    null. What was undone, or leads back to where it began, is not in it.
    """
    rows = [
        {**last, "old": first["old"]}
        for first, last in CurrentDecisions(decisions).first_and_last()
        if last["field"] in PATCHED and last["new"] != first["old"]
    ]
    table = pd.DataFrame(rows, columns=PATCH_COLUMNS, dtype="object")
    return table.assign(**{side: table[side].map(text_of) for side in ("old", "new")}).fillna("").astype("str")


def text_of(value: Any) -> str:
    """A decision's value as a patch writes it."""
    return "" if value is None else str(value).lower()


def value_of(field: str, text: str) -> Any:
    """The value of a field that a patch's text stands for. Raises ValueError for another text."""
    found = [value for value in MEANINGS.get(field, ()) if text_of(value) == text]
    if not found:
        raise ValueError(f"{text!r} is no {field}")
    return found[0]


def export_patch(decisions: Iterable[Decision], path: str | os.PathLike[str]) -> Path:
    """Write `patch_of` decisions as CSV, whole or not at all."""
    return files.write_csv(patch_of(decisions), path)


def read_patch(path: str | os.PathLike[str]) -> pd.DataFrame:
    """A patch from its CSV. Raises ValueError that names the file and what is wrong."""
    table = pd.read_csv(path, dtype="str", keep_default_na=False)
    missing = [name for name in PATCH_COLUMNS if name not in table]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}")
    twice = table[table.duplicated(["path", "field"])]
    if len(twice):
        raise ValueError(f"{path} decides twice about {twice['path'].iloc[0]!r}")
    return table[PATCH_COLUMNS]


def import_patch(path: str | os.PathLike[str], log: DecisionLog, photo_table: pd.DataFrame) -> list[Decision]:
    """Append what a patch changes to a log, as one stroke, and give it back; what stands already is left out.

    The photos' hashes come along, so that `apply` still tells if a photo is another one here. Raises
    ValueError that names the row for a value that means nothing and for photos that are not in the
    table; nothing is written then.
    """
    table, standing = read_patch(path), CurrentDecisions(log.decisions)
    given = photo_table.set_index("path")["label"]
    unknown = sorted(set(table["path"]) - set(given.index))
    if unknown:
        raise ValueError(f"{path} names {len(unknown)} photos that are not in the table, such as {unknown[:3]}")
    changes = []
    for row in table.to_dict("records"):
        try:
            new = value_of(row["field"], row["new"])
        except ValueError as error:
            raise ValueError(f"{path}, {row['path']}: {error}") from error
        field, stands = row["field"], standing.value(row["path"], row["field"])
        old = int(given[row["path"]]) if field == "label" and stands is None else stands
        reason = f"from {row['annotator']}: {row['reason']}" if row["annotator"] else row["reason"]
        if old != new and means(field, old):
            made = {"path": row["path"], "field": field, "old": old, "new": new, "reason": reason}
            changes.append(made | {"sha256": row["sha256"] or None})
    return log.append(changes, kind="import")


def diff(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Where two patches differ, columns `path, field, first, second`: the new values, empty where one says nothing."""
    keys = ["path", "field"]
    both = first[[*keys, "new"]].merge(second[[*keys, "new"]], on=keys, how="outer", suffixes=("_1", "_2")).fillna("")
    different = both[both["new_1"] != both["new_2"]]
    return different.rename(columns={"new_1": "first", "new_2": "second"}).sort_values(keys, ignore_index=True)
