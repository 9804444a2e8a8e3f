"""Presses keys in processes that are killed, one after another; a script, so that it forks before threads exist.

`python tests/killing.py FOLDER KILLS` prints, as JSON, per log what its annotators were told before each was
shot. Who judges it is `test_decision_log.py`.
"""

import gc
import itertools
import json
import os
import random
import re
import signal
import sys
import time
import traceback
from pathlib import Path

import pandas as pd
from relabeling import open_log, photo_table, shown, suspects_of, type_keys

from mask_lib.relabel.session import Session

KEYS = ("Enter", "f", "u", "Enter", "u", "f")  # among the suspects: a whole person's four lines, one line, undo
KILLS_A_LOG = 25  # each opening reads its log from the start
LONGEST_DELAY = 0.002  # seconds from an acknowledgement to the kill: a few more presses
PART = 8  # bytes that every other annotator's system takes at once, as write(2) may


def press_until_killed(folder: Path, tables: tuple[pd.DataFrame, ...], number: int, pipe: int) -> None:
    """Open the log and press keys without end; tell of the opening, then of every key that was acknowledged."""
    tell, log, write = os.fdopen(pipe, "w", buffering=1), open_log(folder), os.write
    if number % 2:  # so that a kill can fall within a line
        os.write = lambda handle, content: write(handle, content[:PART])
    photos, suspects = tables
    session = Session(photos, log, folder, suspects)
    session.start("suspects")
    print(json.dumps(log.problems), file=tell)
    for key in itertools.islice(itertools.cycle(KEYS), number % len(KEYS), None):
        (answer,) = type_keys(session, key if shown(session) else "u")
        if answer["decisions"]:
            told = session.log.decisions[-len(answer["decisions"]) :]
            assert [made["id"] for made in told] == answer["decisions"]
            # In one piece, whatever the system does to other writes: an id alone might be given anew.
            tell.write(json.dumps([[made["id"], made["time"]] for made in told]) + "\n")


def killed_once(folder: Path, tables: tuple[pd.DataFrame, ...], number: int, delay: float) -> list[str]:
    """The lines that an annotator told before it was killed, `delay` seconds after its first acknowledgement."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            press_until_killed(folder, tables, number, writing)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as told:
        lines = [told.readline(), told.readline()]
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        lines += told
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"ended by itself: {status}"
    return [line for line in lines if line.endswith("\n")]


def is_torn(content: bytes) -> bool:
    """Whether a log ends within a line or within an action; one that lacks only the line's end does not."""
    try:
        last = json.loads(content.splitlines()[-1])
    except ValueError:
        return True
    numbers = re.match(r"\w+:(\d+)/(\d+)", last["reason"])
    return bool(numbers) and int(numbers[1]) < int(numbers[2])


def killed_often(folder: Path, first: int, kills: int) -> dict:
    """Kill so many annotators of one log: `kills`, `acknowledged` (id, time), `torn` ends, `problems` reported."""
    photos, delays = photo_table(folder), random.Random(first)
    tables, log = (photos, suspects_of(photos)), open_log(folder)
    Session(photos, log, folder).start("suspects")  # what is done for the first time here, no child need do
    found = {"log": str(log.path), "kills": 0, "acknowledged": [], "torn": 0, "problems": []}
    for number in range(first, first + kills):
        opened, *actions = killed_once(folder, tables, number, delays.uniform(0, LONGEST_DELAY))
        found["kills"] += 1
        found["problems"] += json.loads(opened)
        found["acknowledged"] += [made for action in actions for made in json.loads(action)]
        found["torn"] += is_torn(log.path.read_bytes())
    return found


def main(folder: Path, kills: int) -> None:
    gc.freeze()  # children would copy every page that a collection touches
    starts = range(0, kills, KILLS_A_LOG)
    print(json.dumps([killed_often(folder / str(at), at, min(KILLS_A_LOG, kills - at)) for at in starts]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
