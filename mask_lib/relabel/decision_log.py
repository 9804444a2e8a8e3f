"""The decision log: what a person decided about photos, one JSON line each, on disk before it counts.

A log belongs to one annotator, `review/decisions.<annotator>.jsonl`, and only grows: undoing appends
a line that names the decision it reverses. Lines that were written together carry the same `time`
and count as one stroke.

What stands after the decisions of a log, and the strokes that undo walks back through.
"""

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import re
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mask_lib.base import files, labels
from mask_lib.data import archives

DECISION_KEYS = (
    "id",  # "<annotator>:<number of the line, from 0>"
    "time",  # UTC, ISO 8601 with microseconds; later than any before it in the log
    "annotator",
    "path",  # as in the photo table
    "field",
    "old",
    "new",
    "reason",  # a stroke's lines begin it with "<kind>:<number>/<count>"
    "source_score",  # the score of the suspect that led to it, or null
    "sha256",  # of the photo's bytes when it was decided on
    "undoes",  # id of the decision that this one reverses, or null
)
MEANINGS = {  # the values each field may take
    "mark": (None, "right", "wrong"),
    "verdict": (None, "confirmed", "drop"),
    "label": tuple(range(labels.CLASS_COUNT)),
    "flag": (None, False, True),
    "skip": (None, False, True),
}
KEYS = frozenset(DECISION_KEYS)
ALLOWED = {field: {(type(value), value) for value in values} for field, values in MEANINGS.items()}
STROKE = re.compile(r"\w+:(\d+)/(\d+)")
Decision = dict[str, Any]


class LogMovedOn(RuntimeError):
    """Somebody else appended to the log since it was last read; nothing was written."""


def log_path(output_dir: str | os.PathLike[str], annotator: str) -> Path:
    """Where an annotator's log lies. Raises ValueError for a name that is no plain word."""
    if not re.fullmatch(r"[\w-]{1,40}", annotator):
        raise ValueError(f"annotator = {annotator!r}: write letters, digits, - and _ only, 40 at most")
    return files.project_path(output_dir) / "review" / f"decisions.{annotator}.jsonl"


def fault_of(decision: Any) -> str | None:
    """What is wrong with a line of a log, or None."""
    if not isinstance(decision, dict) or not decision.keys() >= KEYS:
        return f"it lacks some of {', '.join(DECISION_KEYS)}"
    path, field = decision["path"], decision["field"]
    if not isinstance(path, str) or not is_inside(path):
        return f"{path!r} is no path below the images folder"
    if not isinstance(field, str) or field not in MEANINGS:
        return f"{field!r} is no field: {', '.join(MEANINGS)}"
    for side in ("old", "new"):
        if not means(field, decision[side]):
            return f"{side} = {decision[side]!r} is no {field}"
    if not all(isinstance(decision[key], str) for key in ("id", "time", "annotator", "reason")):
        return "id, time, annotator and reason are texts"
    return None if isinstance(decision["undoes"], str | None) else "undoes is an id or null"


def means(field: str, value: Any) -> bool:
    """Whether a field may take a value; true is no label 1, though Python takes them for equal."""
    return isinstance(value, int | str | None) and (type(value), value) in ALLOWED[field]


@functools.lru_cache(maxsize=50_000)
def is_inside(path: str) -> bool:
    """Whether a path names something below the images folder."""
    return bool(path) and not archives.leaves_folder(path)


class DecisionLog:
    """An open log. `decisions` holds its lines in order, `problems` what was found wrong, in words.

    Every write happens under a lock that other kernels and tabs respect, in one piece, and is
    flushed to the disk before `append` returns. What a crash left of a last line, or of a last
    stroke, was never acknowledged: it is moved to a `.torn` file beside the log and reported.
    """

    def __init__(self, path: str | os.PathLike[str], annotator: str):
        """Open or begin the log at `path`. Raises OSError where it cannot be written."""
        self.path, self.annotator = Path(path), annotator
        self.decisions: list[Decision] = []
        self.problems: list[str] = []
        self.generation = 0  # raised when the file was replaced and `decisions` begins anew
        self._lines = self._offset = 0  # read so far: lines, bytes
        self._file_number: int | None = None
        self._lock = threading.RLock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        with self._locked(fcntl.LOCK_EX) as handle:
            self._catch_up(handle)
            self._repair(handle)
        if is_new:
            files.flush_folder(self.path.parent)

    def append(
        self, decisions: Iterable[Decision], expected: int | None = None, kind: str = "stroke"
    ) -> list[Decision]:
        """Write decisions as one stroke and give them back with `id` and `time` once they are on disk.

        Keys that are left out become None; the reasons of several decisions begin with
        `<kind>:<number>/<count>`. `expected` is the number of decisions on which they build: raises
        LogMovedOn if the log holds more by now. Raises ValueError for a decision that means
        nothing, OSError if the disk is full or gone; nothing is written then.
        """
        with self._lock, self._locked(fcntl.LOCK_EX) as handle:
            self._catch_up(handle)
            self._repair(handle)
            if expected is not None and expected != len(self.decisions):
                raise LogMovedOn(f"{self.path.name} has grown from {expected} to {len(self.decisions)} decisions")
            complete = self._completed(list(decisions), kind)
            if complete:
                text = "".join(json.dumps(decision) + "\n" for decision in complete)
                self._write(handle, text.encode())
                self._lines += len(complete)
                self.decisions.extend(complete)
            return complete

    def refresh(self) -> bool:
        """Read on what other tabs or kernels appended; True if there was anything new."""
        with self._lock:
            before = (self.generation, len(self.decisions))
            if self.path.exists() and self._is_read():
                return False
            with self._locked(fcntl.LOCK_SH) as handle:
                self._catch_up(handle)
            return before != (self.generation, len(self.decisions))

    def _is_read(self) -> bool:
        found = self.path.stat()
        return (found.st_ino, found.st_size) == (self._file_number, self._offset)

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[int]:
        # Opened anew each time: a lock belongs to one opening, so threads shut each other out as well.
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, how)
            yield handle
        finally:
            os.close(handle)

    def _catch_up(self, handle: int) -> None:
        """Read the whole strokes behind those already known; call it under a lock."""
        found = os.fstat(handle)
        if self._file_number not in (None, found.st_ino) or found.st_size < self._offset:
            self.problems.append(f"{self.path.name} was replaced or cut short while it was open: it was read anew")
            self.decisions, self._lines, self._offset = [], 0, 0
            self.generation += 1
        self._file_number = found.st_ino
        lines = read_from(handle, self._offset).splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        found = list(parsed(lines))
        whole = len(lines) - lines_of_partial_stroke(found)
        for place, (decision, fault) in enumerate(found[:whole], self._lines + 1):
            if fault:
                self.problems.append(f"{self.path.name}, line {place} was passed over: {fault}")
            else:
                self.decisions.append(decision)
        self._lines += whole
        self._offset += sum(map(len, lines[:whole]))

    def _repair(self, handle: int) -> None:
        """Deal with what an interrupted write left at the end; call it under the exclusive lock, caught up."""
        tail = read_from(handle, self._offset)
        if not tail:
            return
        found = list(parsed(tail.splitlines()))
        if found[-1][0] and not lines_of_partial_stroke(found):
            # Only the end of the line is missing, as some editors leave it: the decisions are whole.
            known = self._offset
            self._write(handle, b"\n", start=known + len(tail))
            self._offset = known
            self._catch_up(handle)
            return
        torn = self.path.with_name(self.path.name + ".torn")
        with torn.open("ab") as keeper:
            keeper.write(tail.removesuffix(b"\n") + b"\n")
            keeper.flush()
            os.fsync(keeper.fileno())
        os.ftruncate(handle, self._offset)
        os.fsync(handle)
        self.problems.append(
            f"{self.path.name} ended in a stroke that was not written to its end and never acknowledged; "
            f"its {len(tail)} bytes were moved to {torn.name}"
        )

    def _completed(self, decisions: list[Decision], kind: str) -> list[Decision]:
        time, complete = self._next_time(), []
        for number, given in enumerate(decisions):
            made = {"id": f"{self.annotator}:{self._lines + number}", "time": time, "annotator": self.annotator}
            decision = {**dict.fromkeys(DECISION_KEYS), "reason": "", **given, **made}
            if len(decisions) > 1 or STROKE.match(decision["reason"]):
                decision["reason"] = f"{kind}:{number + 1}/{len(decisions)} {decision['reason']}".rstrip()
            fault = fault_of(decision)
            if fault:
                raise ValueError(f"no decision about {decision['path']!r}: {fault}")
            complete.append(decision)
        return complete

    def _next_time(self) -> str:
        now = datetime.now(UTC)
        if self.decisions:
            with contextlib.suppress(ValueError, TypeError):  # a foreign log's own way to write times
                now = max(now, datetime.fromisoformat(self.decisions[-1]["time"]) + timedelta(microseconds=1))
        return now.isoformat(timespec="microseconds")

    def _write(self, handle: int, content: bytes, start: int | None = None) -> None:
        """Append bytes and flush them; what an error leaves of them is cut off again."""
        start = self._offset if start is None else start
        rest = content
        try:
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, start)
            raise
        self._offset = start + len(content)


def read_from(handle: int, offset: int) -> bytes:
    """Everything behind `offset` in an open file."""
    parts = []
    while part := os.pread(handle, 1 << 24, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def parsed(lines: list[bytes]) -> Iterator[tuple[Decision | None, str | None]]:
    """Per line the decision and None, or None and what is wrong with it."""
    try:
        found = json.loads(b"[" + b",".join(lines) + b"]")  # all at once takes half the time
    except ValueError:
        found = []
    if len(found) != len(lines):
        found = [loaded(line) for line in lines]
    for decision in found:
        fault = fault_of(decision)
        yield (None, fault) if fault else (decision, None)


def loaded(line: bytes) -> Any:
    """A line's JSON, None if it is none."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def lines_of_partial_stroke(found: list[tuple[Decision | None, str | None]]) -> int:
    """How many lines at the end belong to a stroke that was not written to its end; 0 as a rule."""
    last = found[-1][0] if found else None
    numbers = STROKE.match(last["reason"]) if last else None
    if not numbers:
        return 0
    number, count = map(int, numbers.groups())
    return number if number < count and number <= len(found) else 0


WORDS = (labels.MASK_WORDS, labels.GENDER_WORDS, labels.AGE_WORDS)


class CurrentDecisions:
    """Per photo and field the decisions that were not undone, in order."""

    def __init__(self, decisions: Iterable[Decision] = ()):
        self.by_photo: dict[str, dict[str, list[Decision]]] = {}
        for decision in decisions:
            self.add(decision)

    def add(self, decision: Decision) -> None:
        """Take in one more decision; one that undoes removes the one it names."""
        stack = self.by_photo.setdefault(decision["path"], {}).setdefault(decision["field"], [])
        if decision["undoes"] is None:
            stack.append(decision)
        else:
            stack[:] = [made for made in stack if made["id"] != decision["undoes"]]

    def value(self, path: str, field: str) -> Any:
        """The value that stands, None if nothing was decided."""
        stack = self.by_photo.get(path, {}).get(field)
        return stack[-1]["new"] if stack else None

    def decisions(self, path: str, field: str) -> list[Decision]:
        """All that stand about one field of a photo, the last word last."""
        return self.by_photo.get(path, {}).get(field, [])

    def first_and_last(self) -> Iterator[tuple[Decision, Decision]]:
        """Per photo and field, sorted, the first and the last decision that stand."""
        for path in sorted(self.by_photo):
            for _, stack in sorted(self.by_photo[path].items()):
                if stack:
                    yield stack[0], stack[-1]


def replay(decisions: Iterable[Decision]) -> dict[str, dict[str, Any]]:
    """The state that decisions lead to: path -> field -> value, only what stands and is not null."""
    state: dict[str, dict[str, Any]] = {}
    for _, last in CurrentDecisions(decisions).first_and_last():
        if last["new"] is not None:
            state.setdefault(last["path"], {})[last["field"]] = last["new"]
    return state


@dataclasses.dataclass
class Action:
    """What one key press wrote: decisions with one `time`."""

    decisions: list[Decision]
    undone: bool = False


class Worklog:
    """A log with what stands and its strokes, kept up to date as it grows.

    `seen` is the number of decisions taken in: writing builds on exactly these.
    """

    def __init__(self, log: DecisionLog):
        self.log = log
        self._clear()
        self.take_in()

    def _clear(self) -> None:
        self.standing, self.strokes, self.seen = CurrentDecisions(), [], 0
        self._stroke_of: dict[str, Action] = {}
        self._generation = self.log.generation

    def take_in(self) -> set[str]:
        """Take in what was appended since; the photos it concerns."""
        self.log.refresh()
        paths: set[str] = set()
        if self.log.generation != self._generation:  # the file was replaced: all that was known may be different
            paths.update(self.standing.by_photo)
            self._clear()
        fresh = self.log.decisions[self.seen :]
        for decision in fresh:
            self._add(decision)
            paths.add(decision["path"])
        return paths

    def write(self, changes: list[Decision], kind: str = "stroke") -> list[Decision]:
        """Append changes as one stroke, on disk when this returns.

        Raises LogMovedOn if somebody else wrote meanwhile, and what `DecisionLog.append` raises.
        """
        written = self.log.append(changes, expected=self.seen, kind=kind)
        for decision in written:
            self._add(decision)
        return written

    def last_stroke(self) -> Action | None:
        """The last stroke that was not undone."""
        return next((stroke for stroke in reversed(self.strokes) if not stroke.undone), None)

    def undo(self, stroke: Action) -> list[Decision]:
        """Append the reversal of a stroke."""
        changes = [
            {
                "path": made["path"],
                "field": made["field"],
                "old": made["new"],
                "new": made["old"],
                "reason": "undo",
                "source_score": made["source_score"],
                "sha256": made["sha256"],
                "undoes": made["id"],
            }
            for made in stroke.decisions
        ]
        return self.write(changes, kind="undo")

    def _add(self, decision: Decision) -> None:
        self.seen += 1
        self.standing.add(decision)
        if decision["undoes"] is not None:
            undone = self._stroke_of.get(decision["undoes"])
            if undone:
                undone.undone = True
            return
        last = self.strokes[-1] if self.strokes else None
        if last and last.decisions[0]["time"] == decision["time"]:
            last.decisions.append(decision)
        else:
            last = Action([decision])
            self.strokes.append(last)
        self._stroke_of[decision["id"]] = last


def words_of(stroke: Action) -> str:
    """What a stroke decided, in words: `male → female (7 photos)`, `incorrect ↔ not worn (2 photos)`."""
    first, last, count = stroke.decisions[0], stroke.decisions[-1], len({made["path"] for made in stroke.decisions})
    text = words_of_change(first)
    if count == 2 and (first["old"], first["new"]) == (last["new"], last["old"]):
        text = text.replace("→", "↔")
    return f"{text} ({count} photos)" if count > 1 else text


def words_of_change(made: Decision) -> str:
    """One decision in words."""
    field, new = made["field"], made["new"]
    if field == "label":
        if made["old"] in (None, new):
            return f"class {labels.describe(new)}"
        return words_of_difference(made["old"], new)
    if field in ("flag", "skip"):
        return {"flag": "flagged", "skip": "skipped"}[field] if new else f"no longer {field}"
    if new is None:
        return f"no longer {made['old']}"
    return {"right": "label right", "wrong": "label wrong", "confirmed": "wrong, confirmed", "drop": "dropped"}[new]


def words_of_difference(old: int, new: int) -> str:
    """What differs between two classes, in words: `male 30-59 → female <30`."""
    parts = zip(WORDS, labels.decode(old), labels.decode(new), strict=True)
    changed = [(words[before], words[after]) for words, before, after in parts if before != after]
    return " → ".join(" ".join(side) for side in zip(*changed, strict=True))
