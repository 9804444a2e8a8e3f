"""Photos are joined within what one person's can be, the likest first, and how right that is is counted."""

import lookalikes
import numpy as np
import pytest

from mask_lib.ensemble import voting


def test_everybody_keeps_from_one_to_seven_photos():
    person = np.repeat(np.arange(200), 7)
    kept = np.bincount(person, weights=voting.thinned(person, np.random.default_rng(0)))
    assert set(kept) == {1, 2, 3, 4, 5, 6, 7}


def test_nobody_has_more_photos_than_a_person_can_have():
    same = np.ones((30, 4)) / 2
    masks = np.zeros((30, 3), np.int64)
    masks[:9, 2] = 1  # nine photos surely without a mask
    group = voting.joined(voting.merges(same, masks), 30)
    assert np.bincount(group).max() == 7
    assert np.bincount(group, weights=masks[:, 2]).max() == 1


def test_an_unsure_mask_keeps_nobody_apart():
    unsure = lookalikes.table(*[lookalikes.probabilities([0.1, 0.1, 0.8], [0.5, 0.5], [1, 0, 0])] * 3)
    assert not voting.sure_masks(unsure).any()
    assert len(set(voting.joined(voting.merges(np.ones((3, 1)), voting.sure_masks(unsure)), 3))) == 1


def test_the_joins_fall_in_likeness_so_that_one_pass_serves_every_threshold():
    features, test, _ = lookalikes.unknown_people(noise=1.1)
    view = voting.fitted(features, np.arange(len(features)) // 7)
    likeness = [like for like, _, _ in voting.merges(view.vectors(features), voting.sure_masks(test))]
    assert len(likeness) > 20 and (np.diff(likeness) <= 1e-9).all()


@pytest.mark.parametrize(
    ("group", "person", "expected"),
    [
        ([0, 0, 1], ["a", "a", "b"], (1.0, 1.0)),
        ([0, 0, 0], ["a", "a", "b"], (1 / 3, 1.0)),
        ([0, 1, 0, 1], ["a", "a", "b", "b"], (0.0, 0.0)),
        ([0, 0, 1, 1], ["a", "a", "a", "a"], (1.0, 1 / 3)),
    ],
)
def test_pairs_are_counted(group, person, expected):
    assert voting.pair_scores(np.array(group), np.array(person)) == pytest.approx(expected)


def test_no_pair_joined_has_no_precision():
    precision, recall = voting.pair_scores(np.array([0, 1]), np.array(["a", "a"]))
    assert np.isnan(precision) and recall == 0
