"""A notebook's cells are read as plain data, and a parameters cell that is none is refused by its line."""

import re
from pathlib import Path

import nbformat
import pytest
from tiny_project import write_notebook, write_text

from mask_lib.headless import cells


@pytest.mark.parametrize(
    ("cell", "where"),
    [
        (None, "0 cells are tagged"),
        ("epochs = 2\nseed = 1 + 1", "line 2"),
        ("import os", "line 1"),
        ("epochs: int = 2", "line 1"),
        ("a = b = 2", "line 1"),
        ("epochs = 2\n\nepochs = 3", "line 3: epochs is set twice"),
        ("epochs = 2\nepochs +", "line 2"),
    ],
)
def test_a_parameters_cell_that_is_not_plain_literals_is_refused_by_line(tmp_path: Path, cell: str | None, where: str):
    notebook = write_notebook(tmp_path / "odd.ipynb", parameters=cell)
    with pytest.raises(ValueError, match=rf"odd\.ipynb.*{re.escape(where)}"):
        cells.declared_parameters(notebook)


def test_two_parameters_cells_are_refused(tmp_path: Path):
    notebook = write_notebook(tmp_path / "odd.ipynb")
    twice = nbformat.read(notebook, as_version=4)
    twice.cells.append(nbformat.v4.new_code_cell("b = 1", metadata={"tags": ["parameters"]}))
    nbformat.write(twice, notebook)
    with pytest.raises(ValueError, match="2 cells are tagged"):
        cells.declared_parameters(notebook)


def test_defaults_are_read_with_their_types(tmp_path: Path):
    cell = "low = -1  # years\nedges = (30, 60)\nextra = {'a': [1.5]}"
    notebook = write_notebook(tmp_path / "a.ipynb", parameters=cell)
    assert cells.declared_parameters(notebook) == {"low": -1, "edges": (30, 60), "extra": {"a": [1.5]}}


@pytest.mark.parametrize("text", ["", "[]", '{"cells": 1}', '{"worksheets": []}', '{"cells": [{"cell_type": "code"}]}'])
def test_what_is_no_notebook_is_named(tmp_path: Path, text: str):
    with pytest.raises(ValueError, match=r"odd\.ipynb is not a notebook"):
        cells.declared_parameters(write_text(tmp_path / "odd.ipynb", text))
    with pytest.raises(ValueError, match=r"there is no notebook .*none\.ipynb"):
        cells.declared_parameters(tmp_path / "none.ipynb")
