"""People unknown are found by what training people teach, within what a person's photos can be, and it is counted."""

import numpy as np
import pandas as pd
import pytest
import simulated

from mask_lib.base import labels
from mask_lib.ensemble import person_groups
from mask_lib.ensemble.members import probabilities_of


def pair_scores(group: np.ndarray, person: np.ndarray) -> tuple[float, float]:
    """Precision and recall of the pairs that (N,) groups join, by who (N,) is really shown; NaN without any pair."""
    joined, true = (np.triu(one[:, None] == one, 1) for one in (group, person))
    right = (joined & true).sum()
    return right / joined.sum() if joined.any() else float("nan"), right / true.sum()


def groups_of(vectors: np.ndarray, kinds: np.ndarray, limits: list[int]) -> np.ndarray:
    return person_groups.groups_after(person_groups.average_linkage(vectors, kinds, np.array(limits)), len(vectors))


@pytest.fixture(scope="module")
def finder() -> person_groups.PersonFinder:
    return person_groups.learn_people(*simulated.known_people(), evaluation_photos=84)


def test_what_a_person_has_is_learned_from_the_table():
    photos = simulated.people(20, np.random.default_rng(0))
    wrong = photos["label"].where(photos.index > 0, photos["label"] + 6)  # one photo is labeled as another kind
    united = photos["person"].where(photos["person"] != "0000001", "0000002")  # two people who share a copy
    changed = photos.assign(label=wrong, person=united)
    assert person_groups.person_limits(changed).tolist() == [5, 1, 1, 7]
    assert person_groups.photos_a_person(united) == 7
    assert person_groups.person_limits(photos.groupby("person").head(2)).tolist() == [2, 1, 1, 2]


def test_without_attributes_of_the_photo_their_number_alone_is_limited():
    with labels.using((labels.Attribute("sex", ("male", "female"), "mf", of_person=True),)):
        photos = pd.DataFrame({"person": list("aabb"), "label": [0, 0, 1, 1]})
        assert person_groups.person_limits(photos).tolist() == [2]
        assert person_groups.photo_kinds(np.eye(2)[photos["label"]]).tolist() == [[1]] * 4


def test_nobody_has_more_photos_than_a_person_can_have():
    same, kinds = np.ones((30, 4)) / 2, np.ones((30, 2), np.int64)
    kinds[9:, 0] = 0  # nine photos surely without a mask
    group = groups_of(same, kinds, [1, 7])
    assert np.bincount(group).max() == 7
    assert np.bincount(group, weights=kinds[:, 0]).max() == 1


def test_an_unsure_mask_keeps_nobody_apart():
    masks = np.array([[0.1, 0.1, 0.8]] * 3 + [[0.02, 0.02, 0.96]])
    even = {"gender": np.full((4, 2), 1 / 2), "age": np.full((4, 3), 1 / 3)}
    kinds = person_groups.photo_kinds(labels.joint({"mask": masks, **even}))
    assert kinds.tolist() == [[0, 0, 0, 1]] * 3 + [[0, 0, 1, 1]]
    assert len(set(groups_of(np.ones((3, 1)), kinds[:3], [5, 1, 1, 7]))) == 1


def test_the_joins_fall_in_similarity_so_that_one_pass_serves_every_threshold():
    (features,), test, _ = simulated.unknown_people(noise=1.1)
    projection = person_groups.fit_projection(features, np.arange(len(features)) // 7)
    vectors = person_groups.unit_vectors(features, *projection)
    kinds, limits = person_groups.photo_kinds(probabilities_of(test)), np.array([5, 1, 1, 7])
    joins = person_groups.average_linkage(vectors, kinds, limits)
    assert len(joins) > 20 and (np.diff([cosine for cosine, _, _ in joins]) <= 1e-9).all()
    least = joins[12][0]
    assert person_groups.average_linkage(vectors, kinds, limits, least) == joins[:13]


def test_clusters_join_by_their_mean_cosine():
    """Of three directions the two nearest join; the third is compared with their mean, not with the nearer one."""
    degrees = np.radians([0, 20, 50])
    vectors = np.column_stack([np.cos(degrees), np.sin(degrees)])
    joins = person_groups.average_linkage(vectors, np.ones((3, 1), np.int64), np.array([3]))
    expected = [np.cos(np.radians(20)), (np.cos(np.radians(30)) + np.cos(np.radians(50))) / 2]
    assert [cosine for cosine, _, _ in joins] == pytest.approx(expected)


def test_the_precision_curve_counts_pairs_and_a_crowd_counts_mistakes_up():
    joins, person = [(0.9, 0, 1), (0.8, 2, 3), (0.5, 0, 2)], np.array([0, 0, 1, 2])
    curve = person_groups.precision_curve(joins, person, crowding=1)
    assert curve["cosine"].tolist() == [0.9, 0.8, 0.5]
    assert curve["precision"].tolist() == pytest.approx([1, 1 / 2, 1 / 6]) and curve["recall"].tolist() == [1, 1, 1]
    crowded = person_groups.precision_curve(joins, person, crowding=3)
    assert crowded["precision"].tolist() == pytest.approx([1, 1 / 4, 1 / 16])


def test_unknown_people_are_found_in_any_order_though_masks_and_nuisance_are_louder(finder):
    (features,), test, person = simulated.unknown_people()
    found = finder.find_people([features], test)
    precision, recall = pair_scores(found, person)
    assert precision > 0.97 and recall > 0.8
    assert pd.unique(found).tolist() == list(range(found.max() + 1))
    turned = finder.find_people([features[::-1]], test.iloc[::-1])[::-1]
    assert pair_scores(turned, found) == (1.0, 1.0)


def test_several_arrays_and_small_pictures_describe_photos_together(finder):
    (features,), test, _ = simulated.unknown_people()
    (known,), photos = simulated.known_people()
    split = [[one[:, :20], one[:, 20:].reshape(-1, 4, 5)] for one in (known, features)]
    several = person_groups.learn_people(split[0], photos, evaluation_photos=84)
    np.testing.assert_array_equal(several.find_people(split[1], test), finder.find_people([features], test))


def test_people_are_never_judged_by_what_they_taught_themselves():
    """In features of pure chance each person can be learned by heart; found again they are not."""
    generator, (_, photos) = np.random.default_rng(5), simulated.known_people()
    noise, person = generator.normal(size=(len(photos), 200)), pd.factorize(photos["person"])[0]
    own = person_groups.unit_vectors(noise, *person_groups.fit_projection(noise, person))
    by_heart = groups_of(own, person_groups.photo_kinds(probabilities_of(photos)), [5, 1, 1, 7])
    assert pair_scores(by_heart, person)[1] > 0.5
    found = person_groups.learn_people([noise], photos, evaluation_photos=84)
    assert found.recall < 0.05 and len(np.unique(found.find_people([noise[:84]], photos[:84]))) > 74


def test_a_higher_precision_is_paid_for_in_recall_and_is_true_of_the_training_groups(monkeypatch):
    features, photos = simulated.known_people(noise=0.5)
    found = {}
    for wanted in (0.6, 0.95):
        monkeypatch.setattr(person_groups, "PRECISION", wanted)
        found[wanted] = finder = person_groups.learn_people(features, photos, evaluation_photos=84)
        assert finder.precision >= wanted
        # As many people are searched at once as there are to find, so nothing is counted up.
        scores = pair_scores(finder.group, photos["person"].to_numpy())
        assert scores == pytest.approx((finder.precision, finder.recall))
    assert found[0.95].threshold > found[0.6].threshold and found[0.95].recall < found[0.6].recall


def test_a_crowd_to_find_and_missing_photos_make_it_stricter(finder, monkeypatch):
    """A full group takes in no stranger; with gaps in it, it may, and the precision must be had then too."""
    case = simulated.known_people()
    assert person_groups.learn_people(*case, evaluation_photos=8400).threshold > finder.threshold
    monkeypatch.setattr(person_groups, "some_photos", lambda person, most, generator: np.ones(len(person), bool))
    assert person_groups.learn_people(*case, evaluation_photos=84).threshold < finder.threshold
    assert finder.precision >= person_groups.PRECISION


def test_masks_that_hide_who_wears_them_join_nobody_once_they_count_as_never_seen():
    """A look whose patterns drown the person: learned from, they are passed over; else strangers in alike ones join."""
    (features,), photos = simulated.known_people()
    patterns, draw = np.random.default_rng(1).normal(size=(4, 20)) * 8, np.random.default_rng(2)
    is_new = photos.groupby("person").cumcount().to_numpy() < 3
    worn = np.where(is_new[:, None], patterns[draw.integers(0, 4, len(photos))], draw.normal(size=(len(photos), 20)))
    arrays, held_out = [np.hstack([features, worn])], photos["path"][is_new]
    known = person_groups.learn_people(arrays, photos, evaluation_photos=84)
    asked = person_groups.learn_people(arrays, photos, evaluation_photos=84, held_out=held_out)
    assert known.recall > 0.7 and asked.recall < 0.5, (known.recall, asked.recall)
    np.testing.assert_array_equal(known.axes, asked.axes)  # in use is what all photos teach


def test_arrays_of_other_photos_too_few_people_and_features_that_are_no_numbers_are_refused(finder):
    (features,), photos = simulated.known_people()
    with pytest.raises(ValueError, match="3 people are too few"):
        person_groups.learn_people([features[:21]], photos[:21], evaluation_photos=84)
    with pytest.raises(ValueError, match="cannot reshape"):
        person_groups.learn_people([features, features[1:]], photos, evaluation_photos=84)
    features[5, 3] = np.nan
    with pytest.raises(ValueError, match="1 photos, first row 5"):
        finder.find_people([features], photos)


def test_hardly_any_photo_is_no_difficulty(finder):
    (features,), test, _ = simulated.unknown_people()
    assert finder.find_people([features[:1]], test[:1]).tolist() == [0]
    assert finder.find_people([features[:0]], test[:0]).tolist() == []
