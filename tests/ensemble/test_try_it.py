"""09_try_it: its answers are those of the results, and its page takes uploads and keys in a real browser."""

import datetime
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import ipywidgets
import kernelless
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import toys
from browser import require_chromium
from IPython.display import Image, Markdown
from jupyter_pages import LONGEST, until
from playwright.sync_api import Page, sync_playwright
from tiny_project import CHECKOUT, environment, run_headless
from toy_ensemble import RUNS

from mask_lib.base import labels
from mask_lib.data import photos, store
from mask_lib.ensemble import pack, predict
from mask_lib.models import grad_cam, networks
from mask_lib.plots import photo_page

FOCUSED = "() => document.activeElement.matches('button, input') ? document.activeElement.outerHTML : ''"
HOSTILE = "<img src=x onerror=window.hacked=1>.jpg"


@pytest.fixture(scope="module")
def output(trained):
    return trained[1]


@pytest.fixture(scope="module")
def project(output):
    return output.parents[1]


@pytest.fixture(scope="module")
def results(output):
    return predict.Results(output)


def bomb() -> bytes:
    """A file of 100 KB with a photo of 100 megapixels."""
    content = io.BytesIO()
    PIL.Image.new("1", (10_000, 10_000)).save(content, "PNG")
    return content.getvalue()


def test_answers_are_those_of_a_whole_folder_and_each_member_says_its_own(results, output, folder, tmp_path):
    table = predict.predict_folder(output, folder, tmp_path / "out.csv").set_index("file")
    for name, row in table.iterrows():
        answer = results.answer(folder / name)
        said = answer.said[labels.probability_columns()].to_numpy()
        assert said[0].argmax() == int(row["label"])
        for attribute, alone in labels.marginals(said[:1]).items():
            assert alone.max() == pytest.approx(float(row[f"{attribute}_probability"]), abs=1e-5)
        assert list(answer.said["member"]) == [predict.ENSEMBLE, *RUNS]
        assert list(answer.said["weight"]) == [1, 0.2, 0.3, 0.5]
        for run, own in zip(RUNS, said[1:], strict=True):
            expected = pd.read_csv(output / "inferences" / f"{run}.test.csv").set_index("ImageID").loc[name]
            np.testing.assert_allclose(own, expected.to_numpy(), atol=1e-5)
    shown = list(photo_page.answer(answer, name))
    assert [type(one) for one in shown] == [Markdown, Image, Markdown, pd.DataFrame, Image, Image]
    assert shown[0].data.startswith(f"## {labels.describe(int(row['label']))}, ")


def test_each_head_has_a_map_and_one_head_a_map_of_the_class(results, folder):
    answer = results.answer(min(folder.iterdir()))
    label = answer.said[labels.probability_columns()].iloc[0].to_numpy().argmax()
    words = [f"{name}: {labels.attribute(name).words[value]}" for name, value in labels.values_of(label).items()]
    titles = [*(f"{run}\n{word}" for run in ("frozen", "heads") for word in words), f"toy\n{labels.describe(label)}"]
    maps, notes = answer.explained
    assert [title for title, _, _ in maps] == titles and not notes
    for _, image, one in maps:
        assert one.shape == image.shape[:2] == (toys.FRAME.height, toys.FRAME.width)
        assert one.min() >= 0 and one.max() <= 1


def test_a_network_that_tells_no_places_apart_is_named(results, folder, monkeypatch):
    def refuse(*_given):
        raise networks.UnsupportedError("it has no maps")

    monkeypatch.setattr(grad_cam, "by_head", refuse)
    answer = results.answer(min(folder.iterdir()))
    assert answer.explained[1] == [f"Where {run} looks is not shown: it has no maps." for run in RUNS]
    assert "Where heads looks is not shown" in list(photo_page.answer(answer, "photo"))[-1].data


def test_the_class_is_shown_before_what_takes_longer_is_begun(results, folder, monkeypatch):
    page, shown = photo_page.PhotoPage(results.answer), []
    explained = property(lambda _answer: shown.extend(page.answer.outputs) or ([], []))
    monkeypatch.setattr(predict.Answer, "explained", explained)
    page.path.value = str(min(folder.iterdir()))
    assert shown[0]["data"]["text/markdown"].startswith("## ") and "image/png" in shown[1]["data"] and len(shown) == 4


def test_a_copy_of_a_training_photo_is_nearest_with_its_person_and_label(results, output, project):
    for row in photos.read_labeled(output)[::7].itertuples():
        nearest = results.answer(project / "data/train/images" / row.path).nearest
        assert nearest.loc[0, ["path", "person", "label"]].tolist() == [row.path, row.person, row.label]
        assert nearest["likeness"][0] == pytest.approx(1, abs=1e-4) and nearest["likeness"].is_monotonic_decreasing
        assert len(nearest) == 6
    assert results.example == project / "data/eval/images" / f"{0:040x}.png"


def test_nothing_of_the_training_photos_is_computed_for_the_page(output, project, tmp_path, monkeypatch):
    """Without decoded photos or kept features there is a sentence, and no file is written."""
    monkeypatch.setattr(store, "_write_photos", None)
    notes = {"features": "features: run 00_prepare_data first", "store": "photos are not decoded to 16x24"}
    for name, why in notes.items():
        bare = shutil.copytree(output, tmp_path / name)
        shutil.rmtree(bare / name)
        before = sorted(bare.rglob("*"))
        (note,) = predict.Results(bare).notes
        assert note.startswith("The nearest training photos are not shown: ") and why in note
        assert sorted(bare.rglob("*")) == before


def test_an_archive_answers_without_its_photos_and_one_run_for_itself(results, output, folder, tmp_path):
    path, columns = min(folder.iterdir()), labels.probability_columns()
    packed = predict.Results(pack.pack(output, tmp_path / "results.tar.gz"))
    answer = packed.answer(path)
    np.testing.assert_allclose(answer.said[columns], results.answer(path).said[columns], atol=1e-9)
    assert packed.example is None and answer.nearest.empty and len(answer.explained[0]) == 7
    assert answer.explained[1] == ["The nearest training photos are not shown: these results came without them."]
    alone = predict.Results(output, "heads").answer(path)
    assert list(alone.said["member"]) == ["heads"]
    assert [type(one) for one in photo_page.answer(alone, "x")] == [Markdown, Image, Image, Image]


BAD = {
    "text.jpg": (b"no photo", "unreadable: not a JPEG, PNG, BMP or WebP picture."),
    "empty.png": (b"", "empty file: 0 bytes."),
    "cut.png": (b"cut", "truncated: image file is truncated"),
    "huge.png": (bomb(), "could be decompression bomb DOS attack."),
    HOSTILE: (b"<script>", "unreadable: not a JPEG"),
}


def test_a_bad_file_gets_a_sentence_and_the_page_goes_on(results, folder, tmp_path):
    good, page = min(folder.iterdir()), photo_page.PhotoPage(results.answer)
    for name, (content, why) in BAD.items():
        (tmp_path / name).write_bytes(good.read_bytes()[:-200] if content == b"cut" else content)
        (shown,) = photo_page.tried(results.answer, tmp_path / name, name)
        assert why in shown.data and "has no answer" in shown.data and "<" not in shown.data
    for path, why in (("gone.jpg", "unreadable: not a file."), (str(tmp_path), "not a file"), ("\0", "not a file")):
        page.path.value = path
        assert why in page.answer.outputs[0]["data"]["text/markdown"]
    page.path.value = str(good)
    assert page.answer.outputs[0]["data"]["text/markdown"].startswith("## ")
    upload = {"name": "x.png", "type": "image/png", "size": 9, "content": b"no photo"}
    page.upload.value = [{**upload, "last_modified": datetime.datetime.now(datetime.UTC)}]
    assert "**x.png** has no answer" in page.answer.outputs[0]["data"]["text/markdown"] and page.path.value == ""


@pytest.mark.parametrize("sizes", [(2,), (37,), (2, 3, 4, 5)])
def test_any_number_of_attributes_and_values_is_drawn(sizes):
    some = [
        labels.Attribute(f"a{number}", tuple(f"v{value}" for value in range(size)), "")
        for number, size in enumerate(sizes)
    ]
    with labels.using(some):
        shares = np.random.default_rng(0).dirichlet(np.ones(labels.class_count()), 3)
        said = pd.DataFrame(shares, columns=labels.probability_columns())
        said.insert(0, "member", ["all", "a", "b"])
        said.insert(1, "weight", [1.0, 0.5, 0.5])
        found = predict.Answer(None, {}, np.zeros((9, 9, 3), np.uint8), said)
        figure, table = photo_page.charts(found), photo_page.member_table(said)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["", *(one.name for one in some)]
    assert [len(ax.patches) for ax in figure.axes[1:]] == [min(size, photo_page.MOST_VALUES) for size in sizes]
    assert list(table) == ["weight", *(one.name for one in some), "class"]


def test_the_notebook_answers_a_photo_without_a_click_and_else_shows_its_page(project, output, folder, shell):
    given = {"results": "outputs/toy", "photo": str(min(folder.iterdir()))}
    report = run_headless(project, "09_try_it", project / "tried.ipynb", given)
    assert report.count("data:image/png") >= 3 and "What each member says" in report
    names, _ = kernelless.executed(shell, "09_try_it", results=str(output))
    assert isinstance(names["shown"][0], ipywidgets.VBox)
    assert len(names["shown"][0].answer.outputs) == 6


@pytest.fixture(scope="module")
def address(project, tmp_path_factory) -> Iterator[str]:
    """Where `make try` serves the experiment's page."""
    home = tmp_path_factory.mktemp("jupyter")
    own = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    (project / "notebooks").symlink_to(CHECKOUT / "notebooks")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["make", "-f", CHECKOUT / "Makefile", "-o", "setup", "try"]
    command += [f"PYTHON={sys.executable}", "RESULTS=outputs/toy", f"PORT={port}"]
    with (home / "log").open("w") as log:
        where = {"cwd": project, "env": environment(project) | own | {"IPYTHONDIR": str(home / "ipython")}}
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **where)
    try:
        said = f"http://127.0.0.1:{port}/"
        until(lambda: said in (home / "log").read_text() or server.poll() is not None, "the server starts", 180)
        assert server.poll() is None, (home / "log").read_text()
        yield said
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(timeout=60)


@pytest.fixture(scope="module")
def page(address) -> Iterator[Page]:
    """The page with its example, in a browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=require_chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1600})
        page.on("filechooser", lambda chooser: None)  # else the first is not yet caught when a key opens it
        page.goto(address, wait_until="commit", timeout=LONGEST)
        shows(page, f"{0:040x}.png, for example")
        yield page
        browser.close()


def shows(page: Page, text: str) -> None:
    page.get_by_text(text).first.wait_for(timeout=LONGEST)
    page.wait_for_function("() => !document.body.innerText.includes('Looking at')", timeout=LONGEST)


def upload(page: Page, photo: Any) -> None:
    """Choose a file by the button."""
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a photo").click()
    chooser.value.set_files(photo)


def tab_to(page: Page, words: str) -> None:
    """Press Tab until what has the focus says these words."""
    for _ in range(20):
        if words in page.evaluate(FOCUSED):
            return
        page.keyboard.press("Tab")
    pytest.fail(f"Tab never comes to {words!r}")


@pytest.mark.browser
def test_a_photo_is_uploaded_and_another_opened_by_its_path_with_keys_alone(page, results, folder):
    first, second = sorted(folder.iterdir())[3:5]
    text = page.inner_text("body")
    assert "Try it" in text and "What each member says" in text and "import" not in text and "papermill" not in text
    page.wait_for_load_state("networkidle", timeout=LONGEST)  # what is drawn late takes the focus away
    tab_to(page, "Choose a photo")
    chosen = []
    page.once("filechooser", lambda chooser: chosen.append(chooser))
    for _ in range(5):  # a key is lost where the page is drawn between the two
        tab_to(page, "Choose a photo")
        page.keyboard.press("Enter")
        page.wait_for_timeout(2000)
        if chosen:
            break
    assert chosen, page.evaluate(FOCUSED)
    chosen[0].set_files(first)
    shows(page, first.name)
    tab_to(page, "type the path")
    page.keyboard.type(str(second))
    page.keyboard.press("Enter")
    shows(page, str(second))
    said = results.answer(second).said[labels.probability_columns()].iloc[0].to_numpy()
    assert f"{labels.describe(said.argmax())}, {said.max():.0%}" in page.inner_text("body")
    assert first.name not in page.inner_text("body").replace(str(second), "")
    assert page.locator("img").count() == 3  # charts, maps and near photos
    upload(page, first)  # the same file once more
    shows(page, first.name)


@pytest.mark.browser
def test_a_bad_upload_gets_a_sentence_whatever_its_name_and_the_page_goes_on(page, folder):
    # Servers refuse messages of more than 10 MB unless told.
    for name, content in ((HOSTILE, b"<script>"), ("long.jpg", bytes(12_000_000)), ("huge.png", bomb())):
        upload(page, {"name": name, "mimeType": "image/jpeg", "buffer": content})
        shows(page, f"{name} has no answer")
    assert "decompression bomb" in page.inner_text("body") and not page.evaluate("window.hacked")
    good = min(folder.iterdir())
    upload(page, good)
    shows(page, good.name)
    assert page.locator("img").count() == 3
