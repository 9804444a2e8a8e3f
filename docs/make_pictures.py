"""Makes the pictures of the pages anew from what `make demo` left: the overview drawn, screens taken by a browser.

.venv/bin/python docs/make_pictures.py [NAME …]    all, or those named: overview review_suspects review_grid try_it

Each PNG holds digests of the files that decide how it looks; a test says when these have changed since.
"""

import contextlib
import io
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin
from sklearn.metrics import confusion_matrix

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

import browser  # noqa: E402
import jupyter_pages  # noqa: E402
from playwright.sync_api import Page, sync_playwright  # noqa: E402

from mask_lib.base import files, labels  # noqa: E402
from mask_lib.data import photos, splits  # noqa: E402
from mask_lib.plots import style  # noqa: E402
from mask_lib.training import run_folder  # noqa: E402

IMAGES = PROJECT / "notebooks" / "images"
DATA, OUTPUT = PROJECT / "data" / "sample", PROJECT / "outputs" / "demo"
SCREEN = ("mask_lib/relabel/widget.js", "mask_lib/relabel/widget.css", "mask_lib/relabel/keys.py")
PAGE = ("notebooks/09_try_it.ipynb", "mask_lib/plots/photo_page.py", "mask_lib/plots/style.py")
MADE_OF = "made of"  # the text chunk of a PNG: by file, as below
PATIENCE = 600  # seconds


def digests(name: str) -> dict[str, str]:
    """SHA-256 of each file that decides how a picture looks."""
    return {path: files.file_digest(PROJECT / path) for path in PICTURES[name][1]}


def changed_since(name: str) -> list[str]:
    """The files that are others by now than when a picture was made."""
    with Image.open(IMAGES / f"{name}.png") as image:
        noted = json.loads(image.info.get(MADE_OF, "{}"))
    return [path for path, digest in digests(name).items() if noted.get(path) != digest]


def save(name: str, content: bytes) -> None:
    """Write a picture, given as a PNG, with what it was made of."""
    note = PngImagePlugin.PngInfo()
    note.add_itxt(MADE_OF, json.dumps(digests(name)))
    image = Image.open(io.BytesIO(content)).convert("RGB")
    with files.replacing(IMAGES / f"{name}.png") as temporary:
        image.save(temporary, optimize=True, pnginfo=note)
    print(files.shown_path(IMAGES / f"{name}.png"))


def overview() -> bytes:
    """From photos with doubtful labels to folds, a scored network and a submission, of the demo's own files."""
    figure = plt.figure(figsize=(12, 4.3))
    sides = {"left": 0.01, "right": 0.98, "top": 0.84, "bottom": 0.1}
    grid = figure.add_gridspec(1, 4, **sides, wspace=0.3, width_ratios=(2.6, 1.6, 3, 2.3))
    draw_photos(figure, grid[0])
    draw_folds(heading(figure.add_subplot(grid[1]), "Honest folds", "no person on two sides"))
    run = run_folder.read_run(OUTPUT / "runs" / "heads")
    score = run.intervals.loc["macro_f1"]
    found = f"macro F1 {score['value']:.2f} ({score['low']:.2f}–{score['high']:.2f}), out of fold"
    draw_confusion(heading(figure.add_subplot(grid[2]), "A scored network", found), *run.truth_and_prediction())
    draw_submission(figure, grid[3])
    content = io.BytesIO()
    figure.savefig(content, dpi=150)
    return content.getvalue()


def heading(ax: Axes, title: str, beneath: str) -> Axes:
    """The axes with two lines above their left end."""
    ax.text(0, 1.13, title, transform=ax.transAxes, fontsize=15, fontweight="bold", color=style.INK)
    ax.text(0, 1.05, beneath, transform=ax.transAxes, fontsize=10, color=style.GREY)
    return ax


def blank(figure: Figure, place, title: str, beneath: str) -> tuple[float, float, float, float]:
    """Left, bottom, width and height of a place with a heading, for axes of one's own."""
    ax = heading(figure.add_subplot(place), title, beneath)
    ax.set_axis_off()
    return ax.get_position().bounds


def draw_photos(figure: Figure, place) -> None:
    """Three photos of three people, the second of whom is a suspect as a person."""
    train, suspects = photos.read_labeled(OUTPUT), pd.read_csv(OUTPUT / "review" / "suspects.csv")
    suspects["person"] = suspects["path"].map(train.set_index("path")["person"])
    trusted = suspects.groupby("person")["score"].max().nsmallest(2).index
    doubted = suspects.loc[suspects["field"] == "gender", "person"].iloc[0]
    people = [trusted[0], doubted, trusted[1]]
    left, bottom, width, height = blank(figure, place, "Noisy photos", "several of a person, some labels wrong")
    for row, person in enumerate(people):
        own = train[train["person"] == person].drop_duplicates("mask")
        for column, path in enumerate(own.sort_values("mask", ascending=False)["path"]):
            where = (left + column * width / 3, bottom + (2 - row) * height / 3, width / 3 * 0.96, height / 3 * 0.97)
            ax = figure.add_axes(where, xticks=[], yticks=[])
            ax.imshow(Image.open(DATA / "train" / "images" / path), aspect="auto")
            ax.spines[:].set(color=style.ORANGE, linewidth=3, visible=person == doubted)
            if person == doubted and not column:
                said = f"{own['gender'].iloc[0]}?"
                box = {"facecolor": style.ORANGE, "edgecolor": "none"}
                ax.text(
                    0.05, 0.08, said, transform=ax.transAxes, fontsize=9, color="white", fontweight="bold", bbox=box
                )


def draw_folds(ax: Axes) -> None:
    """Bars of each fold's people: validated, trained on, and those of test_val, whom no fold knows."""
    colours = {splits.TEST_VAL: style.GREY, splits.VAL: style.ORANGE, splits.TRAIN: "#d5e2ec"}
    tables = splits.read_splits(OUTPUT)
    for fold, table in tables.items():
        by_person = table.drop_duplicates("person")
        order = {person: at for at, person in enumerate(sorted(by_person["person"], key=first_validated(tables).get))}
        for part, colour in colours.items():
            at = by_person.loc[by_person["split"] == part, "person"].map(order)
            ax.bar(np.full(len(at), fold), 1, 0.86, bottom=at, color=colour)
    ax.set_xticks(range(len(tables)), [f"fold {fold}" for fold in tables])
    ax.set_ylabel(f"{len(by_person)} people", color=style.INK)
    ax.set(yticks=[], ylim=(len(by_person), 0))
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labelcolor=style.INK)


def first_validated(tables: Mapping[int, pd.DataFrame]) -> dict[str, int]:
    """By person the fold that validates them; -1: test_val."""
    found = {}
    for fold, table in tables.items():
        people = table.drop_duplicates("person").set_index("person")["split"]
        found |= dict.fromkeys(people.index[people == splits.VAL], fold)
        found |= dict.fromkeys(people.index[people == splits.TEST_VAL], -1)
    return found


def draw_confusion(ax: Axes, truth: np.ndarray, predicted: np.ndarray) -> None:
    """Shares of each true class, with lines between values of the first attribute, which are named."""
    counts = confusion_matrix(truth, predicted, labels=range(labels.class_count()))
    ax.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    words, block = labels.attributes()[0].words, labels.class_count() // labels.shape()[0]
    middles = np.arange(len(words)) * block + (block - 1) / 2
    ax.set_xticks(middles, words, fontsize=10)
    ax.set_yticks(middles, words, fontsize=10, rotation=90, va="center")
    ax.set_xlabel("predicted", color=style.INK)
    ax.tick_params(length=0, labelcolor=style.INK)
    for edge in np.arange(block, len(counts), block) - 0.5:
        ax.axhline(edge, color=style.INK, linewidth=1)
        ax.axvline(edge, color=style.INK, linewidth=1)


def draw_submission(figure: Figure, place) -> None:
    """Four photos of the submission with their answers."""
    answers = pd.read_csv(OUTPUT / "submissions" / "submission.csv").drop_duplicates("ans").head(4)
    left, bottom, width, height = blank(figure, place, "A submission", "in info.csv's order, checked")
    for number, row in enumerate(answers.itertuples()):
        low = bottom + (3 - number) * height / 4
        ax = figure.add_axes((left, low, width * 0.36, height / 4 * 0.95), xticks=[], yticks=[])
        ax.imshow(Image.open(DATA / "eval" / "images" / row.ImageID), aspect="auto")
        ax.spines[:].set_visible(False)
        figure.text(left + width * 0.42, low + 0.125, f"{row.ImageID[:8]}….jpg", fontsize=9, color=style.GREY)
        figure.text(left + width * 0.42, low + 0.065, row.ans, fontsize=16, fontweight="bold", color=style.INK)
        figure.text(left + width * 0.42, low + 0.02, labels.describe(row.ans), fontsize=10, color=style.INK)


def prepare(notebook: str, path: Path, **values: str | Path) -> None:
    """Write a notebook with these values of its parameters."""
    given = [text for name, value in values.items() for text in ("-r", name, str(value))]
    papermill = [sys.executable, "-m", "papermill", "--prepare-only", "--log-level", "WARNING"]
    subprocess.run([*papermill, PROJECT / "notebooks" / f"{notebook}.ipynb", path, *given], check=True)


@contextlib.contextmanager
def opened(height: int) -> Iterator[Page]:
    """A page in a browser."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser.find_chromium(), args=["--no-sandbox"])
        page = started.new_page(viewport={"width": 1200, "height": height})
        page.set_default_timeout(1000 * PATIENCE)
        yield page
        started.close()


def await_port(port: int) -> None:
    """Wait until something listens there."""
    for _ in range(10 * PATIENCE):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"after {PATIENCE} s no page is served: run make try to see why")


def try_it() -> bytes:
    """The page of 09_try_it with its example, as `make try` serves it."""
    with tempfile.TemporaryDirectory() as home, socket.create_server(("127.0.0.1", 0)) as free:
        prepare("09_try_it", Path(home) / "page.ipynb", results=files.shown_path(OUTPUT), task=labels.DEFAULT)
        port = free.getsockname()[1]
        free.close()
        command = [sys.executable, "-m", "voila", f"{home}/page.ipynb", "--no-browser"]
        command += ["--Voila.ip=127.0.0.1", f"--port={port}"]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            await_port(port)
            with opened(1620) as page:
                page.goto(f"http://127.0.0.1:{port}/", wait_until="commit")
                page.get_by_text(", for example").first.wait_for()
                page.wait_for_function("() => !document.body.innerText.includes('Looking at')")
                page.wait_for_timeout(1000)  # for pictures to be drawn
                return page.screenshot(full_page=True)
        finally:
            server.terminate()
            server.wait()


@contextlib.contextmanager
def relabeling() -> Iterator[Page]:
    """The screen of 01_label_cleaning in JupyterLab, some decisions made, on a copy: none of them is the demo's."""
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shutil.copytree(OUTPUT, home / "demo", ignore=shutil.ignore_patterns("checkpoint", "decisions.*"))
        (home / "tasks").symlink_to(PROJECT / "tasks")
        prepare("01_label_cleaning", home / "cleaning.ipynb", data_dir=DATA, output_dir=home / "demo")
        address = stack.enter_context(jupyter_pages.serving("lab", home))
        page = stack.enter_context(opened(1000))
        jupyter_pages.open_notebook(page, address, "lab", "cleaning.ipynb")
        page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
        jupyter_pages.run_all(page)
        page.locator(".label-review-stage[data-path]:not([data-path=''])").wait_for()
        page.locator(".label-review-title").click()
        for key in ("Enter", "Enter", "Enter", "n", "Enter", "Enter"):
            page.keyboard.press(key)
            page.wait_for_timeout(500)
        yield page


def review_suspects() -> bytes:
    """The pass of suspects."""
    with relabeling() as page:
        return page.locator(".label-review-root").screenshot()


def review_grid() -> bytes:
    """A page of photos of one class, some marked."""
    with relabeling() as page:
        for key in ("Shift+Digit2", "ArrowRight", "1", "ArrowRight"):
            page.keyboard.press(key)
            page.wait_for_timeout(1000)
        return page.locator(".label-review-root").screenshot()


PICTURES = {
    "overview": (overview, ("docs/make_pictures.py", "notebooks/params/demo.yml")),
    "review_suspects": (review_suspects, SCREEN),
    "review_grid": (review_grid, SCREEN),
    "try_it": (try_it, PAGE),
}  # by name: what makes it, and which files decide how it looks

if __name__ == "__main__":
    if not (OUTPUT / "submissions" / "submission.csv").exists():
        sys.exit("outputs/demo holds no submission: run make demo first")
    if not browser.find_chromium():
        sys.exit("no Chromium on this machine: run make browser first")
    if unknown := set(sys.argv[1:]) - set(PICTURES):
        sys.exit(f"no pictures {sorted(unknown)}: name some of {', '.join(PICTURES)}")
    for name in sys.argv[1:] or PICTURES:
        save(name, PICTURES[name][0]())
