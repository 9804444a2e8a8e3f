"""The pages of docs/: tables as the code makes them, links that lead somewhere, and what they say of files holds."""

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mask_lib.base import files
from mask_lib.relabel import decision_log

DOCS = files.PROJECT / "docs"
PAGES = [
    *sorted(DOCS.glob("*.md")),
    *(files.PROJECT / name for name in ("README.md", "README.ko.md", "CHANGELOG.md", "outputs/README.md")),
]
# Constants of the code that hold the columns of a file.
TABLES = {"PATCH_COLUMNS", "SUSPECT_COLUMNS", "LEAK_COLUMNS", "OVERRIDE_COLUMNS", "DUPLICATE_COLUMNS", "TRIAL_COLUMNS"}
TABLES |= {"DIFFERENCE_COLUMNS", "SPLIT_COLUMNS", "CLEAN_COLUMNS", "PROBLEM_COLUMNS"}


def module(name: str):
    """A script of docs/ as a module."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(DOCS)
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def make():
    return module("make")


def test_pictures_are_not_older_than_what_they_show():
    pictures = module("make_pictures")
    shown = re.findall(r"notebooks/images/(\w+)\.png", "".join(path.read_text(encoding="utf-8") for path in PAGES))
    there = {path.stem for path in pictures.IMAGES.glob("*.png")}
    assert set(shown) == there == set(pictures.PICTURES), "each picture on a page, and made by docs/make_pictures.py"
    stale = {name: changed for name in there if (changed := pictures.changed_since(name))}
    assert not stale, f"changed since these were taken: {stale}; run make demo and make pictures"


def test_the_tables_are_as_the_code_makes_them(make):
    for path, text in make.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: run make docs"


def test_each_setting_says_what_it_is(make):
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \| .* \|$", make.settings().partition("\n## Of 00")[0], re.MULTILINE)
    assert [name for name, _ in rows] == list(make.Run.model_fields)
    assert not [name for name, text in rows if not text], "say it behind the field, in base/config.py"


def test_advice_on_what_is_no_longer_raised_is_refused(make):
    with pytest.raises(SystemExit, match=r"advice.yml: no message begins with \['\{where\} has"):
        make.errors([])


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
        path = page.parent / target if target else page
        assert path.exists(), f"{page.name} links to {target}"
        heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads]


def test_files_names_what_the_chain_writes_and_the_columns_of_the_code():
    text = (DOCS / "files.md").read_text(encoding="utf-8") + (DOCS / "relabeling.md").read_text(encoding="utf-8")
    written = re.findall(
        r"\{OUTPUT\}/([^\"]+\.(?:csv|json))", (files.PROJECT / "Snakefile").read_text(encoding="utf-8")
    )
    assert len(written) >= 10
    for path in written:
        path = re.sub(r"\{\{?(run|fold)[^}]*\}+", lambda one: {"run": "<run>", "fold": "<k>"}[one[1]], path)
        names = [path.replace("{part}", part) for part in ("test", "test_val")] if "{part}" in path else [path]
        assert all(name.rpartition("/")[2] in text for name in names), path
    columns = {}
    for source in (files.PROJECT / "mask_lib").glob("*/*.py"):
        for node in ast.parse(source.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in TABLES:
                columns[ast.unparse(node.targets[0])] = ast.literal_eval(node.value)
    assert columns.keys() == TABLES
    lacking = {name: [one for one in held if not re.search(rf"\b{one}\b", text)] for name, held in columns.items()}
    assert not any(lacking.values()), lacking


def test_relabeling_names_every_field_of_the_log_and_its_example_runs(tmp_path):
    text = (DOCS / "relabeling.md").read_text(encoding="utf-8")
    assert all(f"`{key}`" in text for key in decision_log.Decision.__annotations__)
    for field, values in decision_log.CHOICES.items():
        row = next(line for line in text.splitlines() if line.startswith("| ") and f"`{field}`" in line.split("|")[1])
        assert all(json.dumps(value).strip('"') in row for value in values), row
    log = decision_log.DecisionLog(decision_log.log_path(tmp_path, "kim"), "kim")
    log.append([{"path": "one/mask1.jpg", "field": "mark", "old": None, "new": "wrong"}])
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    words = [sys.executable, "-c", example.replace("outputs/demo", str(tmp_path))]
    subprocess.run(words, cwd=files.PROJECT, check=True, timeout=120)
    assert "one/mask1.jpg,mark,,wrong" in (tmp_path / "review" / "patch.csv").read_text()


def test_the_hook_runs_what_make_lint_runs():
    (repository,) = yaml.safe_load((files.PROJECT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    assert [hook["entry"] for hook in repository["hooks"]] == ["make lint"]


def test_the_changelog_has_the_version_which_stands_in_one_place():
    (version,) = re.findall(r'^version = "(.*)"$', Path(files.PROJECT, "pyproject.toml").read_text(), re.MULTILINE)
    assert version in re.findall(r"^## .*?(\d+\.\d+\.\d+)", (files.PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert not [path for path in (files.PROJECT / "mask_lib").rglob("*.py") if f'"{version}"' in path.read_text()]
