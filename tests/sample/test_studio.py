"""Painting in several processes: the same files as in one, and no process that outlives its parent."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from mask_lib.base import files
from mask_lib.sample import crowd, render

# It takes minutes: the parent is killed long before it is done.
PAINT_LONG = """
import sys
from pathlib import Path
from mask_lib import crowd, studio

people = crowd.invent_people(crowd.stream(0), 2000, 0)
studio.paint_all(studio.jobs_of(Path(sys.argv[1]), 0, (64, 64), people, []), workers=2)
"""


def jobs(root: Path, people: int = 2) -> list[render.Job]:
    invented = crowd.invent_people(crowd.stream(0), 6, 0)
    return render.jobs_of(root, 0, (64, 64), invented[:people], invented[people : people + 1])


def test_every_photo_of_a_job_is_painted_where_the_job_says(tmp_path):
    todo = jobs(tmp_path)
    render.paint_all(todo, workers=1)
    asked = {path for job in todo for _, _, path in job.photos}
    assert len(asked) == 21
    assert {str(path) for path in tmp_path.rglob("*.*")} == asked
    assert {path.parts[-4] for path in map(Path, asked) if path.parent.name != "images"} == {"train"}
    assert sum(Path(path).parent == tmp_path / "eval" / "images" for path in asked) == 7


@pytest.mark.parametrize(("name", "kind"), [("a.jpg", "JPEG"), ("b.jpeg", "JPEG"), ("c.png", "PNG")])
def test_a_photo_is_saved_as_its_name_says(tmp_path, name, kind):
    render.save(Image.new("RGB", (64, 64), (200, 30, 30)), tmp_path / "folder" / name, 80)
    with Image.open(tmp_path / "folder" / name) as photo:
        photo.load()
        assert photo.format == kind


def test_at_least_one_core_is_free():
    assert 1 <= render.free_cores() <= psutil.cpu_count()


def test_painting_processes_end_when_their_parent_is_killed(tmp_path):
    command = [sys.executable, "-c", PAINT_LONG, str(tmp_path)]
    parent = psutil.Popen(command, cwd=files.PROJECT, stdout=subprocess.DEVNULL)
    try:
        while not any(tmp_path.rglob("*.*")):
            assert parent.poll() is None, "the painting ended before it began"
            time.sleep(0.05)
        children = parent.children(recursive=True)
    finally:
        parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    for process in alive:
        process.kill()
    assert len(children) >= 2
    assert not alive
