"""The two READMEs say the same, and what they name is there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kernelless import executed
from PIL import Image
from tiny_project import CHECKOUT, environment, paint

from mask_lib.base import files
from mask_lib.headless import cells, runner

ENGLISH, KOREAN = (
    (files.PROJECT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ko.md")
)  # fmt: skip
BOTH = {"README.md": ENGLISH, "README.ko.md": KOREAN}


def test_both_languages_have_the_same_headings_commands_and_pages():
    assert re.findall(r"^#+ ", ENGLISH, re.MULTILINE) == re.findall(r"^#+ ", KOREAN, re.MULTILINE)
    assert re.findall(r"```.*?```", ENGLISH, re.DOTALL) == re.findall(r"```.*?```", KOREAN, re.DOTALL)
    assert re.findall(r"`[^`\n]+/[^`\n]+`", ENGLISH) == re.findall(r"`[^`\n]+/[^`\n]+`", KOREAN)
    pages = [set(re.findall(r"\]\(([^)]+)\)", text)) for text in BOTH.values()]
    assert pages[0] ^ pages[1] == {"README.md", "README.ko.md"}
    figures = [sorted(re.findall(r"\d\.\d+", text)) for text in BOTH.values()]
    assert figures[0] == figures[1]


@pytest.mark.parametrize("name", BOTH)
def test_what_a_readme_links_is_there(name: str):
    for path in re.findall(r"\]\(([^)#]+)", BOTH[name]):
        assert (files.PROJECT / path).exists(), path


def test_commands_name_what_there_is():
    commands = re.findall(r"^(?:\.venv/bin/|make ).*", ENGLISH, re.MULTILINE)
    commands += re.findall(r"`(\.venv/bin/[^`]+)`", ENGLISH)
    targets = re.findall(r"^([a-z]+):.*##", (files.PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) > 20
    for command in map(shlex.split, commands):
        if command[0] == "make":
            assert command[1] in targets, command
        for number, word in enumerate(command):
            if word.startswith("mask_lib."):
                module = files.PROJECT / word.replace(".", "/")
                assert module.with_suffix(".py").exists() or (module / "__main__.py").exists(), word
            if word.startswith("notebooks/") and "mine.yml" not in word:
                assert (files.PROJECT / word).exists(), word
            if word == "-p":
                notebook = next(one for one in command if one.endswith(".ipynb"))
                assert command[number + 1] in cells.declared_parameters(files.PROJECT / notebook), command


RUN = {"architecture": "test_resnet", "weights": "none", "image_width": 48, "image_height": 64, "epochs": 1}
RUN |= {"keep_epochs": 1, "compare_with_baseline": False, "tracking_mode": "disabled"}
TOY = {
    "data_dir": "data/sample",
    "output_dir": "outputs/demo",
    "fold_count": 2,
    "test_val_share": 0.15,
    "features_width": 48,
    "features_height": 64,
    "notebooks": {
        "02_search_augmentation": {"policy_count": 1, "search_folds": [0], "verdict_folds": [1], "verdict_seeds": 0}
    },
    "runs": {"quick": RUN, "heads": {**RUN, "notebook": "04_three_model", "compare_with": "quick"}},
}


def test_what_the_seeds_did_is_done_by_the_commands_beside_it(tmp_path: Path, shell, monkeypatch):
    """At toy size, one command after another, as the table has them; notebooks but the last without a kernel."""
    paint(tmp_path)
    (tmp_path / "demo.yml").write_text(yaml.safe_dump(TOY))
    for colour in ("red", "green", "blue", "yellow"):
        (tmp_path / "four/channels/person").mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / f"four/channels/person/mask1_{colour}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "PROJECT", tmp_path)
    monkeypatch.setattr(runner, "run_notebook", lambda path, out, given, *_: executed(shell, path.stem, **given))
    table = ENGLISH.partition("| there | here |")[2].partition("\n\n")[0]
    commands = re.findall(r"\| `(\.venv/bin/python [^`]+)`", table)
    assert len(commands) == len(table.strip().splitlines()) - 1
    for command in commands:
        words = command.replace("notebooks/params/", "").replace(" notebooks/", f" {CHECKOUT}/notebooks/")
        words = shlex.split(words)[1:]
        if "mask_lib.headless" in command and "07_ensemble" not in command:
            assert runner.main(words[2:]) == 0
            continue
        if "07_ensemble" in command:  # the table asks for test_val alone
            executed(shell, "06_inference")
        here = {"env": environment(tmp_path), "capture_output": True, "text": True, "timeout": 300}
        done = subprocess.run([sys.executable, *words], **here)
        assert done.returncode == 0, done.stderr
    made = ["tables/data_leak.phash.csv", "tables/clean.csv", "search/best_policy.json", "runs/heads/scores.json"]
    made += ["runs/quick/averaging.json", "inferences/quick.test_val.csv", "submissions/submission.csv"]
    for name in (*(f"outputs/demo/{one}" for one in made), "data/rgby/person/mask1.png", "results.tar.gz"):
        assert (tmp_path / name).exists(), name
    assert "quick (33%), heads (67%)" in (tmp_path / "out.html").read_text(encoding="utf-8")
