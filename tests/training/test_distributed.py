"""Two processes train as one would on the same batches, and a lost one ends the training so that it can go on."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import toys

from mask_lib.base import files
from mask_lib.headless import cells
from mask_lib.models import distributed

SAME = {"dropout": 0.0, "learning_rate": 0.01}  # each process draws a dropout of its own
THREE = {"head": "three", "attribute_loss": 0.0}
RUNS = {
    "batch normalisation": {},
    "mixed, weighed, clipped": {"mixing": "mixup", "class_balance": "sqrt", "clip_grad_norm": 0.5, "ema_decay": 0.8},
    "f1, with the old": {"loss": "f1_cross_entropy", "mixing": "cutmix_old", "frozen_epochs": 1, "layer_decay": 0.7},
    "three heads, accumulated": {
        **THREE,
        "accumulate_steps": 2,
        "mixing": "cutmix",
        "architecture": "test_efficientnet_ln",
    },
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toys.official_layout(tmp_path_factory.mktemp("data"))


def started(data: Path, output: Path, **changes) -> subprocess.Popen:
    """The command that trains fold 0 of the toy by two processes, with a checkpoint after each step."""
    if not output.exists():
        output.mkdir()
        (output / "tables").symlink_to(data / "prepared" / "tables")
    declared = cells.declared_parameters(files.PROJECT / "notebooks" / "03_one_model.ipynb")
    how = {"data_dir": str(data), "output_dir": str(output), "tracking_mode": "disabled", "checkpoint_minutes": 0.0}
    command = [sys.executable, "-m", "mask_lib.training", "--processes=2", "--fold=0", "--values"]
    values = json.dumps(declared | toys.SETTINGS | how | changes)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*command, values], cwd=files.PROJECT, **pipes)


@pytest.mark.parametrize("changes", RUNS.values(), ids=RUNS)
def test_two_processes_give_the_losses_of_one_on_the_same_batches(data, tmp_path, changes):
    one = toys.train(data, tmp_path / "one", folds=(0,), **SAME, **changes)
    two = started(data, tmp_path / "two", **SAME, **changes)
    assert two.wait(300) == 0, two.stdout.read()
    fold = tmp_path / "two" / "runs" / "toy" / "fold0"
    history = pd.read_csv(fold / "history.csv")
    np.testing.assert_allclose(history[["train_loss", "val_loss"]], one.history[["train_loss", "val_loss"]], rtol=1e-5)
    columns = [name for name in one.out_of_fold if name.startswith("p0") or name.startswith("p1")]
    np.testing.assert_allclose(pd.read_csv(fold / "oof.csv")[columns], one.out_of_fold[columns], atol=1e-4)


def test_a_killed_process_ends_the_others_with_a_clear_error_and_all_go_on_from_there(data, tmp_path):
    changes = {"epochs": 12, "augmentation": "trivialaugment"}
    whole = started(data, tmp_path / "whole", **changes)
    assert whole.wait(300) == 0
    broken = started(data, tmp_path / "broken", **changes)
    history = tmp_path / "broken" / "runs" / "toy" / "fold0" / "history.csv"
    while not history.exists():
        assert broken.poll() is None
        time.sleep(0.02)
    second = next(one for one in psutil.Process(broken.pid).children() if one.environ()["RANK"] == "1")
    os.kill(second.pid, signal.SIGKILL)
    said, _ = broken.communicate(timeout=60)
    assert broken.returncode != 0 and "SIGKILL" in said, said
    assert len(pd.read_csv(history)) < 12
    again = started(data, tmp_path / "broken", **changes)
    assert again.wait(300) == 0
    assert toys.results(tmp_path / "broken") == toys.results(tmp_path / "whole")


@pytest.mark.parametrize(("length", "count"), [(7, 3), (4, 4), (3, 4), (64, 5)])
def test_shares_cover_all_and_differ_by_one_at_most(monkeypatch, length, count):
    monkeypatch.setattr(distributed, "count", lambda: count)
    found = []
    for rank in range(count):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        found.append(list(range(length))[distributed.share(length)])
    assert [*itertools.chain(*found)] == list(range(length))
    assert max(map(len, found)) - min(map(len, found)) <= 1
