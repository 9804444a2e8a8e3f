"""Weights are found that are known to be best, and nesting lets nobody judge themselves."""

import itertools

import numpy as np
import opinions
import pandas as pd
import pytest

from mask_lib.ensemble import blending, calibration
from mask_lib.ensemble.members import weighted_mean


def members_of(photos: pd.DataFrame, noises: list[float], seed: int = 5) -> np.ndarray:
    """(M, N, 18) of networks that see the same, each with noise of its own."""
    generator = np.random.default_rng(seed)
    shared = opinions.logits(photos, generator)
    return np.stack([opinions.softmax(shared + noise * generator.normal(size=shared.shape)) for noise in noises])


@pytest.fixture(scope="module")
def photos() -> pd.DataFrame:
    return opinions.people(150, np.random.default_rng(3))


@pytest.fixture(scope="module")
def truth(photos) -> np.ndarray:
    return photos["label"].to_numpy()


def tables_of(photos: pd.DataFrame, members: np.ndarray) -> list[pd.DataFrame]:
    """The members as tables with path, label, p00 … p17."""
    return [photos[["path", "label"]].join(pd.DataFrame(one, columns=opinions.COLUMNS)) for one in members]


def random_member(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(18), count)


@pytest.mark.parametrize("method", blending.METHODS)
def test_weights_lie_on_the_simplex(photos, truth, method):
    weights = blending.METHODS[method](members_of(photos, [0.5, 1, 2]), truth)
    assert weights.shape == (3,) and weights.min() >= 0
    assert weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("method", [name for name in blending.METHODS if name != "equal"])
def test_a_member_that_guesses_gets_little(photos, truth, method):
    good = members_of(photos, [0.3])[0]
    weights = blending.METHODS[method](np.stack([random_member(len(truth)), good]), truth)
    assert weights[1] > 0.7


@pytest.mark.parametrize("method", blending.METHODS)
def test_one_member_has_all_the_weight(photos, truth, method):
    assert blending.METHODS[method](members_of(photos, [0.5]), truth).tolist() == pytest.approx([1])


def test_greedy_selection_equals_one_written_out_by_hand(photos, truth):
    members = members_of(photos, [1.5, 1.5, 2])
    bag, scored = [], []
    for _ in range(6):
        options = []
        for member in range(3):
            mean = members[[*bag, member]].mean(axis=0)
            loss = calibration.log_losses(mean, truth).mean()
            options.append((round(calibration.macro_f1(truth, mean.argmax(axis=1)), 9), -loss, member))
        score, _, pick = max(options, key=lambda option: option[:2])
        bag.append(pick)
        scored.append(score)
    best = bag[: int(np.argmax(scored)) + 1]
    assert blending.greedy_weights(members, truth, rounds=6).tolist() == pytest.approx(
        np.bincount(best, minlength=3) / len(best)
    )
    assert len(set(bag)) > 1  # or nothing was selected


def test_the_least_log_loss_is_that_of_a_fine_grid(photos, truth):
    members = members_of(photos, [1.2, 2, 1.6])
    grid = [(a, b, 1 - a - b) for a, b in itertools.product(np.linspace(0, 1, 41), repeat=2) if a + b <= 1]
    losses = [calibration.log_losses(np.tensordot(weights, members, axes=1), truth).mean() for weights in grid]
    found = blending.log_loss_weights(members, truth)
    loss = calibration.log_losses(np.tensordot(found, members, axes=1), truth).mean()
    assert loss <= min(losses) + 1e-6
    assert np.abs(found - grid[int(np.argmin(losses))]).max() < 0.03


def test_the_smooth_stand_in_raises_macro_f1(photos, truth):
    members = np.stack([*members_of(photos, [0.5]), *(random_member(len(truth), seed) for seed in range(3))])
    weights = blending.soft_f1_weights(members, truth)
    scored = [
        calibration.macro_f1(truth, np.tensordot(some, members, axes=1).argmax(axis=1))
        for some in (np.full(4, 0.25), weights)
    ]
    assert scored[1] > scored[0] + 0.01


def test_the_slope_of_the_smooth_stand_in_is_right(photos, truth, monkeypatch):
    taken = {}
    monkeypatch.setattr(blending, "_on_simplex", lambda loss, count: taken.update(loss=loss))
    blending.soft_f1_weights(members_of(photos, [0.5, 1, 2]), truth)
    at, step = np.array([0.5, 0.3, 0.2]), 1e-6
    numeric = [
        (taken["loss"](at + step * way)[0] - taken["loss"](at - step * way)[0]) / (2 * step) for way in np.eye(3)
    ]
    np.testing.assert_allclose(taken["loss"](at)[1], numeric, rtol=1e-4, atol=1e-8)


def test_a_recipe_blends_arrays_and_tables_alike(photos):
    members = members_of(photos, [0.5, 1])
    recipe = blending.Recipe((0.7, 0.3), (0.5, 2.0), tuple(np.linspace(-1, 1, 18)))
    tables = tables_of(photos, members)
    turned = [tables[0], tables[1].iloc[::-1].reset_index(drop=True)]
    found = recipe.blend_tables(turned, "path")
    mean = 0.7 * calibration.tempered(members[0], 0.5) + 0.3 * calibration.tempered(members[1], 2)
    np.testing.assert_allclose(recipe.blend(members), calibration.shifted(mean, np.linspace(-1, 1, 18)))
    np.testing.assert_allclose(found[opinions.COLUMNS], recipe.blend(members))
    assert found["path"].tolist() == photos["path"].tolist()


def test_a_plain_recipe_is_the_weighted_mean_bit_for_bit(photos):
    tables = tables_of(photos, members_of(photos, [1, 2]))
    found = blending.Recipe((0.75, 0.25)).blend_tables(tables, "path")
    pd.testing.assert_frame_equal(found, weighted_mean(tables, [0.75, 0.25], "path"), check_exact=True)


def test_a_recipe_for_other_members_is_refused(photos):
    members = members_of(photos, [0.5, 1])
    for recipe in (blending.Recipe((1.0,)), blending.Recipe((0.5, 0.5), (1.0,))):
        with pytest.raises(ValueError, match="was given 2"):
            recipe.blend(members)


def test_without_a_member_the_others_fill_its_place():
    recipe = blending.Recipe((0.5, 0.3, 0.2), (1.0, 2.0, 3.0))
    assert recipe.without(0).weights == pytest.approx((0.6, 0.4))
    assert recipe.without(0).temperatures == (2.0, 3.0)
    assert blending.Recipe((1.0, 0.0, 0.0)).without(0).weights == (0.5, 0.5)


def test_fitting_takes_the_steps_that_are_asked_for(photos, truth):
    members = np.stack([calibration.tempered(one, 3) for one in members_of(photos, [0.5, 1])])
    plain, tempered = (blending.fit(members, truth, tempering=tempering) for tempering in (False, True))
    assert (plain.temperatures, any(plain.offsets)) == ((), False)
    assert max(tempered.temperatures) < 0.6
    shifted = blending.fit(members, truth, shifting=True)
    expected = calibration.fit_offsets(members.mean(axis=0), truth)
    assert shifted.offsets == pytest.approx(expected)


def test_parts_keep_people_whole_and_differ_in_size_by_little(photos):
    parts = blending.person_parts(photos, 5)
    assert pd.Series(parts).groupby(photos["person"].to_numpy()).nunique().max() == 1
    assert np.bincount(parts).min() > 150
    with pytest.raises(ValueError, match="cannot fill 5 parts"):
        blending.person_parts(photos.head(21), 5)


def test_nesting_shows_a_part_nothing_that_was_fitted_on_it(photos, truth):
    """What is found for a part stays the same when the part's own labels are turned upside down."""
    members, parts = members_of(photos, [1, 2, 2]), blending.person_parts(photos, 3)
    upside_down = np.where(parts == 1, 17 - truth, truth)
    how = {"method": "simplex, log loss", "tempering": True, "shifting": True}
    found, other = (blending.nested_probabilities(members, labels, parts, **how) for labels in (truth, upside_down))
    np.testing.assert_array_equal(found[parts == 1], other[parts == 1])
    assert not np.array_equal(found[parts == 0], other[parts == 0])


def test_a_recipe_in_words_names_its_members_and_what_is_done_to_them():
    recipe = blending.Recipe((0.6, 0.4, 0.0), (1.0, 1.2, 2.0), (0.1, *[0.0] * 17))
    assert recipe.in_words(["deep", "wide", "idle"]) == "deep (60%), wide (40%, T 1.20), classes shifted"
    assert blending.Recipe((1.0,)).in_words(["one"]) == "one (100%)"
