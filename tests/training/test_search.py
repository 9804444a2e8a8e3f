"""A search finds what keeps faces recognisable, survives kills, shares its work, and is never counted twice."""

import json
import signal

import numpy as np
import pandas as pd
import pytest
import searching
import toys

from mask_lib.augment import search
from mask_lib.augment.policy import PRESET_POLICIES, Policy, Step, read_policy
from mask_lib.augment.search import Search
from mask_lib.training import policy_search, runs


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    toys.prepare(folder, folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """A density search that nothing disturbed."""
    output = tmp_path_factory.mktemp("searched")
    return output, searching.run(data, output)


def states(output) -> list[str]:
    """The states of all trials in the journal, those that do not count too."""
    study = search.read_study(output / search.FOLDER / "journal.log")
    return [trial.state.name for trial in study.get_trials()]


def without_times(found: pd.DataFrame) -> pd.DataFrame:
    return found.drop(columns="seconds")


# What is found


def test_every_policy_is_scored_once_and_place_0_is_no_augmentation(undisturbed):
    output, found = undisturbed
    assert list(found.columns) == search.TRIAL_COLUMNS
    assert list(found["trial"]) == [0, 1, 2, 3]
    assert set(found["state"]) == {"complete"}
    assert json.loads(found["policy"][0])["sub_policies"] == []
    assert found["policy"].nunique() == 4
    assert (found["value"] < 0).all()  # log-likelihoods
    pd.testing.assert_frame_equal(search.read_trials(output / search.FOLDER), found)


def test_the_best_policies_are_merged_into_one_file(undisturbed):
    output, found = undisturbed
    best = read_policy(search.best_path(output))
    first = found[found["trial"] > 0].sort_values("value", ascending=False)["policy"].head(2)
    expected = [Policy.from_plain(json.loads(text)) for text in first]
    assert best.sub_policies == (*expected[0].sub_policies, *expected[1].sub_policies)


def trials_of(*steps: tuple) -> pd.DataFrame:
    """Trials of policies of a step each, the best first, after one of none."""
    several = [Policy("none"), *(Policy(f"policy {at}", ((step,),)) for at, step in enumerate(steps))]
    rows = [("complete", -at, json.dumps(policy.plain())) for at, policy in enumerate(several)]
    return pd.DataFrame(rows, columns=["state", "value", "policy"]).rename_axis("trial").reset_index()


def test_the_best_compete_alone_too_and_those_that_do_the_same_once():
    flip, turn, blur = ("flip", 0.5, None), ("rotate", 0.5, 0.1), ("blur", 1.0, 0.5)
    found = trials_of(flip, flip, turn, blur)
    assert list(search.candidates(found, 2)) == ["merged", "best"]
    several = search.candidates(found, 3, alone=4)
    assert list(several) == ["merged", "best", "best 3", "best 4"]
    assert [sub[0].operation for sub in several["merged"].sub_policies] == ["flip", "flip", "rotate"]
    assert several["best 4"].sub_policies[0][0].operation == "blur"
    assert list(search.candidates(found, 1)) == ["merged"]  # which is the best
    assert list(search.candidates(found, 1, alone=0)) == ["merged"]


def test_a_finished_search_asked_again_does_nothing(data, undisturbed, monkeypatch):
    output, found = undisturbed
    before = (output / search.FOLDER / "journal.log").read_bytes()
    for nothing in ("train_run", "read_result"):
        monkeypatch.setattr(runs, nothing, None)  # a call would fail
    pd.testing.assert_frame_equal(searching.run(data, output), found)
    assert (output / search.FOLDER / "journal.log").read_bytes() == before


def test_more_policies_go_on_from_those_that_are_there(data, undisturbed, tmp_path):
    _, found = undisturbed
    searching.run(data, tmp_path, policy_count=1)
    more = searching.run(data, tmp_path)
    pd.testing.assert_frame_equal(without_times(more), without_times(found))


@pytest.mark.parametrize("kind", ["random", "halving"])
def test_real_trainings_are_rewarded_with_their_smoothed_macro_f1(data, tmp_path, kind):
    found = searching.run(data, tmp_path, search_kind=kind, policy_count=4, halving_factor=2)
    assert len(found) == 5
    study = search.read_study(tmp_path / search.FOLDER / "journal.log")
    for trial, row in zip(study.get_trials(), found.itertuples(), strict=True):
        assert row.epochs == len(trial.intermediate_values)
        if row.state == "complete":
            assert row.epochs == 2
            assert row.value == pytest.approx(trial.intermediate_values[2])  # the mean of both epochs
    assert (found["state"] == "pruned").any() == (kind == "halving")
    assert not list((tmp_path / search.FOLDER / "runs").glob("*"))  # no checkpoints pile up


def test_the_searches_that_train_draw_from_the_whole_space_and_density_leaves_out_what_never_strikes():
    assert 0 in searching.settings(search_kind="random").space().probabilities
    assert 0 not in searching.settings().space().probabilities


def test_a_reward_is_the_mean_of_the_last_epochs():
    assert policy_search.smoothed([0.0, 0.2, 0.4], 2) == pytest.approx(0.3)
    assert policy_search.smoothed([0.2], 5) == pytest.approx(0.2)


def test_what_leaves_nothing_recognisable_scores_below_what_is_mild(data, tmp_path):
    settings = searching.settings(search_folds=(0, 1), density_epochs=12)
    material = searching.material(data, tmp_path)
    material.folder.mkdir()
    judges = policy_search.search_judges(settings, material)
    names = {"mild": ("flip", 0.5, None), "far": ("brightness", 1.0, 1.0), "inverted": ("invert", 1.0, None)}
    found = {
        name: np.mean([judge.score(Policy(name, ((Step(*step),),)), 2)["log_likelihood"] for judge in judges])
        for name, step in names.items()
    }
    plain = np.mean([judge.score(Policy("none"))["log_likelihood"] for judge in judges])
    assert plain > np.log(1 / 6)  # the judges know their photos
    assert abs(found["mild"] - plain) < 0.3
    assert found["mild"] > found["far"] + 0.3
    assert found["mild"] > found["inverted"] + 0.3


def test_judges_are_asked_about_people_they_have_not_seen(data, tmp_path):
    material = searching.material(data, tmp_path)
    material.folder.mkdir()
    (judge,) = policy_search.search_judges(searching.settings(), material)
    split = material.splits[0].set_index("path")
    paths = [path for path, row in material.photos.row_of.items() if row in set(judge.rows)]
    assert set(split.loc[paths, "split"]) == {"val"}
    assert not set(split.loc[paths, "person"]) & set(split.loc[split["split"] == "train", "person"])
    policy = PRESET_POLICIES["seed"]
    assert judge.score(policy, 2) == judge.score(policy, 2)  # a score is no matter of luck


# Kills, and several workers


# Before a policy is asked for in full, within a training, between score and telling, and within what is told.
@pytest.mark.parametrize(
    ("kind", "of", "kill_at"),
    [
        ("density", "optuna:Trial.suggest_int", 5),
        ("density", "mask_lib.training.policy_search:Scorer.by_density", 2),
        ("density", "optuna:Study.tell", 3),
        ("halving", "mask_lib.training:FoldTraining.train_epoch", 4),
    ],
)
def test_a_killed_search_goes_on_as_if_nothing_had_been(data, tmp_path, kind, of, kill_at):
    changes = {"search_kind": kind, "halving_factor": 2}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    expected = searching.run(data, whole, **changes)
    assert searching.exit_code(searching.started(data, killed, kill_at, of, **changes)) == -signal.SIGKILL
    assert len(states(killed)) < 4 or "RUNNING" in states(killed)
    found = searching.run(data, killed, **changes)
    pd.testing.assert_frame_equal(without_times(found), without_times(expected))
    assert sum(state in ("COMPLETE", "PRUNED") for state in states(killed)) == 4
    assert "RUNNING" not in states(killed)


def test_a_line_that_a_kill_cut_short_is_forgotten_and_the_rest_stays(data, undisturbed, tmp_path):
    _, expected = undisturbed
    searching.run(data, tmp_path, policy_count=1)
    path = tmp_path / search.FOLDER / "journal.log"
    with path.open("ab") as handle:
        handle.write(b'{"op_code":4,"worker_id":"somebody","stu')
    found = searching.run(data, tmp_path)
    pd.testing.assert_frame_equal(without_times(found), without_times(expected))


def test_two_workers_share_a_study_and_no_trial_counts_twice(data, tmp_path):
    together = searching.context().Barrier(2)
    workers = [searching.started(data, tmp_path, together=together, policy_count=7) for _ in range(2)]
    assert [searching.exit_code(worker) for worker in workers] == [0, 0]
    found = search.read_trials(tmp_path / search.FOLDER)
    assert list(found["trial"]) == list(range(8))
    assert states(tmp_path) == ["COMPLETE"] * 8
    study = search.read_study(tmp_path / search.FOLDER / "journal.log")
    assert len({trial.user_attrs[search.WORKER] for trial in study.get_trials()}) == 2


def test_two_workers_that_halve_leave_as_many_policies_as_are_merged(data, tmp_path):
    together, changes = searching.context().Barrier(2), {"search_kind": "halving", "halving_factor": 2}
    workers = [searching.started(data, tmp_path, together=together, policy_count=5, **changes) for _ in range(2)]
    assert [searching.exit_code(worker) for worker in workers] == [0, 0]
    found = search.read_trials(tmp_path / search.FOLDER)
    assert list(found["trial"]) == list(range(6))
    assert found["state"][0] == "complete"
    assert (found["state"][1:] == "complete").sum() >= searching.SMALL["merged_count"]


def test_a_survivor_takes_over_what_a_dead_worker_had_begun(data, tmp_path):
    together, call = searching.context().Barrier(2), "mask_lib.training.policy_search:Scorer.by_density"
    dying = searching.started(data, tmp_path, 1, call, together, policy_count=5)
    living = searching.started(data, tmp_path, together=together, policy_count=5)
    assert searching.exit_code(dying) == -signal.SIGKILL
    assert searching.exit_code(living) == 0
    assert list(search.read_trials(tmp_path / search.FOLDER)["trial"]) == list(range(6))
    assert states(tmp_path).count("COMPLETE") == 6


# What is refused


def test_another_search_in_the_same_place_is_refused_or_put_aside(data, undisturbed, tmp_path):
    searching.run(data, tmp_path, policy_count=1)
    with pytest.raises(search.ChangedSearchError, match=r"search_kind: density → random.*when_changed: restart"):
        searching.run(data, tmp_path, policy_count=1, search_kind="random")
    material = searching.material(data, tmp_path)
    changed = searching.settings(policy_count=1, search_kind="random")
    assert len(policy_search.run_search(changed, material, when_changed="restart")) == 2
    assert (tmp_path / "replaced.search" / "trials.csv").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04cos\nsystem\n(S'true'\ntR.\n",
        b"[]\n",
        b'{"op_code": 99, "worker_id": "a"}\n{}\n',
        b'{"op_code":0,"worker_id":"a","study_name":"other","directions":[2]}\n',
        b'{"op_code":0,"worker_id":"a","study_name":"search","directions":[2]}\n'
        b'{"op_code":4,"worker_id":"a","study_id":0,"state":1,"value":1.0,"values":null,"distributions":{},'
        b'"params":{},"user_attrs":{},"system_attrs":{},"intermediate_values":{},"datetime_start":null,'
        b'"datetime_complete":"2024-01-01T00:00:00"}\n',
    ],
    ids=["pickle", "a list", "unknown operation", "another study", "a trial of no search"],
)
def test_a_journal_that_is_none_is_a_clear_error(data, tmp_path, content):
    path = tmp_path / search.FOLDER / "journal.log"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"journal\.log is not the journal of a search.*move it away"):
        searching.run(data, tmp_path)
    assert path.read_bytes() == content


def test_a_policy_in_the_journal_that_is_none_is_a_clear_error(data, undisturbed, tmp_path):
    path = tmp_path / search.FOLDER / "journal.log"
    path.parent.mkdir()
    text = (undisturbed[0] / search.FOLDER / "journal.log").read_text()
    assert '"sub_policies":[]' in text
    path.write_text(text.replace('"sub_policies":[]', '"sub_policies":"__import__(\'os\')"'))
    with pytest.raises(ValueError, match=r"trial 0 of the search's journal holds no policy: sub_policies is text"):
        searching.run(data, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search_kind": "grid"}, "search_kind = 'grid': it must be one of density, halving, random"),
        ({"policy_count": 0}, "policy_count = 0: it must be at least 1"),
        ({"halving_factor": 1}, "halving_factor = 1: it must be at least 2"),
        ({"search_folds": ()}, "name the folds to search on"),
        ({"policy_operations": ("rotat",)}, "policy_operations, .*did you mean rotate"),
        ({"network": {"epoch": 3}}, "unknown settings: epoch"),
        ({"network": {"augmentation": "flip"}}, "the search sets augmentation itself"),
        ({"merged_count": 1.5}, "merged_count = 1.5"),
    ],
)
def test_a_wrong_setting_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        searching.settings(**changes)


def test_settings_come_from_a_notebooks_names():
    names = {**vars(searching.settings()), "unrelated": 1, "search_folds": [0, 1]}
    assert Search.from_parameters(names).search_folds == (0, 1)


def test_a_fold_that_was_not_prepared_is_named(data, tmp_path):
    with pytest.raises(ValueError, match=r"folds = \[9\]: 00_prepare_data made only \[0, 1\]"):
        searching.run(data, tmp_path, search_folds=(9,))
