"""The decision log: what an annotator decided about photos, one JSON line each, on disk before it counts.

A log belongs to one annotator, `review/decisions.<annotator>.jsonl`, and only grows: undoing appends a line that
names the decision it reverses. Lines that one key press wrote carry the same `time` and count as one action.
"""

import contextlib
import fcntl
import functools
import json
import os
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mask_lib.base import files, labels
from mask_lib.data import archives
from mask_lib.relabel.current_decisions import Action, CurrentDecisions, Decision

DECISION_KEYS = (
    "id",  # "<annotator>:<number of the line, from 0>"
    "time",  # UTC, ISO 8601 with microseconds; later than any before it in the log
    "annotator",
    "path",  # as in the photo table
    "field",  # label, mark, verdict, flag or skip
    "old",
    "new",
    "reason",  # the lines of an action of several begin it with "<kind>:<number>/<count>"
    "source_score",  # the score of the suspect that led to it, or null
    "sha256",  # of the photo's bytes when it was decided on
    "undoes",  # id of the decision that this one reverses, or null
)
CHOICES = {  # what a field may hold; the field `label` holds a class
    "mark": (None, "right", "wrong"),
    "verdict": (None, "confirmed", "drop"),
    "flag": (None, False, True),
    "skip": (None, False, True),
}
ALLOWED = {field: {(type(value), value) for value in values} for field, values in CHOICES.items()}
KEYS, TEXTS = frozenset(DECISION_KEYS), ("id", "time", "annotator", "path", "field", "reason")
OTHERS = {"source_score": int | float | None, "sha256": str | None, "undoes": str | None}
SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can hold them, no table can
LAST_TIME = "9999"  # a decision must have a time, and be followed by later ones
LOG_NAME = re.compile(r"decisions\.([\w-]{1,40})\.jsonl")  # of an annotator's log
PART_OF_ACTION = re.compile(r"\w+:(\d+)/(\d+)")
leaves_folder = functools.lru_cache(maxsize=50_000)(archives.leaves_folder)  # a log names each photo several times


class LogMovedOn(RuntimeError):
    """Somebody else appended to the log since it was last read; nothing was written."""

    def __str__(self) -> str:
        return "Another tab or kernel has decided at the same moment; nothing was written. Look again."


def log_path(output_dir: Path, annotator: str) -> Path:
    """Where an annotator's log lies. Raises ValueError for a name that is no plain word."""
    name = f"decisions.{annotator}.jsonl"
    if not LOG_NAME.fullmatch(name):
        raise ValueError(f"annotator = {annotator!r}: write letters, digits, - and _ only, 40 at most")
    return files.project_path(output_dir) / "review" / name


def is_decision(line: Any, class_count: int) -> bool:
    """Whether a line of a log holds all keys, a path below the images folder, and values that the field may take."""
    if not isinstance(line, dict) or not line.keys() >= KEYS:
        return False
    is_text = all(isinstance(line[key], str) and not SURROGATE.search(line[key]) for key in TEXTS)
    if not is_text or not all(isinstance(line[key], kinds) for key, kinds in OTHERS.items()):
        return False
    if not line["path"] or leaves_folder(line["path"]) or line["time"] >= LAST_TIME:
        return False
    return all(is_allowed(line["field"], line[side], class_count) for side in ("old", "new"))


def is_allowed(field: str, value: Any, class_count: int) -> bool:
    """Whether a field may hold a value. Types count: true is no label 1, though Python takes them for equal."""
    if field == "label":
        return type(value) is int and 0 <= value < class_count
    return isinstance(value, int | str | None) and (type(value), value) in ALLOWED.get(field, ())


class DecisionLog:
    """An open log: `decisions` in order, what is `current` of them, `actions` to undo, `problems` found in the file.

    A write is locked against other kernels and tabs, and flushed to the disk before `append` returns. An action that a
    crash left unfinished was never acknowledged: it is moved to a `.torn` file beside the log and reported.
    """

    def __init__(self, path: Path | str, annotator: str):
        """Open or begin the log at `path`. Raises OSError where it cannot be written."""
        self.path, self.annotator = Path(path), annotator
        self.problems: list[str] = []
        self._clear()
        self._news: set[str] = set()  # photos of the decisions that were read since `refresh`
        self._inode: int | None = None
        self._lock = threading.RLock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        with self._locked(fcntl.LOCK_EX) as handle:
            self._read_on(handle)
            self._repair(handle)
        if is_new:
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
        with self._lock, self._locked(fcntl.LOCK_EX) as handle:
            self._read_on(handle)
            self._repair(handle)
            if if_refreshed and self._news:
                raise LogMovedOn
            complete = self._completed(decisions, kind)
            self._write(handle, "".join(json.dumps(decision) + "\n" for decision in complete).encode())
            self._lines += len(complete)
            self._add(complete)
            return complete

    def refresh(self) -> set[str]:
        """Read on what other tabs or kernels appended; the photos it concerns."""
        with self._lock:
            found = self.path.stat() if self.path.exists() else None
            if found is None or (found.st_ino, found.st_size) != (self._inode, self._offset):
                with self._locked(fcntl.LOCK_SH) as handle:
                    self._read_on(handle)
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
    def _locked(self, how: int) -> Iterator[int]:
        # Opened anew each time: a lock belongs to one opening, so threads shut each other out as well.
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, how)
            yield handle
        finally:
            os.close(handle)

    def _read_on(self, handle: int) -> None:
        """Read the whole actions behind those already known; call it under a lock."""
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
        """Deal with what an interrupted write left at the end; call it under the exclusive lock, after `_read_on`."""
        tail = os.pread(handle, os.fstat(handle).st_size - self._offset, self._offset)
        if not tail:
            return
        found = parsed(tail.splitlines())
        if found[-1] and not lines_of_torn_action(found):
            # Only the end of the line is missing, as some editors leave it: the decisions are whole.
            read = self._offset
            self._write(handle, b"\n")
            self._offset = read
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
            decision = {**dict.fromkeys(DECISION_KEYS), "reason": "", **given, **made}
            # A reason that only looks like the part of an action becomes 1/1, or it would be taken for a torn one.
            if len(decisions) > 1 or PART_OF_ACTION.match(decision["reason"]):
                decision["reason"] = f"{kind}:{number + 1}/{len(decisions)} {decision['reason']}".rstrip()
            if not is_decision(decision, class_count):
                said = f"{decision['field']} {decision['old']!r} → {decision['new']!r}"
                raise ValueError(f"no decision about {decision['path']!r}: {said}")
            complete.append(decision)
        return complete

    def _next_time(self) -> str:
        now = datetime.now(UTC)
        if self.decisions:
            with contextlib.suppress(ValueError, TypeError):  # a foreign log's own way to write times
                now = max(now, datetime.fromisoformat(self.decisions[-1]["time"]) + timedelta(microseconds=1))
        return now.isoformat(timespec="microseconds")

    def _write(self, handle: int, content: bytes) -> None:
        """Append bytes and flush them; what an error leaves of them is cut off again."""
        end, rest = os.fstat(handle).st_size, content
        try:
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, end)
            raise
        self._offset = end + len(content)


def parsed(lines: list[bytes]) -> list[Decision | None]:
    """The decision of each line, None for one that holds none."""
    try:
        found = json.loads(b"[" + b",".join(lines) + b"]")  # all at once takes half the time
    except (ValueError, RecursionError):
        found = []
    if len(found) != len(lines):
        found = [None] * len(lines)
        for number, line in enumerate(lines):
            with contextlib.suppress(ValueError, RecursionError):
                found[number] = json.loads(line)
    class_count = labels.class_count()
    return [one if is_decision(one, class_count) else None for one in found]


def lines_of_torn_action(found: list[Decision | None]) -> int:
    """How many lines at the end belong to an action that was not written to its end; 0 as a rule."""
    numbers = PART_OF_ACTION.match(found[-1]["reason"]) if found and found[-1] else None
    if not numbers:
        return 0
    number, count = map(int, numbers.groups())
    return number if number < count and number <= len(found) else 0
