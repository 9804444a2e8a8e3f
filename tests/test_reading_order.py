"""The order in which the modules import one another is the order in which to read them."""

import ast
import subprocess
import sys

import pytest

import mask_lib
from mask_lib.base import files

FOLDER = files.PROJECT / "mask_lib"
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
WITHOUT_TORCH = ["labels", "photos", "twins", "folds", "schedules", "sampling", "ensemble", "review", "comparison"]
WITHOUT_TORCH += ["policies", "pseudo_labels", "trainable", "headless"]
WITHOUT_TORCH += ["galleries", *(name for name in mask_lib.READING_ORDER if name.endswith("_plots"))]


def imported_modules(source: str) -> set[str]:
    """The modules of mask_lib that a source imports, at its head or inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(name.name.split(".")[1] for name in node.names if name.name.startswith("mask_lib."))
        elif isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            inside = parts[1:] if parts[0] == "mask_lib" else parts
            if parts[0] == "mask_lib" or node.level:
                found.update(inside[:1] if inside and inside[0] else [name.name for name in node.names])
    return found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import mask_lib.base.files", {"files"}),
        ("from mask_lib import files, labels", {"files", "labels"}),
        ("from mask_lib.base.labels import encode", {"labels"}),
        ("from . import photos", {"photos"}),
        ("from .photos import scan", {"photos"}),
        ("def f():\n    from mask_lib import models", {"models"}),
        ("import numpy\nfrom pathlib import Path", set()),
    ],
)
def test_every_way_to_import_is_seen(source: str, found: set[str]):
    assert imported_modules(source) == found


def test_every_module_has_its_place_in_the_order():
    assert sorted(mask_lib.READING_ORDER) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_those_above_it(module: str):
    order = list(mask_lib.READING_ORDER)
    above = set(order[: order.index(module)]) if module in order else set()
    imports = imported_modules((FOLDER / f"{module}.py").read_text(encoding="utf-8"))
    assert imports <= above, f"{module} imports {sorted(imports - above)}, which come later or are missing in the order"


def test_looking_at_photos_and_labels_does_not_load_torch():
    imports = "".join(f"import mask_lib.{name}\n" for name in WITHOUT_TORCH)
    check = f"import sys\n{imports}sys.exit('torch' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", check], cwd=files.PROJECT, capture_output=True, text=True)
    assert loaded.returncode == 0, f"importing {WITHOUT_TORCH} loads torch\n{loaded.stderr}"
