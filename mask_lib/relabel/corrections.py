"""The decisions of all annotators: where they agree, which hold for the photos at hand, and the labels they lead to."""

import functools
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mask_lib.base import files, labels
from mask_lib.data import photos
from mask_lib.relabel.decision_log import CHOICES, LOG_NAME, CurrentDecisions, Decision, DecisionLog, log_path, parsed

PATCH_COLUMNS = ["path", "field", "old", "new", "reason", "annotator", "time", "sha256"]
NOT_APPLIED_COLUMNS = ["path", "field", "new", "annotator", "problem"]
LAST, WORTHWHILE = 50, 0.1  # suspects by which to judge the next ones; the share of wrong ones worth going on for
Opinion = int | str  # a class, "drop", or "right"
State = Mapping[str, Mapping[str, Any]]  # path -> field -> value


def read_logs(output_dir: Path) -> dict[str, DecisionLog]:
    """Every annotator's log, by annotator; warns of files that look like one and are not read."""
    unread, folder = unread_logs(output_dir), files.project_path(output_dir) / "review"
    for name, why in unread.items():
        warnings.warn(f"{files.shown_path(folder / name)} is not read: {why}", stacklevel=2)
    names = [LOG_NAME.fullmatch(path.name) for path in sorted(folder.glob("*")) if path.name not in unread]
    return {name[1]: DecisionLog(folder / name[0], name[1]) for name in names if name}


def unread_logs(output_dir: Path) -> dict[str, str]:
    """Files in `review/` that look like logs and do not count, by name, and why: copies of sync tools and of people."""
    found = {}
    for path in sorted((files.project_path(output_dir) / "review").glob("*")):
        name, named = path.name, LOG_NAME.fullmatch(path.name)
        if "decisions" not in name.lower() or "json" not in name.lower() or name.endswith(".torn"):
            continue
        if not path.is_file():
            found[name] = "it is no file"
        elif not named:
            found[name] = "a log is called decisions.<annotator>.jsonl, and its decisions can be taken in by take_in"
        else:
            owners = {made["annotator"] for made in parsed(path.read_bytes().splitlines()) if made}
            if owners and named[1] not in owners:
                found[name] = f"its decisions are by {', '.join(sorted(owners))}: a copy, to be taken in by take_in"
    return found


def take_in(output_dir: Path, names: Iterable[str], photo_table: pd.DataFrame) -> list[Decision]:
    """Append to their annotators' logs what copies in `review/` hold that is newer there, and give it back.

    names: of files, as `unread_logs` gives them; photo_table: columns `path, label`. On each photo and field the last
    word counts, an undone one's too. Raises ValueError for other names and files without the decisions of just one.
    """
    taken, unread = [], unread_logs(output_dir)
    for name in names:
        if name not in unread:
            raise ValueError(f"take_in: there is no copy {name!r} in review/; there are {', '.join(unread) or 'none'}")
        path = files.project_path(output_dir) / "review" / name
        made_there = [made for made in parsed(path.read_bytes().splitlines()) if made]
        owners = sorted({made["annotator"] for made in made_there})
        if len(owners) != 1:
            raise ValueError(f"take_in: {name} holds the decisions of {', '.join(owners) or 'nobody'}, not of one")
        log = DecisionLog(log_path(output_dir, *owners), *owners)
        latest = {(made["path"], made["field"]): made["time"] for made in log.decisions}
        found = {(made["path"], made["field"]): made for made in made_there}
        newer = [made for key, made in found.items() if made["time"] > latest.get(key, "")]
        taken += _import([{**made, "reason": f"from {name}: {made['reason']}"} for made in newer], log, photo_table)
    return taken


def applicable(photo_table: pd.DataFrame, decisions: Iterable[Decision], data_dir: Path) -> tuple[State, pd.DataFrame]:
    """The state that decisions lead to, and, with `NOT_APPLIED_COLUMNS`, those that do not hold.

    photo_table: columns `path, split`. Decisions hold about photos that are in it, are there, and have not changed.
    """
    known = photo_table[photo_table["split"] == "train"]
    files_of = dict(zip(known["path"], photos.files_of(data_dir, known), strict=True))
    made = [last for _, last in CurrentDecisions(decisions).first_and_last() if last["new"] is not None]
    digest_of = functools.cache(files.file_digest)
    state, refused = {}, []
    for last in made:
        path, field = last["path"], last["field"]
        if path not in files_of:
            problem = "no such photo in the table"
        elif not files_of[path].is_file():
            problem = "the photo is gone"
        elif last["sha256"] and last["sha256"] != digest_of(files_of[path]):
            problem = "the photo has changed since it was decided on"
        else:
            state.setdefault(path, {})[field] = last["new"]
            continue
        refused.append([path, field, str(last["new"]), last["annotator"], problem])
    return state, pd.DataFrame(refused, columns=NOT_APPLIED_COLUMNS)


def clean_tables(photo_table: pd.DataFrame, state: State, data_dir: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What training reads and what was dropped: absolute `path` and int64 `class`, of a dropped photo the given one.

    photo_table: columns `path, label, split`; state: from `applicable`.
    """
    train = photo_table[photo_table["split"] == "train"].reset_index(drop=True)
    decided = [state.get(path, {}) for path in train["path"]]
    is_dropped = pd.Series([values.get("verdict") == "drop" for values in decided], dtype=bool)
    new = pd.Series([values.get("label") for values in decided], dtype="Int64").mask(is_dropped)
    paths, classes = map(str, photos.files_of(data_dir, train)), new.fillna(train["label"]).astype("int64")
    table = pd.DataFrame({"path": list(paths), "class": classes})
    return table[~is_dropped].reset_index(drop=True), table[is_dropped].reset_index(drop=True)


def opinions_by_photo(logs: Mapping[str, DecisionLog]) -> dict[str, dict[str, tuple[Opinion, Decision]]]:
    """Per photo, sorted, each annotator's last opinion, "drop", "right" or a class, and the decision that says so."""
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


def suspects_decided(logs: Mapping[str, DecisionLog]) -> pd.DataFrame:
    """Photos decided on as suspects, in the order of time: path, score, was_wrong (label changed or photo dropped)."""
    rows = [
        (made["time"], path, made["source_score"], opinion != "right")
        for path, held in opinions_by_photo(logs).items()
        for opinion, made in held.values()
        if made["source_score"] is not None
    ]
    table = pd.DataFrame(rows, columns=["time", "path", "score", "was_wrong"]).sort_values("time", ignore_index=True)
    return table.astype({"score": "float64", "was_wrong": "bool"}).drop(columns="time")


def precision_summary(decided: pd.DataFrame) -> str:
    """How many of the last suspects of `suspects_decided` were wrong, and whether to go on; "" before any decision."""
    if decided.empty:
        return ""
    wrong, count = int(decided["was_wrong"].tail(LAST).sum()), min(LAST, len(decided))
    advice = "stop here" if count == LAST and wrong < WORTHWHILE * LAST else "go on"
    return f"Of the last {count} suspects decided on, {wrong} were wrong: {advice}."


def agreed(held: Mapping[str, tuple[Opinion, Decision]]) -> Opinion | None:
    """The opinion that more than half of the annotators who have one share; None if there is none."""
    [(opinion, votes)] = Counter(opinion for opinion, _ in held.values()).most_common(1)
    return opinion if 2 * votes > len(held) else None


def disagreements(logs: Mapping[str, DecisionLog]) -> pd.DataFrame:
    """Photos on which annotators differ: `path, opinions` (who thinks what), `settled` (that of more than half)."""
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

    `old`, before the first, and `new`, after the last, are text, empty for null; `import_patch` takes it as CSV.
    """
    rows = [
        {**last, "old": value_text(first["old"]), "new": value_text(last["new"])}
        for first, last in CurrentDecisions(decisions).first_and_last()
        if last["field"] != "skip" and last["new"] != first["old"]  # skipping is one's own business
    ]
    return pd.DataFrame(rows, columns=PATCH_COLUMNS, dtype="object").fillna("").astype("str")


def value_text(value: Any) -> str:
    """A decision's value as a table writes it."""
    return "" if value is None else str(value).lower()


def import_patch(path: Path, log: DecisionLog, photo_table: pd.DataFrame) -> list[Decision]:
    """Append what a patch changes to a log, as one action, and give it back; what is so already is left out.

    photo_table: columns `path, label`. For meaningless values and unknown photos ValueError, and nothing is written.
    """
    table = files.read_csv(path, dict.fromkeys(PATCH_COLUMNS, "str"))
    wanted, values = [], CHOICES | {"label": range(labels.class_count())}
    for row in table.to_dict("records"):
        if not (meant := [value for value in values.get(row["field"], ()) if value_text(value) == row["new"]]):
            raise ValueError(f"{path}, {row['path']}: {row['new']!r} is no {row['field']}")
        reason = f"from {row['annotator']}: {row['reason']}" if row["annotator"] else row["reason"]
        wanted.append({**row, "new": meant[0], "reason": reason, "sha256": row["sha256"] or None})
    return _import(wanted, log, photo_table)


def _import(wanted: list[Decision], log: DecisionLog, photo_table: pd.DataFrame) -> list[Decision]:
    """Append decisions as one action, but for what is so already. ValueError for photos that are not in the table."""
    given = dict(zip(photo_table["path"], photo_table["label"], strict=True))
    if unknown := sorted({made["path"] for made in wanted} - given.keys()):
        raise ValueError(f"{len(unknown)} photos are not in the table, such as {unknown[:3]}: nothing was imported")
    changes = []
    for made in wanted:
        old = log.current.value(made["path"], made["field"])
        old = int(given[made["path"]]) if made["field"] == "label" and old is None else old
        if old != made["new"]:
            changes.append({key: made[key] for key in ("path", "field", "new", "reason", "sha256")} | {"old": old})
    return log.append(changes, kind="import") if changes else []
