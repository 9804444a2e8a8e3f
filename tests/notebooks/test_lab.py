"""The notebooks in a real JupyterLab, as a person meets them: open, run all cells, read the answer.

No value is edited, so all is as the notebooks' defaults say, but for the set, which is tiny. The
notebooks need one another's files and run in the order of their numbers.
"""

import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import jupyter_pages
import pytest
from browser import require_chromium
from playwright.sync_api import Page, sync_playwright
from tiny_project import CHECKOUT, paint

pytestmark = pytest.mark.browser

NOTEBOOKS = sorted(path.stem for path in (CHECKOUT / "notebooks").glob("*.ipynb"))
LONGEST = 300  # seconds for one notebook
IS_OVER = f"""() => {{
    if ({jupyter_pages.NOTEBOOK}.sessionContext.session.kernel.status !== 'idle') return false;
    const code = ({jupyter_pages.CELLS})().filter(cell => cell.cell_type === 'code');
    const failed = code.some(cell => cell.outputs.some(output => output.output_type === 'error'));
    return Boolean(failed || code.every(cell => cell.execution_count !== null) && code.at(-1).outputs.length);
}}"""
LAST_TEXT = f"""async () => {{
    const notebook = {jupyter_pages.NOTEBOOK}.content;
    const last = notebook.widgets[notebook.widgets.length - 1];
    await notebook.scrollToCell(last);
    return last.node.innerText;
}}"""
SHUT_DOWN = f"() => {jupyter_pages.NOTEBOOK}.sessionContext.shutdown()"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab with settings of its own, on a copy of the notebooks beside a painted set."""
    require_chromium()
    project = tmp_path_factory.mktemp("lab")
    paint(project, people=12, eval_people=6)
    shutil.copytree(CHECKOUT / "notebooks", project / "notebooks", ignore=shutil.ignore_patterns(".*"))
    with jupyter_pages.serving("lab", project) as address:
        yield address


@pytest.fixture(scope="module")
def page(lab: str) -> Iterator[Page]:
    """A page of a browser, which notes in `page.hosts` whom it called."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=require_chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.hosts = set()
        page.on("request", lambda request: page.hosts.update(filter(None, [urlsplit(request.url).hostname])))
        yield page
        chromium.close()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_from_top_to_bottom_without_an_edit(lab: str, page: Page, name: str):
    if page.url == "about:blank":
        jupyter_pages.open_notebook(page, lab, "lab", f"notebooks/{name}.ipynb")
    else:  # the page is there already, which takes seconds
        jupyter_pages.open_another(page, f"notebooks/{name}.ipynb")
    before = jupyter_pages.cells(page)
    jupyter_pages.run_all(page)
    page.wait_for_function(IS_OVER, timeout=LONGEST * 1000, polling=500)

    cells = jupyter_pages.cells(page)
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert [cell["source"] for cell in cells] == [cell["source"] for cell in before]
    if not any("image/png" in output.get("data", {}) for output in outputs):  # but in a widget's, as on the page of 09
        page.wait_for_selector(".widget-output img[src^='data:image/png']")
    assert "Answer" in page.evaluate(LAST_TEXT)
    assert page.hosts == {urlsplit(lab).hostname}
    page.evaluate(SHUT_DOWN)
