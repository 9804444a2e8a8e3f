"""03_one_model and 04_three_model from their first cell to their last, on a toy, without a kernel."""

from pathlib import Path

import kernelless
import matplotlib.pyplot as plt
import pytest
import toys
from IPython.core.interactiveshell import InteractiveShell

from mask_lib.models.checkpoint import read_checkpoint
from mask_lib.training import lr_finder, tracking

GIVEN = {**toys.SETTINGS, "folds": [1], "epochs": 1, "compare_with_baseline": False, "tracking_mode": "disabled"}
NOTEBOOKS = {"03_one_model": {}, "04_three_model": {"head": "three", "attribute_loss": 0.0}}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Painted photos in the official layout; the tables are prepared for each output."""
    folder = tmp_path_factory.mktemp("data")
    toys.prepare(folder, folder / "prepared")
    (folder / "train" / "train.csv").write_text("id,gender,race,age,path\n")
    return folder


def executed(shell: InteractiveShell, name: str, data: Path, output: Path, **given) -> dict:
    """The names that a notebook's cells leave."""
    if not output.exists():
        (output / "tables").parent.mkdir(parents=True)
        (output / "tables").symlink_to(data / "prepared" / "tables")
    folders = {"data_dir": str(data), "output_dir": str(output)}
    return kernelless.executed(shell, name, **GIVEN | NOTEBOOKS[name] | folders | given)[0]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_trial_of_learning_rates_is_drawn_and_leaves_the_run_as_it_was(data, tmp_path, shell, monkeypatch, name):
    drawn, find = [], lr_finder.find
    monkeypatch.setattr(lr_finder, "find", lambda *given, **rest: drawn.append(given) or find(*given, **rest))
    plain = dict(executed(shell, name, data, tmp_path / "plain"))
    assert not drawn and "trial" not in plain
    found = executed(shell, name, data, tmp_path / "tried", find_learning_rate=True)
    assert [given[3] for given in drawn] == [1]  # the first fold that the run asks for
    titles = [ax.get_title(loc=side) for number in plt.get_fignums() for ax in plt.figure(number).axes
              for side in ("left", "center")]  # fmt: skip
    assert "How fast it can learn" in titles
    assert len(found["trial"]) > 10
    checkpoint = Path("fold1") / "checkpoint" / "last.safetensors"
    before, after = (read_checkpoint(one["result"].folder / checkpoint) for one in (plain, found))
    assert all((before[0][name] == after[0][name]).all() for name in before[0])
    assert before[1]["run"] == after[1]["run"]
    for file in ("config.json", "fold1/oof.csv"):
        assert (plain["result"].folder / file).read_bytes() == (found["result"].folder / file).read_bytes()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_final_scores_are_recorded_with_the_run(data, tmp_path, shell, monkeypatch, name):
    ended = []
    monkeypatch.setattr(tracking.Tracker, "finish", lambda self, summary=None, **rest: ended.append(summary))
    found = executed(shell, name, data, tmp_path / "output")["found"]["out_of_fold"]
    assert ended[0] == {"out_of_fold": {metric: pytest.approx(score["value"]) for metric, score in found.items()}}
