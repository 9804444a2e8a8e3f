"""How soon after a key press the next photo is on the screen, in a real browser in a real JupyterLab.

Run it with `python benchmarks/review.py [photos]`; it needs Chromium. A key counts from the moment the
browser notes it until the frame with the next photo, decoded, has been handed over for painting. Two
paces: ten keys a second, and each key as soon as the photo before is painted, as no person could.
"""

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from mask_lib.base import files
from mask_lib.data import layout

sys.path.append(str(Path(__file__).parent.parent / "tests"))  # the tests know how to start a notebook server
import jupyter_pages
from browser import find_chromium
from tiny_project import write_notebook

SIZE = (384, 512)  # width and height of the official set's photos, in pixels
PACES = {"ten": 0.1, "at_once": 0.0}  # seconds between a photo that is painted and the next key
SOURCE = """
from mask_lib.data import photos
from mask_lib.relabel import decision_log, session, widget
log = decision_log.DecisionLog("decisions.{annotator}.jsonl", "{annotator}")
widget.ReviewWidget(session.Session(photos.read_photos("photos.csv"), log, {data!r}))
"""
IS_SHOWN = "() => document.querySelector('.label-review-stage')?.dataset.path"
WATCH = """() => {
    const stage = document.querySelector('.label-review-fit');
    window.delays = [];
    let pressed = null;
    window.addEventListener('keydown', (event) => { pressed = event.timeStamp; }, true);
    const isPainted = async () => {
        const photo = stage.querySelector('img');
        if (pressed === null || !photo) return;
        const since = pressed;
        pressed = null;
        await photo.decode();
        requestAnimationFrame(() => {
            const channel = new MessageChannel();
            channel.port1.onmessage = () => window.delays.push(performance.now() - since);
            channel.port2.postMessage(null); // runs when the frame has been handed over
        });
    };
    new MutationObserver(isPainted).observe(stage, { childList: true });
}"""


def paint(folder: Path, count: int) -> pd.DataFrame:
    """The photo table of JPEG photos with as much detail as a face has, all of them different."""
    generator, rows = np.random.default_rng(0), []
    images = folder / "data/train/images/somebody"
    images.mkdir(parents=True)
    for number in range(count):
        small = generator.integers(0, 255, (SIZE[1] // 8, SIZE[0] // 8, 3), dtype=np.uint8)
        path = f"somebody/{number:05d}.jpg"
        Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC).save(images.parent / path, quality=90)
        rows.append([path, "somebody", "worn", "female", 30, 4, "train"])
    return pd.DataFrame(rows, columns=layout.photo_columns())


@contextlib.contextmanager
def notebook(page: Page, address: str, folder: Path, annotator: str) -> Iterator[None]:
    """A page with the screen in it, which has the keys."""
    write_notebook(folder / f"{annotator}.ipynb", SOURCE.format(annotator=annotator, data=str(folder / "data")))
    jupyter_pages.open_notebook(page, address, "lab", f"{annotator}.ipynb")
    jupyter_pages.run_all(page)
    page.wait_for_function(IS_SHOWN, timeout=jupyter_pages.LONGEST)
    page.locator(".label-review-title").click()
    page.evaluate(WATCH)
    yield
    page.evaluate(f"() => {jupyter_pages.NOTEBOOK}.sessionContext.shutdown()")


def delays(page: Page, keys: int, pause: float) -> list[float]:
    """Milliseconds from each key to the next photo painted."""
    for number in range(1, keys + 1):
        page.keyboard.press("12"[number % 2])
        page.wait_for_function("(count) => window.delays.length >= count", arg=number, timeout=jupyter_pages.LONGEST)
        time.sleep(pause)
    return page.evaluate("() => window.delays")


def main(count: int) -> None:
    chromium = find_chromium()
    if chromium is None:
        sys.exit("no Chromium on this machine: apt-get install chromium")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        files.write_csv(paint(folder, count), folder / "photos.csv")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with jupyter_pages.serving("lab", folder) as address:
            for annotator, pause in PACES.items():
                page = browser.new_page(viewport={"width": 1200, "height": 900})
                with notebook(page, address, folder, annotator):
                    taken = sorted(delays(page, count - 1, pause))
                middle, late = statistics.median(taken), taken[int(0.95 * len(taken))]
                print(f"{annotator}: key to next photo painted, {len(taken)} keys: median {middle:.1f} ms (at most 30")
                print(f"    are asked), 95th percentile {late:.1f} ms (at most 80), slowest {taken[-1]:.1f} ms")
                page.close()
        browser.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
