"""A notebook's cells as data, read without nbformat: its parameters cell, and a digest of what it does."""

import ast
import contextlib
from pathlib import Path
from typing import Any

import pydantic

from mask_lib.base import files


class _Metadata(pydantic.BaseModel, extra="allow"):
    tags: list[str] = []


class _Cell(pydantic.BaseModel, extra="allow"):
    cell_type: str
    source: str | list[str]
    metadata: _Metadata = _Metadata()


class _Notebook(pydantic.BaseModel, extra="allow"):
    cells: list[_Cell]


def read(path: files.AnyPath) -> list[dict[str, Any]]:
    """The cells of a notebook in format 4, their sources as text. Raises ValueError that names the file."""
    # As plain JSON: importing nbformat takes over a second, and each job of a cluster reads all notebooks anew.
    try:
        cells = files.read_json(path, _Notebook)["cells"]
    except FileNotFoundError:
        raise ValueError(f"there is no notebook {files.shown_path(path)}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{files.shown_path(path)} is not a notebook in format 4: {error}") from error
    return [{"metadata": {}, **cell, "source": "".join(cell["source"])} for cell in cells]


def digest(notebook: files.AnyPath) -> str:
    """16 hex digits for the types and sources of a notebook's cells, whatever outputs are saved in it."""
    return files.digest([[cell["cell_type"], cell["source"]] for cell in read(notebook)])


def declared_parameters(notebook: files.AnyPath) -> dict[str, Any]:
    """What the one cell tagged `parameters` sets, in its order. ValueError unless it is `name = literal` lines."""
    shown = files.shown_path(notebook)
    cells = [cell for cell in read(notebook) if "parameters" in cell["metadata"].get("tags", [])]
    if len(cells) != 1 or cells[0]["cell_type"] != "code":
        raise ValueError(f"{shown}: {len(cells)} cells are tagged 'parameters'; tag exactly one code cell")
    try:
        statements = ast.parse(cells[0]["source"]).body
    except SyntaxError as error:
        raise ValueError(f"{shown}, parameters cell, line {error.lineno}: {error.msg}") from None
    parameters: dict[str, Any] = {}
    for statement in statements:
        where = f"{shown}, parameters cell, line {statement.lineno}"
        try:
            (target,) = statement.targets
            name, value = target.id, ast.literal_eval(statement.value)
        except (AttributeError, ValueError, TypeError):
            raise ValueError(f"{where}: write a plain `name = literal`") from None
        if name in parameters:
            raise ValueError(f"{where}: {name} is set twice")
        parameters[name] = value
    return parameters


def declared_in(folder: files.AnyPath) -> dict[str, dict[str, Any]]:
    """What each notebook in `folder` declares, by its name without ending; scratch notebooks are passed over."""
    found: dict[str, dict[str, Any]] = {}
    for notebook in sorted(Path(folder).glob("[!.]*.ipynb")):
        with contextlib.suppress(ValueError):
            found[notebook.stem] = declared_parameters(notebook)
    return found
