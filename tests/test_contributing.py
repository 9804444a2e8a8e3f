"""The examples of CONTRIBUTING.md run as they stand, one after another."""

import importlib
import re

from mask_lib.base import files


def test_the_examples_run(monkeypatch, tmp_path):
    text = (files.PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) >= 5 and all("assert" in example for example in examples)
    (tmp_path / "examples_of_contributing.py").write_text("\n".join(examples), encoding="utf-8")
    monkeypatch.chdir(files.PROJECT)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("examples_of_contributing")
