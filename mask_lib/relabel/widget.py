"""The screen of label cleaning: it shows what `session.Session` says and hands the keys on to it.

The page, `widget.js`, draws and asks by messages. No state or photo is a synced trait: those are saved in the notebook.
"""

import itertools
import threading
from pathlib import Path
from typing import Any

import anywidget
import pandas as pd

from mask_lib.base import files, labels
from mask_lib.relabel import keys
from mask_lib.relabel.decision_log import DecisionLog, log_path
from mask_lib.relabel.session import Session

TO_NEXT = ("wrong", "right", "confirm", "drop", "skip", "enter", "ahead")  # actions that lead to the next photo


class ReviewWidget(anywidget.AnyWidget):
    """Shows a `Session` and takes its keys, in several tabs too. `mode` and `options`: as for `Session.start`."""

    _esm = Path(__file__).with_name("widget.js")
    _css = Path(__file__).with_name("widget.css")

    def __init__(self, session: Session, mode: str = "inspect", **options: Any) -> None:
        super().__init__()
        self.session, self.options = session, options
        # The kernel may run handlers on several threads: answers must leave in the order of the states.
        self.turn = threading.Lock()
        self.version = session.start(mode, **options)["version"]
        self.on_msg(self.receive)

    def receive(self, _: anywidget.AnyWidget, message: dict[str, Any], __: list[memoryview]) -> None:
        """Answer one message of a page: `hello`, `press`, `start` or `photos`."""
        if message.get("type") == "photos":
            for path in message["paths"]:
                try:
                    content, mime = self.session.photos.photo_bytes(path)
                except (OSError, ValueError, KeyError) as error:
                    self.send({"type": "photo", "path": path, "error": f"This photo cannot be read: {error}"})
                else:
                    self.send({"type": "photo", "path": path, "mime": mime}, buffers=[content])
            return
        with self.turn:
            self.send({**self.answer(message), "type": "screen", "view": message["view"]})

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """What `Session.press` returns, and what the page needs beyond it, for any message of a page.

        `stale`: the state has moved on without this screen; `moves`: see `known_moves`; `options`: of the mode; for
        `hello` also the `attributes` and the `vocabulary`. An error becomes a refusal with `failed`.
        """
        outcome = {"sequence": message["sequence"], "accepted": True, "message": "", "decisions": []}
        try:
            if message["type"] == "press":
                outcome = self.session.press(message["key"], message["path"], message["sequence"])
            elif message["type"] == "start":
                self.options = message["options"]
                outcome["screen"] = self.session.start(message["mode"], **self.options)
            else:
                words = list(itertools.product(*(one.words for one in labels.attributes())))  # of each class
                outcome |= {"screen": self.session.screen(), "attributes": labels.names(), "vocabulary": words}
        # An error in a handler ends in a log that nobody reads, while the page waits for its answer.
        except Exception as error:
            text = f"Not saved: {type(error).__name__}: {error}"
            return outcome | {"accepted": False, "failed": True, "message": text}
        screen, before = outcome["screen"], self.version
        self.version = screen["version"]
        shown = screen["current"]["path"] if screen["current"] else None
        is_stale = not outcome["accepted"] and (before != self.version or shown != message["path"])
        return outcome | {"stale": is_stale, "moves": known_moves(screen), "options": self.options}


def screen(
    photo_table: pd.DataFrame, data_dir: Path, output_dir: Path, annotator: str, suspects: pd.DataFrame, **options: Any
) -> ReviewWidget | None:
    """The screen for one annotator of an experiment, or a printed line and None where nobody watches.

    Takes what `Session` and `ReviewWidget` take. Raises ValueError for an annotator that is no plain word.
    """
    path = log_path(output_dir, annotator)
    if files.is_headless():
        print("Nobody is watching: open this notebook in Jupyter to press keys. The decisions so far count below.")
        return None
    return ReviewWidget(Session(photo_table, DecisionLog(path, annotator), data_dir, suspects), **options)


def known_moves(screen: dict[str, Any]) -> dict[str, int]:
    """Keys after which the page knows what comes: 1 the first of `upcoming`, -1 the last of `previous`."""
    if screen["mode"] == "grid" or screen["pending"]:
        return {}
    known = {key: -1 for key, action in screen["actions"].items() if action == "back"}
    # A decision for a whole person may settle upcoming photos too.
    for key, action in screen["actions"].items() if screen["scope"] == "photo" else ():
        if action == "digit":  # one that others may follow waits
            is_certain = not keys.is_begun(key) and int(key) < labels.class_count()
        else:  # of relabeling's keys Enter alone needs something typed
            is_certain = action in TO_NEXT and not (action == "enter" and screen["mode"] == "relabel")
        if is_certain:
            known[key] = 1
    return known
