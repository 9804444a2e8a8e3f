"""What is committed: notebooks without leftovers, parameter files that fit them, and a tidy tree."""

import ast
import json
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from mask_lib.base import files
from mask_lib.headless import parameters
from mask_lib.headless.cells import declared_parameters

NOTEBOOKS = sorted((files.PROJECT / "notebooks").glob("*.ipynb"))
PARAMETER_FILES = sorted((files.PROJECT / "notebooks" / "params").glob("*.yml"))
MOST_CELLS = 15
MOST_BYTES = 1_000_000
# run: training names one, inference takes an empty name for every finished run. weights: what a network starts
# from, and what the files of an ensemble count for; the sections of a parameter file keep them apart. head: what
# 04_three_model is about, and one of the choices of 03_one_model.
MEANS_TWO_THINGS = {"run", "weights", "head"}
MACHINE_PATH = re.compile(r"(?<![\w.])/(root|home/\w+|Users/\w+)/|[A-Z]:\\+Users\\")

each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
each_parameter_file = pytest.mark.parametrize("parameter_file", PARAMETER_FILES, ids=lambda path: path.stem)


def cells_of(notebook: Path) -> list[dict]:
    """The cells as they are in the file; nbformat would mend some of what is checked here."""
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def committed_files() -> list[Path]:
    """Every file that git has or would take; outside a checkout, every file of the project's own folders."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=files.PROJECT,
        capture_output=True,
        text=True,
    )
    if listing.returncode == 0:
        found = [files.PROJECT / name for name in listing.stdout.split("\0") if name]
    else:
        found = [path for folder in ("mask_lib", "notebooks", "tests") for path in (files.PROJECT / folder).rglob("*")]
        found = [path for path in [*found, *files.PROJECT.glob("*")] if "__pycache__" not in path.parts]
    return [path for path in found if path.is_file()]


def machine_paths(text: str) -> list[str]:
    """Pieces of a text that hold only on one person's machine."""
    return [match.group() for match in MACHINE_PATH.finditer(text)] + re.findall(re.escape(str(files.PROJECT)), text)


def test_there_are_notebooks_and_parameter_files():
    assert NOTEBOOKS
    assert PARAMETER_FILES


@each_notebook
def test_a_notebook_is_committed_as_nobody_has_run_it(notebook: Path):
    content = json.loads(notebook.read_text(encoding="utf-8"))
    assert "papermill" not in content["metadata"]
    assert "widgets" not in content["metadata"]
    for cell in content["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert not {"papermill", "execution", "ExecuteTime"} & set(cell["metadata"])
        assert "injected-parameters" not in cell["metadata"].get("tags", [])


@each_notebook
def test_a_notebook_opens_without_questions(notebook: Path):
    content = json.loads(notebook.read_text(encoding="utf-8"))
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert (content["nbformat"], content["nbformat_minor"]) >= (4, 5)  # the first with cell ids


@each_notebook
def test_cells_are_few_and_have_ids_of_their_own(notebook: Path):
    cells = cells_of(notebook)
    assert len(cells) <= MOST_CELLS
    ids = [cell.get("id") for cell in cells]
    assert all(ids)
    assert len(set(ids)) == len(ids)


@each_notebook
def test_a_notebook_starts_with_its_title(notebook: Path):
    first = cells_of(notebook)[0]
    assert first["cell_type"] == "markdown"
    assert "".join(first["source"]).startswith("# ")


@each_notebook
def test_one_cell_declares_parameters_as_literals(notebook: Path):
    assert declared_parameters(notebook)


@each_notebook
def test_imports_are_a_few_lines_in_one_cell(notebook: Path):
    sources = ["".join(cell["source"]) for cell in cells_of(notebook) if cell["cell_type"] == "code"]
    counts = [len(re.findall(r"^(?:import|from) ", source, re.MULTILINE)) for source in sources]
    assert sum(count > 0 for count in counts) == 1
    assert sum(counts) <= 6


@each_notebook
def test_functions_and_classes_live_in_mask_lib(notebook: Path):
    for cell in cells_of(notebook):
        if cell["cell_type"] == "code":
            tree = ast.parse(TransformerManager().transform_cell("".join(cell["source"])))
            definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
            found = [node.name for node in ast.walk(tree) if isinstance(node, definitions)]
            assert not found, f"move {found} to mask_lib"


def test_a_parameter_has_the_same_default_in_every_notebook():
    defaults = defaultdict(dict)
    for notebook in NOTEBOOKS:
        for name, default in declared_parameters(notebook).items():
            defaults[name][notebook.stem] = repr(default)
    differing = {name: found for name, found in defaults.items() if len(set(found.values())) > 1}
    assert differing.keys() <= MEANS_TWO_THINGS, differing


@each_parameter_file
def test_a_parameter_file_fits_every_notebook_and_run(parameter_file: Path):
    values = parameters.read_parameter_file(parameter_file)
    for run, training in parameters.planned_runs(values).items():
        assert (files.PROJECT / "notebooks" / f"{training}.ipynb").exists()
        for notebook in NOTEBOOKS:
            given = {"run": run} if "run" in declared_parameters(notebook) else {}
            parameters.resolve(notebook, [parameter_file], given)


def test_the_search_for_machine_paths_finds_them():
    assert machine_paths("open('/ho" + "me/kim/photos')")
    assert machine_paths(f"cd {files.PROJECT}/notebooks")
    assert not machine_paths("data/home/kim/photos, https://example.org/home/kim/")


def test_no_file_names_a_place_on_one_machine():
    found = {}
    for path in committed_files():
        places = machine_paths(path.read_bytes().decode("utf-8", errors="ignore"))
        if places:
            found[files.shown_path(path)] = places
    assert not found


def test_no_file_is_large():
    large = {files.shown_path(path) for path in committed_files() if path.stat().st_size > MOST_BYTES}
    assert not large


def test_every_requirement_is_pinned():
    lines = (files.PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line.partition("#")[0].strip() for line in lines]
    loose = [line for line in wanted if line and not re.fullmatch(r"[\w.\[\]-]+==[\w.!+]+( *;.*)?", line)]
    assert not loose
