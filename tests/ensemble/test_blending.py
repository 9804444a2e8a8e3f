"""Equal weights stand until people nobody was weighted on prove something better."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import past_runs
import pytest
import simulated

from mask_lib.base import scores
from mask_lib.ensemble import blending, calibration
from mask_lib.ensemble.blending import Recipe
from mask_lib.ensemble.members import Members, OutOfFold, with_probabilities

EQUAL = {"a": 1.0, "b": 1.0, "c": 1.0}
ONE_GOOD = {"good": 0.2, "poor": 6.0, "poorer": 7.0, "poorest": 8.0}  # equal weights are far from best


def ensemble_of(noises: dict[str, float], count: int = 120, seed: int = 0) -> OutOfFold:
    """Members that see the same people, each with noise of its own."""
    generator = np.random.default_rng(seed)
    photos = simulated.people(count, generator)
    shared = simulated.logits(photos, generator)
    stack = [simulated.softmax(shared + noise * generator.normal(size=shared.shape)) for noise in noises.values()]
    return OutOfFold(list(noises), photos, np.stack(stack))


def tempered(found: OutOfFold, temperature: float) -> OutOfFold:
    return dataclasses.replace(found, probabilities=calibration.tempered(found.probabilities, temperature))


@pytest.fixture(scope="module")
def alike() -> OutOfFold:
    return ensemble_of(EQUAL)


@pytest.fixture(scope="module")
def unlike() -> OutOfFold:
    return ensemble_of(ONE_GOOD)


@pytest.fixture(scope="module")
def choice_of_alike(alike) -> blending.Choice:
    return blending.choose_recipe(alike)


@pytest.fixture(scope="module")
def choice_of_unlike(unlike) -> blending.Choice:
    return blending.choose_recipe(unlike)


def chosen(choice: blending.Choice) -> list[str]:
    return choice.table["method"][choice.table["chosen"]].tolist()


def test_a_recipe_blends_arrays_and_tables_alike(alike):
    members, keys = alike.probabilities[:2], alike.photos.rename(columns={"path": "ImageID"})[["ImageID"]]
    recipe = Recipe((0.7, 0.3), 2.0)
    expected = calibration.tempered(np.average(members, axis=0, weights=[0.7, 0.3]), 2)
    np.testing.assert_allclose(recipe.blend(members), expected)
    tables = [with_probabilities(keys, one) for one in members]
    found = recipe.blend_tables(Members(["a", "b"], {"test": tables}, [True, True]), "test")
    pd.testing.assert_frame_equal(found, with_probabilities(keys, recipe.blend(members)))
    pd.testing.assert_frame_equal(tables[0], with_probabilities(keys, members[0]))


def test_a_recipe_for_other_members_is_refused(alike):
    with pytest.raises(ValueError, match="a recipe for 1 members was given 3"):
        Recipe((1.0,)).blend(alike.probabilities)


def test_without_a_member_the_others_fill_its_place():
    assert Recipe((0.5, 0.3, 0.2), 2.0).without(0) == Recipe((0.6, 0.4), 2.0)
    assert Recipe((1.0, 0.0, 0.0)).without(0).weights == (0.5, 0.5)


def test_a_summary_names_the_members_that_count():
    assert (
        Recipe((0.6, 0.4, 0.0), 1.2).summary(["deep", "wide", "idle"])
        == "deep (60%), wide (40%), at a temperature of 1.20"
    )
    assert Recipe((1.0,)).summary(["one"]) == "one (100%)"


@pytest.mark.parametrize("weights", [[1, -0.1], [0, 0], [float("nan"), 1], [1, float("inf")]])
def test_weights_that_make_no_mean_are_refused(weights):
    with pytest.raises(ValueError, match=rf"weights = {re.escape(str(weights))}: each must be 0 or above"):
        blending.given_recipe(weights, 2)


@pytest.mark.parametrize(("members", "weights"), [(2, [1]), (1, [1, 1])])
def test_there_is_one_weight_a_file(members, weights):
    with pytest.raises(ValueError, match=f"{members} files but {len(weights)} weights: give one weight a file"):
        blending.given_recipe(weights, members)


def test_the_quick_macro_f1_is_the_usual_one(unlike):
    for rows in (slice(None), slice(5)):  # five photos: most classes do not occur
        truth, predicted = unlike.truth[rows], unlike.probabilities[1, rows].argmax(axis=1)
        assert blending.macro_f1(truth, predicted) == pytest.approx(scores.summarise(truth, predicted)["macro_f1"])


def test_greedy_selection_equals_one_written_out_by_hand():
    found = ensemble_of({"a": 1.5, "b": 1.5, "c": 2}, seed=3)
    members, truth = found.probabilities, found.truth
    bag, scored = [], []
    for _ in range(6):
        options = []
        for member in range(3):
            mean = members[[*bag, member]].mean(axis=0)
            loss = calibration.log_losses(mean, truth).mean()
            options.append((round(blending.macro_f1(truth, mean.argmax(axis=1)), 9), -loss, member))
        score, _, member = max(options, key=lambda option: option[:2])
        bag.append(member)
        scored.append(score)
    best = bag[: int(np.argmax(scored)) + 1]
    expected = np.bincount(best, minlength=3) / len(best)
    assert blending.greedy_weights(members, truth, rounds=6).tolist() == pytest.approx(expected)
    assert len(set(bag)) > 1  # or nothing was selected


def test_greedy_weights_leave_little_to_a_member_that_guesses(unlike):
    guesses = np.random.default_rng(0).dirichlet(np.full(18, 0.1), len(unlike.truth))
    weights = blending.greedy_weights(np.stack([guesses, unlike.probabilities[0]]), unlike.truth)
    assert weights[1] > 0.7 and weights.sum() == pytest.approx(1)
    assert blending.greedy_weights(unlike.probabilities[:1], unlike.truth).tolist() == [1]


def test_parts_keep_people_whole_and_differ_in_size_by_little(alike):
    parts = blending.person_parts(alike.photos, 5)
    assert pd.Series(parts).groupby(alike.person).nunique().max() == 1
    assert np.bincount(parts).min() > 120
    with pytest.raises(ValueError, match="cannot fill 5 parts"):
        blending.person_parts(alike.photos.head(21), 5)


def test_nesting_shows_a_part_nothing_that_was_fitted_on_it(alike):
    """What is found for a part stays the same when the part's own labels are turned upside down."""
    members, parts = alike.probabilities, blending.person_parts(alike.photos, 3)
    upside_down = np.where(parts == 1, 17 - alike.truth, alike.truth)
    found, other = (
        blending.nested_probabilities(members, truth, parts, greedy=True, tempering=True)
        for truth in (alike.truth, upside_down)
    )
    np.testing.assert_array_equal(found[parts == 1], other[parts == 1])
    assert not np.array_equal(found[parts == 0], other[parts == 0])


def test_members_that_are_as_good_as_one_another_stay_equal(choice_of_alike):
    assert chosen(choice_of_alike) == ["equal"]
    assert choice_of_alike.recipe.weights == pytest.approx((1 / 3,) * 3)
    assert choice_of_alike.reason.startswith("Equal weights are kept: greedy weights are not really better ")


def test_weights_that_are_really_better_are_taken_with_their_nested_probabilities(choice_of_unlike):
    assert chosen(choice_of_unlike) == ["greedy"] and choice_of_unlike.recipe.weights[0] > 0.5
    assert choice_of_unlike.reason.startswith("Greedy weights are taken: on people they were not found on, ")
    found = choice_of_unlike.out_of_fold
    assert list(found.columns) == ["path", "person", "label", *simulated.COLUMNS]
    nested = scores.summarise(*scores.from_probabilities(found))["macro_f1"]
    assert nested == pytest.approx(choice_of_unlike.table["macro_f1"][1])


def test_the_table_holds_nested_scores_and_two_rivals_share_the_chance_of_luck(alike, choice_of_alike):
    table, parts = choice_of_alike.table.set_index("method"), blending.person_parts(alike.photos)
    intervals = ["macro_f1", "low", "high", "log_loss", "difference", "difference_low", "difference_high", "p"]
    assert list(table.columns) == [*intervals, "weights", "chosen"] and list(table.index) == ["equal", "greedy"]
    answers = [
        blending.nested_probabilities(alike.probabilities, alike.truth, parts, greedy=greedy).argmax(axis=1)
        for greedy in (False, True)
    ]
    expected = [scores.summarise(alike.truth, some)["macro_f1"] for some in answers]
    assert table["macro_f1"].tolist() == pytest.approx(expected)
    assert table["difference"].tolist() == pytest.approx([0, expected[1] - expected[0]])
    # The interval of one of two is wider than the plain one on the same draws.
    plain, row = scores.paired_bootstrap(alike.truth, *answers, alike.person).loc["macro_f1"], table.loc["greedy"]
    assert row["difference_low"] < plain["low"] and row["difference_high"] > plain["high"]


def test_a_temperature_is_taken_where_it_repairs_log_loss():
    modest = tempered(ensemble_of({"modest": 0.5}), 3)
    choice = blending.choose_recipe(modest)
    assert choice.recipe.temperature < 0.6 and "A temperature is taken: log loss falls by" in choice.reason
    losses = [
        calibration.log_losses(some, modest.truth).mean()
        for some in (modest.probabilities[0], choice.out_of_fold[simulated.COLUMNS].to_numpy())
    ]
    assert losses[1] < losses[0]


def test_the_temperature_of_a_calibrated_member_is_left_out():
    found = ensemble_of({"one": 0.5})
    right = tempered(found, calibration.fit_temperature(found.probabilities[0], found.truth))
    choice = blending.choose_recipe(right)
    assert choice.recipe == Recipe((1.0,)) and "A temperature is left out" in choice.reason
    assert choice.reason.startswith("There is one member") and choice.table["method"].tolist() == ["equal"]


def test_log_loss_gain_is_the_difference_of_means_and_none_for_the_same(unlike):
    good, poor = unlike.probabilities[:2]
    found = blending.log_loss_gain(poor, good, unlike.truth, unlike.person)
    means = [calibration.log_losses(some, unlike.truth).mean() for some in (poor, good)]
    assert found.value == pytest.approx(means[0] - means[1])
    assert 0 < found.low < found.value < found.high
    same = blending.log_loss_gain(good, good, unlike.truth, unlike.person)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_members_their_blend_and_a_vote_are_scored(unlike, choice_of_unlike):
    right = with_probabilities(choice_of_unlike.out_of_fold, np.eye(18)[unlike.truth])
    found = blending.intervals(unlike.names, unlike.probabilities, choice_of_unlike.out_of_fold, right)
    assert list(found) == [*unlike.names, "ensemble", "after the vote"]
    good = scores.bootstrap(unlike.truth, unlike.probabilities[0].argmax(axis=1), unlike.person)
    pd.testing.assert_frame_equal(found["good"], good)
    nested = scores.summarise(*scores.from_probabilities(choice_of_unlike.out_of_fold))
    assert found["ensemble"]["value"].to_dict() == pytest.approx(nested)
    assert found["after the vote"].loc["age", "value"] == 1
    alone = blending.intervals(["good"], unlike.probabilities[:1], choice_of_unlike.out_of_fold)
    assert list(alone) == ["good"]


def test_agreement_is_the_share_of_equal_answers(unlike):
    found = blending.agreement(unlike)
    assert list(found.index) == list(found.columns) == unlike.names
    answers = unlike.probabilities.argmax(axis=2)
    assert found.loc["good", "poor"] == pytest.approx((answers[0] == answers[1]).mean())
    np.testing.assert_array_equal(np.diag(found), 1)
    np.testing.assert_array_equal(found, found.T)


def test_contributions_tell_who_carries_and_who_harms(unlike):
    pair = OutOfFold(["good", "poorest"], unlike.photos, unlike.probabilities[[0, 3]])
    found = blending.contributions(pair, Recipe((0.5, 0.5))).set_index("member")
    assert found.loc["good", "low"] > 0
    assert found.loc["poorest", "high"] < 0 and found.loc["poorest", "p"] > 0.99
    without, whole = (
        scores.summarise(unlike.truth, some.argmax(axis=1))["macro_f1"]
        for some in (pair.probabilities[1], pair.probabilities.mean(axis=0))
    )
    assert found.loc["good", "difference"] == pytest.approx(whole - without)


def test_a_member_without_weight_adds_nothing_and_a_single_one_is_not_compared(unlike):
    found = blending.contributions(unlike, Recipe((0.5, 0.5, 0.0, 0.0))).set_index("member")
    assert found.loc["poorest", ["weight", "difference", "low", "high"]].tolist() == [0, 0, 0, 0]
    alone = OutOfFold(["good"], unlike.photos, unlike.probabilities[:1])
    assert blending.contributions(alone, Recipe((1.0,))).empty


def decided(output: Path, names: list[str], weights: list[float], own: bool = True) -> tuple:
    return blending.decide(output, Members(names, {}, [own] * len(names)), weights)


@pytest.fixture
def output(tmp_path) -> Path:
    """An experiment with two finished runs."""
    past_runs.prepare(tmp_path)
    for seed, run in enumerate(("deep", "wide")):
        past_runs.write_run(tmp_path, run, seed=seed)
    return tmp_path


def test_runs_of_this_experiment_get_the_best_weights_and_given_ones_are_taken(output):
    found, choice = decided(output, ["deep", "wide"], [])
    assert found.names == ["deep", "wide"] and choice.recipe.weights == (0.5, 0.5) and len(choice.table) == 2
    found, choice = decided(output, ["deep", "wide"], [1.0, 3.0])
    assert choice.recipe == Recipe((0.25, 0.75)) and choice.reason == "The weights are as given."
    expected = np.average(found.probabilities, axis=0, weights=[1, 3])
    np.testing.assert_allclose(choice.out_of_fold[simulated.COLUMNS], expected)
    assert choice.table.empty


def test_members_from_elsewhere_are_averaged_without_being_judged(output):
    found, choice = decided(output, ["deep", "stranger"], [])
    assert found is None and choice.recipe.weights == (0.5, 0.5) and choice.out_of_fold is None
    assert choice.reason == "stranger cannot be scored, having no out-of-fold tables here: equal weights are taken."
    assert decided(output, ["deep", "stranger"], [1.0, 3.0])[1].recipe.weights == (0.25, 0.75)
    with pytest.raises(ValueError, match="2 files but 1 weights"):
        decided(output, ["deep", "stranger"], [1.0])
    found, choice = decided(output, ["deep"], [], own=False)  # a file that bears a run's name
    assert found is None and choice.reason.startswith("deep cannot be scored")
