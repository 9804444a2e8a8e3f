"""A planted temperature is found, and reliability is what counting by hand gives."""

import numpy as np
import pytest
import simulated
from sklearn.metrics import log_loss

from mask_lib.ensemble import calibration


@pytest.fixture(scope="module")
def calibrated() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are as sure as they are right, and labels drawn from them."""
    generator = np.random.default_rng(0)
    probabilities = simulated.softmax(2 * generator.normal(size=(6000, 18)))
    truth = (probabilities.cumsum(axis=1) > generator.random((6000, 1))).argmax(axis=1)
    return probabilities, truth


def test_log_losses_are_those_of_scikit_learn(calibrated):
    probabilities, truth = calibrated
    expected = log_loss(truth, probabilities, labels=range(18))
    assert calibration.log_losses(probabilities, truth).mean() == pytest.approx(expected)
    assert np.isfinite(calibration.log_losses(np.eye(18)[[3]], np.array([4]))).all()


@pytest.mark.parametrize("planted", [0.5, 1.0, 2.0])
def test_a_planted_temperature_is_found_and_undone(calibrated, planted):
    probabilities, truth = calibrated
    changed = calibration.tempered(probabilities, planted)
    assert calibration.fit_temperature(changed, truth) == pytest.approx(1 / planted, rel=0.05)
    np.testing.assert_allclose(calibration.tempered(changed, 1 / planted), probabilities, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.01, 0.3, 1, 5])
def test_a_temperature_leaves_sums_and_the_likeliest_class(calibrated, temperature):
    for probabilities in (calibrated[0], np.eye(18)):
        changed = calibration.tempered(probabilities, temperature)
        np.testing.assert_allclose(changed.sum(axis=1), 1)
        np.testing.assert_array_equal(changed.argmax(axis=1), probabilities.argmax(axis=1))
    assert 0.1 <= calibration.fit_temperature(np.eye(18), np.arange(18)) <= 1


def test_reliability_counts_by_hand():
    rows = np.zeros((4, 18))
    rows[:, 0], rows[:, 1] = [0.9, 0.95, 0.6, 1.0], [0.1, 0.05, 0.4, 0.0]
    table = calibration.reliability(rows, np.array([0, 1, 0, 0]), bins=10)
    assert table["photos"].tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 1, 2]
    assert table["confidence"].iloc[[5, 8, 9]].tolist() == pytest.approx([0.6, 0.9, 0.975])
    assert table["accuracy"].iloc[[5, 8, 9]].tolist() == [1, 1, 0.5]
    assert table["accuracy"].isna().sum() == 7
    assert calibration.calibration_error(table) == pytest.approx((0.4 + 0.1 + 2 * 0.475) / 4)
    table = calibration.reliability(rows[:0], np.empty(0, dtype=int))
    assert calibration.calibration_error(table) == 0 and len(table) == 10
