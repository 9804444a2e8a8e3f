"""The decision log: what an annotator decided about photos, one JSON line each, on disk before it counts.

A log belongs to one annotator, `review/decisions.<annotator>.jsonl`, and only grows: undoing appends a line that
names the decision it reverses. Lines that one key press wrote carry the same `time` and count as one action.
"""

import codecs
import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo
from typing_extensions import TypedDict  # pydantic takes that of `typing` from Python 3.12 on

from mask_lib.base import files, labels
from mask_lib.data import archives

CHOICES = {  # what a field may hold; the field `label` holds a class
    "mark": (None, "right", "wrong"),
    "verdict": (None, "confirmed", "drop"),
    "flag": (None, False, True),
    "skip": (None, False, True),
}
SUMMARIES = {"right": "label right", "wrong": "label wrong", "confirmed": "wrong, confirmed", "drop": "dropped"}
SUMMARIES |= {"flag": "flagged", "skip": "skipped"}
LAST_TIME = "9999"  # a decision must have a time, and be followed by later ones
LOG_NAME = re.compile(r"decisions\.([\w-]{1,40})\.jsonl")  # of an annotator's log
PART_OF_ACTION = re.compile(r"\w+:(\d+)/(\d+)")
leaves_folder = functools.lru_cache(maxsize=50_000)(archives.leaves_folder)  # a log names each photo several times


class Decision(TypedDict):
    """A line of a log. What is yet to be written may lack what `DecisionLog.append` fills in."""

    __pydantic_config__ = ConfigDict(strict=True, extra="allow")
    id: str  # "<annotator>:<number of the line, from 0>"
    time: Annotated[str, Field(lt=LAST_TIME)]  # UTC, ISO 8601 with microseconds; later than any before it in the log
    annotator: str
    path: Annotated[str, Field(min_length=1)]  # as in the photo table
    field: str  # label, mark, verdict, flag or skip
    old: Any
    new: Any
    reason: str  # the lines of an action of several begin it with "<kind>:<number>/<count>"
    source_score: float | None  # the score of the suspect that led to it
    sha256: str | None  # of the photo's bytes when it was decided on
    undoes: str | None  # id of the decision that this one reverses


class LogMovedOn(RuntimeError):
    """Somebody else appended to the log since it was last read; nothing was written."""


def meaningful(made: Decision, info: ValidationInfo) -> Decision:
    """The decision. Raises ValueError for a path that leaves the images folder, a value that the field cannot take."""
    choices = range(info.context) if made["field"] == "label" else CHOICES.get(made["field"], ())
    values, kinds = (made["old"], made["new"]), set(map(type, choices[:3]))  # types count: true is no label 1
    if leaves_folder(made["path"]) or not all(value in choices and type(value) in kinds for value in values):
        raise ValueError
    return made


LINE = TypeAdapter(Annotated[Decision, AfterValidator(meaningful)])  # its context: how many classes there are


def log_path(output_dir: Path, annotator: str) -> Path:
    """Where an annotator's log lies. Raises ValueError for a name that is no plain word."""
    name = f"decisions.{annotator}.jsonl"
    if not LOG_NAME.fullmatch(name):
        raise ValueError(f"annotator = {annotator!r}: write letters, digits, - and _ only, 40 at most")
    return files.project_path(output_dir) / "review" / name


class CurrentDecisions:
    """Per photo and field the decisions that were not undone, in order."""

    def __init__(self, decisions: Iterable[Decision] = ()):
        self._made: dict[tuple[str, str], list[Decision]] = {}
        for decision in decisions:
            self.add(decision)

    def add(self, decision: Decision) -> None:
        """Take in one more decision; one that undoes removes the one it names."""
        made = self._made.setdefault((decision["path"], decision["field"]), [])
        if decision["undoes"] is None:
            made.append(decision)
        else:
            made[:] = [one for one in made if one["id"] != decision["undoes"]]

    def all_on(self, path: str, field: str) -> list[Decision]:
        """All current decisions on one field of a photo, the last word last."""
        return self._made.get((path, field), [])

    def value(self, path: str, field: str) -> Any:
        """The current value, None if nothing was decided."""
        made = self.all_on(path, field)
        return made[-1]["new"] if made else None

    def first_and_last(self) -> Iterator[tuple[Decision, Decision]]:
        """Per photo and field, sorted, the first and the last current decision."""
        return ((made[0], made[-1]) for _, made in sorted(self._made.items()) if made)


@dataclasses.dataclass
class Action:
    """What one key press wrote: decisions with one `time`."""

    decisions: list[Decision]
    is_undone: bool = False

    def summary(self) -> str:
        """What it decided: `male → female (7 photos)`, `incorrect ↔ not worn (2 photos)`."""
        first, last, count = self.decisions[0], self.decisions[-1], len({made["path"] for made in self.decisions})
        text = decision_summary(first)
        if count == 2 and (first["old"], first["new"]) == (last["new"], last["old"]):
            text = text.replace("→", "↔")
        return f"{text} ({count} photos)" if count > 1 else text

    def reversal(self) -> list[Decision]:
        """The decisions that undo it."""
        return [
            {key: made[key] for key in ("path", "field", "source_score", "sha256")}
            | {"old": made["new"], "new": made["old"], "reason": "undo", "undoes": made["id"]}
            for made in self.decisions
        ]

    def line(self) -> dict[str, Any]:
        """It as a line of the screen's list."""
        first = self.decisions[0]
        return {"id": first["id"], "text": self.summary(), "path": first["path"], "undone": self.is_undone}


def decision_summary(made: Decision) -> str:
    """What one decision says: `label wrong`, `flagged`, `male 30-59 → female <30`."""
    field, old, new = made["field"], made["old"], made["new"]
    if field == "label":
        pairs = zip(labels.attributes(), labels.decode(old), labels.decode(new), strict=True)
        changed = [(one.words[before], one.words[after]) for one, before, after in pairs if before != after]
        sides = [" ".join(side) for side in zip(*changed, strict=True)]
        return " → ".join(sides) or f"class {labels.describe(new)}"
    said = (new or old) if field in ("mark", "verdict") else field
    return SUMMARIES[said] if new else f"no longer {said}"


class DecisionLog:
    """An open log: `decisions` in order, what is `current` of them, `actions` to undo, `problems` found in the file.

    Writes are locked against other kernels and tabs, and on the disk before `append` returns. An action that a crash
    left unfinished was never acknowledged: it is moved to a `.torn` file beside the log and reported.
    """

    def __init__(self, path: Path | str, annotator: str):
        """Open or begin the log at `path`. Raises OSError where it cannot be written."""
        self.path, self.annotator = Path(path), annotator
        self.problems: list[str] = []
        self._clear()
        self._news: set[str] = set()  # photos of the decisions that were read since `refresh`
        self._inode: int | None = None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._opened():
            files.flush_folder(self.path.parent)

    def _clear(self) -> None:
        self.decisions: list[Decision] = []
        self.current, self.actions = CurrentDecisions(), []
        self._action_of: dict[str, Action] = {}  # by the ids of its decisions
        self._by_id: dict[str, Decision] = {}
        self._lines = self._offset = 0  # read so far: lines, bytes

    def append(self, decisions: list[Decision], kind: str = "action", if_refreshed: bool = False) -> list[Decision]:
        """Write decisions as one action and give them back, all keys filled in, once they are on disk.

        Raises ValueError for a decision that means nothing, OSError if the disk is full or gone, with if_refreshed
        LogMovedOn if others have appended since the last `refresh`. Nothing is written then.
        """
        with self._opened() as handle:
            if if_refreshed and self._news:
                said = "Another tab or kernel has decided at the same moment; nothing was written. Look again."
                raise LogMovedOn(said)
            complete = self._completed(decisions, kind)
            self._offset += self._write(handle, "".join(json.dumps(made) + "\n" for made in complete).encode())
            self._lines += len(complete)
            self._add(complete)
            return complete

    def refresh(self) -> set[str]:
        """Read on what other tabs or kernels appended; the photos it concerns."""
        found = self.path.stat() if self.path.exists() else None
        if found is None or (found.st_ino, found.st_size) != (self._inode, self._offset):
            with self._opened():
                pass
        news, self._news = self._news, set()
        return news

    def _add(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            if self._by_id.setdefault(decision["id"], decision) is not decision and decision in self.decisions:
                continue  # the same line again, as when a copy was joined to its original
            self.decisions.append(decision)
            self.current.add(decision)
            if undone := self._action_of.get(decision["undoes"]):
                undone.is_undone = True
            elif decision["undoes"] is None:
                if not self.actions or self.actions[-1].decisions[0]["time"] != decision["time"]:
                    self.actions.append(Action([]))
                self.actions[-1].decisions.append(decision)
                self._action_of[decision["id"]] = self.actions[-1]

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """The file under a lock, read on to its end; what a crash left there is repaired."""
        # Opened anew each time: a lock belongs to one opening, so threads shut each other out as well.
        with self.path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._read_on(file.fileno())
            self._repair(file.fileno())
            yield file.fileno()

    def _read_on(self, handle: int) -> None:
        """Read the whole actions behind those already known."""
        status = os.fstat(handle)
        if self._inode not in (None, status.st_ino) or status.st_size < self._offset:
            self.problems.append(f"{self.path.name} was replaced or cut short while it was open: it was read anew")
            self._news.update(decision["path"] for decision in self.decisions)  # all may be different now
            self._clear()
        self._inode = status.st_ino
        rest = os.pread(handle, status.st_size - self._offset, self._offset)
        lines = rest[: rest.rfind(b"\n") + 1].splitlines(keepends=True)
        found = parsed(lines)
        whole = len(lines) - lines_of_torn_action(found)
        new = [decision for decision in found[:whole] if decision]
        self._add(new)
        self._news.update(decision["path"] for decision in new)
        bad = [number for number, decision in enumerate(found[:whole], self._lines + 1) if not decision]
        self.problems += [f"{self.path.name}, line {number} was passed over: it is no decision" for number in bad]
        self._lines += whole
        self._offset += sum(map(len, lines[:whole]))

    def _repair(self, handle: int) -> None:
        """Deal with what an interrupted write left at the end."""
        if not (tail := os.pread(handle, os.fstat(handle).st_size - self._offset, self._offset)):
            return
        found = parsed(tail.splitlines())
        if found[-1] and not lines_of_torn_action(found):
            # Only the end of the line is missing, as some editors leave it: the decisions are whole.
            self._write(handle, b"\n")
            return self._read_on(handle)
        torn = self.path.with_name(self.path.name + ".torn")
        with torn.open("ab", buffering=0) as keeper:
            keeper.write(tail.removesuffix(b"\n") + b"\n")
            os.fsync(keeper.fileno())
        os.ftruncate(handle, self._offset)
        os.fsync(handle)
        self.problems.append(
            f"{self.path.name} ended in an action that was not written to its end and never acknowledged; "
            f"its {len(tail)} bytes were moved to {torn.name}"
        )

    def _completed(self, decisions: list[Decision], kind: str) -> list[Decision]:
        time, class_count, complete = self._next_time(), labels.class_count(), []
        for number, given in enumerate(decisions):
            made = {"id": f"{self.annotator}:{self._lines + number}", "time": time, "annotator": self.annotator}
            decision = {**dict.fromkeys(Decision.__annotations__), "reason": "", **given, **made}
            # A reason that only looks like the part of an action becomes 1/1, or it would be taken for a torn one.
            if len(decisions) > 1 or PART_OF_ACTION.match(decision["reason"]):
                decision["reason"] = f"{kind}:{number + 1}/{len(decisions)} {decision['reason']}".rstrip()
            try:
                complete.append(LINE.validate_python(decision, context=class_count))
            except ValidationError as error:
                said = f"{decision['field']} {decision['old']!r} → {decision['new']!r}"
                raise ValueError(f"no decision about {decision['path']!r}: {said}") from error
        return complete

    def _next_time(self) -> str:
        now = datetime.now(UTC)
        if self.decisions:
            with contextlib.suppress(ValueError, TypeError):  # a foreign log's own way to write times
                now = max(now, datetime.fromisoformat(self.decisions[-1]["time"]) + timedelta(microseconds=1))
        return now.isoformat(timespec="microseconds")

    def _write(self, handle: int, content: bytes) -> int:
        """Append bytes, flush them, and say how many; what an error leaves of them is cut off again."""
        end, rest = os.fstat(handle).st_size, content
        try:
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, end)
            raise
        return len(content)


def parsed(lines: list[bytes]) -> list[Decision | None]:
    """The decision of each line, None for one that holds none."""
    found, class_count = [None] * len(lines), labels.class_count()
    for number, line in enumerate(lines):
        with contextlib.suppress(ValidationError):
            # Some editors begin a file with a byte order mark.
            found[number] = LINE.validate_json(line.removeprefix(codecs.BOM_UTF8), context=class_count)
    return found


def lines_of_torn_action(found: list[Decision | None]) -> int:
    """How many lines at the end belong to an action that was not written to its end; 0 as a rule."""
    numbers = PART_OF_ACTION.match(found[-1]["reason"]) if found and found[-1] else None
    if not numbers:
        return 0
    number, count = map(int, numbers.groups())
    return number if number < count and number <= len(found) else 0
