"""What is known and decided of each photo: its label now, whether it waits in a mode, and what a screen shows of it."""

import io
from pathlib import Path
from typing import Any

import pandas as pd

from mask_lib.base import files, labels
from mask_lib.data import photos
from mask_lib.relabel.current_decisions import Decision
from mask_lib.relabel.decision_log import DecisionLog

PNG_WITH_ALPHA = b"\x06"  # the colour type in a PNG's header, its byte 25


class PhotoStates:
    """A photo table and its suspects beside the decisions of one log, as they are in the mode `mode`."""

    def __init__(self, photo_table: pd.DataFrame, log: DecisionLog, data_dir: Path, suspects: pd.DataFrame | None):
        """photo_table, suspects and errors as in `session.Session`."""
        rows = photo_table.set_index("path")
        if rows.index.has_duplicates:
            raise ValueError("a photo stands twice in the table")
        if suspects is not None and not suspects["suggested"].isin(range(labels.class_count())).all():
            raise ValueError(f"suspects: `suggested` must be a class 0-{labels.class_count() - 1} in every row")
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

    def same_person(self, path: str | None) -> list[str]:
        """All photos of the person on a photo, that photo first; none of no photo."""
        if path is None:
            return []
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
        suspect = self.suspects.get(path) if self.mode == "suspects" else None
        return {
            "path": path,
            "field": field,
            "old": self.label(path) if field == "label" else self.value(path, field),
            "new": new,
            "reason": self.mode,
            "source_score": float(suspect["score"]) if suspect else None,
            "sha256": files.file_digest(self.files[path]),
        }

    def card(self, path: str) -> dict[str, Any]:
        """What a screen shows of a photo, as plain JSON."""
        suspect = self.suspects.get(path, {})
        suggested, score, number = suspect.get("suggested"), suspect.get("score"), self._numbers.get(path)
        return {
            "path": path,
            "person": self.person[path],
            "label": self.label(path),
            "number": "" if number is None or pd.isna(number) else f"{labels.number().name} {int(number)}",
            "mark": self.value(path, "mark"),
            "verdict": self.value(path, "verdict"),
            "flag": bool(self.value(path, "flag")),
            "why": str(suspect.get("why", "")),
            "suggested": None if suggested is None else int(suggested),
            "score": None if score is None else float(score),
        }

    def photo_bytes(self, path: str) -> tuple[bytes, str]:
        """The bytes and MIME type, JPEG or PNG. Raises KeyError for unknown paths, OSError for unreadable files."""
        content = photos.read_bytes(self.files[path])
        if content.startswith(b"\xff\xd8\xff"):
            return content, "image/jpeg"
        # A browser would take a fourth channel, which may be a colour of its own, for transparency.
        if content.startswith(b"\x89PNG\r\n\x1a\n") and content[25:26] != PNG_WITH_ALPHA:
            return content, "image/png"
        encoded = io.BytesIO()
        with photos.open_photo(content) as image:
            image.convert("RGB").save(encoded, "JPEG", quality=92)
        return encoded.getvalue(), "image/jpeg"
