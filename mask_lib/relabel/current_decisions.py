"""What decisions come to: the current one on each photo and field, and the actions that undo takes back."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from mask_lib.base import labels

Decision = dict[str, Any]  # see decision_log.DECISION_KEYS
SUMMARIES = {
    **{"right": "label right", "wrong": "label wrong", "confirmed": "wrong, confirmed", "drop": "dropped"},
    **{"flag": "flagged", "skip": "skipped"},
}


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
    if field == "label" and old in (None, new):
        return f"class {labels.describe(new)}"
    if field == "label":
        pairs = zip(labels.attributes(), labels.decode(old), labels.decode(new), strict=True)
        changed = [(one.words[before], one.words[after]) for one, before, after in pairs if before != after]
        return " → ".join(" ".join(side) for side in zip(*changed, strict=True))
    if not new:
        return f"no longer {old if field in ('mark', 'verdict') else field}"
    return SUMMARIES[new if field in ("mark", "verdict") else field]
