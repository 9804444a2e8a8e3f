"""Temperatures and offsets find what was planted, and reliability is what counting by hand gives."""

import numpy as np
import opinions
import pandas as pd
import pytest
from sklearn.metrics import f1_score, log_loss

from mask_lib.ensemble import calibration


@pytest.fixture(scope="module")
def judged() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are as sure as they are right, and labels drawn from them."""
    generator = np.random.default_rng(0)
    probabilities = opinions.softmax(2 * generator.normal(size=(6000, 18)))
    truth = (probabilities.cumsum(axis=1) > generator.random((6000, 1))).argmax(axis=1)
    return probabilities, truth


def test_log_losses_are_those_of_scikit_learn(judged):
    probabilities, truth = judged
    expected = log_loss(truth, probabilities, labels=range(18))
    assert calibration.log_losses(probabilities, truth).mean() == pytest.approx(expected)
    assert np.isfinite(calibration.log_losses(np.eye(18)[[3]], np.array([4]))).all()


def test_the_quick_macro_f1_is_that_of_scikit_learn(judged):
    probabilities, truth = judged
    for rows in (slice(None), slice(5)):  # five photos: most classes do not occur
        predicted = probabilities[rows].argmax(axis=1)
        expected = f1_score(truth[rows], predicted, labels=range(18), average="macro", zero_division=0)
        assert calibration.macro_f1(truth[rows], predicted) == pytest.approx(expected)


@pytest.mark.parametrize("planted", [0.5, 1.0, 2.0])
def test_a_planted_temperature_is_found_and_undone(judged, planted):
    probabilities, truth = judged
    changed = calibration.tempered(probabilities, planted)
    found = calibration.fit_temperature(changed, truth)
    assert found == pytest.approx(1 / planted, rel=0.05)
    np.testing.assert_allclose(calibration.tempered(changed, 1 / planted), probabilities, atol=1e-9)


def test_a_temperature_leaves_sums_and_the_likeliest_class(judged):
    probabilities, _ = judged
    for temperature in (0.01, 0.3, 5):
        changed = calibration.tempered(probabilities, temperature)
        np.testing.assert_allclose(changed.sum(axis=1), 1)
        np.testing.assert_array_equal(changed.argmax(axis=1), probabilities.argmax(axis=1))


def test_a_temperature_of_one_changes_no_bit_and_certainty_is_no_obstacle(judged):
    assert calibration.tempered(judged[0], 1) is judged[0]
    np.testing.assert_array_equal(calibration.tempered(np.eye(18), 0.01), np.eye(18))
    assert 0.1 <= calibration.fit_temperature(np.eye(18), np.arange(18)) <= 1


@pytest.mark.parametrize("temperature", [0, -1, float("nan")])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(ValueError, match=r"temperature = .*must be above 0"):
        calibration.tempered(np.eye(18), temperature)


def test_offsets_bring_back_a_class_that_is_hardly_ever_predicted(judged):
    probabilities, truth = judged
    planted = np.zeros(18)
    planted[2] = -1.2
    changed = calibration.shifted(probabilities, planted)
    found = calibration.fit_offsets(changed, truth)
    before, after = (
        calibration.macro_f1(truth, some.argmax(axis=1)) for some in (changed, calibration.shifted(changed, found))
    )
    assert after > before
    assert found[2] - np.median(np.delete(found, 2)) > 0.6
    np.testing.assert_allclose(calibration.shifted(changed, found).sum(axis=1), 1)


def test_offsets_that_gain_nothing_are_not_taken():
    certain = np.eye(18) * 0.8 + 0.2 / 18
    np.testing.assert_array_equal(calibration.fit_offsets(certain, np.arange(18)), np.zeros(18))
    assert calibration.shifted(certain, np.zeros(18)) is certain


def test_reliability_counts_by_hand():
    rows = np.full((4, 18), 0.0)
    rows[:, 0], rows[:, 1] = [0.9, 0.95, 0.6, 1.0], [0.1, 0.05, 0.4, 0.0]
    table = calibration.reliability(rows, np.array([0, 1, 0, 0]), bins=10)
    assert table["photos"].tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 1, 2]
    assert table["confidence"].iloc[[5, 8, 9]].tolist() == pytest.approx([0.6, 0.9, 0.975])
    assert table["accuracy"].iloc[[5, 8, 9]].tolist() == [1, 1, 0.5]
    assert table["accuracy"].isna().sum() == 7
    assert calibration.calibration_error(table) == pytest.approx((0.4 + 0.1 + 2 * 0.475) / 4)


def test_the_calibration_error_tells_sure_from_right(judged):
    probabilities, truth = judged
    errors = [
        calibration.calibration_error(calibration.reliability(calibration.tempered(probabilities, value), truth))
        for value in (0.4, 1.0, 2.5)
    ]
    assert errors[1] < 0.03 < min(errors[0], errors[2])


def test_no_photos_have_no_error_and_no_bins_are_refused():
    table = calibration.reliability(np.empty((0, 18)), np.empty(0, dtype=int))
    assert calibration.calibration_error(table) == 0 and isinstance(table, pd.DataFrame)
    with pytest.raises(ValueError, match="bins = 0"):
        calibration.reliability(np.eye(18), np.arange(18), bins=0)
