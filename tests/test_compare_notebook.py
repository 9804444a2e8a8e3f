"""08_compare_runs from its first cell to its last, on toy runs, without a kernel."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import toys
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure
from traitlets.config import Config

from mask_lib import files, parameters, runs

NOTEBOOK = files.PROJECT / "notebooks" / "08_compare_runs.ipynb"


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    """Two finished toy runs, one that was broken off and one that is damaged."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("output")
    toys.prepare(data, output)
    (data / "train" / "train.csv").write_text("id,gender,race,age,path\n")
    for name, epochs in (("short", 1), ("long", 3)):
        runs.write_scores(toys.train(data, output, run=name, epochs=epochs))
    shutil.copytree(output / "runs" / "long", output / "runs" / "broken-off")
    (output / "runs" / "broken-off" / "scores.json").unlink()
    shutil.copytree(output / "runs" / "long", output / "runs" / "damaged")
    (output / "runs" / "damaged" / "scores.json").write_text("{")
    return data, output


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    """What a kernel runs cells with, in this process; it keeps no history."""
    config = Config({"HistoryManager": {"enabled": False}})
    yield InteractiveShell.instance(config=config)
    InteractiveShell.clear_instance()


def executed(shell: InteractiveShell, **given) -> tuple[dict, list]:
    """The names that the cells leave, and the value of each cell that has one."""
    shell.user_ns.update(parameters.notebook_parameters(NOTEBOOK) | given)
    cells = [cell for cell in parameters.notebook_cells(NOTEBOOK) if cell["cell_type"] == "code"]
    done = [shell.run_cell(cell["source"]) for cell in cells if not cell["metadata"].get("tags")]
    for one in done:
        one.raise_error()
    return shell.user_ns, [one.result for one in done]


def test_two_runs_are_compared_and_the_others_told(trained, shell, capsys):
    data, output = trained
    names, shown = executed(
        shell, data_dir=str(data), output_dir=str(output), explained_mistakes=3, shown_disagreements=4
    )
    assert {run.name for run in names["found"]} == {"short", "long"}
    problems = pd.read_csv(output / "comparison" / "problems.csv")
    assert [Path(run).name for run in problems["run"]] == ["broken-off", "damaged"]
    assert "not finished" in problems["problem"].iloc[0]
    assert "not finished: it has no scores.json; run its notebook again" in capsys.readouterr().out
    settings, scores, differences, disagreements = (
        pd.read_csv(output / "comparison" / f"{name}.csv")
        for name in ("settings", "scores", "differences", "disagreements")
    )
    assert set(settings["epochs"]) == {1, 3} and set(scores["run"]) == {"short", "long"}
    assert list(differences["metric"]) == ["macro_f1", "accuracy"]
    assert set(disagreements["right_run"]) <= {"short", "long"}
    assert sum(isinstance(value, Figure) for value in shown) == 3  # both ways of disagreeing, and the explanation


def test_a_single_run_has_nothing_to_be_compared_with_and_yet_its_answer(trained, shell, tmp_path):
    data, output = trained
    for part in ("tables", "runs/long"):
        shutil.copytree(output / part, tmp_path / part)
    names, shown = executed(shell, data_dir=str(data), output_dir=str(tmp_path), explained_mistakes=0)
    assert names["problems"].empty
    assert names["comparison"].verdict(names["found"], names["differences"]).startswith("Only one run is finished")
    assert "explained_mistakes is 0: nothing is explained." in [value for value in shown if isinstance(value, str)]
    assert len(pd.read_csv(tmp_path / "comparison" / "scores.csv")) == 1


def test_runs_of_two_experiments_stand_side_by_side(trained, shell, tmp_path):
    data, output = trained
    for part in ("tables", "runs/long"):
        shutil.copytree(output / part, tmp_path / part)
    names, _ = executed(
        shell, data_dir=str(data), output_dir=str(tmp_path), other_output_dirs=[str(output)], explained_mistakes=0
    )
    assert len(names["found"]) == 3
    twins = names["differences"].query("a.str.endswith('long') and b.str.endswith('long')", engine="python")
    assert (twins["difference"] == 0).all() and not twins["real"].any()
    assert (tmp_path / "comparison" / "settings.csv").exists()
