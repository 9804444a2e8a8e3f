"""The live view: what it says of folds in every state, of damage, hostile names and nothing at all."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_project import CHECKOUT, environment

from mask_lib.base import files
from mask_lib.headless import watch

NOW = {"epoch": 1, "epochs": 4, "step": 5, "steps": 10, "photos_per_second": 50.0, "best_macro_f1": 0.25}
NOW |= {"time": 0.0, "pid": 1, "device": "cpu"}
HISTORY = "epoch,seconds,photos_per_second\n1,10.0,100.0\n"  # of 1,000 photos


def write(path: Path, content: str | dict) -> Path:
    """A file, JSON unless it is text, and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def shown(output: Path, capsys: pytest.CaptureFixture) -> list[list[str]]:
    """The words of each line of the view."""
    assert watch.main([str(output)]) == 0
    return [line.split() for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An experiment of four folds: one finished, one in training by this process, one stopped, one not begun."""
    for fold in range(4):
        write(tmp_path / f"tables/split.stratified.{fold}.csv", "")
    for fold in range(3):
        write(tmp_path / f"runs/deep/fold{fold}/progress.json", NOW)
        write(tmp_path / f"runs/deep/fold{fold}/history.csv", HISTORY)
    write(tmp_path / "runs/deep/fold0/oof.csv", "")
    write(tmp_path / "runs/deep/looks/progress.json", NOW)
    write(tmp_path / "runs/wide/scores.json", {})
    for name in ("00_prepare_data", "03_one_model.deep.failed", ".03_one_model.wide.0123abcd.tmp"):
        write(tmp_path / f"notebooks/{name}.ipynb", {})
    with files.lock(tmp_path / "runs/deep/.fold1.lock", wait=False):
        yield tmp_path


def test_folds_in_every_state_scores_and_notebooks(output: Path, capsys):
    fold = ["1/4", "5/10", "50", "0.2500"]
    head, *folds, scored, done, failed = shown(output, capsys)
    assert head[:3] == ["run", "fold", "state"]
    assert folds == [
        ["deep", "0", "finished", *fold, "cpu"],
        ["deep", "1", "training", *fold, "0:00:50", "cpu"],  # 2.5 epochs of 1,000 photos
        ["deep", "2", "stopped", *fold, "cpu"],
        ["deep", "3", "waiting"],
        ["deep", "looks", "stopped", *fold, "cpu"],
    ]
    assert (scored[-1], done[-1], failed[-1]) == ("wide", "00_prepare_data.ipynb", "03_one_model.deep.failed.ipynb")


def test_a_lock_is_seen_without_being_taken_and_a_dead_one_is_none(output: Path):
    lock = output / "runs/deep/.fold1.lock"
    assert files.is_held(lock)
    assert files.is_held(lock.with_name(".fold2.lock")) is False
    with files.lock(lock.with_name(".fold2.lock"), wait=False):
        pass
    assert files.is_held(lock.with_name(".fold2.lock")) is False


@pytest.mark.parametrize(("age", "state"), [(10, "training"), (1000, "stopped")])
def test_another_machine_is_judged_by_what_it_noted_last(output: Path, capsys, age: float, state: str):
    lock = write(output / "runs/deep/.fold2.lock", "")
    write(lock.with_name(".fold2.lock.json"), {"process": os.getpid(), "machine": "another", "since": "today"})
    for path in (lock, output / "runs/deep/fold2/progress.json"):
        os.utime(path, (time.time() - age,) * 2)
    assert shown(output, capsys)[3][2] == state


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("progress.json", '{"epoch": 1'),
        ("progress.json", "[[1]]"),
        ("progress.json", {**NOW, "epoch": "one"}),
        ("progress.json", {**NOW, "best_macro_f1": 10**400}),
        ("history.csv", "epoch,seconds\n1,10\n"),
        ("history.csv", "seconds,photos_per_second\n1\n"),
        ("history.csv", "seconds,photos_per_second\nnan,1\n"),
        ("history.csv", ""),
    ],
)
def test_damaged_files_are_named_and_the_rest_is_shown(output: Path, capsys, name: str, content):
    write(output / "runs/deep/fold1" / name, content)
    _, finished, damaged, stopped, *_ = shown(output, capsys)
    assert damaged[:3] == ["deep", "1", "training"] and damaged[-3:] == [name, "is", "unreadable"]
    assert finished[2] == "finished" and stopped[2] == "stopped"


def test_hostile_names_do_not_reach_the_terminal(tmp_path: Path, capsys):
    write(tmp_path / "runs/\x1b[31mred\u202e/fold0/oof.csv", "")
    write(tmp_path / "runs" / os.fsdecode(b"caf\xe9") / "fold0/oof.csv", "")
    write(tmp_path / "notebooks/a\rb.ipynb", "")
    assert watch.main([str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "?[31mred?" in text and "caf?" in text and "a?b.ipynb" in text
    assert not {"\x1b", "\r", "\u202e"} & set(text)


def test_nothing_there_is_said(tmp_path: Path, capsys):
    assert "holds no runs and no notebooks yet" in " ".join(shown(tmp_path / "none", capsys)[0])


def test_a_terminal_sees_it_again_and_again_until_ctrl_c_without_torch_or_pandas(output: Path):
    code = (
        "import sys\nfrom mask_lib.headless import watch\n"
        "sys.exit(watch.main([sys.argv[1]]) or bool({'torch', 'pandas'} & set(sys.modules)))"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(output)], stdout=theirs, stderr=theirs, env=environment(CHECKOUT)
    )
    text = b""
    while text.count(b"\x1b[H\x1b[2J") < 2:
        text += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert b"Traceback" not in text and b"deep" in text
    os.close(ours), os.close(theirs)
