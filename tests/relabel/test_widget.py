"""The screen of label cleaning in real pages of JupyterLab and Notebook 7, judged by the log on the disk."""

import contextlib
import dataclasses
import json
import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import jupyter_pages
import numpy as np
import pandas as pd
import pytest
from browser import require_chromium
from jupyter_pages import LONGEST, until
from playwright.sync_api import Browser, Page, sync_playwright
from portraits import face_of
from relabeling import RIGHT, WRONG, open_session, replay, suspects_of
from tiny_project import write_notebook

from mask_lib.base import files, labels
from mask_lib.data import layout
from mask_lib.data.photos import scan_photos
from mask_lib.relabel import decision_log, keys, session
from mask_lib.relabel.widget import ReviewWidget, known_moves
from mask_lib.sample import paint, people, portrait

PEOPLE = [
    (people.Gender.FEMALE, 24),
    (people.Gender.MALE, 47),
    *((people.Gender.FEMALE, years) for years in (60, 19, 28, 22, 26)),
]
HOSTILE = "<img src=x onerror=window.hacked=1>.jpg"
SOURCE = """
import os
from pathlib import Path
from mask_lib.base import labels
from mask_lib.data import photos
from mask_lib.relabel import decision_log, session, widget
from mask_lib.sample.people import Gender, Mask
import pandas as pd
Path("kernel.pid").write_text(str(os.getpid()))
labels.use({task!r})
log = decision_log.DecisionLog("review/decisions.ann.jsonl", "ann")
suspects = pd.read_csv("suspects.csv") if Path("suspects.csv").exists() else None
at_work = session.Session(photos.read_photos("photos.csv"), log, {data!r}, suspects)
widget.ReviewWidget(at_work)
"""
LOOK = """() => {
    const root = document.querySelector('.label-review-root');
    const find = (name) => root.querySelector(`.label-review-${name}`);
    const entries = [...root.querySelectorAll('.label-review-recent li')];
    return {
        path: find('stage').dataset.path,
        title: find('title').textContent,
        pending: find('pending').hidden ? '' : find('pending').textContent,
        notice: find('notice').hidden ? '' : find('notice').textContent,
        kept: entries.filter((one) => one.dataset.id).map((one) => one.dataset.id),
        open: entries.filter((one) => !one.dataset.id).length,
        focused: document.activeElement === root,
        photos: [...root.querySelectorAll('.label-review-page img')].length,
        wrong: [...root.querySelectorAll('.label-review-page .label-review-wrong')].map((one) => one.dataset.path),
    };
}"""
COLLECT = """() => {
    window.acknowledged = new Set();
    const recent = document.querySelector('.label-review-recent');
    const note = () => recent.querySelectorAll('[data-id]').forEach((one) => window.acknowledged.add(one.dataset.id));
    new MutationObserver(note).observe(recent, { childList: true });
}"""
KERNEL_IS_BACK = f"""() => {{
    const kernel = {jupyter_pages.NOTEBOOK}.sessionContext.session?.kernel;
    return kernel && kernel.status === 'idle' && kernel.connectionStatus === 'connected';
}}"""


@dataclasses.dataclass
class NotebookPage:
    """A notebook with the screen in it, in a page of its own."""

    kind: str
    address: str
    folder: Path
    data: Path
    page: Page

    @property
    def log(self) -> Path:
        return self.folder / "review" / "decisions.ann.jsonl"

    def lines(self) -> list[dict]:
        """The decisions on the disk."""
        return [json.loads(line) for line in self.log.read_bytes().splitlines()]

    def state(self) -> dict[str, dict]:
        """What the decisions on the disk come to: path -> field -> value."""
        return replay(self.lines())

    def begin(self, photos: pd.DataFrame, suspects: pd.DataFrame | None = None, task: str = labels.DEFAULT) -> None:
        """Write a notebook about these photos, open it, run it, and wait for its screen."""
        files.write_csv(photos, self.folder / "photos.csv")
        if suspects is not None:
            files.write_csv(suspects, self.folder / "suspects.csv")
        write_notebook(self.folder / "cleaning.ipynb", SOURCE.format(data=str(self.data), task=task), "1 + 1")
        self.open(self.page)
        jupyter_pages.run_all(self.page)
        self.await_screen()

    def open(self, page: Page) -> None:
        jupyter_pages.open_notebook(page, self.address, self.kind, f"{self.folder.name}/cleaning.ipynb")

    def await_screen(self) -> None:
        """Wait for a photo, or a page of them, and give the screen the keys by a click."""
        self.page.wait_for_selector(".label-review-stage[data-path$='.jpg'], .label-review-page img", timeout=LONGEST)
        self.page.locator(".label-review-title").click()

    def look(self) -> dict:
        return self.page.evaluate(LOOK)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def shows(self, path: str) -> None:
        """Wait until a photo is in view."""
        until(lambda: self.look()["path"] == path, f"{path} is in view, not {self.look()}", 15)

    def settles(self) -> None:
        """Wait until everything sent was answered."""
        until(lambda: not self.look()["open"], "all is acknowledged", 15)

    def kernel(self) -> int:
        return int((self.folder / "kernel.pid").read_text() or 0)  # empty while it is being written

    def rerun(self) -> None:
        """Wait for the server to start a new kernel, and run the cells again in it."""
        self.page.locator(".jp-Dialog button.jp-mod-accept").click(timeout=LONGEST)  # it tells of the restart
        self.page.wait_for_function(KERNEL_IS_BACK, timeout=LONGEST)
        before = self.kernel()
        jupyter_pages.run_all(self.page)
        until(lambda: self.kernel() not in (0, before), "the cells run in a new kernel")
        self.await_screen()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=require_chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """A data folder with people of seven photos each, four of one group, and its photo table."""
    data, rows = tmp_path_factory.mktemp("data"), []
    for number, (gender, years) in enumerate(PEOPLE, 1):
        person = f"{number:06d}_{gender.name.lower()}_Asian_{years}"
        folder, face = data / "train/images" / person, face_of(number + 2, years, gender)
        folder.mkdir(parents=True)
        for place, (kind, word) in enumerate(layout.PHOTO_NAMES.items()):
            mask = people.Mask(labels.attribute("mask").value_of(word))
            shot = people.invent_shot(np.random.default_rng([number - 1, place]), mask)
            portrait.portrait(face, shot).save(folder / f"{kind}.jpg", quality=88)
            label = labels.encode(mask, gender, labels.attribute("age").value_of(years))
            rows.append([f"{person}/{kind}.jpg", person, word, gender.name.lower(), years, label, "train"])
    return data, pd.DataFrame(rows, columns=layout.photo_columns())


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[str, Path]]]:
    """Per kind of page the address and the folder of a running server."""
    roots = {kind: tmp_path_factory.mktemp(kind) for kind in jupyter_pages.MODULES}
    with contextlib.ExitStack() as stack:
        yield {kind: (stack.enter_context(jupyter_pages.serving(kind, root)), root) for kind, root in roots.items()}


LAB, NOTEBOOK = (pytest.param(kind, marks=pytest.mark.browser) for kind in jupyter_pages.MODULES)
both = pytest.mark.parametrize("lab", [LAB, NOTEBOOK], indirect=True)


@pytest.fixture(params=[LAB])
def lab(request: pytest.FixtureRequest, chromium: Browser, servers, painted) -> Iterator[NotebookPage]:
    """An empty folder in JupyterLab, or in the kind of page that the test is given as parameter."""
    address, root = servers[request.param]
    folder = root / f"lab{len(list(root.glob('lab*')))}"
    folder.mkdir()
    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    yield NotebookPage(request.param, address, folder, painted[0], page)
    page.evaluate(f"() => {jupyter_pages.NOTEBOOK}?.sessionContext.shutdown()")
    page.context.close()


@pytest.fixture
def photos(painted) -> pd.DataFrame:
    return painted[1]


@both
def test_every_pass_needs_nothing_but_keys_and_leaves_the_notebook_alone(lab, photos):
    first, second, *_, fifth = paths = list(photos["path"][:5])  # of one class
    lab.begin(photos[:5])
    before = jupyter_pages.cells(lab.page)

    lab.press("Shift+Digit2")
    until(lambda: lab.look()["photos"] == 5, "all photos of the class are on the page")
    lab.press("ArrowRight", "1")
    until(lambda: lab.look()["wrong"] == [second], "the marked photo has its frame")
    lab.press("Enter")
    until(lambda: len(lab.state()) == 5, "the page is decided")
    assert lab.state() == dict.fromkeys(paths, RIGHT) | {second: WRONG}
    lab.press("u", "u")
    lab.settles()
    until(lambda: not lab.state(), "the page and the mark are undone")

    lab.press("Shift+Digit1")
    lab.shows(first)
    lab.press("1", "2", "1", "Space", "1", "u")
    lab.shows(fifth)
    lab.press("d", "d", "b", "x", "Enter", "y", "c", "v", "1")
    lab.settles()
    assert lab.state() == dict(zip(paths, [WRONG, RIGHT, WRONG, RIGHT, WRONG], strict=True))

    lab.press("Shift+Digit3")
    lab.shows(first)
    lab.press("Enter", "n", "x")
    lab.settles()
    confirmed, dropped = (WRONG | {"verdict": verdict} for verdict in ("confirmed", "drop"))
    assert lab.state() == dict.fromkeys(paths, RIGHT) | {first: confirmed, fifth: dropped}

    lab.press("Shift+Digit4")
    lab.shows(first)
    lab.press("1")
    until(lambda: lab.look()["pending"] == "1_", "the first digit waits for the second")
    lab.press("3")
    lab.settles()
    until(lambda: lab.state()[first].get("label") == 13, "the class is on the disk")
    assert jupyter_pages.cells(lab.page) == before
    assert lab.look()["focused"]


def test_another_task_has_its_own_keys_and_words(lab, tmp_path):
    paint.paint(tmp_path / "data", 6, 6, width=64, height=96, faults=False, workers=1, task="helmet")
    labels.use("tasks/helmet.yml")
    photos, problems = scan_photos(tmp_path / "data")
    own = photos[(photos["split"] == "train") & (photos["label"] != labels.encode(1, 2))][:3]
    first, second, _ = own["path"]
    page = dataclasses.replace(lab, data=tmp_path / "data")
    page.begin(own, task="tasks/helmet.yml")
    assert problems.empty
    page.press("1", "2", "2", "Shift+Digit3")
    page.shows(first)
    page.press("Enter", "Shift+Digit4")
    page.shows(first)
    page.press("k")
    until(lambda: page.look()["pending"] == "no", "the helmet is typed")
    page.press("y")
    until(lambda: page.look()["pending"] == "no yellow", "the vest is typed")
    assert "no yellow" in page.page.locator(".label-review-root").inner_text()
    page.press("Enter")
    page.settles()
    assert page.state()[first]["label"] == labels.encode(1, 2) == 5 and "label" not in page.state()[second]


@both
def test_a_saved_notebook_holds_no_photos_and_goes_on_where_it_was_when_reloaded_and_in_a_second_tab(lab, photos):
    first, _, third, fourth = photos["path"][:4]
    lab.begin(photos[:6])
    lab.press("1", "2")
    lab.settles()
    jupyter_pages.save(lab.page)
    notebook = (lab.folder / "cleaning.ipynb").read_text()
    assert len(notebook) < 100_000 and first not in notebook
    lab.page.reload()
    lab.page.wait_for_function(jupyter_pages.IS_READY, timeout=LONGEST)
    lab.await_screen()
    assert lab.look()["path"] == third and len(lab.look()["kept"]) == 2
    other = NotebookPage(lab.kind, lab.address, lab.folder, lab.data, lab.page.context.browser.new_page())
    other.open(other.page)
    other.await_screen()
    other.shows(third)
    other.press("1")
    other.settles()
    lab.page.bring_to_front()
    lab.shows(fourth)
    lab.press("Backspace", "Backspace", "Backspace")
    lab.shows(first)
    lab.settles()
    assert len(lab.lines()) == 6 and not lab.state()
    other.page.bring_to_front()
    other.shows(first)
    other.page.context.close()


@both
def test_a_kernel_killed_while_keys_fly_is_told_of_and_loses_no_acknowledged_decision(lab, painted):
    data, photos = painted
    many = pd.concat([photos[:1]] * 300, ignore_index=True).assign(path=[f"many/{n:03d}.jpg" for n in range(300)])
    content = (data / "train/images" / photos["path"][0]).read_bytes()
    (data / "train/images/many").mkdir(exist_ok=True)
    for path in many["path"]:
        (data / "train/images" / path).write_bytes(content)
    lab.begin(many)
    pause = random.Random(5)
    for _ in range(2):
        lab.page.evaluate(COLLECT)
        lab.press("1")
        lab.settles()
        killer = threading.Timer(pause.uniform(0.3, 1.5), os.kill, (lab.kernel(), signal.SIGKILL))
        killer.start()
        lab.press(*("12" * 50))
        killer.join()
        until(lambda: lab.look()["notice"], "the dead kernel is told of")
        lab.press("1", "2")
        acknowledged = lab.page.evaluate("() => [...window.acknowledged]")
        on_disk = decision_log.DecisionLog(lab.log, "ann").decisions
        assert acknowledged
        assert set(acknowledged) <= {decision["id"] for decision in on_disk}
        lab.rerun()
        seen = lab.look()
        assert seen["notice"] == "" and seen["path"] == many["path"][len(on_disk)]
        assert seen["kept"] == [decision["id"] for decision in reversed(on_disk)][:10]
        assert lab.lines() == on_disk


def test_no_key_counts_while_the_kernel_is_silent_or_has_moved_on_without_this_screen(lab, photos):
    first, second, third, fourth = photos["path"][:4]
    lab.begin(photos[:6])
    os.kill(lab.kernel(), signal.SIGSTOP)
    try:
        lab.press("1")
        lab.shows(second)  # shown at once, not yet acknowledged
        assert lab.look()["open"] == 1
        until(lambda: "No answer" in lab.look()["notice"], "the silence is told of", 10)
        lab.press("1", "1")
    finally:
        os.kill(lab.kernel(), signal.SIGCONT)
    until(lambda: lab.look()["notice"] == "", "the kernel answers")
    lab.press("2")
    lab.settles()
    elsewhere = session.Session(photos[:6], decision_log.DecisionLog(lab.log, "ann"), lab.data)
    elsewhere.press("2", third, 1)
    lab.press("1")
    until(lambda: lab.look()["notice"], "the stale screen is told of")
    lab.press("1", "1")
    lab.press("r")
    until(lambda: lab.look()["notice"] == "", "the state was read again")
    lab.shows(fourth)
    lab.press("1")
    lab.settles()
    decided = [(first, "wrong"), (second, "right"), (third, "right"), (fourth, "wrong")]
    assert [(line["path"], line["new"]) for line in lab.lines()] == decided


def test_hostile_names_are_shown_as_text_and_an_unreadable_photo_is_named_and_can_be_passed(lab, photos):
    folder = lab.data / "train/images" / photos["person"][0]
    (folder / HOSTILE).write_bytes((folder / "normal.jpg").read_bytes())
    hostile, gone = (photos[:1].assign(path=f"{folder.name}/{name}") for name in (HOSTILE, "gone.jpg"))
    suspects = suspects_of(hostile).assign(why="<script>window.hacked=2</script>")
    lab.begin(pd.concat([hostile, gone, photos[:3]]), suspects)
    assert HOSTILE in lab.page.locator(".label-review-path").inner_text()
    lab.press("1")
    until(lambda: "cannot be read" in lab.page.locator(".label-review-fit").inner_text(), "the loss is told of")
    lab.press("ArrowRight")
    lab.shows(photos["path"][0])
    lab.press("Shift+Digit5")
    until(lambda: "Suspects" in lab.look()["title"], "the suspects are shown")
    assert "<script>" in lab.page.locator(".label-review-reason").inner_text()
    lab.press("?")
    assert lab.page.evaluate("() => window.hacked") is None
    assert HOSTILE in lab.lines()[0]["path"]


def test_only_plain_keys_count_only_once_and_the_screen_asks_for_a_click_while_it_has_none(lab, photos):
    lab.begin(photos[:6])
    hint = lab.page.locator(".label-review-wake")
    lab.press("Control+1", "Alt+1", "Meta+1", "Shift+Enter")
    for _ in range(4):
        lab.page.keyboard.down("1")  # from the second on, the browser takes it for a key held down
    lab.page.keyboard.up("1")
    lab.settles()
    until(lambda: lab.log.exists() and lab.lines(), "the key is on the disk")
    assert not hint.is_visible()
    lab.press("Tab")
    assert not lab.look()["focused"]
    lab.press("Shift+Tab", "2")
    lab.shows(photos["path"][2])
    lab.settles()
    lab.page.locator(".jp-Cell").first.click()
    assert hint.is_visible()
    hint.click()
    assert not hint.is_visible() and lab.look()["focused"]
    assert [line["new"] for line in lab.lines()] == ["wrong", "right"]


def test_every_mode_has_its_screen_by_day_and_by_night_wide_and_narrow(lab, photos):
    lab.begin(photos, suspects=suspects_of(photos[photos["gender"] == "male"]))
    lab.page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
    lab.page.set_viewport_size({"width": 1200, "height": 1000})
    lab.press("1", "2", "2", "1", "2", "f", "2", "1")
    lab.settles()
    for number, mode in enumerate(keys.MODES, 1):
        lab.press(f"Shift+Digit{number}")
        until(lambda mode=mode: mode.lower() in lab.look()["title"].lower(), f"{mode} is shown")
        if mode == "grid":
            lab.press(".", ".")  # from the class of the photo last in view to the one with most photos
            until(lambda: lab.look()["photos"] == 20, "the page is full")
            lab.press("ArrowRight", "1", *["ArrowDown"] * 2, "1", "ArrowRight")
            lab.settles()
        if mode == "review":
            lab.press("Enter", "Enter")
            lab.settles()
        if mode == "relabel":
            lab.press("1")
            until(lambda: lab.look()["pending"], "a digit waits")
            typed = lab.page.locator(".label-review-classes .label-review-typed").all_inner_texts()
            assert typed == ["01", *map(str, range(10, 18))]
        side, views = (lab.page.locator(f".label-review-{one}").bounding_box()["height"] for one in ("side", "views"))
        assert side <= views, f"{mode}: what stands beside the photo is taller than it"
        lab.press("Escape")
    lab.page.evaluate("() => window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    lab.page.wait_for_selector("body[data-jp-theme-light='false']", state="attached")
    lab.page.set_viewport_size({"width": 800, "height": 1100})
    assert lab.page.locator(".label-review-root").evaluate("(root) => root.scrollWidth <= root.clientWidth")


@pytest.fixture
def widget(tmp_path: Path) -> ReviewWidget:
    return ReviewWidget(open_session(tmp_path))


def test_errors_are_answered_and_say_what_went_wrong(widget, monkeypatch):
    answers = []
    monkeypatch.setattr(ReviewWidget, "send", lambda self, content, buffers=None: answers.append(content))
    widget.receive(widget, {"type": "start", "view": "v", "sequence": 7, "mode": "zap", "options": {}}, [])
    widget.receive(widget, {"type": "photos", "paths": ["../secret"]}, [])
    refusal, photo = answers
    assert refusal["accepted"] is False and refusal["failed"] and "modes are" in refusal["message"]
    assert (refusal["sequence"], refusal["view"]) == (7, "v")
    assert photo["path"] == "../secret" and "cannot be read" in photo["error"]


@pytest.mark.parametrize(
    ("mode", "pending", "scope", "foreseen", "unforeseen"),
    [
        ("inspect", "", "photo", {"1": 1, "2": 1, " ": 1, "s": 1, "ArrowRight": 1, "ArrowLeft": -1}, "fuz"),
        ("review", "", "photo", {"Enter": 1, "y": 1, "n": 1, "x": 1}, "u"),
        ("relabel", "", "photo", {"2": 1, "9": 1, "x": 1}, ["0", "1", "q", "P", "S", "Enter"]),
        ("relabel", "1_", "photo", {}, "13x"),
        ("suspects", "", "photo", {"Enter": 1, "n": 1}, "1P"),
        ("suspects", "", "person", {"ArrowLeft": -1}, ["Enter", "n", "2"]),
        ("grid", "", "photo", {}, ["1", "Enter", "ArrowRight"]),
    ],
)
def test_only_keys_whose_outcome_is_certain_are_foreseen(mode, pending, scope, foreseen, unforeseen):
    moves = known_moves({"mode": mode, "pending": pending, "scope": scope, "actions": keys.actions(mode)})
    assert moves.items() >= foreseen.items()
    assert not moves.keys() & set(unforeseen)


def test_nothing_of_the_state_is_a_trait_that_a_notebook_would_save(widget):
    own = {name for name in widget.get_state() if not name.startswith("_")}
    assert own == {"layout", "tabbable", "tooltip"}
