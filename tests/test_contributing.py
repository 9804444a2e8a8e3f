"""The examples of CONTRIBUTING.md run as they stand, one after another, and its import table is the one that holds."""

import re
import sys
import types

import test_wings

from mask_lib.base import files

TEXT = (files.PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_examples_run(monkeypatch):
    monkeypatch.chdir(files.PROJECT)
    examples, module = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL), types.ModuleType("examples")
    monkeypatch.setitem(sys.modules, "examples", module)  # timm looks there for what it registers
    assert len(examples) >= 5
    for example in examples:
        assert "assert" in example
        exec(compile(example, "CONTRIBUTING.md", "exec"), vars(module))  # text of this project alone


def test_the_import_table_is_the_one_that_is_held():
    rows = re.findall(r"^\| ([a-z, ]+) \| (nothing of mask_lib|[a-z, ]+) \|$", TEXT, re.MULTILINE)
    told = {
        wing: set() if allowed.startswith("nothing") else set(allowed.split(", "))
        for wings, allowed in rows
        for wing in wings.split(", ")
        if wings != "wing"
    }
    assert told == test_wings.MAY_IMPORT
