"""What is known and decided of each photo, and a queue that one works through, looks back in and comes back to."""

import io
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mask_lib.base import files, labels
from mask_lib.data import photos
from mask_lib.relabel.decision_log import Decision, DecisionLog

PNG_WITH_ALPHA = b"\x06"  # the colour type in a PNG's header, its byte 25
LONGEST_PAUSE = 30.0  # seconds; a longer one is a break and does not count for the pace
LEAST_PHOTOS, LEAST_SECONDS = 10, 10.0  # settled, and worked for, before a pace means anything


class PhotoStates:
    """A photo table and its suspects beside the decisions of one log, as they are in the mode `mode`."""

    def __init__(self, photo_table: pd.DataFrame, log: DecisionLog, data_dir: Path, suspects: pd.DataFrame | None):
        """photo_table, suspects and errors as in `session.Session`."""
        rows = photo_table.set_index("path")
        if rows.index.has_duplicates:
            raise ValueError("a photo stands twice in the table")
        self.log, self.mode = log, "inspect"
        self.paths = list(rows.index)
        self.files = dict(zip(self.paths, photos.files_of(data_dir, photo_table), strict=True))
        self.given, self.person = rows["label"].astype("int64").to_dict(), rows["person"].to_dict()
        self._photos_of = photo_table.groupby("person")["path"].agg(list).to_dict()
        number = labels.number()
        self._numbers = rows[number.name].to_dict() if number and number.name in rows else {}
        suspected = [] if suspects is None else suspects.drop_duplicates("path").to_dict("records")
        self.suspects = {row["path"]: row for row in suspected if row["path"] in self.files}

    def value(self, path: str, field: str) -> Any:
        """What was decided on a field of a photo, None if nothing."""
        return self.log.current.value(path, field)

    def label(self, path: str) -> int:
        """The class that was decided on, else the given one."""
        decided = self.value(path, "label")
        return self.given[path] if decided is None else decided

    def same_person(self, path: str) -> list[str]:
        """All photos of the person on a photo, that photo first."""
        return [path, *(one for one in self._photos_of[self.person[path]] if one != path)]

    def candidates(self, label: int) -> list[str]:
        """The photos that the mode is about, decided on or not; `label` is the class of the grid."""
        if self.mode == "grid":
            return [path for path in self.paths if self.label(path) == label]
        if self.mode == "review":
            return [path for path in self.paths if self.value(path, "mark") == "wrong"]
        if self.mode == "relabel":
            return [path for path in self.paths if self.value(path, "verdict") == "confirmed"]
        return list(self.suspects if self.mode == "suspects" else self.paths)

    def waits(self, path: str) -> bool:
        """Whether a photo waits for a decision in the mode."""
        mark, verdict = self.value(path, "mark"), self.value(path, "verdict")
        has_label = self.value(path, "label") is not None
        waits = {
            "inspect": mark is None,
            "grid": mark is None,
            "review": mark == "wrong" and verdict is None,
            "relabel": verdict == "confirmed" and not has_label,
            "suspects": mark != "right" and verdict != "drop" and not has_label,
        }[self.mode]
        # A photo skipped here still comes up elsewhere: the reason of a skip is the mode.
        skips = self.log.current.all_on(path, "skip")
        return waits and not any(made["new"] and made["reason"] == self.mode for made in skips)

    def change(self, path: str, field: str, new: Any) -> Decision:
        """The decision that gives a field of a photo a new value. Raises OSError if the photo cannot be read."""
        return {
            "path": path,
            "field": field,
            "old": self.label(path) if field == "label" else self.value(path, field),
            "new": new,
            "reason": self.mode,
            "source_score": self.suspects.get(path, {}).get("score") if self.mode == "suspects" else None,
            "sha256": files.file_digest(self.files[path]),
        }

    def card(self, path: str) -> dict[str, Any]:
        """What a screen shows of a photo, as plain JSON."""
        suspect, number = self.suspects.get(path, {}), self._numbers.get(path)
        return {
            "path": path,
            "person": self.person[path],
            "label": self.label(path),
            "number": "" if pd.isna(number) else f"{labels.number().name} {int(number)}",
            "mark": self.value(path, "mark"),
            "verdict": self.value(path, "verdict"),
            "flag": bool(self.value(path, "flag")),
            "why": suspect.get("why", ""),
            "suggested": suspect.get("suggested"),
            "score": suspect.get("score"),
        }

    def photo_bytes(self, path: str) -> tuple[bytes, str]:
        """The bytes and MIME type, JPEG or PNG. Raises KeyError for unknown paths, OSError for unreadable files."""
        content = files.regular(self.files[path]).read_bytes()
        if content.startswith(b"\xff\xd8\xff"):
            return content, "image/jpeg"
        # A browser would take a fourth channel, which may be a colour of its own, for transparency.
        if content.startswith(b"\x89PNG\r\n\x1a\n") and content[25:26] != PNG_WITH_ALPHA:
            return content, "image/png"
        encoded = io.BytesIO()
        with photos.open_photo(content) as image:
            image.convert("RGB").save(encoded, "JPEG", quality=92)
        return encoded.getvalue(), "image/jpeg"


class Queue:
    """Photos in order, a place among them or behind the last, and which of them wait for a decision, by `waits`."""

    def __init__(self, paths: list[str], waits: Callable[[str], bool], page_size: int = 1):
        self.page_size, self._waits = page_size, waits
        self._fill(paths)
        self.place = int(self._is_waiting.argmax()) if self.waiting else len(self.paths)

    def _fill(self, paths: list[str]) -> None:
        self.paths = paths
        self._place_of = {path: place for place, path in enumerate(paths)}
        self._is_waiting = np.array([self._waits(path) for path in paths], dtype=bool)

    @property
    def current(self) -> str | None:
        """The photo at the place, None behind the last."""
        return self.paths[self.place] if self.place < len(self.paths) else None

    @property
    def waiting(self) -> int:
        """How many photos still wait."""
        return int(self._is_waiting.sum())

    def is_waiting(self) -> bool:
        """Whether the photo at the place waits."""
        return self.place < len(self.paths) and bool(self._is_waiting[self.place])

    def update(self, paths: Iterable[str]) -> None:
        """Ask anew whether these photos wait, where that may have changed; unknown ones are passed over."""
        for path in self._place_of.keys() & paths:
            self._is_waiting[self._place_of[path]] = self._waits(path)

    def upcoming(self, count: int) -> list[str]:
        """The next photos that wait, up to `count`."""
        start = self.place + 1
        return [self.paths[start + step] for step in np.flatnonzero(self._is_waiting[start:])[:count]]

    def page(self) -> list[str]:
        """The photos of the page that the place is on."""
        start = self.place // self.page_size * self.page_size
        return self.paths[start : start + self.page_size]

    def advance(self) -> None:
        """Go to the next photo that waits; behind the last one of them, to the first; else to the end."""
        waiting = np.flatnonzero(self._is_waiting)
        self.place = int(np.r_[waiting[waiting > self.place], waiting, len(self.paths)][0])

    def move(self, steps: int) -> None:
        """Move the place without leaving the queue; one step behind the last photo is its end."""
        self.place = min(max(0, self.place + steps), len(self.paths))

    def turn_page(self, pages: int) -> None:
        """Go to the first photo of another page, the end behind the last page."""
        self.place = min(max(0, self.place // self.page_size + pages) * self.page_size, len(self.paths))

    def go_to(self, path: str) -> None:
        """Show this photo next; one that is not in the queue is put in at the place."""
        if path not in self._place_of:
            self._fill([*self.paths[: self.place], path, *self.paths[self.place :]])
        self.place = self._place_of[path]

    def progress(self, presses: Iterable[tuple[float, int]]) -> dict[str, Any]:
        """`done` and `total` photos, and, None while too little was done to tell, `per_minute` and `minutes_left`.

        presses: per key press the time in seconds, and how many photos still waited after it. Breaks are left out.
        """
        seconds, settled = 0.0, 0
        for (sooner, waiting), (later, still_waiting) in itertools.pairwise(presses):
            if later - sooner <= LONGEST_PAUSE:
                seconds, settled = seconds + later - sooner, settled + waiting - still_waiting
        pace = 60 * settled / seconds if settled >= LEAST_PHOTOS and seconds >= LEAST_SECONDS else None
        total, left = len(self.paths), self.waiting
        minutes_left = left / pace if pace and left else None
        return {"done": total - left, "total": total, "per_minute": pace, "minutes_left": minutes_left}
