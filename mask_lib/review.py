"""Relabeling without the screen: what each key press does. The screen draws `screen()` and sends keys."""

import time
from typing import Any

from mask_lib import files, keystrokes
from mask_lib.decisions import Decision, LogMovedOn
from mask_lib.desk import EMPTY, PERSON_FIELDS, Desk
from mask_lib.keystrokes import attributes_of, with_attributes
from mask_lib.standing import Stroke, words_of


class Refused(Exception):
    """A key that may not act; the text says why."""


class Review(Desk):
    """One annotator's work by key presses. Safe to use from several threads.

    All that was decided lives in the log. Two of these on one log, in two tabs or two kernels, see
    each other's decisions there: a key that was pressed on an outdated screen is refused.
    """

    def press(self, key: str, path: str | None, sequence: int) -> dict[str, Any]:
        """Act on one key that was pressed while the screen showed `path` (in the grid: under the cursor).

        Gives `sequence`, `accepted`, `message`, `decisions` (the ids written, on disk by now) and
        the new `screen`. Nothing is written for a key from an outdated screen, an unknown key, or
        when the photo or the log cannot be reached; `message` says why.
        """
        with self._lock:
            written: list[Decision] = []
            try:
                self._refuse_outdated(key, path)
                written = self._act(key)
                accepted = True
            except (Refused, LogMovedOn, OSError, ValueError) as reason:
                accepted, self._message = False, in_words(reason)
                self._settle_down()
            self._after(written)
            if accepted:
                self._presses.append((time.monotonic(), self._queue.waiting))
            answer = {"sequence": sequence, "accepted": accepted, "message": self._message}
            return {**answer, "decisions": [made["id"] for made in written], "screen": self.screen()}

    # What a key does.

    def _refuse_outdated(self, key: str, path: str | None) -> None:
        """Raise Refused if the screen that the key was pressed on does not show what now stands."""
        shown = self._queue.current
        near = set(self._queue.page() if self._mode == "grid" else self._siblings(shown))
        before = self._work.seen
        news = self._work.take_in()
        self._queue.look_again(news)
        is_undo = keystrokes.ACTIONS[self._mode].get(key) == "undo"
        if news & near or (is_undo and before != self._work.seen):
            if self._mode != "grid" and not self._queue.is_waiting():
                self._queue.advance()
            raise Refused("Another tab or kernel has decided meanwhile; nothing was written. Look again.")
        if path != shown:
            raise Refused("This screen was out of date; nothing was written. Look again.")

    def _act(self, key: str) -> list[Decision]:
        action = keystrokes.ACTIONS[self._mode].get(key)
        if not action:
            raise Refused(f"{key} means nothing here; ? shows the keys.")
        self._message = ""
        if action in ("back", "ahead", "cursor", "next_page", "previous_page", "page_right", "undo", "clear", "person"):
            return self._act_on_queue(action, key)
        path = self._queue.current
        if path is None:
            raise Refused("There is no photo here. " + EMPTY[self._mode])
        return self._act_on_photo(action, key, path)

    def _act_on_queue(self, action: str, key: str) -> list[Decision]:
        columns = int(self._options["columns"])
        steps = {"ArrowLeft": -1, "ArrowRight": 1, "ArrowUp": -columns, "ArrowDown": columns}
        if action == "undo":
            return self._undo()
        if action == "page_right":
            return self._page_right()
        if action == "person":
            self._scope = not self._is_for_person()
        elif action == "clear":
            self._settle_down()
        elif action in ("next_page", "previous_page"):
            self._queue.turn_page(1 if action == "next_page" else -1)
        else:
            if action == "cursor" and not 0 <= self._queue.place + steps[key] < len(self._queue.paths):
                return []
            self._settle_down()
            self._queue.move(steps[key])
        return []

    def _act_on_photo(self, action: str, key: str, path: str) -> list[Decision]:
        if action == "digit":
            label = self._typed.take_digit(key)
            return [] if label is None else self._set_attributes(path, attributes_of(label))
        if action == "attribute":
            self._typed.take_attribute(key)
            return []
        if action == "right" and self._typed and key in keystrokes.DIGITS:
            return self._act_on_photo("digit", key, path)
        if action == "enter":
            return self._enter(path)
        if action == "swap":
            return self._decide(self._swapped(path))
        if action == "flag":
            self._message = "Flagged." if not self._value(path, "flag") else "The flag is off."
            return self._work.write([self._change(path, "flag", not self._value(path, "flag"))])
        if action == "toggle":
            marked = self._value(path, "mark") == "wrong"
            return self._work.write([self._change(path, "mark", None if marked else "wrong")])
        return self._decide(self._plain_changes(action, path))

    def _plain_changes(self, action: str, path: str) -> list[Decision]:
        """The changes of the keys that are one decision: wrong, right, confirm, drop, skip."""
        if action == "right":
            return self._right(path)
        field, new = {
            "wrong": ("mark", "wrong"),
            "confirm": ("verdict", "confirmed"),
            "drop": ("verdict", "drop"),
            "skip": ("skip", True),
        }[action]
        is_for_person = action == "drop" and self._scope is True  # never by default: dropping is coarse
        return [self._change(one, field, new) for one in (self._siblings(path) if is_for_person else [path])]

    def _right(self, path: str) -> list[Decision]:
        """The label is right: of this photo, or of all the person's photos that are suspected of the same."""
        paths = [path]
        if self._is_for_person():
            field = self._suspects.get(path, {}).get("field")
            paths += [
                one
                for one in self._siblings(path)[1:]
                if self._mode != "suspects" or (self._waits(one) and self._suspects.get(one, {}).get("field") == field)
            ]
        changes = [self._change(one, "mark", "right") for one in paths]
        # A photo that was confirmed as wrong must not come up for relabeling again.
        return changes + [self._change(one, "verdict", None) for one in paths if self._value(one, "verdict")]

    def _enter(self, path: str) -> list[Decision]:
        if self._typed:
            return self._set_attributes(path, self._typed.complete())
        suspect = self._suspects.get(path)
        if self._mode != "suspects" or suspect is None:
            raise Refused("Type a class or an attribute first.")
        if int(suspect["suggested"]) == self._label(path):
            return self._decide(self._right(path))
        if suspect["field"] == "swap":
            return self._decide(self._swapped(path))
        suggested = attributes_of(int(suspect["suggested"]))
        field = suspect["field"]
        return self._set_attributes(path, {field: suggested[field]} if field in suggested else suggested)

    def _set_attributes(self, path: str, attributes: dict[str, int]) -> list[Decision]:
        """Give a photo attributes; those of the person go to all the person's photos if it is for the person."""
        changes = [self._change(path, "label", with_attributes(self._label(path), attributes))]
        of_person = {name: value for name, value in attributes.items() if name in PERSON_FIELDS}
        for one in self._siblings(path)[1:] if self._is_for_person() else []:
            label = with_attributes(self._label(one), of_person)
            if label != self._label(one):
                changes.append(self._change(one, "label", label))
        return self._decide(changes)

    def _swapped(self, path: str) -> list[Decision]:
        """Exchange the mask parts of the labels of a person's normal and incorrect photo."""
        pair = [one for one in self._siblings(path) if self._rows[one]["mask"] in ("incorrect", "not_worn")]
        if sorted(self._rows[one]["mask"] for one in pair) != ["incorrect", "not_worn"]:
            raise Refused("A swap needs exactly one normal and one incorrect photo of this person.")
        masks = [attributes_of(self._label(one))["mask"] for one in pair]
        return [
            self._change(one, "label", with_attributes(self._label(one), {"mask": mask}))
            for one, mask in zip(pair, reversed(masks), strict=True)
        ]

    def _page_right(self) -> list[Decision]:
        page = [path for path in self._queue.page() if self._value(path, "mark") is None]
        written = self._work.write([self._change(path, "mark", "right") for path in page], kind="page")
        self._message = f"{len(page)} photos are right."
        self._queue.turn_page(1)
        return written

    def _undo(self) -> list[Decision]:
        if self._typed:
            self._settle_down()
            return []
        stroke = self._work.last_stroke()
        if stroke is None:
            raise Refused("There is nothing left to undo.")
        written = self._work.undo(stroke)
        self._settle_down()
        self._message = f"Undone: {words_of(stroke)}"
        self._queue.look_again(made["path"] for made in written)
        first = written[0]["path"]
        if first in self._rows and (first in self._queue or self._mode != "grid"):
            self._queue.go_to(first)
        return written

    def _decide(self, changes: list[Decision]) -> list[Decision]:
        """Write one stroke about the current photo, and go on to the next."""
        persons = {self._rows[change["path"]]["person"] for change in changes}
        kind = "person" if len(changes) > 1 and len(persons) == 1 else "stroke"
        written = self._work.write(changes, kind=kind)
        self._message = words_of(Stroke(written))
        self._settle_down()
        self._queue.look_again(made["path"] for made in written)
        self._queue.advance()
        return written

    def _after(self, written: list[Decision]) -> None:
        self._queue.look_again(made["path"] for made in written)
        if not self._queue.waiting and written and written[0]["undoes"] is None:
            self._message = f"{self._message} {EMPTY[self._mode]}".strip()

    def _change(self, path: str, field: str, new: Any) -> Decision:
        suspect = self._suspects.get(path, {}) if self._mode == "suspects" else {}
        return {
            "path": path,
            "field": field,
            "old": self._label(path) if field == "label" else self._value(path, field),
            "new": new,
            "reason": self._mode,
            "source_score": float(suspect["score"]) if suspect else None,
            "sha256": files.file_digest(self._files[path]),
        }


def in_words(reason: Exception) -> str:
    """Why a key was refused, for people."""
    if isinstance(reason, LogMovedOn):
        return "Another tab or kernel has decided at the same moment; nothing was written. Look again."
    if isinstance(reason, OSError):
        return f"Nothing was written: {reason.strerror or reason}"
    return str(reason)
