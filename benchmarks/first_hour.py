"""How long a stranger waits: from `git clone` to the first key press in relabeling, and to the first submission.

Each round clones this checkout into an empty folder, with an environment of its own; packages come from the index or
from the installers' caches. Needs Chromium (`make browser`). Usage: first_hour.py [ROUNDS], 3 if it is not given.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests"))

import browser  # noqa: E402
import jupyter_pages  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

PREPARE = ("mask_lib.headless", "notebooks/00_prepare_data.ipynb", "00.ipynb", "-f", "notebooks/params/demo.yml")
SCREEN = ".label-review-stage[data-path]:not([data-path=''])"


def say(folder: Path, *words: str | Path) -> None:
    """Run a command there, as someone would whose environment names nothing of this checkout."""
    outside = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run(words, cwd=folder, env=outside, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def press_a_key(clone: Path) -> None:
    """Open 01 in JupyterLab, run all of it, press a key on the first photo, and wait until that is on the disk."""
    log = clone / "outputs" / "demo" / "review" / "decisions.me.jsonl"
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(jupyter_pages.serving("lab", clone))
        playwright = stack.enter_context(sync_playwright())
        started = playwright.chromium.launch(executable_path=browser.find_chromium(), args=["--no-sandbox"])
        page = started.new_page(viewport={"width": 1400, "height": 1000})
        jupyter_pages.open_notebook(page, address, "lab", "notebooks/01_label_cleaning.ipynb")
        jupyter_pages.run_all(page)
        page.wait_for_selector(SCREEN, timeout=10 * jupyter_pages.LONGEST)
        page.locator(".label-review-title").click()
        page.keyboard.press("Enter")
        jupyter_pages.until(lambda: log.exists() and log.stat().st_size, "the decision is on the disk")
        started.close()


def measured(home: Path) -> dict[str, float]:
    """Seconds from the start of cloning."""
    started, marks, clone = time.perf_counter(), {}, home / "workbench"

    def mark(what: str) -> None:
        marks[what] = time.perf_counter() - started
        print(f"  {what}: {marks[what]:.0f} s", flush=True)

    say(home, "git", "clone", "--quiet", PROJECT, clone)
    say(clone, "make", "setup")
    mark("installed")
    python = clone / ".venv" / "bin" / "python"
    say(clone, python, "-m", "mask_lib.sample", "data/sample")
    say(clone, python, "-m", *PREPARE)
    press_a_key(clone)
    mark("first key press")
    say(clone, "rm", "-r", "outputs/demo", "data/sample")
    begun = time.perf_counter()
    say(clone, "make", "demo")
    marks["make demo, once installed"] = time.perf_counter() - begun
    marks["first submission"] = marks["installed"] + marks["make demo, once installed"]
    return marks


if __name__ == "__main__":
    rounds = []
    for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        print(f"round {number + 1}")
        with tempfile.TemporaryDirectory() as home:
            rounds.append(measured(Path(home)))
    for what in rounds[0]:
        print(f"{what}: median {statistics.median(one[what] for one in rounds):.0f} s")
