"""A search finds what keeps faces recognisable, survives kills and shares its work; the verdict on its policy."""

import json
import signal

import numpy as np
import pandas as pd
import pytest
import searching

from mask_lib.augment import search
from mask_lib.augment.policy import PRESET_POLICIES, Policy, Step, read_policy, write_policy
from mask_lib.base import files, scores
from mask_lib.models import devices, predict
from mask_lib.models.checkpoint import read_checkpoint
from mask_lib.training import policy_search, runs

MILD = Policy("merged", ((Step("flip", 0.5),),))
OTHER = Policy("best", ((Step("rotate", 0.5, 0.1),),))


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """A density search that nothing disturbed."""
    output = tmp_path_factory.mktemp("searched")
    return output, searching.run(data, output)


def trials_of(output, **changes) -> list:
    """All trials in the study, those that do not count too."""
    return search._study(searching.settings(**changes), output / search.FOLDER).get_trials()


def read_trials(output) -> pd.DataFrame:
    return pd.read_csv(output / search.FOLDER / "trials.csv")


def without_times(found: pd.DataFrame) -> pd.DataFrame:
    return found.drop(columns="seconds")


# What is found


def test_every_policy_is_scored_once_place_0_is_no_augmentation_and_the_best_are_merged(undisturbed):
    output, found = undisturbed
    assert list(found.columns) == search.TRIAL_COLUMNS
    assert list(found["trial"]) == [0, 1, 2, 3]
    assert set(found["state"]) == {"complete"}
    assert json.loads(found["policy"][0])["sub_policies"] == []
    assert found["policy"].nunique() == 4
    assert (found["value"] < 0).all()  # log-likelihoods
    pd.testing.assert_frame_equal(read_trials(output), found)
    first = found[found["trial"] > 0].sort_values("value", ascending=False)["policy"].head(2)
    one, other = (Policy.from_plain(json.loads(text)) for text in first)
    assert read_policy(search.best_path(output)).sub_policies == (*one.sub_policies, *other.sub_policies)


def test_the_best_compete_alone_too_and_those_that_do_the_same_once():
    steps = [("flip", 0.5, None), ("flip", 0.5, None), ("rotate", 0.5, 0.1), ("blur", 1.0, 0.5)]
    several = [Policy("none"), *(Policy(f"policy {at}", ((step,),)) for at, step in enumerate(steps))]
    rows = [("complete", -at, json.dumps(policy.plain())) for at, policy in enumerate(several)]
    found = pd.DataFrame(rows, columns=["state", "value", "policy"]).rename_axis("trial").reset_index()
    assert list(policy_search.candidates(found, 2)) == ["merged", "best"]
    several = policy_search.candidates(found, 3, alone=4)
    assert list(several) == ["merged", "best", "best 3", "best 4"]
    assert [sub[0].operation for sub in several["merged"].sub_policies] == ["flip", "flip", "rotate"]
    assert several["best 4"].sub_policies[0][0].operation == "blur"
    assert list(policy_search.candidates(found, 1)) == ["merged"]  # which is the best
    assert list(policy_search.candidates(found, 1, alone=0)) == ["merged"]


def test_more_policies_go_on_from_those_that_are_there_and_a_finished_search_does_nothing(
    data, undisturbed, tmp_path, monkeypatch
):
    searching.run(data, tmp_path, policy_count=1)
    found = searching.run(data, tmp_path)
    pd.testing.assert_frame_equal(without_times(found), without_times(undisturbed[1]))
    monkeypatch.setattr(runs, "train_run", None)  # a call would fail
    pd.testing.assert_frame_equal(searching.run(data, tmp_path), found)
    assert len(trials_of(tmp_path)) == 4


@pytest.mark.parametrize("kind", ["random", "halving"])
def test_real_trainings_are_valued_by_their_smoothed_macro_f1(data, tmp_path, kind):
    changes = {"search_kind": kind, "policy_count": 4, "halving_factor": 2}
    found = searching.run(data, tmp_path, **changes)
    assert len(found) == 5
    for trial, row in zip(trials_of(tmp_path, **changes), found.itertuples(), strict=True):
        assert row.epochs == len(trial.intermediate_values)
        if row.state == "complete":
            assert row.epochs == 2
            assert row.value == pytest.approx(trial.intermediate_values[2])  # the mean of both epochs
    assert kind == "halving" or set(found["state"]) == {"complete"}
    assert not list((tmp_path / search.FOLDER / "runs").glob("*"))  # no checkpoints pile up


def test_halving_stops_what_falls_behind_but_never_no_augmentation(data, tmp_path, monkeypatch):
    """No augmentation leads after an epoch and ends last of all; each later policy is a little worse."""

    def train_run(run, splits, photos, folder, on_epoch):
        place = int(files.project_path(run.augmentation).stem)
        first, last = (0.9, 0.1) if place == 0 else (0.5 - place / 100, 0.8 - place / 100)
        for value in np.linspace(first, last, run.epochs):
            on_epoch({"val_macro_f1": float(value)})

    monkeypatch.setattr(runs, "train_run", train_run)
    found = searching.run(data, tmp_path, search_kind="halving", policy_count=8, network={"epochs": 9})
    scored = found[found["state"] == "complete"]
    assert {0, 1} <= set(scored["trial"])
    assert set(scored["epochs"]) == {9}
    assert set(found.loc[found["state"] == "pruned", "epochs"]) == {1}
    assert len(scored) < 5
    assert found["value"][0] == pytest.approx(0.15)  # the mean of the last two epochs, 0.2 and 0.1


# Density


def scorers(data, output, **changes) -> tuple[list[policy_search.DensityScorer], policy_search.SearchData]:
    opened = searching.search_data(data, output)
    return policy_search.TrialScorer(searching.settings(**changes), opened).densities, opened


def test_what_leaves_nothing_recognisable_scores_below_what_is_mild(data, tmp_path):
    several, _ = scorers(data, tmp_path, search_folds=(0, 1), density_epochs=30)
    names = {"mild": ("flip", 0.5, None), "far": ("brightness", 1.0, 1.0), "inverted": ("invert", 1.0, None)}
    found = {
        name: np.mean([one.score(Policy(name, ((Step(*step),),)), 2)["log_likelihood"] for one in several])
        for name, step in names.items()
    }
    plain = np.mean([one.score(Policy("none"))["log_likelihood"] for one in several])
    assert plain > np.log(1 / 6)  # the networks know their photos
    assert abs(found["mild"] - plain) < 0.3
    assert found["mild"] > found["far"] + 0.3
    assert found["mild"] > found["inverted"] + 0.3


def test_every_fold_is_asked_about_people_that_its_network_has_not_seen(data, tmp_path):
    found, opened = scorers(data, tmp_path, search_folds=(0, 1), density_epochs=1)
    assert [one.fold for one in found] == [0, 1]
    assert not set(found[0].rows) & set(found[1].rows)
    split = opened.splits[0].set_index("path")
    paths = [path for path, row in opened.photos.row_of.items() if row in set(found[0].rows)]
    assert set(split.loc[paths, "split"]) == {"val"}
    assert not set(split.loc[paths, "person"]) & set(split.loc[split["split"] == "train", "person"])
    policy = PRESET_POLICIES["seed"]
    assert found[0].score(policy, 2) == found[0].score(policy, 2)  # a score is no matter of luck


@pytest.mark.parametrize(
    "changes",
    [{"head": "attention"}, {"head": "three", "dropout": 0.2}, {"checkpoint_choice": "ema", "ema_decay": 0.5}],
    ids=["attention", "three heads", "moving average"],
)
def test_policies_are_scored_by_the_weights_that_training_chose(data, tmp_path, changes):
    (scorer,), opened = scorers(data, tmp_path, network=changes)
    chosen, folder = changes.get("checkpoint_choice", "last"), opened.folder / "runs" / policy_search.PLAIN / "fold0"
    checkpoint = read_checkpoint(folder / "checkpoint" / f"{chosen}.safetensors")
    loaded = predict.load_network(*checkpoint, devices.pick_device())
    expected = loaded.predict(scorer.source, scorer.rows)
    of_truth = np.log(expected[np.arange(len(scorer.labels)), scorer.labels])
    found = scorer.score(PRESET_POLICIES["none"])
    assert found["log_likelihood"] == pytest.approx(of_truth.mean(), abs=1e-4)
    assert found["macro_f1"] == scores.summarise(scorer.labels, expected.argmax(axis=1))["macro_f1"]


# Kills, and several workers


# While a policy is suggested, before one is scored, within a training, and between value and telling.
@pytest.mark.parametrize(
    ("kind", "of", "kill_at"),
    [
        ("density", "optuna:Trial.suggest_int", 5),
        ("density", "mask_lib.training.policy_search:TrialScorer.by_density", 2),
        ("density", "optuna.study._optimize:_tell_with_warning", 3),
        ("random", "mask_lib.training.loop:FoldTraining.train_epoch", 4),
    ],
)
def test_a_killed_search_goes_on_as_if_nothing_had_been(data, undisturbed, tmp_path, kind, of, kill_at):
    killed, changes = tmp_path / "killed", {"search_kind": kind}
    expected = undisturbed[1] if kind == "density" else searching.run(data, tmp_path / "whole", **changes)
    assert searching.exit_code(searching.started(data, killed, kill_at, of, **changes)) == -signal.SIGKILL
    assert "RUNNING" in [trial.state.name for trial in trials_of(killed, **changes)]
    found = searching.run(data, killed, **changes)
    pd.testing.assert_frame_equal(without_times(found), without_times(expected))
    assert sorted(trial.state.name for trial in trials_of(killed, **changes)) == [*["COMPLETE"] * 4, "FAIL"]
    assert read_policy(search.best_path(killed)) == policy_search.candidates(expected, 2)["merged"]


@pytest.mark.parametrize("kind", ["density", "halving"])
def test_two_workers_share_a_study_and_no_trial_counts_twice(data, tmp_path, kind):
    together, changes = searching.context().Barrier(2), {"search_kind": kind, "policy_count": 5, "halving_factor": 2}
    workers = [searching.started(data, tmp_path, together=together, **changes) for _ in range(2)]
    assert [searching.exit_code(worker) for worker in workers] == [0, 0]
    found = read_trials(tmp_path)
    assert list(found["trial"]) == list(range(6))
    assert found["state"][0] == "complete"
    counted = [trial for trial in trials_of(tmp_path, **changes) if trial.state.name in ("COMPLETE", "PRUNED")]
    assert sorted(trial.user_attrs[search.PLACE] for trial in counted) == list(range(6))
    if kind == "density":
        alone = searching.run(data, tmp_path / "alone", **changes)
        pd.testing.assert_frame_equal(without_times(found), without_times(alone))


def test_a_survivor_takes_over_what_a_dead_worker_had_begun(data, tmp_path):
    together, call = searching.context().Barrier(2), "mask_lib.training.policy_search:TrialScorer.by_density"
    dying = searching.started(data, tmp_path, 1, call, together, policy_count=5)
    living = searching.started(data, tmp_path, together=together, policy_count=5)
    assert searching.exit_code(dying) == -signal.SIGKILL
    assert searching.exit_code(living) == 0
    assert list(read_trials(tmp_path)["trial"]) == list(range(6))


# The verdict


def predictions(right: float, people: int = 60, seeds: int = 3) -> pd.DataFrame:
    """Two photos a person, of which the networks of every seed know about a share."""
    generator, tables = np.random.default_rng(0), []
    for seed in range(seeds):
        label = np.repeat(np.arange(people) % 18, 2)
        known = generator.random(2 * people) < right
        person = np.repeat([f"{one:03d}" for one in range(people)], 2)
        columns = {"seed": seed, "fold": 0, "path": [f"{one}.png" for one in range(2 * people)], "person": person}
        tables.append(pd.DataFrame(columns | {"label": label, "predicted": np.where(known, label, (label + 1) % 18)}))
    return pd.concat(tables, ignore_index=True)


def judged(**shares: float) -> dict:
    """The verdict on contenders that know so much of the photos, as they do with TrivialAugment and with none."""
    contenders = {name: policy for name, policy in (("merged", MILD), ("best", OTHER)) if name in shares}
    return policy_search.judged({name: predictions(share) for name, share in shares.items()}, contenders)


def write(output, found: dict, policy: Policy = MILD) -> None:
    write_policy(policy, search.best_path(output))
    files.write_json(found, search.verdict_path(output))


@pytest.mark.parametrize(
    ("share", "words", "wins"),
    [(0.9, "It beats TrivialAugment", True), (0.62, "may be chance", False), (0.3, "worse than TrivialAugment", False)],
)
def test_a_policy_is_chosen_only_where_it_is_clearly_better(tmp_path, share, words, wins):
    found = judged(trivialaugment=0.6, none=0.1, merged=share, best=0.2)
    assert found["beats_trivialaugment"] is wins
    assert found["candidate"] == "merged" and words in found["sentence"]
    write(tmp_path, found)
    assert search.chosen_augmentation(tmp_path) == (str(search.best_path(tmp_path)) if wins else "trivialaugment")


def test_it_is_told_where_no_augmentation_at_all_does_best():
    assert "none, which scores highest" in judged(trivialaugment=0.5, none=0.9, merged=0.6, best=0.4)["sentence"]
    assert "highest" not in judged(trivialaugment=0.5, none=0.4, merged=0.6, best=0.4)["sentence"]


def test_the_better_of_two_has_to_be_surer():
    shares = {"trivialaugment": 0.5, "none": 0.4, "merged": 0.6}
    one = judged(**shares)["differences"]["merged - trivialaugment"]
    two = judged(**shares, best=0.3)["differences"]["merged - trivialaugment"]
    assert two["difference"] == one["difference"]
    assert two["low"] < one["low"] < one["high"] < two["high"]


def test_the_answer_is_that_of_the_verdict_on_the_policy_that_lies_there(tmp_path):
    def answer(*folds):
        return policy_search.answer_summary(tmp_path, pd.DataFrame({"seconds": [1000.0, 500.0]}), folds)

    none = "There is no verdict on this policy: train with TrivialAugment. The search took 1,500 seconds."
    assert answer(0) == none
    found = judged(trivialaugment=0.5, none=0.4, merged=0.9, best=0.6) | {"folds": [1], "seconds": 500.0}
    write(tmp_path, found)
    assert answer(0) == f"{found['sentence']} Search and verdict took 2,000 seconds."
    assert "fold 1 served the search" in answer(0, 1)
    write(tmp_path, found, policy=OTHER)
    assert answer(0) == none


@pytest.fixture(scope="module")
def reached(data, undisturbed):
    """A search of the toy set and its verdict."""
    output, found = undisturbed
    network, contenders = searching.settings().network(), policy_search.candidates(found, 2)
    arguments = network, contenders, searching.search_data(data, output), [1], 2
    return output, arguments, policy_search.reach_verdict(*arguments)


def test_the_verdict_lies_beside_the_policy_it_is_about_and_trains_nothing_twice(reached, monkeypatch):
    output, arguments, found = reached
    assert json.loads(search.verdict_path(output).read_text()) == found
    best = read_policy(search.best_path(output))
    assert search.policy_digest(best) == found["policy"] == search.policy_digest(arguments[1][found["candidate"]])
    assert (found["seeds"], found["folds"]) == (2, [1])
    assert set(found["macro_f1"]) == {"none", "trivialaugment", "merged", "best"}
    assert all(len(by_seed) == 2 for by_seed in found["macro_f1"].values())
    assert found["seconds"] > 0
    assert not list((output / search.FOLDER / "runs").glob("seed*"))  # no checkpoints pile up
    monkeypatch.setattr(runs, "train_run", None)  # a call would fail
    assert policy_search.reach_verdict(*arguments) == found


def test_each_seed_trains_anew_and_is_scored_on_people_held_out(reached):
    _, (network, contenders, opened, *_), _ = reached
    several = [network.replace(folds=(1,), seed=seed) for seed in (0, 1)]
    first, second = (policy_search.predicted(one, contenders["merged"], opened) for one in several)
    split = opened.splits[1]
    assert set(first["path"]) == set(split.loc[split["split"] == "val", "path"])
    assert list(first["person"]) == list(second["person"])
    assert list(first.columns) == policy_search.COLUMNS
    names = {policy_search.training_name(one, policy, opened) for one in several for policy in (MILD, OTHER)}
    assert len(names) == 4


def test_searching_again_leaves_the_chosen_candidate_in_place(data, reached):
    output, (_, contenders, *_), found = reached
    for name, policy in contenders.items():
        write_policy(policy, search.best_path(output))
        chosen = {"candidate": name, "policy": search.policy_digest(policy)}
        files.write_json(found | chosen, search.verdict_path(output))
        searching.run(data, output)
        assert read_policy(search.best_path(output)) == policy
    searching.run(data, output, policy_count=5, merged_count=4)  # others: the verdict was not on these
    assert read_policy(search.best_path(output)) not in contenders.values()


@pytest.mark.parametrize(
    ("on", "seeds", "message"), [([], 3, "a verdict needs both"), ([7], 1, "made only"), ([0], 0, "both")]
)
def test_a_verdict_on_nothing_is_refused(reached, on, seeds, message):
    _, (network, contenders, opened, *_), _ = reached
    with pytest.raises(ValueError, match=message):
        policy_search.reach_verdict(network, contenders, opened, on, seeds)
