"""A run that is to take what the search came to takes the policy if it won, else TrivialAugment, and says which."""

import pytest

from mask_lib.augment import search
from mask_lib.augment.policy import Policy, Step, named_policy, write_policy
from mask_lib.base import config, files
from mask_lib.headless import cells

NOTEBOOK = files.PROJECT / "notebooks" / "03_one_model.ipynb"
BEST = Policy("merged", ((Step("flip", 0.5),),))
OTHER = Policy("other", ((Step("rotate", 0.5, 0.1),),))


def write(output, won: bool, on: Policy = BEST, policy: Policy = BEST) -> None:
    """A search's policy, and the verdict on it or on another one."""
    found = {"policy": search.policy_digest(on), "beats_trivialaugment": won, "candidates": {}, "sentence": "So."}
    write_policy(policy, search.best_path(output))
    files.write_json(found, search.verdict_path(output))


def run(output, **changes) -> config.Run:
    """A run as its notebook builds it."""
    declared = cells.declared_parameters(NOTEBOOK) | {"output_dir": str(output), "augmentation": "searched"}
    return config.Run.from_parameters(declared | changes)


def test_a_winner_is_what_the_run_is_trained_with_and_what_it_is_known_by(tmp_path):
    write(tmp_path, won=True)
    assert run(tmp_path).augmentation == run(tmp_path).settings()["augmentation"] == str(search.best_path(tmp_path))
    assert named_policy(run(tmp_path).augmentation) == BEST


def test_a_loser_leaves_the_run_to_trivialaugment(tmp_path):
    write(tmp_path, won=False)
    assert run(tmp_path).augmentation == "trivialaugment"


def test_so_does_a_missing_verdict_and_one_on_another_policy(tmp_path):
    write_policy(BEST, search.best_path(tmp_path))
    assert run(tmp_path).augmentation == "trivialaugment"
    write(tmp_path, won=True, on=OTHER)
    assert run(tmp_path).augmentation == "trivialaugment"


def test_without_a_search_it_is_said_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"best_policy\.json: run 02_search_augmentation first, or write triv"):
        run(tmp_path)


def test_a_loser_may_still_be_named_by_its_file(tmp_path):
    write(tmp_path, won=False)
    path = str(search.best_path(tmp_path))
    assert run(tmp_path, augmentation=path).augmentation == path


def test_settings_without_an_output_folder_cannot_say_it():
    with pytest.raises(ValueError, match="name that too"):
        config.Run.from_settings({"augmentation": "searched"})
    with pytest.raises(ValueError, match="augmentation = 'searched'"):
        config.Run(augmentation="searched")


def test_a_path_counts_from_the_project_as_a_notebooks_do(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PROJECT", tmp_path)
    write(tmp_path / "outputs" / "one", won=True)
    assert run("outputs/one").augmentation == "outputs/one/search/best_policy.json"


def test_only_files_that_are_there_are_listed_and_a_verdict_on_another_policy_is_not(tmp_path):
    assert search.written(tmp_path) == []
    write(tmp_path, won=True)
    assert search.written(tmp_path) == ["best_policy.json", "verdict.json"]
    write(tmp_path, won=True, on=OTHER)
    assert search.written(tmp_path) == ["best_policy.json"]
