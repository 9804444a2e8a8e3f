"""The decisions of all annotators: where they agree, which hold for the photos at hand, and the labels they lead to."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mask_lib.base import files, labels
from mask_lib.data import photos
from mask_lib.relabel.current_decisions import CurrentDecisions, Decision
from mask_lib.relabel.decision_log import CHOICES, LOG_NAME, DecisionLog, log_path, parsed

PATCH_COLUMNS = ["path", "field", "old", "new", "reason", "annotator", "time", "sha256"]
PATCHED = ("flag", "label", "mark", "verdict")  # fields that a patch holds; skipping is one's own business
NOT_APPLIED_COLUMNS = ["path", "field", "new", "annotator", "problem"]
LAST, WORTHWHILE = 50, 0.1  # suspects by which to judge the next ones; the share of wrong ones worth going on for
Opinion = int | str  # a class, "drop", or "right"


def read_logs(output_dir: Path) -> dict[str, DecisionLog]:
    """Every annotator's log of an experiment, by annotator; warns of files that look like one and are not read."""
    unread, folder = unread_logs(output_dir), files.project_path(output_dir) / "review"
    for name, why in unread.items():
        warnings.warn(f"{files.shown_path(folder / name)} is not read: {why}", stacklevel=2)
    names = [LOG_NAME.fullmatch(path.name) for path in sorted(folder.glob("*")) if path.name not in unread]
    return {name[1]: DecisionLog(folder / name[0], name[1]) for name in names if name}


def unread_logs(output_dir: Path) -> dict[str, str]:
    """Files in `review/` that look like logs and do not count, by name, and why: copies of sync tools and of people.

    A file of a log's name counts as a copy if none of its lines is by the annotator it is named after.
    """
    found = {}
    for path in sorted((files.project_path(output_dir) / "review").glob("*")):
        name, named = path.name, LOG_NAME.fullmatch(path.name)
        if "decisions" not in name.lower() or "json" not in name.lower() or name.endswith(".torn"):
            continue
        if not path.is_file():
            found[name] = "it is no file"
        elif not named:
            found[name] = "a log is called decisions.<annotator>.jsonl, and its decisions can be taken in by take_in"
        elif (owners := _owners(path)) and named[1] not in owners:
            found[name] = f"its decisions are by {', '.join(sorted(owners))}: a copy, to be taken in by take_in"
    return found


def _owners(path: Path) -> set[str]:
    return {made["annotator"] for made in parsed(path.read_bytes().splitlines()) if made}


def take_in(output_dir: Path, names: Iterable[str], photo_table: pd.DataFrame) -> list[Decision]:
    """Append to their annotators' logs what copies in `review/` hold that is newer there, and give it back.

    names: of files, as `unread_logs` gives them; photo_table: columns `path, label`. On each photo and field the last
    word counts, an undone decision's too, unless the log has a later one; so to do it again changes nothing. Raises
    ValueError for other names and for files with the decisions of nobody, or of several annotators.
    """
    taken, unread = [], unread_logs(output_dir)
    for name in names:
        if name not in unread:
            raise ValueError(f"take_in: there is no copy {name!r} in review/; there are {', '.join(unread) or 'none'}")
        path = files.project_path(output_dir) / "review" / name
        owners = _owners(path)
        if len(owners) != 1:
            raise ValueError(
                f"take_in: {name} holds the decisions of {', '.join(sorted(owners)) or 'nobody'}, not of one"
            )
        log = DecisionLog(log_path(output_dir, *owners), *owners)
        latest = {(made["path"], made["field"]): made["time"] for made in log.decisions}
        found = {(made["path"], made["field"]): made for made in parsed(path.read_bytes().splitlines()) if made}
        newer = [made for key, made in found.items() if made["time"] > latest.get(key, "")]
        taken += _import([{**made, "reason": f"from {name}: {made['reason']}"} for made in newer], log, photo_table)
    return taken


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


def suspects_decided(logs: Mapping[str, DecisionLog]) -> pd.DataFrame:
    """Every photo that somebody decided on as a suspect, in the order of time: path, score and was_wrong, whether its
    label was changed or the photo dropped.
    """
    rows = []
    for path, held in opinions_by_photo(logs).items():
        for opinion, made in held.values():
            if made["source_score"] is not None:
                rows.append((made["time"], path, made["source_score"], opinion != "right"))
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
    Raises as `files.read_csv` does, and ValueError for meaningless values and unknown photos, and writes nothing.
    """
    table = files.read_csv(path, dict.fromkeys(PATCH_COLUMNS, "str"))
    wanted, values = [], CHOICES | {"label": range(labels.class_count())}
    for row in table.to_dict("records"):
        meant = [value for value in values.get(row["field"], ()) if value_text(value) == row["new"]]
        if not meant:
            raise ValueError(f"{path}, {row['path']}: {row['new']!r} is no {row['field']}")
        reason = f"from {row['annotator']}: {row['reason']}" if row["annotator"] else row["reason"]
        wanted.append({**row, "new": meant[0], "reason": reason, "sha256": row["sha256"] or None})
    return _import(wanted, log, photo_table)


def _import(wanted: list[Decision], log: DecisionLog, photo_table: pd.DataFrame) -> list[Decision]:
    """Append decisions, of which `path, field, new, reason, sha256` count, as one action; what is so already is not.

    Raises ValueError that names photos which are not in the table (columns `path, label`).
    """
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
