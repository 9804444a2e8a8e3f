"""A live view of an experiment in any terminal, read from its files: python -m mask_lib.headless.watch outputs/demo"""

import argparse
import contextlib
import csv
import datetime
import functools
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mask_lib.base import files

SILENCE = 300.0  # seconds without a note after which training on another machine counts as stopped
LINE = "{:20.20}  {:>5}  {:8}  {:>9}  {:>11}  {:>8}  {:>7}  {:>9}  {:20.20}  {}"
HEAD = ("run", "fold", "state", "epoch", "step", "photos/s", "best F1", "left", "device", "")


def time_left(now: dict[str, Any], history: Path) -> str:
    """Time for the remaining epochs at the present pace, with as many photos as history.csv's last."""
    *_, last = csv.DictReader(files.read_text(history).splitlines())  # pandas takes longer to import than all this
    photos = float(last["seconds"]) * float(last["photos_per_second"])
    epochs = max(now["epochs"] - now["epoch"] - now["step"] / max(now["steps"], 1), 0)
    return str(datetime.timedelta(seconds=int(epochs * photos / now["photos_per_second"])))


def progress(path: Path) -> list[Any]:
    """What a progress.json says, and of that the fields of `HEAD` from epoch on; time left is still missing."""
    now = files.read_json(path, dict[str, float | str | None])
    counts = (f"{now[name]:.0f}/{now[f'{name}s']:.0f}" for name in ("epoch", "step"))
    best = "" if now["best_macro_f1"] is None else f"{now['best_macro_f1']:.4f}"
    return [now, *counts, f"{now['photos_per_second']:.0f}", best, str(now["device"])]


def readable(read: Callable[[Path], Any], path: Path, problems: list[str]) -> Any:
    """What a file holds; None where there is none and, with an entry in `problems`, where it is damaged."""
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except (OSError, ArithmeticError, LookupError, TypeError, ValueError, csv.Error):
        problems.append(f"{path.name} is unreadable")


def state(folder: Path) -> str:
    """Whether a fold is waiting, training, stopped or finished."""
    lock, is_finished = folder.with_name(f".{folder.name}.lock"), (folder / "oof.csv").exists()
    held = files.is_held(lock)
    if held is None and not is_finished:
        notes = [path.stat().st_mtime for path in (lock, folder / "progress.json") if path.exists()]
        held = time.time() - max(notes) < SILENCE
    return "training" if held else "finished" if is_finished else "stopped" if folder.exists() else "waiting"


def fold_row(run: str, folder: Path) -> list[str]:
    """What `HEAD` names, of one fold; last, which of its files are unreadable."""
    problems: list[str] = []
    found = readable(state, folder, problems) or ""
    now, *told, device = readable(progress, folder / "progress.json", problems) or [{}, *[""] * 5]
    is_moving = found == "training" and now.get("photos_per_second")
    left = is_moving and readable(functools.partial(time_left, now), folder / "history.csv", problems)
    return [run, folder.name.removeprefix("fold"), found, *told, left or "", device, ", ".join(problems)]


def view(output: Path) -> Iterator[str]:
    """The lines to show of an output folder."""
    runs = [path for path in sorted((output / "runs").glob("[!.]*")) if path.is_dir()]
    rows = []
    for run in runs:  # and its folds; while it has no scores, all that are split
        splits = [] if (run / "scores.json").exists() else (output / "tables").glob("split.stratified.*.csv")
        found = {*(f"fold{path.stem.split('.')[-1]}" for path in splits), *(path.name for path in run.iterdir())}
        rows += [fold_row(run.name, run / name) for name in sorted(found) if re.fullmatch(r"fold\d{1,3}|looks", name)]
    names = sorted(path.name for path in (output / "notebooks").glob("[!.]*.ipynb"))
    failed = [name for name in names if name.endswith(".failed.ipynb")]
    if not rows and not names:
        yield f"{output} holds no runs and no notebooks yet; is it an experiment's output_dir, such as outputs/demo?"
        return
    yield from (LINE.format(*row) for row in [HEAD, *rows])
    yield f"have scores.json: {', '.join(run.name for run in runs if (run / 'scores.json').exists()) or 'none'}"
    yield f"notebooks done:   {', '.join(name for name in names if name not in failed) or 'none'}"
    yield f"notebooks failed: {', '.join(failed) or 'none'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the view once, or in a terminal every few seconds until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m mask_lib.headless.watch", description=__doc__)
    parser.add_argument("output", type=files.project_path, help="an experiment's output_dir")
    parser.add_argument("--once", action="store_true", help="show it once, as where stdout is no terminal")
    asked = parser.parse_args(arguments)
    is_live = sys.stdout.isatty() and not asked.once
    sys.stdout.reconfigure(errors="replace")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            width = shutil.get_terminal_size().columns if is_live else None
            # A terminal obeys some of the characters that names of folders may hold.
            shown = ("".join(mark if mark.isprintable() else "?" for mark in line) for line in view(asked.output))
            print("\x1b[H\x1b[2J" * is_live + "\n".join(line.rstrip()[:width] for line in shown), flush=True)
            if not is_live:
                break
            time.sleep(3)
    return 0


if __name__ == "__main__":
    sys.exit(main())
