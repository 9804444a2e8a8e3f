"""Notebooks run in this process, without a kernel: quick, and a test can replace what they call."""

from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from tiny_project import CHECKOUT

from mask_lib.headless import cells


def executed(shell: InteractiveShell, name: str, **given: Any) -> tuple[dict, list]:
    """The names that the cells of notebooks/`name`.ipynb leave, from its first to its last, and each cell's value."""
    notebook = CHECKOUT / "notebooks" / f"{name}.ipynb"
    shell.reset(new_session=False)
    shell.user_ns.update(cells.declared_parameters(notebook) | given)
    code = [cell for cell in cells.read(notebook) if cell["cell_type"] == "code"]
    done = [shell.run_cell(cell["source"]) for cell in code if not cell["metadata"].get("tags")]
    for one in done:
        one.raise_error()
    return shell.user_ns, [one.result for one in done]


def run_cells(shell: InteractiveShell, name: str, ids: list[str], **given: Any) -> None:
    """Run some cells of notebooks/`name`.ipynb alone, by their ids, on the names that they would find there."""
    source_of = {cell["id"]: cell["source"] for cell in cells.read(CHECKOUT / "notebooks" / f"{name}.ipynb")}
    shell.reset(new_session=False)
    shell.user_ns.update(given)
    for one in ids:
        shell.run_cell(source_of[one]).raise_error()
