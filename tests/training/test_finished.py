"""Every finished run is found and checked; what is unfinished or damaged is told and stops nothing."""

import json
import shutil

import pandas as pd
import past_runs
import pytest

from mask_lib.base import config, scores
from mask_lib.training import run_folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    output = tmp_path_factory.mktemp("experiment")
    past_runs.prepare(output)
    past_runs.write_run(output, "weak", right=0.3)
    past_runs.write_run(output, "strong", right=0.9, epochs=7)
    return output


@pytest.fixture
def output(made, tmp_path):
    """A copy, to be damaged by a test."""
    return shutil.copytree(made, tmp_path / "experiment")


def test_every_finished_run_is_found_the_best_first(made):
    found, problems = run_folder.find([made])
    assert [run.name for run in found] == ["strong", "weak"]
    assert problems.empty and list(problems) == ["run", "problem"]
    assert found[0].settings == config.Run(
        run="strong", architecture="resnet18", image_width=96, image_height=128, epochs=7
    )
    assert found[0].device == "CPU, 2 threads"
    assert found[0].folder == made / "runs" / "strong"


def test_a_run_holds_its_tables_joined_over_its_folds_with_people(made):
    run = run_folder.find([made])[0][0]
    assert list(run.history.groupby("fold").size()) == [2, 2, 2]
    assert (run.out_of_fold["person"] == run.out_of_fold["path"].str[:3]).all()
    for fold, rows in run.out_of_fold.groupby("fold"):
        assert set(rows["path"]) == set(pd.read_csv(run.folder / f"fold{fold}" / "oof.csv")["path"])
    told = scores.summarise(*scores.from_probabilities(run.out_of_fold))
    assert dict(run.intervals["value"]) == pytest.approx(told)


def test_folds_that_are_prepared_count_though_not_all_are_trained(output):
    past_runs.write_run(output, "partly", trained=(1,))
    run = next(run for run in run_folder.find([output])[0] if run.name == "partly")
    assert (run.k_fold, run.out_of_fold["fold"].unique().tolist()) == (3, [1])


def without_row(path):
    pd.read_csv(path).iloc[1:].to_csv(path, index=False)


def renamed_column(path, old, new):
    pd.read_csv(path).rename(columns={old: new}).to_csv(path, index=False)


def changed_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DAMAGES = {
    "no scores": (lambda folder: (folder / "scores.json").unlink(), "not finished: it has no scores.json"),
    "no settings": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "half a JSON": (lambda folder: (folder / "scores.json").write_text('{"out_of'), "scores.json is not valid JSON"),
    "no mapping": (lambda folder: (folder / "scores.json").write_text("[1]"), "damaged"),
    "no folds": (lambda folder: changed_json(folder / "scores.json", folds=[]), "names no fold"),
    "odd scores": (lambda folder: changed_json(folder / "scores.json", out_of_fold={"macro_f1": 3}), "damaged"),
    "unknown setting": (lambda folder: changed_json(folder / "config.json", depth=3), "unknown settings: depth"),
    "wrong setting": (lambda folder: changed_json(folder / "config.json", epochs=0), "epochs = 0"),
    "no table": (lambda folder: (folder / "fold1" / "oof.csv").unlink(), "fold1/oof.csv"),
    "empty table": (lambda folder: (folder / "fold1" / "oof.csv").write_text(""), "fold1/oof.csv: No columns"),
    "cut table": (lambda folder: cut(folder / "fold1" / "oof.csv"), "missing"),
    "no text": (lambda folder: (folder / "fold1" / "oof.csv").write_bytes(b"\xff\xfe\x00"), "fold1/oof.csv"),
    "a row less": (lambda folder: without_row(folder / "fold0" / "oof.csv"), "scores.json does not fit"),
    "a column less": (
        lambda folder: renamed_column(folder / "fold0" / "oof.csv", "p03", "q03"),
        "fold0/oof.csv: the table of probabilities lacks p03",
    ),
    "odd cost": (
        lambda folder: changed_json(folder / "scores.json", photos_per_second="fast"),
        "no number as photos_p",
    ),
    "a fold twice": (
        lambda folder: shutil.copy(folder / "fold0" / "oof.csv", folder / "fold1" / "oof.csv"),
        "in the oof.csv of two folds",
    ),
    "odd history": (
        lambda folder: renamed_column(folder / "fold0" / "history.csv", "val_loss", "loss"),
        "history.csv lacks val_loss",
    ),
}


def cut(path):
    path.write_bytes(path.read_bytes()[:700])


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_told_and_the_others_stay(output, damage):
    harm, words = DAMAGES[damage]
    harm(output / "runs" / "strong")
    found, problems = run_folder.find([output])
    assert [run.name for run in found] == ["weak"]
    assert len(problems) == 1
    assert problems["run"].iloc[0].endswith("runs/strong")
    assert words in problems["problem"].iloc[0]


def test_photos_that_the_photo_table_lacks_are_told(output):
    table = pd.read_csv(output / "tables" / "photos.csv", dtype="str")
    table[table["person"] != "001"].to_csv(output / "tables" / "photos.csv", index=False)
    with pytest.raises(FileNotFoundError, match=r"4 of its photos are not in tables/photos\.csv"):
        run_folder.find([output])


def test_runs_of_several_experiments_are_told_apart_and_none_counts_twice(made, tmp_path):
    other = shutil.copytree(made, tmp_path / "other")
    found, _ = run_folder.find([made, other, made])
    assert len(found) == 4
    assert {run.name for run in found} == {f"{home}/{name}" for home in (made, other) for name in ("strong", "weak")}


def test_without_any_finished_run_the_error_says_what_to_do_and_why(output):
    for name in ("strong", "weak"):
        (output / "runs" / name / "scores.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"run 03_one_model to its end first; .*strong: not finished"):
        run_folder.find([output])
    with pytest.raises(FileNotFoundError, match="no finished run below"):
        run_folder.find([output / "absent"])
