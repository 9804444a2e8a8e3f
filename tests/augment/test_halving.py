"""Halving stops what falls behind, but never so many that too few are left, nor because no augmentation leads early."""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import searching
import toys

from mask_lib.augment import policy, search
from mask_lib.training import runs

EPOCHS = 9
POLICIES = 8


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    toys.prepare(folder, folder)
    return folder


@pytest.fixture
def planted(monkeypatch):
    """Trainings of which everything is known before: no augmentation leads after an epoch and ends last of all."""
    trained = {}

    def train_run(run, splits, photos, folder, on_epoch):
        place = int(run.run.removeprefix("policy"))
        first, last = (0.9, 0.1) if place == 0 else (0.5 - place / 100, 0.8 - place / 100)
        for value in np.linspace(first, last, run.epochs):
            trained[place] = trained.get(place, 0) + 1
            on_epoch({"val_macro_f1": float(value)})

    monkeypatch.setattr(runs, "train_run", train_run)
    return trained


def run(data, output, **changes) -> pd.DataFrame:
    network = {"epochs": EPOCHS}
    return searching.run(data, output, search_kind="halving", policy_count=POLICIES, network=network, **changes)


@pytest.mark.parametrize("merged_count", [1, 3])
def test_that_no_augmentation_leads_early_stops_no_policy(data, tmp_path, planted, merged_count):
    found = run(data, tmp_path, merged_count=merged_count)
    scored = found[found["state"] == "complete"]
    assert 0 in set(scored["trial"])
    assert len(scored) > merged_count
    assert set(scored["epochs"]) == {EPOCHS}
    assert len(policy.read_policy(search.best_path(tmp_path)).sub_policies) == 2 * merged_count
    # Each later policy is a little worse: one that is not needed and behind the best stops at the first rung.
    assert (found["state"] == "pruned").sum() == POLICIES - (len(scored) - 1) > 0
    assert planted[POLICIES] == 1


def test_no_augmentation_is_trained_to_the_end_however_bad_it_is(data, tmp_path, monkeypatch):
    def train_run(run, splits, photos, folder, on_epoch):
        for _ in range(run.epochs):
            on_epoch({"val_macro_f1": 0.1 if run.run == "policy0" else 0.5})

    monkeypatch.setattr(runs, "train_run", train_run)
    places = itertools.chain([1, 2], itertools.repeat(None))
    monkeypatch.setattr(search, "claim", claim_last_the_first(places))
    found = run(data, tmp_path, merged_count=1).set_index("trial")
    assert found["state"][0] == "complete"
    assert found["epochs"][0] == EPOCHS


def claim_last_the_first(places):
    """`search.claim` that gives out place 0 after some others."""
    claim = search.claim

    def late(study, path, name, total, ask):
        taken = {trial.user_attrs.get(search.SLOT) for trial in study.get_trials(deepcopy=False)}
        place = next(places)
        if place is None or place in taken:
            return claim(study, path, name, total, ask)
        trial = ask(study, place)
        trial.set_user_attr(search.WORKER, name)
        trial.set_user_attr(search.SLOT, place)
        return trial

    return late


def test_one_in_so_many_goes_on_and_no_fewer_than_are_merged():
    values = {place: place / 10 for place in range(1, 10)}
    assert [place for place in values if search.goes_on(place, values, factor=3, at_least=1)] == [7, 8, 9]
    assert [place for place in values if search.goes_on(place, values, factor=3, at_least=4)] == [6, 7, 8, 9]
    assert search.goes_on(4, {4: 0.0}, factor=3, at_least=1)  # the first to come


def test_of_equals_the_earlier_place_goes_on():
    assert search.goes_on(2, {2: 0.5, 3: 0.5}, 2, 1)
    assert not search.goes_on(3, {2: 0.5, 3: 0.5}, 2, 1)


@pytest.mark.parametrize(("first", "factor", "rungs"), [(1, 3, [1, 3, 9]), (2, 2, [2, 4, 8]), (12, 2, [])])
def test_rungs_lie_a_factor_apart(first, factor, rungs):
    assert [epochs for epochs in range(1, 11) if search.is_rung(epochs, first, factor)] == rungs


def test_a_rung_knows_the_policies_that_came_as_far():
    def trial(values, **attributes):
        return SimpleNamespace(intermediate_values=values, user_attrs=attributes)

    several = [trial({1: 0.9, 3: 0.9}, slot=0), trial({1: 0.2, 3: 0.4}, slot=1), trial({1: 0.1}, slot=2), trial({})]
    assert search.reached(several, 1) == {1: 0.2, 2: 0.1}
    assert search.reached(several, 3) == {1: 0.4}


def test_how_many_are_merged_is_part_of_a_search_by_halving_alone():
    halved, dense = (searching.settings(search_kind=kind).recorded("") for kind in ("halving", "density"))
    assert halved["merged_count"] == searching.SMALL["merged_count"]
    assert "merged_count" not in dense
