"""What lies before an annotator: the modes, which photos wait in them, and all that a screen shows."""

import io
import itertools
import os
import threading
from collections import deque
from typing import Any

import pandas as pd
from PIL import Image, ImageOps

from mask_lib import keystrokes, labels, photos
from mask_lib.decisions import DecisionLog
from mask_lib.keystrokes import MODES, Typed
from mask_lib.queues import Queue
from mask_lib.standing import Stroke, Worklog, words_of

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
    """A photo table, a log and a queue of photos in one of the `MODES`; `review.Review` adds the keys."""

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
        return keystrokes.keys_in_words(self._mode)

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
        return keystrokes.TITLES[self._mode].format(label=label, words=labels.describe(label))

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


def recent(stroke: Stroke) -> dict[str, Any]:
    """A stroke as a line of the screen's list."""
    first = stroke.decisions[0]
    return {"id": first["id"], "text": words_of(stroke), "path": first["path"], "undone": stroke.undone}
