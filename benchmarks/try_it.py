"""How soon the page of 09_try_it answers a photo that is uploaded, in a real browser, once it is warm.

Run it with `python benchmarks/try_it.py [RESULTS [PHOTOS]]`, by default what `make demo` left; it needs Chromium. A
photo counts from the moment its file is chosen until its class and charts are drawn, and until everything is.
"""

import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

PROJECT = Path(__file__).resolve().parents[1]
sys.path.append(str(PROJECT / "tests"))  # the tests know how to find a browser

import browser  # noqa: E402
import jupyter_pages  # noqa: E402

COUNT, WARM_UP = 15, 3  # photos; the first so many do not count
HAS_CLASS = """(name) =>
    [...document.querySelectorAll('h2')].some((title) => title.parentElement.innerText.includes(name)) &&
    [...document.querySelectorAll('.jp-OutputArea img')].some((one) => one.complete && one.naturalWidth)"""
IS_DONE = "(name) => !document.body.innerText.includes('Looking at') && document.body.innerText.includes(name)"


@contextlib.contextmanager
def served(results: str) -> Iterator[str]:
    """The address of the page on some results."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["make", "-o", "setup", "try", f"PYTHON={sys.executable}", f"RESULTS={results}", f"PORT={port}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, cwd=PROJECT, start_new_session=True, **quiet)

    def answers() -> bool:
        assert server.poll() is None, "make try ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    try:
        jupyter_pages.until(answers, "make try serves its page", 180)
        yield f"http://127.0.0.1:{port}/"
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(timeout=60)


def seconds(page: Page, photo: Path) -> tuple[float, float]:
    """Seconds until the class of a photo is there, and until everything is."""
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a photo").click()
    started, found = time.perf_counter(), []
    chooser.value.set_files(photo)
    for condition in (HAS_CLASS, IS_DONE):
        page.wait_for_function(condition, arg=photo.name, timeout=jupyter_pages.LONGEST)
        found.append(time.perf_counter() - started)
    return tuple(found)


def main(results: str = "outputs/demo", photos: str = "data/sample/eval/images") -> None:
    chosen = sorted(path for path in Path(photos).iterdir() if path.is_file())[:COUNT]
    with sync_playwright() as playwright, served(results) as address:
        chromium = playwright.chromium.launch(executable_path=browser.find_chromium(), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 1600})
        page.goto(address, wait_until="commit", timeout=jupyter_pages.LONGEST)
        page.get_by_text(", for example").first.wait_for(timeout=jupyter_pages.LONGEST)
        page.wait_for_function("() => !document.body.innerText.includes('Looking at')", timeout=jupyter_pages.LONGEST)
        taken = [seconds(page, photo) for photo in chosen][WARM_UP:]
        chromium.close()
    for what, some in zip(("class and charts", "maps and near photos too"), zip(*taken, strict=True), strict=True):
        print(f"{what}: median {statistics.median(some):.2f} s, slowest {max(some):.2f} s of {len(some)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
