"""02_search_augmentation from its first cell to its last, in each of its ways, on a toy set, without a kernel."""

from pathlib import Path

import kernelless
import pandas as pd
import pytest
import searching
import toys
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mask_lib.augment import policy, search


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    toys.prepare(folder, folder)
    (folder / "train" / "train.csv").write_text("id,gender,race,age,path\n")
    return folder


@pytest.fixture
def output(data, tmp_path) -> Path:
    """An output folder with the tables of the toy set."""
    (tmp_path / "tables").symlink_to(data / "tables")
    return tmp_path


def executed(shell: InteractiveShell, data: Path, output: Path, **given) -> tuple[dict, list]:
    """The names that the cells leave, and the value of each cell that has one."""
    small = {"policy_count": 3, "merged_count": 2, "sub_policy_count": 2, "steps_each": 1, "density_views": 1}
    small |= {"search_network": searching.NETWORK, "search_folds": [0], "verdict_folds": [1], "halving_factor": 2}
    places = {"data_dir": str(data), "output_dir": str(output)}
    return kernelless.executed(shell, "02_search_augmentation", **small | places | given)


@pytest.mark.parametrize("kind", ["halving", "random"])
def test_a_search_that_trains_runs_to_its_answer(data, output, shell, capsys, kind):
    names, shown = executed(shell, data, output, search_kind=kind, verdict_seeds=0)
    assert set(names["trials"]["trial"]) == {0, 1, 2, 3}
    assert len(policy.read_policy(search.best_path(output)).sub_policies) == 4  # two policies of two
    operations = next(value for value in shown if isinstance(value, Figure))
    assert len([ax for ax in operations.axes if ax.images]) == 5 * len(policy.OPERATIONS)
    said = capsys.readouterr().out
    assert "each photo draws one of 2 sub-policies" in said
    assert names["judged"] is None and not search.verdict_path(output).exists()
    assert search.written(output) == ["trials.csv", "best_policy.json", "study.db"]


def test_a_verdict_is_reached_with_shorter_trainings_and_leads_a_run(data, output, shell):
    changes = {"verdict_seeds": 1, "verdict_epochs": 1, "verdict_policies": 2}
    names, shown = executed(shell, data, output, **changes)
    assert set(names["judged"]["macro_f1"]) == {"none", "trivialaugment", "merged", "best", "best 2"}
    assert names["judged"]["seconds"] > 0
    assert any(isinstance(value, Axes) for value in shown)
    assert "verdict.json" in search.written(output)
    assert pd.read_csv(output / "search" / "trials.csv")["state"].eq("complete").all()
    assert search.resolved("searched", output) == search.chosen_augmentation(output)
