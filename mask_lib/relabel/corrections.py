"""The decisions of all annotators: where they agree, which hold for the photos at hand, and the labels they lead to."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mask_lib.base import files, labels
from mask_lib.data import photos
from mask_lib.relabel.current_decisions import CurrentDecisions, Decision
from mask_lib.relabel.decision_log import CHOICES, DecisionLog, log_path

PATCH_COLUMNS = ["path", "field", "old", "new", "reason", "annotator", "time", "sha256"]
PATCHED = ("flag", "label", "mark", "verdict")  # fields that a patch holds; skipping is one's own business
NOT_APPLIED_COLUMNS = ["path", "field", "new", "annotator", "problem"]
Opinion = int | str  # a class, "drop", or "right"


def read_logs(output_dir: Path) -> dict[str, DecisionLog]:
    """Every annotator's log of an experiment, by annotator; none if nobody has decided anything yet."""
    names = sorted(log_path(output_dir, "x").parent.glob("decisions.*.jsonl"))
    return {name: DecisionLog(log_path(output_dir, name), name) for name in (path.name.split(".")[1] for path in names)}


def applicable(
    photo_table: pd.DataFrame, decisions: Iterable[Decision], data_dir: Path
) -> tuple[dict[str, dict[str, Any]], pd.DataFrame]:
    """The state (path -> field -> value) that decisions lead to, and, as `NOT_APPLIED_COLUMNS`, those that do not hold.

    photo_table: columns `path, split`. Decisions hold about photos that are in it, are there, and have not changed.
    """
    known = photo_table[photo_table["split"] == "train"]
    files_of = dict(zip(known["path"], photos.files_of(data_dir, known), strict=True))
    made = [last for _, last in CurrentDecisions(decisions).first_and_last() if last["new"] is not None]
    there = {last["path"] for last in made if last["path"] in files_of and files_of[last["path"]].is_file()}
    digests = {path: files.file_digest(files_of[path]) for path in there}
    state: dict[str, dict[str, Any]] = {}
    refused = []
    for last in made:
        path, field = last["path"], last["field"]
        if path not in files_of:
            problem = "no such photo in the table"
        elif path not in digests:
            problem = "the photo is gone"
        elif last["sha256"] and last["sha256"] != digests[path]:
            problem = "the photo has changed since it was decided on"
        else:
            state.setdefault(path, {})[field] = last["new"]
            continue
        refused.append([path, field, str(last["new"]), last["annotator"], problem])
    return state, pd.DataFrame(refused, columns=NOT_APPLIED_COLUMNS)


def clean_tables(
    photo_table: pd.DataFrame, state: Mapping[str, Mapping[str, Any]], data_dir: Path
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What training reads and what was dropped: absolute `path` and int64 `class`, of a dropped photo the given one.

    photo_table: columns `path, label, split`; state: path -> field -> value, from `applicable`.
    """
    train = photo_table[photo_table["split"] == "train"].reset_index(drop=True)
    decided = [state.get(path, {}) for path in train["path"]]
    is_dropped = pd.Series([values.get("verdict") == "drop" for values in decided], dtype=bool)
    new = pd.Series([values.get("label") for values in decided], dtype="float64").mask(is_dropped)
    table = pd.DataFrame({"path": list(map(str, photos.files_of(data_dir, train)))})
    table["class"] = new.fillna(train["label"].astype("float64")).astype("int64")
    return table[~is_dropped].reset_index(drop=True), table[is_dropped].reset_index(drop=True)


def opinions_by_photo(logs: Mapping[str, DecisionLog]) -> dict[str, dict[str, tuple[Opinion, Decision]]]:
    """Per photo, sorted, each annotator's last opinion, "drop", "right" or a class, and the decision that says so.

    Marking a photo wrong is no opinion yet: it does not say what would be right.
    """
    found: dict[str, dict[str, tuple[Opinion, Decision]]] = {}
    for annotator, log in sorted(logs.items()):
        for first, last in log.current.first_and_last():
            field, opinion, held = last["field"], last["new"], found.setdefault(last["path"], {})
            if field == "label" and opinion == first["old"]:
                opinion = "right"
            says_it = field == "label" or (field, opinion) in (("verdict", "drop"), ("mark", "right"))
            if says_it and (annotator not in held or last["time"] >= held[annotator][1]["time"]):
                held[annotator] = (opinion, last)
    return {path: held for path, held in sorted(found.items()) if held}


def agreed(held: Mapping[str, tuple[Opinion, Decision]]) -> Opinion | None:
    """The opinion that more than half of the annotators who have one share; None if there is none."""
    [(opinion, votes)] = Counter(opinion for opinion, _ in held.values()).most_common(1)
    return opinion if 2 * votes > len(held) else None


def disagreements(logs: Mapping[str, DecisionLog]) -> pd.DataFrame:
    """Photos about which annotators differ, columns `path, opinions, settled`, sorted by path.

    `opinions` names who thinks what; `settled` is the opinion of more than half of them, empty if there is none.
    """
    rows = []
    for path, held in opinions_by_photo(logs).items():
        if len({opinion for opinion, _ in held.values()}) > 1:
            said = "; ".join(f"{annotator}: {opinion}" for annotator, (opinion, _) in held.items())
            rows.append([path, said, value_text(agreed(held))])
    return pd.DataFrame(rows, columns=["path", "opinions", "settled"], dtype="str")


def merged(logs: Mapping[str, DecisionLog]) -> list[Decision]:
    """The decisions of all annotators that count: where they differ without a majority, none does."""
    if len(logs) == 1:
        return list(next(iter(logs.values())).decisions)
    counting = []
    for held in opinions_by_photo(logs).values():
        settled = agreed(held)
        counting += [made for opinion, made in held.values() if opinion == settled][:1]
    return counting


def patch_of(decisions: Iterable[Decision]) -> pd.DataFrame:
    """What decisions change in the end, one row a photo and field, columns `PATCH_COLUMNS`, sorted by path.

    `old` is the value before the first of them and `new` the one after the last, as text, empty for null. What leads
    back to where it began is not in it. Written with `files.write_csv` it goes to `import_patch` elsewhere.
    """
    rows = [
        {**last, "old": value_text(first["old"]), "new": value_text(last["new"])}
        for first, last in CurrentDecisions(decisions).first_and_last()
        if last["field"] in PATCHED and last["new"] != first["old"]
    ]
    return pd.DataFrame(rows, columns=PATCH_COLUMNS, dtype="object").fillna("").astype("str")


def value_text(value: Any) -> str:
    """A decision's value as a table writes it."""
    return "" if value is None else str(value).lower()


def import_patch(path: Path, log: DecisionLog, photo_table: pd.DataFrame) -> list[Decision]:
    """Append what a patch changes to a log, as one action, and give it back; what is so already is left out.

    photo_table: columns `path, label`. The hashes come along: `applicable` still tells if a photo is another one here.
    Raises ValueError for missing columns, meaningless values and photos that are not in the table, and writes nothing.
    """
    table = pd.read_csv(path, dtype="str", keep_default_na=False)
    if missing := [name for name in PATCH_COLUMNS if name not in table]:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}")
    given = photo_table.set_index("path")["label"]
    if unknown := sorted(set(table["path"]) - set(given.index)):
        raise ValueError(f"{path} names {len(unknown)} photos that are not in the table, such as {unknown[:3]}")
    changes, values = [], CHOICES | {"label": range(labels.class_count())}
    for row in table.to_dict("records"):
        name, field = row["path"], row["field"]
        meant = [value for value in values.get(field, ()) if value_text(value) == row["new"]]
        if not meant:
            raise ValueError(f"{path}, {name}: {row['new']!r} is no {field}")
        decided = log.current.value(name, field)
        old = int(given[name]) if field == "label" and decided is None else decided
        if old != meant[0]:
            reason = f"from {row['annotator']}: {row['reason']}" if row["annotator"] else row["reason"]
            made = {"old": old, "new": meant[0], "reason": reason, "sha256": row["sha256"] or None}
            changes.append({"path": name, "field": field, **made})
    return log.append(changes, kind="import")
