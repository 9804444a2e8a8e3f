"""08_compare_runs from its first cell to its last, on toy runs, without a kernel."""

import shutil
from pathlib import Path

import kernelless
import pandas as pd
import pytest
import toys
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure

from mask_lib.base import files
from mask_lib.training import runs


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


def executed(shell: InteractiveShell, data: Path, output: Path, **given) -> tuple[dict, list]:
    """The names that the cells leave, and the value of each cell that has one."""
    return kernelless.executed(shell, "08_compare_runs", data_dir=str(data), output_dir=str(output), **given)


def test_two_runs_are_compared_and_the_others_told(trained, shell, capsys):
    names, shown = executed(shell, *trained, explained_mistakes=3, shown_disagreements=4)
    assert {run.name for run in names["found"]} == {"short", "long"}
    folder = trained[1] / "comparison"
    problems = pd.read_csv(folder / "problems.csv")
    assert [Path(run).name for run in problems["run"]] == ["broken-off", "damaged"]
    assert "not finished" in problems["problem"].iloc[0]
    assert "not finished: it has no scores.json; run its notebook again" in capsys.readouterr().out
    tables = ("settings", "scores", "differences", "disagreements")
    settings, scores, differences, disagreements = (pd.read_csv(folder / f"{name}.csv") for name in tables)
    assert set(settings["epochs"]) == {1, 3} and set(scores["run"]) == {"short", "long"}
    assert list(differences["metric"]) == ["macro_f1", "accuracy"]
    assert set(disagreements["right_run"]) <= {"short", "long"}
    assert sum(isinstance(value, Figure) for value in shown) == 3  # both ways of disagreeing, and the explanation


def test_a_single_run_has_nothing_to_be_compared_with_but_those_of_another_experiment(trained, shell, tmp_path):
    data, output = trained
    for part in ("tables", "runs/long"):
        shutil.copytree(output / part, tmp_path / part)
    names, _ = executed(shell, data, tmp_path, explained_mistakes=0)
    assert names["problems"].empty
    assert names["comparison"].verdict(names["found"], names["differences"]).startswith("Only one run is finished")
    assert names["reason"] == "explained_mistakes is 0: nothing is explained"
    assert len(pd.read_csv(tmp_path / "comparison" / "scores.csv")) == 1

    names, _ = executed(shell, data, tmp_path, other_output_dirs=[str(output)], explained_mistakes=0)
    assert len(names["found"]) == 3
    twins = names["differences"].query("a.str.endswith('long') and b.str.endswith('long')", engine="python")
    assert (twins["difference"] == 0).all() and not twins["real"].any()


def shown_photos(value: Figure) -> list:
    """The photos of a grid."""
    return [image.get_array() for axes in value.axes for image in axes.images]


def test_each_run_s_photos_come_from_its_own_data_set_and_are_left_out_once_that_is_gone(trained, shell, tmp_path):
    """Another experiment has the same names, but every photo is a bright square."""
    data, output = tmp_path / "bright", tmp_path / "elsewhere"
    toys.prepare(data, output)
    for photo in (data / "train" / "images").rglob("*.png"):
        toys.Image.new("RGB", (toys.FRAME.width, toys.FRAME.height), "white").save(photo)
    runs.write_scores(toys.train(data, output, run="bright", epochs=1))

    names, _ = executed(shell, *trained, other_output_dirs=[str(output)], run_a="", run_b="", explained_mistakes=0)
    ours, theirs = (next(run for run in names["found"] if run.name.endswith(name)) for name in ("long", "bright"))
    both = names["comparison"].disagreements((ours, theirs))
    for run, is_bright in ((ours, False), (theirs, True)):
        some = both.assign(right_run=run.name)  # whoever is right
        pictures = shown_photos(names["galleries"].disagreements(*names["comparison"].right_alone(run, some, 3)))
        assert len(pictures) == 3
        assert all((picture.min() == 255) == is_bright for picture in pictures)
    assert len(names["comparison"].explained_mistakes(theirs, 2)[1]) == 2

    shutil.rmtree(data)
    bright = f"{files.shown_path(output)}/bright"
    names, _ = executed(shell, *trained, other_output_dirs=[str(output)], run_a=bright, explained_run=bright)
    assert names["reason"].endswith(f"the data set of {bright}, {data}, is gone")
    (output / "runs" / "bright" / "data.json").unlink()
    names, _ = executed(shell, *trained, other_output_dirs=[str(output)], explained_run=bright)
    assert "nothing tells where the photos of" in names["reason"]
