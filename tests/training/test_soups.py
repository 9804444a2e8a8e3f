"""A soup takes a member only if the held-out score rises, and is then a run like any other."""

import shutil

import pandas as pd
import pytest
import toys

from mask_lib.base import files
from mask_lib.data import photos
from mask_lib.data.splits import make_splits, write_splits
from mask_lib.ensemble import inference, self_training
from mask_lib.ensemble.members import read_members
from mask_lib.models import checkpoint, weights
from mask_lib.training import averaging, run_folder, runs

MEMBERS = {
    "short": {"epochs": 3},
    "slow": {"epochs": 4, "learning_rate": 0.02},
    "wide": {"epochs": 3, "augmentation": "none"},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three finished runs from the same first weights."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("output")
    toys.prepare(data, output)
    for run, changes in MEMBERS.items():
        runs.write_scores(toys.train(data, output, run=run, **changes))
    return data, output


@pytest.fixture
def copied(trained, tmp_path):
    return tuple(shutil.copytree(folder, tmp_path / folder.name) for folder in trained)


def scores_by_fold(output, run):
    found = files.read_json(output / "runs" / run / "scores.json")["folds"]
    return {one["fold"]: one["macro_f1"] for one in found}


def test_a_soup_is_never_worse_than_its_best_member_on_held_out_people(copied):
    data, output = copied
    saved = averaging.make_soup(data, output, "soup", list(MEMBERS))
    members = [scores_by_fold(output, run) for run in MEMBERS]
    for fold, value in scores_by_fold(output, "soup").items():
        assert value >= max(one[fold] for one in members) - 1e-12
        tried = saved["folds"][str(fold)]["members"]
        assert [one["macro_f1"] for one in tried] == sorted((one["macro_f1"] for one in tried), reverse=True)
        assert tried[0]["accepted"] and len(tried) == 3


def test_a_soup_is_a_run_for_whatever_comes_later(copied):
    data, output = copied
    averaging.make_soup(data, output, "soup", list(MEMBERS))
    assert "soup" in run_folder.trained_runs(output)
    tables = inference.predict_run(data, output, "soup")
    assert len(tables["test"]) == 12
    run = run_folder.read_run(output / "runs" / "soup")
    labeled, splits, _ = averaging.open_evaluators(data, output, run.settings)
    assert runs.checkpoints(output, "soup", labeled, splits)[1].stem == "soup"
    oof = pd.read_csv(output / "runs" / "soup" / "fold1" / "oof.csv")
    assert set(oof["path"]) == set(splits[1]["path"][splits[1]["split"] == "val"])
    assert run.scores["training_seconds"] == pytest.approx(run.history["seconds"].sum())
    assert run_folder.chosen_runs(output, "", soups=False) == sorted(MEMBERS)
    with pytest.raises(ValueError, match="soup is a soup of other runs"):
        averaging.average_run(data, output, "soup")
    averaging.make_soup(data, output, "soup", ["slow", "wide"])  # made anew, of others


class Evaluator(averaging.FoldEvaluator):
    """Scores that are given instead of measured: a checkpoint is a number, and a soup is worth what `worth` says."""

    def __init__(self, worth):
        self.worth = worth

    def refreshed(self, state, manifest):
        return state

    def out_of_fold(self, state, manifest):
        return self.worth(state["weight"].item())


def greedy(tmp_path, monkeypatch, members, worth):
    """(mean weight, names accepted) of the soup of members, a number each, where a number's score is `worth` of it."""
    paths = {}
    for run, number in members.items():
        paths[run] = tmp_path / f"{run}.safetensors"
        state = {"weight": averaging.torch.tensor([float(number)])}
        checkpoint.write_checkpoint(paths[run], state, {"run": {}, "fold": 0, "data": "", "preprocessing": {}})
    monkeypatch.setattr(averaging, "macro_f1", lambda table: table)
    state, _, tried = averaging.greedy(paths, Evaluator(worth))
    return state["weight"].item(), [one["run"] for one in tried if one["accepted"]]


def test_members_that_help_are_taken_and_others_are_not(tmp_path, monkeypatch):
    nearness = lambda number: -abs(number - 5)  # noqa: E731
    assert greedy(tmp_path, monkeypatch, {"low": 3, "high": 6.5, "far": 20}, nearness) == (4.75, ["high", "low"])


def test_a_member_that_changes_nothing_is_not_taken(tmp_path, monkeypatch):
    assert greedy(tmp_path, monkeypatch, {"one": 4, "twin": 4}, lambda number: number) == (4, ["one"])


def test_where_none_helps_the_soup_is_its_best_member_bit_for_bit(copied, monkeypatch):
    data, output = copied
    monkeypatch.setattr(averaging, "refresh_batch_norm", lambda loaded, *rest: spoil(loaded.network))
    saved = averaging.make_soup(data, output, "soup", ["short", "slow"])
    for fold, one in saved["folds"].items():
        best = one["members"][0]["run"]
        assert [each["accepted"] for each in one["members"]] == [True, False]
        assert "without" in one["members"][1]["why"]
        states = [
            checkpoint.read_checkpoint(output / "runs" / run / f"fold{fold}" / "checkpoint" / f"{name}.safetensors")[0]
            for run, name in ((best, "best"), ("soup", "soup"))
        ]
        assert all(averaging.torch.equal(states[1][name], value) for name, value in states[0].items())


def spoil(network):
    """Make a network answer one class whatever it sees."""
    for parameter in network.parameters():
        parameter.data.zero_()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "seed: 0 → 1"),
        ({"architecture": "test_efficientnet"}, "architecture: test_resnet → test_efficientnet"),
    ],
)
def test_runs_that_started_from_other_weights_are_refused_with_both_files_named(copied, changes, words):
    data, output = copied
    runs.write_scores(toys.train(data, output, run="other", epochs=1, **changes))
    with pytest.raises(ValueError, match=rf"short/fold0\S+ and \S+other/fold0\S+ cannot be averaged: {words}"):
        averaging.make_soup(data, output, "soup", ["short", "other"])
    assert not (output / "runs" / "soup").exists()


def test_pretrained_runs_with_other_heads_are_refused(copied, tmp_path):
    """Pretrained weights are the same for all, the last layer put on them is drawn by the seed."""
    data, output = copied
    path = str(tmp_path / "pretrained.safetensors")
    checkpoint.write_checkpoint(
        tmp_path / "pretrained.safetensors", weights.initial_state("test_resnet", "none", seed=3), {}
    )
    for run, seed in (("one", 0), ("other", 1)):
        runs.write_scores(toys.train(data, output, run=run, epochs=1, folds=(0,), weights=path, seed=seed))
    with pytest.raises(ValueError, match="cannot be averaged: seed: 0 → 1"):
        averaging.make_soup(data, output, "soup", ["one", "other"])


def test_runs_without_a_fold_in_common_are_refused(copied):
    data, output = copied
    runs.write_scores(toys.train(data, output, run="first", folds=(0,), epochs=1))
    runs.write_scores(toys.train(data, output, run="second", folds=(1,), epochs=1))
    with pytest.raises(ValueError, match="first, second were trained on different folds"):
        averaging.make_soup(data, output, "soup", ["first", "second"])
    assert list(averaging.make_soup(data, output, "soup", ["short", "second"])["folds"]) == ["1"]


@pytest.mark.parametrize(
    ("soup", "members", "words"),
    [
        ("soup", ["short"], "name at least two runs"),
        ("soup", ["short", "short"], "each once"),
        ("slow", ["short", "wide"], "soup = 'slow': that is a run that was trained"),
        ("short", ["short", "wide"], "give the soup a name of its own"),
        ("a/b", ["short", "wide"], "run = 'a/b'"),
    ],
)
def test_a_soup_needs_a_name_of_its_own_and_two_members(copied, soup, members, words):
    data, output = copied
    with pytest.raises(ValueError, match=words):
        averaging.make_soup(data, output, soup, members)


def test_a_killed_soup_is_not_finished_and_can_be_made_again(copied, monkeypatch):
    data, output = copied
    with monkeypatch.context() as patch:
        patch.setattr(runs, "close_run", None)  # all folds are written by then
        with pytest.raises(TypeError):
            averaging.make_soup(data, output, "soup", ["short", "slow"])
    assert "soup" not in run_folder.trained_runs(output)
    averaging.make_soup(data, output, "soup", ["short", "slow"])
    assert "soup" in run_folder.trained_runs(output)


def test_a_soup_of_which_a_member_was_trained_anew_is_refused_by_name(copied):
    data, output = copied
    averaging.make_soup(data, output, "soup", ["short", "slow"])
    inference.predict_run(data, output, "soup")
    runs.write_scores(toys.train(data, output, run="wide", when_changed="restart", seed=1, **MEMBERS["slow"]))
    inference.predict_run(data, output, "soup")  # of which that run is no member
    runs.write_scores(toys.train(data, output, run="slow", when_changed="restart", epochs=3))
    words = r"the soup soup is stale: slow was trained.*; run 05_average_weights with soup: soup and soup_of: \[short"
    with pytest.raises(ValueError, match=words):
        inference.predict_run(data, output, "soup")
    with pytest.raises(ValueError, match=words):
        read_members(output)
    averaging.make_soup(data, output, "soup", ["short", "slow"])
    inference.predict_run(data, output, "soup")
    assert read_members(output).names == ["soup"]
    shutil.rmtree(output / "runs" / "short")  # nothing can be said of it any more
    inference.predict_run(data, output, "soup")


def test_where_a_run_that_was_trained_is_needed_a_soup_is_refused(copied):
    data, output = copied
    averaging.make_soup(data, output, "soup", ["short", "slow"])
    words = "soup is a soup of other runs and was not trained itself: name a run .* members short, slow"
    for asked in (self_training.predictions, averaging.average_run):
        with pytest.raises(ValueError, match=words):
            asked(data, output, "soup")
    before = (output / "runs" / "soup" / "scores.json").read_bytes()
    with pytest.raises(ValueError, match=r"run = 'soup': .*runs/soup holds a soup; give the run another name"):
        toys.train(data, output, run="soup", when_changed="restart")
    assert (output / "runs" / "soup" / "scores.json").read_bytes() == before


def test_a_soup_that_is_outdated_or_unfinished_says_what_to_run(copied):
    data, output = copied
    averaging.make_soup(data, output, "soup", ["short", "slow"])
    write_splits(make_splits(photos.read_labeled(output), 2, 0.2, seed=7), output)
    with pytest.raises(ValueError, match="train short, slow again, of which it is a soup, then make the soup again"):
        inference.predict_run(data, output, "soup")
    (output / "runs" / "soup" / "scores.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no finished run: run 05_average_weights with soup: soup and"):
        inference.predict_run(data, output, "soup")
