"""One annotator at work: what lies on the screen, and what each key press does."""

import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import pandas as pd

from mask_lib.base import labels
from mask_lib.relabel import keys
from mask_lib.relabel.decision_log import Action, Decision, DecisionLog, LogMovedOn
from mask_lib.relabel.photo_queue import PhotoStates, Queue

UPCOMING, PREVIOUS, RECENT = 6, 3, 10  # photos and decisions that a screen holds
OPTIONS = {"only_unseen": True, "label": 0, "page_size": 24, "columns": 6}
PACE_OVER = 60  # the pace is that of the last keys
EMPTY = {
    "inspect": "Every photo has been inspected.",
    "grid": "Every photo of this class has been looked at.",
    "review": "Nothing is marked wrong and undecided.",
    "relabel": "No confirmed photo lacks its new class.",
    "suspects": "No suspect is left.",
}
WITHOUT_PHOTO = ("back", "ahead", "cursor", "next_page", "previous_page", "page_right", "undo", "clear", "person")
ONE_DECISION = {  # actions that write one decision, and go on to the next photo
    "wrong": ("mark", "wrong"),
    "confirm": ("verdict", "confirmed"),
    "drop": ("verdict", "drop"),
    "skip": ("skip", True),
}


class Session:
    """One annotator's work by key presses, safe to use from several threads and several times on one log."""

    def __init__(self, photos: pd.DataFrame, log: DecisionLog, data_dir: Path, suspects: pd.DataFrame | None = None):
        """photos: train rows of the photo table, columns `path, person, label, split` and the numeric attribute's.

        suspects: of `suspects.rank`. Raises ValueError for repeated paths and paths outside the images folder.
        """
        self.log, self.photos = log, PhotoStates(photos, log, data_dir, suspects)
        self._swap = keys.swap_of(photos)
        self._lock = threading.RLock()
        self._presses: deque[tuple[float, int]] = deque(maxlen=PACE_OVER)  # when, and how many waited then
        self.start("inspect")

    def start(self, mode: str, **options: Any) -> dict[str, Any]:
        """Begin a mode, one of `keys.MODES`, with a fresh queue and give the screen.

        Options: `only_unseen` (without photos that wait for nothing), and for the grid `label` (a class), `page_size`,
        `columns`. Raises ValueError for an unknown mode or option.
        """
        unknown = sorted(set(options) - set(OPTIONS))
        if mode not in keys.MODES or unknown:
            raise ValueError(f"mode {mode!r}, options {unknown}: modes are {keys.MODES}, options {sorted(OPTIONS)}")
        with self._lock:
            self.log.refresh()
            self._mode, self.photos.mode, self._options = mode, mode, OPTIONS | options
            self._keys, self._actions = keys.key_meanings(mode, self._swap), keys.actions(mode, self._swap)
            self._forget_typed()
            paths = self.photos.candidates(self._options["label"])
            if self._options["only_unseen"]:
                paths = list(filter(self.photos.waits, paths))
            size = max(1, int(self._options["page_size"])) if mode == "grid" else 1
            self._queue = Queue(paths, self.photos.waits, size)
            self._presses.clear()  # each mode has a pace of its own
            self._message = "" if self._queue.waiting else EMPTY[mode]
            return self.screen()

    def screen(self) -> dict[str, Any]:
        """All that the screen needs, as plain JSON; every text in it is plain and not to be trusted."""
        with self._lock:
            self._read_others()
            queue, card, label = self._queue, self.photos.card, self._options["label"]
            page = queue.page() if self._mode == "grid" else []
            coming = queue.paths[queue.place + 1 :][:UPCOMING] if page else queue.upcoming(UPCOMING)
            return {
                "mode": self._mode,
                "title": keys.TITLES[self._mode].format(label=label, words=labels.describe(label)),
                "position": queue.place,
                "current": card(queue.current) if queue.current else None,
                "upcoming": [card(path) for path in coming],
                "previous": [card(path) for path in queue.paths[max(0, queue.place - PREVIOUS) : queue.place]],
                "page": [card(path) for path in page],
                "cursor": queue.place % queue.page_size,
                "columns": self._options["columns"],
                "recent": [action.line() for action in reversed(self.log.actions[-RECENT:])],
                "progress": queue.progress(self._presses),
                "pending": self._typed.summary(),
                "typed": self._typed.leads_to(self.photos.label(queue.current)) if queue.current else [],
                "scope": "person" if self._is_for_person() else "photo",
                "keys": self._keys,
                "actions": self._actions,
                "message": self._message,
                "problems": list(self.log.problems),
                "version": len(self.log.decisions),
            }

    def _read_others(self) -> set[str]:
        """Take in what others decided in the same log, about these photos; one that they settled is shown no more."""
        was_waiting, news = self._queue.is_waiting(), self.log.refresh()
        self._queue.update(news)
        if news and was_waiting and not self._queue.is_waiting() and self._mode != "grid":
            self._queue.advance()
        return news

    def _is_for_person(self) -> bool:
        """Whether the next decision is for the whole person: as `P` says, else as the suspicion does."""
        if self._scope is not None:
            return self._scope
        suspect = self.photos.suspects.get(self._queue.current, {})
        return self._mode == "suspects" and suspect.get("field") in (*labels.names(of_person=True), "swap")

    def _forget_typed(self) -> None:
        self._typed, self._scope = keys.Typed(), None

    def press(self, key: str, path: str | None, sequence: int) -> dict[str, Any]:
        """Act on one key that was pressed while the screen showed `path` (in the grid: under the cursor).

        Gives `sequence`, `accepted` (else nothing is written), `message`, `decisions` (ids, on disk by now), `screen`.
        """
        with self._lock:
            written, accepted = [], True
            try:
                self._refuse_outdated(key, path)
                written = self._act(key)
            except (LogMovedOn, OSError, ValueError) as error:
                accepted, self._message = False, str(error)
                if isinstance(error, OSError):
                    self._message = f"Nothing was written: {error.strerror or error}"
                self._forget_typed()
            if not self._queue.waiting and written and written[0]["undoes"] is None:
                self._message = f"{self._message} {EMPTY[self._mode]}".strip()
            if accepted:
                self._presses.append((time.monotonic(), self._queue.waiting))
            answer = {"sequence": sequence, "accepted": accepted, "message": self._message}
            return {**answer, "decisions": [made["id"] for made in written], "screen": self.screen()}

    def _refuse_outdated(self, key: str, path: str | None) -> None:
        """Raise ValueError if the screen that the key was pressed on does not show what is decided by now."""
        shown = self._queue.current
        near = self._queue.page() if self._mode == "grid" else self.photos.same_person(shown) if shown else []
        news = self._read_others()
        if news.intersection(near) or (news and self._actions.get(key) == "undo"):
            raise ValueError("Another tab or kernel has decided meanwhile; nothing was written. Look again.")
        if path != shown:
            raise ValueError("This screen was out of date; nothing was written. Look again.")

    def _act(self, key: str) -> list[Decision]:
        action, path = self._actions.get(key), self._queue.current
        if not action:
            raise ValueError(f"{key} means nothing here; ? shows the keys.")
        self._message = ""
        if action in WITHOUT_PHOTO:
            return self._act_on_queue(action, key)
        if path is None:
            raise ValueError("There is no photo here. " + EMPTY[self._mode])
        if action == "digit" or (action == "right" and self._typed and key in keys.DIGITS):
            label = self._typed.take_digit(key)
            return [] if label is None else self._decide(self._with_values(path, labels.values_of(label)))
        if action == "attribute":
            self._typed.take_attribute(key)
            return []
        return self._act_on_photo(action, path)

    def _act_on_queue(self, action: str, key: str) -> list[Decision]:
        columns = int(self._options["columns"])
        steps = {"ArrowLeft": -1, "ArrowRight": 1, "ArrowUp": -columns, "ArrowDown": columns}
        if action == "undo" and not self._typed:
            return self._undo()
        if action == "page_right":
            return self._page_right()
        if action == "person":
            self._scope = not self._is_for_person()
        elif action in ("clear", "undo"):
            self._forget_typed()
        elif action in ("next_page", "previous_page"):
            self._queue.turn_page(1 if action == "next_page" else -1)
        elif action != "cursor" or 0 <= self._queue.place + steps[key] < len(self._queue.paths):
            self._forget_typed()
            self._queue.move(steps[key])
        return []

    def _act_on_photo(self, action: str, path: str) -> list[Decision]:
        change, value = self.photos.change, self.photos.value
        if found := {"enter": self._entered, "swap": self._swapped, "right": self._right}.get(action):
            return self._decide(found(path))
        if action == "flag":
            self._message = "The flag is off." if value(path, "flag") else "Flagged."
            return self._write([change(path, "flag", not value(path, "flag"))])
        if action == "toggle":
            return self._write([change(path, "mark", None if value(path, "mark") == "wrong" else "wrong")])
        is_for_person = action == "drop" and self._scope is True  # never by default: dropping is coarse
        paths = self.photos.same_person(path) if is_for_person else [path]
        return self._decide([change(one, *ONE_DECISION[action]) for one in paths])

    def _right(self, path: str) -> list[Decision]:
        """The label is right: of this photo, or of all the person's photos that are suspected of the same."""
        paths, suspects, others = [path], self.photos.suspects, self.photos.same_person(path)[1:]
        if self._is_for_person() and self._mode == "suspects":
            field = suspects.get(path, {}).get("field")
            others = [one for one in others if self.photos.waits(one) and suspects.get(one, {}).get("field") == field]
        paths += others if self._is_for_person() else []
        # A photo that was confirmed as wrong must not come up for relabeling again.
        confirmed = [one for one in paths if self.photos.value(one, "verdict")]
        changes = [self.photos.change(one, "mark", "right") for one in paths]
        return changes + [self.photos.change(one, "verdict", None) for one in confirmed]

    def _entered(self, path: str) -> list[Decision]:
        """What was typed, else what is suggested."""
        if self._typed:
            return self._with_values(path, self._typed.complete())
        suspect = self.photos.suspects.get(path)
        if self._mode != "suspects" or suspect is None:
            raise ValueError("Type a class or an attribute first.")
        if suspect["suggested"] == self.photos.label(path):
            return self._right(path)
        if suspect["field"] == "swap":
            return self._swapped(path)
        suggested, field = labels.values_of(suspect["suggested"]), suspect["field"]
        return self._with_values(path, {field: suggested[field]} if field in suggested else suggested)

    def _with_values(self, path: str, values: dict[str, int]) -> list[Decision]:
        """Give a photo values of attributes; those of the person go to all the person's photos if it is for them."""
        label, changes = self.photos.label, []
        of_person = {name: value for name, value in values.items() if name in labels.names(of_person=True)}
        for one in self.photos.same_person(path) if self._is_for_person() else [path]:
            new = labels.with_values(label(one), values if one == path else of_person)
            if one == path or new != label(one):
                changes.append(self.photos.change(one, "label", new))
        return changes

    def _swapped(self, path: str) -> list[Decision]:
        """Exchange the values of a person's two photos that `keys.swap_of` is about."""
        name, values, words = self._swap
        given = {one: labels.values_of(self.photos.given[one])[name] for one in self.photos.same_person(path)}
        pair = [one for one, value in given.items() if value in values]
        if sorted(given[one] for one in pair) != sorted(values):
            raise ValueError("A swap needs exactly one {} and one {} photo of this person.".format(*words))
        moved = [labels.values_of(self.photos.label(one))[name] for one in reversed(pair)]
        return [
            self.photos.change(one, "label", labels.with_values(self.photos.label(one), {name: value}))
            for one, value in zip(pair, moved, strict=True)
        ]

    def _page_right(self) -> list[Decision]:
        page = [path for path in self._queue.page() if self.photos.value(path, "mark") is None]
        written = self._write([self.photos.change(path, "mark", "right") for path in page], "page")
        self._message = f"{len(page)} photos are right."
        self._queue.turn_page(1)
        return written

    def _undo(self) -> list[Decision]:
        action = next((one for one in reversed(self.log.actions) if not one.is_undone), None)
        if action is None:
            raise ValueError("There is nothing left to undo.")
        written = self._write(action.reversal(), "undo")
        self._forget_typed()
        self._message = f"Undone: {action.summary()}"
        first = written[0]["path"]
        if first in self.photos.files and (first in self._queue.paths or self._mode != "grid"):
            self._queue.go_to(first)
        return written

    def _decide(self, changes: list[Decision]) -> list[Decision]:
        """Write one action about the current photo, and go on to the next."""
        written = self._write(changes, "person")
        self._message = Action(written).summary()
        self._forget_typed()
        self._queue.advance()
        return written

    def _write(self, changes: list[Decision], kind: str = "action") -> list[Decision]:
        written = self.log.append(changes, kind, if_refreshed=True)
        self._queue.update(made["path"] for made in written)
        return written
