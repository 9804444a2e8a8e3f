"""An epoch meets each photo once, or each class equally often; order and random numbers hang on the step alone."""

import numpy as np
import pytest

from mask_lib.training import dataset

SKEWED = np.repeat([0, 4, 17], [80, 19, 1])  # 80 photos of class 0, one of class 17


@pytest.mark.parametrize("kind", ["shuffle", "weighted"])
def test_an_epoch_is_as_many_photos_in_batches_of_nearly_one_size(kind):
    batches = dataset.batches(np.zeros(103, dtype=int), 16, seed=0, fold=1, epoch=2, sampling=kind)
    assert {len(batch) for batch in batches} == {14, 15}
    assert sum(map(len, batches)) == 103
    assert len(batches) == dataset.step_count(103, 16)


def test_shuffled_each_photo_comes_exactly_once():
    batches = dataset.batches(np.zeros(103, dtype=int), 16, seed=0, fold=1, epoch=2)
    assert sorted(np.concatenate(batches)) == list(range(103))


def test_weighted_each_class_present_is_as_likely_and_so_is_each_photo_within_it():
    shares = dataset.weighted_shares(SKEWED)
    for label in (0, 4, 17):
        assert shares[label == SKEWED].sum() == pytest.approx(1 / 3)
        assert np.ptp(shares[label == SKEWED]) == 0


def test_weighted_epochs_hold_the_classes_equally_often():
    drawn = [np.concatenate(dataset.batches(SKEWED, 16, 0, 0, epoch, "weighted")) for epoch in range(90)]
    counts = np.bincount(SKEWED[np.concatenate(drawn)], minlength=18)[[0, 4, 17]]
    assert counts.sum() == 90 * len(SKEWED)
    assert counts / counts.sum() == pytest.approx([1 / 3] * 3, abs=4 * (2 / 9 / 9000) ** 0.5)  # 4 deviations


@pytest.mark.parametrize("kind", ["shuffle", "weighted"])
def test_order_and_seeds_differ_between_epochs_folds_and_steps_and_come_again(kind):
    labels = np.arange(50) % 18
    places = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    orders = [tuple(np.concatenate(dataset.batches(labels, 8, *place, kind))) for place in places * 2]
    assert len(set(orders)) == 4
    assert orders[:4] == orders[4:]
    seeds = {
        dataset.step_seed(*place) for place in [(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0), (0, 1, 0, 0), (1, 0, 0, 0)]
    }
    assert len(seeds) == 5


def test_only_real_photos_are_counted_and_the_others_drawn_as_often_as_their_like():
    train_labels, is_real = np.append(SKEWED, [0, 17, -1]), np.append(np.ones(100, dtype=bool), [False] * 3)
    shares = dataset.weighted_shares(train_labels, is_real)
    plain = dataset.weighted_shares(SKEWED)
    np.testing.assert_allclose(shares[is_real] / shares[is_real].sum(), plain)
    pseudo, rare, partial = shares[100:]
    assert (pseudo, rare) == (shares[0], shares[99])
    assert partial == pytest.approx(shares[is_real].mean())


def test_a_class_of_pseudo_labels_alone_is_drawn_too():
    shares = dataset.weighted_shares(np.array([0, 0, 5]), np.array([True, True, False]))
    assert np.isfinite(shares).all() and shares[2] > 0
