"""The examples of CONTRIBUTING.md run as they stand, one after another, and its import table is the one that holds."""

import importlib
import re

import test_wings

from mask_lib.base import files

TEXT = (files.PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_examples_run(monkeypatch, tmp_path):
    examples = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(examples) >= 5 and all("assert" in example for example in examples)
    (tmp_path / "examples_of_contributing.py").write_text("\n".join(examples), encoding="utf-8")
    monkeypatch.chdir(files.PROJECT)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("examples_of_contributing")


def test_the_import_table_is_the_one_that_is_held():
    rows = re.findall(r"^\| ([a-z, ]+) \| (nothing of mask_lib|[a-z, ]+) \|$", TEXT, re.MULTILINE)
    told = {
        wing: set() if allowed.startswith("nothing") else set(allowed.split(", "))
        for wings, allowed in rows
        for wing in wings.split(", ")
        if wings != "wing"
    }
    assert told == test_wings.MAY_IMPORT
