"""A queue of photos that one works through, looks back in, and comes back to after an undo."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

LONGEST_PAUSE = 30.0  # seconds; a longer one is a break and does not count for the pace
LEAST_PHOTOS, LEAST_SECONDS = 10, 10.0  # settled, and worked for, before a pace means anything


class Queue:
    """Photos in order, a place among them or behind the last, and which of them still wait for a decision.

    `waits` says of a path whether it still waits; `update` must be called for paths about which that may have changed.
    """

    def __init__(self, paths: list[str], waits: Callable[[str], bool], page_size: int = 1):
        self.page_size, self._waits = page_size, waits
        self._fill(paths)
        self.place = int(self._is_waiting.argmax()) if self.waiting else len(self.paths)

    def _fill(self, paths: list[str]) -> None:
        self.paths = paths
        self._place_of = {path: place for place, path in enumerate(paths)}
        self._is_waiting = np.array([self._waits(path) for path in paths], dtype=bool)

    def __contains__(self, path: str) -> bool:
        return path in self._place_of

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
        """Ask anew whether these photos wait; unknown ones are passed over."""
        for path in paths:
            if path in self._place_of:
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
        following = waiting[waiting > self.place]
        after = following if len(following) else waiting
        self.place = int(after[0]) if len(after) else len(self.paths)

    def move(self, steps: int) -> None:
        """Move the place without leaving the queue; one step behind the last photo is its end."""
        self.place = min(max(0, self.place + steps), len(self.paths))

    def turn_page(self, pages: int) -> None:
        """Go to the first photo of another page, the end behind the last page."""
        page = max(0, self.place // self.page_size + pages)
        self.place = min(page * self.page_size, len(self.paths))

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
