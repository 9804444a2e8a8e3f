"""Equal weights stand until people nobody was weighted on prove something better."""

import numpy as np
import opinions
import pandas as pd
import pytest

from mask_lib.base import scores
from mask_lib.ensemble import blending, calibration
from mask_lib.ensemble.members import OutOfFold

MEASURED = ["macro_f1", "low", "high", "log_loss", "difference", "difference_low", "difference_high", "p"]
COLUMNS = ["method", *MEASURED, "weights", "chosen"]


def ensemble_of(noises: dict[str, float], count: int = 120, seed: int = 0) -> OutOfFold:
    """Members that see the same people, each with noise of its own."""
    generator = np.random.default_rng(seed)
    photos = opinions.people(count, generator)
    shared = opinions.logits(photos, generator)
    stack = [opinions.softmax(shared + noise * generator.normal(size=shared.shape)) for noise in noises.values()]
    return OutOfFold(list(noises), photos, np.stack(stack))


@pytest.fixture(scope="module")
def alike() -> OutOfFold:
    return ensemble_of({"a": 1.0, "b": 1.0, "c": 1.0})


@pytest.fixture(scope="module")
def unlike() -> OutOfFold:
    """One good member among many that know little: equal weights are far from best."""
    return ensemble_of({"good": 0.2, "poor": 6.0, "poorer": 7.0, "poorest": 8.0})


@pytest.fixture(scope="module")
def choice_of_unlike(unlike) -> blending.Choice:
    return blending.choose(unlike)


@pytest.fixture(scope="module")
def choice_of_alike(alike) -> blending.Choice:
    return blending.choose(alike)


def chosen(choice: blending.Choice) -> list[str]:
    return choice.table["method"][choice.table["chosen"]].tolist()


def test_members_that_are_as_good_as_one_another_stay_equal(choice_of_alike):
    assert "equal" in chosen(choice_of_alike)
    assert choice_of_alike.recipe.weights == pytest.approx((1 / 3,) * 3)
    assert choice_of_alike.reason.startswith("Equal weights are kept: the best other way, ")


def test_weights_that_are_really_better_are_taken(unlike, choice_of_unlike):
    assert "equal" not in chosen(choice_of_unlike)
    taken = choice_of_unlike.table[choice_of_unlike.table["chosen"]].iloc[0]
    assert taken["method"] in blending.METHODS and taken["difference_low"] > 0
    assert choice_of_unlike.recipe.weights[0] > 0.5
    assert choice_of_unlike.reason.startswith(f"Weights by {taken['method']} are taken")


@pytest.mark.parametrize("which", ["choice_of_alike", "choice_of_unlike"])
def test_the_table_has_a_row_for_every_candidate(which, request):
    table = request.getfixturevalue(which).table
    assert list(table.columns) == COLUMNS
    assert table["method"].tolist() == [*blending.METHODS, "temperatures", "offsets"]
    assert table["macro_f1"].between(table["low"] - 0.05, table["high"] + 0.05).all()
    assert all(sum(weights) == pytest.approx(1, abs=0.01) for weights in table["weights"])


def test_scores_in_the_table_are_nested(unlike, choice_of_unlike):
    parts = blending.person_parts(unlike.photos, 5, seed=0)
    by_method = choice_of_unlike.table.set_index("method")
    for method in ("equal", "simplex, log loss"):
        found = blending.nested_probabilities(unlike.probabilities, unlike.truth, parts, method=method)
        expected = scores.summarise(unlike.truth, found.argmax(axis=1))["macro_f1"]
        assert by_method["macro_f1"][method] == pytest.approx(expected)
    difference = by_method["macro_f1"]["simplex, log loss"] - by_method["macro_f1"]["equal"]
    assert by_method["difference"]["simplex, log loss"] == pytest.approx(difference)


def test_several_challengers_share_the_chance_of_luck(alike, choice_of_alike):
    """The interval of one of three is wider than the plain one on the same draws."""
    parts = blending.person_parts(alike.photos, 5, seed=0)
    answers = [
        blending.nested_probabilities(alike.probabilities, alike.truth, parts, method=method).argmax(axis=1)
        for method in ("equal", "greedy")
    ]
    plain = scores.paired_bootstrap(alike.truth, *answers, alike.person).loc["macro_f1"]
    row = choice_of_alike.table.set_index("method").loc["greedy"]
    assert row["difference_low"] < plain["low"] and row["difference_high"] > plain["high"]


def test_the_choice_brings_its_nested_probabilities(unlike, choice_of_unlike):
    found = choice_of_unlike.out_of_fold
    assert list(found.columns) == ["path", "person", "label", *opinions.COLUMNS]
    last = choice_of_unlike.table[choice_of_unlike.table["chosen"]].iloc[-1]
    assert scores.summarise(*scores.from_probabilities(found))["macro_f1"] == pytest.approx(last["macro_f1"])


def test_temperatures_are_kept_where_they_repair_log_loss_and_cost_nothing():
    found = ensemble_of({"modest": 0.5})
    modest = OutOfFold(found.names, found.photos, calibration.tempered(found.probabilities, 3))
    choice = blending.choose(modest)
    assert "temperatures" in chosen(choice)
    assert choice.recipe.temperatures[0] < 0.6
    losses = choice.table.set_index("method")["log_loss"]
    assert losses["temperatures"] < losses["equal"]


def test_temperatures_of_calibrated_members_are_left_out():
    found = ensemble_of({"one": 0.5})
    fitted = calibration.fit_temperature(found.probabilities[0], found.truth)
    right = OutOfFold(found.names, found.photos, calibration.tempered(found.probabilities, fitted))
    assert "temperatures" not in chosen(blending.choose(right))


def test_offsets_are_kept_where_a_class_was_talked_down():
    found = ensemble_of({"one": 0.3}, count=250)
    planted = np.where(np.arange(18) % 3 == 2, -3.0, 0.0)  # as a network that hardly ever says 60+
    old = OutOfFold(found.names, found.photos, calibration.shifted(found.probabilities[0], planted)[None])
    choice = blending.choose(old)
    assert "offsets" in chosen(choice)
    assert np.array(choice.recipe.offsets)[2] > 0.5
    assert "Offsets by class are kept" in choice.reason


def test_one_member_needs_no_weights():
    choice = blending.choose(ensemble_of({"alone": 1.0}, count=40))
    assert choice.recipe.weights == (1.0,)
    assert choice.table["method"].tolist() == ["equal", "temperatures", "offsets"]
    assert choice.reason.startswith("There is one member")


def test_the_same_seed_chooses_the_same(alike, choice_of_alike):
    again = blending.choose(alike)
    pd.testing.assert_frame_equal(again.table, choice_of_alike.table)
    assert again.recipe == choice_of_alike.recipe


def test_members_and_the_choice_are_scored_out_of_fold(unlike, choice_of_unlike):
    found = blending.intervals(unlike, choice_of_unlike)
    assert list(found) == [*unlike.names, "ensemble"]
    good = scores.bootstrap(unlike.truth, unlike.probabilities[0].argmax(axis=1), unlike.person)
    pd.testing.assert_frame_equal(found["good"], good)
    nested = scores.summarise(*scores.from_probabilities(choice_of_unlike.out_of_fold))
    assert found["ensemble"]["value"].to_dict() == pytest.approx(nested)


def test_a_vote_is_scored_beside_and_one_member_not_twice():
    alone = ensemble_of({"alone": 1.0}, count=40)
    choice = blending.given(alone, [1])
    right = choice.out_of_fold.assign(**dict(zip(opinions.COLUMNS, np.eye(18)[alone.truth].T, strict=True)))
    assert list(blending.intervals(alone, choice)) == ["alone"]
    found = blending.intervals(alone, choice, right)
    assert list(found) == ["alone", "after the vote"] and found["after the vote"].loc["age", "value"] == 1


def test_given_weights_are_taken_as_they_are(alike):
    choice = blending.given(alike, [2, 1, 1])
    assert choice.recipe.weights == (0.5, 0.25, 0.25)
    expected = np.average(alike.probabilities, axis=0, weights=[2, 1, 1])
    np.testing.assert_allclose(choice.out_of_fold[opinions.COLUMNS], expected)
    with pytest.raises(ValueError, match="3 files but 2 weights"):
        blending.given(alike, [1, 1])
    with pytest.raises(ValueError, match="each must be 0 or above"):
        blending.given(alike, [1, 1, -1])


def test_log_loss_gain_is_the_difference_of_means_and_none_for_the_same(unlike):
    good, poor = unlike.probabilities[:2]
    found = blending.log_loss_gain(poor, good, unlike.truth, unlike.person)
    means = [calibration.log_losses(some, unlike.truth).mean() for some in (poor, good)]
    assert found.value == pytest.approx(means[0] - means[1])
    assert 0 < found.low < found.value < found.high
    same = blending.log_loss_gain(good, good, unlike.truth, unlike.person)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_agreement_is_the_share_of_equal_answers(unlike):
    found = blending.agreement(unlike)
    assert list(found.index) == list(found.columns) == unlike.names
    answers = unlike.probabilities.argmax(axis=2)
    assert found.loc["good", "poor"] == pytest.approx((answers[0] == answers[1]).mean())
    np.testing.assert_array_equal(np.diag(found), 1)
    np.testing.assert_array_equal(found, found.T)


def test_contributions_tell_who_carries_and_who_harms(unlike):
    pair = OutOfFold(["good", "poorest"], unlike.photos, unlike.probabilities[[0, 3]])
    found = blending.contributions(pair, blending.Recipe((0.5, 0.5))).set_index("member")
    assert found.loc["good", "low"] > 0
    assert found.loc["poorest", "high"] < 0 and found.loc["poorest", "p"] > 0.99
    score = [
        scores.summarise(unlike.truth, some.argmax(axis=1))["macro_f1"]
        for some in (pair.probabilities[1], pair.probabilities.mean(axis=0))
    ]
    assert found.loc["good", "difference"] == pytest.approx(score[1] - score[0])


def test_a_member_without_weight_adds_nothing_and_a_single_one_is_not_compared(unlike):
    found = blending.contributions(unlike, blending.Recipe((0.5, 0.5, 0.0, 0.0))).set_index("member")
    assert found.loc["poorest", ["weight", "difference", "low", "high"]].tolist() == [0, 0, 0, 0]
    alone = OutOfFold(["good"], unlike.photos, unlike.probabilities[:1])
    assert blending.contributions(alone, blending.Recipe((1.0,))).empty
