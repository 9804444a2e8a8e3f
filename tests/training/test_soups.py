"""A soup takes a member only if the held-out score rises, and is then a run like any other."""

import shutil
import types

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


def train(data, output, run, **changes):
    """A finished run."""
    runs.write_scores(toys.train(data, output, run=run, **changes))


@pytest.fixture(scope="module")
def trained(prepared):
    """Three finished runs from the same first weights, and a soup of two of them."""
    for run, changes in MEMBERS.items():
        train(*prepared, run, **changes)
    averaging.make_soup(*prepared, "soup", ["short", "slow"])
    return prepared


def test_a_soup_made_anew_of_others_is_never_worse_than_its_best_member_on_held_out_people(copied):
    data, output = copied
    saved = averaging.make_soup(data, output, "soup", list(MEMBERS))
    told = {run: files.read_json(output / "runs" / run / "scores.json")["folds"] for run in (*MEMBERS, "soup")}
    for place, one in enumerate(saved["folds"].values()):
        alone = sorted((told[run][place]["macro_f1"] for run in MEMBERS), reverse=True)
        assert [member["macro_f1"] for member in one["members"]] == pytest.approx(alone)
        assert one["members"][0]["accepted"]
        assert told["soup"][place]["macro_f1"] >= alone[0] - 1e-12


def test_a_soup_is_a_run_for_whatever_comes_later(copied):
    data, output = copied
    assert "soup" in run_folder.trained_runs(output)
    assert len(inference.predict_run(data, output, "soup")["test"]) == 12
    run = run_folder.read_run(output / "runs" / "soup")
    source, splits, _ = averaging.open_evaluators(data, output, run.settings)
    assert runs.checkpoints(output, "soup", source.store, splits)[1].stem == "soup"
    oof = pd.read_csv(output / "runs" / "soup" / "fold1" / "oof.csv")
    assert set(oof["path"]) == set(splits[1]["path"][splits[1]["split"] == "val"])
    assert run.scores["training_seconds"] == pytest.approx(run.history["seconds"].sum())
    assert run_folder.chosen_runs(output, "", soups=False) == sorted(MEMBERS)


@pytest.mark.parametrize(
    ("members", "worth", "expected"),
    [
        ({"low": 3, "high": 6.5, "far": 20}, lambda number: -abs(number - 5), (4.75, ["high", "low"])),
        ({"one": 4, "twin": 4}, lambda number: number, (4, ["one"])),
    ],
    ids=["members that help are taken and others are not", "a member that changes nothing is not taken"],
)
def test_a_soup_is_the_mean_of_those_that_raise_its_score(tmp_path, monkeypatch, members, worth, expected):
    """Each checkpoint is a number, and a soup is worth what `worth` says of its own."""
    paths = {run: tmp_path / f"{run}.safetensors" for run in members}
    for run, number in members.items():
        state = {"weight": averaging.torch.tensor([float(number)])}
        checkpoint.write_checkpoint(paths[run], state, {"run": {}, "fold": 0, "data": "", "preprocessing": {}})
    evaluator = types.SimpleNamespace(
        refreshed=lambda state, manifest: state, out_of_fold=lambda state, manifest: worth(state["weight"].item())
    )
    monkeypatch.setattr(averaging, "macro_f1", lambda table: table)
    state, _, tried = averaging.greedy(paths, evaluator)
    assert (state["weight"].item(), [one["run"] for one in tried if one["accepted"]]) == expected


def test_where_none_helps_the_soup_is_its_best_member_bit_for_bit(copied, monkeypatch):
    data, output = copied

    def spoil(loaded, *rest):
        for parameter in loaded.network.parameters():
            parameter.data.zero_()  # one class whatever it sees

    monkeypatch.setattr(averaging, "refresh_batch_norm", spoil)
    saved = averaging.make_soup(data, output, "soup", ["short", "slow"])
    soup = toys.results(output, "soup")
    for fold, one in saved["folds"].items():
        best, other = one["members"]
        assert best["accepted"] and not other["accepted"] and "without" in other["why"]
        alone, names = toys.results(output, best["run"]), [name for name in soup if f"fold{fold}/soup/" in name]
        assert names and all(soup[name] == alone[name.replace("/soup/", "/best/")] for name in names)


def test_runs_that_started_from_other_weights_are_refused_with_both_files_named(copied, tmp_path):
    """Pretrained weights are the same for all, but the last layer put on them is drawn by the seed."""
    data, output = copied
    pretrained = tmp_path / "pretrained.safetensors"
    checkpoint.write_checkpoint(pretrained, weights.initial_state("test_resnet", "none", seed=3), {})
    for first, other, changes, words in (
        ("short", "seeded", {"seed": 1}, "seed: 0 → 1"),
        ("short", "built", {"architecture": "test_efficientnet"}, "architecture: test_resnet → test_efficientnet"),
        ("short", "taught", {"weights": str(pretrained)}, "weights: none → "),
        ("taught", "headed", {"weights": str(pretrained), "seed": 1}, "seed: 0 → 1"),
    ):
        train(data, output, other, epochs=1, folds=(0,), **changes)
        both = rf"{first}/fold0\S+ and \S+{other}/fold0\S+ cannot be averaged: {words}"
        with pytest.raises(ValueError, match=both):
            averaging.make_soup(data, output, "another", [first, other])
    assert not (output / "runs" / "another").exists()


def test_runs_without_a_fold_in_common_are_refused(copied):
    data, output = copied
    train(data, output, "first", folds=(0,), epochs=1)
    train(data, output, "second", folds=(1,), epochs=1)
    with pytest.raises(ValueError, match="first, second were trained on different folds"):
        averaging.make_soup(data, output, "another", ["first", "second"])
    assert list(averaging.make_soup(data, output, "another", ["short", "second"])["folds"]) == ["1"]


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
def test_a_soup_needs_a_name_of_its_own_and_two_members(trained, soup, members, words):
    with pytest.raises(ValueError, match=words):
        averaging.make_soup(*trained, soup, members)


def test_a_killed_soup_is_not_finished_and_can_be_made_again(copied, monkeypatch):
    data, output = copied
    for soup in ("soup", "new"):
        with monkeypatch.context() as patch, pytest.raises(TypeError):
            patch.setattr(runs, "close_run", None)  # all folds are written by then
            averaging.make_soup(data, output, soup, ["short", "slow"])
        assert soup not in run_folder.trained_runs(output)
        averaging.make_soup(data, output, soup, ["short", "slow"])
        assert soup in run_folder.trained_runs(output)


def test_a_soup_of_which_a_member_was_trained_anew_is_refused_by_name(copied):
    data, output = copied
    inference.predict_run(data, output, "soup")
    train(data, output, "wide", when_changed="restart", seed=1, epochs=1)
    inference.predict_run(data, output, "soup")  # of which that run is no member
    train(data, output, "slow", when_changed="restart", epochs=3)
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
    for asked in (self_training.predictions, averaging.average_run):
        with pytest.raises(ValueError, match=r"soup is a soup of other runs .* members short, slow"):
            asked(data, output, "soup")
    before = (output / "runs" / "soup" / "scores.json").read_bytes()
    with pytest.raises(ValueError, match=r"run = 'soup': .*runs/soup holds a soup; give the run another name"):
        toys.train(data, output, run="soup", when_changed="restart")
    assert (output / "runs" / "soup" / "scores.json").read_bytes() == before


def test_a_soup_that_is_outdated_or_unfinished_says_what_to_run(copied):
    data, output = copied
    write_splits(make_splits(photos.read_labeled(output), 2, 0.2, seed=7), output)
    with pytest.raises(ValueError, match="train short, slow again, of which it is a soup, then make the soup again"):
        inference.predict_run(data, output, "soup")
    (output / "runs" / "soup" / "scores.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no finished run: run 05_average_weights with soup: soup and"):
        inference.predict_run(data, output, "soup")
