"""The folder listing is the architecture: who may import whom, without circles, and nothing loads torch for nothing."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mask_lib.base import files

PACKAGE = files.PROJECT / "mask_lib"
TABLE = (files.PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("| may import |")[2]
MAY_IMPORT = {
    wing: set(allowed.split(", ")) - {"nothing of mask_lib"}
    for wings, allowed in re.findall(r"^\| ([a-z, ]+) \| ([a-z_, ]+) \|$", TABLE, re.MULTILINE)
    for wing in wings.split(", ")
}
MODULES = {
    f"mask_lib.{path.parent.name}.{path.stem}": path for path in sorted(PACKAGE.glob("*/*.py")) if path.stem[0] != "_"
}
WITHOUT_TORCH = ("base", "data", "plots", "headless", "sample")


def imports(path: Path) -> set[str]:
    """The modules of mask_lib that a file imports, at its head or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: import by the full name"
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found & set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_a_wing_imports_only_the_wings_it_may(module: str):
    wing = module.split(".")[1]
    strangers = {found for found in imports(MODULES[module]) if found.split(".")[1] not in MAY_IMPORT[wing] | {wing}}
    assert not strangers, f"{module} imports {sorted(strangers)}, which {wing} may not"


def test_the_wings_are_those_of_contributing_md_and_import_in_no_circle():
    assert set(MAY_IMPORT) == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    list(graphlib.TopologicalSorter({module: imports(path) for module, path in MODULES.items()}).static_order())


@pytest.mark.parametrize("wing", MAY_IMPORT)
def test_a_wing_is_a_few_modules_of_one_subject_each(wing: str):
    modules = {module: path for module, path in MODULES.items() if module.split(".")[1] == wing}
    assert 1 <= len(modules) <= (15 if wing == "training" else 12)
    long = {module for module, path in modules.items() if path.read_text(encoding="utf-8").count("\n") > 350}
    assert not long, f"more than 350 lines: {sorted(long)}"
    head = ast.parse((PACKAGE / wing / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(head)
    assert len(head.body) == 1


def test_labels_photos_plots_and_folds_do_not_load_torch():
    wanted = [module for module in MODULES if module.split(".")[1] in WITHOUT_TORCH]
    check = f"import sys, {', '.join(wanted)}\nsys.exit('torch' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", check], cwd=files.PROJECT, capture_output=True, text=True)
    assert loaded.returncode == 0, f"one of {wanted} loads torch\n{loaded.stderr}"
