"""Equal weights stand until people nobody was weighted on prove something better."""

import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import past_runs
import pytest
import simulated

from mask_lib.base import scores
from mask_lib.data import splits
from mask_lib.ensemble import blending, calibration
from mask_lib.ensemble.blending import Recipe
from mask_lib.ensemble.members import Members, OutOfFold, probabilities_of, with_probabilities


def ensemble_of(noises: dict[str, float], count: int = 120, seed: int = 0) -> OutOfFold:
    """Members that see the same people, each with noise of its own."""
    generator = np.random.default_rng(seed)
    photos = simulated.people(count, generator)
    shared = simulated.logits(photos, generator)
    stack = [simulated.softmax(shared + noise * generator.normal(size=shared.shape)) for noise in noises.values()]
    return OutOfFold(list(noises), photos, np.stack(stack))


def tempered(found: OutOfFold, temperature: float) -> OutOfFold:
    return found._replace(probabilities=calibration.tempered(found.probabilities, temperature))


@pytest.fixture(scope="module")
def alike() -> OutOfFold:
    return ensemble_of({"a": 1.0, "b": 1.0, "c": 1.0})


@pytest.fixture(scope="module")
def unlike() -> OutOfFold:
    return ensemble_of({"good": 0.2, "poor": 6.0, "poorer": 7.0, "poorest": 8.0})  # equal weights are far from best


@pytest.fixture(scope="module")
def choice_of_unlike(unlike) -> blending.Choice:
    return blending.choose_recipe(unlike)


def test_a_recipe_blends_arrays_and_tables_alike(alike):
    members, keys = alike.probabilities[:2], alike.photos.rename(columns={"path": "ImageID"})[["ImageID"]]
    recipe = Recipe((0.7, 0.3), 2.0)
    expected = calibration.tempered(np.average(members, axis=0, weights=[0.7, 0.3]), 2)
    np.testing.assert_allclose(recipe.blend(members), expected)
    tables = [with_probabilities(keys, one) for one in members]
    found = recipe.blend_tables(Members(["a", "b"], {"test": tables}, [True, True]), "test")
    pd.testing.assert_frame_equal(found, with_probabilities(keys, recipe.blend(members)))
    with pytest.raises(ValueError):
        recipe.blend(alike.probabilities)


def test_without_a_member_the_others_fill_its_place():
    assert Recipe((0.5, 0.3, 0.2), 2.0).without(0) == Recipe((0.6, 0.4), 2.0)
    assert Recipe((1.0, 0.0, 0.0)).without(0).weights == (0.5, 0.5)


def test_a_summary_names_the_members_that_count():
    said = Recipe((0.6, 0.4, 0.0), 1.2).summary(["deep", "wide", "idle"])
    assert said == "deep (60%), wide (40%), at a temperature of 1.20"


@pytest.mark.parametrize("weights", [[1, -0.1], [0, 0], [float("nan"), 1], [1, float("inf")]])
def test_weights_that_make_no_mean_are_refused(weights):
    with pytest.raises(ValueError, match=rf"weights = {re.escape(str(weights))}: each must be 0 or above"):
        blending.given_recipe(weights, 2)


def test_the_quick_macro_f1_is_the_usual_one(unlike):
    for rows in (slice(None), slice(5)):  # five photos: most classes do not occur
        truth, predicted = unlike.truth[rows], unlike.probabilities[1, rows].argmax(axis=1)
        assert blending.macro_f1(truth, predicted) == pytest.approx(scores.summarise(truth, predicted)["macro_f1"])


def test_greedy_selection_equals_one_written_out_by_hand():
    found = ensemble_of({"a": 1.5, "b": 1.5, "c": 2}, seed=3)
    members, truth = found.probabilities, found.truth
    bag, scored = [], []
    for _ in range(6):
        means = [members[[*bag, member]].mean(axis=0) for member in range(3)]
        f1 = [round(blending.macro_f1(truth, mean.argmax(axis=1)), 9) for mean in means]
        gains = [-calibration.log_losses(mean, truth).mean() for mean in means]
        score, _, member = max(zip(f1, gains, range(3), strict=True))
        bag.append(member)
        scored.append(score)
    best = bag[: int(np.argmax(scored)) + 1]
    expected = np.bincount(best, minlength=3) / len(best)
    assert blending.greedy_weights(members, truth, rounds=6).tolist() == pytest.approx(expected)
    assert len(set(bag)) > 1  # or nothing was selected


def parts_of(found: OutOfFold, count: int) -> np.ndarray:
    return found.photos["person"].map(splits.spread_people(found.photos, count, seed=0)).to_numpy()


def test_nesting_shows_a_part_nothing_that_was_fitted_on_it(alike):
    """What is found for a part stays the same when the part's own labels are turned upside down."""
    members, parts = alike.probabilities, parts_of(alike, 3)
    upside_down = np.where(parts == 1, 17 - alike.truth, alike.truth)
    found, other = (
        blending.nested_probabilities(members, truth, parts, greedy=True, tempering=True)
        for truth in (alike.truth, upside_down)
    )
    np.testing.assert_array_equal(found[parts == 1], other[parts == 1])
    assert not np.array_equal(found[parts == 0], other[parts == 0])


def test_weights_that_are_really_better_are_taken_with_their_nested_probabilities(choice_of_unlike):
    assert choice_of_unlike.table["chosen"].tolist() == [False, True] and choice_of_unlike.recipe.weights[0] > 0.5
    assert choice_of_unlike.reason.startswith("Greedy weights are taken")
    found = choice_of_unlike.out_of_fold
    assert list(found.columns) == ["path", "person", "label", *simulated.COLUMNS]
    nested = scores.summarise(*scores.from_probabilities(found))["macro_f1"]
    assert nested == pytest.approx(choice_of_unlike.table["macro_f1"][1])


def test_members_that_are_as_good_as_one_another_stay_equal_and_two_rivals_share_the_chance_of_luck(alike):
    choice, parts = blending.choose_recipe(alike), parts_of(alike, blending.PARTS)
    assert choice.recipe.weights == pytest.approx((1 / 3,) * 3) and choice.reason.startswith("Equal weights are kept")
    assert choice.table["chosen"].tolist() == [True, False]
    table = choice.table.set_index("method")
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
    repaired = probabilities_of(choice.out_of_fold)
    assert blending.log_loss_gain(modest, modest.probabilities[0], repaired).low > 0


def test_the_temperature_of_a_calibrated_member_is_left_out():
    found = ensemble_of({"one": 0.5})
    right = tempered(found, calibration.fit_temperature(found.probabilities[0], found.truth))
    choice = blending.choose_recipe(right)
    assert choice.recipe == Recipe((1.0,)) and "A temperature is left out" in choice.reason
    assert choice.reason.startswith("There is one member") and choice.table["method"].tolist() == ["equal"]


def test_log_loss_gain_is_the_difference_of_means_and_none_for_the_same(unlike):
    good, poor = unlike.probabilities[:2]
    found = blending.log_loss_gain(unlike, poor, good)
    means = [calibration.log_losses(some, unlike.truth).mean() for some in (poor, good)]
    assert found.value == pytest.approx(means[0] - means[1])
    assert 0 < found.low < found.value < found.high
    same = blending.log_loss_gain(unlike, good, good)
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
    assert list(blending.intervals(["good"], unlike.probabilities[:1], choice_of_unlike.out_of_fold)) == ["good"]


def test_agreement_is_the_share_of_equal_answers(unlike):
    found = blending.agreement(unlike)
    assert list(found.index) == list(found.columns) == unlike.names
    answers = unlike.probabilities.argmax(axis=2)
    np.testing.assert_allclose(found, [[(one == other).mean() for one in answers] for other in answers])


def test_contributions_tell_who_carries_and_who_harms_and_that_nothing_is_added_without_weight(unlike):
    pair = OutOfFold(["good", "poorest"], unlike.photos, unlike.probabilities[[0, 3]])
    found = blending.contributions(pair, Recipe((0.5, 0.5))).set_index("member")
    assert found.loc["good", "low"] > 0
    assert found.loc["poorest", "high"] < 0 and found.loc["poorest", "p"] > 0.99
    without, whole = (
        scores.summarise(unlike.truth, some.argmax(axis=1))["macro_f1"]
        for some in (pair.probabilities[1], pair.probabilities.mean(axis=0))
    )
    assert found.loc["good", "difference"] == pytest.approx(whole - without)
    found = blending.contributions(unlike, Recipe((0.5, 0.5, 0.0, 0.0))).set_index("member")
    assert found.loc["poorest", ["weight", "difference", "low", "high"]].tolist() == [0, 0, 0, 0]


@pytest.fixture(scope="module")
def decided(tmp_path_factory) -> Callable:
    """Decides on members and weights, in an experiment with two finished runs, deep and wide."""
    output = tmp_path_factory.mktemp("experiment")
    past_runs.prepare(output)
    for seed, run in enumerate(("deep", "wide")):
        past_runs.write_run(output, run, seed=seed)
    return lambda names, weights, own=True: blending.decide(output, Members(names, {}, [own] * len(names)), weights)


def test_runs_of_this_experiment_get_the_best_weights_and_given_ones_are_taken(decided):
    found, choice = decided(["deep", "wide"], [])
    assert found.names == ["deep", "wide"] and choice.recipe.weights == (0.5, 0.5) and len(choice.table) == 2
    found, choice = decided(["deep", "wide"], [1.0, 3.0])
    assert choice.recipe == Recipe((0.25, 0.75)) and "as given" in choice.reason and choice.table.empty
    expected = np.average(found.probabilities, axis=0, weights=[1, 3])
    np.testing.assert_allclose(probabilities_of(choice.out_of_fold), expected)


def test_members_from_elsewhere_are_averaged_without_being_judged(decided):
    found, choice = decided(["deep", "stranger"], [])
    assert found is None and choice.recipe.weights == (0.5, 0.5) and choice.out_of_fold is None
    assert choice.reason == "stranger cannot be scored, having no out-of-fold tables here: equal weights are taken."
    assert decided(["deep", "stranger"], [1.0, 3.0])[1].recipe.weights == (0.25, 0.75)
    with pytest.raises(ValueError, match="2 files but 1 weights"):
        decided(["deep", "stranger"], [1.0])
    found, choice = decided(["deep"], [], own=False)  # a file that bears a run's name
    assert found is None and choice.reason.startswith("deep cannot be scored")
