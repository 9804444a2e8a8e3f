"""Where a crowd has its photos taken: many portraits painted in several processes."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path

from PIL import Image

from mask_lib.base import files
from mask_lib.base.labels import Mask
from mask_lib.sample.crowd import Person, eval_photos, stream, train_photos
from mask_lib.sample.people import Face, invent_face, invent_shot
from mask_lib.sample.portrait import portrait


@dataclass(frozen=True)
class Job:
    """The photos of one person to paint, (stem's number, mask, path) each, in `size` (width, height) pixels."""

    seed: int
    person: Person
    size: tuple[int, int]
    photos: tuple[tuple[int, Mask, str], ...]


def jobs_of(root: Path, seed: int, size: tuple[int, int], train: list[Person], judged: list[Person]) -> list[Job]:
    """A job for each person: the photos to learn from below `root`/train, those to answer below `root`/eval."""
    jobs = []
    for folder, people, named in (("train", train, train_photos), ("eval", judged, eval_photos)):
        for person in people:
            photos = ((n, mask, str(root / folder / "images" / path)) for n, mask, path in named(seed, person))
            jobs.append(Job(seed, person, size, tuple(photos)))
    return jobs


def paint_all(jobs: list[Job], workers: int) -> None:
    """Paint the photos of all jobs in `workers` processes."""
    with files.progress(total=sum(len(job.photos) for job in jobs), what="painting") as line:
        for done in results(jobs, workers):
            line.update(done)


def free_cores() -> int:
    """The cores this process may use; not every system says, and then all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def results(jobs: list[Job], workers: int) -> Iterator[int]:
    """Photos painted by each job as it is done, here (one worker) or in other processes."""
    if workers == 1:
        yield from map(paint_job, jobs)
        return
    # Spawned, not forked: a notebook that calls this may hold torch's threads, which a fork would break.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        yield from pool.map(paint_job, jobs, chunksize=4)


def end_with_parent() -> None:
    """Make this worker end when its parent does, even by SIGKILL; it would otherwise wait for jobs for ever."""
    parent = parent_process()

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def look_of(seed: int, person: Person) -> Face:
    """The person's lasting looks."""
    return invent_face(stream(seed, 1, person.number), person.gender, person.race, person.age)


def paint_job(job: Job) -> int:
    """Paint one person's photos and give their number. Runs in worker processes."""
    face = look_of(job.seed, job.person)
    for number, mask, path in job.photos:
        random = stream(job.seed, 1, job.person.number, number)
        picture = portrait(face, invent_shot(random, mask), *job.size)
        save(picture, Path(path), int(random.integers(82, 95)))
    return len(job.photos)


def save(picture: Image.Image, path: Path, quality: int) -> None:
    """Write a PNG or a JPEG, as the name's ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        picture.save(path, "PNG", compress_level=1)
    else:
        picture.save(path, "JPEG", quality=quality)
