"""What a log's decisions come to: the current one on each photo and field, and the actions that undo takes back."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from mask_lib.base import labels
from mask_lib.relabel.decision_log import Decision, DecisionLog


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


def replay(decisions: Iterable[Decision]) -> dict[str, dict[str, Any]]:
    """The state that decisions lead to: path -> field -> current value, nulls left out."""
    state: dict[str, dict[str, Any]] = {}
    for _, last in CurrentDecisions(decisions).first_and_last():
        if last["new"] is not None:
            state.setdefault(last["path"], {})[last["field"]] = last["new"]
    return state


@dataclasses.dataclass
class Action:
    """What one key press wrote: decisions with one `time`."""

    decisions: list[Decision]
    is_undone: bool = False


class DecisionHistory:
    """The current decisions and the actions of a log, kept up to date as it grows.

    `length` is the number of decisions taken in: writing builds on exactly these.
    """

    def __init__(self, log: DecisionLog):
        self.log = log
        self._clear()
        self.update()

    def _clear(self) -> None:
        self.current, self.actions, self.length = CurrentDecisions(), [], 0
        self._action_of: dict[str, Action] = {}  # by the ids of its decisions
        self._generation = self.log.generation

    def update(self) -> set[str]:
        """Take in what was appended since; the photos it concerns."""
        self.log.refresh()
        paths: set[str] = set()
        if self.log.generation != self._generation:  # the file was replaced: all that was known may be different
            paths = {decision["path"] for action in self.actions for decision in action.decisions}
            self._clear()
        new = self.log.decisions[self.length :]
        self._add(new)
        return paths | {decision["path"] for decision in new}

    def write(self, changes: list[Decision], kind: str = "action") -> list[Decision]:
        """Append changes as one action, on disk when this returns.

        Raises LogMovedOn if somebody else wrote meanwhile, and what `DecisionLog.append` raises.
        """
        written = self.log.append(changes, expected=self.length, kind=kind)
        self._add(written)
        return written

    def last_action(self) -> Action | None:
        """The last action that was not undone."""
        return next((action for action in reversed(self.actions) if not action.is_undone), None)

    def undo(self, action: Action) -> list[Decision]:
        """Append the reversal of an action."""
        changes = [
            {key: made[key] for key in ("path", "field", "source_score", "sha256")}
            | {"old": made["new"], "new": made["old"], "reason": "undo", "undoes": made["id"]}
            for made in action.decisions
        ]
        return self.write(changes, kind="undo")

    def _add(self, decisions: list[Decision]) -> None:
        self.length += len(decisions)
        for decision in decisions:
            self.current.add(decision)
            last = self.actions[-1] if self.actions else None
            if undone := self._action_of.get(decision["undoes"]):
                undone.is_undone = True
            elif decision["undoes"] is None:
                if not last or last.decisions[0]["time"] != decision["time"]:
                    last = Action([])
                    self.actions.append(last)
                last.decisions.append(decision)
                self._action_of[decision["id"]] = last


def action_summary(decisions: list[Decision]) -> str:
    """What an action decided: `male → female (7 photos)`, `incorrect ↔ not worn (2 photos)`."""
    first, last, count = decisions[0], decisions[-1], len({made["path"] for made in decisions})
    text = decision_summary(first)
    if count == 2 and (first["old"], first["new"]) == (last["new"], last["old"]):
        text = text.replace("→", "↔")
    return f"{text} ({count} photos)" if count > 1 else text


def decision_summary(made: Decision) -> str:
    """What one decision says: `label wrong`, `flagged`, `male 30-59 → female <30`."""
    field, old, new = made["field"], made["old"], made["new"]
    if field == "label":
        return f"class {labels.describe(new)}" if old in (None, new) else class_change(old, new)
    if field in ("flag", "skip"):
        return {"flag": "flagged", "skip": "skipped"}[field] if new else f"no longer {field}"
    if new is None:
        return f"no longer {old}"
    return {"right": "label right", "wrong": "label wrong", "confirmed": "wrong, confirmed", "drop": "dropped"}[new]


def class_change(old: int, new: int) -> str:
    """The attributes in which two classes differ: `male 30-59 → female <30`."""
    pairs = zip(labels.attributes(), labels.decode(old), labels.decode(new), strict=True)
    changed = [(one.words[before], one.words[after]) for one, before, after in pairs if before != after]
    return " → ".join(" ".join(side) for side in zip(*changed, strict=True))
