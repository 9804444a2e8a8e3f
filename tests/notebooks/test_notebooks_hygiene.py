"""What is committed: notebooks without leftovers, and a tidy tree.

That the parameter files fit the notebooks, `test_chain.py` finds.
"""

import ast
import json
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from mask_lib.base import files
from mask_lib.headless.cells import declared_parameters

NOTEBOOKS = sorted((files.PROJECT / "notebooks").glob("*.ipynb"))
MOST_CELLS = 15
MOST_BYTES = 1_000_000
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# run: training names one, inference takes an empty name for every finished run. weights: what a network starts
# from, and what the files of an ensemble count for; the sections of a parameter file keep them apart. head: what
# 04_three_model is about, and one of the choices of 03_one_model.
MEANS_TWO_THINGS = {"run", "weights", "head"}
MACHINE_PATH = re.compile(r"(?<![\w.])/(root|home/\w+|Users/\w+)/|[A-Z]:\\+Users\\")

each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def content_of(notebook: Path) -> dict:
    """The notebook as it is in the file; nbformat would mend some of what is checked here."""
    return json.loads(notebook.read_text(encoding="utf-8"))


def code_of(notebook: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in content_of(notebook)["cells"] if cell["cell_type"] == "code"]


def committed_files() -> list[Path]:
    """Every file that git has or would take; outside a checkout, every file of the project's own folders."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=files.PROJECT, capture_output=True, text=True)
    if listing.returncode == 0:
        found = [files.PROJECT / name for name in listing.stdout.split("\0") if name]
    else:
        found = [path for folder in ("mask_lib", "notebooks", "tests") for path in (files.PROJECT / folder).rglob("*")]
        found = [path for path in [*found, *files.PROJECT.glob("*")] if "__pycache__" not in path.parts]
    return [path for path in found if path.is_file()]


def machine_paths(text: str) -> list[str]:
    """Pieces of a text that hold only on one person's machine."""
    return [match.group() for match in MACHINE_PATH.finditer(text)] + re.findall(re.escape(str(files.PROJECT)), text)


@each_notebook
def test_a_notebook_is_committed_as_nobody_has_run_it(notebook: Path):
    content = content_of(notebook)
    assert not {"papermill", "widgets"} & set(content["metadata"])
    for cell in content["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None
        assert not {"papermill", "execution", "ExecuteTime"} & set(cell["metadata"])
        assert "injected-parameters" not in cell["metadata"].get("tags", [])


@each_notebook
def test_a_notebook_opens_without_questions_on_its_title_and_has_few_cells(notebook: Path):
    content = content_of(notebook)
    cells, ids = content["cells"], {cell.get("id") for cell in content["cells"]}
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert (content["nbformat"], content["nbformat_minor"]) >= (4, 5)  # the first with cell ids
    assert len(cells) <= MOST_CELLS
    assert all(ids) and len(ids) == len(cells)
    assert cells[0]["cell_type"] == "markdown" and "".join(cells[0]["source"]).startswith("# ")


@each_notebook
def test_imports_are_a_few_lines_in_one_cell_and_functions_and_classes_live_in_mask_lib(notebook: Path):
    counts = [len(re.findall(r"^(?:import|from) ", source, re.MULTILINE)) for source in code_of(notebook)]
    assert sum(count > 0 for count in counts) == 1
    assert sum(counts) <= 6
    for source in code_of(notebook):
        tree = ast.parse(TransformerManager().transform_cell(source))
        found = [node.name for node in ast.walk(tree) if isinstance(node, DEFINITIONS)]
        assert not found, f"move {found} to mask_lib"


def test_a_parameter_has_the_same_default_in_every_notebook():
    defaults = defaultdict(dict)
    assert NOTEBOOKS
    for notebook in NOTEBOOKS:
        declared = declared_parameters(notebook)
        assert declared, f"{notebook.stem} declares no parameters"
        for name, default in declared.items():
            defaults[name][notebook.stem] = repr(default)
    differing = {name: found for name, found in defaults.items() if len(set(found.values())) > 1}
    assert differing.keys() <= MEANS_TWO_THINGS, differing


def test_the_search_for_machine_paths_finds_them():
    assert machine_paths("open('/ho" + "me/kim/photos')")
    assert machine_paths(f"cd {files.PROJECT}/notebooks")
    assert not machine_paths("data/home/kim/photos, https://example.org/home/kim/")


def test_no_file_is_large_or_names_a_place_on_one_machine():
    found = {}
    for path in committed_files():
        content = path.read_bytes()
        faults = machine_paths(content.decode("utf-8", errors="ignore"))
        if len(content) > MOST_BYTES:
            faults.append("large")
        if faults:
            found[files.shown_path(path)] = faults
    assert not found


def test_every_requirement_is_pinned():
    lines = (files.PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line.partition("#")[0].strip() for line in lines]
    loose = [line for line in wanted if line and not re.fullmatch(r"[\w.\[\]-]+==[\w.!+]+( *;.*)?", line)]
    assert not loose


@each_notebook
def test_a_gallery_within_a_block_is_shown(notebook):
    """Jupyter shows the value of a cell's last line alone, and a gallery is a figure that is shown by nothing else."""
    trees = [ast.parse(TransformerManager().transform_cell(code)) for code in code_of(notebook)]
    nested = [one for tree in trees for block in tree.body if isinstance(block, ast.If) for one in ast.walk(block)]
    assert not [one for one in nested if isinstance(one, ast.Expr) and ast.unparse(one).startswith("galleries.")]
