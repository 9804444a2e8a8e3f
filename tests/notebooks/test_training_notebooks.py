"""The notebooks that train, from their first cell to their last, in each of their ways, on a toy, without a kernel."""

from pathlib import Path

import kernelless
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import searching
import toys
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mask_lib.augment import policy, search
from mask_lib.models.checkpoint import read_checkpoint
from mask_lib.training import lr_finder, tracking

SEARCH, ONE, THREE = "02_search_augmentation", "03_one_model", "04_three_model"
RUN = {**toys.SETTINGS, "folds": [1], "epochs": 1, "compare_with_baseline": False, "tracking_mode": "disabled"}
FEW = {"search_network": searching.NETWORK, "search_folds": [0], "verdict_folds": [1], "halving_factor": 2}
GIVEN = {
    SEARCH: searching.SMALL | FEW | {"steps_each": 1},
    ONE: RUN,
    THREE: RUN | {"head": "three", "attribute_loss": 0.0},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Painted photos in the official layout; the tables are prepared for each output."""
    return toys.official_layout(tmp_path_factory.mktemp("data"))


def executed(shell: InteractiveShell, name: str, data: Path, output: Path, **given) -> tuple[dict, list]:
    """The names that a notebook's cells leave, and the value of each cell that has one."""
    if not output.exists():
        output.mkdir()
        (output / "tables").symlink_to(data / "prepared" / "tables")
    folders = {"data_dir": str(data), "output_dir": str(output)}
    return kernelless.executed(shell, name, **GIVEN[name] | folders | given)


@pytest.mark.parametrize("name", [ONE, THREE])
def test_scores_are_recorded_and_a_trial_of_rates_leaves_the_run_as_it_was(data, tmp_path, shell, monkeypatch, name):
    tried, find, ended = [], lr_finder.find_rate, []
    monkeypatch.setattr(lr_finder, "find_rate", lambda *given: tried.append(given) or find(*given))
    monkeypatch.setattr(tracking.Tracker, "finish", lambda self, summary=None, **rest: ended.append(summary))
    plain = dict(executed(shell, name, data, tmp_path / "plain")[0])
    assert not tried and "trial" not in plain
    scores = plain["found"]["out_of_fold"]
    assert ended[0] == {"out_of_fold": {metric: pytest.approx(score["value"]) for metric, score in scores.items()}}

    found, _ = executed(shell, name, data, tmp_path / "tried", find_learning_rate=True)
    assert len(tried) == 1
    axes = [ax for number in plt.get_fignums() for ax in plt.figure(number).axes]
    assert "How fast it can learn" in {ax.get_title(loc=side) for ax in axes for side in ("left", "center")}
    assert len(found["trial"]) > 10
    checkpoint = Path("fold1") / "checkpoint" / "last.safetensors"
    before, after = (read_checkpoint(one["result"].folder / checkpoint) for one in (plain, found))
    assert all((before[0][name] == after[0][name]).all() for name in before[0])
    assert before[1]["run"] == after[1]["run"]
    for file in ("config.json", "fold1/oof.csv"):
        assert (plain["result"].folder / file).read_bytes() == (found["result"].folder / file).read_bytes()


def test_a_search_that_trains_runs_to_its_answer(data, tmp_path, shell, capsys):
    output = tmp_path / "output"
    names, shown = executed(shell, SEARCH, data, output, search_kind="halving", verdict_seeds=0)
    assert set(names["trials"]["trial"]) == {0, 1, 2, 3}
    assert len(policy.read_policy(search.best_path(output)).sub_policies) == 4  # two policies of two
    operations = next(value for value in shown if isinstance(value, Figure))
    assert len([ax for ax in operations.axes if ax.images]) == 5 * len(policy.OPERATIONS)
    said = capsys.readouterr().out
    assert "each photo draws one of 2 sub-policies" in said
    assert names["judged"] is None and not search.verdict_path(output).exists()
    assert search.written(output) == ["trials.csv", "best_policy.json", "study.db"]


def test_a_verdict_is_reached_with_shorter_trainings_and_leads_a_run(data, tmp_path, shell):
    output = tmp_path / "output"
    changes = {"verdict_seeds": 1, "verdict_epochs": 1, "verdict_policies": 2}
    names, shown = executed(shell, SEARCH, data, output, **changes)
    assert set(names["judged"]["macro_f1"]) == {"none", "trivialaugment", "merged", "best", "best 2"}
    assert names["judged"]["seconds"] > 0
    assert any(isinstance(value, Axes) for value in shown)
    assert "verdict.json" in search.written(output)
    assert pd.read_csv(output / "search" / "trials.csv")["state"].eq("complete").all()
    assert search.resolved("searched", output) == search.chosen_augmentation(output)
