"""A queue of photos that one works through, looks back in, and comes back to after an undo."""

import bisect
from collections.abc import Callable, Iterable, Sequence


class Queue:
    """Photos in order, a place among them, and which of them still wait for a decision.

    The place may stand behind the last photo: then nothing is shown. `waits` says of a path whether
    it still waits; `look_again` must be called for paths about which that may have changed.
    """

    def __init__(self, paths: Sequence[str], waits: Callable[[str], bool], page_size: int = 1):
        self.paths, self.page_size = list(paths), page_size
        self._waits = waits
        self._place_of = {path: place for place, path in enumerate(self.paths)}
        self._waiting = [place for place, path in enumerate(self.paths) if waits(path)]  # sorted
        self.place = self._waiting[0] if self._waiting else len(self.paths)

    def __contains__(self, path: str) -> bool:
        return path in self._place_of

    @property
    def current(self) -> str | None:
        """The photo at the place, None behind the last."""
        return self.paths[self.place] if self.place < len(self.paths) else None

    @property
    def waiting(self) -> int:
        """How many photos still wait."""
        return len(self._waiting)

    def is_waiting(self) -> bool:
        """Whether the photo at the place waits."""
        at = bisect.bisect_left(self._waiting, self.place)
        return at < len(self._waiting) and self._waiting[at] == self.place

    def look_again(self, paths: Iterable[str]) -> None:
        """Ask anew whether these photos wait; unknown ones are passed over."""
        for path in paths:
            place = self._place_of.get(path)
            if place is None:
                continue
            at = bisect.bisect_left(self._waiting, place)
            known = at < len(self._waiting) and self._waiting[at] == place
            if known and not self._waits(path):
                del self._waiting[at]
            elif not known and self._waits(path):
                self._waiting.insert(at, place)

    def upcoming(self, count: int) -> list[str]:
        """The next photos that wait, up to `count`."""
        start = bisect.bisect_right(self._waiting, self.place)
        return [self.paths[place] for place in self._waiting[start : start + count]]

    def previous(self, count: int) -> list[str]:
        """The photos just before the place, up to `count`, in the queue's order."""
        return self.paths[max(0, self.place - count) : self.place]

    def page(self) -> list[str]:
        """The photos of the page that the place is on."""
        start = self.place // self.page_size * self.page_size
        return self.paths[start : start + self.page_size]

    def advance(self) -> None:
        """Go to the next photo that waits; behind the last one of them, to the first; else to the end."""
        after = bisect.bisect_right(self._waiting, self.place)
        following = self._waiting[after : after + 1] or self._waiting[:1]
        self.place = following[0] if following else len(self.paths)

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
            self.paths.insert(self.place, path)
            self._place_of = {path: place for place, path in enumerate(self.paths)}
            self._waiting = [place for place, path in enumerate(self.paths) if self._waits(path)]
        self.place = self._place_of[path]
