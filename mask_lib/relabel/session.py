"""What lies before an annotator: the modes, which photos wait in them, and all that a screen shows.

Relabeling without the screen: what each key press does. The screen draws `screen()` and sends keys.
"""

import io
import itertools
import os
import threading
import time
from collections import deque
from typing import Any

import pandas as pd
from PIL import Image, ImageOps

from mask_lib.base import files, labels
from mask_lib.data import photos
from mask_lib.relabel.decision_log import Action, Decision, DecisionLog, LogMovedOn, Worklog, words_of
from mask_lib.relabel.keys import ACTIONS, DIGITS, MODES, TITLES, Typed, attributes_of, keys_in_words, with_attributes
from mask_lib.relabel.photo_queue import Queue

UPCOMING, PREVIOUS, RECENT = 6, 3, 10  # photos and decisions that a screen holds
OPTIONS = {"only_unseen": True, "limit": None, "label": 0, "page_size": 24, "columns": 6}
PNG_WITH_ALPHA = b"\x06"  # the colour type in a PNG's header, its byte 25
LONGEST_PAUSE = 30.0  # seconds; a longer one is a break and does not count for the pace
PACE_OVER = 60  # the pace is that of the last keys
LEAST_PHOTOS, LEAST_SECONDS = 10, 10.0  # settled, and worked for, before a pace means anything
PERSON_FIELDS = ("gender", "age")  # the same on all photos of a person
ABOUT_PERSON = (*PERSON_FIELDS, "swap")  # suspicions that concern several photos of a person at once
EMPTY = {
    "inspect": "Every photo has been inspected.",
    "grid": "Every photo of this class has been looked at.",
    "review": "Nothing is marked wrong and undecided.",
    "relabel": "No confirmed photo lacks its new class.",
    "suspects": "No suspect is left.",
}


class Desk:
    """A photo table, a log and a queue of photos in one of the `MODES`; `session.Review` adds the keys."""

    MODES = MODES

    def __init__(
        self,
        photo_table: pd.DataFrame,
        log: DecisionLog,
        data_dir: str | os.PathLike[str],
        suspects: pd.DataFrame | None = None,
    ):
        """photo_table: train rows of the photo table; suspects: `path, field, current, suggested, score, why`.

        Raises ValueError for repeated paths, for paths outside the images folder and for suggestions
        that are no class.
        """
        if photo_table["path"].duplicated().any():
            raise ValueError("a photo stands twice in the table")
        if suspects is not None and not suspects["suggested"].isin(range(labels.CLASS_COUNT)).all():
            raise ValueError("suspects: `suggested` must be a class 0-17 in every row")
        rows = photo_table[["path", "person", "mask", "age", "label"]].to_dict("records")
        self._rows: dict[str, dict[str, Any]] = {row["path"]: row for row in rows}
        self._files = dict(zip(photo_table["path"], photos.files_of(data_dir, photo_table), strict=True))
        self._photos_of: dict[str, list[str]] = {}
        for row in rows:
            self._photos_of.setdefault(row["person"], []).append(row["path"])
        suspected = [] if suspects is None else suspects.drop_duplicates("path").to_dict("records")
        self._suspects = {row["path"]: row for row in suspected if row["path"] in self._rows}
        self.log, self._work = log, Worklog(log)
        self._lock = threading.RLock()
        self._presses: deque[tuple[float, int]] = deque(maxlen=PACE_OVER)  # when, and how many waited then
        self.start("inspect")

    # What the screen calls.

    def start(self, mode: str, **options: Any) -> dict[str, Any]:
        """Begin a mode with a fresh queue and give the screen.

        Options: `only_unseen` (True: photos that wait for nothing in this mode are left out),
        `limit` (so many photos at most), and for the grid `label` (0-17), `page_size`, `columns`.
        Raises ValueError for an unknown mode or option.
        """
        unknown = sorted(set(options) - set(OPTIONS))
        if mode not in MODES or unknown:
            raise ValueError(f"mode {mode!r}, options {unknown}: modes are {MODES}, options {sorted(OPTIONS)}")
        with self._lock:
            self._work.take_in()
            self._mode, self._options = mode, OPTIONS | options
            self._settle_down()
            paths = [path for path in self._candidates() if self._waits(path) or not self._options["only_unseen"]]
            size = max(1, int(self._options["page_size"])) if mode == "grid" else 1
            self._queue = Queue(paths[: self._options["limit"]], self._waits, size)
            self._presses.clear()  # each mode has a pace of its own
            self._message = "" if self._queue.waiting else EMPTY[mode]
            return self.screen()

    def screen(self) -> dict[str, Any]:
        """All that the screen needs, as plain JSON; every text in it is plain and not to be trusted."""
        with self._lock:
            self.refresh()
            queue, page = self._queue, self._queue.page() if self._mode == "grid" else []
            coming = queue.paths[queue.place + 1 :][:UPCOMING] if page else queue.upcoming(UPCOMING)
            return {
                "mode": self._mode,
                "title": self._title(),
                "position": queue.place,
                "total": len(queue.paths),
                "current": self._card(queue.current) if queue.current else None,
                "upcoming": [self._card(path) for path in coming],
                "previous": [self._card(path) for path in queue.previous(PREVIOUS)],
                "page": [{**self._card(path), "marked": self._value(path, "mark") == "wrong"} for path in page],
                "cursor": queue.place % queue.page_size,
                "columns": self._options["columns"],
                "recent": [recent(stroke) for stroke in reversed(self._work.strokes[-RECENT:])],
                "progress": self._progress(),
                "pending": self._typed.in_words(),
                "typed": self._typed.leads_to(self._label(queue.current)) if queue.current else [],
                "scope": "person" if self._is_for_person() else "photo",
                "keys": self.keys(),
                "message": self._message,
                "problems": list(self.log.problems),
                "version": self._work.seen,
            }

    def photo_bytes(self, path: str) -> tuple[bytes, str]:
        """A photo's bytes and MIME type: JPEG and PNG as they are, others as JPEG.

        Raises KeyError for a path that is not in the table, OSError for a file that cannot be read.
        """
        if path not in self._files:
            raise KeyError(f"no such photo in the table: {path}")
        return for_browser(self._files[path].read_bytes())

    def keys(self) -> list[list[str]]:
        """Keys and meaning, in pairs, in this mode."""
        return keys_in_words(self._mode)

    def refresh(self) -> bool:
        """Read on what others decided in the same log; True if there was anything."""
        with self._lock:
            news = self._work.take_in()
            was_waiting = self._queue.is_waiting()
            self._queue.look_again(news)
            if news and was_waiting and not self._queue.is_waiting() and self._mode != "grid":
                self._queue.advance()
            return bool(news)

    # What waits, and what is shown.

    def _candidates(self) -> list[str]:
        if self._mode == "grid":
            return [path for path in self._rows if self._label(path) == self._options["label"]]
        if self._mode == "review":
            return [path for path in self._rows if self._value(path, "mark") == "wrong"]
        if self._mode == "relabel":
            return [path for path in self._rows if self._value(path, "verdict") == "confirmed"]
        return list(self._suspects if self._mode == "suspects" else self._rows)

    def _waits(self, path: str) -> bool:
        mark, verdict = self._value(path, "mark"), self._value(path, "verdict")
        has_label = self._value(path, "label") is not None
        waits = {
            "inspect": mark is None,
            "grid": mark is None,
            "review": mark == "wrong" and verdict is None,
            "relabel": verdict == "confirmed" and not has_label,
            "suspects": mark != "right" and verdict != "drop" and not has_label,
        }[self._mode]
        return waits and not self._is_skipped(path)

    def _is_skipped(self, path: str) -> bool:
        # A photo skipped here still comes up elsewhere: the reason holds the mode.
        skips = self._work.standing.decisions(path, "skip")
        return any(made["new"] and made["reason"] == self._mode for made in skips)

    def _value(self, path: str, field: str) -> Any:
        return self._work.standing.value(path, field)

    def _label(self, path: str) -> int:
        decided = self._value(path, "label")
        return int(self._rows[path]["label"]) if decided is None else decided

    def _card(self, path: str) -> dict[str, Any]:
        row, suspect, label = self._rows[path], self._suspects.get(path, {}), self._label(path)
        suggested = suspect.get("suggested")
        return {
            "path": path,
            "person": row["person"],
            "label": label,
            "words": labels.describe(label),
            "age": None if pd.isna(row["age"]) else int(row["age"]),
            "mark": self._value(path, "mark"),
            "verdict": self._value(path, "verdict"),
            "flag": bool(self._value(path, "flag")),
            "why": str(suspect.get("why", "")),
            "suggested": None if suggested is None else int(suggested),
            "suggested_words": "" if suggested is None else labels.describe(suggested),
            "score": None if suspect.get("score") is None else float(suspect["score"]),
        }

    def _title(self) -> str:
        label = self._options["label"]
        return TITLES[self._mode].format(label=label, words=labels.describe(label))

    def _progress(self) -> dict[str, Any]:
        total, left, pace = len(self._queue.paths), self._queue.waiting, self._pace()
        minutes_left = left / pace if pace and left else None
        return {"done": total - left, "total": total, "per_minute": pace, "minutes_left": minutes_left}

    def _pace(self) -> float | None:
        """Photos settled a minute, breaks left out; None while too little was done to tell."""
        seconds, settled = 0.0, 0
        for (sooner, waiting), (later, still_waiting) in itertools.pairwise(self._presses):
            if later - sooner <= LONGEST_PAUSE:
                seconds, settled = seconds + later - sooner, settled + waiting - still_waiting
        return 60 * settled / seconds if settled >= LEAST_PHOTOS and seconds >= LEAST_SECONDS else None

    def _siblings(self, path: str | None) -> list[str]:
        """All photos of the person on a photo, that photo first."""
        if path is None:
            return []
        return [path, *(one for one in self._photos_of[self._rows[path]["person"]] if one != path)]

    def _is_for_person(self) -> bool:
        """Whether the next decision is for the whole person: as `P` says, else as the suspicion does."""
        if self._scope is not None:
            return self._scope
        suspect = self._suspects.get(self._queue.current or "", {})
        return self._mode == "suspects" and suspect.get("field") in ABOUT_PERSON

    def _settle_down(self) -> None:
        """Forget what was typed and for whom the next decision is."""
        self._typed, self._scope = Typed(), None


def for_browser(content: bytes) -> tuple[bytes, str]:
    """A photo's bytes in a form that browsers show, and its MIME type. Raises OSError for no photo."""
    if content.startswith(b"\xff\xd8\xff"):
        return content, "image/jpeg"
    # A browser would take a fourth channel, which may be a colour of its own, for transparency.
    if content.startswith(b"\x89PNG\r\n\x1a\n") and content[25:26] != PNG_WITH_ALPHA:
        return content, "image/png"
    with Image.open(io.BytesIO(content), formats=photos.FORMATS) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    encoded = io.BytesIO()
    upright.save(encoded, "JPEG", quality=92)
    return encoded.getvalue(), "image/jpeg"


def recent(stroke: Action) -> dict[str, Any]:
    """A stroke as a line of the screen's list."""
    first = stroke.decisions[0]
    return {"id": first["id"], "text": words_of(stroke), "path": first["path"], "undone": stroke.undone}


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
                accepted, self._message = False, refusal_text(reason)
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
        is_undo = ACTIONS[self._mode].get(key) == "undo"
        if news & near or (is_undo and before != self._work.seen):
            if self._mode != "grid" and not self._queue.is_waiting():
                self._queue.advance()
            raise Refused("Another tab or kernel has decided meanwhile; nothing was written. Look again.")
        if path != shown:
            raise Refused("This screen was out of date; nothing was written. Look again.")

    def _act(self, key: str) -> list[Decision]:
        action = ACTIONS[self._mode].get(key)
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
        if action == "right" and self._typed and key in DIGITS:
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
        self._message = words_of(Action(written))
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


def refusal_text(reason: Exception) -> str:
    """Why a key was refused, for people."""
    if isinstance(reason, LogMovedOn):
        return "Another tab or kernel has decided at the same moment; nothing was written. Look again."
    if isinstance(reason, OSError):
        return f"Nothing was written: {reason.strerror or reason}"
    return str(reason)
