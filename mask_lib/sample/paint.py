"""A painted sample set in the official layout, with known planted faults, to try the workbench on.

The same arguments give the same bytes. `truth.json` holds what a real set never tells: true labels and planted faults.
"""

import argparse
import contextlib
import functools
import os
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import pandas as pd
import pydantic

from mask_lib.base import files, labels, tasks
from mask_lib.sample import crowd, portrait
from mask_lib.sample.crowd import SHARES, invent_people, stream
from mask_lib.sample.faults import SMALLEST_FAULTY_SET, plan_faults, plant
from mask_lib.sample.people import Mask, invent_face, invent_shot

PAINTING = 1  # raise it when the pictures change: older samples are then painted anew
OWN_FILES = {"train", "eval", "truth.json"}


class _Photo(pydantic.BaseModel, extra="allow"):
    label: pydantic.NonNegativeInt
    given: int | None = None


class _Truth(pydantic.BaseModel, extra="allow"):
    arguments: dict[str, Any] = {}
    photos: dict[str, _Photo]
    eval: dict[str, _Photo]


def paint(
    out: files.AnyPath,
    people: int = 120,
    eval_people: int = 40,
    seed: int = 0,
    width: int = 384,
    height: int = 512,
    faults: bool = True,
    workers: int | None = None,
    new_masks: bool = False,
    task: str = "mask",
) -> dict[str, Any]:
    """Paint a sample set into the folder `out`, seven photos a person, and give its truth.

    The bytes are the same whatever the number of `workers` (processes; by default one a core). A sample painted with
    the same arguments is left as it is; one painted with others is replaced whole. new_masks: evaluation people wear
    kinds of masks that no photo to learn from shows. task: `mask`, or `helmet`, see `crowd.plan_site`, whose truth
    tells `helmet` and `vest`. Keys of the truth:

    - `arguments`
    - `photos`: per `folder/file` below train/images the true `label`, `mask`, `gender`, `age` (years) and `face` (the
      same for all photos of one person), and the label `given` by the layout (None for an impossible age); unreadable
      photos and unknown names are left out
    - `eval`: the same per ImageID, without `given`
    - `faults`: per kind a list of folders, of paths below train/images, or of records

    Raises ValueError for a set too small for its faults, FileExistsError for a folder that holds anything else.
    """
    out = files.project_path(out)
    arguments = {"painting": PAINTING, "people": people, "eval_people": eval_people, "seed": seed}
    arguments |= {"width": width, "height": height, "faults": faults}
    arguments |= {"new_masks": True} if new_masks else {}  # older samples have none
    arguments |= {"task": task} if task != "mask" else {}
    check(arguments)
    existing_truth(out)  # refuses what is not ours before a lock is left beside it
    out.parent.mkdir(parents=True, exist_ok=True)
    with files.lock(out.with_name(f".{out.name}.lock")):
        found = existing_truth(out)
        if found and found["arguments"] == arguments:
            print(f"{files.shown_path(out)} is already painted with these arguments: nothing to do.")
            return found
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        with labels.using(task_of(arguments)), files.replacing_folder(out) as fresh:
            return build(fresh, arguments, workers or cores)


def task_of(arguments: dict[str, Any]) -> tasks.Task:
    """The task that a sample of these arguments is for."""
    return tasks.read(f"tasks/{arguments.get('task', 'mask')}.yml")


def check(arguments: dict[str, Any]) -> None:
    """Raise ValueError for arguments that no sample can be painted with."""
    needed = {"people": SMALLEST_FAULTY_SET if arguments["faults"] else len(SHARES), "eval_people": len(SHARES)}
    for name, least in needed.items():
        if arguments[name] < least:
            raise ValueError(f"{name}={arguments[name]} is too few: paint at least {least}")
    for side in ("width", "height"):
        if not 64 <= arguments[side] <= 2048:
            raise ValueError(f"{side}={arguments[side]} is outside 64-2048 pixels")


def existing_truth(out: Path) -> dict[str, Any] | None:
    """The truth of the sample at `out`, None if nothing is there; FileExistsError for what is not ours to replace."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    strange = {path.name for path in out.iterdir()} - OWN_FILES if out.is_dir() else {out.name}
    with contextlib.suppress(FileNotFoundError, ValueError):  # one that is not whole is not ours to replace
        if not strange and "painting" in (truth := read_truth(out)).get("arguments", {}):
            return truth
    found = f" (it holds {', '.join(sorted(strange)[:3])})" if strange else ""
    raise FileExistsError(f"{out} was not painted by this program{found}: choose another folder or move it away")


def read_truth(folder: files.AnyPath) -> dict[str, Any]:
    """The truth of a painted sample, as `paint` gives it. Raises FileNotFoundError that says what to do."""
    path = files.project_path(folder) / "truth.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: only sets painted by `python -m mask_lib.sample` have one")
    return files.read_json(path, _Truth)


def build(root: Path, arguments: dict[str, Any], workers: int) -> dict[str, Any]:
    """Paint a whole sample below the empty folder `root` and write its tables; give its truth."""
    seed, truth = arguments["seed"], {"arguments": arguments, "photos": {}, "eval": {}, "faults": {}}
    if "task" in arguments:
        paint_all(arguments, crowd.plan_site(root, truth), workers)
    else:
        train = invent_people(stream(seed, 0, 0), arguments["people"], 0)
        judged = invent_people(stream(seed, 0, 1), arguments["eval_people"], arguments["people"])
        if arguments["faults"]:
            train = plan_faults(stream(seed, 0, 2), train)
        paint_all(arguments, crowd.plan_people(root, truth, train, judged), workers)
        rows = [person.row for person in train]
        if arguments["faults"]:
            plant(root, seed, train, rows, truth)
        table = pd.DataFrame(rows, columns=crowd.ROW_COLUMNS).sort_values(["id", "path"])
        files.write_csv(table, root / "train" / "train.csv")
        order = stream(seed, 0, 4).permutation(sorted(truth["eval"]))  # an order that says nothing
        files.write_csv(pd.DataFrame({"ImageID": order, "ans": 0}), root / "eval" / "info.csv")
    files.write_json(truth, root / "truth.json")
    return truth


# Who, the folder `train` or `eval`; number, mask (or helmet and vest), path below its images each.
Job = tuple[crowd.Person, Path, list[tuple[int, Mask | tuple[str, str], str]]]


def paint_all(arguments: dict[str, Any], jobs: list[Job], workers: int) -> None:
    """Paint the photos of all jobs, here (one worker) or in other processes."""
    work = functools.partial(paint_job, arguments)
    with contextlib.ExitStack() as stack:
        line = stack.enter_context(files.progress(total=sum(len(photos) for *_, photos in jobs), what="painting"))
        done = map(work, jobs)
        if workers > 1:
            # Spawned, not forked: a notebook that calls this may hold torch's threads, which a fork would break.
            pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=end_with_parent)
            done = stack.enter_context(pool).map(work, jobs, chunksize=4)
        for count in done:
            line.update(count)


def end_with_parent() -> None:
    """Make this worker end when its parent does, even by SIGKILL; it would otherwise wait for jobs for ever."""
    parent = parent_process()

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def paint_job(arguments: dict[str, Any], job: Job) -> int:
    """Paint one person's photos and give their number. Runs in worker processes."""
    person, folder, photos = job
    seed, is_new = arguments["seed"], folder.name == "eval" and "new_masks" in arguments
    face = invent_face(stream(seed, 1, person.number), person.gender, person.race, person.age)
    for number, worn, path in photos:
        random = stream(seed, 1, person.number, number)
        shot = crowd.dressed(random, *worn) if isinstance(worn, tuple) else invent_shot(random, worn, is_new)
        picture = portrait.portrait(face, shot, arguments["width"], arguments["height"])
        portrait.save_photo(picture, folder / "images" / path, int(random.integers(82, 95)))
    return len(photos)


def score_submission(folder: files.AnyPath, submission: files.AnyPath) -> dict[str, float]:
    """Score a submission (columns ImageID, ans) against the truth of the sample in `folder`.

    Gives `macro_f1` over all classes (an absent class counts 0, as in the competition), `accuracy`, and the accuracy of
    each attribute alone. Raises ValueError if the submission does not answer every evaluation photo exactly once.
    """
    # Here, since the painting processes import this module too and need no scikit-learn.
    from mask_lib.base import scores

    told = read_truth(folder)
    truth = {name: answer["label"] for name, answer in told["eval"].items()}
    answers = files.read_csv(files.project_path(submission), {"ImageID": "str", "ans": "int64"})
    if sorted(answers["ImageID"]) != sorted(truth):
        wrong = sorted(set(truth).symmetric_difference(answers["ImageID"]))[:3]
        raise ValueError(f"{submission} must answer each of the {len(truth)} photos once; look at {wrong or 'doubles'}")
    with labels.using(task_of(told.get("arguments", {}))):
        return scores.summarise(answers["ImageID"].map(truth), answers["ans"])


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line; painting is what happens when no command is named."""
    parser = argparse.ArgumentParser(prog="python -m mask_lib.sample", description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(required=True, dest="command")
    painting = commands.add_parser("paint", help="paint a sample set (the command when none is named)")
    painting.add_argument("out")
    for name, default in (("people", 120), ("eval-people", 40), ("seed", 0), ("width", 384), ("height", 512)):
        painting.add_argument(f"--{name}", type=int, default=default)
    painting.add_argument("--workers", type=int, help="processes; one a core when left out")
    painting.add_argument("--no-faults", dest="faults", action="store_false", help="plant no faults")
    painting.add_argument("--task", default="mask", choices=("mask", "helmet"), help="what it is a sample for")
    about = "evaluation people wear masks of kinds that no photo to learn from shows"
    painting.add_argument("--new-masks", action="store_true", help=about)
    scoring = commands.add_parser("score", help="score a submission against the truth")
    scoring.add_argument("folder")
    scoring.add_argument("submission")

    named = arguments and arguments[0] in (*commands.choices, "-h", "--help")
    return parser.parse_args(arguments if named else ["paint", *arguments])


def main(arguments: list[str] | None = None) -> int:
    """Run one command; give its exit code."""
    asked = vars(parse(sys.argv[1:] if arguments is None else arguments))
    command = asked.pop("command")
    try:
        if command == "paint":
            truth = paint(**asked)
            print(f"{files.shown_path(files.project_path(asked['out']))}: {len(truth['photos'])} photos to learn from,")
            print(f"{len(truth['eval'])} to answer; truth.json beside them lists the planted faults.")
        else:
            for name, score in score_submission(**asked).items():
                print(f"{name:10} {score:.4f}")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
