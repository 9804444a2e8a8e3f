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


def executed(shell: InteractiveShell, **given) -> tuple[dict, list]:
    """The names that the cells leave, and the value of each cell that has one."""
    return kernelless.executed(shell, "08_compare_runs", **given)


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
    names, _ = executed(shell, data_dir=str(data), output_dir=str(tmp_path), explained_mistakes=0)
    assert names["problems"].empty
    assert names["comparison"].verdict(names["found"], names["differences"]).startswith("Only one run is finished")
    assert names["reason"] == "explained_mistakes is 0: nothing is explained"
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


@pytest.fixture
def elsewhere(trained, tmp_path) -> tuple[Path, Path]:
    """Another experiment on a data set of its own: the same names, but every photo a bright square."""
    data, output = tmp_path / "bright", tmp_path / "elsewhere"
    toys.prepare(data, output)
    for photo in (data / "train" / "images").rglob("*.png"):
        toys.Image.new("RGB", (toys.FRAME.width, toys.FRAME.height), "white").save(photo)
    runs.write_scores(toys.train(data, output, run="bright", epochs=1))
    return data, output


def shown_photos(value: Figure) -> list:
    """The photos of a grid."""
    return [image.get_array() for axes in value.axes for image in axes.images]


def test_each_run_s_photos_come_from_its_own_data_set(trained, elsewhere, shell):
    data, output = trained
    given = {"data_dir": str(data), "output_dir": str(output), "other_output_dirs": [str(elsewhere[1])]}
    names, _ = executed(shell, **given, run_a="", run_b="", explained_mistakes=0)
    ours, theirs = (next(run for run in names["found"] if run.name.endswith(name)) for name in ("long", "bright"))
    both = names["comparison"].disagreements((ours, theirs))
    for run, is_bright in ((ours, False), (theirs, True)):
        some = both.assign(right_run=run.name)  # whoever is right
        pictures = shown_photos(names["galleries"].disagreements(*names["comparison"].right_alone(run, some, 3)))
        assert len(pictures) == 3
        assert all((picture.min() == 255) == is_bright for picture in pictures)
    assert len(names["explain"].explained_mistakes(theirs, 2)[1]) == 2


def test_photos_of_a_data_set_that_is_gone_are_left_out_with_a_word(trained, elsewhere, shell):
    data, output = trained
    shutil.rmtree(elsewhere[0])
    given = {"data_dir": str(data), "output_dir": str(output), "other_output_dirs": [str(elsewhere[1])]}
    bright = f"{files.shown_path(elsewhere[1])}/bright"
    names, _ = executed(shell, **given, run_a=bright, explained_run=bright)
    assert names["reason"].endswith(f"the data set of {bright}, {elsewhere[0]}, is gone")
    (elsewhere[1] / "runs" / "bright" / "data.json").unlink()
    names, _ = executed(shell, **given, explained_run=bright)
    assert "nothing tells where the photos of" in names["reason"]
