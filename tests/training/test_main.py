"""One fold of a run trained by a command: as its notebook would, and stopped by a signal with all of it on disk."""

import json
import signal
from pathlib import Path

import pytest
import toys
from tiny_project import CHECKOUT

from mask_lib.base import interrupts
from mask_lib.headless import cells, runner
from mask_lib.models import checkpoint
from mask_lib.training import __main__ as command
from mask_lib.training import loop


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Painted photos in the official layout; the tables are prepared for each output."""
    return toys.official_layout(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory) -> dict:
    """What `runs.train_run` leaves of one fold."""
    output = tmp_path_factory.mktemp("unbroken")
    toys.train(data, output, folds=(1,))
    return toys.results(output)


@pytest.fixture
def output(data, tmp_path):
    (tmp_path / "tables").symlink_to(data / "prepared" / "tables")
    return tmp_path


def train(data: Path, output: Path, fold: int = 1, **changes) -> int:
    """Run the command with the parameters of 03_one_model; its exit code."""
    folders = {"data_dir": str(data), "output_dir": str(output), "tracking_mode": "disabled"}
    declared = cells.declared_parameters(CHECKOUT / "notebooks" / "03_one_model.ipynb")
    values = declared | toys.SETTINGS | folders | changes
    return command.main(["--fold", str(fold), "--threads", "1", "--gpu", "--values", json.dumps(values)])


def test_one_fold_is_trained_as_its_notebook_does_and_found_finished_by_it(data, output, unbroken, capsys, monkeypatch):
    assert train(data, output) == 0
    said = capsys.readouterr()
    assert not said.out and "train toy" in said.err
    assert toys.results(output) == unbroken
    (output / "runs/toy/fold1/oof.csv").unlink()  # as Snakemake does before a job runs again
    monkeypatch.setattr(loop.FoldTraining, "train_step", None)  # a call would fail
    assert train(data, output) == 0
    toys.train(data, output, folds=(1,))
    assert toys.results(output) == unbroken


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_a_signal_ends_it_after_its_step_and_it_goes_on_from_there(
    data, output, unbroken, capsys, monkeypatch, request, number
):
    before, step, done = signal.getsignal(signal.SIGINT), loop.FoldTraining.train_step, []
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a script

    def step_and_signal(self, *arguments):
        for again in [number] * (1 if number == signal.SIGINT else 2):  # SLURM repeats SIGTERM at a time limit
            signal.raise_signal(again)
        done.append(step(self, *arguments))
        return done[-1]

    monkeypatch.setattr(loop.FoldTraining, "train_step", step_and_signal)
    assert train(data, output) == 128 + number
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "ended by" in line]
    assert number.name in said and "stopped after step 1 of" in said and "all of it on disk" in said
    assert checkpoint.read_manifest(output / "runs/toy/fold1/checkpoint/last.safetensors")["place"]["step"] == 1
    monkeypatch.undo()
    assert train(data, output) == 0
    assert toys.results(output) == unbroken


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"epochs": 0}, 2, "epochs = 0: it must be at least 1"),
        ({"checkpoint_minutes": "5"}, 2, "checkpoint_minutes = '5' is text, not a number"),
        ({"tracking_mode": "dryrun"}, 2, "tracking_mode = 'dryrun': it must be one of offline, online, disabled"),
        ({"plugins": ["no_such_module"]}, 2, "the module 'no_such_module' cannot be imported"),
        ({"augmentation": "searched"}, 2, "run 02_search_augmentation first"),
        ({"fold": 7}, 1, "folds = [7]: 00_prepare_data made only [0, 1]"),
        ({"data_dir": "/no/such/folder"}, 1, "/no/such/folder"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(data, output, capsys, changes, code, message):
    assert train(data, output, **changes) == code
    (said,) = capsys.readouterr().err.splitlines()
    assert message in said


@pytest.mark.parametrize("values", ["[1]", "7", "{'epochs': 1}"])
@pytest.mark.parametrize(
    "main", [lambda more: command.main(["--fold=0", *more]), lambda more: runner.main(["a", "b", *more])]
)
def test_values_that_are_no_json_mapping_are_refused(capsys, values, main):
    with pytest.raises(SystemExit, match="2"):
        main(["--values", values])
    assert "argument --values: invalid" in capsys.readouterr().err
