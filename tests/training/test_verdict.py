"""A policy counts only if it beats TrivialAugment on people the search has not seen; training falls back to that."""

import json

import numpy as np
import pandas as pd
import pytest
import searching
import toys

from mask_lib.augment import search
from mask_lib.augment.policy import Policy, Step, read_policy, write_policy
from mask_lib.base import config, files
from mask_lib.training import policy_search, runs

MILD = Policy("merged", ((Step("flip", 0.5),),))
OTHER = Policy("best", ((Step("rotate", 0.5, 0.1),),))


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
    """The verdict on candidates that know so much of the photos, as they do with TrivialAugment and with none."""
    trained = policy_search.Trained({name: predictions(share) for name, share in shares.items()})
    return policy_search.judged(trained, {"merged": MILD, "best": OTHER})


def write(output, found: dict, policy: Policy = MILD) -> None:
    write_policy(policy, search.best_path(output))
    files.write_json(found, search.verdict_path(output))


def test_a_policy_that_is_clearly_better_is_chosen(tmp_path):
    found = judged(trivialaugment=0.5, none=0.4, merged=0.9, best=0.6)
    assert found["beats_trivialaugment"] is True
    assert found["candidate"] == "merged"
    assert "It beats TrivialAugment" in found["sentence"]
    write(tmp_path, found)
    assert search.chosen_augmentation(tmp_path) == str(search.best_path(tmp_path))
    assert config.Run(augmentation=search.chosen_augmentation(tmp_path))


@pytest.mark.parametrize(("share", "words"), [(0.62, "may be chance"), (0.3, "worse than TrivialAugment")])
def test_one_that_is_not_leaves_training_to_trivialaugment(tmp_path, share, words):
    found = judged(trivialaugment=0.6, none=0.1, merged=share, best=0.2)
    assert found["beats_trivialaugment"] is False
    assert words in found["sentence"]
    write(tmp_path, found)
    assert search.chosen_augmentation(tmp_path) == "trivialaugment"


def test_it_is_told_where_no_augmentation_at_all_does_best():
    assert "none, which scores highest" in judged(trivialaugment=0.5, none=0.9, merged=0.6, best=0.4)["sentence"]
    assert "highest" not in judged(trivialaugment=0.5, none=0.4, merged=0.6, best=0.4)["sentence"]


def test_the_better_of_two_has_to_be_surer():
    alone = policy_search.Trained(
        {name: predictions(share) for name, share in {"trivialaugment": 0.5, "none": 0.4, "merged": 0.6}.items()}
    )
    one = policy_search.judged(alone, {"merged": MILD})["differences"]["merged - trivialaugment"]
    two = judged(trivialaugment=0.5, none=0.4, merged=0.6, best=0.3)["differences"]["merged - trivialaugment"]
    assert two["difference"] == one["difference"]
    assert two["low"] < one["low"] < one["high"] < two["high"]


def test_without_a_search_or_its_verdict_it_is_trivialaugment(tmp_path):
    assert search.chosen_augmentation(tmp_path) == "trivialaugment"
    write_policy(MILD, search.best_path(tmp_path))
    assert search.chosen_augmentation(tmp_path) == "trivialaugment"


def test_a_verdict_on_another_policy_does_not_count(tmp_path):
    write(tmp_path, judged(trivialaugment=0.5, none=0.4, merged=0.9, best=0.6), policy=OTHER)
    assert search.chosen_augmentation(tmp_path) == "trivialaugment"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("best_policy.json", "__import__('os').system('true')", r"best_policy\.json is no policy: not valid JSON"),
        ("best_policy.json", '{"format": 1, "name": "a", "sub_policies": [[["exec", 1, 1]]]}', "exec' is unknown"),
        ("verdict.json", "[1]", r"verdict\.json is no verdict of a search"),
        ("verdict.json", '{"policy": "x", "beats_trivialaugment": "yes"}', r"verdict\.json is no verdict"),
        ("verdict.json", "{", r"verdict\.json is not valid JSON"),
    ],
)
def test_a_file_that_is_something_else_is_named(tmp_path, name, content, message):
    write(tmp_path, judged(trivialaugment=0.5, none=0.4, merged=0.9, best=0.6))
    (tmp_path / search.FOLDER / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        search.chosen_augmentation(tmp_path)


@pytest.fixture(scope="module")
def reached(tmp_path_factory):
    """A search of the toy set and its verdict."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("output")
    toys.prepare(data, data)
    found = searching.run(data, output)
    candidates = search.candidates(found, 2)
    material, network = searching.material(data, output), searching.settings().network()
    return (
        data,
        output,
        (network, candidates, material, [1]),
        policy_search.reach(network, candidates, material, [1], 2),
    )


def test_the_verdict_lies_beside_the_policy_it_is_about(reached):
    _, output, (_, candidates, _, _), found = reached
    assert json.loads(search.verdict_path(output).read_text()) == found
    best = read_policy(search.best_path(output))
    assert search.policy_digest(best) == found["policy"] == search.policy_digest(candidates[found["candidate"]])
    assert (found["seeds"], found["folds"]) == (2, [1])
    assert set(found["macro_f1"]) == {"none", "trivialaugment", "merged", "best"}
    assert all(len(by_seed) == 2 for by_seed in found["macro_f1"].values())


def test_what_it_cost_stands_beside_it(reached):
    _, _, (network, _, _, _), found = reached
    assert found["epochs"] == 4 * 2 * network.epochs  # augmentations, seeds
    trials = pd.DataFrame({"seconds": [1.0, 2.0, 3.0]})
    shorter = found | {"epochs": 10, "seconds": 20.0}  # two seconds an epoch
    cost = policy_search.cost(trials, shorter, epochs=4)  # three policies of four epochs would take 24 seconds
    assert dict(cost["share"]) == pytest.approx({"search": 6 / 24, "verdict": 20 / 24, "both": 26 / 24})
    assert "both 26 s (1.083)" in policy_search.cost_in_words(trials, shorter, 4)
    assert policy_search.cost_in_words(trials, None, 4) == "The search took 6 seconds."
    assert found["seconds"] > 0


def test_each_seed_trains_anew_and_is_scored_on_people_held_out(reached):
    _, _, (network, candidates, material, _), _ = reached
    network = network.replace(folds=(1,))
    first, second = (
        policy_search.predictions(network.replace(seed=seed), MILD, material) for seed in (0, 1)
    )
    split = material.splits[1]
    assert set(first["path"]) == set(split.loc[split["split"] == "val", "path"])
    assert list(first["person"]) == list(second["person"])
    assert list(first.columns) == policy_search.COLUMNS
    names = {policy_search.training_name(network.replace(seed=seed), MILD, material) for seed in (0, 1)}
    assert len(names) == 2
    assert policy_search.training_name(network, candidates["merged"], material) not in names


def test_what_was_trained_is_not_trained_again(reached, monkeypatch):
    _, output, (network, candidates, material, on), found = reached
    assert not list((output / search.FOLDER / "runs").glob("seed*"))  # no checkpoints pile up
    monkeypatch.setattr(runs, "train_run", None)  # a call would fail
    assert policy_search.reach(network, candidates, material, on, 2) == found


def test_searching_again_leaves_the_chosen_candidate_in_place(reached, tmp_path):
    data, output, (_, candidates, _, _), _ = reached
    found = json.loads(search.verdict_path(output).read_text())
    for name, policy in candidates.items():
        write_policy(policy, search.best_path(output))
        files.write_json(found | {"candidate": name}, search.verdict_path(output))
        searching.run(data, output)
        assert read_policy(search.best_path(output)) == policy
    searching.run(data, output, policy_count=9, merged_count=4)  # others: the verdict was not on these
    assert read_policy(search.best_path(output)) not in candidates.values()


def test_the_answer_is_that_of_the_verdict_on_the_policy_that_lies_there(tmp_path):
    none = "There is no verdict on this policy: train with TrivialAugment."
    assert policy_search.answer(tmp_path, [0]) == none
    found = judged(trivialaugment=0.5, none=0.4, merged=0.9, best=0.6) | {"folds": [1]}
    write(tmp_path, found)
    assert policy_search.answer(tmp_path, [0]) == found["sentence"]
    assert "fold 1 served the search" in policy_search.answer(tmp_path, [0, 1])
    write(tmp_path, found, policy=OTHER)
    assert policy_search.answer(tmp_path, [0]) == none


@pytest.mark.parametrize(
    ("on", "seeds", "message"), [([], 3, "a verdict needs both"), ([7], 1, "made only"), ([0], 0, "both")]
)
def test_a_verdict_on_nothing_is_refused(reached, on, seeds, message):
    _, _, (network, candidates, material, _), _ = reached
    with pytest.raises(ValueError, match=message):
        policy_search.reach(network, candidates, material, on, seeds)
