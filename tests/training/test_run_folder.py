"""One reader of a run: it says which weights are in use, refuses what is damaged, and what was made of others."""

import json
import shutil
from pathlib import Path

import pandas as pd
import past_runs
import pytest
import toys

from mask_lib.base import config, files, scores
from mask_lib.ensemble import inference
from mask_lib.ensemble.members import read_members
from mask_lib.training import run_folder, runs


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


def test_every_finished_run_is_found_the_best_first_its_tables_joined_over_its_folds_with_people(made):
    found, problems = run_folder.find_runs([made])
    assert [run.name for run in found] == ["strong", "weak"]
    assert problems.empty and list(problems) == ["run", "problem"]
    run, size = found[0], {"image_width": 96, "image_height": 128}
    assert run.settings == config.Run(run="strong", architecture="resnet18", epochs=7, **size)
    assert (run.device, run.folder) == ("CPU, 2 threads", made / "runs" / "strong")
    assert list(run.history.groupby("fold").size()) == [2, 2, 2]
    assert (run.out_of_fold["person"] == run.out_of_fold["path"].str[:3]).all()
    for fold, rows in run.out_of_fold.groupby("fold"):
        assert set(rows["path"]) == set(pd.read_csv(run.folder / f"fold{fold}" / "oof.csv")["path"])
    told = scores.summarise(*scores.from_probabilities(run.out_of_fold))
    assert dict(run.intervals["value"]) == pytest.approx(told)


def test_folds_that_are_prepared_count_though_not_all_are_trained(output):
    folder = past_runs.write_run(output, "partly", trained=(1,))
    (folder / "fold0").mkdir()  # left by an earlier run of more folds
    (folder / "fold0" / "oof.csv").write_text("of something else")
    run = run_folder.read_run(folder)
    assert (run.k_fold, run.out_of_fold["fold"].unique().tolist()) == (3, [1])


def test_averages_of_other_folds_than_those_that_are_trained_are_not_in_use(output):
    folder = output / "runs" / "weak"
    before = run_folder.out_of_fold(folder)
    past_runs.average(folder)
    saved = files.read_json(folder / "averaging.json")
    del saved["folds"]["2"]
    files.write_json(saved, folder / "averaging.json")
    pd.testing.assert_frame_equal(run_folder.read_run(folder).out_of_fold, before)
    assert {checkpoint.stem for checkpoint, _ in run_folder.in_use(folder).values()} == {"last"}


@pytest.mark.parametrize(("choice", "name"), [("best", "best"), ("last", "last"), ("swa", "last")])
def test_before_averaging_the_weights_in_use_are_those_that_training_chose(output, choice, name):
    folder = past_runs.write_run(output, "one", checkpoint_choice=choice, keep_epochs=1)
    assert {path.stem for path, _ in run_folder.in_use(folder).values()} == {name}
    assert {table.name for _, table in run_folder.in_use(folder).values()} == {"oof.csv"}


def lacking_row(path):
    pd.read_csv(path).iloc[1:].to_csv(path, index=False)


def renamed(path, old, new):
    pd.read_csv(path).rename(columns={old: new}).to_csv(path, index=False)


# What happens to a file, and the words for it. A text: the file's new content; a mapping: what it says instead.
DAMAGES = {
    "no scores": ("scores.json", Path.unlink, "not finished: it has no scores.json"),
    "no settings": ("config.json", Path.unlink, "config.json"),
    "no folds": ("scores.json", {"folds": []}, "scores.json: folds: "),
    "odd scores": ("scores.json", {"out_of_fold": {"macro_f1": 3}}, "scores.json: out_of"),
    "no score": ("scores.json", {"out_of_fold": {}}, "scores.json does not fit"),
    "odd cost": ("scores.json", {"photos_per_second": "fast"}, "scores.json: photos_per"),
    "unknown setting": ("config.json", {"depth": 3}, "config.json: there is no setting"),
    "wrong setting": ("config.json", {"epochs": 0}, "config.json: epochs = 0"),
    "no table": ("fold1/oof.csv", Path.unlink, "fold1/oof.csv"),
    "empty table": ("fold1/oof.csv", "", "fold1/oof.csv is empty"),
    "cut table": ("fold1/oof.csv", lambda path: path.write_bytes(path.read_bytes()[:700]), "fold1/oof.csv, line "),
    "no text": ("fold1/oof.csv", lambda path: path.write_bytes(b"\xff\xfe\x00"), "fold1/oof.csv"),
    "a row less": ("fold0/oof.csv", lacking_row, "scores.json does not fit"),
    "a column less": (
        "fold0/oof.csv",
        lambda path: renamed(path, "p03", "q03"),
        "fold0/oof.csv lacks the column(s) p03",
    ),
    "a fold twice": ("fold1/oof.csv", lambda path: shutil.copy(path.parents[1] / "fold0/oof.csv", path), "two folds"),
    "odd history": (
        "fold0/history.csv",
        lambda path: renamed(path, "val_loss", "x"),
        "history.csv lacks the column(s) val_loss",
    ),
    "no picked table": (
        "fold1/oof.swa.csv",
        lambda path: (past_runs.average(path.parents[1]), path.unlink()),
        "fold1/oof.swa.csv",
    ),
    "odd pick": ("averaging.json", '{"trained": "best", "folds": {"0": {"picked": "../x"}}}', "json: folds.0.picked: "),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_told_by_its_file_and_the_others_stay(output, damage):
    file, harm, words = DAMAGES[damage]
    path = output / "runs" / "strong" / file
    if isinstance(harm, str):
        path.write_text(harm)
    elif isinstance(harm, dict):
        path.write_text(json.dumps({**json.loads(path.read_text()), **harm}))
    else:
        harm(path)
    found, problems = run_folder.find_runs([output])
    assert [run.name for run in found] == ["weak"]
    assert len(problems) == 1
    assert problems["run"].iloc[0].endswith("runs/strong")
    assert words in problems["problem"].iloc[0]


def test_scores_of_other_tables_than_those_picked_are_told(output):
    folder = output / "runs" / "strong"
    past_runs.average(folder)
    past_runs.write_tables(folder, "oof.swa.csv", right=0.1)
    with pytest.raises(ValueError, match=r"averaging\.json does not fit the out-of-fold tables"):
        run_folder.read_run(folder)


def test_runs_of_several_experiments_are_told_apart_and_none_counts_twice(made, tmp_path):
    other = shutil.copytree(made, tmp_path / "other")
    found, _ = run_folder.find_runs([made, other, made])
    assert len(found) == 4
    assert {run.name for run in found} == {f"{home}/{name}" for home in (made, other) for name in ("strong", "weak")}


def test_without_any_finished_run_the_error_says_what_to_do_and_why(output):
    for name in ("strong", "weak"):
        (output / "runs" / name / "scores.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"run 03_one_model to its end first; .*strong: not finished"):
        run_folder.find_runs([output])
    with pytest.raises(FileNotFoundError, match="no finished run below"):
        run_folder.find_runs([output / "absent"])
    with pytest.raises(FileNotFoundError, match="run 03_one_model first"):
        run_folder.chosen_runs(output, "")
    with pytest.raises(FileNotFoundError, match=r"runs/weak holds no finished run: run 03_one_model with run: weak"):
        run_folder.out_of_fold(output / "runs" / "weak")


# Predictions of weights that are no longer in use.

BRIEF = {"epochs": 1, "warmup_epochs": 0.0}


@pytest.fixture(scope="module")
def trained(prepared):
    """A data folder and an output folder with a finished toy run and what it predicts."""
    runs.write_scores(toys.train(*prepared, **BRIEF))
    inference.predict_run(*prepared, "toy")
    return prepared


def retrain(data, output, **changes):
    """Train the run anew, to other weights."""
    runs.write_scores(toys.train(data, output, when_changed="restart", **{**BRIEF, "seed": 1, **changes}))


def members(output, *given):
    return read_members(output, *given).names


def test_predictions_of_weights_that_were_replaced_are_refused_until_they_are_made_again(copied):
    data, output = copied
    assert members(output) == ["toy"]
    result = toys.train(data, output, when_changed="restart", **{**BRIEF, "seed": 1})
    with pytest.raises(ValueError, match=r"run toy was begun anew since and is not finished; run 03_one_model with"):
        members(output)
    runs.write_scores(result)
    with pytest.raises(ValueError, match=r"toy\.test\.csv is stale: run toy was .*; run 06_inference with run: toy ag"):
        members(output)
    inference.predict_run(data, output, "toy", split="test")
    with pytest.raises(ValueError, match=r"toy\.test_val\.csv is stale"):
        members(output)
    inference.predict_run(data, output, "toy")
    assert members(output) == ["toy"]


def test_an_average_that_was_picked_or_a_fold_more_makes_predictions_stale(copied):
    _, output = copied
    folder = output / "runs" / "toy"
    for fold in (0, 1):
        table = pd.read_csv(folder / f"fold{fold}" / "oof.csv")
        files.write_csv(table.assign(p00=table["p01"], p01=table["p00"]), folder / f"fold{fold}" / "oof.swa.csv")
    entries = {"0": {"picked": "swa"}, "1": {"picked": "best"}}
    files.write_json({"trained": "best", "folds": entries}, folder / "averaging.json")
    with pytest.raises(ValueError, match="run toy was trained or averaged anew since"):
        members(output)
    files.write_json({"trained": "best", "folds": dict.fromkeys("01", entries["1"])}, folder / "averaging.json")
    assert members(output) == ["toy"]  # the average was no better
    lacking = {"out_of_fold": {"0": files.file_digest(folder / "fold0" / "oof.csv")}}
    files.write_json(lacking, output / "inferences" / "toy.test.json")
    with pytest.raises(ValueError, match="run toy was trained or averaged anew since"):
        members(output)


def test_scores_written_again_and_the_same_training_again_leave_predictions_valid(copied):
    data, output = copied
    runs.write_scores(toys.train(data, output, **BRIEF))  # what running 03_one_model again does: it only reads
    assert members(output) == ["toy"]
    shutil.rmtree(output / "runs" / "toy")
    runs.write_scores(toys.train(data, output, **BRIEF))
    assert members(output) == ["toy"]


def test_a_kill_before_the_note_leaves_predictions_that_are_refused(copied, monkeypatch):
    data, output = copied
    retrain(data, output)
    monkeypatch.setattr(inference.files, "write_json", None)
    with pytest.raises(TypeError):
        inference.predict_run(data, output, "toy", split="test")
    with pytest.raises(ValueError, match="run 06_inference with run: toy again"):
        members(output)


def test_what_is_trained_during_inference_does_not_count(copied, monkeypatch):
    data, output = copied
    held_out = inference.predict_labeled
    monkeypatch.setattr(inference, "predict_labeled", lambda *given: (held_out(*given), retrain(data, output))[0])
    inference.predict_run(data, output, "toy")
    with pytest.raises(ValueError, match="is stale"):
        members(output)


def test_files_of_another_experiment_are_held_against_its_own_runs_if_it_has_any(copied, tmp_path):
    data, output = copied
    other, friend = shutil.copytree(output, tmp_path / "other"), tmp_path / "friend"
    shutil.copytree(output / "inferences", friend / "inferences")  # no run folder beside them

    def given(home):
        return [[str(home / "inferences" / f"toy.{part}.csv")] for part in ("test", "test_val")]

    retrain(data, output)
    assert members(output, *given(friend)) == members(output, *given(other)) == ["toy"]
    retrain(data, other)
    with pytest.raises(ValueError, match=r"other/inferences/toy\.test\.csv is stale"):
        members(output, *given(other))
    for note in (output / "inferences").glob("toy.*.json"):
        note.unlink()
    assert members(output) == ["toy"]  # nothing was noted of them


def test_a_run_s_folder_tells_where_its_photos_lie(copied):
    data, output = copied
    assert run_folder.data_of(output / "runs" / "toy") != data  # the original's, of which this is a copy
    assert toys.train(data, output, **BRIEF).data_dir == data.resolve()
    (output / "runs" / "toy" / "data.json").unlink()
    assert run_folder.data_of(output / "runs" / "toy") is None
