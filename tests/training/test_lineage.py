"""A prediction is refused once its run has other weights, and so is a soup once a member has."""

import shutil

import pandas as pd
import pytest
import toys

from mask_lib.base import files
from mask_lib.ensemble import inference
from mask_lib.ensemble.members import read_members
from mask_lib.training import run_folder, runs

BRIEF = {"epochs": 1, "warmup_epochs": 0.0}


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """A data folder and an output folder with a finished toy run and what it predicts."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("output")
    toys.prepare(data, output)
    runs.write_scores(toys.train(data, output, **BRIEF))
    inference.predict_run(data, output, "toy")
    return data, output


@pytest.fixture
def copied(predicted, tmp_path):
    """The same, to be changed by a test."""
    return tuple(shutil.copytree(folder, tmp_path / folder.name) for folder in predicted)


def retrain(data, output, **changes):
    """Train the run anew, to other weights."""
    runs.write_scores(toys.train(data, output, when_changed="restart", **{**BRIEF, "seed": 1, **changes}))


def members(output, *given):
    return read_members(output, *(given or ([], [])), []).names


def test_predictions_of_weights_that_were_replaced_are_refused_until_they_are_made_again(copied):
    data, output = copied
    assert members(output) == ["toy"]
    retrain(data, output)
    with pytest.raises(ValueError, match=r"toy\.test\.csv is stale: run toy was .*; run 06_inference with run: toy ag"):
        members(output)
    inference.predict_run(data, output, "toy", split="test")
    with pytest.raises(ValueError, match=r"toy\.test_val\.csv is stale"):
        members(output)
    inference.predict_run(data, output, "toy")
    assert members(output) == ["toy"]


def test_a_run_that_is_being_trained_anew_is_told_apart(copied):
    data, output = copied
    toys.train(data, output, when_changed="restart", **{**BRIEF, "seed": 1})
    with pytest.raises(ValueError, match=r"run toy was begun anew since and is not finished; run 03_one_model with"):
        members(output)


def test_a_fold_more_makes_predictions_stale(copied):
    _, output = copied
    lacking = {"out_of_fold": {"0": files.file_digest(output / "runs/toy/fold0/oof.csv")}}
    files.write_json(lacking, output / "inferences" / "toy.test.json")
    with pytest.raises(ValueError, match="run toy was trained or averaged anew"):
        members(output)


def test_scores_written_again_and_the_same_training_again_leave_predictions_valid(copied):
    data, output = copied
    result = toys.train(data, output, **BRIEF)  # what running 03_one_model again does: it only reads
    runs.write_scores(result, baseline=pd.DataFrame({"value": [0.5]}, index=["macro_f1"]))
    assert members(output) == ["toy"]
    shutil.rmtree(output / "runs" / "toy")
    runs.write_scores(toys.train(data, output, **BRIEF))
    assert members(output) == ["toy"]


def test_a_kill_before_the_note_leaves_predictions_that_are_refused(copied, monkeypatch):
    data, output = copied
    retrain(data, output)
    monkeypatch.setattr(run_folder, "note_prediction", None)
    with pytest.raises(TypeError):
        inference.predict_run(data, output, "toy", split="test")
    with pytest.raises(ValueError, match="run 06_inference with run: toy again"):
        members(output)


def test_what_is_trained_during_inference_does_not_count(copied, monkeypatch):
    data, output = copied
    held_out = inference.predict_held_out
    monkeypatch.setattr(inference, "predict_held_out", lambda *given: (held_out(*given), retrain(data, output))[0])
    inference.predict_run(data, output, "toy")
    with pytest.raises(ValueError, match="is stale"):
        members(output)


def test_files_from_elsewhere_are_taken_as_they_are(copied, tmp_path):
    data, output = copied
    given = [[str(tmp_path / "friend" / "inferences" / f"toy.{part}.csv")] for part in ("test", "test_val")]
    shutil.copytree(output / "inferences", tmp_path / "friend" / "inferences")
    retrain(data, output)
    assert members(output, *given) == ["toy"]  # no run folder beside them
    for note in (output / "inferences").glob("toy.*.json"):
        note.unlink()
    assert members(output) == ["toy"]  # nothing was noted of them


def test_files_of_another_experiment_are_held_against_its_own_runs(copied, tmp_path):
    data, output = copied
    other = shutil.copytree(output, tmp_path / "other")
    given = [[str(other / "inferences" / f"toy.{part}.csv")] for part in ("test", "test_val")]
    retrain(data, output)
    assert members(output, *given) == ["toy"]
    retrain(data, other)
    with pytest.raises(ValueError, match=r"other/inferences/toy\.test\.csv is stale"):
        members(output, *given)


def test_a_run_s_folder_tells_where_its_photos_lie(copied):
    data, output = copied
    assert run_folder.data_of(output / "runs" / "toy") != data  # the original's, of which this is a copy
    toys.train(data, output, **BRIEF)
    assert run_folder.data_of(output / "runs" / "toy") == data.resolve()
    (output / "runs" / "toy" / "data.json").unlink()
    assert run_folder.data_of(output / "runs" / "toy") is None
