"""What stands after the decisions of a log, and the strokes that undo walks back through."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from mask_lib import labels
from mask_lib.decisions import Decision, DecisionLog

WORDS = (labels.MASK_WORDS, labels.GENDER_WORDS, labels.AGE_WORDS)


class Standing:
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
    for _, last in Standing(decisions).first_and_last():
        if last["new"] is not None:
            state.setdefault(last["path"], {})[last["field"]] = last["new"]
    return state


@dataclasses.dataclass
class Stroke:
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
        self.standing, self.strokes, self.seen = Standing(), [], 0
        self._stroke_of: dict[str, Stroke] = {}
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

    def last_stroke(self) -> Stroke | None:
        """The last stroke that was not undone."""
        return next((stroke for stroke in reversed(self.strokes) if not stroke.undone), None)

    def undo(self, stroke: Stroke) -> list[Decision]:
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
            last = Stroke([decision])
            self.strokes.append(last)
        self._stroke_of[decision["id"]] = last


def words_of(stroke: Stroke) -> str:
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
