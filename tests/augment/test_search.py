"""A search's settings and study, its trials as tables, and what a run that is to use its policy takes."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from mask_lib.augment import search
from mask_lib.augment.policy import Policy, Step, named_policy, write_policy
from mask_lib.augment.search import Search
from mask_lib.base import config, files
from mask_lib.headless import cells

NOTEBOOK = files.PROJECT / "notebooks" / "03_one_model.ipynb"
BEST = Policy("merged", ((Step("flip", 0.5),),))
OTHER = Policy("other", ((Step("rotate", 0.5, 0.1),),))

# Settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search_kind": "grid"}, "search_kind = 'grid': it must be one of density, halving, random"),
        ({"policy_count": 0}, "policy_count = 0: it must be at least 1"),
        ({"halving_factor": 1}, "halving_factor = 1: it must be at least 2"),
        ({"search_folds": ()}, "the folds to search on"),
        ({"policy_operations": ("rotat",)}, "policy_operations = 'rotat' is unknown; did you mean rotate"),
        ({"search_network": {"epoch": 3}}, "'epoch'.*did you mean epochs"),
        ({"search_network": {"augmentation": "flip"}}, "the search sets augmentation itself"),
        ({"search_network": {"checkpoint_choice": "swa", "keep_epochs": 1}}, "write best, last or ema"),
        ({"merged_count": 1.5}, "merged_count = 1.5"),
    ],
)
def test_a_wrong_setting_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        Search(**changes)


def test_the_searches_that_train_draw_from_the_whole_space_and_density_leaves_out_what_is_never_taken():
    assert 0 in Search(search_kind="random").space().probabilities
    assert 0 not in Search().space().probabilities


# The study


def study_of(folder, **changes) -> optuna.Study:
    return search.open_study(Search(**({"policy_count": 3} | changes)), folder, data="these photos")


def finish(study: optuna.Study, settings: Search, value: float = 0.5) -> Policy:
    """Work on the next trial of the queue."""
    found = []

    def objective(trial):
        found.append(search.start_trial(settings, trial))
        return value

    study.optimize(objective, n_trials=1)
    return found[0]


@pytest.mark.parametrize("kind", ["density", "random"])
def test_policies_follow_from_the_seed_and_the_place_alone(tmp_path, kind):
    settings = Search(search_kind=kind, policy_count=4, search_seed=7)
    found = {}
    for name, values in (("one", [0.1, 0.2, 0.3, 0.4, 0.5]), ("other", [0.5, 0.1, 0.4, 0.3, 0.2])):
        study = search.open_study(settings, tmp_path / name, "")
        found[name] = [finish(study, settings, value) for value in values]
        assert not search.wait_for_trial(study)
    assert found["one"] == found["other"]
    assert found["one"][0] == Policy("none")
    assert len({search.policy_digest(policy) for policy in found["one"]}) == 5


def test_more_policies_join_the_queue_and_none_twice(tmp_path):
    study = study_of(tmp_path / "search")
    finish(study, Search())
    for count in (3, 5, 5):
        study = study_of(tmp_path / "search", policy_count=count)
    assert [trial.user_attrs[search.PLACE] for trial in study.get_trials()] == [0, 1, 2, 3, 4, 5]
    assert search.wait_for_trial(study)


def test_fewer_policies_leave_the_rest_of_the_queue(tmp_path):
    study_of(tmp_path / "search", policy_count=4)
    settings = Search(policy_count=1)
    study = search.open_study(settings, tmp_path / "search", "these photos")
    while search.wait_for_trial(study):
        study.optimize(lambda trial: search.start_trial(settings, trial) and 0.5, 1, catch=search.NotWantedError)
    assert list(search.trials_table(study)["trial"]) == [0, 1]
    assert search.wait_for_trial(study_of(tmp_path / "search", policy_count=2))


def test_a_trial_that_failed_or_whose_worker_died_goes_back_to_the_queue(tmp_path, monkeypatch):
    for name, seconds in (("HEARTBEAT_SECONDS", 1), ("GRACE_SECONDS", 1), ("POLL_SECONDS", 0.1)):
        monkeypatch.setattr(search, name, seconds)
    with pytest.raises(ZeroDivisionError):
        study_of(tmp_path / "search", policy_count=1).optimize(lambda trial: 1 / 0, n_trials=1)
    study = study_of(tmp_path / "search", policy_count=1)
    places = []
    for trial in (study.ask(), study.ask()):
        places.append(trial.user_attrs[search.PLACE])
        if places[-1]:  # one dies while it is scored, the other without a policy; Optuna's thread saw neither
            search.start_trial(Search(), trial)
    assert search.wait_for_trial(study)
    while len(study.get_trials(states=(TrialState.WAITING,))) < 2:
        search.wait_for_trial(study)
        study.get_trials(states=(TrialState.RUNNING,)) and search.time.sleep(0.2)
    waiting = study.get_trials(states=(TrialState.WAITING,))
    assert sorted(trial.user_attrs[search.PLACE] for trial in waiting) == sorted(places) == [0, 1]


def test_no_trial_is_taken_by_two_workers(tmp_path):
    study_of(tmp_path, policy_count=80)
    studies, together = [study_of(tmp_path, policy_count=80) for _ in range(2)], threading.Barrier(2)

    def take(study: optuna.Study) -> list[int]:
        together.wait()
        return [study.ask().number for _ in range(40)]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(take, studies)
    assert not set(first) & set(second)


def test_another_search_in_the_same_folder_is_refused_or_put_aside(tmp_path):
    folder = tmp_path / "search"
    study_of(folder)
    with pytest.raises(config.ChangedSettingsError, match=r"search_kind: density → random.*when_changed: restart"):
        study_of(folder, search_kind="random")
    study = search.open_study(Search(search_kind="random", policy_count=1), folder, "these photos", "restart")
    assert len(study.get_trials()) == 2
    assert (tmp_path / "replaced.search" / search.STUDY).exists()
    with pytest.raises(config.ChangedSettingsError, match="the photos, their labels or the split"):
        search.open_study(Search(search_kind="random"), folder, "other photos")


def test_a_database_elsewhere_holds_the_study_of_each_folder(tmp_path):
    server = f"sqlite:///{tmp_path / 'server.db'}"
    for name, count in (("one", 1), ("two", 4)):
        study = study_of(tmp_path / name, search_storage=server, policy_count=count)
        assert len(study.get_trials()) == count + 1
        assert not (tmp_path / name / search.STUDY).exists()
    changed = Search(search_kind="random", search_storage=server, policy_count=2)
    assert len(search.open_study(changed, tmp_path / "one", "these photos", "restart").get_trials()) == 3


@pytest.mark.parametrize("content", [b"\x80\x04cos\nsystem\n(S'true'\ntR.\n" * 100, b"[]\n"], ids=["pickle", "a list"])
def test_a_file_that_is_no_study_is_a_clear_error(tmp_path, content):
    path = tmp_path / "search" / search.STUDY
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"study\.db is not the study of a search.*move it away"):
        study_of(path.parent)
    assert path.read_bytes() == content


# Trials as tables


def table(*rows: tuple[str, float, list]) -> pd.DataFrame:
    """Trials of (state, value, steps); the first is no augmentation."""
    found = pd.DataFrame(rows, columns=["state", "value", "steps"]).rename_axis("trial").reset_index()
    policies = [Policy(f"policy {number}", (steps,) if steps else ()) for number, steps in enumerate(found["steps"])]
    return found.assign(policy=[json.dumps(policy.plain()) for policy in policies])


FOUND = table(
    ("complete", 0.9, []),
    ("complete", 0.5, [("rotate", 0.5, 1.0), ("blur", 0.5, 0.2)]),
    ("complete", 0.7, [("rotate", 0.5, 0.5), ("blur", 0.5, 0.4), ("invert", 1.0, None)]),
    ("complete", 0.8, [("rotate", 0.5, 0.1), ("blur", 0.5, 0.6)]),
    ("pruned", np.nan, [("rotate", 1.0, 1.0)]),
)
EQUAL = table(("complete", 0, []), ("complete", 0.5, [("flip", 1, None)]), ("complete", 0.5, [("flip", 0.5, None)]))


def test_the_best_come_first_and_of_equals_the_earlier_without_the_pruned_and_without_no_augmentation():
    assert [policy.name for policy in search.best_policies(FOUND, 2)] == ["policy 3", "policy 2"]
    assert len(search.best_policies(FOUND, 99)) == 3
    assert [policy.name for policy in search.best_policies(EQUAL, 1)] == ["policy 1"]
    with pytest.raises(ValueError, match="no policy was scored to the end"):
        search.best_policies(FOUND[FOUND["trial"] == 0], 5)


def test_operations_are_ranked_by_what_the_score_goes_with_by_how_much_of_each_photos_take():
    policy = Policy("a", ((("rotate", 0.5, 0.4), ("invert", 0.25, None)), (("rotate", 1.0, (0.0, 0.4)),)))
    assert search.operation_use(policy) == pytest.approx({"rotate": 0.2, "invert": 0.125})
    found = search.operation_importance(FOUND).set_index("operation")
    assert list(found.index) == ["blur", "invert", "rotate"]
    assert dict(found["correlation"]) == pytest.approx({"blur": 1, "rotate": -1, "invert": 0})
    assert dict(found["policies"]) == {"blur": 3, "invert": 1, "rotate": 3}
    always = EQUAL.assign(value=[0, 0.5, 0.7], policy=EQUAL["policy"][[0, 1, 1]].to_numpy())
    assert list(search.operation_importance(always)["correlation"]) == [0]


# What a run takes


def write(output, won: bool, on: Policy = BEST) -> None:
    """A search's policy, and the verdict on it or on another one."""
    found = {"policy": search.policy_digest(on), "beats_trivialaugment": won, "candidates": {}, "sentence": "So."}
    write_policy(BEST, search.best_path(output))
    files.write_json(found, search.verdict_path(output))


def run(output, augmentation: str = "searched") -> config.Run:
    """A run as its notebook builds it."""
    declared = cells.declared_parameters(NOTEBOOK) | {"augmentation": search.resolved(augmentation, output)}
    return config.Run.from_parameters(declared)


def test_a_winner_is_what_the_run_is_trained_with_and_what_it_is_known_by(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PROJECT", tmp_path)  # which paths count from, as a notebook's do
    write(tmp_path / "outputs" / "one", won=True)
    path = "outputs/one/search/best_policy.json"
    assert run("outputs/one").augmentation == run("outputs/one").settings()["augmentation"] == path
    assert named_policy(path) == BEST


def test_a_loser_no_verdict_and_one_on_another_policy_leave_the_run_to_trivialaugment(tmp_path):
    for won, on in ((False, BEST), (True, OTHER)):
        write(tmp_path, won, on)
        assert run(tmp_path).augmentation == "trivialaugment"
    search.verdict_path(tmp_path).unlink()
    assert run(tmp_path).augmentation == "trivialaugment"
    path = str(search.best_path(tmp_path))
    assert run(tmp_path, path).augmentation == path  # it may still be named by its file


def test_without_a_search_it_is_said_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"best_policy\.json: run 02_search_augmentation first, or write triv"):
        run(tmp_path)
    with pytest.raises(ValueError, match="augmentation = 'searched'"):
        config.Run(augmentation="searched")


def test_only_files_that_are_there_are_listed_and_a_verdict_on_another_policy_is_not(tmp_path):
    assert search.written(tmp_path) == []
    write(tmp_path, won=True)
    assert search.written(tmp_path) == ["best_policy.json", "verdict.json"]
    write(tmp_path, won=True, on=OTHER)
    assert search.written(tmp_path) == ["best_policy.json"]


def test_a_verdict_that_is_none_is_named(tmp_path):
    write(tmp_path, won=True)
    search.verdict_path(tmp_path).write_text('{"policy": "x", "beats_trivialaugment": "yes"}')
    with pytest.raises(ValueError, match=r"verdict\.json is no verdict of a search"):
        search.chosen_augmentation(tmp_path)
