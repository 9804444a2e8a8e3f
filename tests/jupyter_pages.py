"""JupyterLab and Notebook 7 as a person meets them: a server with settings of its own, and pages of it."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Page
from tiny_project import environment

from mask_lib.base import files

MODULES = {"lab": "jupyterlab", "notebook": "notebook"}
PAGES = {"lab": "lab/tree/{name}?reset", "notebook": "notebooks/{name}"}
LONGEST = 120_000  # milliseconds for anything to happen in a page
NOTEBOOK = "window.jupyterapp.shell.currentWidget"
IS_READY = f"""() => {{
    const context = window.jupyterapp?.shell.currentWidget?.sessionContext;
    return Boolean(context?.isReady && context.session?.kernel?.status === 'idle' && {NOTEBOOK}.content.widgets.length);
}}"""
CELLS = f"() => [...{NOTEBOOK}.content.model.cells].map(cell => cell.toJSON())"


@contextlib.contextmanager
def serving(kind: str, folder: Path) -> Iterator[str]:
    """The address of a server (`lab` or `notebook`) that asks nobody anything and whose notebooks lie in `folder`."""
    places = folder / "jupyter"
    places.mkdir()
    own = {f"JUPYTER_{name}_DIR": str(places / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    settings = places / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    files.write_json({"fetchNews": "false"}, settings / "notification.jupyterlab-settings")  # it would ask
    own |= {"IPYTHONDIR": str(places / "ipython"), "JUPYTERLAB_WORKSPACES_DIR": str(places / "workspaces")}
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": 0,  # one that the system picks
        "ServerApp.root_dir": folder,
        "ServerApp.open_browser": False,
        "ServerApp.allow_root": True,
        "IdentityProvider.token": "",
        "LabApp.news_url": None,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    command = [sys.executable, "-m", MODULES[kind], "--expose-app-in-browser"]
    command += [f"--{name}={value}" for name, value in options.items()]
    with (places / "server.log").open("w") as text:
        server = subprocess.Popen(command, env=environment(folder) | own, cwd=folder, stdout=text, stderr=text)
    try:
        url = until(lambda: address(places / "runtime") or server.poll() is not None, "the server starts", 180)
        assert server.poll() is None, (places / "server.log").read_text()
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)


def address(runtime: Path) -> str | None:
    """Where the server says that it is, once it has said it to the end."""
    for path in runtime.glob("jpserver-*.json"):
        with contextlib.suppress(ValueError):
            return files.read_json(path)["url"]
    return None


def until(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Wait until something holds, and give it; name it if it does not come."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"after {seconds} s still waiting until {what}"
        time.sleep(0.05)
    return found


def open_notebook(page: Page, address: str, kind: str, name: str) -> None:
    """Go to a notebook and wait for its kernel."""
    page.goto(address + PAGES[kind].format(name=name))
    page.wait_for_function(IS_READY, timeout=LONGEST)


def open_another(page: Page, name: str) -> None:
    """Open a notebook beside one in JupyterLab and wait for its kernel."""
    page.evaluate("path => window.jupyterapp.commands.execute('docmanager:open', {path})", name)
    page.wait_for_function(f"path => {NOTEBOOK}.context.path === path && ({IS_READY})()", arg=name, timeout=LONGEST)


def run_all(page: Page) -> None:
    """Start all cells; what they show is waited for elsewhere."""
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")


def save(page: Page) -> None:
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")


def cells(page: Page) -> list[dict]:
    """The cells of the notebook as the page holds them."""
    return page.evaluate(CELLS)
